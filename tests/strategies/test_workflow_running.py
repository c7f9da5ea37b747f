"""Workflows carried out: nesting of frames, exact starts, resuming, review, failures, full disks."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path

import numpy as np
import pytest
from ase.io.trajectory import Trajectory
from workflow_toys import TINY, toys

from mlipkit.data import read
from mlipkit.errors import RunError
from mlipkit.events import Message
from mlipkit.strategies.workflows import ARMS, Evaluation, approve, plan, provenance, run_workflow, waiting
from mlipkit.strategies.workflows.work import read_record

ITERATIVE = plan("iterative", TINY, 1)


def record(folder: Path, one, name: str) -> dict:
    found = read_record(folder / one.folder(name))
    assert found is not None
    return found["facts"]


def uids(folder: Path, one, name: str) -> set[str]:
    facts = record(folder, one, name)
    return {uid for part in ("train", "validation") for _, uid in facts[part]}


def bits(folder: Path) -> dict[str, bytes]:
    """What a workflow leaves, without times and caches."""
    wanted = ("*.extxyz", "*.traj", "best.safetensors", "provenance.jsonl", "evaluation.json")
    paths = [path for name in wanted for path in folder.rglob(name)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("iterative")
    assert run_workflow(ITERATIVE, folder, toys()).state == "completed"
    return folder


@pytest.mark.full
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_runs_to_its_evaluation(arm, tmp_path):
    one = plan(arm, dataclasses.replace(TINY, runs=4 if arm == "hybrid" else 3), 0)
    outcome = run_workflow(one, tmp_path, toys())
    assert outcome.state == "completed"
    assert outcome.facts["labels_asked"] == one.budget.labels + one.budget.test_labels
    found = json.loads((tmp_path / "evaluation.json").read_text())
    kinds = {row["kind"] for row in found["rows"]}
    assert kinds == {"untouched", "offset", "finetuned"}


def test_iterative_sets_are_nested_with_their_counts(done):
    sets = [uids(done, ITERATIVE, f"finetune_{k}") for k in (1, 2, 3)]
    assert [len(one) for one in sets] == [3, 6, 9]
    assert sets[0] < sets[1] < sets[2]


def test_a_run_starts_from_the_last_frame_bit_for_bit_with_new_velocities(done):
    for k in (1, 2):
        with Trajectory(str(done / ITERATIVE.folder(f"md_{k}") / "trajectory.traj")) as before:
            last = before[-1]
        with Trajectory(str(done / ITERATIVE.folder(f"md_{k + 1}") / "trajectory.traj")) as after:
            first = after[0]
        assert np.array_equal(last.positions, first.positions)
        assert np.array_equal(last.cell.array, first.cell.array)
        assert not np.isclose(last.get_velocities(), first.get_velocities()).any()


def test_provenance_tells_of_every_frame_where_it_came_from_and_went(done):
    rows = [row for row in provenance.read(done) if row["purpose"] == "training"]
    assert len(rows) == 9
    first = rows[0]
    assert (first["trajectory"], first["row"], first["time_fs"], first["sampled_by"]) == ("md_1", 6, 12.0, "untouched")
    assert rows[-1]["sampled_by"] == "finetune_2"
    assert rows[0]["density"] == pytest.approx(0.4)
    assert [name for name, _ in first["entered"]] == ["finetune_1", "finetune_2", "finetune_3"]
    assert {row["outcome"] for row in rows} == {"labelled"}
    frames = read(done / ITERATIVE.folder("label_1") / "labelled.extxyz")
    assert [row["uid"] for row in rows[:3]] == [frames.uid(i) for i in range(3)]


@pytest.mark.full
def test_naive_draws_are_nested_and_repeat_by_seed(tmp_path):
    one = plan("naive", dataclasses.replace(TINY, evaluation=Evaluation(independent=0, self_md="none")))
    found = []
    for name in ("a", "b"):
        assert run_workflow(one, tmp_path / name, toys()).state == "completed"
        found.append([uids(tmp_path / name, one, f"finetune_{k}") for k in (1, 2, 3)])
    assert found[0] == found[1]
    assert found[0][0] < found[0][1] < found[0][2]
    assert [len(part) for part in found[0]] == [3, 6, 9]


def test_failed_labels_are_dropped_logged_and_never_replaced(tmp_path):
    tools = toys(breaks={"label_2": (1,), "label_3": (0, 1, 2)})
    assert run_workflow(ITERATIVE, tmp_path, tools).state == "completed"
    assert [len(uids(tmp_path, ITERATIVE, f"finetune_{k}")) for k in (1, 2, 3)] == [3, 5, 5]
    lost = [row for row in provenance.read(tmp_path) if row["outcome"].startswith("failed")]
    assert [(row["trajectory"], row["row"]) for row in lost] == [("md_2", 8), ("md_3", 6), ("md_3", 8), ("md_3", 10)]
    assert lost[0]["outcome"] == "failed: SCF did not converge"
    assert lost[0]["entered"] == []
    assert json.loads((tmp_path / ITERATIVE.folder("label_2") / "failed.json").read_text())[0]["uid"] == lost[0]["uid"]


def test_what_is_done_is_never_done_again(done):
    tools = toys()
    before = bits(done)
    assert run_workflow(ITERATIVE, done, tools).state == "completed"
    assert tools.calls == []
    assert bits(done) == before


@pytest.mark.full
def test_interrupted_anywhere_it_ends_with_the_same_bits(done, tmp_path):
    asked = 0

    def impatient() -> str:
        nonlocal asked
        asked += 1
        return "stop" if asked % 7 == 0 else "run"

    attempts = 0
    while (outcome := run_workflow(ITERATIVE, tmp_path, toys(), control=impatient)).state == "stopped":
        attempts += 1
        assert attempts < 200
    assert outcome.state == "completed"
    assert attempts > 10
    assert bits(tmp_path) == bits(done)


def test_a_pause_between_stages_is_waited_out(done, tmp_path):
    asked = iter(["pause", "pause", "run", "stop"])
    outcome = run_workflow(ITERATIVE, tmp_path, toys(), control=lambda: next(asked))  # type: ignore[arg-type,return-value]
    assert outcome.state == "stopped"
    assert outcome.facts["stages"] == 1
    assert next(asked, "none left") == "none left"


@pytest.mark.full
def test_a_full_disk_is_said_and_nothing_is_lost(done, tmp_path, monkeypatch):
    from mlipkit.strategies.workflows import stages

    tools, real = toys(), stages.write_whole

    def full(path: Path, content: bytes) -> None:
        if path.name == "failed.json" and "label_2" in path.parent.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, content)

    monkeypatch.setattr(stages, "write_whole", full)
    with pytest.raises(RunError, match=r"failed.json: the disk is full. What is done stays as it is: free some space"):
        run_workflow(ITERATIVE, tmp_path, tools)
    monkeypatch.undo()
    assert run_workflow(ITERATIVE, tmp_path, tools).state == "completed"
    assert tools.calls.count("label label_1 3") == tools.calls.count("simulate md_2") == 1
    assert bits(tmp_path) == bits(done)


def test_a_full_disk_behind_another_error_is_found():
    from mlipkit.errors import ModelError
    from mlipkit.strategies.workflows.running import disk_full

    def wrapped() -> Exception:
        try:
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError as error:
                raise ModelError("cannot be written") from error
        except ModelError as error:
            return error

    assert disk_full(wrapped()) is not None
    assert disk_full(OSError(errno.EACCES, "no")) is None


@pytest.mark.full
def test_candidates_wait_for_approval_and_struck_frames_are_never_replaced(tmp_path):
    one, tools = plan("iterative", dataclasses.replace(TINY, review=True), 1), toys()
    outcome = run_workflow(one, tmp_path, tools)
    assert outcome.state == "waiting"
    assert "candidates/01.extxyz" in outcome.reason
    assert [path.name for path in waiting(tmp_path)] == ["01.extxyz"]
    assert run_workflow(one, tmp_path, tools).state == "waiting"
    assert not any(call.startswith("label") for call in tools.calls)
    struck = read(tmp_path / "candidates" / "01.extxyz").uid(1)
    with pytest.raises(RunError, match="no such frame among the candidates"):
        approve(tmp_path, 1, ["0123456789abcdef"])
    approve(tmp_path, 1, [struck])
    with pytest.raises(RunError, match="approved already"):
        approve(tmp_path, 1)
    assert run_workflow(one, tmp_path, tools).state == "waiting"
    approve(tmp_path, "02")
    assert run_workflow(one, tmp_path, tools).reason.startswith("3 frames in candidates/03")
    approve(tmp_path, 3)
    assert run_workflow(one, tmp_path, tools).state == "completed"
    assert [len(uids(tmp_path, one, f"finetune_{k}")) for k in (1, 2, 3)] == [2, 5, 8]
    row = next(row for row in provenance.read(tmp_path) if row["uid"] == struck)
    assert row["outcome"] == "struck out by the user"
    assert row["entered"] == []


def test_a_box_that_leaves_the_range_of_densities_flags_the_workflow(tmp_path):
    one = plan("iterative", dataclasses.replace(TINY, density=(0.6, 3.0)), 1)
    tools = toys()
    outcome = run_workflow(one, tmp_path, tools)
    assert outcome.state == "failed"
    assert "boiled away" in outcome.reason
    assert "0.4 g/cm³, limit 0.6" in outcome.reason
    assert tools.calls == ["simulate md_1"]


def test_a_test_simulation_that_fails_is_a_result(tmp_path, monkeypatch):
    from mlipkit.events import Verdict
    from mlipkit.strategies.workflows.standard import StandardTools

    real = StandardTools.simulate

    def failing(self, model, start, options, seeds, folder, sink, control):
        verdict = real(self, model, start, options, seeds, folder, sink, control)
        if folder.name.endswith("test_md_3"):
            return Verdict("failed", "max_force", step=16, last_good=14, sentence="Force too large.")
        return verdict

    monkeypatch.setattr(StandardTools, "simulate", failing)
    assert run_workflow(ITERATIVE, tmp_path, toys()).state == "completed"
    assert record(tmp_path, ITERATIVE, "test_md_3")["rows"] == 8  # rows 0 to 14 fs / 2
    assert record(tmp_path, ITERATIVE, "pick_test_md_3")["lost_rows"] == [10]
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["simulations"]["test_md_3"]["outcome"] == "failed"


def test_another_plan_or_other_tools_are_refused(done):
    with pytest.raises(RunError, match="holds a workflow with other seed"):
        run_workflow(plan("iterative", TINY, 2), done, toys())
    with pytest.raises(RunError, match="holds a workflow with other tools"):
        run_workflow(ITERATIVE, done, toys(words={"model": "another"}))


def test_equal_stages_of_another_workflow_are_taken_over(done, tmp_path):
    other, tools = plan("naive", TINY, 1), toys()
    assert run_workflow(other, tmp_path, tools, reuse=[done]).state == "completed"
    # The evaluation's frames are the same in all arms; training runs are not.
    assert "label label_independent 2" not in tools.calls
    assert "simulate test_md_0" not in tools.calls
    assert "simulate md_1" in tools.calls
    a, b = (folder / one.folder("label_independent") / "labelled.extxyz"
            for folder, one in ((done, ITERATIVE), (tmp_path, other)))  # fmt: skip
    assert a.read_bytes() == b.read_bytes()
    reused = read_record(tmp_path / other.folder("test_md_0"))
    assert reused is not None
    assert reused["reused"]


def test_it_is_told_why_nothing_comes_from_another_folder(done, tmp_path):
    heard, empty = [], tmp_path / "empty"
    other = toys(words={"model": "another"})
    outcome = run_workflow(plan("naive", TINY, 1), tmp_path / "mine", other, heard.append, reuse=[done, empty])
    assert outcome.state == "completed"
    told = [one.text for one in heard if isinstance(one, Message) and one.text.startswith("reuse")]
    assert told == [
        f"reuse: nothing is taken from {done}: it differs in model",
        f"reuse: nothing is taken from {empty}: it has no plan yet",
    ]


def test_the_offset_control_stands_beside_every_fine_tuned_model(done):
    found = json.loads((done / "evaluation.json").read_text())
    rows = {(row["model"], row["test_set"]): row for row in found["rows"]}
    for k in (1, 2, 3):
        for name in ("independent", "test_md_0", "test_md_3"):
            untouched, offset = rows["untouched", name], rows[f"offset_{k}", name]
            assert offset["rmse_f"][0] == pytest.approx(untouched["rmse_f"][0])
            assert offset["rmse_e"][0] < untouched["rmse_e"][0] / 100  # the levels differ by a constant
            assert offset["std_e"][0] == pytest.approx(untouched["std_e"][0], rel=1e-6)
            assert (f"finetune_{k}", name) in rows
    # The toy model is never told the zero of energy: it has its forces right and its offset wrong.
    assert all("no more than an offset" in sentence for sentence in found["sentences"])
