"""kill -9 at any moment of the loop: the next attempt goes on and ends with the same pools and the same weights."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import killed_ipip
import pytest

from mlipkit.strategies.ipip import Pool


def pools(folder: Path) -> list[str]:
    return [Pool.open(folder / killed_ipip.PLAN.folder(f"pool_{k}")).hash for k in (0, 1, 2)]


def weights(folder: Path) -> bytes:
    return (folder / killed_ipip.PLAN.folder("finetune_2") / "checkpoints" / "chosen.safetensors").read_bytes()


@pytest.mark.full
def test_killed_at_any_step_of_the_loop_the_pools_have_the_same_hash(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert killed_ipip.main(whole) == "completed"

    def there(stage: str, name: str) -> bool:
        return (killed / killed_ipip.PLAN.folder(stage) / name).exists()

    # In the middle of the teacher's MD, of a pretraining, of a student's MD, behind a choice, and of the last training.
    moments = (
        lambda: there("md_0", "replica_000/trajectory.traj"),
        lambda: there("pretrain_0", "checkpoints/last.safetensors"),
        lambda: there("md_1", "replica_000/trajectory.traj"),
        lambda: there("choose_1", "stage.json"),
        lambda: there("finetune_2", "checkpoints/last.safetensors"),
    )
    kills = 0
    for moment in moments:
        child = subprocess.Popen([sys.executable, killed_ipip.__file__, str(killed)], stderr=subprocess.PIPE)
        end = time.monotonic() + 120
        while child.poll() is None and not moment():
            assert time.monotonic() < end
            time.sleep(0.002)
        if child.poll() is None:
            child.kill()
            kills += 1
        child.wait()
    assert kills == len(moments)
    assert killed_ipip.main(killed) == "completed"
    assert pools(killed) == pools(whole)
    assert weights(killed) == weights(whole)
