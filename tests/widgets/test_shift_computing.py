"""The child process of the shift explorer, on real descriptors: sets, growing runs, t-SNE, failures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from made_up import wobbling
from recorded import RecordedMD, log

from mlipkit.analysis.ood import OODModel
from mlipkit.analysis.soap import Soap
from mlipkit.data import FrameSet, read, write
from mlipkit.events import Finished
from mlipkit_widgets import ShiftExplorer
from mlipkit_widgets.shift_code import code_of
from mlipkit_widgets.shift_map import TRAIL

pytestmark = pytest.mark.full
SMALL = {"n_max": 3, "l_max": 2, "r_cut": 3.5}


def until(view: ShiftExplorer, right, seconds: float = 60.0) -> float:
    """Refresh until something is right; seconds it took."""
    start = time.monotonic()
    while not right():
        assert time.monotonic() - start < seconds, f"{view.header.state}: {view.header.sentence}"
        view.refresh()
        time.sleep(0.02)
    return time.monotonic() - start


def test_sets_are_scored_as_the_model_scores_them(tmp_path: Path) -> None:
    cold, hot = wobbling(30, 0, 0.04, "cold", trajectory=0), wobbling(20, 1, 0.08, "hot")
    view = ShiftExplorer({"cold": cold, "hot": hot}, options=SMALL, tray=tmp_path / "tray", viewer="still")
    assert view.header.state == "computing"
    assert view.data["cold"].fitted
    assert view.atoms is not None, "frames are there to see before the scores"
    until(view, lambda: view.header.state == "ready")
    model = OODModel.fit(cold, Soap.of(cold, hot, **SMALL))
    scores = model.score(hot)
    points = view.data["hot"].points
    assert np.allclose(points.q, scores.q, rtol=1e-4)
    assert np.allclose(points.scores, scores.projections, atol=1e-4)
    assert np.allclose(points.limit, scores.limit, rtol=1e-4)
    assert view.data.explained == pytest.approx(model.pca.explained.tolist(), rel=1e-4)
    assert view.computing.facts["fit_on"] == ["cold"]
    assert np.mean(points.ratio > 1) > np.mean(view.data["cold"].points.ratio > 1), "the hot set is further outside"
    view.controls.map.value = "t-SNE …"
    assert view.header.state == "computing"
    until(view, lambda: view.picks.map == "t-SNE")
    x, _ = view.data.coordinates("t-SNE")
    assert np.isfinite(x).sum() == view.data.n_points
    assert "t-SNE …" not in view.controls.map.options
    view.close()
    until_gone(view)


def until_gone(view: ShiftExplorer) -> None:
    child = view.computing._child
    assert child is not None
    assert not child.alive
    assert not child.folder.exists()


def test_a_running_simulation_moves_over_the_map(tmp_path: Path) -> None:
    """New frames are on the map within a second, the trail keeps 200 of them, marks are everywhere."""
    recorded = RecordedMD(tmp_path / "runs" / "md", steps=20000, fails_at=6000)
    recorded.advance(400)
    recorded.alive()
    training = FrameSet.from_atoms(list(recorded.run.trajectory())[:15], source="train")
    view = ShiftExplorer([training, recorded.run], options=SMALL, tray=tmp_path / "tray", viewer="still")
    until(view, lambda: view.data["md"].points is not None and view.data["md"].points.n_frames == 21)
    assert view.computing.live
    assert (view.set, view.frame) == ("md", 20), "the newest frame is followed"
    took = []
    for step in range(5):
        recorded.advance(100)
        took.append(until(view, lambda step=step: view.frame == 25 + 5 * step))
    assert sorted(took)[2] < 1.0, took
    trail = next(trace for trace in view.map.plot.shown[0] if trace["name"] == "trail")
    assert len(trail["x"]) == 46
    # The reader looks at an early frame, and comes back.
    view.go("md", 3, 2)
    recorded.advance(20)
    until(view, lambda: view.bar.last == 46)
    assert view.frame == 3
    assert view.bar.live_button.layout.display != "none"
    view.bar.live_button.click()
    recorded.warn(5900)
    recorded.fail()
    until(view, lambda: not view.computing.live)
    one = view.data["md"]
    assert one.points.n_frames == len(one.frames) == 491
    assert view.frame == 490
    trail = next(trace for trace in view.map.plot.shown[0] if trace["name"] == "trail")
    assert len(trail["x"]) == TRAIL
    assert set(one.marks.values()) == {"warning", "failure"}
    failure = next(frame for frame, kind in one.marks.items() if kind == "failure")
    assert one.frames.step(failure) == 6000
    assert {trace["name"] for trace in view.map.plot.shown[0]} >= {"warning", "failure"}
    assert "✖" in view.bar.marks.value
    assert len(view.series.plot.shown[1]["annotations"]) == 2
    worst = int(np.nanargmax(one.points.ratio[one.points.atoms_of(490)]))
    assert worst == 3, "the atom that was thrown away"
    # Frames of a run can be picked, and are found again.
    x, y = view.data.coordinates("PC1, PC2")
    at = view.data.index("md", 490, 3)
    view.map.plot._message(None, {"type": "select", "kind": "box", "x": [x[at] - 1e-6, x[at] + 1e-6, x[at] + 1e-6],
                                  "y": [y[at] - 1e-6, y[at] - 1e-6, y[at] + 1e-4]}, [])  # fmt: skip
    assert view.data.rows_of(view.selection)[0][0] == "md"
    view.tray.export_button.click()
    assert [int(uid) for uid in read(view.tray.exported).uids] == list(view.selection.uids)
    view.close()


def test_a_fitted_model_is_taken(tmp_path: Path) -> None:
    cold = wobbling(20, 0)
    model = OODModel.fit(cold, Soap.of(cold, **SMALL), components=3)
    path = model.save(tmp_path / "model.safetensors")
    for given in (model, path):
        view = ShiftExplorer([wobbling(5, 1)], given, tray=tmp_path / "tray", viewer="still")
        until(view, lambda view=view: view.header.state == "ready")
        assert view.data.n_points == 45
        assert "PC3, PC4" not in view.controls.map.options
        view.close()


def test_what_fails_is_said(tmp_path: Path) -> None:
    cold = wobbling(20, 0)
    model = OODModel.fit(cold, Soap.of(cold, **SMALL))
    strange = FrameSet.from_arrays([9, 9], np.array([[[0, 0, 0], [0, 0, 1.4]]], float), source="fluorine")
    view = ShiftExplorer([strange], model, tray=tmp_path / "tray", viewer="still")
    until(view, lambda: view.computing.state == "failed")
    view.refresh()
    assert view.header.word == "NOT COMPUTED"
    assert "element F unknown to the descriptor" in view.header.sentence
    assert view.atoms is not None
    view.close()
    view = ShiftExplorer([cold], options=SMALL, tray=tmp_path / "tray", viewer="still")
    view.computing._child.process.kill()
    until(view, lambda: view.computing.state == "failed")
    view.close()


def test_force_errors_colour_the_map(tmp_path: Path) -> None:
    view = ShiftExplorer(
        "sample:ethanol_300K@:12", potential="sample:ethanol_50", options=SMALL, tray=tmp_path / "tray", viewer="still"
    )
    until(view, lambda: view.header.state == "ready")
    assert view.data.sets[0].name == "ethanol_300K@:12"
    assert "force error" in view.controls.colour.options
    miss = view.data.column("force_error")
    assert 0 < np.median(miss) < 1.0
    view.controls.colour.value = "force error"
    bar = view.map.plot.shown[0][-3]["marker"]
    view.close()
    assert bar


def drawn(traces: Iterable[tuple[str, Sequence[float]]]) -> np.ndarray:
    """Where points are, marks and legend left out."""
    shown = [x for name, x in traces if x is not None and len(x) > 2 and name not in ("selected", "picked")]
    return np.sort(np.concatenate(shown))


def test_the_code_makes_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the Code button shows runs as it is, and draws the points that are on show."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("cold", "hot")):
        write(f"{name}.extxyz", wobbling(12, seed, 0.05))
    view = ShiftExplorer(["cold.extxyz", "hot.extxyz"], options=SMALL, viewer="still")
    until(view, lambda: view.header.state == "ready")
    view.controls.elements[1].value = False
    view.tray.take(view.data.select(np.array([3, 200]), {"kind": "hand"}, "two"))
    for picked, colour in (("PC3, PC4", "set"), ("T², Q", "Q / limit"), ("PC1, PC2", "element")):
        view.controls.map.value, view.controls.colour.value = picked, colour
        made: dict = {}
        exec(code_of(view).split("# the same view")[0].replace("figure.show()", ""), made)
        ours = drawn((trace.get("name", ""), trace["x"]) for trace in view.map.plot.shown[0])
        theirs = drawn((trace.name, trace.x) for trace in made["figure"].data)
        assert len(ours) == len(theirs) == 2 * 12 * 3
        assert np.allclose(ours, theirs, atol=1e-3)
        assert list(made["selected"].uids) == list(view.selection.uids)
        assert len(made["frames"]) == 2
    view.close()


def test_a_frame_that_flew_apart_does_not_stop_the_others(tmp_path: Path) -> None:
    recorded = RecordedMD(tmp_path / "runs" / "md", steps=400)
    recorded.advance(200)
    state = recorded._state
    recorded._state = lambda step: tuple(part * (np.nan if step == 240 else 1.0) for part in state(step))  # type: ignore[method-assign]
    recorded.advance(200)
    recorded.close()
    log(recorded.files, Finished("completed", "done"))
    training = FrameSet.from_atoms(list(recorded.run.trajectory())[:10], source="train")
    view = ShiftExplorer([training, recorded.run], options=SMALL, tray=tmp_path / "tray", viewer="still")
    until(view, lambda: view.data["md"].points is not None and view.data["md"].points.n_frames == 21)
    ratio = view.data["md"].points.ratio.reshape(21, 9)
    assert np.flatnonzero(np.isnan(ratio).all(axis=1)).tolist() == [12]
    assert np.isfinite(ratio).all(axis=1).sum() == 20
    view.go("md", 12)
    view.go("md", 13, 2)
    view.tray.take(view.data.select(np.array([view.data.index("md", 13, 2)]), {"kind": "hand"}, "one"))
    view.tray.invert_button.click()
    assert len(view.selection) == 20 - 1, "those trained on are frames of the run, too"
    assert "mk-wrong" not in view.tray.text.value
    view.close()
