"""Physical validation: ideal gas and harmonic oscillators have known distributions.

Replicas are independent, so the spread of their averages gives the error of the mean. Every comparison also asks that
the error bar is small enough to tell a wrong ensemble.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from md_systems import FreeGas, Harmonic

from mlipkit import units
from mlipkit.md import ENSEMBLES, Forces, maxwell_boltzmann, state_from_atoms
from mlipkit.md.forces import evaluate

pytestmark = pytest.mark.slow

KELVIN = 300.0
THERMAL = units.BOLTZMANN * KELVIN


def sample(name, forces, *, replicas, numbers, n_steps, timestep, burn_in, cell=None, **options):
    """Kinetic and potential energy of every tenth step [samples, replicas], and the end state."""
    n = len(numbers)
    rng = np.random.default_rng(0)
    images = []
    for _ in range(replicas):
        # Start from the equilibrium of the harmonic springs; free atoms may start anywhere.
        images.append(
            Atoms(numbers, positions=rng.normal(0, np.sqrt(THERMAL), (n, 3)), cell=cell, pbc=cell is not None)
        )
    state = state_from_atoms(images, seed=11)
    maxwell_boltzmann(state, KELVIN, seed=3, zero_momentum=False, zero_rotation=False)
    ensemble = ENSEMBLES[name]
    ensemble.init(state, **options)
    evaluate(state, forces)
    kinetic, potential = [], []
    with torch.no_grad():
        for step in range(n_steps):
            ensemble.step(state, forces, timestep)
            if step >= burn_in and step % 10 == 0:
                kinetic.append(state.kinetic_energy().numpy())
                potential.append(state.energy.numpy())
    return np.array(kinetic), np.array(potential), state


def assert_mean(per_replica, expected, precision):
    """The mean over replicas agrees within 4 standard errors, and the standard error is below `precision`."""
    error = per_replica.std(ddof=1) / np.sqrt(len(per_replica))
    assert error < precision * expected, f"error bar {error / expected:.3f} says nothing"
    assert abs(per_replica.mean() - expected) < 4 * error, (
        f"{per_replica.mean():.5f} +- {error:.5f}, not {expected:.5f}"
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("langevin", {"friction": 0.01}),
        ("bussi", {"relaxation_time": 50.0, "dof": 12}),
        ("nose_hoover", {"relaxation_time": 50.0, "dof": 12}),
    ],
)
def test_harmonic_oscillators_are_canonical(name, options):
    """<E_kin> = <E_pot> = 3N kT/2 and both fluctuate by 3N (kT)²/2."""
    kinetic, potential, _ = sample(
        name, Harmonic(1.0), replicas=24, numbers=[6, 8, 6, 1], n_steps=60_000, timestep=1.0, burn_in=2000,
        temperature=KELVIN, **options,
    )  # fmt: skip
    half = 0.5 * 12 * THERMAL
    assert_mean(kinetic.mean(0), half, 0.01)
    assert_mean(potential.mean(0), half, 0.03)
    assert_mean(kinetic.var(0), half * THERMAL, 0.05)
    assert_mean(potential.var(0), half * THERMAL, 0.12)


def test_langevin_samples_positions_without_the_bias_of_the_step():
    """BAOAB: <k x²> = kT for harmonic springs even at a fifth of the stability limit."""
    _, potential, _ = sample(
        "langevin", Harmonic(5.0), replicas=24, numbers=[1] * 10, n_steps=20_000, timestep=2.5, burn_in=500,
        temperature=KELVIN, friction=0.02,
    )  # fmt: skip
    assert_mean(potential.mean(0), 15 * THERMAL, 0.01)


@pytest.mark.parametrize(
    ("name", "options"), [("langevin", {"friction": 0.02}), ("bussi", {"relaxation_time": 20.0, "dof": 15})]
)
def test_ideal_gas_has_maxwells_kinetic_energy(name, options):
    """<E> = 3N kT/2 with the variance and the third moment of a Gamma distribution."""
    kinetic, _, _ = sample(
        name, FreeGas(), replicas=24, numbers=[18] * 5, n_steps=30_000, timestep=2.0, burn_in=500,
        temperature=KELVIN, **options,
    )  # fmt: skip
    assert_mean(kinetic.mean(0), 7.5 * THERMAL, 0.01)
    assert_mean(kinetic.var(0), 7.5 * THERMAL**2, 0.05)
    third = ((kinetic - kinetic.mean(0)) ** 3).mean(0)
    assert_mean(third, 2 * 7.5 * THERMAL**3, 0.2)


def test_langevin_gas_diffuses_as_einstein_says():
    """<|x(t) - x(0)|²> = 6 kT c/(m γ) (t - (1 - e^(-γt))/γ) for free atoms with thermal start velocities."""
    friction, steps = 0.01, 1000
    state = state_from_atoms(Atoms("Ne2000", positions=np.zeros((2000, 3))), seed=1)
    maxwell_boltzmann(state, KELVIN, seed=2, zero_momentum=False, zero_rotation=False)
    ensemble, forces = ENSEMBLES["langevin"], FreeGas()
    ensemble.init(state, temperature=KELVIN, friction=friction)
    evaluate(state, forces)
    for _ in range(steps):
        ensemble.step(state, forces, 1.0)
    squared = state.positions.square().sum(1).numpy()
    lag = steps - (1 - np.exp(-friction * steps)) / friction
    expected = 6 * THERMAL * units.FORCE_TO_ACCELERATION / (state.masses[0].item() * friction) * lag
    assert_mean(squared, expected, 0.03)


def test_berendsen_reaches_the_temperature_and_holds_it():
    """The mean is right; that the fluctuations are too small is its known fault."""
    kinetic, _, _ = sample(
        "berendsen", Harmonic(1.0), replicas=24, numbers=[6, 8, 6, 1], n_steps=20_000, timestep=1.0, burn_in=4000,
        temperature=KELVIN, relaxation_time=50.0, dof=12,
    )  # fmt: skip
    assert kinetic.mean() == pytest.approx(6 * THERMAL, rel=0.01)
    assert kinetic.var(0).mean() < 0.7 * 6 * THERMAL**2


@pytest.mark.timeout(1800)
def test_ideal_gas_at_constant_pressure_has_the_volume_of_its_law():
    """<V> = (N+1) kT/P."""

    class Gas:
        def __call__(self, state):
            zero = torch.zeros(1, 3, 3, dtype=torch.float64)
            return Forces(torch.zeros_like(state.energy), torch.zeros_like(state.positions), zero)

    n, volume = 8, 8 * 400.0
    pressure = (n + 1) * THERMAL / volume
    averages = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        gas = Atoms(f"Ar{n}", positions=rng.uniform(0, 14, (n, 3)), cell=[volume ** (1 / 3)] * 3, pbc=True)
        state = state_from_atoms(gas, seed=seed)
        maxwell_boltzmann(state, KELVIN, seed=seed, zero_momentum=False)
        ensemble, forces = ENSEMBLES["npt"], Gas()
        ensemble.init(
            state, temperature=KELVIN, pressure=pressure / units.GPA, relaxation_time=200.0,
            pressure_relaxation_time=1000.0,
        )  # fmt: skip
        evaluate(state, forces)
        volumes = []
        for step in range(15_000):
            ensemble.step(state, forces, 10.0)
            if step > 1000:
                volumes.append(torch.linalg.det(state.cell).item())
        averages.append(np.mean(volumes))
    assert_mean(np.array(averages), volume, 0.05)
