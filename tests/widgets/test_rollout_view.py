"""RolloutView without a browser: prediction and AIMD move together, states are said, the code does what is shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from recorded import RecordedDynamic, RecordedMD, folder_of
from test_views import instances

import mlipkit as mk
from mlipkit.data import FrameSet, samples, write
from mlipkit.runs import MDSpec
from mlipkit.strategies.dynamic import roll_beside
from mlipkit_widgets import MDView, RolloutView, TrainingMonitor, export


@pytest.fixture(scope="module")
def aimd() -> FrameSet:
    return samples.load("ethanol_nve")[:1203]


@pytest.fixture
def view(aimd: FrameSet):
    made = RolloutView("sample:ethanol_1000", aimd, start=450, steps=40, viewer="still")
    yield made
    made.close()


def dynamic_run(path: Path) -> RecordedDynamic:
    """An ended dynamic training whose potential is one that comes with the package."""
    made = RecordedDynamic(path)
    made.advance(1)
    made.finish()
    frames = samples.load("ethanol_nve")
    uids = [f"{int(uid):016x}" for uid in frames.uids]
    made.files.write("split.json", {"uids": {"train": uids[:7218], "validation": uids[7218:7619], "test": uids[7619:]}})
    made.files.checkpoints.mkdir()
    shutil.copy(samples.potential_path("ethanol_1000"), made.files.checkpoints / "best.safetensors")
    return made


def test_both_paths_start_together_and_part(view: RolloutView, aimd: FrameSet) -> None:
    assert view.header.state == "ready"
    assert view.wanted == (450, 40)
    assert view.found is not None
    expected = roll_beside(mk.load("sample:ethanol_1000"), aimd, 450, 40)
    np.testing.assert_allclose(view.found.distance, expected.distance)
    assert view.picture.scene.widget.value == view.other.scene.widget.value
    assert "step 1 of 40 · <b>0 fs</b> · farthest atom 0.00 Å" in view.bar.text.value
    view.bar.slider.value = 39
    assert (view.frame, view.plot.cursor) == (39, 19.5)
    assert view.picture.scene.widget.value != view.other.scene.widget.value
    far = expected.distance[39].max()
    assert f"<b>19.5 fs</b> · farthest atom {far:.2f} Å" in view.bar.text.value
    view.plot._on_click(10.2, 0.0, 0)  # type: ignore[misc]
    assert (view.frame, view.bar.slider.value) == (20, 20)
    view.frame = 5
    assert view.plot.cursor == 2.5
    curves = view.plot.shown[0]
    np.testing.assert_allclose(curves[1]["y"], expected.distance.max(axis=1))
    np.testing.assert_allclose(curves[2]["y"], 1000 * expected.error.sum(axis=1))
    assert f"Force error {1000 * expected.mepa():.0f} meV/Å along the roll-out" in view.said.value


def test_colour_and_marked_atoms_are_common(view: RolloutView) -> None:
    view.go(39)
    view.picture.colour.value = "distance"
    assert view.other.colour.value == "distance"
    assert "0.5 Å from AIMD" in view.other.colour_bar.value
    view._mark(8)
    for pane in (view.picture, view.other):
        assert "H 8" in pane.scene.widget.value
        assert "distance 0." in pane.text.value


def test_another_start_is_computed_anew(view: RolloutView) -> None:
    before = view.found
    view.start.value = 200
    assert view.wanted == (601, 40)
    assert view.found is not before
    view.steps.value = 25
    assert len(view.found) == 25  # type: ignore[arg-type]
    view.which.value = 2
    assert view.wanted == (802 + 200, 25)
    assert view.found.reference.trajectory[0] == 2  # type: ignore[union-attr]


def test_code_does_what_is_shown(view: RolloutView, aimd: FrameSet, capsys: pytest.CaptureFixture[str]) -> None:
    view.code_button.click()
    text = view.code
    assert "roll_beside(mk.load('sample:ethanol_1000'), frames, start=450, structures=40)" in view.panel.value.replace(
        "&#x27;", "'"
    )
    runnable = text.replace(".show()", ".to_dict()").partition("# the same view")[0]
    exec(compile(runnable, "code", "exec"), {"frames": aimd})
    assert float(capsys.readouterr().out.split()[0]) == pytest.approx(view.found.mepa())  # type: ignore[union-attr]
    view.start.value = 300
    assert "start=701" in view.panel.value


def test_nothing_open_and_what_cannot_be_rolled_out(aimd: FrameSet) -> None:
    empty = RolloutView(viewer="still")
    assert empty.header.state == "empty"
    assert "RolloutView('runs/dynamic')" in empty.empty.value.replace("&#x27;", "'")
    none = RolloutView("sample:ethanol_1000", viewer="still")
    assert none.header.state == "uncomputed"
    assert "no AIMD frames named" in none.header.sentence
    loose = RolloutView("sample:ethanol_1000", samples.load("ethanol_300K")[:50], viewer="still")
    assert loose.header.state == "uncomputed"
    assert "frame" in loose.header.sentence
    missing = RolloutView("runs/nowhere", aimd, viewer="still")
    assert missing.header.state == "uncomputed"
    for one in (empty, none, loose, missing):
        one.close()


def test_a_training_shows_its_potential_on_runs_it_has_not_seen(tmp_path: Path) -> None:
    made = dynamic_run(tmp_path / "rolled")
    monitor = TrainingMonitor(made.run)
    assert monitor.door.button.layout.display is None
    monitor.door.button.click()
    (view,) = monitor.door.box.children
    assert view.header.state == "ready"
    assert view.wanted == (7619 + 40, 200)
    assert "run 19, held out for the test" in view.header.sentence
    assert dict(view.which.options)["run 0, trained on"] == 0
    view.which.value = 0
    assert "was trained on this run" in view.header.sentence
    assert "read_source('sample:ethanol_nve')" in view.code
    written = export(view, tmp_path / "view.html")[0].read_text()
    assert "distance<br>from AIMD" in written or "from AIMD, " in written
    monitor.door.button.click()
    assert not monitor.door.box.children
    monitor.close()


def test_a_simulation_leads_to_the_roll_outs_of_its_potential(tmp_path: Path) -> None:
    made = dynamic_run(tmp_path / "rolled")
    spec = MDSpec(potential=str(made.run.folder), start="sample:ethanol_nve@0", steps=100)
    view = MDView(folder_of(tmp_path / "md", spec).path, viewer="still")
    assert view.door.button.layout.display is None
    view.door.button.click()
    (beside,) = view.door.box.children
    assert beside.header.state == "ready"
    view.watch(RecordedMD(tmp_path / "other").run)
    assert view.door.button.layout.display == "none", "a potential of single frames has none"
    assert not view.door.box.children
    view.close()


def test_a_roll_out_is_that_of_the_training(tmp_path: Path) -> None:
    """Frozen atoms, velocities and labels as its specification says."""
    made = dynamic_run(tmp_path / "rolled")
    frames = samples.load("ethanol_nve")[:60]
    text = (tmp_path / "aimd.extxyz").as_posix()
    write(text, frames)
    Path(text).write_text(Path(text).read_text().replace("forces:R:3", "dft_forces:R:3"))
    spec = made.run.spec.changed(
        data=text, keys={"forces": "dft_forces"}, rollout={"frozen": [0, 1], "velocities": "difference"}
    )
    made.files.spec.write_text(spec.to_yaml())
    view = RolloutView(str(made.files.path), steps=4, viewer="still")
    assert view.header.state == "ready", view.header.sentence
    found = view.found
    assert found is not None
    path = np.asarray(found.predicted.positions).reshape(4, 9, 3)
    assert (path[:, :2] == path[0, :2]).all()
    assert "differences" in found.said
    assert np.isfinite(found.mepa())
    assert "keys={'forces': 'dft_forces'}" in view.code
    assert "structures=4, frozen=[0, 1], velocities='difference')" in view.code
    compile(view.code, "code", "exec")
    view.close()


def test_close_leaves_nothing(aimd: FrameSet) -> None:
    RolloutView("sample:ethanol_1000", aimd, start=450, steps=5, viewer="still").close()
    before = instances()
    view = RolloutView("sample:ethanol_1000", aimd, start=450, steps=5, viewer="still")
    assert instances() > before
    view.close()
    assert instances() == before
