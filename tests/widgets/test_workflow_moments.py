"""A workflow at moments of its way: failed, with frames picked and not labelled, with labels and no evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from test_views import instances, visible
from workflow_folders import SMALL, recorded, workflow

from mlipkit.events import Finished, Started
from mlipkit_widgets import StrategyComparison, WorkflowView
from mlipkit_widgets.own_runs import OwnRuns
from mlipkit_widgets.workflow_folder import WorkflowFolder

pytestmark = pytest.mark.full


def failed(folder: Path) -> Path:
    """Iterative; its first simulation fails at a force that is too large."""
    outcome = workflow(folder, "iterative", md={**SMALL.md, "checks": {"max_force": 0.6}})
    assert outcome.state == "failed"
    recorded(folder, Started("iterative workflow, seed 0", 31), Finished("failed", outcome.reason))
    return folder


def test_one_click_leads_to_the_frames_of_a_failure(tmp_path):
    view = WorkflowView(failed(tmp_path / "runs" / "mine"))
    assert view.header.state == "failed"
    assert visible(view, "Go to failure")
    assert "md_1: Failed at step 2" in view.header.sentence
    door = view.pane.failure
    door.buttons.children[0].click()
    pane = door.pane
    assert pane is not None
    assert "md_1: Failed at step 2" in pane.text.value
    assert "force on O6 too large" in pane.text.value
    assert pane.picture.colour.value == "force"
    pane.go(99)
    assert pane.frame == 2, "the step at which it failed is the last"
    assert "step 2 of 2" in pane.bar.text.value
    assert "1.02 eV/Å on O6" in pane.bar.text.value
    pane.bar.back_button.click()
    assert pane.frame == 1
    view.refresh()
    assert door.pane is pane, "it stays while the folder is looked at"
    door.buttons.children[0].click()
    assert (door.pane, door.holder.children) == (None, ())
    before = instances()
    for _ in range(2):
        door.buttons.children[0].click()
    assert instances() == before
    door.buttons.children[0].click()
    view.close()


def test_several_workflows_have_a_way_each(tmp_path):
    folders = [failed(tmp_path / name) for name in ("a", "b")]
    assert workflow(tmp_path / "c", "iterative", stop_in="label_1").state == "stopped"
    view = StrategyComparison([*folders, tmp_path / "c"], viewer="still")
    door = view.pane.failure
    assert [one.description for one in door.buttons.children] == [
        "✖ Go to failure of iterative 0 (a)", "✖ Go to failure of iterative 0 (b)",
    ]  # fmt: skip
    for number in (0, 1):
        door.buttons.children[number].click()
        assert door.shown is view.pane.data.workflows[number]
    view.watch(tmp_path / "c")
    assert (door.pane, door.layout.display) == (None, "none")
    view.close()


def test_frames_are_on_the_map_as_soon_as_they_are_picked(tmp_path):
    folder = tmp_path / "mine"
    assert workflow(folder, "iterative", stop_in="label_1").state == "stopped"
    view = StrategyComparison(folder)
    pane = view.pane
    assert pane.mapped.problem == ""
    assert pane.map.layout.display is None
    assert set(pane.mapped.value.arms["iterative"][1]) == {1}
    assert "3 frames of round 1 on the map without a label yet" in pane.on_map.value
    assert pane.bonds.layout.display == "none"
    assert workflow(folder, "iterative", stop_in="label_2").state == "stopped"
    view.refresh()
    assert set(pane.mapped.value.arms["iterative"][1]) == {1, 2}
    assert "3 frames of round 2" in pane.on_map.value
    view.choose(1)
    assert pane.on_map.value == ""
    assert workflow(folder, "iterative").state == "completed"
    view.refresh()
    view.choose(3)
    assert pane.on_map.value == ""
    assert set(pane.mapped.value.arms["iterative"][1]) <= {1, 2, 3}
    view.close()


def test_residuals_begin_with_the_first_labels_of_a_tuned_model(tmp_path):
    folder = tmp_path / "mine"
    assert workflow(folder, "iterative", stop_in="label_2").state == "stopped"
    view = StrategyComparison(folder)
    pane = view.pane
    assert pane.residuals.layout.display == "none"
    assert "second round of an iterative arm" in pane.no_residuals.value
    assert pane.no_residuals.layout.display is None
    assert workflow(folder, "iterative", stop_in="label_3").state == "stopped"
    view.refresh()
    assert pane.residuals.layout.display is None
    assert pane.no_residuals.layout.display == "none"
    names = [trace.get("name", "") for trace in pane.residuals.shown[0]]
    assert sum(name.startswith("iterative 0, model 1 in md_2: mean") for name in names) == 1
    view.close()


def test_residuals_before_the_evaluation_are_those_of_the_evaluation(tmp_path):
    """The energy that a trajectory stores is what the model predicts for the frame afterwards."""
    folder = tmp_path / "mine"
    assert workflow(folder, "naive").state == "completed"
    one = WorkflowFolder(folder)
    (known,) = [run for run in OwnRuns().of({"naive": [one]}, 2) if run.arm == 0]
    one.evaluated = None
    (early,) = OwnRuns().of({"naive": [one]}, 2)
    assert early.name == "naive 0, model 2 in test_md_2"
    np.testing.assert_allclose(early.time_ps, known.time_ps)
    np.testing.assert_allclose(early.residual, known.residual, atol=1e-6)


def test_an_evaluation_without_simulations_leaves_those_of_the_sampling(tmp_path):
    for arm in ("naive", "iterative"):
        test = dataclasses.replace(SMALL.evaluation, self_md="none")
        assert workflow(tmp_path / arm, arm, evaluation=test).state == "completed"
    view = StrategyComparison([tmp_path / "naive", tmp_path / "iterative"])
    names = [trace.get("name", "") for trace in view.pane.residuals.shown[0] if trace.get("name")]
    assert [name.partition(":")[0] for name in names] == ["iterative 0, model 2 in md_3"]
    view.close()
    view = StrategyComparison(tmp_path / "naive")
    assert view.pane.residuals.layout.display == "none"
    assert view.pane.no_residuals.layout.display == "none", "nothing more will come"
    view.close()
