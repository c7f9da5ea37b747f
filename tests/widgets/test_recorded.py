"""The view of a recording and its button, without a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded import RecordedMD, recorded_training

from mlipkit.errors import SpecError
from mlipkit.runs import Run
from mlipkit_widgets import MDView, Recorded, TrainingMonitor
from mlipkit_widgets import recorded as module

NAME = "00_start_here/ethanol_1000_900K"


@pytest.fixture
def view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.chdir(tmp_path)
    return Recorded(NAME)


def visible(button) -> bool:
    return button.layout.display != "none"


def test_it_opens_with_its_day_and_all_its_frames(view: Recorded):
    assert isinstance(view.view, MDView)
    assert view.header.title.startswith("Recorded on ")
    assert view.header.title.endswith("2026")
    assert visible(view.here_button)
    assert not visible(view.back_button)
    assert "Failed at step" in view.view.verdict.value
    assert not visible(view.view.resume_button)
    view.view.go_to_failure()
    assert view.view.marked
    view.close()


def test_run_here_shows_the_new_run_and_the_recording_again(
    view: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = RecordedMD(tmp_path / "runs" / "own")
    own.advance(100)
    own.alive()
    asked: list[tuple[Run, str]] = []
    monkeypatch.setattr(module, "run_here", lambda run, root: asked.append((run, root)) or own.run)
    view.here_button.click()
    assert asked == [(view.recording, "runs")]
    assert view.run == own.run
    assert view.view.run == own.run
    assert view.view.header.state == "running"
    assert not visible(view.here_button)
    assert view.header.title == "Run here"
    view.back_button.click()
    assert view.view.run == view.recording
    assert visible(view.here_button)
    view.close()
    own.close()


def test_what_hinders_the_start_is_said(view: Recorded, monkeypatch: pytest.MonkeyPatch):
    def refuse(run, root):
        raise SpecError("no room", where="runs")

    monkeypatch.setattr(module, "run_here", refuse)
    view.here_button.click()
    assert "runs: no room" in view.problem.value
    assert view.header.title.startswith("Recorded on ")
    assert not view.here_button.disabled
    view.close()


def test_what_was_run_here_is_shown_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "runs" / "ethanol_1000_900K"
    own.mkdir(parents=True)
    (own / "spec.yaml").write_text(module.recording(NAME).yaml())
    view = Recorded(NAME)
    assert view.run.folder == own
    assert visible(view.back_button)
    view.close()


def test_a_finished_training_shows_parity(tmp_path: Path):
    recorded = Recorded("01_your_own_potential/own_potential")
    pictures = recorded.view.parity.children
    assert len(pictures) == 3
    plots = [pane.children[0] for pane in pictures[1:]]
    titles = [plot.shown[1]["title"]["text"] for plot in plots]
    assert titles[0].startswith("energy: MAE")
    assert titles[1].startswith("force components: MAE")
    assert max(plots[1].n_points) <= 3000
    recorded.close()
    without = TrainingMonitor(recorded_training(tmp_path / "train"))
    assert not without.parity.children
    without.close()
