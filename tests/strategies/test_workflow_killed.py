"""kill -9 at any moment: the next attempt goes on, loses a frame at most, and ends with the same bits."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import killed_workflow
import pytest


def bits(folder: Path) -> dict[str, bytes]:
    wanted = ("labelled.extxyz", "*.traj", "chosen.safetensors", "provenance.jsonl", "evaluation.json")
    paths = [path for name in wanted for path in folder.rglob(name)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def begun(folder: Path) -> int:
    path = folder / "begun.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.full
def test_killed_at_any_moment_it_goes_on_and_loses_a_frame_at_most(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert killed_workflow.main(whole) == "completed"
    frames = begun(whole)
    assert frames == 2 * 4 + 2 + 2 * 2
    # In the middle of the first labelling, of the second run (md_2 has begun its trajectory), and of the evaluation.
    moments = (
        lambda: begun(killed) == 2,
        lambda: (killed / killed_workflow.PLAN.folder("md_2") / "trajectory.traj").exists(),
        lambda: begun(killed) >= frames - 2,
    )
    kills = 0
    for moment in moments:
        child = subprocess.Popen([sys.executable, killed_workflow.__file__, str(killed)], stderr=subprocess.PIPE)
        end = time.monotonic() + 120
        while child.poll() is None and not moment():
            assert time.monotonic() < end
            time.sleep(0.005)
        if child.poll() is None:
            child.kill()
            kills += 1
        child.wait()
    assert kills == 3
    assert killed_workflow.main(killed) == "completed"
    assert begun(killed) <= frames + kills
    assert bits(killed) == bits(whole)
