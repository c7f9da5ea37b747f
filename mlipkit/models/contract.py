"""The contract of every model: a batch of structures in, energies, forces, stress and features out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from mlipkit.errors import ModelError
from mlipkit.models.encoder import N_TYPES
from mlipkit.ops import gather, positions_only, segment_sum

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph


@dataclass(frozen=True)
class Prediction:
    """What a potential says about a batch of S structures with N atoms together.

    Attributes:
        energy: float64 [S], eV.
        forces: [N,3], eV/Å, in the dtype of the graph's positions; None when not asked for.
        stress: [S,3,3], eV/Å³, tension positive; NaN where not all three axes are periodic; None when not asked for.
        features: [N,D] scalar features; None when not asked for.
        energies: float64 [N], energy of each atom, eV (with its atomic energy).
    """

    energy: Tensor
    forces: Tensor | None
    stress: Tensor | None
    features: Tensor | None
    energies: Tensor


class BasePotential(nn.Module):
    """The face that training, MD, prediction and strategies know; own models, sums, committees and adapters have it.

    `F = -∂E/∂R`, `σ = (1/V) ∂E/∂ε` with `R' = R (I+ε)`, `A' = A (I+ε)`.

    | quantity | shape | unit | dtype |
    |---|---|---|---|
    | graph.numbers, graph.system | [N] | | int64 |
    | graph.positions | [N,3] | Å | any; edge vectors are made in it, then cast to the parameters' |
    | graph.edge_index, graph.shift | [2,E], [E,3] | | int64 |
    | graph.cell, graph.pbc | [S,3,3] rows, [S,3] | Å | as positions, bool |
    | energy, energies | [S], [N] | eV | float64, whatever the parameters' dtype |
    | forces | [N,3] | eV/Å | as positions |
    | stress | [S,3,3] | eV/Å³ | as positions; NaN unless periodic along all three axes |
    | features | [N,D] | | as parameters |

    A subclass gives `cutoff`, `evaluate` and `describe`; to be saved also `kind`, `specification` and
    `from_specification`, and it registers (`mlipkit.models.register_potential`). The graph may hold edges at or beyond
    the cutoff (skin lists, sums of potentials with several cutoffs): they must change nothing.

    Args:
        elements: atomic numbers in the domain. Others raise `ModelError`.
    """

    kind: ClassVar[str] = ""
    """Name in files; empty: cannot be saved."""
    known: Tensor

    def __init__(self, elements: Sequence[int]) -> None:
        super().__init__()
        chosen = sorted({int(z) for z in elements})
        if not chosen or chosen[0] < 1 or chosen[-1] >= N_TYPES:
            raise ModelError("no usable element", where="elements", expected="atomic numbers 1..118", found=chosen)
        known = torch.zeros(N_TYPES, dtype=torch.bool)
        known[chosen] = True
        self.register_buffer("known", known)

    # What a subclass gives

    @property
    def cutoff(self) -> float:
        """Å, of the neighbour list that the graph needs."""
        raise NotImplementedError

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        """Energies and features with other positions and cells than the graph's.

        Args:
            graph: types, edges and structures.
            positions: [N,3] Å. cell: [S,3,3] Å. Gradients flow to both; nothing is detached.

        Returns:
            Energy of each atom, float64 [N] in eV, and scalar features [N,D] (None: the model has none).
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Make-up, size, domain; for models of others also level of theory and licence. JSON-ready."""
        raise NotImplementedError

    def specification(self) -> dict[str, Any]:
        """JSON-ready make-up that, with `state_dict`, rebuilds this potential."""
        raise NotImplementedError

    @classmethod
    def from_specification(cls, spec: Mapping[str, Any], *, where: str) -> BasePotential:
        """The inverse of `specification`, with weights yet to be filled in; `where` names the file in errors."""
        raise NotImplementedError

    # What all have

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers in the domain, ascending."""
        return tuple(int(z) for z in self.known.nonzero().flatten().tolist())

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return self.known.device

    def encoder_parameters(self) -> dict[str, nn.Parameter]:
        """Named parameters that make the features, always in the same order."""
        return dict(self.named_parameters())

    def check_elements(self, numbers: Tensor | Sequence[int], where: str = "") -> None:
        """Raise `ModelError` naming the elements outside the domain, and `where` they are.

        Waits for the device: on a GPU call it once, not at every step.
        """
        known = self.known
        numbers = torch.as_tensor(numbers, device=known.device)
        if not known.index_select(0, numbers).all():
            strange = sorted({int(z) for z in numbers.tolist()} - set(self.elements))
            raise ModelError(
                "element unknown to this potential: " + ", ".join(chemical_symbols[z] for z in strange),
                where=where,
                expected="only " + ", ".join(chemical_symbols[z] for z in self.elements),
            )

    def forward(
        self,
        graph: Graph,
        *,
        forces: bool = True,
        stress: bool = False,
        features: bool = False,
        create_graph: bool = False,
    ) -> Prediction:
        """Predict a batch.

        Args:
            graph: S structures on this potential's device.
            forces, stress, features: what to give besides energies.
            create_graph: True for training and whatever else differentiates the prediction: nothing is detached,
                positions that hang on an earlier computation stay on it. False: plain numbers, detached.

        Raises:
            ModelError: an element outside the domain (looked at on the CPU only, see `check_elements`; on other
                devices the energy is NaN).
        """
        if graph.numbers.device.type == "cpu":
            self.check_elements(graph.numbers)
        derivatives = forces or stress
        with torch.set_grad_enabled(create_graph or derivatives), positions_only(not create_graph):
            positions, cell, strain = graph.positions, graph.cell, None
            if derivatives and not positions.requires_grad:
                positions = positions.detach().requires_grad_()
            inputs = [positions] if forces else []
            placed = positions
            if stress:
                strain = torch.zeros_like(cell).requires_grad_()
                inputs.append(strain)
                symmetric = 0.5 * (strain + strain.mT)
                placed = positions + (positions.unsqueeze(1) @ gather(symmetric, graph.system)).squeeze(1)
                cell = cell + cell @ symmetric
            energies, encoded = self.evaluate(graph, placed, cell)
            slopes = None
            if derivatives:
                slopes = torch.autograd.grad(energies.sum(), inputs, create_graph=create_graph)
        if not create_graph:
            energies, encoded = energies.detach(), None if encoded is None else encoded.detach()
        with torch.set_grad_enabled(create_graph):
            return Prediction(
                energy=segment_sum(energies, graph.system, graph.n_atoms.shape[0]),
                forces=-slopes[0] if slopes and forces else None,
                stress=_per_volume(slopes[-1], graph) if slopes and stress else None,
                features=encoded if features else None,
                energies=energies,
            )


def _per_volume(slope: Tensor, graph: Graph) -> Tensor:
    """`∂E/∂ε / V`, NaN for structures that are not periodic along all three axes."""
    a, b, c = graph.cell.unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum(-1).abs()
    periodic = graph.pbc.all(-1)
    # A zero cell must not reach the division: its infinity would come back as NaN in the gradient of the other
    # structures.
    stress = slope / torch.where(periodic, volume, 1.0).view(-1, 1, 1)
    return torch.where(periodic.view(-1, 1, 1), stress, float("nan"))
