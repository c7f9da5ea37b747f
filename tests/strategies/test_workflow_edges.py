"""Workflows at their edges: frames that occur twice, compositions nobody trained on, plans that cannot end well."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import psutil
import pytest
from ase.io.trajectory import Trajectory
from workflow_toys import TINY, toys

from mlipkit.data import FrameSet, read
from mlipkit.errors import RunError, SpecError
from mlipkit.events import Message, Verdict, always_run, ignore
from mlipkit.labelling import Recipe
from mlipkit.strategies.workflows import Evaluation, approve, compare_arms, plan, provenance, run_workflow, waiting
from mlipkit.strategies.workflows.standard import StandardTools
from mlipkit.strategies.workflows.synthetic import box, synthetic_tools
from mlipkit.strategies.workflows.work import read_record
from mlipkit.training import TrainSettings

BARE = dataclasses.replace(TINY, evaluation=Evaluation(independent=0, self_md="none"))


def test_a_structure_that_two_runs_hold_is_told_apart_by_its_run(tmp_path):
    """Without equilibration the first row of a run is the last one of the run before."""
    one = plan("iterative", dataclasses.replace(BARE, equilibration=0.0, timestep=0.5))
    assert run_workflow(one, tmp_path, toys()).state == "completed"
    rows = provenance.read(tmp_path)
    twice = [row for row in rows if (row["trajectory"], row["row"]) in (("md_1", 10), ("md_2", 0))]
    assert len({row["uid"] for row in twice}) == 1
    assert [len(row["entered"]) for row in rows] == [3, 3, 3, 2, 2, 2, 1, 1, 1]
    # Five rows, of two steps of half a femtosecond each.
    assert [row["time_fs"] for row in rows[:3]] == [0.0, 5.0, 10.0]


def test_labels_chosen_by_one_user_are_not_taken_over_for_another(tmp_path):
    one = plan("iterative", dataclasses.replace(BARE, review=True))
    struck = []
    for name, row in (("a", 0), ("b", 2)):
        folder, tools = tmp_path / name, toys()
        assert run_workflow(one, folder, tools, reuse=[tmp_path / "a"]).state == "waiting"
        struck.append(read(folder / "candidates" / "01.extxyz").uid(row))
        approve(folder, 1, [struck[-1]])
        assert run_workflow(one, folder, tools, reuse=[tmp_path / "a"]).state == "waiting"
        assert ("simulate md_1" in tools.calls) == (name == "a")
        lost = [line["uid"] for line in provenance.read(folder) if line["outcome"] == "struck out by the user"]
        assert lost == struck[-1:]
        labelled = read(folder / one.folder("label_1") / "labelled.extxyz")
        assert struck[-1] not in {labelled.uid(i) for i in range(len(labelled))}
        assert len(labelled) == 2


@pytest.mark.parametrize(
    ("arm", "changes", "where"),
    [
        ("iterative", {"frames": 1}, "finetune_1"),
        ("naive", {"sizes": (1, 3)}, "finetune_1"),
        ("longrun", {"runs": 1, "frames": 1}, "finetune_1"),
    ],
)
def test_a_fine_tuning_on_one_frame_is_refused_before_anything_is_spent(arm, changes, where):
    with pytest.raises(SpecError, match=rf"{where}: one frame to train on and none to validate with"):
        plan(arm, dataclasses.replace(BARE, **changes))


def test_sizes_without_any_are_refused():
    with pytest.raises(SpecError, match="sizes: none"):
        dataclasses.replace(BARE, sizes=())


def test_the_keys_of_many_rounds_are_soon_known():
    one = plan("iterative", dataclasses.replace(TINY, runs=40, base="previous"))
    begin = time.process_time()
    assert len({one.key(stage.name) for stage in one.stages}) > 40
    assert time.process_time() - begin < 5


def test_a_composition_that_no_arm_was_trained_on_has_no_offset_control(tmp_path):
    """Start structures of several compositions: the constant of one says nothing of the others."""
    given = [box(k, 4, 0.4)[: 12 - k] for k in range(3)]
    one = plan("iterative", dataclasses.replace(TINY, evaluation=Evaluation(independent=2, self_md="none")))
    assert run_workflow(one, tmp_path, toys(given=given)).state == "completed"
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert {row["kind"] for row in found["rows"]} == {"untouched", "finetuned"}
    assert all("has no offset control" in text for text in found["sentences"])
    compared = compare_arms([tmp_path])
    assert set(compared.verdicts["iterative", "independent", "energy"].against) == {"untouched"}


def test_settings_of_the_tuning_belong_to_the_workflow(tmp_path):
    """Resumed with another learning rate, its models would not be comparable with one another."""
    one = plan("iterative", BARE)
    tools = toys(settings=TrainSettings(learning_rate=1e-3))
    run_workflow(one, tmp_path, tools, control=lambda: "stop")
    run_workflow(one, tmp_path, toys(settings=TrainSettings(learning_rate=1e-3, device="meta", checkpoint_s=1.0)),
                 control=lambda: "stop")  # fmt: skip
    with pytest.raises(RunError, match="a workflow with other tools"):
        run_workflow(one, tmp_path, toys(settings=TrainSettings(learning_rate=1e-4)))
    with pytest.raises(RunError, match="a workflow with other tools"):
        run_workflow(one, tmp_path, toys(settings=tools.settings, replay=FrameSet.from_atoms([box(0, 4)])))


def test_what_was_spent_is_said_beside_what_was_planned(tmp_path):
    settings = dataclasses.replace(TINY, runs=2, review=True)
    one = plan("iterative", settings)
    for number in (1, 2):
        assert run_workflow(one, tmp_path, toys()).state == "waiting"
        approve(tmp_path, number, [read(tmp_path / "candidates" / "01.extxyz").uid(0)] if number == 1 else [])
    heard: list = []
    assert run_workflow(one, tmp_path, toys(), heard.append).state == "completed"
    # One of six candidates struck out; 1 + 4 training frames in two epochs.
    said = "5 of 6 labels, 0.04 of 0.04 ps of MD, 10 of 14 frame-gradients"
    assert any(isinstance(event, Message) and said in event.text for event in heard)
    assert any(said in note for note in compare_arms([tmp_path]).notes)


def test_arms_tried_on_other_frames_are_not_compared(tmp_path):
    test = Evaluation(independent=2, self_md="none")
    for arm, seed in (("naive", 0), ("iterative", 1)):
        one = plan(arm, dataclasses.replace(TINY, runs=1, evaluation=dataclasses.replace(test, seed=seed)))
        assert run_workflow(one, tmp_path / arm, toys()).state == "completed"
    with pytest.raises(RunError, match=r"other test frames.*label_independent"):
        compare_arms([tmp_path / "naive", tmp_path / "iterative"])


@pytest.mark.full
def test_an_engine_is_built_once_for_all_labellings_of_a_workflow(tmp_path):
    log = tmp_path / "built.txt"
    tools = synthetic_tools(n=4, density=0.4, maker=Recipe("workflow_toys:counted_labels", {"log": str(log)}))
    test = Evaluation(independent=2, self_md="none")
    one = plan("iterative", dataclasses.replace(TINY, runs=2, train={"validation": 0.3, "epochs": 1}, evaluation=test))
    assert run_workflow(one, tmp_path / "it", tools).state == "completed"
    assert log.read_text().count("built") == 1
    assert not [child for child in psutil.Process().children() if "mlipkit.labelling.child" in child.cmdline()]


@pytest.mark.full
def test_a_training_run_that_fails_may_be_kept_up_to_its_last_good_row(tmp_path, monkeypatch):
    real = StandardTools.simulate

    def failing(self, model, start, options, seeds, folder, sink, control):
        verdict = real(self, model, start, options, seeds, folder, sink, control)
        if folder.name.endswith("_md_1"):
            return Verdict("failed", "max_force", step=1, last_good=-1, sentence="Force too large.")
        return verdict

    monkeypatch.setattr(StandardTools, "simulate", failing)
    settings = dataclasses.replace(TINY, frames=4, equilibration=0.4, failure="keep", review=True)
    one = plan("hybrid", dataclasses.replace(settings, runs=4, share_first_run=True))
    outcome, asked = run_workflow(one, tmp_path, toys()), 0
    while outcome.state == "waiting":
        asked += 1
        approve(tmp_path, waiting(tmp_path)[0].stem)
        outcome = run_workflow(one, tmp_path, toys())
    # The first run gave no frame to look at.
    assert (outcome.state, asked) == ("completed", 3)
    first = read_record(tmp_path / one.folder("md_1"))
    assert first is not None
    assert (first["facts"]["rows"], first["facts"]["planned_rows"]) == (1, 11)
    notes = " ".join(compare_arms([tmp_path]).notes)
    assert "md_1 failed after 1 of 11 rows: Force too large." in notes
    assert "12 of 16 labels" in notes
    stopped = plan("hybrid", dataclasses.replace(settings, runs=4, share_first_run=True, failure="stop"))
    assert run_workflow(stopped, tmp_path / "stopped", toys()).state == "failed"


@pytest.mark.full
def test_the_run_after_a_kept_one_starts_from_its_last_good_row(tmp_path, monkeypatch):
    real = StandardTools.simulate

    def failing(self, model, start, options, seeds, folder, sink, control):
        verdict = real(self, model, start, options, seeds, folder, sink, control)
        if folder.name.endswith("_md_2"):
            return Verdict("failed", "max_force", step=16, last_good=14, sentence="Force too large.")
        return verdict

    monkeypatch.setattr(StandardTools, "simulate", failing)
    one = plan("iterative", dataclasses.replace(BARE, failure="keep"))
    assert run_workflow(one, tmp_path, toys()).state == "completed"
    with Trajectory(str(tmp_path / one.folder("md_2") / "trajectory.traj")) as before:
        good = before[7]
    with Trajectory(str(tmp_path / one.folder("md_3") / "trajectory.traj")) as after:
        first = after[0]
    assert (good.positions == first.positions).all()
    rows = [row["row"] for row in provenance.read(tmp_path) if row["trajectory"] == "md_2"]
    assert rows == [6]


def test_velocities_and_thermostat_follow_their_own_seeds(tmp_path):
    """Else the runs of an arm, and its repetitions, would be one run several times."""
    options = {"steps": 4, "stride": 2, "timestep": 1.0, "temperature": 300.0, "density": [0.3, 3.0], "friction": 0.05}

    def run(name: str, velocities: int, thermostat: int) -> list:
        (tmp_path / name).mkdir()
        seeds = {"velocities": velocities, "thermostat": thermostat}
        StandardTools.simulate(toys(), None, box(0, 4), options, seeds, tmp_path / name, ignore, always_run)
        with Trajectory(str(tmp_path / name / "trajectory.traj")) as images:
            return [images[k].get_velocities() for k in (0, -1)]

    first, again, moved, kicked = run("a", 1, 2), run("b", 1, 2), run("c", 3, 2), run("d", 1, 4)
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    assert not np.isclose(first[0], moved[0]).any()
    assert (first[0] == kicked[0]).all()
    assert not np.isclose(first[1], kicked[1]).any()
