"""Killed with -9 at random moments and resumed until it is through: nobody can tell from the result."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time

import numpy as np
import pytest
import torch
from ase.build import molecule
from test_md_simulation import NO_CHECKS, same_files, same_state, tiny_potential

from mlipkit.md import PotentialForces, maxwell_boltzmann, simulate, state_from_atoms

STEPS = 600
KILLS = 5


def work(folder, ensemble, options):
    torch.set_num_threads(1)
    atoms = molecule("CH3CH2OH", cell=[6.0, 6.5, 7.0], pbc=True)
    state = state_from_atoms(atoms, seed=1)
    maxwell_boltzmann(state, 900.0, seed=2)
    simulate(
        state, PotentialForces(tiny_potential(), skin=0.3), ensemble, steps=STEPS, folder=folder, stride=3,
        checkpoint_every=20, options=options, checks=NO_CHECKS,
    )  # fmt: skip


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize(
    ("ensemble", "options"),
    [("langevin", {"temperature": 900.0}), ("nose_hoover", {"temperature": 900.0, "relaxation_time": 20.0})],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, ensemble, options):
    begin = time.monotonic()
    work(tmp_path / "whole", ensemble, options)
    duration = time.monotonic() - begin
    # Forked, as a fresh interpreter would spend its time on imports and be killed there.
    fork = multiprocessing.get_context("fork")
    rng = np.random.default_rng(7)
    rows = tmp_path / "killed" / "series" / "md" / "rows.f64"
    total = (tmp_path / "whole" / "series" / "md" / "rows.f64").stat().st_size
    # By what is on disk, not by the clock: a quick machine is killed as often as a busy one.
    for share in sorted(rng.uniform(0.0, 0.9, size=KILLS)):
        child = fork.Process(target=work, args=(tmp_path / "killed", ensemble, options))
        child.start()
        while (not rows.exists() or rows.stat().st_size < share * total) and child.is_alive():
            time.sleep(0.001)
        child.join(rng.uniform(0.0, 0.03) * duration)
        assert child.is_alive(), f"through before it was killed at {share:.0%}"
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
    work(tmp_path / "killed", ensemble, options)
    same_files(tmp_path / "whole", tmp_path / "killed")
    same_state(tmp_path / "whole", tmp_path / "killed")
