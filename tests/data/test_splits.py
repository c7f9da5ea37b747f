"""Splits: block by block, without leaks, recorded as uids."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlipkit.data import FrameSet, Split, split
from mlipkit.errors import DataError, SpecError


def trajectories(sizes: list[int], loose: int = 0, seed: int = 0) -> FrameSet:
    rng = np.random.default_rng(seed)
    n_frames = sum(sizes) + loose
    trajectory = np.r_[np.repeat(np.arange(len(sizes)), sizes), np.full(loose, -1)].astype(int)
    time = np.r_[np.concatenate([np.arange(n) * 0.5 for n in sizes] or [np.empty(0)]), np.full(loose, np.nan)]
    return FrameSet.from_arrays([6, 1], rng.normal(size=(n_frames, 2, 3)), trajectory=trajectory, time=time)


def parts(result: Split) -> tuple[FrameSet, FrameSet, FrameSet]:
    return result.train, result.validation, result.test


def assert_disjoint(result: Split, n_frames: int) -> None:
    uids = np.concatenate([part.uids for part in parts(result)])
    assert len(np.unique(uids)) == len(uids) == n_frames - result.dropped
    structures = [set(part.structure_hashes.tolist()) for part in parts(result)]
    assert not structures[0] & structures[1]
    assert not structures[0] & structures[2]
    assert not structures[1] & structures[2]


def test_trajectories_are_cut_in_time_by_default():
    frames = trajectories([100, 50, 50])
    result = split(frames)
    assert result.by == "block"
    assert [len(part) for part in parts(result)] == [160, 20, 20]
    assert_disjoint(result, 200)
    for k in range(3):
        times = [part.time[part.trajectory == k] for part in parts(result)]
        assert times[0].max() < times[1].min() <= times[1].max() < times[2].min()
        assert len(times[1]) == len(times[2]) == [10, 5, 5][k]
    assert "contiguous blocks of 3 trajectories in time: 160 train, 20 validation, 20 test" in result.how


def test_blocks_follow_time_not_storage():
    frames = trajectories([40])
    order = np.random.default_rng(0).permutation(40)
    result = split(frames.select(order), validation=4, test=4)
    assert set(result.test.time) == set(np.arange(36, 40) * 0.5)
    assert set(result.validation.time) == set(np.arange(32, 36) * 0.5)


@pytest.mark.parametrize("sizes", [[7] * 13, [1] * 30, [3, 1, 90, 2], [5]])
@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (2, 1), (0, 3), (0.3, 0)])
def test_counts_are_met_exactly_whatever_the_lengths(sizes, validation, test):
    frames = trajectories(sizes)
    n_frames = len(frames)
    result = split(frames, validation, test)
    wanted = [max(1, round(x * n_frames)) if isinstance(x, float) else x for x in (validation, test)]
    assert [len(result.validation), len(result.test)] == wanted
    assert len(result.train) == n_frames - sum(wanted)
    assert_disjoint(result, n_frames)


def test_a_gap_separates_blocks_in_time():
    frames = trajectories([100, 60])
    result = split(frames, 0.1, 0.1, gap=3)
    assert [len(result.validation), len(result.test)] == [16, 16]
    assert result.dropped == 2 * 2 * 3
    assert len(result.train) == 160 - 32 - 12
    for k in range(2):
        times = [part.time[part.trajectory == k] for part in parts(result)]
        assert times[1].min() - times[0].max() == pytest.approx(4 * 0.5)
        assert times[2].min() - times[1].max() == pytest.approx(4 * 0.5)
    assert "12 left out in gaps of 3" in result.how
    with pytest.raises(DataError, match="trajectory 0 is too short for gaps of 60 frames; expected at least"):
        split(frames, 0.1, 0.1, gap=60)


def test_frames_outside_trajectories_are_split_at_random_and_in_proportion():
    frames = trajectories([100], loose=100)
    result = split(frames, 0.2, 0.1)
    assert [int((part.trajectory < 0).sum()) for part in parts(result)] == [70, 20, 10]
    assert [int((part.trajectory == 0).sum()) for part in parts(result)] == [70, 20, 10]
    loose = np.flatnonzero(np.isin(frames.uids[100:], result.test.uids))
    assert (np.diff(loose) != 1).any(), "not a block"


def test_random_is_the_default_without_trajectories_and_depends_on_the_seed_alone():
    frames = trajectories([], loose=200)
    first, again, other = split(frames), split(frames), split(frames, seed=1)
    assert first.by == "random"
    assert first.test == again.test
    assert first.test != other.test
    assert [len(part) for part in parts(first)] == [160, 20, 20]
    assert_disjoint(first, 200)


def test_blocks_of_sources_when_asked_without_trajectories():
    frames = trajectories([], loose=40).with_table(source=["a"] * 20 + ["b"] * 20)
    result = split(frames, 4, 4, by="block")
    assert result.test == frames.select([18, 19, 38, 39])
    assert "2 sources" in result.how


def test_whole_trajectories():
    frames = trajectories([20, 30, 10, 25, 15, 50])
    for seed in range(10):
        result = split(frames, 0.2, 0.2, by="trajectory", seed=seed)
        sets = [set(part.trajectory.tolist()) for part in parts(result)]
        assert all(sets)
        assert sum(map(len, sets)) == 6
        assert_disjoint(result, 150)
        assert 10 <= len(result.test) <= 50
    with pytest.raises(DataError, match="too few trajectories; expected at least 3; found 2"):
        split(trajectories([5, 5]), by="trajectory")
    with pytest.raises(DataError, match="holds no trajectories"):
        split(trajectories([], loose=20), by="trajectory")


def with_copies(by_trajectory: bool) -> FrameSet:
    """100 frames; the last ten are copies of the first ten."""
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(100, 2, 3))
    positions[90:] = positions[:10]
    return FrameSet.from_arrays(
        [6, 1], positions, trajectory=0 if by_trajectory else None, time=np.arange(100.0) if by_trajectory else None
    )


def test_copies_never_end_up_in_two_parts():
    frames = with_copies(by_trajectory=True)
    result = split(frames, 10, 15)
    assert_disjoint(result, 100)
    assert result.moved == 10
    assert [len(part) for part in parts(result)] == [85, 10, 5]
    assert "10 moved to an earlier part that holds the identical structure" in result.how
    with pytest.raises(DataError, match=r"the test part would be empty.*also occur in an earlier part"):
        split(frames, 10, 10)
    for seed in range(5):
        result = split(with_copies(by_trajectory=False), 0.2, 0.2, seed=seed)
        assert_disjoint(result, 100)
        assert result.moved == 0, "random splits keep copies together from the start"
        assert [len(part) for part in parts(result)] == [60, 20, 20]


def test_record_rebuilds_the_split():
    frames = trajectories([30, 20], loose=10)
    result = split(frames, gap=1)
    record = json.loads(json.dumps(result.to_json()))
    again = Split.from_json(frames, record)
    assert again == result
    shuffled = frames.select(np.random.default_rng(0).permutation(60))
    again = Split.from_json(shuffled, record)
    assert np.array_equal(again.train.uids, result.train.uids)
    assert np.array_equal(again.test.positions, result.test.positions)
    with pytest.raises(DataError, match="uids are not in this set"):
        Split.from_json(frames[:30], record)
    with pytest.raises(SpecError, match="not the record of a split"):
        Split.from_json(frames, {"train": []})
    record["uids"]["test"] = record["uids"]["train"][:1]
    with pytest.raises(DataError, match="holds a frame twice"):
        Split.from_json(frames, record)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"by": "blocks"}, SpecError, "no way to split called 'blocks'.*did you mean 'block'"),
        ({"validation": 1.0}, SpecError, "split: validation: not a size.*found 1.0"),
        ({"test": -1}, SpecError, "split: test: not a size"),
        ({"test": True}, SpecError, "split: test: not a size"),
        ({"test": "10%"}, SpecError, "not a size"),
        ({"gap": -1}, SpecError, "split: gap"),
        ({"validation": 10, "test": 10}, DataError, "cannot split 20 frames into 10 for validation and 10 for test"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        split(trajectories([20]), **arguments)


def test_a_frame_selected_twice_cannot_be_split():
    with pytest.raises(DataError, match="the same frame twice"):
        split(trajectories([20]).select([*range(20), 3]))


def test_the_method_of_the_set_is_the_same():
    frames = trajectories([30])
    assert frames.split(validation=3, test=2, gap=1) == split(frames, validation=3, test=2, gap=1)
