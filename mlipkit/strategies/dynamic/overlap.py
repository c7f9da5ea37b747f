"""How long a neighbour list stays the right one along a run: Jaccard index of lists some frames apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols

from mlipkit.data.neighbours import NeighbourCache
from mlipkit.errors import SpecError
from mlipkit.strategies.dynamic.runs import AIMDRuns

ENOUGH = 0.95
"""Least index of any element at which a list is still used."""


def edge_overlap(
    runs: AIMDRuns, cutoff: float, lags: Sequence[int] = tuple(range(1, 10)), most: int = 200
) -> dict[str, np.ndarray]:
    """J(τ) = <|N(t) ∩ N(t+τ)| / |N(t) ∪ N(t+τ)|> of the neighbours of each element's atoms.

    Neighbours are counted with their image, in unwrapped positions; two empty lists are equal (1).

    Args:
        cutoff: Å. lags: τ in frames.
        most: frames t at most, evenly spread over all runs.

    Raises:
        SpecError: lags that are no whole numbers of at least 1.

    Returns:
        element -> index at each lag; NaN where no run is that long.
    """
    if any(lag != int(lag) or lag < 1 for lag in lags):
        raise SpecError("out of range", where="lags", expected="whole numbers of at least 1", found=list(lags))
    cache, frames, run_of = NeighbourCache(runs.frames, cutoff), runs.frames, runs.run_of
    sums = {z: np.zeros((2, len(lags))) for z in frames.elements}
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).astype(int))
    for t in chosen:
        here = _keys(cache, int(t))
        numbers = frames.numbers[frames.offsets[t] : frames.offsets[t + 1]]
        for k, lag in enumerate(lags):
            if t + lag >= len(frames) or run_of[t + lag] != run_of[t]:
                continue
            index = _jaccard(here, _keys(cache, int(t + lag)), len(numbers))
            for z in sums:
                mine = index[numbers == z]
                sums[z][0, k] += mine.sum()
                sums[z][1, k] += len(mine)
    with np.errstate(invalid="ignore"):
        return {chemical_symbols[z]: total / count for z, (total, count) in sums.items()}


def suggested_refresh(overlap: dict[str, np.ndarray], lags: Sequence[int], least: float = ENOUGH) -> int:
    """Largest lag up to which every element's index stays at `least` or above; 1 when none does."""
    worst = np.nanmin(np.stack(list(overlap.values())), axis=0)
    good = 1
    for lag, value in sorted(zip(lags, worst, strict=True)):
        if not value >= least:
            break
        good = max(good, int(lag))
    return good


def _keys(cache: NeighbourCache, frame: int) -> np.ndarray:
    """Rows (receiver, sender, image) of a list as structured values, which sets can be made of."""
    edges, shift = cache.get(frame)
    table = np.concatenate([edges[::-1].T.astype(np.int64), np.asarray(shift, np.int64)], axis=1)
    return np.ascontiguousarray(table).view([("", np.int64)] * table.shape[1]).ravel()


def _jaccard(one: np.ndarray, other: np.ndarray, n_atoms: int) -> np.ndarray:
    both = np.intersect1d(one, other)
    count = [np.bincount(part["f0"], minlength=n_atoms) for part in (both, one, other)]
    union = count[1] + count[2] - count[0]
    return np.where(union > 0, count[0] / np.maximum(union, 1), 1.0)
