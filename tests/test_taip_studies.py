"""The pure parts of the studies of adaptation: when a simulation collapsed, what is hot, what a barrier is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from mlipkit.md.judging import build_checks
from mlipkit.md.look import NEAR
from mlipkit.runs.building_taip import as_training
from mlipkit.runs.building_train import settings_of
from mlipkit.training.optimise import LearningRate

STUDIES = Path(__file__).resolve().parents[1] / "benchmarks" / "studies"


@pytest.fixture
def script(study_script):
    return study_script


def test_an_energy_that_leaves_its_median_collapses(script):
    study, rng = script("taip_survival"), np.random.default_rng(0)
    times = np.arange(0.0, 4000.0, 5.0)
    energies = rng.normal(size=len(times))
    assert study.energy_collapse(times, energies) == np.inf
    for wrong in (30.0, -30.0, np.nan):
        broken = energies.copy()
        broken[500] = wrong
        assert study.energy_collapse(times, broken) == times[500]
    drifting = energies + 0.004 * times  # over a window a drift of four deviations
    assert study.energy_collapse(times, drifting) == np.inf
    assert study.energy_collapse(times[:150], energies[:150] * 100) == np.inf, "no first window yet"


def test_the_earlier_end_counts(script):
    study = script("taip_survival")
    runs = [(10000.0, "", np.inf), (3000.0, "max force", np.inf), (3000.0, "max force", 2000.0), (10000.0, "", 500.0)]
    assert study.fates(runs) == ([10000.0, 3000.0, 2000.0, 500.0], ["", "max force", "energy", "energy"])
    assert study.fates([(800.0, "overlap", 800.0)]) == ([800.0], ["overlap"])
    # A simulation that ends for another reason, or holds, does so where the energy does not count.
    assert study.fates(runs, energy=False) == ([10000.0, 3000.0, 3000.0, 10000.0], ["", "max force", "max force", ""])
    row = study.summary(study.curve_of(runs), 10000.0, {"baseline": study.curve_of(runs)})
    assert (row["simulations"], row["failed"], row["held"]) == (4, 3, 0.25)
    assert row["held_interval"][0] < 0.25 < row["held_interval"][1]
    assert row["mean_ps"] == pytest.approx((10 + 3 + 2 + 0.5) / 4)
    assert row["p_against_baseline"] == pytest.approx(1.0)
    safe = study.summary(study.curve_of(runs[:1] * 10), 10000.0, {})
    assert (safe["held"], safe["held_interval"][1], safe["median_ps"]) == (1.0, 1.0, None)


def test_groups_are_compared_each_within_itself(script):
    study, held = script("taip_survival"), (10000.0, "", np.inf)
    short, long = [(1000.0, "overlap", np.inf)] * 4, [held] * 4
    groups = [{"nonsaving": long, "none": short}, {"nonsaving": long, "none": short, "baseline": long}]
    found = study.together(groups, "nonsaving")
    assert set(found) == {"none", "baseline"}, "no simulation of the control with random steps"
    assert (found["none"]["groups"], found["baseline"]["groups"]) == (2, 1)
    assert (found["none"]["failed"], found["none"]["simulations"]) == ([0, 8], [8, 8])
    assert found["none"]["p"] < 0.01 < found["baseline"]["p"] == 1.0
    opposite = [groups[0], {"nonsaving": short, "none": long}]
    assert study.together(opposite, "nonsaving")["none"]["p"] == 1.0
    early = [{"nonsaving": [(10000.0, "", 500.0)] * 4, "none": long}]
    counted = study.together(early, "nonsaving")["none"]
    assert counted["p"] < 0.01 < counted["p_without_energy"] == 1.0


def test_the_lowest_temperature_at_which_half_fail(script):
    study = script("taip_survival")
    assert study.hot_enough({400.0: [False] * 3, 600.0: [True, False], 800.0: [True, True]}) == 600.0
    assert study.hot_enough({400.0: [True, False, False]}) is None


@pytest.mark.parametrize(
    ("fails_from", "tried", "half"),
    [(450.0, [300.0, 400.0, 500.0], 500.0), (200.0, [300.0, 200.0, 100.0], 200.0), (0.0, [300.0, 200.0, 100.0], 100.0),
     (900.0, [300.0, 400.0, 500.0], None)],
)  # fmt: skip
def test_the_ladder_is_climbed_until_half_fail_and_descended_while_they_do(script, fails_from, tried, half):
    study, seen = script("taip_survival"), {}
    while (kelvin := study.next_rung([100.0, 200.0, 300.0, 400.0, 500.0], 300.0, seen)) is not None:
        seen[kelvin] = [kelvin >= fails_from, False]
    assert list(seen) == tried
    assert study.hot_enough(seen) == half


def test_the_ladder_may_be_entered_between_its_rungs(script, monkeypatch):
    study, tried = script("taip_survival").Study("taip_survival.yaml", "schnet"), []
    study.plan["cold"] = 350.0

    def finish(one) -> None:
        assert one not in tried, "nothing is simulated twice"
        tried.append(one)

    monkeypatch.setattr(study, "finish", finish)
    monkeypatch.setattr(study, "simulation", lambda arm, kelvin: (arm, kelvin))
    monkeypatch.setattr(study, "ends", lambda arm, kelvin: [] if (arm, kelvin) in tried else None)
    monkeypatch.setattr(study, "failures", lambda k: [k >= 450] if ("baseline", k) in tried else None)
    study.run()
    assert tried[2:5] == [("baseline", 350.0), ("baseline", 400.0), ("baseline", 500.0)]
    assert {kelvin for _, kelvin in tried[2:]} == {350.0, 400.0, 500.0}


@pytest.mark.parametrize("plan", ["taip_survival.yaml", "taip_survival_paper.yaml"])
def test_arms_of_survival_differ_in_their_tasks_alone(script, plan):
    study = script("taip_survival").Study(plan, "painn")
    plain, taip = (study.training(arm).model_dump() for arm in ("baseline", "taip"))
    assert plain["model"]["encoder"] == "painn"
    assert taip["taip"]["enabled"]
    assert not plain["taip"]["enabled"]
    assert {key for key in plain if plain[key] != taip[key]} == {"name", "taip"}


def test_arms_start_alike(script, monkeypatch):
    module = script("taip_survival")
    study = module.Study("taip_survival.yaml", "schnet")
    monkeypatch.setattr(study, "starts", lambda: ["sample:water_liquid@170", "sample:water_liquid@180"])
    specs = {arm: study.simulation(arm, 300.0).model_dump() for arm in module.ARMS}
    assert len(specs) == 11
    for name in ("baseline", "none", "nonsaving", "nonsaving_random"):
        again = specs.pop(f"{name}_again")
        assert {key for key in again if again[key] != specs[name][key]} == {"name", "seed"}
    control = specs.pop("nonsaving_random")
    assert control["adaptation"] == {**specs["nonsaving"]["adaptation"], "direction": "random"}
    assert {key for key in control if control[key] != specs["nonsaving"][key]} == {"name", "adaptation"}
    for arm, spec in specs.items():
        differing = {key for key in spec if spec[key] != specs["none"][key]}
        assert differing <= ({"name", "potential"} if arm == "baseline" else {"name", "adaptation"}), arm
    assert {spec["adaptation"]["strategy"] for spec in specs.values()} == {*specs} - {"baseline"}


@pytest.mark.parametrize("plan", ["taip_survival.yaml", "taip_survival_paper.yaml"])
def test_all_six_criteria_of_collapse_are_watched(script, monkeypatch, plan):
    """Numbers, forces, temperature, overlaps and lone atoms on the way; the energy in its series afterwards."""
    module = script("taip_survival")
    study = module.Study(plan, "painn")
    monkeypatch.setattr(study, "starts", lambda: ["sample:water_liquid@170"])
    checks = {check.name: check for check in build_checks(study.simulation("none", 300.0).checks)}
    assert set(checks) == {"finite", "max_force", "temperature", "overlap", "lone_atoms"}
    assert checks["max_force"].fail == 50.0
    assert (checks["temperature"].fail, checks["temperature"].during) == (5.0, 100.0)
    assert checks["overlap"].least == 0.5
    assert (checks["lone_atoms"].fail, NEAR) == (100.0, 1.5)
    assert (module.DEVIATIONS, module.PS) == (10.0, 1000.0)


def test_profiles_find_the_noise_that_was_chosen(script, tmp_path):
    trained = script("taip_profiles").trained
    for name in ("one/baseline", "one/noise", "several/baseline", "several/noise_0.005", "several/noise_0.02"):
        (tmp_path / name).mkdir(parents=True)
    one, several = tmp_path / "one", tmp_path / "several"
    assert trained(one, "noise", 0.02) == one / "noise"
    assert trained(several, "noise", 0.02) == several / "noise_0.02"
    assert trained(several, "baseline", 0.02) == several / "baseline"


def test_a_barrier_is_read_where_the_labels_have_it(script):
    figures = script("taip_profiles").profile_figures
    reference = np.array([0.0, 0.1, 0.5, 0.1, 0.05])
    same = figures(reference + 7.0, reference)
    assert same["barrier"] == pytest.approx(500.0)
    assert same["barrier_error"] == pytest.approx(0.0, abs=1e-9)
    assert same["profile_error"] == pytest.approx(0.0, abs=1e-9)
    other = figures(np.array([0.0, 0.1, 0.4, 0.1, -0.2]), reference)
    assert other["barrier_error"] == pytest.approx(-100.0)
    assert other["highest_above_lowest"] == pytest.approx(600.0)
    assert other["profile_error"] == pytest.approx(1e3 * (0.1 + 0.25) / 5)
    each = script("taip_profiles").over_seeds([same, other])
    assert each["barrier"] == {"mean": 450.0, "lowest": 400.0, "highest": 500.0}


def test_the_trial_halves_its_rate_as_often_as_published(script, monkeypatch):
    monkeypatch.setenv("MLIPKIT_DATA", "/data")
    study = script("taip")
    found = {}
    for plan in ("taip_trial.yaml", "taip_paper.yaml"):
        specs = study.specifications(yaml.safe_load((STUDIES / plan).read_text()), plan)
        assert {"d_ethanol:schnet", "d_ethanol:painn"} <= set(specs)
        for encoder in ("schnet", "painn"):
            spec = specs[f"d_ethanol:{encoder}"]
            train = round(1000 * (1 - spec.split.validation - spec.split.test))
            rate = LearningRate(settings_of(as_training(spec)), -(-train // spec.batch_size))
            steps = rate.planned
            found[plan, encoder] = [
                rate.rate(0),
                rate.rate(steps - 1),
                spec.model.features,
                spec.model.layers,
                spec.model.cutoff,
            ]
            assert spec.split == specs["d_ethanol:painn"].split
            if plan == "taip_trial.yaml":
                assert steps == 30000
                assert 1e-6 in spec.adaptation.rates, "published for MD17"
    each = list(found.values())
    assert all(one == each[0] for one in each)
    assert each[0][1] == pytest.approx(1e-4 / 2**6)


def test_results_of_a_plan_carry_its_name(script):
    study = script("taip")
    assert [study.recorded(plan) for plan in ("taip_small.yaml", "taip_trial.yaml")] == ["taip", "taip_trial"]


def test_arms_are_held_against_those_from_the_same_velocities(script):
    study = script("taip_survival")
    held, early = [(10000.0, "", np.inf)] * 5, [(1000.0, "overlap", np.inf)] * 5
    runs = {"none": held, "nonsaving": held, "none_again": early, "nonsaving_again": held,
            "none_both": held + early, "nonsaving_both": held + held}  # fmt: skip
    rows = study.summaries(runs, 10000.0)
    assert rows["nonsaving"]["p_against_none"] is None or rows["nonsaving"]["p_against_none"] == 1.0
    assert rows["nonsaving_again"]["p_against_none"] < 0.01
    assert rows["nonsaving_again"]["p_against_none"] < rows["nonsaving_both"]["p_against_none"] < 0.1
    assert rows["nonsaving_both"]["simulations"] == 10
    assert "p_against_none" not in rows["none_again"]
    assert rows["none_again"]["without_energy"]["failed"] == 5
