"""Engines that are kept between labellings: built once, replaced when they died, gone when they are let go."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import toy_engines as toys
from toy_engines import frames_of

from mlipkit.events import Started
from mlipkit.labelling import Children, Recipe, label_frames

TOY = Recipe("toy_engines:Toy")


def running() -> set[int]:
    """Process numbers of the engines of this process."""
    return {
        child.pid for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "mlipkit.labelling.child" in child.cmdline()
    }  # fmt: skip


def test_the_next_labelling_finds_them_built(tmp_path: Path):
    heard: list = []
    slow = Recipe("toy_engines:Toy", {"seconds": 0.5})

    def label(name: str) -> None:
        found = label_frames(frames_of(["H"] * 4), slow, tmp_path / name, processes=2, kept=kept, sink=heard.append)
        assert len(found.frames) == 4
        assert found.maker["name"] == "toy springs"

    with Children() as kept:
        times = 0
        # The first engine may be done with all frames before the second is built, which is then not kept.
        while len(before := running()) < 2:
            times += 1
            label(f"a{times}")
        label("b")
        assert running() == before
        assert sum(isinstance(event, Started) for event in heard) == times + 1
        # Another engine is another process; fewer at once leave the others in peace.
        label_frames(frames_of(["H"]), Recipe("toy_engines:Toy", {"version": "2"}), tmp_path / "c", kept=kept)
        assert len(running()) == 3
    assert running() == set()


def test_one_that_has_died_or_hangs_is_replaced(tmp_path: Path):
    with Children() as kept:
        label_frames(frames_of(["H"]), TOY, tmp_path / "a", kept=kept)
        (pid,) = running()
        os.kill(pid, signal.SIGKILL)
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert len(label_frames(frames_of(["H"]), TOY, tmp_path / "b", kept=kept).frames) == 1
        found = label_frames(frames_of([toys.HANG]), TOY, tmp_path / "c", timeout=0.5, kept=kept)
        assert found.failed[0].reason == "took more than 0.5 s and was ended"
        assert len(label_frames(frames_of(["H"]), TOY, tmp_path / "d", kept=kept).frames) == 1


def test_one_with_a_frame_at_hand_when_the_user_stops_is_not_kept(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("mlipkit.labelling.children.GRACE_S", 0.2)
    diary = tmp_path / "diary"
    recipe = Recipe("toy_engines:Toy", {"diary": str(diary)})
    with Children() as kept:
        found = label_frames(
            frames_of([toys.HANG]), recipe, tmp_path / "a", kept=kept,
            control=lambda: "stop" if diary.exists() else "run",
        )  # fmt: skip
        assert found.n_missing == 1
        assert running() == set()
