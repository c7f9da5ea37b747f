"""Any ASE calculator with the face of a potential."""

from __future__ import annotations

import numpy as np
import pytest
import suites
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.constraints import FixAtoms

from mlipkit.data import FrameSet, graph_of
from mlipkit.errors import ModelError
from mlipkit.md import MlipCalculator, PotentialForces, state_from_atoms
from mlipkit.models import CalculatorPotential, predict, save


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=2)
    return atoms


def test_gives_what_the_calculator_gives():
    slab = copper()
    slab.pbc = (True, True, False)
    frames = FrameSet.from_atoms([copper(), suites.ethanol(), slab])
    found = predict(CalculatorPotential(EMT()), frames, stress=True)
    for i, atoms in enumerate(frames):
        atoms.calc = EMT()
        assert found.energy[i] == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-12)
        np.testing.assert_allclose(found[i].get_forces(), atoms.get_forces(), atol=1e-12)
        if atoms.pbc.all():
            np.testing.assert_allclose(found[i].get_stress(), atoms.get_stress(), atol=1e-14)
        else:
            assert np.isnan(found.stress[i]).all()


def test_constraints_do_not_hide_forces():
    atoms = copper()
    atoms.set_constraint(FixAtoms([0]))
    graph = graph_of(atoms, 0.1, torch.float64)
    assert float(CalculatorPotential(EMT())(graph).forces[0].abs().max()) > 1e-2


def test_moves_in_md_and_as_a_calculator():
    potential = CalculatorPotential(LennardJones(rc=5.0))
    atoms = Atoms("Ar4", positions=[[0, 0, 0], [0, 0, 1.2], [0, 1.1, 0.4], [1.0, 0.3, 0.2]])
    forces = PotentialForces(potential)(state_from_atoms(atoms)).forces.numpy()
    atoms.calc = MlipCalculator(potential)
    np.testing.assert_allclose(atoms.get_forces(), forces)
    atoms.calc = LennardJones(rc=5.0)
    np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-12)


def test_what_it_cannot_do_is_said(tmp_path):
    potential = CalculatorPotential(MorsePotential(), elements=(1, 6, 8))
    graph = graph_of(suites.ethanol(), potential.cutoff, torch.float64)
    for options, message in (
        ({"create_graph": True}, "cannot be differentiated or trained"), ({"features": True}, "has no features"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=f"MorsePotential: a calculator {message}"):
            potential(graph, **options)
    with pytest.raises(ModelError, match="energies per atom"):
        potential.evaluate(graph, graph.positions, graph.cell)
    with pytest.raises(ModelError, match="cannot be saved"):
        save(potential, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="unknown to this potential: Cu"):
        potential(graph_of(copper(), 0.1))
    for given in (3, EMT):
        with pytest.raises(ModelError, match=r"no ASE calculator; expected an object .* found (3|<class .*EMT'>)"):
            CalculatorPotential(given)  # type: ignore[arg-type]
    assert bool(potential(graph).energies.isnan().all())
    assert potential.describe()["calculator"] == "ase.calculators.morse.MorsePotential"


def test_a_property_the_calculator_lacks():
    class EnergiesOnly(LennardJones):
        implemented_properties = ("energy",)

        def calculate(self, *arguments, **options):
            super().calculate(*arguments, **options)
            self.results = {"energy": self.results["energy"]}

    with pytest.raises(ModelError, match="EnergiesOnly: the calculator does not give this property"):
        CalculatorPotential(EnergiesOnly())(graph_of(suites.ethanol(), 0.1))


def test_an_element_the_calculator_does_not_know():
    with pytest.raises(ModelError, match=r"EMT: the calculator cannot do this structure \(No EMT-potential for Zr\)"):
        CalculatorPotential(EMT())(graph_of(Atoms("Zr"), 0.1))


def test_says_elements_as_symbols_and_that_the_licence_is_unknown():
    facts = CalculatorPotential(EMT(), [29, 79]).describe()
    assert facts["elements"] == ["Cu", "Au"]
    assert "unknown" in facts["licence"]
