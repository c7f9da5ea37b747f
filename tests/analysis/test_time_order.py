"""Runs and blocks of time."""

from __future__ import annotations

import numpy as np
import pytest
from trajectory_toys import run

from mlipkit.analysis.time_order import equal_spacing, joined, one_run, runs, time_blocks
from mlipkit.data import FrameSet
from mlipkit.errors import DataError


def test_runs_come_apart_and_in_order_of_time():
    one = run([18], np.arange(12.0).reshape(4, 1, 3), 10.0)
    frames = FrameSet.concat([one, one]).with_table(trajectory=[5] * 4 + [2] * 4)[[7, 0, 1, 5, 6, 3, 2, 4]]
    found = dict(runs(frames))
    assert list(found) == [2, 5]
    for part in found.values():
        assert one_run(part, "test").tolist() == [0, 10, 20, 30]


def test_other_atoms_in_between_are_refused():
    a, b = (
        run([8, 1], np.tile(np.eye(3)[:2], (2, 1, 1)), 1.0),
        run([1, 8], np.eye(3)[None, :2], 1.0, start=5.0),
    )
    with pytest.raises(DataError, match="frame 2: other atoms"):
        one_run(FrameSet.concat([a, b]).with_table(trajectory=0), "test")
    with pytest.raises(DataError, match="at least two frames"):
        one_run(a[:1], "test")


def test_blocks_are_those_of_time_within_a_run():
    trajectory = np.array([0, 0, 0, 0, 1, 1, -1, -1])
    time = np.array([0, 10, 25, 60, 0, 10, 0, np.nan])
    blocks = time_blocks(trajectory, time, 25.0)
    assert blocks.tolist() == [2, 2, 3, 4, 5, 5, 0, 1]
    # Of whole runs nobody asks the time.
    assert len(np.unique(time_blocks(trajectory, np.full(8, np.nan), np.inf))) == 4
    assert time_blocks(np.zeros(4, int), np.arange(4) * 25.0, 25.0).tolist() == [0, 1, 2, 3]


def test_blocks_are_joined_with_their_neighbours():
    assert joined(np.arange(10), 5).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert joined(np.arange(3), 5).tolist() == [0, 1, 2]


def test_spacing():
    assert equal_spacing(np.arange(5) * 0.5) == 0.5
    assert equal_spacing(np.array([0, 1, 2, 4.0])) is None
