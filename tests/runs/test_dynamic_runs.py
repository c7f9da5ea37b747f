"""Dynamic training as a run: specification, files, what is said, stopping and going on, its report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import mlipkit as mk
from mlipkit import events
from mlipkit.errors import SpecError
from mlipkit.runs import parse_spec
from mlipkit.runs.console import figures_of

QUICK = {
    "data": "sample:ethanol_nve@:1203", "model": {"features": 8, "layers": 1, "cutoff": 4.0}, "batch_size": 8,
    "curriculum": {"n_structures": [1, 2, 4], "converge": "fixed", "stage_epochs": 2, "evaluations_per_epoch": 32},
    "rollout_validation": {"n_structures": 10, "n_points": 3, "test_structures": 20, "test_points": 4},
    "split": {"by": "block"},
}  # fmt: skip


def test_the_specification_is_its_yaml_and_its_code():
    spec = mk.DynamicSpec(**QUICK, rollout={"bptt": False, "refresh": None, "frozen": [0, 1]}, loss={"kind": "mse"})
    assert parse_spec(yaml.safe_load(spec.to_yaml())) == spec
    assert eval(spec.code().splitlines()[2].removeprefix("run = mk.launch")) == spec
    assert spec.default_name == "dynamic_painn"
    assert mk.DynamicSpec(data="x", potential="sample:ethanol_50").default_name == "dynamic"
    assert dict(mk.DynamicSpec(data="x", potential="runs/a").places())["potential"] == "runs/a"
    typed = mk.DynamicSpec(data="x", curriculum={"n_structures": "1, 2,4"}).curriculum
    assert typed.n_structures == [1, 2, 4]


def test_the_defaults_are_the_published_ones():
    spec = mk.DynamicSpec(data="x", optimiser={"warmup_steps": 3})
    optimiser = spec.optimiser
    assert (optimiser.learning_rate, optimiser.schedule_factor, optimiser.minimum_rate) == (1e-3, 0.33, 2e-6)
    assert (optimiser.stage_learning_rate, optimiser.schedule_patience, optimiser.clip_norm) == (1e-4, 15, 1.0)
    assert (spec.batch_size, spec.rollout.bptt, spec.rollout.refresh) == (32, True, 1)
    assert (spec.rollout_validation.n_structures, spec.curriculum.converge) == (60, "patience_at_min_lr")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"curriculum": {"n_structures": [2, 1]}}, "never fall"),
        ({"curriculum": {"stage_epochs": 3}}, "go together"),
        ({"curriculum": {"evaluations_per_epoch": 64}}, "no effect with converge"),
        ({"rollout": {"bptt": False, "window": 2}}, "window has no effect"),
        ({"optimiser": {"patience": 3}}, "go together"),
        ({"optimiser": {"schedule": "constant"}}, "needs optimiser.schedule"),
        ({"potential": "sample:ethanol_50", "model": {"features": 8}}, "model has no effect"),
        ({"auxiliary_heads": "drop"}, "no effect on a new model"),
        ({"split": {"by": "random"}}, "split"),
        ({"allow_partial": True}, "allow_partial"),
    ],
)
def test_what_cannot_act_is_refused(fields, match):
    with pytest.raises(SpecError, match=match):
        mk.DynamicSpec(data="sample:ethanol_nve", **fields)


def test_runs_are_held_out_whole_where_there_are_enough(tmp_path: Path):
    from mlipkit.runs.building_train import split_frames

    spec = mk.DynamicSpec(data="sample:ethanol_nve", n_train=1000)
    parts = split_frames(spec, tmp_path)
    assert parts.by == "trajectory"
    held = [set(np.unique(part.trajectory).tolist()) for part in (parts.train, parts.validation, parts.test)]
    assert [len(one) for one in held] == [3, 2, 2]
    assert not held[0] & held[1]
    assert len(parts.train) == 1000
    for run in held[0]:
        assert np.allclose(np.diff(np.sort(parts.train.time[parts.train.trajectory == run])), 0.5)
    assert split_frames(mk.DynamicSpec(data="sample:ethanol_nve@:1203"), tmp_path).by == "block"


def test_work_is_known_before():
    """Every stage, every validation and what comes after the last step, in force evaluations."""
    from mlipkit.runs.building_dynamic import Work, largest_stage, planned_work

    runs = {"train": [401, 401], "validation": [100], "test": [60]}
    spec = mk.DynamicSpec(**QUICK)
    # Points of an epoch: 32, 16, 8 in batches of 8. Tables and pictures, then 4 starts, twice 20 structures.
    ending = 802 + 2 * (100 + 60) + 2 * 4 * 20
    assert planned_work(spec, runs) == Work(2 * (4 + 2 + 1), 3 * 2 * 32, 7, 3 * 10 + 100, ending)
    short = spec.changed(max_epochs=3, **{"rollout_validation.n_points": 1000})
    assert planned_work(short, runs) == Work(2 * 4 + 2, 3 * 32, 4, (100 - 11) * 10 + 100, ending)
    assert planned_work(spec.changed(max_steps=5), runs).validations == 1 + 2
    by_itself = mk.DynamicSpec(data="x", batch_size=32, max_epochs=10, curriculum={"n_structures": [1, 2, 16]})
    found = planned_work(by_itself, runs)
    assert (found.steps, found.evaluations) == (10 * 24, pytest.approx(1.4 * 10 * 16 * 768))
    assert largest_stage(by_itself).curriculum.n_structures == [2, 2, 2]
    always = by_itself.changed(**{"rollout.recompute": "always"})
    assert largest_stage(always).curriculum.n_structures == [16, 16, 16]
    assert planned_work(spec, {**runs, "test": []}).ending == 802 + 2 * 100


@pytest.mark.full
def test_a_test_part_without_a_start_is_said_before_the_training(tmp_path: Path):
    from mlipkit.errors import DataError
    from mlipkit.events import always_run, ignore
    from mlipkit.runs.build import execute
    from mlipkit.runs.folder import RunFolder

    files = RunFolder(tmp_path / "runs" / "short")
    files.path.mkdir(parents=True)
    spec = mk.DynamicSpec(**{**QUICK, "split": {"by": "block", "test": 3}})
    with pytest.raises(DataError, match=r"^test: "):
        execute(spec, files, tmp_path, ignore, always_run)
    assert not files.checkpoints.exists()


@pytest.mark.full
def test_a_run_says_what_its_stages_did_and_its_potential_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    spec = mk.DynamicSpec(**QUICK, name="rolled")
    assert mk.runs.estimate(spec).steps == 2 * (4 + 2 + 1)
    run = mk.launch(spec).wait(300)
    assert run.state == "completed", run.reason
    facts = run.facts()
    assert run.reason == f"every stage is over. {facts['sentence']}"
    assert [one["n_structures"] for one in facts["stages"]] == [1, 2, 4]
    assert [one["evaluations"] for one in facts["stages"]] == [64, 64, 64]
    assert facts["training_s"] > 0 < facts["validation_s"]
    rows = run.series("validation").read()
    assert rows["n_structures"].tolist() == [1, 1, 1, 2, 2, 4, 4]
    parts = [rows[f"rollout_mepa/element={symbol}"] for symbol in "HCO"]
    np.testing.assert_allclose(np.sum(parts, axis=0), rows["rollout_mepa"])
    assert rows["evaluation_s"][-1] < rows["seconds"][-1]
    curves = json.loads((run.folder / "rollouts.json").read_text())
    assert set(curves) == {"1", "2", "3", "timestep"}
    assert np.mean(curves["3"]["best"]["error"]) == pytest.approx(facts["stages"][2]["rollout_mepa"])
    with np.load(run.folder / "test_rollouts.npz") as arrays:
        assert arrays["error"].shape == arrays["on_reference"].shape == (4, 20, 3)
        assert np.nansum(arrays["error"], axis=2).mean() == pytest.approx(facts["test_rollouts"]["mepa"])
    shown = figures_of(run)
    assert shown["rollout_error"] == {"value": facts["test_rollouts"]["mepa"], "unit": "eV/Å"}
    assert shown["force_evaluations"]["value"] == 3 * 64
    page = run.report().read_text()
    words = (facts["sentence"][:40], "Error of validation roll-outs", "Stages", "at equal frames", "control of equal")
    for text in words:
        assert text in page
    md = mk.launch(mk.MDSpec(potential="runs/rolled", start="sample:ethanol_300K@0", steps=20)).wait(300)
    assert md.state in ("completed", "failed"), md.reason
    on = mk.DynamicSpec(**{**QUICK, "model": {}}, potential="runs/rolled", name="on")
    again = mk.launch(on).wait(300)
    assert again.state == "completed", again.reason
    begin = again.series("validation").read()["rollout_mepa"][0]
    assert begin == pytest.approx(facts["stages"][facts["chosen"] - 1]["rollout_mepa"], rel=1e-3)


@pytest.mark.full
def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    long = {**QUICK, "curriculum": {**QUICK["curriculum"], "stage_epochs": 300}}
    run = mk.launch(mk.DynamicSpec(**long, name="long"))
    while run.active and (run.progress is None or run.progress.done < 20):
        run.wait(0.1)
    run.stop()
    assert run.wait(300).state == "stopped"
    assert "Stopped" in run.facts()["sentence"]
    done = run.progress.done
    run.change(max_epochs=max(run.last(events.Evaluated).epoch + 2, 3))
    run.resume().wait(300)
    assert run.state == "completed", run.reason
    assert run.progress.done > done


@pytest.fixture
def trained_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run folders of two arms and two seeds, trained for a moment in this process."""
    from mlipkit.events import always_run, ignore
    from mlipkit.runs.build import execute
    from mlipkit.runs.folder import RunFolder

    monkeypatch.chdir(tmp_path)
    for name, structures in (("dt", [1, 2]), ("single", [1, 1])):
        for seed in (3, 5):
            files = RunFolder(tmp_path / "runs" / f"{name}_{seed}")
            files.path.mkdir(parents=True)
            fields = {**QUICK, "curriculum": {**QUICK["curriculum"], "n_structures": structures}, "seed": seed}
            spec = mk.DynamicSpec(**fields)
            files.spec.write_text(spec.to_yaml())
            execute(spec, files, tmp_path, ignore, always_run)
    return tmp_path


def test_arms_are_rolled_out_along_runs_that_none_has_seen(trained_runs: Path, capsys):
    from mlipkit.cli import main
    from mlipkit.errors import DataError
    from mlipkit.runs.rollouts_report import rollouts_finding

    arguments = ["analyse", "rollouts", "dt=runs/dt_3,runs/dt_5", "single=runs/single_3,runs/single_5",
                 "--structures", "10", "--points", "6", "--json", "r.json", "--html", "r.html"]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code in (0, None)
    said = capsys.readouterr().out
    record = json.loads(Path("r.json").read_text())["what"]["rollouts"]
    verdict = record["verdict"]
    assert verdict["sentence"].split(":")[0] in ("Works", "Undecided", "Does not work")
    assert verdict["sentence"][:30] in said.replace("\n", " ")
    assert (verdict["n_seeds"], verdict["paired_seeds"], verdict["paired_frames"]) == (2, True, True)
    assert [row["name"] for row in record["arms"]] == ["dt", "single"]
    assert record["arms"][0]["seeds"] == [3, 5]
    ratio = record["arms"][0]["mepa"] / record["arms"][1]["mepa"]
    assert verdict["ratio"] == pytest.approx(ratio)
    assert "Error along roll-outs" in Path("r.html").read_text()
    alone = rollouts_finding({"dt": ["runs/dt_3"]}, structures=5, points=2)
    assert "One arm alone" in " ".join(alone.sentences)
    with pytest.raises(DataError, match="among the train frames"):
        rollouts_finding({"dt": ["runs/dt_3"]}, "sample:ethanol_nve@:60")
    with pytest.raises(DataError, match="no test part"):
        rollouts_finding({"dt": ["sample:ethanol_50"]})
    place = Path("runs/dt_3/spec.yaml")
    place.write_text(mk.DynamicSpec(**yaml.safe_load(place.read_text())).changed(rollout={"frozen": [8]}).to_yaml())
    still = rollouts_finding({"dt": ["runs/dt_3"]}, structures=5, points=2)
    assert still.data["arms"][0]["mepa"] != alone.data["arms"][0]["mepa"]
    with pytest.raises(DataError, match="trained with different frozen atoms"):
        rollouts_finding({"dt": ["runs/dt_3", "runs/dt_5"]}, structures=5, points=2)


def test_lost_roll_outs_are_counted_and_left_out_in_all_arms():
    from mlipkit.strategies.dynamic import Rollouts
    from mlipkit.strategies.dynamic.comparing import arm_row, common_starts, judge_rollouts

    rng = np.random.default_rng(0)

    def made(scale: float, lost: int | None = None) -> Rollouts:
        error = scale * rng.uniform(0.9, 1.1, (12, 5, 2))
        if lost is not None:
            error[lost, 3:] = np.inf
        apart, energy = np.full((12, 5, 2), 0.01), np.zeros((12, 5))
        return Rollouts((1, 6), error, error, apart, energy, np.full(12, 0.5), np.arange(12) // 3, np.arange(12),
                        np.full(12, 9))  # fmt: skip

    cure = {seed: made(0.5, 2 if seed == 1 else None) for seed in range(3)}
    control = {seed: made(1.0) for seed in range(3)}
    rows = common_starts({"cure": cure, "control": control})
    assert rows.tolist() == [0, 1, *range(3, 12)]
    verdict = judge_rollouts(cure, {"control": control})
    assert (verdict.answer, verdict.n_units) == ("works", 11)
    assert arm_row("cure", cure, rows).lost == 1
    assert np.isfinite(arm_row("cure", cure, rows).mepa)
