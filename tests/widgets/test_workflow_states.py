"""A workflow on screen in every state: what has happened, what is kept, what to do next."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded import lose
from test_views import visible
from workflow_folders import arms, recorded, waiting, workflow

from mlipkit.events import Finished, Progress, Started, Waiting, to_json
from mlipkit.runs import Run, process
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.log import EventLog
from mlipkit_widgets import StrategyComparison, WorkflowView

pytestmark = pytest.mark.full

WHY = "md_3: Failed at step 16: density 0.21 g/cm³, limit 0.3 g/cm³. Nothing is built on this run"


def half(folder: Path, *said: object) -> RunFolder:
    """Stopped in the labels of the third round, as a run that said so much."""
    assert workflow(folder, "iterative", stop_in="label_3").state == "stopped"
    return recorded(folder, Started("iterative workflow, seed 0", 31), *said)  # type: ignore[arg-type]


def alive(files: RunFolder, phase: str = "running") -> None:
    files.write("pid.json", {**process.describe(), "phase": phase, "after_seq": Run(files.path).entries()[-1].seq})
    files.beat()


def test_empty_and_waiting_name_what_begins(tmp_path):
    view = WorkflowView()
    assert view.header.state == "empty"
    assert "Start one with a Launcher" in view.empty.value
    view.close()
    folder = tmp_path / "runs" / "later"
    folder.mkdir(parents=True)
    files = recorded(folder, Waiting("the run 'tuned'"))
    alive(files, "waiting")
    view = WorkflowView(folder)
    assert view.header.state == "waiting"
    assert view.header.sentence == "Waits for the run 'tuned'. Starts by itself when that run is done."
    assert visible(view, "Stop")
    assert not visible(view, "Resume")
    view.close()
    view = StrategyComparison(folder)
    assert view.header.sentence.startswith("iterative 0: has not begun; Waits for the run 'tuned'")
    view.close()


def test_running_says_what_it_does_now(tmp_path):
    files = half(tmp_path / "runs" / "mine")
    files.write("progress.json", to_json(Progress(12, 31, "stage")))
    alive(files)
    view = WorkflowView(files.path)
    assert view.header.state == "running"
    assert view.header.detail == "stage 12 of 31"
    assert view.header.done == pytest.approx(12 / 31, abs=1e-3)
    assert "stages, now label_3 (3 labels)" in view.header.sentence
    assert view.pane.standing.layout.display == "none", "the head says it all"
    assert visible(view, "Pause")
    view.close()


def test_a_failure_has_its_reason_what_is_kept_and_the_next_step(tmp_path):
    files = half(tmp_path / "runs" / "mine", Finished("failed", WHY))
    (stage,) = files.path.glob("stages/*_md_3")
    (stage / "stage.json").unlink()
    view = WorkflowView(files.path)
    assert view.header.state == "failed"
    assert view.header.sentence == WHY, "a name of the code keeps its small letter"
    told = view.pane.standing.value
    assert "Kept: " in told
    assert "6 labels, 0.04 ps of MD" in told
    assert f"ShiftExplorer(&#x27;{stage}/trajectory.traj&#x27;)" in told
    assert "another start, time step or seed" in told
    assert WHY not in told, "once is enough"
    assert view.pane.timeline.layout.display is None, "what is done is still drawn"
    assert not visible(view, "Resume"), "it would fail again"
    view.close()
    both = StrategyComparison([files.path, arms(tmp_path / "other")[0]])
    assert both.header.state == "failed"
    assert both.header.sentence == "1 failed"
    assert WHY in both.pane.standing.value
    assert "naive" not in both.pane.standing.value, "what is completed needs no line"
    both.close()


@pytest.mark.parametrize("state", ["crashed", "lost", "stopped"])
def test_what_can_go_on_says_where(tmp_path, state):
    reason = "all 3 frames failed: SCF not converged (3)"
    files = half(tmp_path / "runs" / "mine", *([] if state == "lost" else [Finished(state, reason)]))  # type: ignore[arg-type]
    if state == "lost":
        lose(files)
    view = WorkflowView(files.path)
    assert view.header.state == state
    told = view.pane.standing.value
    assert "it goes on at label_3" in told
    assert f"mlipkit open {files.path} --resume" in told
    assert ("mend what the reason names" in told) == (state == "crashed")
    assert visible(view, "Resume")
    view.close()
    view = StrategyComparison(files.path)
    assert ("SCF not converged" if state != "lost" else "ended unexpectedly") in view.header.sentence
    view.close()


def test_resumed_it_is_running_and_speaks_of_no_stop(tmp_path):
    files = half(tmp_path / "runs" / "mine", Finished("stopped", "stopped by the user in stage label_3"))
    view = WorkflowView(files.path)
    assert "Next:" in view.pane.standing.value
    alive(files)
    assert view.refresh() == "running"
    assert "stopped" not in view.header.sentence
    assert view.pane.standing.value == ""
    assert workflow(files.path, "iterative").state == "completed"
    log = EventLog(files.events)
    log(Finished("completed", "all 31 stages done"))
    log.close()
    assert view.refresh() == "completed"
    assert view.pane.standing.value == ""
    assert "Iterative sampling" in view.pane.verdict.value
    view.close()


def test_candidates_that_wait_are_the_next_step(tmp_path):
    folder = waiting(tmp_path / "runs" / "mine")
    recorded(folder, Started("iterative workflow", 34), Finished("stopped", "3 frames wait"), review=True)
    view = WorkflowView(folder)
    assert view.header.state == "review"
    assert "look at the candidate frames and approve them" in view.pane.standing.value
    view.close()


def test_a_round_without_labels_has_no_empty_axes(tmp_path):
    files = half(tmp_path / "runs" / "mine", Finished("stopped", "stopped by the user"))
    view = WorkflowView(files.path)
    pane = view.pane
    assert pane.round == 3
    assert pane.bonds.layout.display == "none"
    assert "No frame of round 3 has labels yet" in pane.no_bonds.value
    assert pane.no_bonds.layout.display is None
    pane.choose(2)
    assert pane.bonds.layout.display is None
    assert pane.no_bonds.layout.display == "none"
    view.close()
