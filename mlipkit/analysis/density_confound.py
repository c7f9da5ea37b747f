"""How much of a shift between two sets goes along with density, and what remains where their densities agree.

    m_f = a_set + b ρ_f          scores of frame f, mean over atoms, on its density; one slope b for both sets
    d   = m̄_A - m̄_B             the shift
    s   = d · b (ρ̄_A - ρ̄_B) / |d|²      share of the shift that density explains

==========  =============================================================================
symbol      meaning
==========  =============================================================================
``m_f``     [k] scores of a frame; ``m̄`` mean over the frames of a set
``ρ_f``     density of the frame, g/cm³
``b``       [k] slope within the sets, so that the shift itself does not enter it
==========  =============================================================================

A share near one says that the sets differ by what density does within each of them anyway; it is no proof of cause.
The second answer needs no line: frames are paired by density, and axes and coverage found again on the pairs alone,
beside as many frames drawn without regard to density.

Structures that are in both sets are left out of both answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlipkit.analysis.coverage import Coverage, Points, Projected, coverage, n_frames, select_frames
from mlipkit.analysis.density import densities
from mlipkit.analysis.descriptors import Descriptor, Rows
from mlipkit.analysis.pca import fit_pca
from mlipkit.data.frameset import FrameSet

TOLERANCE = 0.01
"""Share of the mean density by which paired frames may differ."""
FEWEST = 4
"""Pairs below which no axes are fitted."""
DRAWINGS = 5
_DRAWS = 500


@dataclass(frozen=True, eq=False)
class DensityShare:
    """What density explains of the shift between two sets.

    Attributes:
        n_frames: of each set, without structures that both hold.
        density: g/cm³, mean of each set.
        shift: |d|, units of the scores.
        share: of the shift that goes along with density; low, high: 95 % interval over frames.
        correlation: Pearson's r of density and place along the shift, over the frames of both sets.
    """

    n_frames: tuple[int, int]
    density: tuple[float, float]
    shift: float
    share: float
    low: float
    high: float
    correlation: float


@dataclass(frozen=True, eq=False)
class Matched:
    """Two sets where their densities agree.

    Attributes:
        tolerance: g/cm³ by which paired frames differ at most.
        uids: uint64 [n], [n] of the paired frames.
        density: g/cm³, mean of each side of the pairs. ranges: least and most of each set.
        explained: [k] share of the variance along axes fitted on the pairs; None with too few of them.
        coverage: of the pairs along these axes; None with too few.
        same_axes, unmatched: measure -> value of the pairs along the axes of all frames, and of as many frames drawn
            without regard to density (mean of `DRAWINGS` drawings): "only_a", "only_b", "jaccard" (middle bin width),
            "beyond_b", "beyond_a".
    """

    tolerance: float
    uids: tuple[np.ndarray, np.ndarray]
    density: tuple[float, float]
    ranges: tuple[tuple[float, float], tuple[float, float]]
    explained: np.ndarray | None
    coverage: Coverage | None
    same_axes: Mapping[str, float]
    unmatched: Mapping[str, float]

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.uids[0])


def density_share(
    a: Projected, b: Projected, density_a: np.ndarray, density_b: np.ndarray, seed: int = 0
) -> DensityShare | None:
    """Share of the shift between two sets that density explains.

    Args:
        a, b: atoms in score space, from one fit.
        density_a, density_b: g/cm³ of each frame; NaN where it has none.

    Returns:
        None where fewer than three frames of a set have a density, or density is the same in all of them.
    """
    sides = []
    for points, density in ((a, density_a), (b, density_b)):
        known = np.isfinite(density)
        sides.append((_frame_means(points)[known], np.asarray(density)[known]))
    if min(len(density) for _, density in sides) < 3:
        return None
    value = _share(*sides)
    if value is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_DRAWS):
        rows = [rng.integers(len(density), size=len(density)) for _, density in sides]
        one = _share(*((means[r], density[r]) for (means, density), r in zip(sides, rows, strict=True)))
        if one is not None:
            drawn.append(one)
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (np.nan, np.nan)
    d = sides[0][0].mean(axis=0) - sides[1][0].mean(axis=0)
    place = np.concatenate([means for means, _ in sides]) @ d
    r = np.corrcoef(place, np.concatenate([density for _, density in sides]))[0, 1]
    return DensityShare(
        (len(sides[0][1]), len(sides[1][1])), (float(sides[0][1].mean()), float(sides[1][1].mean())),
        float(np.linalg.norm(d)), value, float(low), float(high), float(r),
    )  # fmt: skip


def match(first: np.ndarray, second: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Most pairs (i [n], j [n]) with |first[i] - second[j]| <= tolerance, each frame once; NaN is never paired."""
    order = [np.argsort(x, kind="stable")[: int(np.isfinite(x).sum())] for x in (first, second)]
    i = j = 0
    found: list[tuple[int, int]] = []
    # Taking the lowest pair that fits never costs a later one.
    while i < len(order[0]) and j < len(order[1]):
        a, b = first[order[0][i]], second[order[1][j]]
        if abs(a - b) <= tolerance:
            found.append((int(order[0][i]), int(order[1][j])))
            i, j = i + 1, j + 1
        elif a < b:
            i += 1
        else:
            j += 1
    pairs = np.array(found, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def matched_by_density(
    a: FrameSet, b: FrameSet, scores: tuple[Projected, Projected], descriptor: Descriptor, components: int, *,
    tolerance: float = TOLERANCE, most: int = 50, seed: int = 0,
) -> Matched:  # fmt: skip
    """Pair the frames of two sets by density, and find axes and coverage on the pairs alone.

    Args:
        a, b: the sets, without structures that both hold.
        scores: their atoms along the axes of all frames.
        components: of the axes of the pairs.
        tolerance: share of the mean density by which paired frames may differ.
        most: pairs used at most, evenly over the densities.
    """
    density = densities(a), densities(b)
    known = np.concatenate([x[np.isfinite(x)] for x in density])
    width = tolerance * float(known.mean()) if len(known) else np.nan
    rows = match(*density, width)
    if len(rows[0]) > most:
        thin = np.linspace(0, len(rows[0]) - 1, most).round().astype(np.int64)
        rows = rows[0][thin], rows[1][thin]
    n = len(rows[0])
    means = _mean(density[0][rows[0]]), _mean(density[1][rows[1]])
    ranges = _ends(density[0]), _ends(density[1])
    uids = np.asarray(a.uids)[rows[0]], np.asarray(b.uids)[rows[1]]
    if n < FEWEST:
        return Matched(width, uids, means, ranges, None, None, {}, {})
    parts = a.select(rows[0]), b.select(rows[1])
    found = Rows(descriptor, FrameSet.concat(list(parts)))
    plane = fit_pca(found, min(components, n * int(parts[0].n_atoms.min())), seed)
    z = np.concatenate([plane.transform(X) for _, _, X in found])
    cut = int(parts[0].offsets[-1])
    both = (
        Points.of(z[:cut], parts[0].numbers, parts[0].offsets),
        Points.of(z[cut:], parts[1].numbers, parts[1].offsets),
    )
    same = coverage(
        select_frames(scores[0], rows[0]),
        select_frames(scores[1], rows[1]),
        components=plane_of(scores[0]),
        n_draws=0,
        seed=seed,
    )
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(DRAWINGS):
        chosen = [np.sort(rng.permutation(n_frames(one))[:n]) for one in scores]
        some = [select_frames(one, index) for one, index in zip(scores, chosen, strict=True)]
        drawn.append(measures_of(coverage(*some, components=plane_of(scores[0]), n_draws=0, seed=seed)))
    unmatched = {name: float(np.mean([one[name] for one in drawn])) for name in drawn[0]}
    pairs = coverage(*both, components=plane_of(both[0]), seed=seed)
    return Matched(width, uids, means, ranges, plane.explained, pairs, measures_of(same), unmatched)


def measures_of(found: Coverage) -> dict[str, float]:
    """Shares of all elements together, of the middle bin width."""
    middle = len(found.widths) // 2
    return {
        "only_a": float(found.only_a[middle].value[-1]), "only_b": float(found.only_b[middle].value[-1]),
        "jaccard": float(found.jaccard[middle].value[-1]), "beyond_b": float(found.beyond_b.value[-1]),
        "beyond_a": float(found.beyond_a.value[-1]),
    }  # fmt: skip


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _ends(values: np.ndarray) -> tuple[float, float]:
    return float(np.nanmin(values)), float(np.nanmax(values))


def plane_of(points: Projected) -> tuple[int, int]:
    """The first two axes, or the only one twice."""
    return 0, min(1, points.projections.shape[1] - 1)


def _share(first: tuple[Any, Any], second: tuple[Any, Any]) -> float | None:
    d = first[0].mean(axis=0) - second[0].mean(axis=0)
    step = first[1].mean() - second[1].mean()
    means = np.concatenate([m - m.mean(axis=0) for m, _ in (first, second)])
    density = np.concatenate([x - x.mean() for _, x in (first, second)])
    spread = float((density**2).sum())
    if not (spread > 1e-12 and (d**2).sum() > 0):
        return None
    slope = density @ means / spread
    return float(d @ slope * step / (d @ d))


def _frame_means(points: Projected) -> np.ndarray:
    return (
        np.add.reduceat(np.asarray(points.projections, float), points.offsets[:-1]) / np.diff(points.offsets)[:, None]
    )
