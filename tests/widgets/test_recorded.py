"""The view of a recording and its button, without a browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from recorded import RecordedMD, recorded_training

from mlipkit.errors import SpecError
from mlipkit.runs import Run, recording
from mlipkit.runs.shipped import exhibit
from mlipkit_widgets import MDView, Recorded, ShiftExplorer, StrategyComparison, TrainingMonitor, Workbench
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


def files(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*")}


def test_an_explorer_has_its_numbers_without_computing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shown = exhibit("03_explore_a_shift")
    before = files(shown.folder)
    recorded = Recorded("03_explore_a_shift")
    view = recorded.view
    assert isinstance(view, ShiftExplorer)
    assert view.computing.state == "ready"
    assert [one.name for one in view.data.sets] == ["training", "hot_run"]
    assert [one.points.n_frames for one in view.data.sets] == [50, len(view.data["hot_run"].frames)]
    # On the frame of the first warning.
    assert (view.set, view.data["hot_run"].marks[view.frame]) == ("hot_run", "warning")
    assert "failure" in view.data["hot_run"].marks.values()
    view.refresh()
    assert files(shown.folder) == before
    recorded.close()


def test_recorded_numbers_are_those_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from mlipkit.analysis import OODModel
    from mlipkit.data import FrameSet, samples

    monkeypatch.chdir(tmp_path)
    recorded = Recorded("03_explore_a_shift")
    frames = FrameSet.from_atoms([recorded.view.data["hot_run"].frames[i] for i in (0, 34, 100)])
    scores = OODModel.fit(samples.load("ethanol_300K")[::20]).score(frames)
    points = recorded.view.data["hot_run"].points
    rows = np.concatenate([np.arange(9) + 9 * i for i in (0, 34, 100)])
    np.testing.assert_allclose(points.q[rows], scores.q, rtol=1e-3, atol=1e-4)
    recorded.close()


def test_a_workbench_of_recordings_only_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shown = exhibit("05_close_the_loop")
    before = files(shown.folder)
    recorded = Recorded("05_close_the_loop")
    bench = recorded.view
    assert isinstance(bench, Workbench)
    assert "one point in 20 is kept" in recorded.header.sentence
    # Thinning has changed no result: these are the figures in docs/notebooks.md.
    said = bench.comparison.sentence.value
    assert "3 of 16 held [4%, 46%] before, 12 of 16 held [48%, 93%] after: simulations hold longer" in said
    for part in (bench.next.main, bench.tray, bench.runs_pane.new_button, bench.runs_pane.actions):
        assert not visible(part)
    origins = {line["name"]: line["origin"] for line in bench.data.lines}
    assert origins["hot_round2"] == "from train_on_label_hot"
    assert origins["label_hot"] == "from hot"
    for run in shown.runs:
        bench.watch(run)
        assert bench.view.run == run
        assert bench.view.header.title == run.name
        # There are no weights and no folder of one's own to go on with.
        assert "recorded" not in bench.view.header.sentence
        bench.refresh()
    assert files(shown.folder) == before
    assert not (tmp_path / "selections").exists()
    recorded.close()


def test_iterations_are_shown_from_their_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    before = files(exhibit("08_ipip").folder)
    recorded = Recorded("08_ipip")
    view = recorded.view
    assert isinstance(view, StrategyComparison)
    assert view.header.detail == "4 arms, 12 runs"
    # These are the figures in docs/notebooks.md.
    assert "1.41 times that of the best control (one_shot); 95% interval 1.10 to 1.67" in view.pane.verdict.value
    failed = {arm: one["failed"] for arm, one in view.pane.compared.value.stability.items()}
    assert failed == {"ipip": 8, "continual": 0, "one_shot": 10, "scratch": 23}
    assert view.pane.run.value == "ipip 0"
    assert view.round == 3
    assert files(exhibit("08_ipip").folder) == before
    recorded.close()


def test_arms_are_compared_from_their_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    recorded = Recorded("04_naive_vs_iterative")
    view = recorded.view
    assert isinstance(view, StrategyComparison)
    assert view.header.detail == "2 arms, 4 workflows"
    assert view.pane.data.sentence(view.pane.compared.value).startswith("Iterative sampling, energies on independent")
    assert view.pane.mapped.value is not None
    assert view.pane.bonded.value is not None
    assert visible(recorded.here_button)
    recorded.close()


def test_evaluations_of_adaptation_are_shown_from_their_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    recorded = Recorded("07_taip")
    view = recorded.view
    assert isinstance(view, StrategyComparison)
    assert view.header.detail == "2 evaluations of adaptation"
    first, second = view.evaluations.panes
    assert list(first.test_set.options) == ["ethanol_600K", "ethanol_900K", "in distribution"]
    assert second.test_set.options[0] == "ice_ih"
    for pane in (first, second):
        assert "Adaptation: " in pane.verdict.value
        assert visible(pane.found_box)
    # Recorded with its coordinates: all training frames, for each kind of features.
    drawn = [trace for trace in first.maps.shown[0] if trace["name"] == "training"]
    assert [len(trace["x"]) for trace in drawn] == [240, 240, 240]
    assert visible(recorded.here_button)
    recorded.close()


def test_run_here_shows_runs_of_ones_own_in_a_view_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "runs" / "hot_run"

    def launched(run, root):
        own.mkdir(parents=True)
        for name in ("spec.yaml", "events.jsonl", "trajectory.traj"):
            shutil.copy(run.folder / name, own)
        return Run(own)

    monkeypatch.setattr(module, "run_here", launched)
    view = Recorded("03_explore_a_shift")
    first = view.view
    view.here_button.click()
    assert view.view is not first
    assert view.view.data["hot_run"].run == Run(own)
    assert (visible(view.view), visible(first)) == (True, False)
    assert view.header.title == "Run here"
    view.back_button.click()
    assert view.view is first
    assert visible(first)
    assert view.header.title.startswith("Recorded on ")
    view.close()


def test_what_was_run_here_is_shown_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "runs" / "ethanol_1000_900K"
    own.mkdir(parents=True)
    (own / "spec.yaml").write_text(recording(NAME).yaml())
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
