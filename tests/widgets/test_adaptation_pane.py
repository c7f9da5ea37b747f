"""The page of an evaluation of adaptation, alone and in StrategyComparison, without a browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from adapting import RecordedEvaluation
from recorded import log, recorded_training

from mlipkit.errors import RunError
from mlipkit.events import Finished
from mlipkit.runs import next_step
from mlipkit.runs.taip_report import taip_html
from mlipkit_widgets import AdaptationView, Launcher, StrategyComparison, Workbench
from mlipkit_widgets.adaptation_pane import AdaptationPane, is_evaluation
from mlipkit_widgets.launcher import VIEWS
from mlipkit_widgets.runs_data import RunsData


@pytest.fixture
def made(tmp_path: Path) -> RecordedEvaluation:
    return RecordedEvaluation(tmp_path / "runs" / "adapted")


def hidden(widget) -> bool:
    return widget.layout.display == "none"


def arms(pane: AdaptationPane) -> dict[str, float]:
    """Name of each arm on show -> its ratio to the baseline."""
    return {
        name: x for trace in pane.errors.shown[0] for name, x in zip(trace["y"], trace["x"], strict=True)
    }  # fmt: skip


def test_while_it_trains_the_page_shows_all_trainings_and_no_verdict(made: RecordedEvaluation) -> None:
    made.alive()
    view = AdaptationView(made.run)
    pane = view.pane
    assert view.header.state == "running"
    assert not hidden(pane.no_verdict)
    assert hidden(pane.training.plot)
    for arm in ("baseline", "noise", "taip"):
        made.train(0, arm)
    made.train(1, "baseline")
    view.refresh()
    assert hidden(pane.found_box)
    assert not hidden(pane.training)
    names = [trace["name"] for trace in pane.training.plot.shown[0]]
    assert names == ["labels alone", "noise augmentation", "with the tasks", "labels alone"]
    assert pane.training.plot.shown[0][0]["y"][0] == pytest.approx(400.0)  # meV/Å
    assert "taip, seed 0: trained in 12 s" in pane.training.said.value
    # Three seeds of six arms, as the ablation asks for three more.
    assert view.header.detail == "training 5 of 18 · step 20 of 40"
    assert view.header.done == pytest.approx(4.5 / 18, abs=1e-3)
    made.finish()
    view.refresh()
    assert view.header.state == "completed"
    assert (hidden(pane.training), hidden(pane.no_verdict), hidden(pane.found_box)) == (True, True, False)
    view.close()


def test_the_verdict_stands_first_and_errors_beside_their_controls(made: RecordedEvaluation) -> None:
    made.finish()
    view = AdaptationView(made.run)
    pane = view.pane
    assert pane.shown == ("hot", "forces"), "frames out of distribution first"
    assert "Adaptation: Does not work" in pane.verdict.value
    assert pane.verdict.value.index("Adaptation: ") < pane.verdict.value.index("Training with the tasks: ")
    assert pane.found_box.children[0] is pane.verdict
    ratios = arms(pane)
    assert len(ratios) == 11
    assert ratios["trained on labels alone (baseline)"] == 1.0
    assert ratios["noise augmentation"] == pytest.approx(0.9, abs=0.01)
    assert ratios["adapted"] == pytest.approx(0.85, abs=0.01)
    assert f">{ratios['adapted']:.3f} (" in pane.table.value
    kinds = [trace["name"] for trace in pane.errors.shown[0]]
    assert kinds == ["control", "what is asked about", "parts of it"]
    for error in pane.errors.shown[0][0]["error_x"]["array"]:
        assert error >= 0
    # The same answers for every test set on one page.
    assert pane.answers.value.count("<tr>") == 4
    assert "time over plain" in pane.cost.value
    assert pane.cost.value.count("<tr>") == 4
    pane.test_set.value = "in distribution"
    assert "on &#x27;in distribution&#x27;" in pane.verdict.value
    pane.quantity.value = "energy"
    assert "energy error" in pane.verdict.value
    assert "meV/atom" in pane.table.value
    view.close()


def test_a_cure_that_works_is_said_to_work(tmp_path: Path) -> None:
    made = RecordedEvaluation(tmp_path / "runs" / "works", gain=0.6, ablate=False)
    made.finish()
    view = AdaptationView(made.run)
    assert "✓ Adaptation: Works" in view.pane.verdict.value
    assert len(arms(view.pane)) == 5
    assert hidden(view.pane.feature_box)
    view.close()


def test_the_scan_marks_what_validation_chose(made: RecordedEvaluation) -> None:
    made.finish()
    view = AdaptationView(made.run)
    data = view.pane.scan.shown[0]
    validation = [trace for trace in data if trace["name"] == "validation frames"]
    assert len(validation) == 3
    assert validation[0]["x"] == [1e-6, 1e-5, 1e-4]
    assert validation[0]["y"] == pytest.approx([0.0299 / 0.03, 0.0295 / 0.03, 0.04 / 0.03])
    stars = [trace for trace in data if trace["name"] == "chosen"]
    assert [trace["x"] for trace in stars] == [[1e-5]] * 3
    tests = [trace for trace in data if trace["name"] == "hot"]
    assert {trace["line"]["dash"] for trace in tests} == {"dot"}
    view.close()


def test_maps_before_and_after_come_with_the_numbers_that_may_be_compared(tmp_path: Path) -> None:
    made = RecordedEvaluation(tmp_path / "runs" / "mapped", maps=True)
    made.finish()
    view = AdaptationView(made.run)
    pane = view.pane
    titles = [note["text"] for note in pane.maps.shown[1]["annotations"]]
    for words in ("baseline", "before adaptation", "after adaptation"):
        assert any(words in title and "AUC" in title and "MMD²" in title for title in titles)
    shown = [trace for trace in pane.maps.shown[0] if trace["name"] == "training"]
    assert [len(trace["x"]) for trace in shown] == [60, 60, 60]
    first = shown[0]["x"]
    pane.test_set.value = "ice"
    assert next(trace for trace in pane.maps.shown[0] if trace["name"] == "training")["x"] != first
    # An evaluation without maps keeps the numbers.
    (made.files.path / "taip_maps.npz").unlink()
    pane.update()
    assert hidden(pane.maps)
    assert "Fréchet" in pane.measures.value
    assert pane.measures.value.count("<td>all</td>") == pane.measures.value.count("<td>H</td>") == 3
    assert "Zn" not in pane.measures.value
    page = taip_html(made.run)
    assert page.count("<td>H</td>") == 9
    assert "Zn" not in page
    view.close()


def test_frames_without_any_error_are_shown_without_a_verdict(made: RecordedEvaluation) -> None:
    made.finish()
    path = made.files.path / "taip.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "verdicts": []}))
    view = AdaptationView(made.run)
    assert "hot" in view.pane.test_set.options
    assert view.pane.verdict.value == ""
    view.close()


def test_a_comparison_shows_evaluations_and_takes_in_later_ones(made: RecordedEvaluation) -> None:
    made.finish()
    root = made.files.path.parent
    recorded_training(root / "painn")
    view = StrategyComparison(root)
    assert view.header.state == "completed"
    assert view.header.detail == "1 evaluation of adaptation"
    assert hidden(view.pane)
    assert (hidden(view.empty), hidden(view.panel_buttons)) == (True, False)
    assert "Does not work" in view.evaluations.panes[0].verdict.value
    assert hidden(view.evaluations.panes[0].title)
    shutil.copytree(made.files.path, root / "again")
    view.refresh()
    assert view.header.detail == "2 evaluations of adaptation"
    assert [pane.title.value for pane in view.evaluations.panes] == ["<b>adapted</b>", "<b>again</b>"]
    assert "print(mk.open(place)" in view._code()
    assert "kind: taip" in view._yaml()
    assert "taip.json" in view._folder()
    view.watch(made.run)
    assert len(view.evaluations.panes) == 1
    view.close()
    view = StrategyComparison([str(root / "again")])
    assert view.header.detail == "1 evaluation of adaptation"
    view.close()


def test_an_evaluation_that_was_stopped_says_why(made: RecordedEvaluation) -> None:
    log(made.files, Finished("stopped", "stopped by the user", {}))
    view = StrategyComparison(made.run)
    assert view.header.state == "stopped"
    assert "stopped by the user" in view.header.sentence
    view.close()


def test_it_opens_from_list_and_workbench_and_nothing_else_does(made: RecordedEvaluation, here: Path) -> None:
    made.finish()
    data = RunsData(made.files.path.parent)
    data.refresh()
    assert data.lines[0]["text"] == "does not work"
    assert next_step(data.runs).action == "look"
    bench = Workbench(made.files.path.parent, viewer="still", tray=here / "tray")
    assert isinstance(bench.view, AdaptationView)
    bench.close()
    run = recorded_training(made.files.path.parent / "painn")
    assert not is_evaluation(run.folder)
    assert not is_evaluation(made.files.path / "nowhere")
    with pytest.raises(RunError, match="no evaluation of TAIP"):
        AdaptationView(run)
    assert VIEWS["taip"] is AdaptationView
    empty = AdaptationView()
    assert "Launcher" in empty.empty.value
    empty.close()


def test_a_half_written_record_is_read_next_time(made: RecordedEvaluation) -> None:
    made.finish()
    path = made.files.path / "taip.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    view = AdaptationView(made.run)
    assert hidden(view.pane.found_box)
    path.write_text(whole)
    view.refresh()
    assert not hidden(view.pane.found_box)
    view.close()


def test_a_form_starts_it_in_its_view(here: Path, monkeypatch: pytest.MonkeyPatch, made: RecordedEvaluation) -> None:
    launcher = Launcher("taip", automatic=False)
    made.finish()
    launcher._open(made.run, new=False)
    assert isinstance(launcher.view, AdaptationView)
    assert np.isfinite(launcher.view.header.done)
    launcher.close()
