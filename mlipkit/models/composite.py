"""Potentials made of potentials: a sum (a trained potential and a repulsion), and a committee with its spread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from mlipkit.errors import ModelError
from mlipkit.models.contract import BasePotential, Prediction
from mlipkit.models.registry import check_complete, potential_from, register_potential, specification_of

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph


class _Composite(BasePotential):
    """What sums and committees share: domain, cutoff, names of weights, saving.

    The domain is what all have in common; the graph's cutoff is the largest. Features [N, ΣD] are those of all that
    have some, side by side.
    """

    def __init__(self, potentials: Sequence[BasePotential]) -> None:
        given = list(potentials)
        for position, potential in enumerate(given):
            if not isinstance(potential, BasePotential):
                raise ModelError("no potential", where=(self.kind, position), found=type(potential).__name__)
        common = reduce(set.intersection, (set(potential.elements) for potential in given)) if given else set()
        if given and not common:
            domains = ("{" + ", ".join(chemical_symbols[z] for z in p.elements) + "}" for p in given)
            raise ModelError("no element that all know", where=self.kind, found=" ".join(domains))
        devices = {str(potential.device) for potential in given}
        if len(devices) > 1:
            raise ModelError("potentials on several devices", where=self.kind, found=", ".join(sorted(devices)))
        super().__init__(sorted(common))
        self.potentials = nn.ModuleList(given)

    def __iter__(self):
        return iter(self._all)

    def __len__(self) -> int:
        return len(self.potentials)

    def __getitem__(self, index: int) -> BasePotential:
        return self._all[index]

    @property
    def _all(self) -> list[BasePotential]:
        return [potential for potential in self.potentials if isinstance(potential, BasePotential)]

    @property
    def cutoff(self) -> float:
        """Å, the largest."""
        return max(potential.cutoff for potential in self._all)

    @property
    def dtype(self) -> torch.dtype:
        """Of the first that has weights."""
        return next((p.dtype for p in self._all if any(True for _ in p.parameters())), self._all[0].dtype)

    @property
    def atomic_energies(self) -> Tensor:
        """float64 [119], eV, of all together; NaN outside the domain.

        Raises:
            ModelError: one of them has none.
        """
        found: list[Tensor] = []
        for potential in self._all:
            table = getattr(potential, "atomic_energies", None)
            if not isinstance(table, Tensor):
                raise ModelError("no atomic energies", where=(self.kind, type(potential).__name__))
            found.append(table)
        return torch.where(self.known, self._combined(found), float("nan"))

    def encoder_parameters(self) -> dict[str, nn.Parameter]:
        """Those of all, always in the same order, under `potentials.<number>.<name>`."""
        return {
            f"potentials.{number}.{name}": parameter
            for number, potential in enumerate(self._all)
            for name, parameter in potential.encoder_parameters().items()
        }

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        found = [potential.evaluate(graph, positions, cell) for potential in self._all]
        return self._combined([energies for energies, _ in found]), _side_by_side(features for _, features in found)

    def _combined(self, energies: list[Tensor]) -> Tensor:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """What it is made of, size and common domain, JSON-ready."""
        parameters = list(self.parameters())
        return {
            "kind": self.kind,
            "potentials": [potential.describe() for potential in self._all],
            "parameters": sum(p.numel() for p in parameters),
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
            "cutoff": self.cutoff,
            "elements": [chemical_symbols[z] for z in self.elements],
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def specification(self) -> dict[str, Any]:
        return {"potentials": [specification_of(potential) for potential in self._all]}

    @classmethod
    def from_specification(cls, spec: Mapping[str, Any], *, where: str):
        check_complete(spec, {"potentials"}, where)
        return cls([
            potential_from(inner, where=f"{where}: {cls.kind} {number}")
            for number, inner in enumerate(spec["potentials"])
        ])  # fmt: skip


@register_potential
class SumPotential(_Composite):
    """`E = Σ_p E_p`, for example of a trained potential and `ZBLRepulsion`.

    Args:
        parts: at least one potential; kept, not copied.

    Raises:
        ModelError: no part, or parts without a common element.
    """

    kind = "sum"

    def __init__(self, parts: Iterable[BasePotential]) -> None:
        given = list(parts)
        if not given:
            raise ModelError("no potential", where=self.kind, expected="at least one")
        super().__init__(given)

    @property
    def parts(self) -> list[BasePotential]:
        return self._all

    def _combined(self, energies: list[Tensor]) -> Tensor:
        return torch.stack(energies).sum(0)


@dataclass(frozen=True)
class CommitteePrediction(Prediction):
    """The members' mean, and how far they are apart (standard deviation of M members, ddof = 1).

    Attributes:
        energy_spread: float64 [S], eV.
        forces_spread: [N], eV/Å: `sqrt(Σ_m |F_m - F|² / (M - 1))` of each atom; None when forces were not asked for.
    """

    energy_spread: Tensor
    forces_spread: Tensor | None


@register_potential
class Committee(_Composite):
    """Mean of several potentials, with their spread as a measure of what training has not settled.

    Args:
        members: at least two potentials, usually trained alike from different seeds; kept, not copied.

    Raises:
        ModelError: fewer than two members, or members without a common element.
    """

    kind = "committee"

    def __init__(self, members: Iterable[BasePotential]) -> None:
        given = list(members)
        if len(given) < 2:
            raise ModelError("too few members for a spread", where=self.kind, expected="at least 2", found=len(given))
        super().__init__(given)

    @property
    def members(self) -> list[BasePotential]:
        return self._all

    def _combined(self, energies: list[Tensor]) -> Tensor:
        return torch.stack(energies).mean(0)

    def forward(
        self,
        graph: Graph,
        *,
        forces: bool = True,
        stress: bool = False,
        features: bool = False,
        create_graph: bool = False,
    ) -> CommitteePrediction:
        """Predict a batch with every member; arguments as `BasePotential.forward`."""
        if graph.numbers.device.type == "cpu":
            self.check_elements(graph.numbers)
        found = [
            member(graph, forces=forces, stress=stress, features=features, create_graph=create_graph)
            for member in self._all
        ]
        vectors = [one.forces for one in found if one.forces is not None]
        tensors = [one.stress for one in found if one.stress is not None]
        energy = torch.stack([one.energy for one in found])
        return CommitteePrediction(
            energy=energy.mean(0),
            forces=torch.stack(vectors).mean(0) if vectors else None,
            stress=torch.stack(tensors).mean(0) if tensors else None,
            features=_side_by_side(one.features for one in found),
            energies=torch.stack([one.energies for one in found]).mean(0),
            energy_spread=energy.std(0),
            forces_spread=torch.stack(vectors).var(0).sum(-1).sqrt() if vectors else None,
        )


def _side_by_side(features: Iterable[Tensor | None]) -> Tensor | None:
    there = [value for value in features if value is not None]
    if not there:
        return None
    dtype = reduce(torch.promote_types, (value.dtype for value in there))
    return torch.cat([value.to(dtype) for value in there], dim=-1)
