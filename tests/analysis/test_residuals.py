"""Figures of the published table by hand, their intervals, and the control that an offset alone is."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.analysis.bootstrap import Design, bootstrap
from mlipkit.analysis.cures import judge_cure
from mlipkit.analysis.error_measures import energy_measures, force_measures, stress_measures
from mlipkit.analysis.offset_control import offset_control
from mlipkit.analysis.residuals import (
    UNITS,
    Residuals,
    figures,
    residuals,
    split_in_time,
    table_row,
)
from mlipkit.data import FrameSet
from mlipkit.errors import DataError, LabelError

WATER, HYDROXIDE = [8, 1, 1], [8, 1]


def frames(n: int, numbers: list[int], seed: int = 0, edge: float = 6.0) -> FrameSet:
    rng = np.random.default_rng(seed)
    return FrameSet.from_arrays(
        numbers, rng.uniform(0, edge, (n, len(numbers), 3)), cell=np.eye(3) * edge, pbc=[True] * 3,
        energy=rng.normal(-10, 1, n), forces=rng.normal(0, 1, (n, len(numbers), 3)),
        stress=rng.normal(0, 0.01, (n, 6)), trajectory=np.arange(n) // 5,
    )  # fmt: skip


def two_by_hand() -> Residuals:
    """A frame of two atoms and one of four; energies 0.2 and -0.4 eV too high."""
    cell = {"cell": np.eye(3) * 5.0, "pbc": [True] * 3}
    small = FrameSet.from_arrays([1, 1], np.zeros((1, 2, 3)) + np.arange(6).reshape(2, 3), energy=[-1.0],
                                 forces=np.zeros((1, 2, 3)), stress=np.zeros((1, 6)), **cell)  # fmt: skip
    large = FrameSet.from_arrays([1] * 4, np.arange(12.0).reshape(1, 4, 3), energy=[-2.0],
                                 forces=np.zeros((1, 4, 3)), stress=np.zeros((1, 6)), **cell)  # fmt: skip
    both = FrameSet.concat([small, large])
    force = np.zeros((6, 3))
    force[0] = [3.0, 0, 0]
    force[2:] = [1.0, 2.0, 0.0]
    stress = np.zeros((2, 6))
    stress[1] = [0, 0, 0, 0, 0, 0.06]
    return residuals(both.with_labels(energy=[-0.8, -2.4], forces=force, stress=stress), both)


def test_the_table_by_hand():
    found = two_by_hand()
    row = figures(found)
    # e = 0.1 and -0.1 eV/atom; forces: one atom 3 along x, four atoms (1, 2, 0), six atoms in all
    assert set(row) == set(UNITS)
    assert row["rmse_e"].value == pytest.approx(100)
    assert row["mean_e"].value == pytest.approx(0)
    assert row["std_e"].value == pytest.approx(100)
    assert row["rmse_fx"].value == pytest.approx(np.sqrt((9 + 4) / 6))
    assert row["rmse_fy"].value == pytest.approx(np.sqrt(16 / 6))
    assert row["rmse_fz"].value == 0
    assert row["rmse_f"].value == pytest.approx(np.sqrt((9 + 4 + 16) / 18))
    assert row["rmse_s"].value == pytest.approx(np.sqrt(0.06**2 / 12))
    assert (row["rmse_fz"].low, row["rmse_fz"].high) == (0, 0)
    assert row["rmse_f"].low < row["rmse_f"].value < row["rmse_f"].high


def test_forces_count_atoms_not_frames():
    """A mean over frames of each frame's own error would count the two atoms of the small one as much as the four."""
    found = two_by_hand()
    per_frame = np.sqrt(found.force_squares.sum(axis=1) / (3 * found.n_forces))
    assert figures(found)["rmse_f"].value != pytest.approx(np.sqrt((per_frame**2).mean()), rel=1e-3)


def test_same_figures_as_the_named_measures():
    set_ = frames(20, WATER)
    rng = np.random.default_rng(1)
    energy, force = set_.energy + rng.normal(0.3, 0.1, 20), set_.forces + rng.normal(0, 0.2, set_.forces.shape)
    stress = set_.stress + rng.normal(0, 0.01, (20, 3, 3))
    stress = (stress + stress.transpose(0, 2, 1)) / 2
    row = figures(residuals(set_.with_labels(energy=energy, forces=force, stress=stress), set_))
    ours = {name: one.value for name, one in row.items()}
    e = energy_measures(set_.energy, energy, set_.n_atoms)
    f, s = force_measures(set_.forces, force), stress_measures(set_.stress, stress)
    assert ours["rmse_e"] == pytest.approx(1000 * e["energy_rmse"])
    assert ours["mean_e"] == pytest.approx(1000 * e["energy_bias"])
    assert ours["std_e"] == pytest.approx(1000 * e["energy_std"])
    assert ours["rmse_f"] == pytest.approx(f["force_component_rmse"])
    assert [ours[f"rmse_f{axis}"] for axis in "xyz"] == pytest.approx([f[f"force_rmse_{axis}"] for axis in "xyz"])
    assert ours["rmse_s"] == pytest.approx(s["stress_voigt_rmse"])


def test_a_shear_xy_is_one_component_and_the_published_order_takes_it_for_another():
    still = frames(1, WATER).with_labels(stress=np.zeros((1, 6)))
    sheared = np.zeros((1, 3, 3))
    sheared[0, 0, 1] = sheared[0, 1, 0] = 0.01
    right = residuals(still.with_labels(stress=sheared), still)
    assert right.stress.tolist() == [[0, 0, 0, 0, 0, 0.01]], "only the last entry"
    truth = still.with_labels(stress=sheared)
    assert figures(residuals(truth, truth))["rmse_s"].value == 0
    slipped = residuals(truth, truth, stress_order="published")
    assert slipped.stress.tolist() == [[0, 0, 0, -0.01, 0, 0]], "yz of the prediction beside xy of the label"
    assert figures(slipped)["rmse_s"].value == pytest.approx(0.01 / np.sqrt(6)), "an exact prediction seems wrong"
    with pytest.raises(DataError, match="did you mean 'published'"):
        residuals(truth, truth, stress_order="publish")  # type: ignore[arg-type]


def test_missing_labels_stay_out_and_missing_predictions_are_named():
    set_ = frames(6, WATER)
    energy = np.where(np.arange(6) < 2, np.nan, set_.energy)
    found = residuals(set_.with_labels(energy=set_.energy + 0.3), set_.with_labels(energy=energy, stress=np.nan))
    row = figures(found)
    assert row["rmse_e"].value == pytest.approx(100)
    assert "rmse_s" not in row
    assert np.isnan(found.energy[:2]).all()
    assert (found.n_forces == 3).all()
    with pytest.raises(LabelError, match=r"frame 0: no prediction of 'energy'; found 2 of 6"):
        residuals(set_.with_labels(energy=energy), set_)
    with pytest.raises(LabelError, match="no frame has a residual of stress"):
        found.errors("stress")


def test_other_frames_are_refused():
    a, b = frames(3, WATER), frames(3, WATER, seed=1)
    with pytest.raises(DataError, match="different frames"):
        residuals(a, b)
    with pytest.raises(DataError, match="different frames"):
        residuals(a[::-1], a)
    with pytest.raises(DataError, match="no frames"):
        figures(residuals(a, a).select([]))


def with_error(n: int, e: np.ndarray, seed: int = 0) -> Residuals:
    set_ = frames(n, WATER, seed)
    return residuals(set_.with_labels(energy=set_.energy + 3 * e), set_)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(0), {"rmse_e": 0, "mean_e": 0}
    truth = {"rmse_e": 1000 * np.hypot(0.02, 0.01), "mean_e": 20.0}
    for trial in range(200):
        row = figures(with_error(12, rng.normal(0.02, 0.01, 12)), n_draws=200, seed=trial)
        for name, value in truth.items():
            held[name] += row[name].low < value < row[name].high
    assert held["rmse_e"] > 178
    assert held["mean_e"] > 178
    assert held["mean_e"] < 200, "and not because it is endless"


def test_one_frame_has_no_interval_and_frames_alike_have_none_wide():
    alone = figures(with_error(1, np.array([0.01])))
    assert alone["rmse_e"].value == pytest.approx(10)
    assert np.isnan([alone["rmse_e"].low, alone["mean_e"].high]).all()
    same = figures(with_error(8, np.full(8, 0.01)))
    assert (same["std_e"].value, same["std_e"].high) == (0, 0)
    assert same["rmse_e"].high == pytest.approx(10)


def test_split_at_a_chosen_time():
    set_ = FrameSet.from_arrays(WATER, np.random.default_rng(0).uniform(0, 5, (6, 3, 3)), energy=np.zeros(6),
                                time=np.arange(6) * 1000.0)  # fmt: skip
    found = residuals(set_.with_labels(energy=np.where(np.arange(6) < 2, 0.03, 0.06)), set_)
    before, after = split_in_time(found, 2000.0)
    assert (len(before), len(after)) == (2, 4)
    assert [figures(part)["rmse_e"].value for part in (before, after)] == pytest.approx([10, 20])
    with pytest.raises(DataError, match="frame 0: a frame without a time; found 5 of 5"):
        split_in_time(with_error(5, np.zeros(5)), 1.0)


def test_frames_of_one_run_are_alike():
    """Five frames a run, all with the error of the run: frames drawn alone seem to know more than they do."""
    e = np.repeat(np.random.default_rng(2).normal(0, 0.01, 6), 5)
    found = with_error(30, e)
    apart, together = figures(found), figures(found, by_trajectory=True)
    assert together["mean_e"].high - together["mean_e"].low > 1.7 * (apart["mean_e"].high - apart["mean_e"].low)


def test_seeds_and_frames_are_drawn_both():
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.001, 20)
    seeds = [with_error(20, noise + shift) for shift in (-0.01, 0.0, 0.01)]
    row = figures(seeds)
    assert row["rmse_e"].value == pytest.approx(1000 * np.sqrt(2e-4 / 3 + (noise**2).mean()), rel=0.02)
    assert row["std_e"].value == pytest.approx(1000 * noise.std()), "each seed's own mean is removed"
    one = figures(seeds[1])["mean_e"]
    assert row["mean_e"].high - row["mean_e"].low > 10 * (one.high - one.low), "seeds differ by more than frames do"
    assert table_row(seeds)["n_seeds"] == 3


def test_what_is_kept_is_enough_to_judge_a_cure():
    rng = np.random.default_rng(4)
    good = [with_error(25, rng.normal(0, 0.005, 25)) for _ in range(3)]
    poor = [with_error(25, rng.normal(0, 0.02, 25)) for _ in range(3)]

    def arm(parts: list[Residuals], quantity: str = "energy"):
        errors = [part.errors(quantity, seed) for seed, part in enumerate(parts)]  # type: ignore[arg-type]
        return type(errors[0])(*(
            None if getattr(errors[0], name) is None else np.concatenate([getattr(one, name) for one in errors])
            for name in ("values", "seeds", "frames", "trajectories", "weights")
        ))  # fmt: skip

    verdict = judge_cure(arm(good), {"poor": arm(poor)}, reduce="rms")
    assert (verdict.answer, verdict.design, verdict.paired_frames) == ("works", "crossed", True)
    assert 1000 * verdict.errors["cure"] == pytest.approx(figures(good)["rmse_e"].value)
    forces = two_by_hand().errors("forces")
    value = np.sqrt(np.average(np.asarray(forces.values) ** 2, weights=np.asarray(forces.weights)))
    assert value == pytest.approx(figures(two_by_hand())["rmse_f"].value)
    centred = good[0].errors("energy_centred")
    assert 1000 * np.sqrt((np.asarray(centred.values) ** 2).mean()) == pytest.approx(figures(good[0])["std_e"].value)


def test_squares_kept_per_frame_give_any_interval_again():
    found = with_error(15, np.random.default_rng(5).normal(0.01, 0.01, 15))
    rows = found.per_frame()
    squares = np.array([row["e_mev"] for row in rows]) ** 2

    def half_log(weights: np.ndarray) -> np.ndarray:
        return 0.5 * np.log(weights @ squares / weights.sum(axis=1))

    again = bootstrap(half_log, Design([np.arange(15)]))
    ours = figures(found)["rmse_e"]
    assert (np.exp(again.value), np.exp(again.upper)) == pytest.approx((ours.value, ours.high), rel=0.02)
    assert {"uid", "time_fs", "density_g_cm3", "force_squares", "stress"} <= set(rows[0])


def test_offset_control_of_one_composition_is_one_constant():
    train, test = frames(10, WATER), frames(7, WATER, seed=1)
    e = np.random.default_rng(6).normal(-0.02, 0.003, 10)
    untouched = residuals(train.with_labels(energy=train.energy + 3 * e), train)
    control = offset_control(untouched)
    assert control.per_atom(test) == pytest.approx(np.full(7, e.mean()))
    assert control.n_frames == 10
    assert control.residual_std == pytest.approx(e.std())
    after = control.remove(residuals(test.with_labels(energy=test.energy - 3 * 0.02), test))
    assert after.energy == pytest.approx(-0.02 - e.mean())
    assert figures(control.remove(untouched))["mean_e"].value == pytest.approx(0, abs=1e-6)
    assert figures(control.remove(untouched))["rmse_f"].value == figures(untouched)["rmse_f"].value, "energies alone"


def test_offset_control_of_two_compositions_is_least_squares_on_counts():
    both = FrameSet.concat([frames(5, WATER), frames(5, HYDROXIDE, seed=1)])
    constants = {8: 0.4, 1: -0.1}
    shift = np.where(both.n_atoms == 3, 0.4 - 0.2, 0.4 - 0.1)
    control = offset_control(residuals(both.with_labels(energy=both.energy + shift), both))
    assert control.per_element == pytest.approx(constants, abs=1e-6)
    peroxide = frames(2, [8, 8, 1, 1], seed=2)
    assert control.per_atom(peroxide) == pytest.approx([0.6 / 4] * 2), "what the two determine reaches further"


def test_a_composition_that_the_constants_do_not_determine_is_refused():
    set_ = frames(4, WATER)
    control = offset_control(residuals(set_.with_labels(energy=set_.energy + 0.3), set_))
    double = frames(1, WATER * 2)
    assert control.per_atom(double) == pytest.approx([0.1]), "a larger box of the same liquid"
    with pytest.raises(DataError, match=r"frame 0: a composition that the training frames do not determine"):
        control.per_atom(frames(1, HYDROXIDE))
    with pytest.raises(DataError, match="no constant for C"):
        control.per_atom(frames(1, [6, 1]))
