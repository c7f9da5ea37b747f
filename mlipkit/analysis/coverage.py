"""Which part of one set another set leaves out: occupied bins and nearest neighbours in score space, by element.

    U(A\\B) = |bins of A not in B| / |bins of A| ,    J = |A ∩ B| / |A ∪ B|
    D(A\\B) = share of atoms i in A with  min_j |z_i - z_j| > limit ,   j in B, same element

==========  ==========================================================================
symbol      meaning
==========  ==========================================================================
bins        squares of width h in the plane of two components, apart for each element (units of the scores)
``z_i``     scores of atom i, all k components
limit       99th percentile of the same distance within B, an atom's own frame left out
==========  ==========================================================================

A set of more frames fills more bins. Both sets therefore come down to the same number of frames, by drawing from the
larger one, and a bootstrap draws frames, not atoms (atoms of a frame are no independent witnesses).

A bootstrap sample holds about 63 % of the distinct frames, so that fewer bins are filled and everything looks further
apart: the draws sit beside the estimate. Their spread is right and their place is not; the interval is the spread of
the draws around their own mean, put around the estimate.

Source: the figures of arXiv 2603.10159 draw set B in white over set A; the numbers are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from scipy.spatial import KDTree

from mlipkit.errors import DataError

WIDTHS = (0.05, 0.1, 0.2)
"""Bin widths in units of the scores."""
SPLITS = 20
"""Drawings of the larger set over which an estimate is averaged."""


class Projected(Protocol):
    """Atoms in score space, frame after frame (`Scores` is one)."""

    @property
    def projections(self) -> np.ndarray: ...
    @property
    def numbers(self) -> np.ndarray: ...
    @property
    def offsets(self) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Points:
    """Atoms in score space.

    Attributes:
        projections: [N, k] scores, all sets from one fit.
        numbers: [N] atomic numbers.
        offsets: [F+1] first atom of each frame.
    """

    projections: np.ndarray
    numbers: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, projections: ArrayLike, numbers: ArrayLike, offsets: ArrayLike) -> Points:
        """Checked arrays.

        Raises:
            DataError: shapes do not belong together, or scores are not finite.
        """
        scores, kinds = np.asarray(projections, dtype=float), np.asarray(numbers, dtype=np.int64)
        ends = np.asarray(offsets, dtype=np.int64)
        if (
            scores.ndim != 2
            or kinds.shape != scores.shape[:1]
            or len(ends) < 2
            or ends[0] != 0
            or ends[-1] != len(scores)
        ):
            raise DataError("scores, numbers and offsets do not belong together", where="Points",
                            found=f"{scores.shape}, {kinds.shape}, offsets to {ends[-1:].tolist()}")  # fmt: skip
        if not np.isfinite(scores).all():
            raise DataError("scores are not finite", where="Points", hint="Look for broken frames")
        return cls(scores, kinds, ends)


@dataclass(frozen=True, eq=False)
class Share:
    """A fraction with its interval; arrays [elements + 1], the last entry for all elements together."""

    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True, eq=False)
class Coverage:
    """What A holds and B does not, and the reverse.

    Attributes:
        elements: atomic numbers; shares have one more entry, all elements together.
        n_frames: frames of each set that were compared.
        widths: bin widths h.
        only_a, only_b, jaccard: of each width, U(A\\B), U(B\\A) and J.
        beyond_b: share of A's atoms further from B than B's own frames are from each other; beyond_a: the reverse.
        limit_b, limit_a: these distances per element [elements] (99th percentile), units of the scores.
        confidence: of the intervals.
    """

    elements: np.ndarray
    n_frames: int
    widths: tuple[float, ...]
    only_a: tuple[Share, ...]
    only_b: tuple[Share, ...]
    jaccard: tuple[Share, ...]
    beyond_b: Share
    beyond_a: Share
    limit_b: np.ndarray
    limit_a: np.ndarray
    confidence: float


def coverage(
    a: Projected, b: Projected, *, widths: Sequence[float] = WIDTHS, components: tuple[int, int] = (0, 1),
    confidence: float = 0.95, n_draws: int = 200, max_frames: int = 300, seed: int = 0,
) -> Coverage:  # fmt: skip
    """Compare two sets that were projected by the same fit.

    Args:
        a, b: atoms in score space; neither needs to hold every element of the other.
        widths: bin widths, units of the scores.
        components: which two span the plane of the bins.
        n_draws: bootstrap draws of frames.
        max_frames: larger sets are drawn down to this many frames.
        seed: of all drawing.

    Raises:
        DataError: fewer than two frames, different numbers of components, no such components, widths that are not
            positive, scores that are not finite.
    """
    if not all(0 < width < np.inf for width in widths):
        raise DataError("bins need a width", where="widths", expected="more than 0", found=tuple(widths))
    for name, one in (("a", a), ("b", b)):
        if not all(0 <= c < one.projections.shape[1] for c in components):
            raise DataError("no such components", where=("coverage", name), found=components,
                            expected=f"two of 0 to {one.projections.shape[1] - 1}")  # fmt: skip
        if not np.isfinite(one.projections).all():
            raise DataError("scores are not finite", where=("coverage", name), hint="Look for broken frames")
    rng = np.random.default_rng(seed)
    a, b = (_at_most(one, max_frames, rng) for one in (a, b))
    n = min(n_frames(a), n_frames(b))
    if n < 2 or a.projections.shape[1] != b.projections.shape[1]:
        raise DataError("two sets of at least two frames and equal components are compared", where="coverage",
                        found=f"{n_frames(a)} and {n_frames(b)} frames, scores {a.projections.shape[1]} and "
                        f"{b.projections.shape[1]}")  # fmt: skip
    elements = np.union1d(a.numbers, b.numbers)
    estimates = [(_subset(n_frames(a), n, rng), _subset(n_frames(b), n, rng)) for _ in range(SPLITS)]
    if n_frames(a) == n_frames(b):
        estimates = estimates[:1]
    draws = [(_redraw(n_frames(a), n, rng), _redraw(n_frames(b), n, rng)) for _ in range(n_draws)]
    pairs = [*estimates, *draws]
    kept = [np.stack([one[side] for one in pairs]) for side in (0, 1)]

    only_a, only_b, jaccard = [], [], []
    for width in widths:
        for kept_shares, values in zip(
            (only_a, only_b, jaccard), _bins(a, b, width, components, elements, kept), strict=True
        ):
            kept_shares.append(_share(values, len(estimates), confidence))
    near = _distances(a, b, elements)
    beyond_b, limit_b = _beyond(near["ab"], near["bb"], a, b, elements, kept[0], kept[1])
    beyond_a, limit_a = _beyond(near["ba"], near["aa"], b, a, elements, kept[1], kept[0])
    n_estimates = len(estimates)
    return Coverage(
        elements=elements, n_frames=n, widths=tuple(widths), only_a=tuple(only_a), only_b=tuple(only_b),
        jaccard=tuple(jaccard), beyond_b=_share(beyond_b, n_estimates, confidence),
        beyond_a=_share(beyond_a, n_estimates, confidence), limit_b=limit_b[:n_estimates].mean(axis=0),
        limit_a=limit_a[:n_estimates].mean(axis=0), confidence=confidence,
    )  # fmt: skip


def occupied(points: Projected, width: float, components: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Occupied bins [n, 4], each once: frame, atomic number, column, row of the bin (multiples of the width)."""
    cells = np.floor(np.asarray(points.projections)[:, list(components)] / width).astype(np.int64)
    frame = frame_of(points)
    return np.unique(np.column_stack([frame, points.numbers, cells]), axis=0)


def n_frames(points: Projected) -> int:
    """Number of frames."""
    return len(points.offsets) - 1


def frame_of(points: Projected) -> np.ndarray:
    """Frame of each atom [N]."""
    return np.repeat(np.arange(n_frames(points)), np.diff(points.offsets))


def select_frames(points: Projected, frames: ArrayLike) -> Points:
    """These frames, in this order."""
    index = np.asarray(frames, dtype=np.int64)
    sizes = np.diff(points.offsets)[index]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.arange(ends[-1]) - np.repeat(ends[:-1] - np.asarray(points.offsets)[index], sizes)
    return Points(np.asarray(points.projections)[rows], np.asarray(points.numbers)[rows], ends)


def nearest_by_frame(a: Projected, b: Projected, elements: ArrayLike) -> np.ndarray:
    """Distance [N_a, F_b] of each atom of A to the nearest atom of its element in each frame of B; infinite without."""
    scores, kinds = np.asarray(a.projections, dtype=float), np.asarray(a.numbers)
    found = np.full((len(scores), n_frames(b)), np.inf, dtype=np.float32)
    for frame, (start, end) in enumerate(zip(b.offsets[:-1], b.offsets[1:], strict=True)):
        for z in np.asarray(elements):
            there = np.flatnonzero(b.numbers[start:end] == z) + start
            rows = np.flatnonzero(kinds == z)
            if len(there) and len(rows):
                found[rows, frame] = KDTree(b.projections[there]).query(scores[rows])[0]
    return found


def _bins(
    a: Projected, b: Projected, width: float, components: tuple[int, int], elements: np.ndarray, kept: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U(A\\B), U(B\\A), J for each pair of frame weights: each [pairs, elements + 1]."""
    tables = [occupied(one, width, components) for one in (a, b)]
    keys, index = np.unique(np.concatenate(tables)[:, 1:], axis=0, return_inverse=True)
    index = index.reshape(-1)
    of_element = (keys[:, 0][:, None] == elements).astype(np.float32)
    of_element = np.column_stack([of_element, np.ones(len(keys), dtype=np.float32)])
    filled = []
    for table, columns, weights, one in zip(tables, np.split(index, [len(tables[0])]), kept, (a, b), strict=True):
        there = csr_matrix((np.ones(len(table), np.float32), (table[:, 0], columns)), (n_frames(one), len(keys)))
        filled.append(((weights > 0).astype(np.float32) @ there) > 0)
    in_a, in_b = filled
    with np.errstate(invalid="ignore", divide="ignore"):
        counts = [np.asarray(mask, np.float32) @ of_element for mask in (in_a, in_b, in_a & in_b, in_a | in_b)]
        size_a, size_b, both, either = counts
        return 1 - both / size_a, 1 - both / size_b, both / either


def _distances(a: Projected, b: Projected, elements: np.ndarray) -> dict[str, np.ndarray]:
    """All four distance tables; an atom's own frame is infinitely far."""
    tables = {
        "ab": nearest_by_frame(a, b, elements), "ba": nearest_by_frame(b, a, elements),
        "aa": nearest_by_frame(a, a, elements), "bb": nearest_by_frame(b, b, elements),
    }  # fmt: skip
    for name, one in (("aa", a), ("bb", b)):
        tables[name][np.arange(len(tables[name])), frame_of(one)] = np.inf
    return tables


def _beyond(
    across: np.ndarray, within: np.ndarray, a: Projected, b: Projected, elements: np.ndarray, weights_a: np.ndarray,
    weights_b: np.ndarray, percentile: float = 99.0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Share of A's atoms beyond B's limit [pairs, elements + 1] and the limits [pairs, elements]."""
    of_a, of_b = frame_of(a), frame_of(b)
    shares = np.full((len(weights_a), len(elements) + 1), np.nan)
    limits = np.full((len(weights_a), len(elements)), np.nan)
    kinds_a, kinds_b = ([np.flatnonzero(one.numbers == z) for z in elements] for one in (a, b))
    for draw, (times_a, times_b) in enumerate(zip(weights_a, weights_b, strict=True)):
        chosen = np.flatnonzero(times_b)
        far, inside = across[:, chosen].min(axis=1), within[:, chosen].min(axis=1)
        counted, beyond = np.zeros(len(elements)), np.zeros(len(elements))
        for e, (rows, own) in enumerate(zip(kinds_a, kinds_b, strict=True)):
            spread = np.repeat(inside[own], times_b[of_b[own]])
            spread = spread[np.isfinite(spread)]
            # An element that B does not hold is outside it wherever it lies.
            limits[draw, e] = np.percentile(spread, percentile) if len(spread) else np.nan
            times = times_a[of_a[rows]]
            outside = far[rows] > limits[draw, e] if len(spread) else ~np.isfinite(far[rows])
            counted[e], beyond[e] = times.sum(), (times * outside).sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            shares[draw] = np.append(beyond / counted, beyond.sum() / counted.sum())
    return shares, limits


def _share(values: np.ndarray, n_estimates: int, confidence: float) -> Share:
    estimate, draws = values[:n_estimates].mean(axis=0), values[n_estimates:]
    if not len(draws):
        return Share(estimate, np.full_like(estimate, np.nan), np.full_like(estimate, np.nan))
    low, high = np.full_like(estimate, np.nan), np.full_like(estimate, np.nan)
    for column in np.flatnonzero(np.isfinite(draws).any(axis=0)):
        around = draws[:, column] - np.nanmean(draws[:, column])
        low[column], high[column] = np.nanquantile(around, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Share(estimate, np.clip(estimate + low, 0, 1), np.clip(estimate + high, 0, 1))


def _at_most(points: Projected, limit: int, rng: np.random.Generator) -> Projected:
    if n_frames(points) <= limit:
        return points
    return select_frames(points, np.sort(rng.permutation(n_frames(points))[:limit]))


def _subset(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    weights = np.zeros(n, dtype=np.int64)
    weights[rng.permutation(n)[:size]] = 1
    return weights


def _redraw(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    return np.bincount(rng.integers(n, size=size), minlength=n)
