"""A constant energy per element: what a potential trained at one level of theory lacks of another's energy zero."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlipkit.errors import ModelError
from mlipkit.models.composite import SumPotential
from mlipkit.models.contract import BasePotential
from mlipkit.models.encoder import N_TYPES
from mlipkit.models.potential import Potential
from mlipkit.models.registry import check_complete, register_potential
from mlipkit.ops import gather

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph


@register_potential
class AtomicShifts(BasePotential):
    """`E = Σ_i s(z_i)`: no forces, no weights; added to a potential with `SumPotential`.

    Args:
        shifts: atomic number -> eV.
    """

    kind = "atomic_shifts"
    atomic_energies: Tensor

    def __init__(self, shifts: Mapping[int, float]) -> None:
        super().__init__(list(shifts))
        table = torch.full((N_TYPES,), float("nan"), dtype=torch.float64)
        for z, energy in shifts.items():
            table[int(z)] = float(energy)
        self.register_buffer("atomic_energies", table)

    def _apply(self, fn, recurse: bool = True):
        kept = self.atomic_energies
        super()._apply(fn, recurse)
        self.atomic_energies = kept.to(self.atomic_energies.device)
        return self

    @property
    def cutoff(self) -> float:
        """Å; atoms need not see each other."""
        return 0.0

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64

    @property
    def shifts(self) -> dict[int, float]:
        """Atomic number -> eV."""
        return {z: float(self.atomic_energies[z]) for z in self.elements}

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        # Hangs on the positions, so that it can also be differentiated alone.
        return gather(self.atomic_energies, graph.numbers) + 0.0 * positions.sum(1).double(), None

    def describe(self) -> dict[str, Any]:
        """Kind and shifts by symbol in eV, JSON-ready."""
        return {
            "kind": self.kind,
            "shifts": {chemical_symbols[z]: energy for z, energy in self.shifts.items()},
            "parameters": 0,
            "trainable": 0,
            "cutoff": self.cutoff,
            "elements": [chemical_symbols[z] for z in self.elements],
            "dtype": "float64",
        }

    def specification(self) -> dict[str, Any]:
        return {"elements": list(self.elements)}

    @classmethod
    def from_specification(cls, spec: Mapping[str, Any], *, where: str) -> AtomicShifts:
        check_complete(spec, {"elements"}, where)
        return cls(dict.fromkeys(spec["elements"], 0.0))


def with_shifts(potential: BasePotential, shifts: Mapping[int, float]) -> BasePotential:
    """A copy of a potential whose energy of each atom is moved by a constant of its element.

    Own potentials take the shift into their atomic energies, others become a sum with `AtomicShifts`; a sum that has
    shifts already gets others instead of a second part.

    Args:
        potential: left as it is.
        shifts: atomic number -> eV; elements that are not named keep their energy.

    Raises:
        ModelError: a shift of an element that the potential does not know, or one that is not finite.
    """
    if strange := sorted(set(shifts) - set(potential.elements)):
        raise ModelError(
            "shift of an element unknown to this potential: " + ", ".join(chemical_symbols[z] for z in strange)
        )
    for z, energy in shifts.items():
        if not abs(energy) < float("inf"):
            raise ModelError("not a finite shift", where=chemical_symbols[z], found=energy)
    moved = copy.deepcopy(potential)
    if isinstance(moved, Potential):
        for z, energy in shifts.items():
            moved.atomic_energies[z] += float(energy)
        return moved
    parts = list(moved.parts) if isinstance(moved, SumPotential) else [moved]
    before = next((part for part in parts if isinstance(part, AtomicShifts)), None)
    whole = dict.fromkeys(potential.elements, 0.0) if before is None else before.shifts
    whole |= {z: whole[z] + float(energy) for z, energy in shifts.items()}
    device = potential.device
    kept = [part for part in parts if part is not before]
    return SumPotential([*kept, AtomicShifts(whole).to(device)])
