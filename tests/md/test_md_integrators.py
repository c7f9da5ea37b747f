"""Every integrator against ASE's for the same start, forces and random numbers: equal trajectories."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import units as ase_units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.bussi import Bussi
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.nose_hoover_chain import IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.nvtberendsen import NVTBerendsen
from ase.md.verlet import VelocityVerlet
from md_systems import FunctionCalculator, Springs, ethanol_state, palladium

from mlipkit import units
from mlipkit.errors import DataError, SpecError
from mlipkit.md import (
    ENSEMBLES,
    CalculatorForces,
    Forces,
    get_ensemble,
    maxwell_boltzmann,
    state_from_atoms,
    verlet_step,
)
from mlipkit.md.forces import evaluate
from mlipkit.md.noise import Draws

# ASE carries the constants of 2014, mlipkit those of 2018: the same physics needs the temperature scaled by this.
KELVIN = units.BOLTZMANN / ase_units.kB


def run(state, forces, name, n_steps, timestep=0.5, **options):
    ensemble = ENSEMBLES[name]
    ensemble.init(state, **options)
    evaluate(state, forces)
    for _ in range(n_steps):
        ensemble.step(state, forces, timestep)
    return state


def ase_start(state, calculator):
    atoms = state.atoms()
    atoms.calc = calculator
    return atoms


def assert_same_path(state, atoms, tolerance=1e-8):
    np.testing.assert_allclose(state.positions.numpy(), atoms.positions, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        state.velocities.numpy(), units.velocities_from_ase(atoms.get_velocities()), rtol=0, atol=tolerance
    )


def test_nve_follows_ase():
    state = state_from_atoms(palladium(), seed=1)
    maxwell_boltzmann(state, 600.0, seed=2)
    atoms = ase_start(state, EMT())
    run(state, CalculatorForces(EMT()), "nve", 400, timestep=2.0)
    VelocityVerlet(atoms, 2.0 / units.ASE_TIME).run(400)
    assert_same_path(state, atoms)
    assert state.step == 400
    assert state.time == pytest.approx(800.0)
    moved = np.abs(atoms.positions - palladium().positions).max()
    assert moved > 0.2  # the comparison is of a motion


def test_nve_conserves_energy_and_momentum():
    state = ethanol_state()
    springs = Springs(state)
    evaluate(state, springs)
    before = state.energy + state.kinetic_energy()
    run(state, springs, "nve", 2000, timestep=0.1)
    assert torch.allclose(state.energy + state.kinetic_energy(), before, atol=2e-4)
    assert state.velocity_of_mass_centre().abs().max() < 1e-12


def test_berendsen_follows_ase():
    state = ethanol_state()
    springs = Springs(state)
    atoms = ase_start(state, FunctionCalculator(springs, state))
    run(state, springs, "berendsen", 300, temperature=450.0, relaxation_time=40.0, dof=27)
    NVTBerendsen(atoms, 0.5 / units.ASE_TIME, temperature_K=450.0 * KELVIN, taut=40.0 / units.ASE_TIME).run(300)
    assert_same_path(state, atoms)


def test_nose_hoover_chain_follows_ase():
    state = ethanol_state()
    springs = Springs(state)
    atoms = ase_start(state, FunctionCalculator(springs, state))
    run(state, springs, "nose_hoover", 300, temperature=450.0, relaxation_time=40.0, dof=27)
    NoseHooverChainNVT(
        atoms, 0.5 / units.ASE_TIME, temperature_K=450.0 * KELVIN, tdamp=40.0 / units.ASE_TIME, tchain=3
    ).run(300)
    assert_same_path(state, atoms)


class _Normal(np.random.Generator):
    """Gives ASE the numbers that a replica's torch generator draws, a block of steps at a time."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64(0))
        self.torch, self.rows = torch.Generator().manual_seed(seed), iter(())

    def normal(self, loc=0.0, scale=1.0, size=None):
        row = next(self.rows, None)
        if row is None:
            self.rows = iter(block_of(self.torch, int(np.prod(size))))
            row = next(self.rows)
        return row.reshape(size).numpy()


def block_of(generator, count):
    return torch.randn(Draws.STEPS, count, generator=generator, dtype=torch.float64)


def test_langevin_follows_ase():
    state = ethanol_state(seed=5)
    springs = Springs(state)
    atoms = ase_start(state, FunctionCalculator(springs, state))
    run(state, springs, "langevin", 300, temperature=450.0, friction=0.02)
    LangevinBAOAB(
        atoms, 0.5 / units.ASE_TIME, temperature_K=450.0 * KELVIN, T_tau=50.0 / units.ASE_TIME, rng=_Normal(5)
    ).run(300)
    assert_same_path(state, atoms)


class _BussiNoise:
    """n normal numbers a step as `bussi_step` draws them, handed out as ASE asks: the first, then the squares."""

    def __init__(self, seed, n):
        self.torch, self.n, self.rows = torch.Generator().manual_seed(seed), n, iter(())

    def standard_normal(self):
        draw = next(self.rows, None)
        if draw is None:
            self.rows = iter(block_of(self.torch, self.n))
            draw = next(self.rows)
        self.rest = draw[1:].square().sum().item()
        return draw[0].item()

    def standard_gamma(self, shape):
        assert shape == 0.5 * (self.n - 1)
        return 0.5 * self.rest


def test_bussi_follows_ase():
    state = ethanol_state(seed=5)
    springs = Springs(state)
    atoms = ase_start(state, FunctionCalculator(springs, state))
    run(state, springs, "bussi", 300, temperature=450.0, relaxation_time=40.0, dof=27)
    Bussi(
        atoms, 0.5 / units.ASE_TIME, temperature_K=450.0 * KELVIN, taut=40.0 / units.ASE_TIME, rng=_BussiNoise(5, 27)
    ).run(300)
    assert_same_path(state, atoms)


def test_isotropic_npt_is_ases_and_survives_being_rebuilt_at_every_step():
    start = bulk("Cu", cubic=True) * (2, 2, 2)
    start.set_cell(start.cell * 1.02, scale_atoms=True)
    state = state_from_atoms(start, seed=1)
    maxwell_boltzmann(state, 300.0, seed=2)
    atoms = ase_start(state, EMT())
    options = {"temperature": 300.0, "pressure": 1.0, "relaxation_time": 50.0, "pressure_relaxation_time": 200.0}
    run(state, CalculatorForces(EMT(), stress=True), "npt", 60, timestep=2.0, **options)
    dynamics = IsotropicMTKNPT(
        atoms,
        2.0 / units.ASE_TIME,
        temperature_K=300.0,
        pressure_au=units.GPA,
        tdamp=50.0 / units.ASE_TIME,
        pdamp=200.0 / units.ASE_TIME,
    )
    dynamics.run(60)
    assert_same_path(state, atoms)
    np.testing.assert_allclose(state.cell[0].numpy(), atoms.cell.array, atol=1e-9)
    assert abs(atoms.get_volume() / start.get_volume() - 1) > 0.01
    conserved = (state.energy + state.kinetic_energy() - state.heat).item()
    # ASE counts the work of the pressure from no volume at all, mlipkit from the start.
    assert conserved + units.GPA * start.get_volume() == pytest.approx(dynamics.get_conserved_energy(), abs=1e-8)


def test_a_high_pressure_changes_no_conserved_energy_by_being_there():
    state = state_from_atoms(bulk("Cu", cubic=True) * (2, 2, 2), seed=1)
    maxwell_boltzmann(state, 300.0, seed=2)
    forces = CalculatorForces(EMT(), stress=True)
    evaluate(state, forces)
    start = (state.energy + state.kinetic_energy() - state.heat).item()
    run(state, forces, "npt", 20, timestep=1.0, pressure=10.0)
    conserved = (state.energy + state.kinetic_energy() - state.heat).item()
    assert conserved == pytest.approx(start, abs=1e-3 * 32)


def test_npt_says_what_it_needs():
    molecule = ethanol_state()
    with pytest.raises(DataError, match="three periodic axes"):
        ENSEMBLES["npt"].init(molecule)
    state = state_from_atoms(bulk("Cu", cubic=True))
    with pytest.raises(DataError, match="above 0 K"):
        ENSEMBLES["npt"].init(state, temperature=0.0)
    ENSEMBLES["npt"].init(state)
    evaluate(state, CalculatorForces(EMT()))
    with pytest.raises(DataError, match="stress=True"):
        ENSEMBLES["npt"].step(state, CalculatorForces(EMT()), 1.0)


@pytest.mark.parametrize("name", ["berendsen", "langevin", "bussi", "nose_hoover"])
def test_conserved_energy_accounts_for_the_thermostat(name):
    """E_pot + E_kin less the heat stays put although the thermostat doubles the kinetic energy."""
    state = ethanol_state(temperature=100.0)
    springs = Springs(state)
    evaluate(state, springs)
    before = (state.energy + state.kinetic_energy()).item()
    coupling = {"friction": 0.02} if name == "langevin" else {"relaxation_time": 50.0}
    run(state, springs, name, 2000, timestep=0.25, temperature=600.0, **coupling)
    total = (state.energy + state.kinetic_energy()).item()
    assert total - before > 0.2
    assert total - state.heat.item() == pytest.approx(before, abs=3e-3)


@pytest.mark.parametrize("name", ["nve", "berendsen", "langevin", "bussi", "nose_hoover"])
def test_a_batch_of_replicas_equals_single_runs(name):
    """Replicas with their own seeds and temperatures do not know of each other."""
    temperatures = [200.0, 400.0, 800.0]
    batch = ethanol_state(replicas=3)
    singles = [batch.select([index]) for index in range(3)]
    for single in singles:
        single.rng = [torch.Generator()]
    for index, single in enumerate(singles):
        single.rng[0].set_state(batch.rng[index].get_state())
    springs = Springs(batch)
    options = {} if name == "nve" else {"temperature": temperatures}
    run(batch, springs, name, 50, **options)
    for index, single in enumerate(singles):
        run(single, springs, name, 50, **({} if name == "nve" else {"temperature": temperatures[index]}))
        part = batch.select([index])
        torch.testing.assert_close(part.positions, single.positions, rtol=0, atol=1e-12)
        torch.testing.assert_close(part.velocities, single.velocities, rtol=0, atol=1e-12)
        torch.testing.assert_close(part.heat, single.heat, rtol=0, atol=1e-12)


def test_verlet_step_is_reversible_and_second_order():
    state = ethanol_state()
    springs = Springs(state)

    def force(positions):
        state.positions = positions
        return springs(state).forces

    start = state.positions.clone()

    def travel(positions, velocities, timestep, n_steps):
        forces = force(positions)
        for _ in range(n_steps):
            positions, velocities, forces = verlet_step(positions, velocities, forces, state.masses, timestep, force)
        return positions, velocities

    positions, velocities = travel(start, state.velocities, 0.5, 60)
    back, _ = travel(positions, -velocities, 0.5, 60)
    assert (back - start).abs().max() < 1e-10
    assert (positions - start).abs().max() > 0.02

    exact, _ = travel(start, state.velocities, 0.01, 2000)
    coarse, fine = (travel(start, state.velocities, step, round(20 / step))[0] for step in (0.5, 0.25))
    ratio = (coarse - exact).norm() / (fine - exact).norm()
    assert 3.7 < ratio < 4.3


def test_verlet_step_lets_gradients_through():
    """d(position after 3 steps)/d(force constant) by autograd equals finite differences."""
    k = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    masses = torch.tensor([1.008, 15.999], dtype=torch.float64)
    start = torch.tensor([[0.0, 0.1, 0.2], [0.9, 0.0, 0.1]], dtype=torch.float64)

    def end(stiffness):
        def force(positions):
            return -stiffness * positions

        positions, velocities, forces = start, torch.zeros_like(start), force(start)
        for _ in range(3):
            positions, velocities, forces = verlet_step(positions, velocities, forces, masses, 0.5, force)
        return positions.square().sum()

    (slope,) = torch.autograd.grad(end(k), k)
    with torch.no_grad():
        numeric = (end(k + 1e-5) - end(k - 1e-5)) / 2e-5
    assert slope.item() == pytest.approx(numeric.item(), rel=1e-7)
    assert abs(slope.item()) > 1e-6


def test_unknown_ensemble_and_option_name_the_known_ones():
    with pytest.raises(SpecError, match="did you mean 'langevin'"):
        get_ensemble("langevn")
    with pytest.raises(SpecError, match="did you mean 'friction'"):
        ENSEMBLES["langevin"].check_options({"frction": 0.1})
    assert ENSEMBLES["langevin"].options == {"temperature": 300.0, "friction": 0.01}


def test_thermostats_refuse_what_they_cannot_do():
    still = state_from_atoms(palladium())
    with pytest.raises(DataError, match=r"moving atoms.*Draw start velocities"):
        ENSEMBLES["bussi"].init(still)
    with pytest.raises(DataError, match=r"moving atoms.*at 0 K\. Choose a temperature above 0 K"):
        ENSEMBLES["bussi"].init(still, temperature=0.0)
    with pytest.raises(DataError, match="above 0 K"):
        ENSEMBLES["nose_hoover"].init(still, temperature=0.0)
    with pytest.raises(DataError, match="one value for all or one for each replica"):
        ENSEMBLES["langevin"].init(still, temperature=[300.0, 400.0])


def test_calculator_forces_need_one_calculator_per_replica_or_one_for_all():
    state = ethanol_state(replicas=2)
    springs = Springs(state)
    one = CalculatorForces(FunctionCalculator(springs, state))(state)
    two = CalculatorForces([FunctionCalculator(springs, state), FunctionCalculator(springs, state)])(state)
    assert isinstance(one, Forces)
    torch.testing.assert_close(one.forces, springs(state).forces)
    torch.testing.assert_close(one.forces, two.forces)
    with pytest.raises(DataError, match="one calculator for all"):
        CalculatorForces([FunctionCalculator(springs, state)] * 3)(state)
