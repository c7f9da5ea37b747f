"""Coordination numbers: ideal complexes, the change of one neighbour, medians against flicker."""

from __future__ import annotations

import numpy as np
import pytest
from trajectory_toys import complex_of, run, water_box

from mlipkit.analysis.coordination import coordination, rolling_median, rounded_median, switching
from mlipkit.data import FrameSet, read
from mlipkit.errors import DataError

NUMBERS = [27, 17, 17, 17, 17]


@pytest.mark.parametrize("chlorides", [3, 4])
def test_ideal_complexes(chlorides: int):
    frames = FrameSet.from_arrays(NUMBERS, complex_of(chlorides), n_atoms=5)
    found = coordination(frames)
    smooth, hard = found.mean()
    assert smooth == pytest.approx(chlorides, abs=0.2)
    assert hard == chlorides


def test_switching_function():
    assert switching(np.array([3.0]), 3.0) == pytest.approx(0.5)
    assert switching(np.array([0.0, 30.0]), 3.0) == pytest.approx([1, 0], abs=1e-10)
    x = np.array([1.0, 2.0, 2.999999999, 4.0])
    assert switching(x, 3.0, 6, 12) == pytest.approx((1 - (x / 3) ** 6) / (1 - (x / 3) ** 12), rel=1e-5)
    assert switching(x, 3.0, 6, 15)[2] == pytest.approx(6 / 15)
    assert (np.diff(switching(np.linspace(0.1, 9, 99), 3.0, 6, 15)) < 0).all()


def test_every_neighbour_counts_through_the_images_for_equal_elements():
    frames = FrameSet.from_arrays([18], [[0.0, 0, 0]], n_atoms=1, cell=np.eye(3) * 2.0, pbc=[True] * 3)
    assert coordination(frames, "Ar", "Ar", 2.5).hard.tolist() == [6]
    water = coordination(water_box(27), "O", "H", 1.2)
    assert (water.hard == 2).all()
    assert len(water.atom) == 27


def test_three_to_four_is_one_change_at_the_right_time():
    rng = np.random.default_rng(0)
    n = 400
    chlorides = np.where(np.arange(n) < 200, 3, 4)
    chlorides[[50, 90, 300]] = [4, 4, 3]
    positions = [complex_of(int(k), 2.3 + 0.05 * rng.normal()) for k in chlorides]
    found = coordination(run(NUMBERS, positions, 500.0, start=1e6))
    (change,) = found.changes()
    assert (change.before, change.after, change.atom) == (3, 4, 0)
    assert change.time == pytest.approx(1e6 + 200 * 500, abs=1000)
    assert found.frame[change.frame] == change.frame
    assert change.text("Co", "Cl") == f"Co0: 3 -> 4 Cl at {change.time / 1000:.1f} ps"
    assert len(found.changes(window=500.0)) > 1, "without the median every flicker counts"


def test_rolling_median_is_that_of_the_window_whatever_the_spacing():
    rng = np.random.default_rng(1)
    values = rng.normal(size=300)
    for time in (np.arange(300) * 500.0, np.cumsum(rng.uniform(100, 900, 300)), np.arange(300) * 50_000.0):
        slow = [np.median(values[np.abs(time - t) <= 10_000.0 * (1 + 1e-9)]) for t in time]
        assert np.array_equal(rolling_median(time, values, 20_000.0), slow)
    assert rounded_median(np.arange(3.0), np.array([2.5, 2.5, 3.4]), 0.5).tolist() == [3, 3, 3]


def test_frames_without_order_have_no_changes():
    frames = FrameSet.from_arrays(NUMBERS, np.stack([complex_of(3), complex_of(4)]))
    assert coordination(frames).changes() == ()


def test_refusals():
    with pytest.raises(DataError, match="no Co in the set"):
        coordination(water_box(8))
    with pytest.raises(DataError, match="no switching function"):
        coordination(water_box(8), "O", "H", n=12, m=6)
    with pytest.raises(DataError, match="atom 3 is no Co"):
        coordination(FrameSet.from_arrays(NUMBERS, complex_of(3), n_atoms=5)).series(3)


def test_published_sets_differ_in_the_chlorides_of_their_cobalt(shared_data):
    """A shift that no density shows: the iterative run began with a bare Co, one naive run has CoCl4."""
    found = {
        name: coordination(read(shared_data / f"chclca_bias/{name}.extxyz"))
        for name in ("naive_50", "periodic_50", "nonperiodic_50")
    }
    counts = {name: np.bincount(one.hard, minlength=5).tolist() for name, one in found.items()}
    assert counts["periodic_50"] == [50, 0, 0, 0, 0]
    assert counts["nonperiodic_50"] == [0, 0, 50, 0, 0]
    assert counts["naive_50"] == [10, 19, 10, 0, 11]
    assert set(found["naive_50"].atom.tolist()) == {1}
