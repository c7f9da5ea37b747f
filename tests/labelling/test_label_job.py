"""Labelling many frames: failures of the engine, resuming, crashes of ourselves, full disks."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import toy_engines as toys
from toy_engines import Toy, frames_of, springs

import mlipkit as mk
import mlipkit.data.write
from mlipkit.data import FrameSet
from mlipkit.errors import DataError, RunError, SpecError
from mlipkit.events import Message, Progress, Saved, Started
from mlipkit.labelling import LABELLED, Labelled, Recipe, label_frames
from mlipkit.labelling.records import LOG

TOY = Recipe("toy_engines:Toy")


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()[1:]]


def check_labels(frames: FrameSet) -> None:
    for atoms in frames:
        wanted = springs(atoms)
        assert atoms.get_potential_energy() == wanted.energy
        np.testing.assert_array_equal(atoms.get_forces(), wanted.forces)


def test_labels_replace_what_frames_brought_along_and_all_else_stays(tmp_path: Path):
    frames, heard = frames_of(["H"] * 7), []
    found = label_frames(frames, TOY, tmp_path, sink=heard.append, timeout=20, processes=2)
    check_labels(found.frames)
    assert found.failed == []
    assert found.n_asked == 7
    for name in ("uids", "source_codes", "trajectory", "time", "tag_codes", "velocities", "positions"):
        np.testing.assert_array_equal(getattr(found.frames, name), getattr(frames, name))
    assert not found.frames.has("stress").any()
    assert mk.read(tmp_path / LABELLED) == found.frames
    assert [type(event) for event in heard if not isinstance(event, Progress)] == [Started, Saved]
    assert [event.done for event in heard if isinstance(event, Progress)] == list(range(1, 8))
    assert found.sentence.startswith("7 of 7 frames labelled; ")
    assert found.sentence.endswith(" of springs")
    assert found.maker["name"] == "toy springs"


def test_stress_of_somebody_else_never_stays(tmp_path: Path):
    frames = frames_of(["H"] * 2).with_labels(stress=np.ones((2, 3, 3)))
    assert not label_frames(frames, Toy(), tmp_path).frames.has("stress").any()


def test_what_goes_wrong_with_one_frame_is_its_own_affair(tmp_path: Path):
    kinds = [
        toys.SEGFAULT,
        "H",
        toys.EXIT,
        toys.HANG,
        "H",
        toys.NAN,
        toys.SHAPE,
        toys.HUGE,
        toys.RAISE,
        toys.SAYS_NO,
        "H",
    ]
    frames = frames_of(kinds)
    found = label_frames(frames, TOY, tmp_path, timeout=1.0, processes=2)
    check_labels(found.frames)
    np.testing.assert_array_equal(found.frames.uids, frames.uids[[1, 4, 10]])
    assert {one.index: one.reason for one in found.failed} == {
        0: f"the engine died of SIGSEGV: {toys.CHATTER}",
        2: "the engine ended with exit code 3: no licence left",
        3: "took more than 1 s and was ended",
        5: "nonsense: energy is nan",
        6: "nonsense: forces of shape [7, 3], expected [2, 3]",
        7: "nonsense: a force of 1.732e+05 eV/Å, more than 1000 eV/Å",
        8: "ValueError: the engine gave up",
        9: "SCF not converged in 2 cycles",
    }
    assert [one.uid for one in found.failed] == [frames.uid(one.index) for one in found.failed]
    hung = next(one for one in found.failed if one.index == 3)
    assert 1.0 <= hung.seconds < 3.0
    assert found.seconds > 1.0
    assert "3 of 11 frames labelled, 8 failed: " in found.sentence
    summary = json.loads((tmp_path / "labelled.json").read_text())
    assert summary["labelled"] == 3
    assert len(summary["failed"]) == 8
    assert found.n_missing == 0


def test_reasons_that_differ_by_numbers_are_counted_together(tmp_path: Path):
    found = label_frames(frames_of([toys.SAYS_NO, "H", toys.SAYS_NO, toys.HUGE]), Toy(), tmp_path)
    assert found.reasons == [("SCF not converged in 2 cycles", 2), (found.failed[2].reason, 1)]
    assert "2 failed" not in found.sentence
    assert "3 failed: SCF not converged in 2 cycles (2), nonsense" in found.sentence


def test_no_frame_labelled_leaves_no_file(tmp_path: Path):
    (tmp_path / LABELLED).write_text("of an earlier call")
    found = label_frames(frames_of([toys.NAN]), Toy(), tmp_path)
    assert len(found.frames) == 0
    assert not (tmp_path / LABELLED).exists()


def test_the_limit_of_forces_is_a_choice(tmp_path: Path):
    frames = frames_of([toys.HUGE])
    assert len(label_frames(frames, Toy(), tmp_path / "a", max_force=1e6).frames) == 1
    with pytest.raises(RunError, match=r"another limit of forces.*expected 1000000\.0; found 1000"):
        label_frames(frames, Toy(), tmp_path / "a")


def test_retries_follow_after_all_others(tmp_path: Path):
    diary = tmp_path / "diary"
    frames = frames_of([toys.ONCE, "H", toys.NAN])
    recipe = Recipe("toy_engines:Toy", {"diary": str(diary)})
    once = label_frames(frames, recipe, tmp_path / "a")
    assert [one.reason for one in once.failed] == [
        f"the engine died of SIGABRT: {toys.CHATTER}",
        "nonsense: energy is nan",
    ]
    diary.unlink()
    found = label_frames(frames, recipe, tmp_path / "b", retries=1)
    assert [one.index for one in found.failed] == [2]
    order = [json.loads(line) for line in diary.read_text().splitlines()]
    assert order == [frames.uid(row) for row in (0, 1, 2, 0, 2)]
    # What the first try cost is in the sum.
    assert [row["attempt"] for row in rows_of(tmp_path / "b")] == [1, 1, 1, 2, 2]


def test_a_second_call_labels_only_what_is_missing(tmp_path: Path):
    diary, folder = tmp_path / "diary", tmp_path / "a"
    recipe = Recipe("toy_engines:Toy", {"diary": str(diary)})
    frames = frames_of(["H", toys.NAN, "H", "H"])
    label_frames(frames[:2], recipe, folder)
    found = label_frames(frames, recipe, folder)
    begun = [json.loads(line) for line in diary.read_text().splitlines()]
    assert begun == [frames.uid(row) for row in range(4)]
    assert [one.index for one in found.failed] == [1]
    np.testing.assert_array_equal(found.frames.uids, frames.uids[[0, 2, 3]])
    again = label_frames(frames, recipe, folder, retry_failed=True)
    assert again.frames == found.frames
    assert diary.read_text().splitlines()[4:] == [json.dumps(frames.uid(1))]
    # Nothing is missing: no engine is built.
    assert label_frames(frames, recipe, folder).sentence == again.sentence
    assert len(diary.read_text().splitlines()) == 5


def test_a_folder_belongs_to_one_engine(tmp_path: Path):
    frames = frames_of(["H"])
    label_frames(frames, TOY, tmp_path)
    with pytest.raises(RunError, match=r"labels of another engine; expected toy springs.*'seconds': 1"):
        label_frames(frames, Recipe("toy_engines:Toy", {"seconds": 1}), tmp_path)
    with pytest.raises(RunError, match="labels of another engine"):
        label_frames(frames, Toy(), tmp_path)
    label_frames(frames, Toy(), tmp_path / "live")
    with pytest.raises(RunError, match="labels of another engine"):
        label_frames(frames, Toy(version="2"), tmp_path / "live")


def test_two_at_once_do_not_write_into_one_folder(tmp_path: Path):
    from mlipkit.labelling.records import LabelLog

    with LabelLog(tmp_path), pytest.raises(RunError, match="another process labels in this folder"):
        label_frames(frames_of(["H"]), Toy(), tmp_path)
    assert len(label_frames(frames_of(["H"]), Toy(), tmp_path).frames) == 1


@pytest.mark.parametrize("tail", ['{"index": 3, "uid": "0', '{"index": 3}\n', "\x00\x00\x00\n"])
def test_a_torn_line_costs_its_frame_only(tmp_path: Path, tail: str):
    frames, heard = frames_of(["H"] * 4), []
    label_frames(frames[:3], TOY, tmp_path)
    with open(tmp_path / LOG, "a") as file:
        file.write(tail)
    found = label_frames(frames, TOY, tmp_path, sink=heard.append)
    assert len(found.frames) == 4
    check_labels(found.frames)
    warned = any(isinstance(event, Message) and "cannot be read" in event.text for event in heard)
    assert warned == tail.endswith("\n")
    assert len(label_frames(frames, TOY, tmp_path).frames) == 4


def test_records_are_read_while_they_grow(tmp_path: Path):
    from mlipkit.labelling import read_records

    seen = []

    def sink(event):
        if isinstance(event, Progress):
            head, rows = read_records(tmp_path)
            seen.append((head["maker"]["name"], len(rows), sum("failed" in row for row in rows.values())))

    assert read_records(tmp_path) == ({}, {})
    label_frames(frames_of(["H", toys.NAN, "H"]), Toy(), tmp_path, sink=sink)
    assert seen == [("toy springs", 1, 0), ("toy springs", 2, 1), ("toy springs", 3, 1)]
    with open(tmp_path / LOG, "a") as file:
        file.write('{"uid": "torn')
    assert len(read_records(tmp_path)[1]) == 3


@pytest.mark.parametrize("first", ['{"format": 3', '{"format": "else"}', "[]"])
def test_a_first_line_that_is_not_ours_is_refused(tmp_path: Path, first: str):
    (tmp_path / LOG).write_text(f'{first}\n{{"uid": "1"}}\n')
    with pytest.raises(RunError, match=r"first line cannot be read|holds no labels of mlipkit"):
        label_frames(frames_of(["H"]), Toy(), tmp_path)


def test_a_first_line_that_was_torn_is_written_anew(tmp_path: Path):
    (tmp_path / LOG).write_bytes(b"\x00\x00\n")
    for _ in range(2):
        assert len(label_frames(frames_of(["H"] * 2), Toy(), tmp_path).frames) == 2


def test_a_file_of_somebody_else_is_refused(tmp_path: Path):
    (tmp_path / LOG).write_text('{"a": 1}\n')
    with pytest.raises(RunError, match="holds no labels of mlipkit"):
        label_frames(frames_of(["H"]), Toy(), tmp_path)
    assert (tmp_path / LOG).read_text() == '{"a": 1}\n'


@pytest.mark.parametrize(("make", "reason"), [("unbuildable", "RuntimeError: no licence"), ("dies_at_once", "SIGSEGV")])
def test_an_engine_that_cannot_be_built_ends_the_job(tmp_path: Path, make: str, reason: str):
    with pytest.raises(RunError, match=f"the engine cannot be built: .*{reason}"):
        label_frames(frames_of(["H"] * 3), Recipe(f"toy_engines:{make}"), tmp_path, processes=2)
    assert rows_of(tmp_path) == []


def test_wishes_that_cannot_be_met_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no frames to label"):
        label_frames(frames_of(["H"])[:0], TOY, tmp_path)
    with pytest.raises(SpecError, match="timeout: has no effect on an engine in this process"):
        label_frames(frames_of(["H"]), Toy(), tmp_path, timeout=3)
    with pytest.raises(SpecError, match="processes: has no effect"):
        label_frames(frames_of(["H"]), Toy(), tmp_path, processes=2)
    with pytest.raises(SpecError, match="no label maker"):
        label_frames(frames_of(["H"]), 3, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("maker", [TOY, Toy()])
def test_the_user_stops_and_goes_on(tmp_path: Path, maker):
    frames, done = frames_of(["H"] * 6), []

    def sink(event):
        done.extend([event] if isinstance(event, Progress) else [])

    found = label_frames(frames, maker, tmp_path, sink=sink, control=lambda: "stop" if len(done) >= 2 else "run")
    assert 2 <= len(found.frames) < 6
    assert found.n_missing == 6 - len(found.frames)
    assert f"{found.n_missing} not begun" in found.sentence
    assert len(label_frames(frames, maker, tmp_path).frames) == 6


def test_a_pause_begins_no_frame(tmp_path: Path):
    asked = []

    def control():
        asked.append(time.monotonic())
        return "pause" if len(asked) < 6 else "run"

    found = label_frames(frames_of(["H"] * 2), Toy(), tmp_path, control=control)
    assert len(found.frames) == 2
    assert asked[5] - asked[0] >= 0.4


class FullDisk:
    """Write gives up in the middle of a line, as a full disk does, after so many whole lines."""

    def __init__(self, monkeypatch, lines: int) -> None:
        self.left, self.write = lines, os.write
        monkeypatch.setattr("mlipkit.labelling.records.os.write", self)

    def __call__(self, descriptor: int, data) -> int:
        if self.left == 0:
            self.left = -1
            return self.write(descriptor, bytes(data)[: len(data) // 2])
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= 1
        return self.write(descriptor, data)


def test_a_full_disk_loses_the_frame_at_hand_only(tmp_path: Path, monkeypatch):
    frames = frames_of(["H"] * 6)
    with monkeypatch.context() as patch:
        FullDisk(patch, lines=4)
        with pytest.raises(
            RunError, match=r"labels cannot be written \(No space left on device\).*3 frames before are safe"
        ):
            label_frames(frames, TOY, tmp_path)
    assert len(rows_of(tmp_path)) == 3
    assert not [child for child in psutil.Process().children() if "mlipkit.labelling.child" in child.cmdline()]
    assert len(label_frames(frames, TOY, tmp_path).frames) == 6


def test_a_disk_that_is_full_later_is_believed(tmp_path: Path, monkeypatch):
    """Some disks take what they have no room for and say so when asked to keep it."""
    frames, synced = frames_of(["H"] * 5), []
    keep = os.fsync

    def sync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        keep(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("mlipkit.labelling.records.os.fsync", sync)
        patch.setattr("mlipkit.labelling.records.SYNC_S", 0.05)
        with pytest.raises(RunError, match=r"No space left on device.*The 1 frames before are safe"):
            label_frames(frames, Toy(seconds=0.06), tmp_path)
    assert len(rows_of(tmp_path)) == 1
    assert len(label_frames(frames, Toy(seconds=0.06), tmp_path).frames) == 5


def test_a_disk_full_at_the_end_loses_nothing(tmp_path: Path, monkeypatch):
    frames = frames_of(["H"] * 3)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["mlipkit.data.write"], "_extxyz", full)
        with pytest.raises(RunError, match=r"labelled.extxyz: cannot be written \(No space left"):
            label_frames(frames, TOY, tmp_path)
    assert len(rows_of(tmp_path)) == 3
    assert len(label_frames(frames, Recipe("toy_engines:Toy"), tmp_path).frames) == 3


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from toy_engines import frames_of
from mlipkit.labelling import Recipe, label_frames
recipe = Recipe("toy_engines:Toy", {{"seconds": 0.1, "diary": {diary!r}}})
label_frames(frames_of(["H"] * 12), recipe, {folder!r}, processes=2)
"""


def test_kill_9_loses_at_most_the_frames_at_hand(tmp_path: Path):
    diary, folder = tmp_path / "diary", tmp_path / "a"
    code = KILLED.format(tests=str(Path(__file__).parent), diary=str(diary), folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 60
    while time.monotonic() < end and not (
        (folder / LOG).exists() and len((folder / LOG).read_bytes().splitlines()) > 5
    ):
        time.sleep(0.01)
    children = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Nobody computes on for nobody.
    assert len(children) == 2
    assert psutil.wait_procs(children, timeout=5)[1] == []
    kept = {row["uid"] for row in rows_of(folder) if "uid" in row}
    begun = [json.loads(line) for line in diary.read_text().splitlines()]
    assert 4 <= len(kept) < 12
    assert len(set(begun) - kept) <= 2
    frames = frames_of(["H"] * 12)
    found = label_frames(frames, Recipe("toy_engines:Toy", {"seconds": 0.1, "diary": str(diary)}), folder)
    check_labels(found.frames)
    np.testing.assert_array_equal(found.frames.uids, frames.uids)
    after = [json.loads(line) for line in diary.read_text().splitlines()][len(begun) :]
    assert not set(after) & kept


def test_an_empty_result_has_a_sentence():
    frames = frames_of(["H"])[:0]
    assert Labelled(frames, [], 0.0, 1).sentence == "0 of 1 frame labelled, 1 not begun; 0 s of the engine"
