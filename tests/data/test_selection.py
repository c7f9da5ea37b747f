"""Selections: set algebra, back to frames, export, and the tray that survives its process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlipkit.data import FrameSet, Selection, Tray, read, samples
from mlipkit.data.tray import UNDO_STEPS
from mlipkit.errors import DataError


@pytest.fixture(scope="module")
def frames() -> FrameSet:
    return samples.load("ethanol_300K")[:40]


@pytest.fixture(scope="module")
def hot() -> FrameSet:
    return samples.load("ethanol_600K")[:20]


def test_rows_and_atoms_become_uids(frames: FrameSet) -> None:
    made = Selection.of(frames, atoms={7: [3, 1, 3], 2: []}, sentence="two of them", criterion={"kind": "hand"})
    assert made.uids == (int(frames.uids[7]), int(frames.uids[2]))
    assert made.atoms == {int(frames.uids[7]): (1, 3)}
    assert made.describe() == "2 frames for 2 of their atoms: two of them"
    assert int(frames.uids[2]) in made
    assert len(Selection.of(frames)) == 40
    with pytest.raises(DataError, match=r"no such frame; expected 0 to 39; found 40"):
        Selection.of(frames, rows=[40])
    with pytest.raises(DataError, match=r"frame 1: no such atom; expected 0 to 8; found 9"):
        Selection.of(frames, atoms={1: [0, 9]})


def test_union_minus_invert(frames: FrameSet) -> None:
    uid = [int(uid) for uid in frames.uids]
    one = Selection.of(frames, rows=[0, 1, 2], atoms={1: [0, 1], 2: [4]}, sentence="first")
    other = Selection.of(frames, rows=[1, 2, 3], atoms={1: [1, 2]}, sentence="second")
    both = one | other
    assert both.uids == tuple(uid[:4])
    assert both.atoms == {uid[1]: (0, 1, 2)}, "frame 2 is meant as a whole by the other"
    assert both.sentence == "first; second"
    less = one - other
    assert less.uids == (uid[0], uid[1])
    assert less.atoms == {uid[1]: (0,)}
    assert (less - Selection.of(frames, atoms={1: [0], 0: [5]})).uids == (uid[0],), "a whole frame keeps its atoms"
    rest = one.invert(frames)
    assert rest.uids == tuple(uid[3:])
    assert rest.invert(frames).uids == one.uids
    three = both | Selection.of(frames, rows=[9], criterion={"kind": "hand"})
    assert [part.get("kind") for part in three.criterion["of"]] == [None, None, "hand"], "one flat list"
    assert (Selection() | one).criterion == one.criterion


def test_frames_come_from_the_set_that_has_them(frames: FrameSet, hot: FrameSet) -> None:
    made = (Selection.of(hot, rows=[5]) | Selection.of(frames, rows=[8, 1])).tagged("odd")
    found = made.frames({"cold": frames, "hot": hot})
    assert [int(uid) for uid in found.uids] == list(made.uids)
    assert np.array_equal(found.atoms(0).positions, hot.atoms(5).positions)
    assert {found.frame(i)["tag"] for i in range(3)} == {"odd"}
    with pytest.raises(DataError, match=r"1 of 3 frames are in none of the sets"):
        made.frames(frames)
    with pytest.raises(DataError, match="nothing is selected"):
        Selection().frames(frames)


def test_export_can_be_read_and_holds_the_uids(frames: FrameSet, tmp_path: Path) -> None:
    made = Selection.of(frames, rows=[30, 4], atoms={4: [2]}, criterion={"kind": "box", "x": [0, 1]}, tag="odd ones")
    path = made.export(tmp_path / "new" / "odd.extxyz", [frames])
    back = read(path)
    assert [int(uid) for uid in back.uids] == list(made.uids)
    assert back.frame(1)["tag"] == "odd ones"
    assert np.array_equal(back.forces, made.frames(frames).forces)
    assert Selection.load(tmp_path / "new" / "odd.json") == made


def test_records_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    with pytest.raises(DataError, match="no such file"):
        Selection.load(path)
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Selection.load(path)
    path.write_text(json.dumps({**Selection().to_json(), "version": 2}))
    with pytest.raises(DataError, match="expected mlipkit-selection version 1; found mlipkit-selection version 2"):
        Selection.load(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="not the record of a selection"):
        Selection.load(path)


def test_tray_goes_back_ten_steps_in_another_process(frames: FrameSet, tmp_path: Path) -> None:
    tray = Tray(tmp_path / "selections" / "tray")
    assert not tray.folder.exists(), "looking makes nothing"
    for row in range(14):
        tray.add(Selection.of(frames, rows=[row], sentence=f"number {row}"))
    assert len(tray.selection) == 14
    assert len(list(tray.folder.glob("0*.json"))) == UNDO_STEPS + 1
    code = (
        "import sys; from mlipkit.data import Tray; tray = Tray(sys.argv[1]); steps = tray.undo_steps\n"
        "while tray.undo_steps: tray.undo()\n"
        "print(steps, len(tray.selection), tray.undo_steps, len(tray.undo()))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tray.folder)], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["10", "4", "0", "4"], result.stderr
    assert tray.refresh(), "what another process did is seen"
    assert len(tray.selection) == 4


def test_tray_changes_and_their_undo(frames: FrameSet, tmp_path: Path) -> None:
    tray = Tray(tmp_path / "tray")
    tray.undo()
    tray.add(Selection.of(frames, rows=[1, 2]))
    tray.remove(Selection.of(frames, rows=[2]))
    tray.tag("rare")
    before = tray.undo_steps
    tray.remove(Selection.of(frames, rows=[9]))
    assert tray.selection.uids == (int(frames.uids[1]),)
    assert tray.selection.tag == "rare"
    tray.invert(frames)
    assert len(tray.selection) == 39
    tray.clear()
    assert len(tray.selection) == 0
    assert tray.selection.tag == "rare"
    tray.undo()
    tray.undo()
    assert len(tray.selection) == 1
    assert tray.undo_steps >= before
    other = Tray(tmp_path / "tray")
    other.add(Selection.of(frames, rows=[20]))
    tray.add(Selection.of(frames, rows=[21]))
    assert len(tray.selection) == 3, "two trays on one folder do not undo each other's work"


def test_a_large_change_is_on_disk_within_a_second(tmp_path: Path) -> None:
    """A thousand frames with a hundred atoms each."""
    tray = Tray(tmp_path / "tray")
    atoms = {uid: tuple(range(0, 200, 2)) for uid in range(1, 1001)}
    start = time.process_time()
    tray.add(Selection(tuple(atoms), atoms, {"kind": "lasso"}, "many"))
    assert time.process_time() - start < 1.0
    assert Tray(tmp_path / "tray").selection == tray.selection


def test_a_damaged_tray_says_so(tmp_path: Path) -> None:
    (tmp_path / "tray.json").write_text("[1")
    with pytest.raises(DataError, match="not the record of a tray"):
        Tray(tmp_path)
