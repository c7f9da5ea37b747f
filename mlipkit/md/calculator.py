"""An ASE calculator over any potential."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from mlipkit.errors import ModelError
from mlipkit.md.forces import PotentialForces
from mlipkit.md.state import MDState, state_from_atoms, voigt

if TYPE_CHECKING:
    from mlipkit.models import BasePotential


class MlipCalculator(Calculator):
    """Energy, forces and stress of a potential, with a skin list that follows the atoms.

    Args:
        potential: any `BasePotential`, or what `mlipkit.models.load` takes: a file, ``"sample:NAME"``, a training run.
        skin: Å, of the neighbour list (`mlipkit.data.SkinLists`).

    Results under ASE's names and in its units: `energy` and `free_energy` (equal, eV), `forces` (eV/Å), `stress`
    (Voigt, eV/Å³, tension positive; only for structures that are periodic along all three axes).

    Raises:
        ModelError: no potential, or none that can be loaded.
    """

    implemented_properties: ClassVar = ["energy", "free_energy", "forces", "stress"]
    name = "mlipkit"  # type: ignore[assignment] - a property in ASE's stub, an attribute in practice

    def __init__(self, potential: BasePotential | str | os.PathLike[str], skin: float = 0.5, **options) -> None:
        from mlipkit.models import BasePotential, load

        super().__init__(**options)
        if isinstance(potential, str | os.PathLike):
            potential = load(potential)
        if not isinstance(potential, BasePotential):
            raise ModelError(
                "no potential", where="MlipCalculator", expected="a Potential, a file or sample:NAME",
                found=type(potential).__name__,
            )  # fmt: skip
        self.potential = potential
        self._forces = PotentialForces(potential, skin=skin)
        self._state: MDState | None = None

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What has changed since the last call, exactly. ASE's own compares charges and moments too, with tolerances:
        a tenth of a step of a small molecule."""
        known = self.atoms
        if known is None:
            return list(all_changes)
        pairs = {
            "positions": (known.positions, atoms.positions), "numbers": (known.numbers, atoms.numbers),
            "cell": (known.cell.array, atoms.cell.array), "pbc": (known.pbc, atoms.pbc),
        }  # fmt: skip
        return [name for name, (old, new) in pairs.items() if not np.array_equal(old, new)]

    def calculate(self, atoms: Atoms | None = None, properties=None, system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        if "stress" in (properties or ()):
            if not self.atoms.pbc.all():
                raise PropertyNotImplementedError("stress needs a structure that is periodic along all three axes")
            # Whoever asks once asks again at the next step: from now on both come from one call.
            self._forces.stress = True
        if self._state is None or {"numbers", "pbc"} & set(system_changes):
            bare = Atoms(self.atoms.numbers, self.atoms.positions, cell=self.atoms.cell, pbc=self.atoms.pbc)
            self._state = state_from_atoms(bare)
            if not self.atoms.pbc.all():
                self._forces.stress = False
        self._state.positions = self._state.positions.new_tensor(self.atoms.positions)
        self._state.cell = self._state.cell.new_tensor(self.atoms.cell.array)[None]
        energy, forces, stress = self._forces(self._state)
        self.results = {"energy": energy.item(), "free_energy": energy.item(), "forces": forces.numpy()}
        if stress is not None:
            self.results["stress"] = voigt(stress[0].numpy())
