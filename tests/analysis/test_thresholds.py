"""Which frames are a run, what a limit rests on, and flags that need two samples on end."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.analysis.thresholds import consecutive, consecutive_in, limits_of, runs_of
from mlipkit.data import FrameSet
from mlipkit.errors import DataError


def frames_of(n: int, trajectory=None, source="memory", time=None, seed: int = 0) -> FrameSet:
    positions = np.random.default_rng(seed).random((n, 3, 3)) * 3
    return FrameSet.from_arrays([8, 1, 1], positions, trajectory=trajectory, source=source, time=time)


def test_runs_are_trajectories():
    runs = runs_of(frames_of(6, [4, 4, 7, 7, 9, 9]))
    assert runs.codes.tolist() == [0, 0, 1, 1, 2, 2]
    assert runs.detail == "3 runs told by trajectory, left out in turn"


def test_without_trajectories_runs_are_sources():
    runs = runs_of(frames_of(4, source=["a", "b", "a", "b"]))
    assert runs.codes.tolist() == [0, 1, 0, 1]
    assert "2 runs told by source" in runs.detail
    mixed = runs_of(frames_of(4, [3, 3, -1, -1], source=["a", "a", "a", "b"]))
    assert mixed.n == 3
    assert "trajectory or source" in mixed.detail


def test_one_run_is_cut_into_blocks_and_says_so():
    runs = runs_of(frames_of(11))
    assert runs.n == 5
    assert (np.diff(runs.codes) >= 0).all()
    assert "one run only" in runs.detail
    assert "5 blocks of consecutive frames" in runs.detail
    assert runs_of(frames_of(2)).codes.tolist() == [0, 1]


def test_runs_that_share_a_structure_are_one():
    a, b, c = frames_of(3, 1, seed=1), frames_of(3, 1, seed=2), frames_of(3, 1, seed=3)
    joined = runs_of(FrameSet.concat([a, b, c, frames_of(3, 1, seed=2)[:1]]))
    assert joined.codes.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [1]
    assert "3 runs told by trajectory, 4 before those that share structures were joined" in joined.detail


def test_many_runs_are_dealt_into_groups():
    runs = runs_of(frames_of(30, np.arange(30)))
    assert runs.n == 10
    assert "30 runs" in runs.detail
    assert "10 groups" in runs.detail


def test_one_frame_has_no_limits():
    with pytest.raises(DataError, match=r"at least two frames.*trajectory"):
        runs_of(frames_of(1))


def test_limits_are_those_of_each_element():
    numbers = np.repeat([1, 8], [1000, 500])
    values = np.random.default_rng(0).normal(np.where(numbers == 1, 5.0, 20.0), np.where(numbers == 1, 1.0, 2.0))
    values[0] = np.inf
    limits = limits_of(values, numbers, "leave_one_run_out", "")
    assert limits.elements.tolist() == [1, 8]
    assert limits.count.tolist() == [999, 500]
    assert limits.limit == pytest.approx([7.0, 24.0], rel=0.03)
    assert limits.p99 == pytest.approx([5 + 2.326, 20 + 2 * 2.326], rel=0.03)
    np.testing.assert_allclose(limits.of(np.array([8, 1])), limits.limit[::-1])
    assert np.isnan(limits.of(np.array([6]))).all()
    assert limits.above(np.array([1, 1, 8, 6]), np.array([9.0, 6.0, 23.0, 0.0])).tolist() == [True, False, False, True]
    assert limits.to_json()["elements"][8]["count"] == 500


def test_flags_need_two_samples_on_end():
    flags = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0, 1], bool)
    assert consecutive(flags).astype(int).tolist() == [0, 0, 1, 1, 0, 1, 1, 1, 0, 0]
    assert consecutive(flags, 3).astype(int).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    assert consecutive(flags, 1).tolist() == flags.tolist()
    assert not consecutive(flags[:1]).any()
    pair = np.stack([flags, ~flags], axis=1)
    assert consecutive(pair)[:, 1].sum() == 0


def test_flags_follow_each_trajectory_in_time():
    # Frames of two trajectories mixed, one of them backwards, and a frame of none.
    frames = frames_of(6, [1, 2, 1, 2, 1, -1], time=[2.0, 0.0, 1.0, 1.0, 0.0, np.nan])
    flags = np.zeros((6, 3), bool)
    flags[[2, 4], 0] = True  # atom 0 of trajectory 1 at 1 fs and 0 fs
    flags[[0, 4], 1] = True  # atom 1 of trajectory 1 at 2 fs and 0 fs: not on end
    flags[[1, 3], 2] = True  # atom 2 of trajectory 2
    flags[5, 1] = True  # alone: nothing to wait for
    kept = consecutive_in(frames, flags.reshape(-1)).reshape(6, 3)
    assert {tuple(at) for at in np.argwhere(kept).tolist()} == {(2, 0), (4, 0), (1, 2), (3, 2), (5, 1)}


def test_a_trajectory_that_changes_its_atoms_is_cut_there():
    a, b = frames_of(2), FrameSet.from_arrays([8, 1, 6], np.random.default_rng(9).random((2, 3, 3)))
    frames = a.concat(b).with_table(trajectory=1)
    flags = np.zeros((4, 3), bool)
    flags[[1, 2], 2] = True
    assert not consecutive_in(frames, flags.reshape(-1)).any()
    flags[[2, 3], 0] = True
    assert consecutive_in(frames, flags.reshape(-1)).reshape(4, 3)[:, 0].tolist() == [False, False, True, True]
