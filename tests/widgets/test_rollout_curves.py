"""TrainingMonitor, list of runs, form and next step of a dynamic training, without a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded import RecordedDynamic, log, lose, recorded_training

from mlipkit.events import Finished, Waiting
from mlipkit.runs import DynamicSpec, MDSpec, Run, next_step, process
from mlipkit_widgets import Launcher, TrainingMonitor, Workbench
from mlipkit_widgets.form_words import DYNAMIC
from mlipkit_widgets.rollout_curves import stages_of
from mlipkit_widgets.runs_data import RunsData


@pytest.fixture
def trained(tmp_path: Path) -> RecordedDynamic:
    return RecordedDynamic(tmp_path / "runs" / "rolled")


def hidden(widget) -> bool:
    return widget.layout.display == "none"


def test_a_running_training_shows_its_stages(trained: RecordedDynamic) -> None:
    trained.alive()
    monitor = TrainingMonitor(trained.run)
    assert monitor.header.state == "running"
    assert hidden(monitor.rollouts)
    trained.advance(1)
    monitor.refresh()
    assert not hidden(monitor.rollouts)
    assert [one.length for one in monitor.rollouts.stages] == [1]
    trained.advance(6)  # two epochs into the second stage
    monitor.refresh()
    assert [(one.number, one.length, one.epochs, one.begin) for one in monitor.rollouts.stages] == [
        (1, 1, 4, 0.0), (2, 2, 2, 40.0)
    ]  # fmt: skip
    assert "roll-out steps <b>2</b>, stage 2" in monitor.summary.value
    data, layout = monitor.rollouts.progress.shown
    assert [trace["name"] for trace in data] == ["sum over elements", "H", "C", "O", "sum, first step alone"]
    assert monitor.rollouts.progress.n_points == [7] * 5
    assert data[0]["y"][0] == pytest.approx(600.0)  # meV/Å
    assert sum(trace["y"][-1] for trace in data[1:4]) == pytest.approx(data[0]["y"][-1])
    for marked in (layout, monitor.plot.shown[1]):
        assert [one["text"] for one in marked["annotations"]] == ["roll-out steps: 1", "2"]
        assert marked["shapes"][-1]["x0"] == 40.0
    # The error of a step, which goes on where the loss jumps with the weights of its steps.
    assert max(monitor.plot.shown[0][0]["y"]) < 1.0
    assert monitor.plot.n_points == [60, 0, 7, 7, 7]
    assert layout["legend"]["y"] > 1.05
    names = [trace["name"] for trace in monitor.rollouts.along.shown[0] if trace["mode"] == "lines"]
    assert names == ["stage 1: 1 roll-out step", "stage 2: 2 roll-out steps"]
    axis = monitor.rollouts.along.shown[1]["xaxis"]
    assert axis["title"]["text"] == "roll-out step, 0.5 fs each"
    assert monitor.rollouts.along.shown[0][0]["x"] == list(range(1, 21))
    monitor.close()


def test_an_ended_training_says_which_stage_is_kept(trained: RecordedDynamic) -> None:
    trained.advance(3)
    trained.finish()
    monitor = TrainingMonitor(trained.run)
    assert monitor.header.state == "completed"
    assert "Trained in 2 min" in monitor.header.sentence
    assert "3 ✓ chosen" in monitor.rollouts.table.value
    assert "<td>4</td>" in monitor.rollouts.table.value
    # A training of another kind in the same view shows none of it.
    monitor.watch(recorded_training(trained.run.folder.parent / "painn"))
    assert hidden(monitor.rollouts)
    assert len(monitor.plot.shown[1]["shapes"]) == 1
    assert not monitor.plot.shown[1].get("annotations")
    monitor.close()


def test_states_without_curves_are_said(trained: RecordedDynamic, tmp_path: Path) -> None:
    waiting = RecordedDynamic(tmp_path / "runs" / "waits")
    waiting.files.write("pid.json", {**process.describe(), "phase": "waiting", "after_seq": 0})
    log(waiting.files, Waiting("rolled"))
    monitor = TrainingMonitor(waiting.run)
    assert (monitor.header.word, hidden(monitor.rollouts), hidden(monitor.empty)) == ("WAITING", True, False)
    trained.advance(6)
    lose(trained.files)
    monitor.watch(trained.run)
    assert monitor.header.word == "LOST CONTACT"
    assert len(monitor.rollouts.stages) == 2
    crashed = RecordedDynamic(tmp_path / "runs" / "crashed")
    log(crashed.files, Finished("crashed", "DataError: run 0: frames do not follow each other"))
    lose(crashed.files)
    monitor.watch(crashed.run)
    assert monitor.header.word == "CRASHED"
    assert "do not follow each other" in monitor.header.sentence
    assert hidden(monitor.rollouts)
    monitor.close()


def test_a_half_written_file_of_curves_is_read_next_time(trained: RecordedDynamic) -> None:
    trained.advance(3)
    whole = (trained.files.path / "rollouts.json").read_text()
    (trained.files.path / "rollouts.json").write_text(whole[: len(whole) // 2])
    monitor = TrainingMonitor(trained.run)
    assert not monitor.rollouts.along.shown[0]
    (trained.files.path / "rollouts.json").write_text(whole)
    monitor.refresh()
    assert len(monitor.rollouts.along.shown[0]) == 2
    monitor.close()


def test_epochs_that_were_lost_count_in_no_stage() -> None:
    import numpy as np

    rows = {
        "step": [0, 10, 20], "epoch": [0, 1, 2], "stage": [1, 1, 2], "n_structures": [1, 1, 2],
        "rollout_mepa": [np.inf, np.inf, 0.3], "rollout_mepa/element=H": [np.inf, np.inf, 0.3],
    }  # fmt: skip
    first, second = stages_of({key: np.array(value, float) for key, value in rows.items()}, ("H",))
    assert not np.isfinite(first.mepa)
    assert (second.mepa, second.begin) == (0.3, 10.0)


def test_list_of_runs_and_next_step(trained: RecordedDynamic) -> None:
    trained.advance(3)
    trained.finish()
    data = RunsData(trained.run.folder.parent)
    data.refresh()
    assert data.lines[0]["text"] == "roll-outs 345 meV/Å"
    step = next_step(data.runs)
    assert (step.action, step.words) == ("simulate", "Run MD")
    assert isinstance(step.spec, MDSpec)
    assert (step.spec.start, step.spec.potential) == ("sample:ethanol_nve@0", str(trained.run.folder))


def test_the_form_speaks_of_rollout_steps() -> None:
    launcher = Launcher("dynamic", automatic=False)
    assert set(DYNAMIC) <= set(launcher.form.fields)
    field = launcher.form.fields["curriculum.n_structures"]
    assert field.box.children[0].value == "roll-out steps of the stages"
    assert "in code: curriculum.n_structures" in field.input.tooltip
    field.input.value = "1, 3, 9"
    assert isinstance(launcher.spec, DynamicSpec)
    assert launcher.spec.curriculum.n_structures == [1, 3, 9]
    field.input.value = "4, 2"
    assert "never fall" in launcher.problem.value
    launcher.close()


def test_monitor_of_a_real_folder_opens_again(trained: RecordedDynamic) -> None:
    trained.advance(5)
    first = TrainingMonitor(trained.run)
    second = TrainingMonitor(Run(trained.run.folder))
    assert first.rollouts.table.value == second.rollouts.table.value != ""
    for one in (first, second):
        one.close()


def test_a_workbench_opens_it_as_any_training(trained: RecordedDynamic, here: Path) -> None:
    trained.advance(3)
    trained.finish()
    bench = Workbench(trained.run.folder.parent, viewer="still", tray=here / "tray")
    assert isinstance(bench.view, TrainingMonitor)
    assert not hidden(bench.view.rollouts)
    assert "Run MD" in bench.next.button.description
    bench.close()
