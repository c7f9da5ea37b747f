"""What people do to the views of workflows: wrong folders, odd arms, NaN, everything struck out, many updates."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path

import pytest
from test_views import instances
from workflow_folders import arms, recorded, waiting, workflow

from mlipkit.errors import RunError
from mlipkit.runs import MDSpec
from mlipkit.strategies.workflows.review import decisions
from mlipkit_widgets import StrategyComparison, WorkflowView
from mlipkit_widgets.live_view import LiveView
from mlipkit_widgets.review_pane import ReviewPane
from mlipkit_widgets.workflow_folder import WorkflowFolder

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return arms(tmp_path_factory.mktemp("arms"))


def test_what_is_no_workflow_is_refused_by_name(tmp_path):
    md = tmp_path / "runs" / "md"
    md.mkdir(parents=True)
    (md / "spec.yaml").write_text(MDSpec().to_yaml())
    with pytest.raises(RunError, match=r"holds neither a workflow nor .*; found a run of kind 'md'"):
        StrategyComparison([md])
    with pytest.raises(RunError, match="no such folder"):
        StrategyComparison([tmp_path / "nowhere"])
    view = StrategyComparison(tmp_path / "runs")
    assert view.header.state == "empty", "a folder of other runs has no workflow yet"
    view.close()


def test_a_view_of_one_run_refuses_before_anything_is_made(ended, tmp_path):
    md = tmp_path / "runs" / "md"
    md.mkdir(parents=True)
    (md / "spec.yaml").write_text(MDSpec().to_yaml())
    gc.collect()
    before, alive = instances(), len(LiveView._views)
    with pytest.raises(RunError, match=r"not a workflow.*'md'"):
        WorkflowView(md)
    with pytest.raises(RunError, match=r"without launch.*StrategyComparison\('.*naive_0'\) shows it"):
        WorkflowView(ended[0])
    (tmp_path / "runs" / "torn").mkdir()
    torn = recorded(tmp_path / "runs" / "torn")
    (torn.path / "plan.json").write_text('{"version": 1, "arm": "iter')
    for kind in (WorkflowView, StrategyComparison):
        with pytest.raises(RunError, match=r"torn: plan\.json: cannot be read"):
            kind(torn.path)
    gc.collect()
    assert (instances(), len(LiveView._views)) == (before, alive)
    view = WorkflowView()
    with pytest.raises(RunError, match="not a workflow"):
        view.watch(md)
    assert view.run is None
    assert view.refresh() == "empty", "it is what it was"
    view.close()


def test_a_plan_that_cannot_be_read_is_said_and_the_others_stay(ended, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(ended[0], root / "naive_0")
    view = StrategyComparison(root)
    (root / "torn").mkdir()
    (root / "torn" / "plan.json").write_text('{"version": 1, "arm": "iter')
    view._tick()
    assert "torn: plan.json: cannot be read" in view.problem.value
    assert view.problem.layout.display is None
    assert "naive 0" in view.pane.budget.value
    shutil.rmtree(root / "torn")
    view._tick()
    assert view.problem.value == ""
    view.close()


def test_a_folder_that_is_gone_leaves_what_was_seen(ended, tmp_path):
    folder = Path(shutil.copytree(ended[0], tmp_path / "naive_0"))
    view = StrategyComparison(folder)
    shutil.rmtree(folder)
    view._tick()
    assert "naive 0" in view.pane.budget.value
    view._toggle("folder")
    assert "no longer exists" in view.panel.value
    view.close()


def test_errors_that_are_nan_are_left_out_of_the_picture(ended, tmp_path):
    folder = Path(shutil.copytree(ended[1], tmp_path / "iterative_0"))
    record = json.loads((folder / "evaluation.json").read_text())
    for row in record["rows"]:
        if row["kind"] == "finetuned" and row["round"] == 2:
            row.update({key: [float("nan"), None, None] for key in ("rmse_e", "std_e", "rmse_f")})
    (folder / "evaluation.json").write_text(json.dumps(record))
    view = StrategyComparison([ended[0], folder])
    shown = [one for one in view.pane.errors.shown[0] if one.get("name") == "iterative"]
    assert shown
    assert all(value is not None for one in shown for value in one["y"])
    assert "nan" not in view.pane.verdict.value.lower()
    view.close()


def test_an_evaluation_without_independent_frames_has_its_other_test_sets(ended, tmp_path):
    folder = Path(shutil.copytree(ended[1], tmp_path / "iterative_0"))
    record = json.loads((folder / "evaluation.json").read_text())
    record["rows"] = [row for row in record["rows"] if row["test_set"] != "independent"]
    (folder / "evaluation.json").write_text(json.dumps(record))
    view = StrategyComparison(folder)
    assert "independent frames" not in view.pane.test_set.options
    assert view.pane.error_box.layout.display is None
    assert view.pane.verdict.value
    view.close()


def test_all_frames_struck_out_cannot_be_approved(tmp_path):
    folder = waiting(tmp_path / "waits")
    pane = ReviewPane(WorkflowFolder(folder), viewer="still")
    for index in range(len(pane.candidates)):
        pane.strike(index)
    assert pane.approve_button.disabled
    assert "Keep at least one" in pane.head.value
    pane.approve()
    assert decisions(folder) == {}
    assert "no frame would be left to label" in pane.text.value
    pane.undo()
    assert not pane.approve_button.disabled
    pane.close()


def test_two_views_of_candidates_agree_after_one_approval(tmp_path):
    folder = waiting(tmp_path / "waits")
    first, second = (StrategyComparison(folder, viewer="still") for _ in range(2))
    first.pane._reviews[0].strike(0)
    first.pane._reviews[0].approve()
    second.pane._reviews[0].approve()
    assert len(decisions(folder)["01"]["struck"]) == 1, "the first answer stays"
    second.refresh()
    assert second.pane._reviews[0].box.layout.display == "none"
    first.close()
    first.close()
    assert second.refresh()
    second.close()


def test_a_thousand_updates_keep_object_counts_flat(ended):
    view = StrategyComparison(ended)
    view.refresh()
    gc.collect()
    before = instances()
    for k in range(1000):
        # Drawing takes most of the time, looking at folders is what goes on for days.
        if k % 50 == 0:
            view.pane.choose(1 + k // 50 % 3)
        view.refresh()
    gc.collect()
    assert instances() == before
    view.close()


def test_nothing_stays_of_closed_views(ended):
    StrategyComparison(ended).close()
    gc.collect()
    before = instances()
    for _ in range(3):
        view = StrategyComparison(ended)
        view.pane.choose(1)
        view.close()
    gc.collect()
    assert instances() <= before


def test_the_code_on_show_runs_as_it_is(ended, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ended[0].parent)
    assert workflow(tmp_path / "more", "iterative", runs=2).state == "completed"
    for some in (ended, [ended[0], tmp_path / "more"]):
        view = StrategyComparison(some)
        exec(compile(view._code(), "code", "exec"), {})
        assert "sampling, energies on independent frames" in capsys.readouterr().out
        view.close()
