"""Workflows: what goes where. Models and starts of each arm, frames of each stage, arms that may be compared."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workflow_toys import TINY, ToyTools, toys

from mlipkit.data import read
from mlipkit.errors import MlipkitError, RunError
from mlipkit.events import Message, always_run, ignore
from mlipkit.strategies.finetuning import FinetuneRecipe
from mlipkit.strategies.workflows import UNTOUCHED, Evaluation, Settings, compare_arms, plan, provenance, run_workflow
from mlipkit.strategies.workflows.comparing import SELF_MD, _errors, _select
from mlipkit.strategies.workflows.evaluating import Evaluated
from mlipkit.strategies.workflows.stages import _row
from mlipkit.strategies.workflows.synthetic import MolecularPotential, box, synthetic_tools
from mlipkit.strategies.workflows.work import read_record
from mlipkit.training import TrainSettings

FOUR = Settings(runs=4)
ALL = dataclasses.replace(TINY, runs=2, evaluation=Evaluation(independent=2, self_md="all", frames=2))
BARE = dataclasses.replace(TINY, evaluation=Evaluation(independent=0, self_md="none"))


def facts(folder: Path, one, name: str) -> dict[str, Any]:
    found = read_record(folder / one.folder(name))
    assert found is not None
    return found["facts"]


def carried_out(one, folder: Path, tools: Any = None, reuse: Any = (), sink: Any = lambda _: None) -> Path:
    assert run_workflow(one, folder, tools or toys(), sink, reuse=reuse).state == "completed"
    return folder


def evaluated(folder: Path) -> Evaluated:
    found = Evaluated.read(folder)
    assert found is not None
    return found


# ---- plans


def test_hybrid_chains_go_on_from_their_own_last_run_with_the_model_of_the_round():
    runs = plan("hybrid", FOUR).of("simulate", "training")
    assert [(run.inputs["model"][0], run.inputs["start"][0], run.options["index"]) for run in runs] == [
        (UNTOUCHED, "start", 0), (UNTOUCHED, "more_starts", 0), ("finetune_1", "md_1_1", 0),
        ("finetune_1", "md_1_2", 0),
    ]  # fmt: skip


def test_simulations_after_packings_use_the_model_tuned_on_them():
    runs = plan("packmol_first", FOUR).of("simulate", "training")
    assert {run.inputs["model"] for run in runs} == {("finetune_1",)}
    assert [run.options["index"] for run in runs] == [0, 1, 2, 3]


def test_every_naive_run_has_a_start_of_its_own():
    runs = plan("naive", FOUR).of("simulate", "training")
    assert [(run.inputs["start"][0], run.options["index"]) for run in runs] == [
        ("start", 0), ("more_starts", 0), ("more_starts", 1), ("more_starts", 2),
    ]  # fmt: skip


def test_a_long_run_is_equilibrated_as_long_as_the_others_and_its_sizes_are_its_first_frames():
    one = plan("longrun", FOUR)
    rows = one["pick_1"].options["rows"]
    assert 1000 <= rows[0] <= 1000 + rows[1] - rows[0]
    assert {stage.options["choose"] for stage in one.of("finetune")} == {"first"}


def test_high_force_is_hot_rattled_and_strained_as_was_asked():
    one = plan("high_force", FOUR)
    runs = one.of("simulate", "training")
    assert {run.options["temperature"] for run in runs} == {600.0}
    assert [run.options["index"] for run in runs] == [0, 1, 2, 3]
    assert {stage.name: stage.options["amount"] for stage in one.of("perturb")} == {"rattled": 0.1, "strained": 0.05}


def test_a_models_own_frames_come_after_the_equilibration():
    assert plan("iterative", FOUR)["pick_test_md_4"].options["rows"] == list(range(1000, 2001, 100))


def test_options_are_part_of_what_makes_a_stage_equal():
    cold, warm = (plan("iterative", dataclasses.replace(FOUR, temperature=t)) for t in (300.0, 310.0))
    assert cold.key("md_1") != warm.key("md_1")
    assert cold.key("start") == warm.key("start")


# ---- values that cannot act


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"base": "previos"}, "base: no such choice.*did you mean 'previous'"),
        ({"timestep": -1.0}, "timestep: out of range"),
        ({"timestep": math.nan}, "timestep: out of range"),
        ({"temperature": -5.0}, "temperature: out of range"),
        ({"rattle": -1.0}, "rattle: out of range"),
        ({"strain": -1.0}, "strain: out of range"),
        ({"hot": -3.0}, "hot: out of range"),
        ({"train": {"validation": 1.5, "epochs": 2}}, r"train\.validation: out of range; expected a share"),
        ({"train": {"validation": -1, "epochs": 2}}, r"train\.validation: out of range"),
        ({"train": {"epochs": 2}}, r"train\.validation: out of range"),
        ({"train": {"validation": 0.2, "epochs": -4}}, r"train\.epochs: out of range"),
        ({"train": {"validation": 0.2, "gradients": 0}}, r"train\.gradients: out of range"),
        ({"train": {"validation": 0.2, "epochs": 4, "gradients": 9}}, "expected epochs or gradients; found epochs and"),
        ({"train": {"validation": 0.2}}, "expected epochs or gradients; found neither"),
    ],
)
def test_values_that_make_no_sense_are_refused_before_there_is_a_plan(changes, match):
    with pytest.raises(MlipkitError, match=match):
        Settings(**changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"self_md": "al"}, r"evaluation\.self_md: no such choice.*did you mean 'all'"),
        ({"independent": -3}, r"evaluation\.independent: out of range"),
        ({"frames": 0}, r"evaluation\.frames: out of range"),
        ({"steps": 0}, r"evaluation\.steps: out of range"),
    ],
)
def test_evaluations_that_make_no_sense_are_refused(changes, match):
    with pytest.raises(MlipkitError, match=match):
        Evaluation(**changes)


def test_older_plans_that_tell_epochs_beside_gradients_go_on(tmp_path):
    one = plan("iterative", dataclasses.replace(BARE, runs=1, train={"validation": 0.4, "gradients": 4}))
    carried_out(one, tmp_path)
    record = json.loads((tmp_path / "plan.json").read_text())
    for train in (record["settings"]["train"], record["stages"][-1]["options"]):
        train["epochs"] = 250
    (tmp_path / "plan.json").write_text(json.dumps(record))
    carried_out(one, tmp_path)


# ---- the universal model


def other_weights() -> MolecularPotential:
    return MolecularPotential((0.7, 0.7, 0.7), {8: -1.5, 1: -0.75})


def forget_content(folder: Path) -> None:
    record = json.loads((folder / "plan.json").read_text())
    del record["tools"]["universal_content"]
    (folder / "plan.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[Path]:
    """Two seeds of the iterative arm."""
    root = tmp_path_factory.mktemp("two")
    first = carried_out(plan("iterative", ALL, 0), root / "iterative_0")
    return [first, carried_out(plan("iterative", ALL, 1), root / "iterative_1", reuse=[first])]


def test_other_weights_under_the_same_words_are_another_model(two, tmp_path):
    with pytest.raises(RunError, match=r"other tools; expected universal_content.*bring back the former"):
        run_workflow(plan("iterative", ALL, 0), two[0], toys(universal=other_weights()))
    heard: list[str] = []
    tools = toys(universal=other_weights())
    carried_out(plan("iterative", ALL, 1), tmp_path / "other", tools, two, lambda e: heard.append(str(e)))
    assert any("nothing is taken from" in text and "universal_content" in text for text in heard)
    with pytest.raises(RunError, match=r"arms that differ in more than their frames.*universal_content"):
        compare_arms([two[0], tmp_path / "other"])


def test_folders_from_before_the_weights_were_told_go_on_and_are_compared(two, tmp_path):
    old = Path(shutil.copytree(two[1], tmp_path / "old"))
    forget_content(old)
    tools = toys()
    carried_out(plan("iterative", ALL, 1), old, tools)
    assert tools.calls == []
    assert compare_arms([old, two[0]]).verdicts
    assert compare_arms([two[0], old]).verdicts
    other = carried_out(plan("naive", ALL, 0), tmp_path / "other", toys(universal=other_weights()))
    with pytest.raises(RunError, match="universal_content"):
        compare_arms([old, two[0], other])


# ---- start structures that the user gives


def test_no_test_frame_is_a_training_frame_where_both_come_from_few_given_structures(tmp_path):
    given = [box(k, 4, 0.4) for k in range(3)]
    one, heard = plan("packmol_first", TINY), []
    carried_out(one, tmp_path, toys(given=given), sink=heard.append)
    said = "2 of 2 independent test frames are left out: training starts from the same structures"
    assert any(isinstance(event, Message) and said in event.text and event.level == "warning" for event in heard)
    found = evaluated(tmp_path)
    assert {row["test_set"] for row in found.rows} == {"test_md_0", "test_md_2"}
    trained = {row["uid"] for row in provenance.read(tmp_path) if row["entered"]}
    labelled = read(tmp_path / one.folder("label_independent") / "labelled.extxyz")
    assert set(found.left_out("independent")) == {labelled.uid(i) for i in range(2)} <= trained
    assert any(said in note for note in compare_arms([tmp_path]).notes)


def test_one_of_two_test_frames_is_left_out_and_the_other_judges(tmp_path):
    given = [box(k, 4, 0.4) for k in range(2)]
    one = plan("iterative", dataclasses.replace(ALL, evaluation=Evaluation(independent=2, self_md="none")))
    carried_out(one, tmp_path, toys(given=given))
    found = evaluated(tmp_path)
    assert {row["n_frames"] for row in found.rows} == {1}
    for row in found.rows:
        frames = found.residuals(row).frames
        assert len(frames) == 1
        assert frames.uid(0) not in found.left_out("independent")
    assert found.record["sets"]["independent"]["frames"] == 1
    # What is kept beside the rows is of the same frame.
    untouched = next(row for row in found.rows if row["kind"] == UNTOUCHED)
    assert 1000 * abs(found.residuals(untouched).energy[0]) == pytest.approx(untouched["rmse_e"][0], rel=1e-6)
    other = carried_out(dataclasses.replace(one), tmp_path / "b", toys())
    record = json.loads((other / "plan.json").read_text())
    (other / "plan.json").write_text(json.dumps({**record, "arm": "naive"}))
    with pytest.raises(RunError, match=r"other test frames \(those that training starts from are left out\).*1 left"):
        compare_arms([tmp_path, other])


def test_where_enough_are_given_training_takes_others_than_the_test(tmp_path):
    given = [box(k, 4, 0.4) for k in range(8)]
    for seed in range(3):
        folder = tmp_path / str(seed)
        one = plan("naive", dataclasses.replace(TINY, runs=2), seed)
        starts = {stage.name: stage for stage in one.of("structures")}
        run_workflow(one, folder, toys(given=given))
        hashes = {
            name: set(read(folder / one.folder(name) / "frames.extxyz").structure_hashes.tolist()) for name in starts
        }
        assert not (hashes["start"] | hashes["more_starts"]) & (hashes["test_packings"] | hashes["test_start"])
        assert evaluated(folder).left_out("independent") == []


# ---- stages


def test_training_and_validation_are_apart_and_are_what_is_told(tmp_path):
    seen: dict[str, list[set[str]]] = {}

    class Keeping(ToyTools):
        def finetune(self, model, train, validation, options, seeds, folder, sink, control):
            seen[folder.name[3:]] = [{part.uid(i) for i in range(len(part))} for part in (train, validation)]
            return super().finetune(model, train, validation, options, seeds, folder, sink, control)

    one = plan("iterative", dataclasses.replace(BARE, runs=1, frames=4, train={"validation": 0.5, "epochs": 1}))
    given = {field.name: getattr(toys(), field.name) for field in dataclasses.fields(ToyTools) if field.init}
    carried_out(one, tmp_path, Keeping(**given))
    train, validation = seen["finetune_1"]
    assert (len(train), len(validation)) == (2, 2)
    assert not train & validation
    told = facts(tmp_path, one, "finetune_1")
    assert [{uid for _, uid in told[part]} for part in ("train", "validation")] == [train, validation]


def test_naive_runs_begin_at_structures_of_their_own_and_small_draws_are_of_several_runs(tmp_path):
    one = plan("naive", BARE, 1)
    carried_out(one, tmp_path)
    firsts = [_row(tmp_path / one.folder(f"md_{k}"), 0).positions for k in (1, 2, 3)]
    assert not np.allclose(firsts[1], firsts[2])
    assert not np.allclose(firsts[0], firsts[1])
    told = facts(tmp_path, one, "finetune_1")
    assert len({name for part in ("train", "validation") for name, _ in told[part]}) > 1


def test_rounds_that_go_on_are_never_validated_by_what_earlier_ones_trained_on(tmp_path):
    one = plan("iterative", dataclasses.replace(BARE, base="previous", train={"validation": 0.3, "epochs": 1}))
    carried_out(one, tmp_path)
    trained: set[tuple[str, str]] = set()
    for k in (1, 2, 3):
        told = facts(tmp_path, one, f"finetune_{k}")
        assert told["base"] == ("untouched" if k == 1 else f"finetune_{k - 1}")
        assert told["validation"]
        assert not trained & set(map(tuple, told["validation"]))
        assert trained <= set(map(tuple, told["train"]))
        trained |= set(map(tuple, told["train"]))


def test_every_start_is_perturbed_in_turn(tmp_path):
    one = plan("high_force", BARE)
    carried_out(one, tmp_path)
    starts, moved = (read(tmp_path / one.folder(name) / "frames.extxyz") for name in ("relax_starts", "rattled"))
    for k in range(3):
        far = [float(np.abs(moved.atoms(k).positions - starts.atoms(i).positions).max()) for i in range(3)]
        assert int(np.argmin(far)) == k
        assert far[k] < 0.6


def test_settings_of_a_tuning_are_those_of_the_tools_with_epochs_and_seed_of_the_plan():
    found = toys(settings=TrainSettings(learning_rate=0.25)).training({"epochs": 1}, {"shuffle": 5})
    assert (found.shuffle_seed, found.noise_seed, found.max_epochs, found.learning_rate) == (5, 5, 1, 0.25)


def test_a_tuning_is_given_the_recipe_of_the_tools(tmp_path, monkeypatch):
    class Seen(Exception): ...

    def look(potential, train, validation, settings, recipe=None, **more):
        assert recipe is not None
        raise Seen(recipe.shifts, settings.shuffle_seed)

    monkeypatch.setattr("mlipkit.strategies.finetuning.finetune", look)
    tools = synthetic_tools(n=4, recipe=FinetuneRecipe(shifts="keep", loss="settings"))
    frames: Any = None
    with pytest.raises(Seen) as caught:
        tools.finetune(None, frames, frames, {"epochs": 1}, {"shuffle": 7}, tmp_path, ignore, always_run)
    assert caught.value.args == ("keep", 7)


def test_velocities_are_drawn_at_the_temperature_that_was_asked_for(tmp_path):
    options = {"steps": 2, "stride": 2, "timestep": 0.5, "density": [0.1, 3.0], "friction": 0.05}
    first = []
    for kelvin in (300.0, 1200.0):
        folder = tmp_path / str(kelvin)
        toys().simulate(None, box(0, 4, 0.4), {**options, "temperature": kelvin}, {"velocities": 1, "thermostat": 2},
                        folder, ignore, always_run)  # fmt: skip
        first.append(_row(folder, 0).get_velocities())
    np.testing.assert_allclose(first[1], 2 * first[0], rtol=1e-6)


# ---- comparing


def residual(one: Evaluated, model: str, test_set: str) -> np.ndarray:
    return one.residuals(next(r for r in one.rows if (r["model"], r["test_set"]) == (model, test_set))).energy


def test_workflows_with_other_settings_are_no_seeds_of_one_arm(two, tmp_path):
    other = dataclasses.replace(ALL, base="previous", train={"validation": 0.2, "epochs": 40})
    folder = carried_out(plan("iterative", other, 1), tmp_path, reuse=two)
    for unequal in (False, True):
        with pytest.raises(RunError, match=r"two experiments, not two seeds of arm iterative; expected base untouched, "
                                           r"train\.epochs 2; found base previous, train\.epochs 40"):  # fmt: skip
            compare_arms([two[0], folder], unequal=unequal)


def test_a_folder_given_twice_is_no_second_seed(two):
    with pytest.raises(RunError, match="arm iterative, seed 0 is given twice"):
        compare_arms([two[0], two[1], two[0]])


def test_settings_that_an_older_plan_does_not_tell_are_the_usual_ones(two, tmp_path):
    old = Path(shutil.copytree(two[1], tmp_path / "old"))
    record = json.loads((old / "plan.json").read_text())
    for name in ("base", "run_by_run", "hot"):
        del record["settings"][name]
    (old / "plan.json").write_text(json.dumps(record))
    assert compare_arms([two[0], old]).verdicts


def test_arms_tried_on_other_frames_of_the_untouched_model_are_refused(two, tmp_path):
    test = dataclasses.replace(ALL.evaluation, frames=3)
    other = carried_out(plan("naive", dataclasses.replace(ALL, evaluation=test)), tmp_path, reuse=two)
    with pytest.raises(RunError, match=r"other test frames \(label_test_md_0 differs\)"):
        compare_arms([two[0], other])


def test_errors_of_an_arm_are_those_of_its_last_model_and_on_its_own_simulation(two):
    one = evaluated(two[0])
    for test_set, name in (("independent", "independent"), (SELF_MD, "test_md_2")):
        found = _errors([one], "finetuned", test_set, "energy")
        assert found is not None
        np.testing.assert_allclose(np.asarray(found.values), np.abs(residual(one, "finetune_2", name)))
        assert not np.allclose(found.values, np.abs(residual(one, "finetune_1", name)))
    # Once a toy is tuned to the end its errors are the same everywhere.
    row = _select(one, "finetuned", 2, SELF_MD)
    assert row is not None
    assert (row["model"], row["test_set"]) == ("finetune_2", "test_md_2")


def test_offsets_are_fitted_on_all_frames_that_a_model_was_trained_on(two):
    offsets = evaluated(two[0]).record["offsets"]
    assert [offsets[f"finetune_{k}"]["n_frames"] for k in (1, 2)] == [3, 6]


def test_the_untouched_model_has_no_seeds(two):
    found = compare_arms(two, n_draws=200)
    n_seeds = {(row["kind"], row["round"], row["test_set"]): row["n_seeds"] for row in found.pooled}
    assert n_seeds["untouched", 0, "independent"] == 1
    assert n_seeds["finetuned", 2, "independent"] == 2


def test_a_verdict_is_of_root_mean_squares_over_weighted_frames_with_the_effect_asked_for(two, monkeypatch):
    from mlipkit.analysis import cures

    real, seen = cures.judge_cure, []

    def look(cure, controls, **more):
        seen.append((more["quantity"], cure.weights, more["reduce"], more["effect"], more["n_draws"]))
        return real(cure, controls, **more)

    monkeypatch.setattr(cures, "judge_cure", look)
    found = compare_arms(two, effect=0.3, n_draws=150)
    assert {tuple(one[2:]) for one in seen} == {("rms", 0.3, 150)}
    assert all((weights is not None) == (name == "force RMSE") for name, weights, *_ in seen)
    # Independent frames are the same for all models; those of their own simulations are not.
    paired = {(test_set, verdict.paired_frames) for (_, test_set, _), verdict in found.verdicts.items()}
    assert paired == {("independent", True), (SELF_MD, False)}
