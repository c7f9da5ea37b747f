"""Displacements: known walks, wrapped and not, the transform against the sum, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from trajectory_toys import run

from mlipkit.analysis.msd import diffusion, msd, windowed
from mlipkit.data import FrameSet, read, samples
from mlipkit.errors import DataError


def walk(n: int = 60, frames: int = 4000, step: float = 0.05, seed: int = 0) -> np.ndarray:
    """Random walks [T,n,3] whose centre of mass stays."""
    steps = np.random.default_rng(seed).normal(0, step, (frames, n, 3))
    steps -= steps.mean(axis=1, keepdims=True)
    return np.cumsum(steps, axis=0) + 5


def test_transform_equals_the_double_sum():
    path = walk(3, 50)
    slow = [((path[lag:] - path[: 50 - lag]) ** 2).sum(axis=2).mean(axis=0) for lag in range(50)]
    assert np.allclose(windowed(path), slow, atol=1e-12)


def test_random_walk_gives_its_diffusion_coefficient():
    """D = σ² / (2 Δt) per axis; 0.05 Å every 10 fs is 1.25e-4 Å²/fs = 1.25e-5 cm²/s."""
    path = walk()
    curve = msd(run(np.full(60, 18), path % 8.0, 10.0, edge=8.0))
    free = 60 / 59
    found = diffusion(curve)
    assert found.value * free == pytest.approx(1.25e-5, abs=4 * found.error)
    assert 0 < found.error < 0.1 * found.value
    assert found.exponent == pytest.approx(1, abs=0.1)
    assert found.n_blocks == 5
    assert found.diffusive
    assert np.allclose(curve.total, windowed(path).mean(axis=1), atol=1e-8), "wrapping left no trace"


def test_wrapped_in_a_skewed_breathing_cell_equals_unwrapped_in_a_still_one():
    path = walk(10, 300)
    cell = np.array([[9.0, 0, 0], [4, 8, 0], [-3, 2, 7]])
    wrapped = ((path @ np.linalg.inv(cell)) % 1.0) @ cell
    frames = FrameSet.from_arrays(
        np.full(10, 18), wrapped, cell=cell, pbc=[True] * 3, time=np.arange(300) * 1.0, trajectory=0
    )
    free = msd(run(np.full(10, 18), path, 1.0))
    assert np.allclose(msd(frames).total, free.total)


def test_drift_of_the_centre_of_mass_is_taken_off():
    path = walk(20, 500)
    drifting = path + np.arange(500)[:, None, None] * 0.02
    numbers = np.repeat([8, 1], 10)
    still, moving = msd(run(numbers, path, 1.0, 30.0)), msd(run(numbers, drifting % 30.0, 1.0, 30.0))
    # The walks have no drift of their own when all masses are equal; here they do, and it goes as well.
    assert np.allclose(still.total, moving.total)
    assert moving.drift == pytest.approx(499 * 0.02 * np.sqrt(3), rel=0.1)
    kept = msd(run(numbers, drifting % 30.0, 1.0, 30.0), remove_drift=False)
    assert kept.total[-1] > 10 * moving.total[-1]


def test_elements_are_apart_and_the_total_is_their_mean():
    path = walk(30, 400)
    path[:, :10] = 5 + 2 * (path[:, :10] - 5)
    path -= path.mean(axis=1, keepdims=True) - 5
    curve = msd(run(np.r_[np.full(10, 3), np.full(20, 3)], path, 1.0), blocks=0)
    two = msd(run(np.r_[np.full(10, 3), np.full(20, 11)], path, 1.0), remove_drift=False, blocks=0)
    assert np.allclose(two.by_element[3] / 3 + two.by_element[11] * 2 / 3, two.total)
    assert two.by_element[3][10] > 2 * two.by_element[11][10]
    assert np.allclose(two.total, curve.total)
    assert np.isnan(diffusion(curve, 3).error)


def test_from_the_first_frame_alone():
    path = walk(5, 30)
    frames = run(np.full(5, 18), path, 1.0).with_table(time=np.arange(30) ** 1.5)
    curve = msd(frames, origin="first")
    assert np.allclose(curve.total, ((path - path[0]) ** 2).sum(axis=2).mean(axis=1))
    with pytest.raises(DataError, match="not equally spaced"):
        msd(frames)


def test_frames_out_of_order_are_refused():
    frames = run([18, 18], walk(2, 20), 1.0)
    with pytest.raises(DataError, match="not in order of time"):
        msd(frames[[0, 2, 1, 3]])
    with pytest.raises(DataError, match="without a time"):
        msd(frames.with_table(time=np.nan))
    two = FrameSet.concat([frames, frames.with_table(trajectory=1)])
    with pytest.raises(DataError, match="several trajectories"):
        msd(two)


def test_jumps_of_half_a_cell_are_refused():
    path = walk(4, 50)
    path[25:, 2] += 4.5
    with pytest.raises(DataError, match=r"frame 25: atom 2 moves by 0\.4\d of the cell"):
        msd(run(np.full(4, 18), path % 10.0, 1.0, 10.0))
    # Stored without wrapping, the same jump is plain, and only one beyond half the cell is not.
    msd(run(np.full(4, 18), path, 1.0, 10.0), wrapped=False)
    with pytest.raises(DataError, match="atom"):
        msd(run(np.full(4, 18), (walk(4, 2000, 0.3)) % 10.0, 1.0, 10.0), wrapped=False)


def test_frames_50_ps_apart_are_no_trajectory_to_follow(shared_data):
    frames = read(shared_data / "chclca_bias/nonperiodic_50.extxyz")
    with pytest.raises(DataError, match="gone the other way"):
        msd(frames, origin="first")


def test_free_flight_is_no_diffusion(shared_data):
    """200 fs of a solid electrolyte at 1200 K: a line can be drawn, and the exponent says what it is not."""
    found = diffusion(msd(read(shared_data / "ligeps_aimd/ligeps_1200K_2fs.extxyz")), 3)
    assert found.value > 0
    assert found.exponent > 1.7
    assert not found.diffusive


def test_packaged_liquid_moves_and_ice_does_not():
    from mlipkit.analysis.time_order import runs

    ends = {}
    for name in ("water_liquid", "ice_ih"):
        _, first = next(runs(samples.load(name)))
        curve = msd(first, origin="first")
        ends[name] = curve.by_element[8][curve.lag <= 345][-1]
    assert ends["water_liquid"] > 1.5 * ends["ice_ih"]


def test_a_misspelt_origin_is_not_another_origin():
    with pytest.raises(DataError, match=r"origin: no such choice.*'frist'.*did you mean 'first'"):
        msd(run([18], np.zeros((3, 1, 3)), 1.0), origin="frist")  # type: ignore[arg-type]
