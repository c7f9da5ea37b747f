"""Runs in order of time: which frames form one, and which share a block of time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError

EQUAL = 1e-3
"""Share of the median spacing by which frames may be off and still count as equally spaced."""


def runs(frames: FrameSet) -> Iterator[tuple[int, FrameSet]]:
    """(trajectory number, its frames in order of time) for every trajectory, in order of number.

    Frames that belong to none (-1) come first, as they stand.
    """
    for number in np.unique(frames.trajectory):
        rows = np.flatnonzero(frames.trajectory == number)
        time = frames.time[rows]
        if number >= 0 and np.isfinite(time).all():
            rows = rows[np.argsort(time, kind="stable")]
        yield int(number), frames.select(rows)


def one_run(frames: FrameSet, where: str) -> np.ndarray:
    """Times [F] in fs of frames that must be one run: the same atoms in the same order, time that only grows.

    Raises:
        DataError: fewer than two frames, several trajectories, other atoms, times that are missing or not in order.
    """
    if len(frames) < 2:
        raise DataError("at least two frames of one run are needed", where=where, found=len(frames))
    found = np.unique(frames.trajectory)
    if len(found) > 1:
        raise DataError(
            "frames of several trajectories", where=where, expected="one", found=len(found),
            hint="Take one after the other: for number, run in mlipkit.analysis.runs(frames)",
        )  # fmt: skip
    sizes = np.unique(frames.n_atoms)
    if len(sizes) > 1:
        raise DataError("frames of different size", where=where, expected="the same atoms in all", found=sizes.tolist())
    numbers = frames.numbers.reshape(len(frames), -1)
    other = np.flatnonzero((numbers != numbers[0]).any(axis=1))
    if len(other):
        raise DataError(
            "other atoms, or another order of atoms", where=(where, f"frame {other[0]}"), expected="those of frame 0"
        )
    time = np.asarray(frames.time, dtype=float)
    if not np.isfinite(time).all():
        raise DataError(
            "frames without a time", where=(where, f"frame {np.flatnonzero(~np.isfinite(time))[0]}"),
            hint="Give times in fs: frames.with_table(time=...)",
        )  # fmt: skip
    back = np.flatnonzero(np.diff(time) <= 0)
    if len(back):
        at = int(back[0])
        raise DataError(
            "frames are not in order of time", where=(where, f"frame {at + 1}"), expected=f"after {time[at]:g} fs",
            found=f"{time[at + 1]:g} fs", hint="Order them: frames.select(np.argsort(frames.time))",
        )  # fmt: skip
    return time


def equal_spacing(time: np.ndarray) -> float | None:
    """Spacing in fs of equally spaced times [F], None when they are not."""
    steps = np.diff(time)
    spacing = float(np.median(steps))
    return spacing if np.abs(steps - spacing).max() <= EQUAL * spacing else None


def time_blocks(trajectory: np.ndarray, time: np.ndarray, length: float) -> np.ndarray:
    """Number of the block of time that each frame lies in, int [F]: frames of a run that are nearer than `length`.

    Frames without a time, or of no trajectory, are blocks of their own.

    Args:
        trajectory: int [F]; time: fs [F]; length: fs, infinite for whole runs, which need no time.

    Raises:
        DataError: a length that is not positive.
    """
    if not length > 0:
        raise DataError("blocks of time need a length", where="block", expected="more than 0 fs", found=f"{length} fs")
    known = (trajectory >= 0) & (np.isfinite(time) | np.isinf(length))
    within = np.zeros(len(time), np.int64)
    for number in np.unique(trajectory[known]):
        rows = known & (trajectory == number)
        if np.isfinite(length):
            within[rows] = np.floor((time[rows] - time[rows].min()) / length * (1 + 1e-12)).astype(np.int64)
    alone = np.where(known, -1, np.arange(len(time)))
    # By run and time, so that blocks with neighbouring numbers are neighbours.
    keys = np.stack([np.where(known, trajectory, -1), within, alone], axis=1)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def joined(block_of: np.ndarray, most: int) -> np.ndarray:
    """Neighbouring blocks [F] joined until there are at most `most`: errors need no more, memory less."""
    n = int(block_of.max()) + 1
    return block_of if n <= most else block_of * most // n
