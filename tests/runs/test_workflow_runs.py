"""Workflows as runs: specification, form, dry run, estimate, approval, report, commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mlipkit as mk
from mlipkit.cli import app
from mlipkit.errors import SpecError
from mlipkit.runs import WorkflowSpec, estimate, load_spec, parse_spec
from mlipkit.strategies.workflows import compare_arms, equal_budgets, waiting

MODELS = """
from mlipkit.strategies.workflows.synthetic import ReferenceLabels, box, soft


def universal():
    return soft()


def starts():
    return [box(k, 4, 0.4) for k in range(5)]


def labels():
    return ReferenceLabels()
"""
FIELDS = {
    "potential": "toy.py:universal", "start": {"place": "toy.py:starts", "relax": False}, "runs": 2, "frames": 3,
    "sampling": {"timestep": 1.0, "time_ps": 0.04, "stride": 2, "friction": 0.05}, "label": {"maker": "toy.py:labels"},
    "tuning": {"max_epochs": 2, "loss": {"kind": "l2"}, "optimiser": {"learning_rate": 0.02}},
    "evaluation": {"independent": 2, "self_md": "none"}, "relax_steps": 3,
}  # fmt: skip


@pytest.fixture
def toy(work: Path) -> Path:
    (work / "toy.py").write_text(MODELS)
    return work


def test_a_specification_is_yaml_code_and_options():
    spec = WorkflowSpec(start={"molecules": {"water": 8}}, arm="naive", seed=2)  # type: ignore[arg-type]
    assert parse_spec(spec.model_dump(mode="json")) == spec
    assert spec.default_name == "naive_2"
    namespace: dict = {"mk": mk}
    code = spec.code().replace("import mlipkit as mk\n\n", "").replace("mk.launch", "(lambda one: one)")
    exec(code.replace("run.wait()\n", ""), namespace)
    assert namespace["run"] == spec
    assert spec.places
    assert spec.settings.labels == 55
    assert spec.plan.budget.md_ps == 5000.0
    assert spec.settings.md["ensemble"] == "langevin"


def test_a_form_of_it_can_be_filled_in():
    form = pytest.importorskip("mlipkit_widgets.form")
    made = form.Form(WorkflowSpec, ["arm", "potential", "start.molecules", "runs", "frames"],
                     start={"start.molecules": {"water": 8}, "arm": "naive"})  # fmt: skip
    assert made.spec() == WorkflowSpec(start={"molecules": {"water": 8}}, arm="naive")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "either molecules"),
        ({"start": {"molecules": {"water": 8}, "place": "a.xyz"}}, "either molecules"),
        ({"start": {"molecules": {"water": 0.5}}}, "water: expected a whole number"),
        ({"arm": "naive", "chains": 3}, "chains has no effect with arm 'naive'"),
        ({"arm": "hybrid", "runs": 3}, "two full rounds"),
        ({"sampling": {"time_ps": 1.0, "stride": 300}}, "steps divisible by 300"),
        ({"sampling": {"pressure": 1.0}}, "pressure has no effect with ensemble 'langevin'"),
        ({"sampling": {"checks": {"max_forc": 1}}}, "unknown check 'max_forc'"),
        ({"label": {"maker": "gfn3"}}, "unknown label maker 'gfn3'"),
        ({"tuning": {"recipe": {"mix": "loss10"}}}, "recipe.mix and replay go together"),
        ({"sampling": {"time_ps": 5.0, "stride": 1000}}, "fewer rows than frames wanted"),
        ({"frames": 1}, "finetune_1: one frame to train on and none to validate with"),
        ({"arm": "naive", "sizes": []}, "sizes: none"),
        ({"start": {"place": "a.xyz", "density": 1.2}}, "density has no effect with given structures"),
        ({"start": {"place": "a.xyz", "tolerance": 1.5}}, "tolerance has no effect with given structures"),
        ({"arm": "high_force", "share_first_run": True}, "share_first_run has no effect with arm 'high_force'"),
        ({"tuning": {"gradients": 100, "max_epochs": 7}}, "either max_epochs or gradients"),
        ({"label": {"maker": "pyscf"}}, "PySCF labels molecules only"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fields, problem):
    with pytest.raises(SpecError, match=problem):
        WorkflowSpec(**({"start": {"molecules": {"water": 8}}} if fields else {"start": {}}), **{
            key: value for key, value in fields.items() if key != "start"
        }) if "start" not in fields else WorkflowSpec(**fields)  # fmt: skip


def test_equal_arms_are_recognised_before_anything_is_launched():
    def one(**fields) -> WorkflowSpec:
        return WorkflowSpec(start={"molecules": {"water": 8}}, **fields)  # type: ignore[arg-type]

    equal_budgets([one(arm=arm, seed=seed).plan for arm in ("naive", "iterative", "longrun") for seed in (0, 1)])
    with pytest.raises(SpecError, match="unequal budgets"):
        equal_budgets([one(arm="naive").plan, one(arm="longrun", as_published=True).plan])


def test_a_dry_run_prints_plan_and_budget_and_starts_nothing(toy):
    (toy / "it.yaml").write_text(WorkflowSpec(**FIELDS).to_yaml())  # type: ignore[arg-type]
    result = CliRunner().invoke(app, ["run", "it.yaml", "--dry-run", "--json", "said.json"])
    assert result.exit_code == 0, result.output
    assert "finetune_2" in result.output
    assert "6 labels, 0.08 ps of MD" in result.output
    assert not (toy / "runs").exists()
    said = json.loads((toy / "said.json").read_text())
    assert said["figures"]["labels"] == {"value": 6, "unit": "labels"}
    assert len(said["what"]["plan"]["stages"]) == len(WorkflowSpec(**FIELDS).plan.stages)  # type: ignore[arg-type]
    (toy / "md.yaml").write_text("kind: md\n")
    result = CliRunner().invoke(app, ["run", "md.yaml", "--dry-run"])
    assert result.exit_code == 1
    assert "only a workflow has a plan" in result.output + (result.stderr if result.stderr_bytes else "")


@pytest.mark.full
def test_arms_run_are_compared_and_reported(toy):
    runs = []
    for arm in ("naive", "iterative"):
        reuse = [str(run.folder) for run in runs]
        runs.append(mk.launch(WorkflowSpec(**FIELDS, arm=arm, reuse=reuse)).wait(300))  # type: ignore[arg-type]
        assert runs[-1].state == "completed", runs[-1].reason
    found = compare_arms(runs)
    assert found.verdicts["iterative", "independent", "energy"].answer == "undecided"
    assert "one seed" in found.sentence
    facts = runs[1].facts()
    assert facts["labels_asked"] == 6 + 2
    assert facts["stage_seconds"]["simulate"] > 0
    page = runs[1].report().read_text()
    assert "finetune_2 on independent" in page
    assert "Every model beside its controls" in page
    place = WorkflowSpec(**FIELDS, arm="iterative").plan.folder("label_independent")  # type: ignore[arg-type]
    reused = json.loads((runs[1].folder / place / "stage.json").read_text())
    assert reused["reused"].startswith(str(runs[0].folder))
    assert load_spec(runs[1].folder / "spec.yaml") == runs[1].spec
    assert mk.launch(runs[1].spec) == runs[1]  # nothing is done again


@pytest.mark.full
def test_candidates_wait_for_the_user_and_the_run_goes_on_after_approval(toy):
    run = mk.launch(WorkflowSpec(**{**FIELDS, "runs": 1}, review=True, name="looked_at")).wait(120)  # type: ignore[arg-type]
    assert run.state == "stopped"
    assert "wait for approval" in run.reason
    assert run.facts()["workflow"] == "waiting"
    assert [path.name for path in waiting(run.folder)] == ["01.extxyz"]
    struck = mk.read(run.folder / "candidates" / "01.extxyz").uid(0)
    result = CliRunner().invoke(app, ["approve", str(run.folder), "1", "--strike", struck, "--resume"])
    assert result.exit_code == 0, result.output
    assert run.wait(300).state == "completed", run.reason
    lines = [json.loads(line) for line in (run.folder / "provenance.jsonl").read_text().splitlines()]
    assert next(row for row in lines if row["uid"] == struck)["outcome"] == "struck out by the user"


def test_start_structures_are_packed_by_seed_or_drawn_from_given_ones(toy):
    from mlipkit.runs.building_workflow import tools_of

    given = tools_of(WorkflowSpec(**FIELDS), toy)  # type: ignore[arg-type]
    drawn = [given.structures(4, seed, toy) for seed in (1, 1, 2)]
    assert len(set(drawn[0].structure_hashes.tolist())) == 4  # none twice while there are enough
    assert drawn[0] == drawn[1] != drawn[2]
    pytest.importorskip("packmol", reason="Packmol is not installed (pip install packmol)")
    packed = tools_of(WorkflowSpec(**{**FIELDS, "start": {"molecules": {"water": 3}, "density": 0.4}}), toy)  # type: ignore[arg-type]
    boxes = packed.structures(2, 3_999_999_999, toy)
    assert boxes == packed.structures(2, 3_999_999_999, toy)
    assert boxes.n_atoms.tolist() == [9, 9]
    assert boxes.structure_hashes[0] != boxes.structure_hashes[1]


def test_seeds_are_repeats_with_the_same_tools(toy):
    """Else neither compare_arms nor reuse would take workflows of two seeds."""
    from mlipkit.runs.building_workflow import tools_of
    from mlipkit.strategies.workflows.work import tools_told

    said = [tools_of(WorkflowSpec(**FIELDS, seed=seed), toy).describe() for seed in (0, 1)]  # type: ignore[arg-type]
    assert said[0] == said[1]
    assert said[0]["settings"]["learning_rate"] == 0.02
    # Plans that were written with them are taken as well.
    older = {"tools": {**said[0], "settings": {**said[0]["settings"], "shuffle_seed": 1, "noise_seed": 1}}}
    assert tools_told(older) == said[0]


@pytest.mark.full
def test_a_stopped_run_goes_on(toy):
    import time

    fields = {**FIELDS, "sampling": {**FIELDS["sampling"], "time_ps": 2.0, "stride": 100}}
    spec = WorkflowSpec(**fields, name="stopped")  # type: ignore[arg-type]
    run = mk.launch(spec)
    first = run.folder / spec.plan.folder("md_1") / "trajectory.traj"
    end = time.monotonic() + 90
    while not first.exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    run.stop()
    assert run.wait(60).state == "stopped"
    assert "stage md_1" in run.reason
    run.resume()
    time.sleep(1)
    run.stop()
    assert run.wait(90).state == "stopped"


@pytest.mark.full
def test_the_cost_is_measured_on_one_unit_of_each_deed(toy):
    spec = WorkflowSpec(**FIELDS)  # type: ignore[arg-type]
    found = estimate(spec)
    steps = sum(stage.options["steps"] for stage in spec.plan.of("simulate"))
    assert found.steps == steps == 2 * 40
    assert found.seconds > steps * found.seconds_per_step
    assert "80 steps" in found.sentence
