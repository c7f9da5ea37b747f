"""Any ASE calculator with the face of a potential, for prediction, labels and MD; nothing to differentiate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress
from torch import Tensor

from mlipkit.errors import ModelError
from mlipkit.models.contract import BasePotential, Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlipkit.data.graph import Graph

EVERY_ELEMENT = range(1, 119)


class Answer(NamedTuple):
    """Energy in eV, forces float64 [n,3] in eV/Å, stress [3,3] in eV/Å³ or None."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None


def ask(image: Atoms, stress: bool = False) -> Answer:
    """What the calculator of a structure says of it."""
    # Force-consistent where the calculator knows the difference, else the conserved energy would drift.
    known = getattr(image.calc, "implemented_properties", ())
    energy = image.get_potential_energy(force_consistent="free_energy" in known)
    forces = np.array(image.get_forces(apply_constraint=False), np.float64)
    return Answer(float(energy), forces, voigt_6_to_full_3x3_stress(image.get_stress()) if stress else None)


class CalculatorPotential(BasePotential):
    """Energies, forces and stress of an ASE calculator; structures go through it one after the other.

    It needs no neighbour list (`cutoff` is as good as zero), gives no features and no energies per atom (NaN), and
    nothing of it can be differentiated or trained.

    Args:
        calculator: any ASE calculator.
        elements: atomic numbers in its domain; all when None, as calculators do not tell.
    """

    def __init__(self, calculator: BaseCalculator, elements: Sequence[int] | None = None) -> None:
        super().__init__(list(EVERY_ELEMENT) if elements is None else elements)
        if isinstance(calculator, type) or not hasattr(calculator, "get_property"):
            raise ModelError("no ASE calculator", where="CalculatorPotential", found=f"{calculator!r:.80}",
                             expected="an object that ASE calls, such as EMT()")  # fmt: skip
        self.calculator = calculator
        self.name = type(calculator).__name__

    @property
    def cutoff(self) -> float:
        return 1e-3

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        raise ModelError("a calculator gives no energies per atom", where=self.name, hint="Call the potential itself")

    def forward(
        self,
        graph: Graph,
        *,
        forces: bool = True,
        stress: bool = False,
        features: bool = False,
        create_graph: bool = False,
    ) -> Prediction:
        """As `BasePotential.forward`.

        Raises:
            ModelError: features or derivatives of the prediction are asked for, a property that the calculator does
                not have, an element outside the domain.
        """
        if create_graph:
            raise ModelError("a calculator cannot be differentiated or trained", where=self.name)
        if features:
            raise ModelError("a calculator has no features", where=self.name, hint="Take them from another potential")
        self.check_elements(graph.numbers)
        sizes = graph.n_atoms.tolist()
        numbers, positions = graph.numbers.cpu().split(sizes), graph.positions.detach().cpu().double().split(sizes)
        answers = []
        for z, r, cell, pbc in zip(
            numbers, positions, graph.cell.detach().cpu().double(), graph.pbc.cpu(), strict=True
        ):
            image = Atoms(z.numpy(), r.numpy(), cell=cell.numpy(), pbc=pbc.numpy(), calculator=self.calculator)
            try:
                answers.append(ask(image, stress and bool(pbc.all())))
            except PropertyNotImplementedError as error:
                raise ModelError(f"the calculator does not give this property ({error})", where=self.name) from error
            except NotImplementedError as error:
                raise ModelError(f"the calculator cannot do this structure ({error})", where=self.name) from error
        like = graph.positions.detach()
        unknown = np.full((3, 3), np.nan)
        tensors = np.stack([unknown if a.stress is None else a.stress for a in answers]) if stress else None
        return Prediction(
            energy=torch.tensor([a.energy for a in answers], dtype=torch.float64, device=like.device),
            forces=like.new_tensor(np.concatenate([a.forces for a in answers])) if forces else None,
            stress=None if tensors is None else like.new_tensor(tensors),
            features=None,
            energies=torch.full((len(like),), float("nan"), dtype=torch.float64, device=like.device),
        )

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "calculator": f"{type(self.calculator).__module__}.{self.name}",
            "level_of_theory": "that of the calculator",
            "licence": "that of the calculator, unknown here",
            "parameters": 0,
            "trainable": 0,
            "elements": "not told"
            if len(self.elements) == len(EVERY_ELEMENT)
            else [chemical_symbols[z] for z in self.elements],
            "dtype": "float64",
        }
