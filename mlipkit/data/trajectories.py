"""Which frames of a file follow each other in time. This decides how a set may be split; in doubt they do."""

from __future__ import annotations

from typing import Final

import numpy as np

UNKNOWN: Final = -2
"""The file says nothing about the trajectory of a frame (-1: it says that the frame belongs to none)."""

_SAMPLE = 64
_FEWEST = 10
_CORRELATED = 0.25
"""Å: vibrations at room temperature are this wide, so frames further apart have forgotten each other."""


def assign(
    numbers: np.ndarray,
    positions: np.ndarray,
    starts: np.ndarray,
    *,
    time: np.ndarray,
    stated: np.ndarray,
    source: np.ndarray,
    one_run: bool = False,
) -> tuple[np.ndarray, str]:
    """Trajectory of each frame of one file, numbered from 0, and how it was decided.

    Args:
        numbers [N], positions [N,3]: of the file's frames one after the other; starts: int64 [F+1].
        time: float64 [F], fs, NaN when unknown.
        stated: int [F], what the file says, `UNKNOWN` where it says nothing.
        source: int [F]; the same stated number in two sources means two trajectories.
        one_run: the format itself holds one run (OUTCAR).

    Returns:
        int32 [F] (-1 = not part of a trajectory), one sentence ("" when there is nothing to say).
    """
    n_frames = len(starts) - 1
    none = np.full(n_frames, -1, np.int32)
    if n_frames == 0:
        return none, ""
    if (stated != UNKNOWN).any():
        known = stated >= 0
        if known.any():
            pairs = np.stack([source[known], stated[known]], axis=1)
            distinct, inverse = np.unique(pairs, axis=0, return_inverse=True)
            one_source_each = len(np.unique(distinct[:, 1])) == len(distinct)
            none[known] = stated[known] if one_source_each else inverse.reshape(-1)
        return none, ""
    same = np.concatenate([[False], _same_system(numbers, starts)])
    if one_run:
        return _numbered(same), ""
    if np.isfinite(time).any():
        with np.errstate(invalid="ignore"):
            follows = same & np.concatenate([[False], np.diff(time) > 0])
        return _without_singles(_numbered(follows)), ""
    if n_frames < _FEWEST or not same[1:].all():
        return none, ""
    steps, distance = _displacements(positions.reshape(n_frames, -1, 3))
    if not np.median(steps) < min(0.5 * distance, _CORRELATED):
        return none, ""
    follows = np.concatenate([[False], steps < max(0.5 * distance, 5 * float(np.median(steps)))])
    text = (
        f"frames follow each other (atoms move {np.median(steps):.2g} Å from frame to frame, {distance:.2g} Å between "
        "distant ones): treated as a trajectory"
    )
    return _without_singles(_numbered(follows)), text


def _same_system(numbers: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """bool [F-1]: the frame has the same atoms, in the same order, as the one before."""
    counts = np.diff(starts)
    place = np.arange(starts[-1] - starts[0]) - np.repeat(starts[:-1] - starts[0], counts)
    weights = (2 * place.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (weights >> np.uint64(7)) * numbers.astype(np.uint64)
    sums = np.add.reduceat(mixed, starts[:-1] - starts[0])
    return (sums[1:] == sums[:-1]) & (counts[1:] == counts[:-1])


def _displacements(positions: np.ndarray) -> tuple[np.ndarray, float]:
    """Median over atoms of the displacement from each frame to the next [F-1], and between distant frames (median)."""
    n_frames = len(positions)
    steps = np.empty(n_frames - 1)
    rows = max(1, (1 << 20) // positions[0].size)
    for first in range(0, n_frames - 1, rows):
        part = positions[first : first + rows + 1]
        steps[first : first + rows] = np.median(np.linalg.norm(np.diff(part, axis=0), axis=2), axis=1)
    early = np.linspace(0, n_frames // 2 - 1, min(_SAMPLE, n_frames // 2)).astype(int)
    far = np.median(np.linalg.norm(positions[early + n_frames // 2] - positions[early], axis=2), axis=1)
    return steps, float(np.median(far))


def _numbered(follows: np.ndarray) -> np.ndarray:
    return (np.cumsum(~follows) - 1).astype(np.int32)


def _without_singles(numbers: np.ndarray) -> np.ndarray:
    """A run of one frame is no trajectory; the others are renumbered without gaps."""
    long = np.bincount(numbers)[numbers] > 1
    result = np.full(len(numbers), -1, np.int32)
    if long.any():
        result[long] = np.unique(numbers[long], return_inverse=True)[1].reshape(-1)
    return result
