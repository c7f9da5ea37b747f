"""Views without a browser: what they show, what clicks do, and that they do not grow."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import ipywidgets as w
import numpy as np
import pytest
from recorded import STRIDE, RecordedMD, RecordedReplicas, folder_of, log, lose, recorded_training

from mlipkit.events import Finished, Waiting
from mlipkit.runs import Run, TrainSpec, process
from mlipkit.runs.frames import RunFrames
from mlipkit_widgets import MDView, TrainingMonitor
from mlipkit_widgets.base import ASKED_S, IDLE_S, LIVE_S, RunView
from mlipkit_widgets.curves import MOST_POINTS, PER_ROUND
from mlipkit_widgets.states import LOOKS, look


def instances() -> int:
    return len(w.widget._instances) if hasattr(w.widget, "_instances") else len(w.Widget.widgets)


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedMD:
    return RecordedMD(tmp_path / "runs" / "md_300K", fails_at=1234)


def visible(view: RunView, text: str) -> bool:
    """Whether a button with this text can be pressed."""
    return any(
        text in child.description and child.layout.display != "none"
        for child in walk(view)
        if isinstance(child, w.Button)
    )


def walk(widget: w.Widget):
    yield widget
    for child in getattr(widget, "children", ()):
        if getattr(child, "layout", None) is None or child.layout.display != "none":
            yield from walk(child)


def test_every_state_has_icon_word_and_colour() -> None:
    for state in (
        "empty",
        "waiting",
        "queued",
        "running",
        "paused",
        "stopped",
        "completed",
        "failed",
        "crashed",
        "lost",
    ):
        style = LOOKS[state]
        assert style.icon
        assert style.word
        assert style.tone.startswith("#")
    assert look("later-invention").word == "LATER-INVENTION"


def test_empty_view_says_what_to_do() -> None:
    view = MDView(viewer="still")
    assert view.header.state == "empty"
    assert "Launcher" in view.empty.value
    assert not visible(view, "Pause")
    view.close()


def test_live_run_grows_and_is_followed(recorded: RecordedMD) -> None:
    recorded.advance(400)
    recorded.alive()
    view = MDView(recorded.run, viewer="still")
    assert view.header.state == "running"
    assert view.header.live
    assert view.curves.plot.n_points[0] == 401
    assert view.frame == 400 // STRIDE
    assert view.header.detail.startswith("0.2 of 2 ps")
    picture = view.picture.scene.widget.value
    recorded.advance(30)
    assert view.refresh() == "running"
    assert view.curves.plot.n_points[0] == 431
    assert view.frame == 430 // STRIDE
    assert view.picture.scene.widget.value != picture
    assert visible(view, "Pause")
    assert visible(view, "Stop")
    view.go(3)
    recorded.advance(100)
    view.refresh()
    assert view.frame == 3
    assert view.bar.slider.max == 530 // STRIDE
    assert visible(view, "Live")
    view.follow()
    assert view.frame == 530 // STRIDE
    view.close()


def test_clicks_reach_the_control_file(recorded: RecordedMD) -> None:
    recorded.advance(40)
    recorded.alive()
    view = MDView(recorded.run, viewer="still")
    assert view._tick() == LIVE_S
    view.pause_button.click()
    assert recorded.files.read("control.json")["request"] == "pause"
    assert view.header.sentence == "Pausing …"
    assert view._tick() == ASKED_S, "the answer is looked for more often"
    recorded.files.write("pid.json", {**recorded.files.read("pid.json"), "phase": "paused"})
    assert view._tick() == IDLE_S
    assert view._state == "paused"
    assert not visible(view, "Pause")
    view.resume_button.click()
    assert recorded.files.read("control.json")["request"] == "run"
    view.stop_button.click()
    assert recorded.files.read("control.json")["request"] == "stop"
    view.close()


def test_killed_worker_is_lost(recorded: RecordedMD) -> None:
    recorded.advance(100)
    recorded.lost()
    view = MDView(recorded.run, viewer="still")
    assert view.header.word == "LOST CONTACT"
    assert visible(view, "Resume")
    assert not visible(view, "Stop")
    view.close()


def test_go_to_failure_within_a_second(recorded: RecordedMD) -> None:
    recorded.warn(1219)
    verdict = recorded.fail()
    view = MDView(recorded.run, viewer="still")
    assert view.header.state == "failed"
    assert verdict.sentence in view.verdict.value
    assert {mark.kind for mark in view.curves.marks} == {"warning", "failure"}
    start = time.perf_counter()
    view.failure_button.click()
    assert time.perf_counter() - start < 1.0
    assert view.marked == (3, 2)
    assert view._frames is not None
    assert view._frames.step(view.frame) == verdict.step - 50
    assert "50 steps before failure" in view.bar.text.value
    assert "H 3" in view.picture.scene.widget.value
    # From here on every step is there, whatever the stride.
    for left in (49, 48, 47):
        view.bar.next_button.click()
        assert view._frames.step(view.frame) == verdict.step - left
    assert view.picture.colour.value == "force"
    assert "eV/Å" in view.picture.colour_bar.value
    view.close()


def test_click_on_a_curve_shows_that_moment(recorded: RecordedMD) -> None:
    recorded.fail()
    view = MDView(recorded.run, viewer="still")
    view._curve_clicked(0.2)
    assert view._frames is not None
    assert view._frames.step(view.frame) == 400
    assert view.curves.plot.cursor == pytest.approx(0.2)
    assert view.bar.slider.value == view.frame
    view.bar.slider.value = 7
    assert view.frame == 7
    view.frame = 9  # as another view that is linked to it would
    assert view.bar.slider.value == 9
    view.close()


def test_frames_join_stored_and_last_steps(recorded: RecordedMD) -> None:
    recorded.fail()
    frames = RunFrames(recorded.files.path)
    assert frames.refresh()
    assert not frames.refresh()
    steps = [frames.step(i) for i in range(len(frames))]
    assert steps == sorted(set(steps))
    assert [frames[i].info["step"] for i in range(len(frames))] == steps
    assert [frames[i].info["time_fs"] for i in range(len(frames))] == [frames.time(i) for i in range(len(frames))]
    for i in (0, 5, len(frames) - 100, len(frames) - 1):
        assert frames.at_step(steps[i]) == i
        assert frames.at_time(frames.time(i)) == i
    frames.close()


def test_curves_stay_small_and_keep_spikes(tmp_path: Path) -> None:
    recorded = RecordedMD(tmp_path / "long", steps=60_000)
    recorded.alive()
    recorded.spike = 9_000
    view = MDView(recorded.run, viewer="still")
    sent = []
    for _ in range(60):
        before = view.curves.plot.sent_points
        recorded.advance(1000)
        view.refresh()
        sent.append(view.curves.plot.sent_points - before)
        assert max(view.curves.plot.n_points) <= MOST_POINTS
    traces = sum(1 for count in view.curves.plot.n_points if count)
    assert np.median(sent) <= traces * PER_ROUND
    forces = [value for value in view.curves.plot._data[-1]["y"] if value is not None]
    assert max(forces) == 777.0
    view.close()


def test_tail_after_a_silence_is_as_fine_as_the_rest(tmp_path: Path) -> None:
    recorded = RecordedMD(tmp_path / "busy", steps=60_000)
    recorded.alive()
    recorded.advance(10_000)
    view = MDView(recorded.run, viewer="still")
    recorded.advance(9_000)  # while a cell kept the kernel busy
    view.refresh()
    times = np.array(view.curves.plot._data[0]["x"])
    half = times[-1] / 2
    assert 0.7 < (times > half).sum() / (times <= half).sum() < 1.4
    view.close()


def test_thousand_updates_leave_object_counts_flat(recorded: RecordedMD) -> None:
    recorded.alive()
    recorded.advance(200)
    view = MDView(recorded.run, viewer="still")
    view.picture.colour.value = "force"

    def rounds(count: int) -> None:
        for i in range(count):
            view.go(i % 10)
            view.refresh()

    rounds(50)
    gc.collect()
    widgets, objects = instances(), len(gc.get_objects())
    rounds(1000)
    gc.collect()
    assert instances() == widgets
    assert len(gc.get_objects()) - objects < 200
    view.close()


@pytest.mark.parametrize("cls", [MDView, TrainingMonitor])
def test_close_leaves_nothing(cls: type[RunView], tmp_path: Path) -> None:
    if cls is MDView:
        recorded = RecordedMD(tmp_path / "md")
        recorded.advance(40)
        run = recorded.run
    else:
        run = recorded_training(tmp_path / "train")
    cls(run).close()
    before = instances()
    view = cls(run)
    assert instances() > before
    view.close()
    assert instances() == before


def test_training_monitor(tmp_path: Path) -> None:
    monitor = TrainingMonitor(recorded_training(tmp_path / "train_painn"))
    assert monitor.header.state == "completed"
    assert "Trained in 2 min" in monitor.header.sentence
    assert monitor.plot.n_points == [600, 13, 13, 13, 13]
    assert "best epoch <b>9</b>" in monitor.summary.value
    assert monitor.plot._layout["shapes"][0]["x0"] == 450
    forces = monitor.plot._data[3]["y"]
    assert forces[0] == pytest.approx(500.0)  # meV/Å
    assert "meV/Å" in monitor.table.value
    titles = [axis["title"]["text"] for key, axis in monitor.plot._layout.items() if key.startswith("yaxis")]
    assert titles == ["loss", "force MAE<br>meV/Å", "energy MAE<br>meV/atom"]
    monitor.close()


def test_crash_shows_its_reason(tmp_path: Path) -> None:
    recorded = RecordedMD(tmp_path / "md")
    log(recorded.files, Finished("crashed", "ModelError: element 79 is unknown to the potential"))
    recorded.lost()
    view = MDView(recorded.run, viewer="still")
    assert view.header.word == "CRASHED"
    assert "element 79" in view.header.sentence
    view.close()


def test_panels_show_code_yaml_and_folder(tmp_path: Path) -> None:
    run = recorded_training(tmp_path / "train_painn")
    monitor = TrainingMonitor(run)
    code, spec, folder, _export, _pictures = (
        child for child in monitor.panel_buttons.children if isinstance(child, w.Button)
    )
    code.click()
    assert "mk.launch(mk.TrainSpec(" in monitor.panel.value
    assert "TrainingMonitor" in monitor.panel.value
    spec.click()
    assert "max_epochs: 12" in monitor.panel.value
    folder.click()
    assert str(run.folder) in monitor.panel.value
    folder.click()
    assert monitor.panel.value == ""
    monitor.close()


def test_waiting_run_says_for_what(tmp_path: Path) -> None:
    files = folder_of(tmp_path / "next", TrainSpec(data="sample:ethanol_300K"))
    files.write("pid.json", {**process.describe(), "phase": "waiting", "after_seq": 0})
    log(files, Waiting("train_painn"))
    monitor = TrainingMonitor(Run(files.path))
    assert monitor.header.word == "WAITING"
    assert "train_painn" in monitor.header.sentence
    monitor.close()


def test_several_simulations_are_counted_and_picked(tmp_path: Path) -> None:
    recorded = RecordedReplicas(tmp_path / "many", 6, {2: 600, 4: 300})
    view = MDView(recorded.run, viewer="still")
    assert view.overview.list.groups[0]["count"] == "0 of 6 failed"
    assert [one["icon"] for one in view.overview.list.groups[0]["members"]] == ["◔"] * 6
    recorded.alive()
    recorded.advance(200)
    view.refresh()
    assert (view.curves.plot.n_points[0], view.frame) == (201, 200 // STRIDE)
    assert view.header.sentence.startswith("0 of 6 failed so far · ")
    assert not visible(view, "Go to failure")
    recorded.advance(400)
    view.refresh()
    members = view.overview.list.groups[0]["members"]
    assert [one["icon"] for one in members] == ["●", "●", "●", "●", "✖", "●"]
    assert members[4]["text"] == "0.15 ps"
    assert view.header.detail.startswith("0.2 of 0.5 ps")
    assert view.header.sentence.startswith("1 of 6 failed so far")
    assert visible(view, "Go to failure")
    assert view.header.state == "running"
    recorded.finish()
    view.refresh()
    assert view.header.state == "failed"
    assert view.header.sentence.startswith("2 of 6 failed (2 broken bonds), the first (number 4) after 0.15 ps")
    assert "900 K: 2 of 6 failed, 67% hold at 0.5 ps" in view.overview.summary.value
    # Picking another one shows its atoms, curves and verdict.
    view.overview.list.picked = 2
    assert (view.replica, view.curves.plot.n_points[0]) == (2, 601)
    assert "Number 2, 900 K: Failed at step 600" in view.verdict.value
    view.replica = 0
    assert view.overview.list.picked == 0
    assert view.curves.plot._data[0]["x"][-1] == pytest.approx(0.5, abs=0.01)
    assert "Number 0, 900 K: held to the end" in view.verdict.value
    # From one that holds to the first that failed; from one that failed to its own failure.
    view.failure_button.click()
    assert (view.replica, view.marked) == (4, (3, 2))
    assert "50 steps before failure" in view.bar.text.value
    view.overview.list.picked = 2
    view.failure_button.click()
    assert view.replica == 2
    assert view._frames is not None
    assert view._frames.step(view.frame) == 550
    view.close()


def test_survival_is_drawn_per_temperature(tmp_path: Path) -> None:
    recorded = RecordedReplicas(tmp_path / "many", 4, {3: 500, 2: 200}, temperatures=[300, 300, 900, 900])
    recorded.finish()
    view = MDView(recorded.run, viewer="still")
    names = [group["name"] for group in view.overview.list.groups]
    assert names == ["300 K", "900 K"]
    assert [group["count"] for group in view.overview.list.groups] == ["0 of 2 failed", "2 of 2 failed"]
    hot = view.overview.survival._data[6]
    assert (hot["x"], hot["y"]) == ([0, 0.1, 0.25, 0.25], [1, 0.5, 0, 0])
    assert view.overview.survival._layout["xaxis"]["range"][1] == pytest.approx(0.51), "to the planned end"
    assert view.overview.reasons.layout.display is None
    bars = view.overview.reasons._data
    assert [bar["name"] for bar in bars] == names
    assert dict(zip(bars[1]["y"], bars[1]["x"], strict=True)) == {"broken bonds": 1, "overlap": 1}
    assert "900 K: 2 of 2 failed, 0% hold at 0.25 ps" in view.overview.summary.value
    view.replica = 3
    assert view.curves._target == 900
    view.close()


def test_all_hold(tmp_path: Path) -> None:
    recorded = RecordedReplicas(tmp_path / "many", 3, {})
    recorded.finish()
    view = MDView(recorded.run, viewer="still")
    assert view.header.sentence.startswith("All 3 held to the end at 900 K")
    assert "0 of 3 failed, 100% hold at 0.5 ps (95% interval 29% to 100%)" in view.overview.summary.value
    assert view.overview.reasons.layout.display == "none"
    view.close()
    single = RecordedMD(tmp_path / "one")
    single.advance(40)
    view = MDView(single.run, viewer="still")
    assert view.overview.layout.display == "none"
    view.watch(recorded.run)
    assert view.overview.layout.display is None
    view.watch(single.run)
    assert view.overview.layout.display == "none"
    view.close()


def test_several_simulations_that_lost_their_process(tmp_path: Path) -> None:
    recorded = RecordedReplicas(tmp_path / "many", 3, {1: 80})
    recorded.advance(100)
    lose(recorded.files)
    view = MDView(recorded.run, viewer="still")
    assert view.header.word == "LOST CONTACT"
    assert visible(view, "Resume")
    assert visible(view, "Go to failure")
    members = view.overview.list.groups[0]["members"]
    assert [one["icon"] for one in members] == ["■", "✖", "■"]
    assert "ended early" in members[0]["told"]
    assert "900 K: 1 of 3 failed, 67% hold at 0.05 ps" in view.overview.summary.value
    view.close()


def test_a_hundred_simulations_open_and_switch_quickly(tmp_path: Path) -> None:
    recorded = RecordedReplicas(tmp_path / "many", 100, {i: 100 + 2 * i for i in range(30)}, steps=200)
    recorded.finish()
    MDView(recorded.run, viewer="still").close()  # what is built once per kernel
    gc.collect()  # the garbage of other tests is not this view's
    begin = time.thread_time()
    view = MDView(recorded.run, viewer="still")
    opened = time.thread_time() - begin
    picks = []
    for number in range(0, 100, 7):
        begin = time.thread_time()
        view.overview.list.picked = number
        picks.append(time.thread_time() - begin)
    rounds = []
    for _ in range(20):
        begin = time.thread_time()
        view.refresh()
        rounds.append(time.thread_time() - begin)
    assert (opened < 0.5, max(picks) < 0.1, np.median(rounds) < 0.05) == (True, True, True), (opened, picks, rounds)
    view.close()


def test_a_view_shows_another_run(tmp_path: Path, recorded: RecordedMD) -> None:
    recorded.fail()
    other = RecordedMD(tmp_path / "other")
    other.advance(60)
    other.alive()
    view = MDView(recorded.run, viewer="still")
    view.failure_button.click()
    view.watch(other.run)
    assert view.header.state == "running"
    assert view.marked == ()
    assert view.verdict.layout.display == "none"
    assert view.curves.plot.n_points[0] == 61
    assert not view.curves.plot._layout.get("annotations")
    view.watch(None)
    assert view.header.state == "empty"
    view.close()


def test_last_steps_seen_while_they_are_written(recorded: RecordedMD) -> None:
    """Half a file of last steps must not count as the whole for ever."""
    recorded.advance(4000)
    writer = recorded._writer("last_steps.traj")
    frames = RunFrames(recorded.files.path)
    for step in range(1035, 1135):
        recorded._frame(writer, step)
    writer.close()
    assert frames.refresh()
    assert frames.step(len(frames) - 1) == 1134
    whole = recorded._writer("last_steps.traj")
    for step in range(1035, 1235):
        recorded._frame(whole, step)
    whole.close()
    assert frames.refresh()
    assert len(frames) == frames.first_last_step + 200
    assert [frames.step(i) for i in (len(frames) - 200, len(frames) - 1)] == [1035, 1234]
    frames.close()
