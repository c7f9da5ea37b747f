"""Does a trajectory leave the fit-on set as time goes on: distance of each frame against time, with a trend number.

    d_f = median over atoms i of frame f of  min_j |z_i - z_j| ,   j in the fit-on set, same element

==========  ==========================================================================
symbol      meaning
==========  ==========================================================================
``z_i``     scores of atom i, all k components
``d_f``     distance of frame f, units of the scores
``ρ``       Spearman's rank correlation of d_f with time
==========  ==========================================================================

Neighbouring frames are alike, so that frames count for less than their number. The interval of ρ is that of Fisher's
transform, atanh ρ ± t √((1 + ρ²/2) / (n_eff - 3)) (D. G. Bonett, T. A. Wright, Psychometrika 65, 23, 2000), with
n_eff = n / g and g = 1 + 2 Σ r_τ, the statistical inefficiency of what is left of the ranks without their trend.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import KDTree
from scipy.special import stdtrit
from scipy.stats import rankdata

from mlipkit.analysis.coverage import Projected, frame_of, n_frames
from mlipkit.errors import DataError


@dataclass(frozen=True)
class Trend:
    """Spearman's ρ with its interval; `inefficiency` g: one independent frame in g; NaN ends when too few are left."""

    rho: float
    lower: float
    upper: float
    inefficiency: float
    confidence: float


@dataclass(frozen=True, eq=False)
class Timeline:
    """Distance of a trajectory from the fit-on set.

    Attributes:
        times: [F], the unit of the caller.
        distance: [F] median over all atoms.
        by_element: atomic number -> [F] median over its atoms; NaN in frames without.
        trend: of `distance`; trend_by_element: of each element.
    """

    times: np.ndarray
    distance: np.ndarray
    by_element: dict[int, np.ndarray]
    trend: Trend
    trend_by_element: dict[int, Trend]


def timeline(points: Projected, times: ArrayLike, fit_on: Projected, *, confidence: float = 0.95) -> Timeline:
    """Distance of each frame to the fit-on set against time.

    Args:
        points: the trajectory in score space; fit_on: the set it is compared with, same fit.
        times: [F] ascending.

    Raises:
        DataError: times do not fit the frames or do not ascend; an element that the fit-on set does not hold.
    """
    when = np.asarray(times, dtype=float)
    if when.shape != (n_frames(points),):
        raise DataError("one time per frame", where="timeline", expected=n_frames(points), found=when.shape)
    back = np.flatnonzero(~(np.diff(when) > 0))
    if len(back) or not np.isfinite(when).all():
        at = int(back[0]) + 1 if len(back) else 0
        raise DataError(
            "times do not ascend", where=("timeline", f"frame {at}"), found=f"{when[at]:g} after {when[at - 1]:g}",
            hint="Order the frames by time, one run at a time",
        )  # fmt: skip
    nearest = nearest_distance(points, fit_on)
    frame = frame_of(points)
    by_element = {int(z): _medians(nearest, frame, points.numbers == z, len(when)) for z in np.unique(points.numbers)}
    distance = _medians(nearest, frame, np.ones(len(frame), dtype=bool), len(when))
    return Timeline(
        when, distance, by_element, trend(when, distance, confidence),
        {z: trend(when, values, confidence) for z, values in by_element.items()},
    )  # fmt: skip


def nearest_distance(points: Projected, fit_on: Projected) -> np.ndarray:
    """Distance [N] of each atom to the nearest atom of its element in another set, units of the scores."""
    found = np.empty(len(points.numbers))
    for z in np.unique(points.numbers):
        there, rows = fit_on.numbers == z, points.numbers == z
        if not there.any():
            raise DataError("an element that the fit-on set does not hold", where="nearest_distance", found=int(z))
        found[rows] = KDTree(np.asarray(fit_on.projections)[there]).query(np.asarray(points.projections)[rows])[0]
    return found


def trend(times: ArrayLike, values: ArrayLike, confidence: float = 0.95) -> Trend:
    """Spearman's ρ of values with time, both [n]; pairs that are not finite are left out."""
    t, y = np.asarray(times, dtype=float), np.asarray(values, dtype=float)
    there = np.isfinite(t) & np.isfinite(y)
    n = int(there.sum())
    if n < 4 or np.ptp(y[there]) == 0:
        return Trend(np.nan, np.nan, np.nan, np.nan, confidence)
    a, b = rankdata(t[there]), rankdata(y[there])
    a, b = a - a.mean(), b - b.mean()
    rho = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    g = inefficiency(b - a * (a @ b) / (a @ a))
    left = n / g
    if left < 6 or abs(rho) >= 1:
        return Trend(rho, np.nan, np.nan, g, confidence)
    half = stdtrit(left - 2, 0.5 + confidence / 2) * np.sqrt((1 + rho**2 / 2) / (left - 3))
    return Trend(rho, float(np.tanh(np.arctanh(rho) - half)), float(np.tanh(np.arctanh(rho) + half)), g, confidence)


def inefficiency(values: ArrayLike) -> float:
    """Frames per independent frame, g = 1 + 2 Σ r_τ, summed while pairs of correlations stay positive (C. J. Geyer,
    Stat. Sci. 7, 473, 1992); at least 1."""
    x = np.asarray(values, dtype=float)
    x = x - x.mean()
    n = len(x)
    if n < 4 or not (x @ x) > 0:
        return 1.0
    size = 1 << (2 * n - 1).bit_length()
    power = np.abs(np.fft.rfft(x, size)) ** 2
    r = np.fft.irfft(power, size)[:n] / (x @ x)
    pairs = r[: n - n % 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    total = pairs[: negative[0] if len(negative) else len(pairs)].sum()
    return float(max(1.0, 2 * total - 1))


def _medians(values: np.ndarray, frame: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    order = np.flatnonzero(rows)
    ends = np.searchsorted(frame[order], np.arange(n + 1))
    return np.array([
        np.median(values[order[start:end]]) if end > start else np.nan
        for start, end in pairwise(ends)
    ])  # fmt: skip
