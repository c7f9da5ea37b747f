"""The total energy of a simulation without a thermostat does not drift."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlipkit.data import Series, read_source
from mlipkit.md import PotentialForces, maxwell_boltzmann, simulate, state_from_atoms
from mlipkit.models import load

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from nve_drift import drift


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ethanol_keeps_its_energy_for_50_ps(tmp_path):
    atoms = read_source("sample:ethanol_300K@0")[0]
    atoms.calc = None
    state = state_from_atoms(atoms)
    maxwell_boltzmann(state, 300.0, seed=0)
    forces = PotentialForces(load("sample:ethanol_1000").double())
    simulate(state, forces, "nve", steps=100_000, folder=tmp_path, timestep=0.5, stride=1000, checkpoint_every=20_000)
    rows = Series(tmp_path / "series" / "md").read(["time_fs", "total_energy"])
    slope, error, _ = drift(rows["time_fs"] / 1000, rows["total_energy"] / len(atoms) * 1000)
    assert abs(slope) + 2 * error < 0.01, f"drift {slope:.4f} ± {error:.4f} meV/atom/ps"
