"""An ASE calculator over any potential."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import torch
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
        self._seen: dict[str, bytes] = {}

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What has changed since the last call, bit for bit. ASE's own compares charges and moments too, with
        tolerances: a tenth of a step of a small molecule."""
        return list(all_changes) if self.atoms is None or not self._seen else self._changes(_content(atoms))

    def _changes(self, content: dict[str, bytes]) -> list[str]:
        return [name for name, now in content.items() if now != self._seen.get(name)]

    def calculate(self, atoms: Atoms | None = None, properties=None, system_changes=all_changes) -> None:
        if atoms is not None:  # what ASE's own does, less its look for a folder
            self.atoms = atoms.copy()
        assert self.atoms is not None
        if "stress" in (properties or ()):
            if not self.atoms.pbc.all():
                raise PropertyNotImplementedError("stress needs a structure that is periodic along all three axes")
            # Whoever asks once asks again at the next step: from now on both come from one call.
            self._forces.stress = True
        content = _content(self.atoms)
        changes, self._seen = self._changes(content), {}  # an error on the way leaves nothing that is known
        if self._state is None or "numbers" in changes or "pbc" in changes:
            bare = Atoms(self.atoms.numbers, self.atoms.positions, cell=self.atoms.cell, pbc=self.atoms.pbc)
            self._state = state_from_atoms(bare)
            if not self.atoms.pbc.all():
                self._forces.stress = False
        self._state.positions = torch.from_numpy(self.atoms.positions)
        if "cell" in changes:
            self._state.cell = torch.tensor(self.atoms.cell.array)[None]
        energies, forces, stress = self._forces(self._state)
        energy = energies.item()
        self._seen = content
        self.results = {"energy": energy, "free_energy": energy, "forces": forces.numpy()}
        if stress is not None:
            self.results["stress"] = voigt(stress[0].numpy())


def _content(atoms: Atoms) -> dict[str, bytes]:
    """What decides energy and forces; bytes are compared in a fraction of the time that arrays are."""
    return {
        "positions": atoms.positions.tobytes(), "numbers": atoms.numbers.tobytes(),
        "cell": atoms.cell.array.tobytes(), "pbc": atoms.pbc.tobytes(),
    }  # fmt: skip
