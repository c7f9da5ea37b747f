"""The label resolver: order, shapes, signs, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.units import fs

from mlipkit.data.resolve import Coverage, raw_frame, resolve, resolve_frame
from mlipkit.errors import LabelError, SpecError


def water(**results) -> Atoms:
    atoms = Atoms("OH2", positions=[[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]], cell=[4, 5, 6], pbc=True)
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def test_ref_key_wins_over_calculator_then_calculator_over_info():
    atoms = water(energy=-1.0)
    assert resolve(atoms).values["energy"] == -1.0
    atoms.info["energy"] = -2.0
    assert resolve(atoms).origins["energy"] == "calc.results['energy']"
    atoms.info["REF_energy"] = -3.0
    found = resolve(atoms)
    assert (found.values["energy"], found.origins["energy"]) == (-3.0, "info['REF_energy']")


def test_named_key_overrides_the_order_and_none_ignores():
    atoms = water(energy=-1.0, forces=np.ones((3, 3)))
    atoms.info["pbe0"] = -7.5
    found = resolve(atoms, {"energy": "pbe0", "forces": None})
    assert found.values == {"energy": -7.5}


def test_force_consistent_energy_is_the_default_and_the_other_is_kept():
    atoms = water(energy=-1.0, free_energy=-1.25)
    found = resolve(atoms)
    assert (found.values["energy"], found.other_energy) == (-1.25, -1.0)
    assert resolve(atoms, {"energy": "energy"}).values["energy"] == -1.0


def test_constraints_never_zero_the_forces():
    forces = np.arange(9.0).reshape(3, 3) + 1
    atoms = water(forces=forces)
    atoms.set_constraint(FixAtoms([0, 1]))
    assert np.all(atoms.get_forces()[:2] == 0)
    np.testing.assert_array_equal(resolve(atoms).values["forces"], forces)


@pytest.mark.parametrize("shape", ["voigt", "nine", "full"])
def test_stress_shapes_agree(shape):
    full = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    value = {"voigt": np.array([1.0, 2, 3, 4, 5, 6]), "nine": full.ravel(), "full": full}[shape]
    atoms = water()
    atoms.info["stress"] = value
    np.testing.assert_array_equal(resolve(atoms).values["stress"], full)


def test_virial_sign_against_finite_differences_of_a_pair_potential():
    """stress = dE/d(strain)/V, virial = -dE/d(strain)."""
    from ase.calculators.lj import LennardJones

    atoms = Atoms("Ar4", positions=np.random.default_rng(0).random((4, 3)) * 4 + 0.3, cell=[9, 9, 9], pbc=True)
    atoms.calc = LennardJones(sigma=2.0, epsilon=0.1, rc=4.0)

    def energy(strain):
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        moved.calc = LennardJones(sigma=2.0, epsilon=0.1, rc=4.0)
        return moved.get_potential_energy()

    gradient = np.zeros((3, 3))
    for a in range(3):
        for b in range(3):
            strain = np.zeros((3, 3))
            strain[a, b] = strain[b, a] = 1e-5 if a == b else 5e-6
            gradient[a, b] = (energy(strain) - energy(-strain)) / 2e-5
    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    bare.info["virial"] = -gradient
    np.testing.assert_allclose(resolve(bare).values["stress"], atoms.get_stress(voigt=False), atol=1e-7, rtol=1e-5)


def test_momenta_are_converted_and_velocities_are_taken_as_they_are():
    atoms = water()
    velocities = np.linspace(-0.01, 0.01, 9).reshape(3, 3)
    atoms.set_velocities(velocities / fs)
    np.testing.assert_allclose(resolve(atoms).values["velocities"], velocities, rtol=1e-7)
    atoms.set_array("velocities", 2 * velocities)
    np.testing.assert_array_equal(resolve(atoms).values["velocities"], 2 * velocities)


def test_masses_of_the_file_count_for_momenta():
    atoms = water()
    atoms.set_masses([16, 2.014, 2.014])
    atoms.set_velocities(np.full((3, 3), 0.01) / fs)
    np.testing.assert_allclose(resolve(atoms).values["velocities"], 0.01, rtol=1e-7)


def test_unknown_key_lists_those_that_exist_with_the_nearest():
    atoms = water(energy=-1.0)
    atoms.arrays["dft_force"] = np.zeros((3, 3))
    with pytest.raises(LabelError, match=r"water\.xyz.*dft_forcs.*[Dd]id you mean 'dft_force'.*energy") as caught:
        resolve(atoms, {"forces": "dft_forcs"}, where="water.xyz")
    assert "\n" not in str(caught.value)


def test_unknown_label_name():
    with pytest.raises(SpecError, match="did you mean 'forces'"):
        resolve(water(), {"force": "F"})


def test_nan_is_an_error_unless_missing_is_allowed():
    frame = raw_frame(water(energy=float("nan")))
    with pytest.raises(LabelError, match=r"energy is not finite.*NaN"):
        resolve_frame(frame)
    assert "energy" not in resolve_frame(frame, nan_is_missing=True).values


def test_partly_nan_forces_are_always_an_error():
    forces = np.zeros((3, 3))
    forces[1, 2] = np.nan
    with pytest.raises(LabelError, match="forces is not finite"):
        resolve_frame(raw_frame(water(forces=forces)), nan_is_missing=True)


def test_facts_of_the_frame():
    atoms = water()
    atoms.info.update(time_fs=2.5, config_type="liquid", source="here", trajectory=3)
    found = resolve(atoms)
    assert (found.time, found.tag, found.source, found.trajectory) == (2.5, "liquid", "here", 3)


def _coverage(frames, keys=None):
    coverage = Coverage()
    for index, atoms in enumerate(frames):
        frame = raw_frame(atoms)
        coverage.add(
            resolve_frame(frame, keys),
            n_atoms=len(atoms),
            periodic=bool(atoms.pbc.all()),
            where=f"frame {index}",
            names=frame.names(),
        )
    return coverage


def test_partial_coverage_needs_consent_and_shows_the_table():
    coverage = _coverage([water(energy=1.0, forces=np.zeros((3, 3))), water(energy=1.0)])
    with pytest.raises(LabelError, match=r"forces is on 1 of 2 frames.*frame 1.*energy 2/2.*allow_partial"):
        coverage.check(None, allow_partial=False, where="a.xyz")
    coverage.check(None, allow_partial=True, where="a.xyz")


def test_single_atoms_need_no_forces():
    coverage = _coverage([water(energy=1.0, forces=np.zeros((3, 3)), stress=np.zeros(6)), Atoms("H")])
    coverage.expected["energy"] = 1  # the bare atom has no energy here; only forces and stress are under test
    coverage.check(None, allow_partial=False, where="a.xyz")


def test_named_key_on_no_frame_even_with_consent():
    coverage = _coverage([water(energy=1.0)], {"forces": "F_dft"})
    with pytest.raises(LabelError, match="on none of 1 frames"):
        coverage.check({"forces": "F_dft"}, allow_partial=True, where="a.xyz")
