"""State, start velocities, the ASE calculator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from md_systems import ethanol_state

from mlipkit import units
from mlipkit.data import graph_of
from mlipkit.errors import DataError, ModelError
from mlipkit.md import MDState, MlipCalculator, PotentialForces, maxwell_boltzmann, state_from_atoms
from mlipkit.md.velocities import count_dof
from mlipkit.models import Potential, build_encoder, save


def potential(numbers=(1, 6, 8), dtype=torch.float64, cutoff=4.0):
    torch.manual_seed(3)
    encoder = build_encoder("painn", features=8, layers=2, cutoff=cutoff, n_radial=6)
    return Potential(encoder, atomic_energies=dict.fromkeys(numbers, -1.0), scale=0.1).to(dtype)


def test_atoms_come_back():
    atoms = molecule("CH3CH2OH", cell=[8, 9, 10], pbc=[True, True, False])
    atoms.set_velocities(np.random.default_rng(0).standard_normal((9, 3)))
    state = state_from_atoms([atoms, molecule("H2O")], seed=[4, 9])
    back = state.atoms(0)
    assert back.get_chemical_formula() == "C2H6O"
    np.testing.assert_array_equal(back.positions, atoms.positions)
    np.testing.assert_allclose(back.get_velocities(), atoms.get_velocities(), rtol=1e-14)
    np.testing.assert_array_equal(back.cell, atoms.cell)
    assert back.pbc.tolist() == [True, True, False]
    assert state.n_atoms.tolist() == [9, 3]
    assert [rng.initial_seed() for rng in state.rng] == [4, 9]
    assert len(state.atoms(1)) == 3


def test_tensors_and_back_is_the_same_state():
    state = ethanol_state(replicas=2)
    state.thermostat = {"temperature": torch.tensor([300.0, 400.0], dtype=torch.float64)}
    state.normal()
    state.step, state.time = 17, 8.5
    copy = MDState.from_tensors(state.to_tensors())
    for name, tensor in state.to_tensors().items():
        assert torch.equal(tensor, copy.to_tensors()[name]) or torch.isnan(tensor).all()
    assert torch.equal(copy.normal(), state.normal())


def test_select_keeps_what_belongs_together():
    state = state_from_atoms([molecule("H2O"), molecule("CH4"), molecule("CO")], seed=1)
    state.thermostat = {"temperature": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)}
    part = state.select([2, 0])
    assert part.numbers.tolist() == [8, 6, 8, 1, 1] or part.numbers.tolist() == [6, 8, 8, 1, 1]
    assert part.system.tolist() == [0, 0, 1, 1, 1]
    assert part.thermostat["temperature"].tolist() == [3.0, 1.0]
    assert part.rng[0] is state.rng[2]


def test_maxwell_boltzmann_has_the_right_spread_and_no_drift():
    argon = Atoms("Ar4000", positions=np.random.default_rng(0).uniform(0, 100, (4000, 3)), cell=[100] * 3, pbc=True)
    state = state_from_atoms(argon)
    maxwell_boltzmann(state, 300.0, seed=1)
    expected = np.sqrt(units.BOLTZMANN * 300 * units.FORCE_TO_ACCELERATION / argon.get_masses()[0])
    assert state.velocities.std().item() == pytest.approx(expected, rel=0.03)
    assert state.velocity_of_mass_centre().abs().max() < 1e-16
    state.dof = count_dof(state)
    assert state.dof.item() == 3 * 4000 - 3
    assert state.temperature().item() == pytest.approx(300.0, rel=0.04)


def test_velocities_depend_on_the_seed_alone():
    one, two, other = (state_from_atoms(molecule("CH3CH2OH"), seed=s) for s in (1, 2, 3))
    maxwell_boltzmann(one, 300.0, seed=7)
    maxwell_boltzmann(two, 300.0, seed=7)
    maxwell_boltzmann(other, 300.0, seed=8)
    assert torch.equal(one.velocities, two.velocities)
    assert not torch.equal(one.velocities, other.velocities)
    both = state_from_atoms(molecule("CH3CH2OH"), replicas=2)
    maxwell_boltzmann(both, [300.0, 300.0], seed=7)
    torch.testing.assert_close(both.select([0]).velocities, one.velocities, rtol=0, atol=1e-15)
    torch.testing.assert_close(both.select([1]).velocities, other.velocities, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "pbc", "dof"),
    [("CH3CH2OH", False, 21), ("CH3CH2OH", True, 24), ("CO2", False, 4), ("H2", False, 1)],
)
def test_degrees_of_freedom(name, pbc, dof):
    state = state_from_atoms(molecule(name, cell=[9, 9, 9], pbc=pbc))
    maxwell_boltzmann(state, 300.0, seed=1)
    assert count_dof(state).item() == dof
    arm = state.positions - state.positions.mean(0)
    if not pbc:
        momenta = state.masses[:, None] * state.velocities
        assert torch.linalg.cross(arm, momenta).sum(0).abs().max() < 1e-12
    maxwell_boltzmann(state, 300.0, seed=1, zero_momentum=False, zero_rotation=False)
    assert count_dof(state).item() == 3 * len(state.numbers)


def test_exact_temperature():
    state = ethanol_state(replicas=2)
    maxwell_boltzmann(state, [300.0, 0.0], seed=1, exact=True)
    state.dof = count_dof(state)
    np.testing.assert_allclose(state.temperature().numpy(), [300.0, 0.0], rtol=1e-12)
    with pytest.raises(DataError, match="negative temperature"):
        maxwell_boltzmann(state, -1.0)


def test_calculator_conforms_to_ase():
    calculator = MlipCalculator(potential())
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    atoms.calc = calculator
    graph = graph_of(atoms, 4.0, dtype=torch.float64)
    prediction = calculator.potential(graph)
    assert atoms.get_potential_energy() == pytest.approx(prediction.energy.item(), abs=1e-12)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert "energies" not in calculator.results
    np.testing.assert_allclose(atoms.get_forces(), prediction.forces.numpy(), atol=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-7)
    assert calculator.results["forces"].dtype == np.float64
    with pytest.raises(PropertyNotImplementedError, match="periodic along all three axes"):
        atoms.get_stress()
    assert np.isfinite(atoms.get_forces()).all()


def test_calculator_takes_names_and_refuses_what_is_no_potential(tmp_path):
    mine = potential(numbers=(1, 8))
    path = save(mine, tmp_path / "water.safetensors")
    water = molecule("H2O")
    energies = []
    for given in (mine, path, str(path)):
        water.calc = MlipCalculator(given)
        energies.append(water.get_potential_energy())
    assert energies[0] == energies[1] == energies[2]
    assert MlipCalculator("sample:ethanol_1000").potential.elements == (1, 6, 8)
    with pytest.raises(ModelError, match="no such file"):
        MlipCalculator(tmp_path / "wine.safetensors")
    with pytest.raises(ModelError, match=r"MlipCalculator: no potential; expected .*found dict"):
        MlipCalculator({})  # type: ignore[arg-type]


def test_what_follows_from_edges_is_found_once_for_each_list():
    state = state_from_atoms([molecule("H2O"), molecule("CH4")])
    forces = PotentialForces(potential())
    first = forces.graph(state)
    assert first.pairs is not None
    state.positions = state.positions + 0.01
    second = forces.graph(state)
    assert second.pairs is first.pairs
    assert torch.equal(second.positions, state.positions)
    state.positions[0] += 10.0
    third = forces.graph(state)
    assert third.pairs is not first.pairs
    last = state.select([1])
    forces.select(last, [1])
    alone = forces.graph(last)
    fresh = PotentialForces(potential())(last)
    assert len(alone.numbers) == 5
    torch.testing.assert_close(forces(last).forces, fresh.forces, rtol=0, atol=1e-12)


def test_calculator_computes_again_after_any_change_and_only_then():
    atoms = molecule("H2O", vacuum=3.0)
    atoms.calc = calculator = MlipCalculator(potential())
    atoms.get_forces()
    assert calculator.check_state(atoms) == []
    shifted, other, tight, periodic = (atoms.copy() for _ in range(4))
    shifted.positions[1, 2] += 1e-13
    other.numbers[0] = 6
    tight.set_cell(tight.cell * 0.5)
    periodic.pbc = (True, False, False)
    changes = [calculator.check_state(changed) for changed in (shifted, other, tight, periodic, atoms[[0, 1]])]
    assert changes == [["positions"], ["numbers"], ["cell"], ["pbc"], ["positions", "numbers"]]


def test_calculator_gives_voigt_stress_and_follows_cell_and_composition():
    calculator = MlipCalculator(potential(numbers=(6, 1, 8)))
    diamond = bulk("C", "diamond", a=3.5, cubic=True)
    diamond.rattle(0.05, seed=1)
    diamond.calc = calculator
    stress = diamond.get_stress()
    assert stress.shape == (6,)
    np.testing.assert_allclose(stress, calculate_numerical_stress(diamond, eps=1e-5), atol=1e-7)
    diamond.set_cell(diamond.cell * 1.03, scale_atoms=True)
    diamond.pop(0)
    fresh = diamond.copy()
    fresh.calc = MlipCalculator(calculator.potential)
    assert diamond.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-12)
    np.testing.assert_allclose(diamond.get_stress(), fresh.get_stress(), atol=1e-12)
    water = molecule("H2O")
    water.calc = calculator
    assert np.isfinite(water.get_forces()).all()


def test_asking_for_forces_after_stress_costs_one_call():
    calculator = MlipCalculator(potential(numbers=(6,)))
    diamond = bulk("C", "diamond", a=3.5, cubic=True)
    diamond.calc = calculator
    diamond.get_stress()
    diamond.rattle(0.01, seed=3)
    diamond.get_forces()
    assert "stress" in calculator.results


def test_element_outside_the_potential_is_named():
    sulfur = molecule("SH2")
    sulfur.calc = MlipCalculator(potential())
    with pytest.raises(ModelError, match="element unknown to this potential: S"):
        sulfur.get_forces()


@pytest.mark.parametrize("cut_above", [0, 10**9])
def test_skin_list_forces_equal_fresh_ones_along_a_path(cut_above):
    """Replicas of different size at once, a small tilted cell among them, over several rebuilds."""
    model = potential(numbers=(1, 6, 8))
    ice = molecule("H2O", cell=[[3.1, 0, 0], [1.4, 3.3, 0], [0.2, 0.5, 3.6]], pbc=True)
    state = state_from_atoms([ice, molecule("CH3CH2OH"), bulk("C", "diamond", a=3.6)])
    forces = PotentialForces(model, skin=0.4)
    forces.CUT_ABOVE = cut_above
    rng = torch.Generator().manual_seed(0)
    for _ in range(12):
        state.positions = state.positions + 0.05 * torch.randn(14, 3, generator=rng, dtype=torch.float64)
        energy, got, _ = forces(state)
        for index in range(3):
            fresh = model(graph_of(state.atoms(index), model.cutoff, dtype=torch.float64))
            assert energy[index].item() == pytest.approx(fresh.energy.item(), abs=1e-10)
            span = slice(state.offsets[index], state.offsets[index + 1])
            torch.testing.assert_close(got[span], fresh.forces, rtol=0, atol=1e-10)
    assert 3 < forces.n_rebuilds < 36


def test_single_precision_model_gets_double_positions():
    """Far from the origin single-precision positions would lose four digits of every bond."""
    model = potential(dtype=torch.float32)
    near, far = state_from_atoms(molecule("CH3CH2OH")), state_from_atoms(molecule("CH3CH2OH"))
    far.positions = far.positions + 5000.0
    one, two = PotentialForces(model)(near), PotentialForces(model)(far)
    assert one.forces.dtype == torch.float64
    torch.testing.assert_close(one.forces, two.forces, rtol=0, atol=1e-6)


@pytest.mark.parametrize("used", [0, 5, 16, 21])
def test_numbers_drawn_ahead_do_not_show(used):
    """A replica gets the same numbers alone, in a batch, after others have left, and after a checkpoint."""
    batch = state_from_atoms([molecule("H2O"), molecule("CH4"), molecule("CO")], seed=[4, 5, 6])
    alone = state_from_atoms(molecule("CH4"), seed=5)
    whole = [alone.normal().clone() for _ in range(40)]
    got = [batch.normal()[3:8].clone() for _ in range(used)]
    batch = MDState.from_tensors(batch.to_tensors())
    got += [batch.normal()[3:8].clone() for _ in range(3)]
    batch = batch.select([2, 1])
    got += [batch.normal()[2:7].clone() for _ in range(40 - len(got))]
    assert all(torch.equal(a, b) for a, b in zip(got, whole, strict=True))
    assert not torch.equal(whole[0], whole[16])


def test_squares_are_those_of_as_many_numbers_as_degrees_of_freedom():
    state = ethanol_state(replicas=200)
    first, squares = state.squares()
    assert first.std().item() == pytest.approx(1.0, abs=0.2)
    assert squares.mean().item() == pytest.approx(27.0, abs=4 * np.sqrt(54 / 200))
    assert (squares > first**2).all()


def test_calculator_knows_nothing_after_an_error():
    atoms = molecule("CH3CH2OH")
    atoms.calc = calculator = MlipCalculator(potential())
    before = atoms.get_potential_energy()
    atoms.numbers[8] = 9
    with pytest.raises(ModelError, match="element unknown"):
        atoms.get_forces()
    atoms.numbers[8] = 1
    assert calculator.check_state(atoms)
    assert atoms.get_potential_energy() == before


@pytest.mark.parametrize("sizes", [(9, 9, 9), (9, 3, 5)])
def test_sums_of_a_replica_do_not_depend_on_its_neighbours(sizes):
    names = {9: "CH3CH2OH", 3: "H2O", 5: "CH4"}
    state = state_from_atoms([molecule(names[size]) for size in sizes])
    maxwell_boltzmann(state, 300.0, seed=4)
    state.forces = torch.randn(state.positions.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for replica in range(len(sizes)):
        alone = state.select([replica])
        torch.testing.assert_close(alone.kinetic_energy()[0], state.kinetic_energy()[replica], rtol=1e-14, atol=0)
        assert alone.max_force()[0] == state.max_force()[replica]
        norms = np.linalg.norm(state.forces[state.system == replica].numpy(), axis=1)
        assert float(state.mean_force()[replica]) == pytest.approx(norms.mean(), rel=1e-14)
        assert alone.per_system(alone.forces)[0] == pytest.approx(float(state.forces[state.system == replica].sum()))
    kinetic = units.kinetic_energy(state.masses, state.velocities)[state.system == 0].sum()
    torch.testing.assert_close(state.kinetic_energy()[0], kinetic, rtol=1e-14, atol=0)


def test_what_is_derived_follows_its_sources():
    state = state_from_atoms(molecule("H2O"))
    masses = lambda: state.derived("total", (state.masses,), lambda: state.masses.sum().item())  # noqa: E731
    first = masses()
    state.masses *= 2
    assert masses() == 2 * first
    state.masses = state.masses * 2
    assert masses() == 4 * first
    assert state.derived("total", (state.masses,), pytest.fail) == 4 * first
