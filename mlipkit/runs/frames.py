"""The frames of an MD run as one list: stored ones, and step by step the last ones before a failure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.trajectory import Trajectory

STORED, LAST_STEPS = "trajectory.traj", "last_steps.traj"


class RunFrames(Sequence[Atoms]):
    """Frames of one replica, also while they grow; each is read from disk when it is asked for.

    Args:
        folder: where its trajectory lies.

    The stored frames (every `stride` steps) come first. Where a failure left the last steps one by one, these take the
    place of the stored frames of the same steps.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / STORED, folder / LAST_STEPS]
        self._stamps: list[tuple[int, int] | None] = [None, None]
        self._files: list = [None, None]
        self._stored = 0
        self._steps = np.empty(0)
        self._times = np.empty(0)
        self._line = (0.0, 0.0, 0.0, 0.0)

    def refresh(self) -> bool:
        """Look whether files have grown; True when the list has changed."""
        changed = False
        for which, path in enumerate(self._paths):
            try:
                stat = os.stat(path)
                stamp = (stat.st_size, stat.st_mtime_ns)
                if stamp == self._stamps[which]:
                    continue
                opened = Trajectory(str(path))
            except (OSError, ValueError, EOFError, IndexError):
                continue  # not there yet, or its head is being written
            if self._files[which] is not None:
                self._files[which].close()
            self._files[which], self._stamps[which], changed = opened, stamp, True
        if changed:
            self._order()
        return changed

    def _order(self) -> None:
        stored, last = self._files
        count = len(stored) if stored is not None else 0
        if count:
            (s0, t0), (s1, t1) = (self._moment(stored, i) for i in (0, min(1, count - 1)))
            self._line = (s0, max(s1 - s0, 1.0), t0, t1 - t0)
        # It may have been seen while it was being written.
        if last is not None and len(last) and len(self._steps) != len(last):
            # One by one: the ends tell all between them.
            (s0, t0), (s1, t1) = self._moment(last, 0), self._moment(last, len(last) - 1)
            self._steps, self._times = np.linspace(s0, s1, len(last)).round(), np.linspace(t0, t1, len(last))
        if len(self._steps) and count:
            s0, stride = self._line[:2]
            count = min(count, int(np.ceil((self._steps[0] - s0) / stride)))
        self._stored = count

    @staticmethod
    def _moment(file, index: int) -> tuple[float, float]:
        info = file[index].info
        return float(info.get("step", index)), float(info.get("time_fs", index))

    def __len__(self) -> int:
        return self._stored + len(self._steps)

    def __getitem__(self, index):  # type: ignore[override]
        """Frame `index` as Atoms with its energy and forces; `info` holds step and time_fs."""
        index = range(len(self))[index]
        if index < self._stored:
            return self._files[0][index]
        return self._files[1][index - self._stored]

    @property
    def first_last_step(self) -> int:
        """Number of the first frame of the steps kept one by one; the length when there are none."""
        return self._stored

    def step(self, index: int) -> int:
        """MD step of a frame."""
        if index < self._stored:
            return round(self._line[0] + index * self._line[1])
        return int(self._steps[index - self._stored])

    def time(self, index: int) -> float:
        """Simulated time of a frame, fs."""
        if index < self._stored:
            return self._line[2] + index * self._line[3]
        return float(self._times[index - self._stored])

    def times(self) -> np.ndarray:
        """Simulated times of all frames [F], fs."""
        return np.concatenate([self._line[2] + np.arange(self._stored) * self._line[3], self._times])

    def at_step(self, step: float) -> int:
        """The frame nearest to an MD step."""
        return self._nearest(step, self._steps, self._line[0], self._line[1])

    def at_time(self, time: float) -> int:
        """The frame nearest to a simulated time in fs."""
        return self._nearest(time, self._times, self._line[2], self._line[3])

    def _nearest(self, value: float, last: np.ndarray, start: float, pace: float) -> int:
        if len(last) and (self._stored == 0 or value > (last[0] + start + (self._stored - 1) * pace) / 2):
            return self._stored + int(np.abs(last - value).argmin())
        if self._stored == 0:
            return 0
        return int(np.clip(round((value - start) / pace) if pace else 0, 0, self._stored - 1))

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            if file is not None:
                file.close()
        self._files = [None, None]
