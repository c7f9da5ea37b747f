"""The Workbench without a browser: its list, the step it names, what every click does, and what it refuses."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import ipywidgets as w
import numpy as np
import pytest
from recorded import RecordedMD, RecordedReplicas, folder_of, log, lose, recorded_training
from test_views import instances, visible

import mlipkit_widgets.applies_panel as applies_panel
import mlipkit_widgets.next_actions as next_actions
import mlipkit_widgets.workbench as workbench_module
from mlipkit.data import read
from mlipkit.data.tray_frames import TrayFrames
from mlipkit.errors import RunError
from mlipkit.events import Finished, Waiting
from mlipkit.runs import LabelSpec, MDSpec, Run, TrainSpec, before_failure, next_step, runs_in, what_applies
from mlipkit_widgets import LabelView, MDView, TrainingMonitor, Workbench
from mlipkit_widgets.map_pane import MapPane
from mlipkit_widgets.shift_computing import ShiftComputing
from mlipkit_widgets.shift_data import ShiftData, ShiftSet
from mlipkit_widgets.workbench_memory import NAME


@pytest.fixture
def bench(here: Path):
    """Makes Workbenches of this folder and closes them."""
    made: list[Workbench] = []

    def make(**options: object) -> Workbench:
        made.append(Workbench("runs", viewer="still", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def hot(here: Path) -> Run:
    """Three of four simulations failed."""
    replicas = RecordedReplicas(Path("runs/hot"), 4, {0: 500, 1: 700, 3: 640}, steps=1000)
    replicas.finish()
    return replicas.run


class Held:
    """Work that begins when the test lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jobs: list[tuple[Callable[[], object], Callable]] = []
        monkeypatch.setattr(next_actions, "in_background", lambda work, done: self.jobs.append((work, done)))

    def go(self) -> None:
        for work, done in [self.jobs.pop(0) for _ in list(self.jobs)]:
            try:
                result, error = work(), None
            except Exception as problem:
                result, error = None, problem
            done(result, error)


def test_an_empty_folder_begins_with_a_sample_or_with_own_data(bench) -> None:
    view = bench()
    assert view.step.action == "begin"
    assert view.header.word == "EMPTY"
    assert "Use sample" in view.next.button.description
    assert visible(view, "Open my data")
    assert "No run is open" in view.empty.value
    assert not Path("runs").exists(), "looking alone makes no folder"
    assert "mk.launch(mk.TrainSpec(" in view._panel("code")
    assert "kind: train" in view._panel("yaml")


def test_own_data_are_checked_in_the_words_of_the_report(bench, here: Path) -> None:
    from mlipkit.data import samples, write

    frames = samples.load("ethanol_300K")[:20]
    write("mine.extxyz", frames)
    write("bare.extxyz", frames.with_labels(energy=np.nan, forces=np.nan))
    view = bench()
    view.next.data_button.click()
    begin = view.begin
    assert begin.layout.display != "none"
    begin.place.value = "min.extxyz"
    begin.check()
    assert "no such file" in begin.text.value
    assert "mine.extxyz" in begin.text.value, "the nearest name is offered"
    assert begin.train_button.disabled
    begin.place.value = "bare.extxyz"
    begin.check()
    assert "Training needs energy and forces on every frame" in begin.text.value
    assert begin.train_button.disabled
    assert begin.spec is None
    begin.place.value = "mine.extxyz"
    begin.check()
    assert "20 of 9 atoms" in begin.text.value
    assert "forces 20/20" in begin.text.value
    assert not begin.train_button.disabled
    assert begin.spec == TrainSpec(data="mine.extxyz", time_limit_s=60.0, max_epochs=10000, name="train_mine")
    begin.place.value = ""
    begin.check()
    assert begin.spec is None
    assert begin.train_button.disabled


def test_use_sample_launches_what_the_code_says(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    view = bench()
    asked = []

    def launch(spec, **options):
        asked.append((spec, options))
        raise RunError("the disk is\nfull")

    monkeypatch.setattr(next_actions, "launch", launch)
    view.next.button.click()
    assert asked == [(next_step([]).spec, {"root": view.root, "again": False})]
    assert "the disk is full" in view.next.problem.value, "one line"
    assert view.next.busy == ""
    assert not view.next.button.disabled
    view.next.button.click()
    assert len(asked) == 2, "it can be tried again"


def test_a_second_click_starts_nothing(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    view = bench()
    held = Held(monkeypatch)
    monkeypatch.setattr(next_actions, "launch", lambda spec, **_options: recorded_training(Path("runs") / spec.name))
    view.next.button.click()
    assert view.next.button.disabled
    assert "Starting …" in view.next.button.description
    view.next.button.click()
    view.act()
    view.refresh()
    assert "Starting …" in view.next.button.description
    assert len(held.jobs) == 1
    held.go()
    assert [run.name for run in runs_in("runs")] == ["first_potential"]
    assert isinstance(view.view, TrainingMonitor)
    assert view.step.action == "simulate"


def test_the_list_shows_state_parents_and_what_came_of_each(bench, hot: Run, here: Path) -> None:
    trained = recorded_training(Path("runs/first"))
    log(folder_of(Path("runs/later"), MDSpec(potential=str(trained.folder))), Waiting("first"))
    lose(Run("runs/later").files)
    view = bench()
    lines = {one["name"]: one for one in view.data.lines}
    assert lines["hot"]["text"] == "3 of 4 failed"
    assert lines["hot"]["icon"] == "✖"
    assert lines["first"]["text"].endswith("meV/Å")
    assert lines["later"]["origin"] == "from first"
    assert (lines["first"]["depth"], lines["later"]["depth"]) == (0, 1)
    assert [one["name"] for one in view.data.lines].index("later") == [one["name"] for one in view.data.lines].index(
        "first"
    ) + 1
    assert "lost contact" in lines["later"]["told"]
    assert view.runs_pane.tree.lines == view.data.lines
    view.runs_pane.tree._message(None, {"type": "open", "name": "first"}, None)
    assert view.run == trained
    assert isinstance(view.view, TrainingMonitor)
    assert view.runs_pane.tree.opened == "first"
    view.runs_pane.tree._message(None, {"type": "open", "name": "gone"}, None)
    assert view.run == trained


def test_the_list_is_not_drawn_again_when_nothing_has_changed_and_thirty_runs_stay_quick(bench, here: Path) -> None:
    for number in range(30):
        md = RecordedMD(Path(f"runs/md_{number:02d}"), steps=200, fails_at=150 if number % 3 else None)
        if number % 3:
            md.fail()
        else:
            md.advance(200)
            log(md.files, Finished("completed", "all steps done"))
            md.close()
    view = bench()
    view.refresh()
    sent = []
    view.runs_pane.tree.observe(lambda change: sent.append(change["name"]), ["lines", "opened"])
    begin = time.thread_time()
    for _ in range(20):
        view.data.refresh()
        view.runs_pane.update(view.run)
    each = (time.thread_time() - begin) / 20
    assert sent == []
    assert len(view.data.lines) == 30
    assert each < 0.02, f"{1000 * each:.1f} ms for a look at 30 runs"


def test_the_loop_up_to_the_label_by_clicks(bench, hot: Run, here: Path) -> None:
    """Go to failure, select, label with a maker of one's choice; each click does what Python does."""
    view = bench()
    assert isinstance(view.view, MDView)
    assert view.step.action == "go_to_failure"
    assert "3 of 4 failed" in view.next.why.value
    assert "go_to_failure()" in view._panel("code")
    view.next.button.click()
    assert view.view.replica == 0, "the one that failed first"
    assert "steps before failure" in view.view.bar.text.value
    assert view.step.action == "select"
    assert "most=10" in view._panel("code")
    view.next.most.value = 4
    view.next.button.click()
    picked = before_failure(hot, most=4)
    assert view.selection.uids == picked.selection.uids
    assert np.array_equal(view.tray.frames().positions, picked.frames.positions)
    assert len(view.tray.pictures.items) == 4
    assert "Label 4 frames" in view.next.button.description
    assert view.next.maker.value == "gfn2-xtb", "the level of what the potential learned from"
    assert "selection.export('selections/hot.extxyz'" in view._panel("code")
    view.next.maker.value = "nonsense"
    view.next.button.click()
    assert "unknown label maker &#x27;nonsense" in view.next.problem.value
    assert view.selection.uids == picked.selection.uids
    view.next.maker.value = "sample:ethanol_50"
    assert view.next.problem.value == ""
    assert "maker: sample:ethanol_50" in view._panel("yaml")
    view.next.button.click()
    labelled = Run("runs/label_hot")
    assert view.run == labelled
    assert isinstance(view.view, LabelView)
    assert view.step.action == "watch"
    assert view.next.button.disabled
    assert len(view.selection) == 0
    assert view.tray.tray.undo_steps
    assert labelled.wait(90).state == "completed"
    view.refresh()
    assert view.step.action == "train_on"
    lines = {one["name"]: one for one in view.data.lines}
    assert lines["label_hot"]["origin"] == "from hot"
    assert lines["label_hot"]["text"] == "4 of 4 labelled"
    assert read("selections/hot.extxyz").uids.tolist() == list(picked.selection.uids)
    view.tray.undo_button.click()
    assert view.selection.uids == picked.selection.uids


def test_what_was_open_seen_and_compared_comes_back(bench, hot: Run, here: Path) -> None:
    trained = recorded_training(Path("runs/first"))
    view = bench()
    view.go_to_failure(hot)
    view.memory.compare(hot)
    view.watch(trained)
    record = json.loads((Path("runs") / NAME).read_text())
    assert record == {"opened": "first", "seen": ["hot"], "compared": ["hot"]}
    view.close()
    again = bench()
    assert again.run == trained
    assert again.memory.seen == again.memory.compared == {hot.folder}
    again.close()
    (Path("runs") / NAME).write_text("{torn")
    assert bench().memory.seen == set(), "a damaged memory locks nobody out"


def test_a_run_is_copied_deleted_and_brought_back(bench, hot: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = recorded_training(Path("runs/first"))
    folder_of(Path("runs/child"), MDSpec(potential=str(trained.folder)))
    lose(Run("runs/child").files)
    view = bench()
    view.watch("runs/first")
    view.runs_pane.delete_button.click()
    assert "other runs read its output" in view.next.problem.value
    assert Path("runs/first").is_dir()
    assert not visible(view, "Undo delete")
    view.watch("runs/child")
    view.runs_pane.delete_button.click()
    assert view.next.problem.value == ""
    assert not Path("runs/child").exists()
    assert view.run is not None
    assert view.run.name != "child"
    assert "child" not in [one["name"] for one in view.data.lines]
    assert visible(view, "Undo delete")
    Path("runs/child").mkdir()
    (Path("runs/child") / "x").touch()
    view.runs_pane.undo_button.click()
    assert "another run has this name by now" in view.next.problem.value
    (Path("runs/child") / "x").unlink()
    Path("runs/child").rmdir()
    view.runs_pane.undo_button.click()
    assert view.run == Run("runs/child")
    assert not visible(view, "Undo delete")
    import mlipkit_widgets.runs_pane as pane

    monkeypatch.setattr(pane, "duplicate", lambda run: recorded_training(Path("runs/copy")))
    view.runs_pane.again_button.click()
    assert view.run == Run("runs/copy")


def test_an_active_run_cannot_be_deleted(bench, here: Path) -> None:
    md = RecordedMD(Path("runs/md"), steps=400)
    md.advance(100)
    md.alive()
    view = bench()
    assert view.runs_pane.delete_button.disabled
    assert view.step.action == "watch"
    assert "md is running" in view.next.button.description
    view.runs_pane.delete()
    assert "Stop it first" in view.next.problem.value
    assert md.files.path.is_dir()


def equal_runs(fails: dict[int, int], potential: str, name: str) -> Run:
    made = RecordedReplicas(Path("runs") / name, 4, fails, steps=1000)
    made.finish()
    spec = Run(made.files.path).spec.changed(potential=potential)
    made.files.spec.write_text(spec.to_yaml())
    return Run(made.files.path)


def test_survival_before_and_after(bench, here: Path) -> None:
    before = equal_runs({0: 100, 1: 120, 2: 140, 3: 160}, "sample:ethanol_50", "hot")
    after = equal_runs({1: 900}, "sample:ethanol_1000", "hot_round2")
    view = bench()
    assert view.step.action == "compare"
    assert view.step.other == before
    view.next.button.click()
    assert view.comparison.layout.display != "none"
    assert "0 of 4 held" in view.comparison.sentence.value
    assert "3 of 4 held" in view.comparison.sentence.value
    assert [name for name in view.comparison.plot.n_points if name]
    assert view.memory.compared == {after.folder}
    assert view.step.action == "go_to_failure"
    view.comparison.close_button.click()
    assert view.comparison.layout.display == "none"
    assert list(view.runs_pane.other.options)[1:] == ["hot"]
    view.runs_pane.other.value = "hot"
    assert view.comparison.layout.display != "none"
    assert view.runs_pane.other.value != "hot", "it can be chosen again"


def test_simulations_that_differ_are_not_compared(bench, hot: Run, here: Path) -> None:
    other = RecordedReplicas(Path("runs/cold"), 2, {}, steps=1000)
    other.finish()
    view = bench()
    view.watch("runs/cold")
    view.runs_pane.compare(hot)
    assert "not the same simulation" in view.next.problem.value
    assert view.comparison.layout.display == "none"


def test_the_map_shares_frame_atom_and_lasso(bench, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from made_up import points_of, wobbling

    from mlipkit.runs.frames import RunFrames

    md = RecordedMD(Path("runs/md"), steps=400, fails_at=350)
    md.fail()
    frames = RunFrames(md.files.path)
    frames.refresh()
    training = wobbling(20, 0, name="training")
    from mlipkit.data import FrameSet

    own = FrameSet.from_atoms(list(frames))
    points = points_of(own, 1, 0.5)
    import dataclasses

    points = dataclasses.replace(points, uids=own.uids)
    one = ShiftSet("md", frames, points, run=md.run)
    data = ShiftData([ShiftSet("training set", training, points_of(training, 0), fitted=True), one], (0.4, 0.2), {})
    monkeypatch.setattr(
        "mlipkit_widgets.map_pane.computing_of", lambda run, replica: ShiftComputing(data, None, None, 5, {}, None)
    )
    view = bench()
    assert isinstance(view.view, MDView)
    assert view.map.state == "closed"
    view.map.open_button.click()
    assert view.map.state == "ready"
    # From the map to the atoms and the curves.
    view.map._picked("md", 7, 3)
    assert view.view.frame == 7
    assert view.view.marked == (3,)
    assert view.view.curves.plot.cursor == pytest.approx(frames.time(7) / 1000)
    assert view.map.map._place == ("md", 7, 3)
    # And back.
    view.view.bar.next_button.click()
    assert view.map.map._place == ("md", 8, 3)
    view.view.picture.on_atom(2)
    assert view.map.map._place == ("md", 8, 2)
    view.map._picked("training set", 4, 1)
    assert view.view.frame == 8, "a frame of the training set is none of this simulation"
    # What is encircled goes into the tray; learned frames do not.
    view.map._encircled("lasso", np.array([[0, 0], [1, 0], [1, 1]]), np.arange(data.n_points))
    assert len(view.selection) == len(set(own.uids.tolist()))
    assert view.step.action == "label"
    assert view.tray.frames().sources == ("md",)
    assert not view.tray.frames().has("forces").any(), "predictions are no labels"
    assert view.map.map._chosen.any()
    view.map._encircled("lasso", np.array([[0, 0], [1, 0], [1, 1]]), np.arange(5))
    assert "No atom of this simulation" in view.map.text.value
    view.map.close_button.click()
    assert view.map.state == "closed"
    view.tray.pictures._message(None, {"type": "pick", "index": 3}, None)
    assert view.view._frames.time(view.view.frame) == pytest.approx(view.tray._places[3][2])


def test_a_map_that_fails_leaves_the_rest_alive(bench, hot: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: Run, replica: int) -> ShiftComputing:
        raise RunError("no descriptor here")

    monkeypatch.setattr("mlipkit_widgets.map_pane.computing_of", broken)
    view = bench()
    view.map.open_button.click()
    assert view.map.state == "failed"
    assert "no descriptor here" in view.map.text.value
    assert visible(view, "Try again")
    view.act()
    assert view.step.action == "select"
    monkeypatch.undo()


def test_a_potential_of_unknown_origin_has_no_map(bench, here: Path) -> None:
    md = RecordedMD(Path("runs/md"), steps=100)
    md.advance(100)
    spec = md.run.spec.changed(potential="universal:so3lr")
    md.files.spec.write_text(spec.to_yaml())
    log(md.files, Finished("completed", "all steps done"))
    view = bench()
    view.map.open_button.click()
    assert view.map.state == "failed"
    assert "what this potential learned from is not known here" in view.map.text.value


def test_another_kind_of_run_takes_the_place_and_the_map_survives(bench, hot: Run, here: Path) -> None:
    recorded_training(Path("runs/first"))
    view = bench()
    for _ in range(3):
        view.watch("runs/first")
        assert isinstance(view.view, TrainingMonitor)
        assert next(part for part in view.head.children if part.layout.display != "none") is view.view.header
        view.watch(hot)
        assert isinstance(view.view, MDView)
        assert view.map in view.view.panes.children
    assert view.map.open_button.comm is not None


def test_waiting_and_lost_runs_say_so(bench, here: Path) -> None:
    files = folder_of(Path("runs/later"), MDSpec(potential="sample:ethanol_50"))
    log(files, Waiting("first"))
    from mlipkit.runs import process

    files.write("pid.json", {**process.describe(), "phase": "waiting", "after_seq": 0})
    files.beat()
    view = bench()
    assert view.view is not None
    assert view.view.header.word == "WAITING"
    assert "later is waiting" in view.next.button.description
    lose(files)
    view.view.refresh()
    view.refresh()
    assert view.view.header.word == "LOST CONTACT"
    assert view.step.action == "resume"
    assert "Resume later" in view.next.button.description


def test_a_new_run_is_started_from_its_form(bench, hot: Run) -> None:
    view = bench()
    view.runs_pane.new_button.click()
    assert view.launcher is not None
    assert visible(view, "Start")
    trained = recorded_training(Path("runs/first"))
    for callback in view.launcher._callbacks:
        callback(trained)
    assert view.launcher is None
    assert view.run == trained
    view.runs_pane.new_button.click()
    view.runs_pane.new_button.click()
    assert view.launcher is None


def test_frames_of_another_view_are_found_in_the_simulation(bench, hot: Run, here: Path) -> None:
    """A selection that names frames by uid alone, as the shift explorer leaves it in the same tray."""
    from mlipkit.data import Tray

    picked = before_failure(hot, most=2)
    Tray("selections/tray").put(picked.selection)
    view = bench()
    view.next.button.click() if view.step.action == "compare" else None
    assert view.step.action == "label"
    view.next.maker.value = "sample:ethanol_50"
    path, selection = view.actions.exported
    assert selection.uids == picked.selection.uids
    assert read(path).uids.tolist() == list(picked.selection.uids)
    assert isinstance(view.actions.spec, LabelSpec)


def test_frames_that_are_nowhere_are_an_error_in_one_line(bench, hot: Run, here: Path) -> None:
    from mlipkit.data import Selection, Tray

    Tray("selections/tray").put(Selection((1, 2), {}, {}, "from elsewhere"))
    view = bench()
    view.next.button.click()
    assert "2 of 2 frames are in none of the sets" in view.next.problem.value
    assert len(view.selection) == 2
    view.tray.clear_button.click()
    assert view.step.action == "go_to_failure"


def test_kept_frames_are_kept_once(here: Path, hot: Run) -> None:
    picked = before_failure(hot, most=3)
    kept = TrayFrames("selections/tray")
    kept.add(picked.frames)
    kept.add(picked.frames)
    assert len(kept.sets()) == 1
    found = kept.of(picked.selection)
    assert np.array_equal(found.uids, picked.frames.uids)
    assert np.array_equal(found.positions, picked.frames.positions)
    kept.clear()
    assert kept.sets() == []


def test_nothing_grows_over_a_thousand_looks(bench, here: Path) -> None:
    md = RecordedMD(Path("runs/md"), steps=4000)
    md.advance(40)
    md.alive()
    view = bench()
    for _ in range(3):
        md.advance(1)
        view.refresh()
        view.view.refresh()
    before = instances()
    for step in range(1000):
        if step % 4 == 0:
            md.advance(1)
        view.refresh()
        view.view.refresh()
    assert instances() == before
    assert view.view.curves.rows > 200


def test_closing_leaves_no_widget_behind(here: Path, hot: Run) -> None:
    first = Workbench("runs", viewer="still")
    first.close()
    before = instances()
    for _ in range(2):
        view = Workbench("runs", viewer="still")
        view.runs_pane.new_button.click()
        view.map.watch(hot, 1)
        view.close()
    assert instances() == before


def test_everything_has_a_name_for_those_who_cannot_see(bench, hot: Run) -> None:
    view = bench()
    for part in walk_all(view):
        if isinstance(part, w.Button):
            assert part.tooltip, part.description
    assert view.runs_pane.tree.lines[0]["told"] == "hot, failed, 3 of 4 failed"


def walk_all(widget: w.Widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk_all(child)


def test_the_frame_on_show_goes_into_the_tray_without_a_mouse(bench, hot: Run) -> None:
    view = bench()
    view.go_to_failure(hot)
    assert isinstance(view.view, MDView)
    keep = next(one for one in view.view.bar.children if getattr(one, "description", "") == "+ Tray")
    keep.click()
    assert len(view.selection) == 1
    kept = view.tray.frames()
    assert np.array_equal(kept.positions, view.view.atoms.positions)
    assert not kept.has("forces").any(), "predictions are no labels"
    assert kept.sources == ("hot/replica_000",)
    view.view.bar.next_button.click()
    keep.click()
    keep.click()
    assert len(view.selection) == 2, "each frame once"
    assert view.step.action == "label"


def test_an_atom_is_looked_at_by_its_number_and_the_picture_has_words(bench, hot: Run) -> None:
    view = bench()
    picture = view.view.picture
    picture.number.value = "3"
    assert view.view.marked == (3,)
    assert "H 3" in picture.text.value
    assert "9 atoms, C2H6O" in picture.said.value
    assert "marked: H 3" in picture.said.value
    picture.number.value = "99"
    assert "0 to 8" in picture.text.value
    picture.number.value = "x"
    assert view.view.marked == (3,)


def test_parts_of_the_module_are_exported() -> None:
    assert workbench_module.Workbench is Workbench
    assert MapPane.__doc__


def test_what_could_help_a_failed_run(bench, hot: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(frames, potential, **_options):
        asked.append((frames, potential))
        return what_applies(frames, potential, measure=False)

    monkeypatch.setattr(applies_panel, "what_applies", answer)
    view = bench()
    assert visible(view, "What could help?")
    view.help_button.click()
    assert asked == [("runs/hot", "sample:ethanol_1000")]
    panel = view.forms.applies
    assert panel is not None
    assert panel.answers["close_loop"].state == "ready"
    assert panel.answers["finetune"].state == "needs", "predictions are no labels"
    panel.open_form("workflow:iterative")
    assert view.launcher is not None
    assert view.launcher.kind == "workflow"
    assert view.launcher.spec.arm == "iterative"
    assert visible(view, "Close the answers")
    before = instances()
    panel.open_form("workflow:iterative")
    assert instances() == before, "the form before is gone"
    view.help_button.click()
    assert view.forms.applies is view.launcher is None
    assert view.forms.children == ()
    md = RecordedMD(Path("runs/md"), steps=400)
    md.advance(100)
    md.alive()
    view.watch("runs/md")
    assert not visible(view, "What could help?"), "it goes on"


def test_a_run_that_cannot_be_read_stands_in_the_list_with_the_reason(bench, hot: Run) -> None:
    Path("runs/newer").mkdir()
    Path("runs/newer/spec.yaml").write_text(MDSpec().to_yaml().replace("version: 1", "version: 99"))
    damaged = recorded_training(Path("runs/damaged"))
    (damaged.folder / "pid.json").write_text("{")
    view = bench()
    assert view.run == hot, "the others can be worked with"
    assert view.step.action == "go_to_failure"
    lines = {line["name"]: line for line in view.data.lines}
    assert set(lines) == {"hot", "newer", "damaged"}
    assert lines["newer"]["word"] == lines["damaged"]["word"] == "cannot be read"
    assert "written by a newer mlipkit" in lines["newer"]["told"]
    assert "pid.json" in lines["damaged"]["told"]
    view.runs_pane.tree._message(None, {"type": "open", "name": "newer"}, [])
    assert "written by a newer mlipkit" in view.next.problem.value, "a click says why"
    assert view.run == hot
    (damaged.folder / "pid.json").unlink()
    view.refresh()
    assert {line["name"]: line["word"] for line in view.data.lines}["damaged"] == "completed", "mended, it is back"
    (hot.folder / "pid.json").write_text("{")
    view.refresh()
    assert view.run is None, "what was open goes when it cannot be read any more"
    assert {line["name"]: line["word"] for line in view.data.lines}["hot"] == "cannot be read"


@pytest.mark.parametrize("jobs", [[{"folder": "dft", "n_added": "many"}], [{"folder": "dft", "n_added": None}]])
def test_a_damaged_memory_locks_nobody_out(bench, hot: Run, jobs: list) -> None:
    record = {"opened": "hot", "seen": [], "compared": [], "jobs": jobs}
    (Path("runs") / NAME).write_text(json.dumps(record))
    assert bench().step.action == "go_to_failure"


def test_a_folder_that_was_thrown_away_does_not_come_back(bench, hot: Run) -> None:
    view = bench()
    shutil.rmtree("runs")
    view.refresh()
    view.memory.see(hot)
    view.refresh()
    assert not Path("runs").exists()


def test_where_nothing_may_be_written_it_remembers_for_itself(bench, hot: Run) -> None:
    (Path("runs") / NAME).mkdir()
    view = bench()
    assert view.run == hot
    view.act()
    assert view.step.action == "select", "the failure was looked at"
    view.refresh()
    assert view.step.action == "select"
    assert not [path for path in Path("runs").iterdir() if path.suffix == ".part"]


def test_the_list_does_not_call_held_what_was_stopped_early(bench, here: Path) -> None:
    replicas = RecordedReplicas(Path("runs/cold"), 4, {1: 100}, steps=1000)
    replicas.advance(200)
    log(replicas.files, Finished("stopped", "stopped by the user"))
    assert {line["name"]: line["text"] for line in bench().data.lines} == {"cold": "1 of 4 failed, 3 ended early"}
