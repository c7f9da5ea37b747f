"""Physical validation of batches: replicas at temperatures of their own, all at once, in every thermostat.

Everything is measured in units of each replica's own kT, so that all replicas are draws of one distribution and their
spread gives the error of the mean (standard error over 32 replicas). Each comparison allows 4 standard errors and asks
that the error is small enough to tell a wrong ensemble; a wrong assignment of temperatures would be off by factors.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from md_systems import FreeGas, Harmonic
from test_md_ensembles import assert_mean

from mlipkit import units
from mlipkit.md import ENSEMBLES, maxwell_boltzmann, state_from_atoms
from mlipkit.md.forces import evaluate

pytestmark = pytest.mark.slow

KELVIN = np.tile([100.0, 300.0, 600.0, 1200.0], 8)
THERMAL = units.BOLTZMANN * KELVIN
NUMBERS = [6, 8, 6, 1, 8]
DOF = 3 * len(NUMBERS)


class Sampled:
    """Kinetic and potential energy of every tenth step over kT, [samples, replicas], and thermal velocities
    v sqrt(m/kT) of every hundredth, [samples, replicas, dof]."""

    def __init__(self, name, forces, n_steps, timestep, **options):
        rng = np.random.default_rng(1)
        images = [Atoms(NUMBERS, rng.normal(0, np.sqrt(kt / 1.0), (len(NUMBERS), 3))) for kt in THERMAL]
        state = state_from_atoms(images, seed=5)
        maxwell_boltzmann(state, KELVIN.tolist(), seed=6, zero_momentum=False, zero_rotation=False)
        ensemble = ENSEMBLES[name]
        ensemble.init(state, temperature=KELVIN.tolist(), **options)
        evaluate(state, forces)
        speed = torch.sqrt(state.masses / torch.tensor(np.repeat(THERMAL, len(NUMBERS))) / units.FORCE_TO_ACCELERATION)
        kinetic, potential, velocities = [], [], []
        with torch.no_grad():
            for step in range(n_steps):
                ensemble.step(state, forces, timestep)
                if step > 1000 and step % 10 == 0:
                    kinetic.append(state.kinetic_energy().numpy() / THERMAL)
                    potential.append(state.energy.numpy() / THERMAL)
                if step > 1000 and step % 100 == 0:
                    velocities.append((state.velocities * speed[:, None]).reshape(len(KELVIN), DOF).numpy())
        self.kinetic, self.potential, self.velocities = map(np.array, (kinetic, potential, velocities))


def assert_temperatures(kinetic):
    """Each group of equal temperature has its own <E_kin> = n kT/2, within 4 standard errors of its 8 replicas."""
    for kelvin in np.unique(KELVIN):
        mine = kinetic.mean(0)[kelvin == KELVIN]
        assert abs(mine.mean() - DOF / 2) < 4 * mine.std(ddof=1) / np.sqrt(8) + 1e-3, f"{kelvin} K: {mine}"


def assert_maxwell(velocities):
    """Components of v sqrt(m/kT) are standard normal: second and fourth moment, and half of them within 0.6745."""
    assert_mean((velocities**2).mean((0, 2)), 1.0, 0.02)
    assert_mean((velocities**4).mean((0, 2)), 3.0, 0.05)
    assert_mean((np.abs(velocities) < 0.67449).mean((0, 2)), 0.5, 0.02)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("langevin", {"friction": 0.02}),
        ("bussi", {"relaxation_time": 30.0, "dof": DOF}),
        ("nose_hoover", {"relaxation_time": 30.0, "dof": DOF}),
    ],
)
def test_harmonic_oscillators_of_many_temperatures_are_canonical(name, options):
    """<E_kin> = <E_pot> = n/2 kT, both with variance n/2 (kT)², and velocities as Maxwell says."""
    got = Sampled(name, Harmonic(1.0), 40_000, 1.0, **options)
    assert_temperatures(got.kinetic)
    assert_mean(got.kinetic.mean(0), DOF / 2, 0.01)
    assert_mean(got.potential.mean(0), DOF / 2, 0.03)
    assert_mean(got.kinetic.var(0), DOF / 2, 0.06)
    assert_mean(got.potential.var(0), DOF / 2, 0.15)
    assert_maxwell(got.velocities)


@pytest.mark.parametrize(
    ("name", "options"), [("langevin", {"friction": 0.02}), ("bussi", {"relaxation_time": 20.0, "dof": DOF})]
)
def test_ideal_gas_of_many_temperatures_is_maxwells(name, options):
    """<E_kin> = n/2 kT with variance n/2 (kT)² and third moment n (kT)³, and velocities as Maxwell says.

    A Nosé-Hoover chain only stretches the velocities of free atoms, and what it does to their sum is not ergodic.
    """
    got = Sampled(name, FreeGas(), 30_000, 1.0, **options)
    assert_temperatures(got.kinetic)
    assert_mean(got.kinetic.mean(0), DOF / 2, 0.01)
    assert_mean(got.kinetic.var(0), DOF / 2, 0.06)
    assert_mean(((got.kinetic - got.kinetic.mean(0)) ** 3).mean(0), DOF, 0.25)
    if name == "langevin":
        # Scaling all velocities by one factor leaves their directions in phase space as they were drawn.
        assert_maxwell(got.velocities)


def test_berendsen_brings_each_replica_to_its_temperature():
    """The mean is right, the fluctuations are too small: its known fault."""
    got = Sampled("berendsen", Harmonic(1.0), 15_000, 1.0, relaxation_time=50.0, dof=DOF)
    np.testing.assert_allclose(got.kinetic[200:].mean(0), DOF / 2, rtol=0.02)
    assert got.kinetic.var(0).mean() < 0.7 * DOF / 2
