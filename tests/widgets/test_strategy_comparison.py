"""StrategyComparison and the review of candidates, without a browser: what they read, say and write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from workflow_folders import arms, waiting, workflow

from mlipkit.errors import RunError
from mlipkit.plots.workflows import model_places
from mlipkit.strategies.workflows.review import decisions
from mlipkit_widgets import StrategyComparison
from mlipkit_widgets.review_pane import ReviewPane
from mlipkit_widgets.workflow_folder import WorkflowFolder

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return arms(tmp_path_factory.mktemp("arms"))


def values(plot, name: str) -> list[float]:
    return next(trace["y"] for trace in plot.shown[0] if trace.get("name") == name)


def test_verdict_first_then_errors_budgets_rounds_maps_bonds_residuals(ended):
    view = StrategyComparison(ended)
    pane = view.pane
    assert view.header.state == "completed"
    assert view.header.detail == "2 arms, 2 workflows"
    assert pane.children[0] is pane.verdict
    assert "Iterative sampling, energies on independent frames" in pane.verdict.value
    assert "learned an offset" in pane.verdict.value
    assert "1 of 25 frames lost" in pane.notes.value.replace("iterative 0: ", "")
    assert pane.budget.value.count("9 of 9 labels") == 2
    assert [pane.compared.problem, pane.mapped.problem, pane.bonded.problem] == ["", "", ""]
    assert pane.bonds.layout.display is None
    assert pane.pair.options == ("O-H",)
    # Errors are those of the evaluation, in the panel of energies.
    record = json.loads((ended[1] / "evaluation.json").read_text())
    known = [row["rmse_e"][0] for row in record["rows"]
             if row["kind"] == "finetuned" and row["test_set"] == "independent"]  # fmt: skip
    assert values(pane.errors, "iterative") == pytest.approx(known)
    view.close()


def test_one_round_is_on_show_in_all_pictures(ended):
    view = StrategyComparison(ended)
    pane = view.pane
    assert view.round == pane.round == 3, "the newest"
    before = pane.map.shown[1]["annotations"][0]["text"]
    pane.timeline._message(None, {"type": "click", "x": 1.2, "y": 2, "curve": 0}, None)
    assert (view.round, pane.rounds.value) == (1, 1)
    assert pane.timeline.shown[1]["shapes"][0]["x0"] == pytest.approx(0.52)
    assert pane.map.shown[1]["annotations"][0]["text"] != before
    assert any("model 1" in trace.get("name", "") for trace in pane.residuals.shown[0])
    wanted = ("iterative", 2, "finetuned")
    place = next(x for x, arm, one in model_places(pane._arms) if (arm, one.round, one.kind) == wanted)
    pane.errors._message(None, {"type": "click", "x": place, "y": 1, "curve": 0}, None)
    assert view.round == 2
    view.round = 99
    assert view.round == 3, "no later than the last"
    assert pane.timeline.shown[1]["shapes"][0]["x0"] == pytest.approx(2.52)
    view.close()


def test_other_test_sets_have_their_own_errors_and_bonds(ended):
    view = StrategyComparison(ended)
    pane = view.pane
    independent = values(pane.errors, "naive")
    pane.test_set.value = "own simulation of each model"
    own = values(pane.errors, "naive")
    assert len(own) == 3
    assert own != independent
    record = json.loads((ended[0] / "evaluation.json").read_text())
    known = [row["rmse_e"][0] for row in record["rows"] if row["kind"] == "finetuned" and row["own"]]
    assert own == pytest.approx(known)
    view.close()


def test_residuals_along_own_simulations_are_those_of_the_evaluation(ended):
    view = StrategyComparison(ended)
    view.choose(3)
    record = json.loads((ended[1] / "evaluation.json").read_text())
    row = next(row for row in record["rows"] if row["kind"] == "finetuned" and row["own"] and row["round"] == 3)
    with np.load(ended[1] / row["per_frame"]) as arrays:
        known = 1000 * arrays["energy"]
    trace = next(one for one in view.pane.residuals.shown[0] if one.get("name", "").startswith("iterative 0, model 3"))
    assert trace["y"] == pytest.approx(known)
    assert f"mean {known.mean():+.0f}" in trace["name"]
    view.close()


def test_unequal_budgets_are_a_warning_and_not_an_end(ended, tmp_path):
    assert workflow(tmp_path / "more", "iterative", runs=2).state == "completed"
    view = StrategyComparison([ended[0], tmp_path / "more"])
    assert "labels differ by -3 labels" in view.pane.notes.value
    assert "sampling, energies" in view.pane.verdict.value
    assert "unequal=True" in view._code()
    view.close()


def test_it_follows_a_workflow_that_goes_on(ended, tmp_path):
    root = tmp_path / "runs"
    view = StrategyComparison(root)
    assert view.header.state == "empty"
    assert "No workflow is open" in view.empty.value
    shutil.copytree(ended[0], root / "naive_0")
    half = root / "iterative_0"
    assert workflow(half, "iterative", stop_in="label_2").state == "stopped"
    assert view.refresh() == "running"
    assert "Not in the verdict, as not evaluated yet: iterative 0" in view.pane.notes.value
    assert view.pane.data.rounds()["iterative"].counts["waits"] == [0, 3, 0]
    assert view.pane.data.rounds()["iterative"].trained == [3, None, None]
    assert view.round == 3
    spent = view.pane.data.budgets()["iterative 0"]
    assert spent["labels"] == (3, 9)
    assert spent["md_ps"][0] == pytest.approx(2 / 3 * spent["md_ps"][1])
    assert workflow(half, "iterative").state == "completed"
    assert view.refresh() == "completed"
    assert "not evaluated" not in view.pane.notes.value
    assert view.pane.data.rounds()["iterative"].trained == [3, 6, 9]
    view.close()


def test_one_arm_alone_and_one_that_has_hardly_begun(ended, tmp_path):
    view = StrategyComparison(ended[1])
    assert view.header.detail == "1 arm, 1 workflow"
    assert "Iterative sampling" in view.pane.verdict.value
    view.close()
    assert workflow(tmp_path / "new", "naive", stop_in="label_1").state == "stopped"
    # As it was in the simulation before its first frames were picked.
    (tmp_path / "new" / "provenance.jsonl").unlink()
    view = StrategyComparison(tmp_path / "new")
    assert "No verdict yet: 0 of 1 workflow evaluated." in view.pane.verdict.value
    assert view.pane.no_errors.layout.display is None
    assert view.pane.no_frames.layout.display is None
    view.close()
    with pytest.raises(RunError, match="holds neither a workflow"):
        StrategyComparison([tmp_path])


def test_other_models_or_engines_are_refused_in_words(ended, tmp_path):
    other = Path(shutil.copytree(ended[1], tmp_path / "other"))
    plan = json.loads((other / "plan.json").read_text())
    plan["tools"] = {"model": "another"}
    (other / "plan.json").write_text(json.dumps(plan))
    view = StrategyComparison([ended[0], other])
    assert "arms that differ in more than their frames" in view.pane.verdict.value
    view.close()


def test_candidates_are_looked_at_struck_out_and_approved(tmp_path):
    folder = waiting(tmp_path / "waits")
    view = StrategyComparison(folder, viewer="still")
    assert view.header.state == "review"
    assert "waits for you" in view.header.sentence
    pane = view.pane._reviews[0]
    assert pane.approve_button.description == "Approve and label 3 frames"
    first = pane.candidates[0]
    assert len(first.uid) == 16
    assert first.max_force > 0.01
    assert first.time_fs == 12.0
    told = pane.pictures.items[0]
    assert all(part in told["text"] for part in (first.uid[:8], "0.012 ps", "0.4 g/cm³", "eV/Å"))
    pane.pick(1)
    assert pane.candidates[1].uid in pane.picture.text.value
    assert "<svg" in pane.picture.scene.widget.value
    pane.pictures._message(None, {"type": "act", "index": 0}, None)
    pane.pictures._message(None, {"type": "act", "index": 2}, None)
    assert pane.approve_button.description == "Approve and label 1 frame"
    assert [item["out"] for item in pane.pictures.items] == [True, False, True]
    pane.undo()
    assert pane.struck == [first.uid]
    assert not (folder / "struck.json").exists(), "nothing is written before the approval"
    pane.approve()
    assert decisions(folder) == {"01": {"struck": [first.uid]}}
    assert "2 frames approved, 1 struck out and recorded" in pane.text.value
    assert pane.box.layout.display == "none"
    assert view.header.state != "review"
    # It goes on without the frame, and says so.
    assert workflow(folder, "iterative", review=True).state == "waiting"
    view.refresh()
    assert (view.header.state, pane.number) == ("review", "02")
    assert view.pane.data.rounds()["iterative"].counts["struck"] == [1, 0, 0]
    assert view.pane.data.rounds()["iterative"].counts["labelled"] == [2, 0, 0]
    view.close()


def test_all_struck_out_cannot_be_approved_and_another_answer_wins(tmp_path):
    from mlipkit.strategies.workflows import approve

    workflow_folder = WorkflowFolder(waiting(tmp_path / "waits"))
    pane = ReviewPane(workflow_folder, viewer="still")
    for index in range(3):
        pane.strike(index)
    assert pane.approve_button.disabled
    pane.strike(0)
    assert not pane.approve_button.disabled
    approve(workflow_folder.folder, 1)
    pane.approve()
    assert "approved already" in pane.text.value
    pane.refresh_all()
    assert pane.box.layout.display == "none"
    pane.close()


def test_a_run_that_waits_is_reviewed_from_any_view(tmp_path, monkeypatch):
    from mlipkit.runs import Run, WorkflowSpec
    from mlipkit_widgets import MDView, RunList, WorkflowView

    folder = waiting(tmp_path / "runs" / "iterative_0")
    spec = WorkflowSpec(start={"molecules": {"water": 4}}, review=True)  # type: ignore[arg-type]
    (folder / "spec.yaml").write_text(spec.to_yaml())
    resumed: list[str] = []
    monkeypatch.setattr(Run, "resume", lambda self, executor=None: resumed.append(self.name))

    table = RunList(tmp_path / "runs")
    assert "WAITING FOR YOU" in table.table.value
    assert table.header.state == "review"
    table.review_row.children[0].click()
    assert "3 frames" in table.reviews.children[0].head.value
    table.review_row.children[0].click()
    assert table.reviews.children == ()

    view = MDView(folder, viewer="still")
    assert view.header.state == "review"
    assert view.review_button.layout.display is None
    view.review_button.click()
    pane = view.review_box.children[0]
    pane.strike(1)
    pane.approve()
    assert resumed == ["iterative_0"]
    assert "2 frames approved, 1 struck out and recorded. Their labels are being made." in pane.text.value
    view.refresh()
    assert view.header.state == "lost", "nobody works on it in this test"
    assert view.review_button.layout.display == "none"
    table.refresh()
    assert table.review_row.children == ()
    for one in (view, table):
        one.close()

    waiting(tmp_path / "runs" / "other")
    alone = WorkflowView(folder)
    assert alone.review_button.layout.display == "none", "it shows candidates by itself"
    assert alone.compare_button.description == "Compare with 1 other"
    alone.compare_button.click()
    assert len(alone.pane.data.workflows) == 2
    alone.compare_button.click()
    assert len(alone.pane.data.workflows) == 1
    alone.close()
