"""Parity: planted softening is found per element, residuals and constants are those of the data."""

from __future__ import annotations

import numpy as np
import pytest
from ase.io import read as ase_read

from mlipkit.analysis.parity import (
    binned_residuals,
    fit_offset,
    parity,
    robust_line,
    split_measures,
)
from mlipkit.data import FrameSet, read
from mlipkit.errors import DataError, LabelError


def labelled(frames: int = 30, seed: int = 0) -> FrameSet:
    rng = np.random.default_rng(seed)
    numbers = np.repeat([8, 1, 1], 4)
    return FrameSet.from_arrays(
        numbers, rng.uniform(0, 6, (frames, 12, 3)), cell=np.eye(3) * 6, pbc=[True] * 3,
        energy=-100 + rng.normal(0, 0.05, frames), forces=rng.normal(0, 1.0, (frames, 12, 3)),
        stress=rng.normal(0, 0.01, (frames, 6)), time=np.arange(frames) * 1000.0, trajectory=0,
    )  # fmt: skip


def test_planted_softening_is_found_per_element():
    frames = labelled(200)
    rng = np.random.default_rng(1)
    scale = np.where(frames.numbers == 8, 0.8, 1.0)[:, None]
    found = parity(frames, forces=scale * frames.forces + rng.normal(0, 0.1, frames.forces.shape))
    slopes = {one.element: one for one in found.softening}
    assert set(slopes) == {0, 1, 8}
    for element, truth in ((8, 0.8), (1, 1.0)):
        one = slopes[element]
        assert one.low < truth < one.high
        assert one.high - one.low < 0.02
        assert one.slope == pytest.approx(truth, abs=0.01)
    assert 0.8 < slopes[0].slope < 1.0
    assert slopes[8].norm_slope == pytest.approx(0.8, abs=0.02)
    row = found.table()[-1]
    assert (row["element"], row["atoms"]) == ("O", 800)
    assert found.by_element[8]["force_component_mae"] > found.by_element[1]["force_component_mae"]
    assert [len(x) for x in found.force_norms[8]] == [800, 800]


def test_robust_line_shrugs_off_outliers():
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 5, 500)
    y = 0.9 * x + 0.05 + rng.normal(0, 0.02, 500)
    y[:25] += 20
    slope, intercept = robust_line(x, y)
    assert slope == pytest.approx(0.9, abs=0.01)
    assert intercept == pytest.approx(0.05, abs=0.03)
    assert np.isnan(robust_line([1.0, 1.0], [1.0, 2.0])).all()


def test_all_measures_come_from_one_call_and_missing_labels_stay_out():
    frames = labelled()
    energy = frames.energy + 12 * 0.01
    holes = frames.with_labels(energy=np.where(np.arange(30) < 10, np.nan, frames.energy))
    found = parity(holes, energy, frames.forces, frames.stress)
    assert found.measures["energy_bias"] == pytest.approx(0.01)
    assert found.measures["energy_n"] == 20
    assert found.measures["force_component_rmse"] == 0
    assert found.measures["stress_voigt_rmse"] == 0
    assert np.isnan(found.residual[:10]).all()
    assert np.allclose(found.residual[10:], 0.01)


def test_predictions_that_fit_nothing_are_refused():
    frames = labelled()
    with pytest.raises(LabelError, match="no prediction"):
        parity(frames)
    with pytest.raises(LabelError, match="predicted energy"):
        parity(frames, energy=np.zeros(3))
    with pytest.raises(LabelError, match="no frame has a label 'forces'"):
        parity(frames.with_labels(forces=np.nan), forces=frames.forces)
    with pytest.raises(LabelError, match="predicted stress"):
        parity(frames, stress=np.zeros((3, 6)))


def test_bins_of_two_milli_electronvolt():
    energy = np.array([-5.8315, -5.8301, -5.8299, -5.8279, np.nan])
    residual = np.array([0.001, 0.003, 0.005, 0.007, 1.0])
    found = binned_residuals(energy, residual)
    assert np.allclose(np.diff(found.edges), 0.002)
    assert found.n.tolist() == [2, 1, 1]
    assert found.mean == pytest.approx([0.002, 0.005, 0.007])
    assert found.std[0] == pytest.approx(0.001)
    assert found.edges[0] == pytest.approx(-5.832)
    with pytest.raises(DataError, match="no frame"):
        binned_residuals([np.nan], [1.0])


def test_split_in_time():
    time = np.arange(40) * 1000.0
    predicted = np.where(time < 6000, 0.1, 0.3)
    before, after = split_measures(time, np.zeros(40), predicted, np.ones(40), at=6000.0)
    assert (before["energy_rmse"], after["energy_rmse"]) == pytest.approx((0.1, 0.3))
    assert (before["energy_n"], after["energy_n"]) == (6, 34)


def test_one_constant_per_composition():
    frames = labelled()
    other = FrameSet.from_arrays([8, 1], np.tile([[0.0, 0, 0], [1, 0, 0]], (4, 1, 1)), energy=np.arange(4.0))
    both = frames.concat(other)
    error = np.where(both.n_atoms == 12, 0.5, -0.2)
    offset = fit_offset(both, both.energy + error * both.n_atoms)
    assert np.allclose(offset.remove(frames, frames.energy + 6.0), frames.energy)
    assert np.allclose(offset.remove(other, other.energy - 0.4), other.energy)
    with pytest.raises(DataError, match="not fitted on"):
        offset.remove(FrameSet.from_arrays([1], [[0.0, 0, 0]], n_atoms=1), [0.0])


def test_published_residuals(shared_data):
    """Residuals of the fine-tuning study, meV/atom: nearly all of an error is one constant (its section 7)."""
    folder = shared_data / "chclca_bias"
    tests, naive = read(folder / "self_md_tests.extxyz"), read(folder / "naive_50.extxyz")
    atoms = ase_read(folder / "self_md_tests.extxyz", ":")
    driven = np.array([one.info.get("energy_mlip_md", np.nan) for one in atoms])
    model = np.array([one.info["sampled_by"] for one in atoms])
    published = {"N-50pts": (-10.68, 0.59), "FT5": (-4.79, 0.90), "U": (-16.22, 1.45)}
    for name, (mean, std) in published.items():
        rows = np.flatnonzero((model == name) & np.isfinite(driven))
        found = parity(tests[rows], driven[rows]).measures
        assert found["energy_bias"] * 1000 == pytest.approx(mean, abs=0.02), name
        assert found["energy_std"] * 1000 == pytest.approx(std, abs=0.1), name
    start = np.array([one.info.get("energy_mlip_md", np.nan) for one in ase_read(folder / "naive_50.extxyz", ":")])
    rows = np.flatnonzero(np.isfinite(start))
    offset = fit_offset(naive[rows], start[rows])
    mine = np.flatnonzero((model == "U") & np.isfinite(driven))
    raw, corrected = (
        parity(tests[mine], energy).measures["energy_rmse"] * 1000
        for energy in (driven[mine], offset.remove(tests[mine], driven[mine]))
    )
    assert raw == pytest.approx(16.3, abs=0.1)
    assert corrected == pytest.approx(2.9, abs=0.1), "one constant beats every fine-tuned potential on its own frames"


def test_predictions_that_are_not_finite_are_named_by_frame():
    frames = labelled(4)
    forces, energy = np.array(frames.forces), np.array(frames.energy)
    forces[25, 1], energy[3] = np.nan, np.inf
    with pytest.raises(LabelError, match=r"parity: frame 2: prediction of 'forces' is not finite; found 1 of 48"):
        parity(frames, forces=forces)
    with pytest.raises(LabelError, match=r"frame 3: prediction of 'energy' is not finite; found 1 of 4"):
        parity(frames, energy=energy)
    unlabelled = frames.with_labels(energy=np.where(np.isfinite(energy), frames.energy, np.nan))
    assert parity(unlabelled, energy=energy).measures["energy_n"] == 3


def test_bins_of_sets_far_apart_stay_few():
    found = binned_residuals([0.0, 0.001, 1e5], [0.1, 0.3, 0.2])
    width = found.edges[1] - found.edges[0]
    assert len(found.n) <= 5001
    assert found.n.sum() == 3
    assert np.log2(width / 0.002) == pytest.approx(round(np.log2(width / 0.002)))
    with pytest.raises(DataError, match="width 0"):
        binned_residuals([0.0], [0.0], 0)
    with pytest.raises(DataError, match="one residual per energy"):
        binned_residuals([0.0, 1.0], [0.0])


def test_a_frame_without_a_time_is_in_neither_part():
    with pytest.raises(DataError, match="frame 0: a frame without a time; found 1 of 2"):
        split_measures([np.nan, 1.0], [0, 0], [1, 1], [1, 1], at=0.5)
