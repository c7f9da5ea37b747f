"""`Potential`: the one face of every model to training, MD, prediction and strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from mlipkit.errors import ModelError
from mlipkit.models.encoder import N_TYPES, Encoder, Features
from mlipkit.models.heads import build_energy_head
from mlipkit.models.registry import encoder_name
from mlipkit.ops import gather, segment_sum

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


class Potential(nn.Module):
    """Encoder + energy head + atomic energies + scale + named auxiliary heads.

    `E = Σ_i (scale · head(x_i) + E0(z_i))`, `F = -∂E/∂R`, `σ = (1/V) ∂E/∂ε` with `R' = R (I+ε)`, `A' = A (I+ε)`.

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

    Args:
        encoder: gives features per atom.
        atomic_energies: atomic number -> energy of the free atom, eV; covers `elements`.
        elements: atomic numbers in the domain (default: the keys of `atomic_energies`). Others raise `ModelError`.
        scale: eV per unit of the head's output.
        head: name in `mlipkit.models.heads.ENERGY_HEADS`.

    Attributes:
        auxiliary: `nn.ModuleDict` of further heads (`mlipkit.models.heads.AuxiliaryHead`), saved with the potential.
    """

    atomic_energies: Tensor
    scale: Tensor
    known: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        atomic_energies: Mapping[int, float],
        scale: float = 1.0,
        head: str = "per_atom",
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        chosen = sorted({int(z) for z in (atomic_energies if elements is None else elements)})
        if not chosen or chosen[0] < 1 or chosen[-1] >= N_TYPES:
            raise ModelError("no usable element", where="elements", expected="atomic numbers 1..118", found=chosen)
        missing = [chemical_symbols[z] for z in chosen if z not in atomic_energies]
        if missing:
            raise ModelError(
                "elements without an atomic energy",
                where="atomic_energies",
                found=", ".join(missing),
                hint="mlipkit.data.fit_atomic_energies(frames) gives them",
            )
        self.encoder = encoder
        self.head_name = head
        self.head = build_energy_head(head, encoder.width)
        self.auxiliary = nn.ModuleDict()
        # NaN outside the domain: on a GPU, where looking at the types would stall it, a stray element still shows.
        energies = torch.full((N_TYPES,), float("nan"), dtype=torch.float64)
        energies[chosen] = torch.tensor([float(atomic_energies[z]) for z in chosen], dtype=torch.float64)
        known = torch.zeros(N_TYPES, dtype=torch.bool)
        known[chosen] = True
        self.register_buffer("atomic_energies", energies)
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float64))
        self.register_buffer("known", known)

    def _apply(self, fn, recurse: bool = True):
        # `.float()` and the like must not round what is kept in float64.
        kept = {name: getattr(self, name) for name in ("atomic_energies", "scale")}
        super()._apply(fn, recurse)
        for name, value in kept.items():
            setattr(self, name, value.to(getattr(self, name).device))
        return self

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.encoder.cutoff

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers in the domain, ascending."""
        return tuple(int(z) for z in self.known.nonzero().flatten().tolist())

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(self.encoder.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return self.known.device

    def encoder_parameters(self) -> dict[str, nn.Parameter]:
        """Named parameters of the encoder, always in the same order."""
        return dict(self.encoder.named_parameters())

    def check_elements(self, numbers: Tensor | Sequence[int]) -> None:
        """Raise `ModelError` naming the elements outside the domain.

        Waits for the device: on a GPU call it once, not at every step.
        """
        numbers = torch.as_tensor(numbers, device=self.device)
        if not bool(self.known[numbers].all()):
            strange = sorted({int(z) for z in numbers.tolist()} - set(self.elements))
            raise ModelError(
                "element unknown to this potential: " + ", ".join(chemical_symbols[z] for z in strange),
                expected="only " + ", ".join(chemical_symbols[z] for z in self.elements),
            )

    def encode(self, graph: Graph, numbers: Tensor | None = None, positions: Tensor | None = None) -> Features:
        """Features of a batch, with other types or positions than the graph's where given.

        Type 0 hides a type. Other edges come with `dataclasses.replace(graph, edge_index=..., shift=...)`. Nothing is
        detached: gradients flow to `positions` and to the parameters under the caller's grad mode.
        """
        vectors = graph.edge_vectors(positions)
        return self._encode(graph, vectors, numbers)

    def _encode(self, graph: Graph, vectors: Tensor, numbers: Tensor | None = None) -> Features:
        return self.encoder(graph.numbers if numbers is None else numbers, graph.edge_index, vectors.to(self.dtype))

    def atom_energies(self, features: Features, graph: Graph) -> Tensor:
        """Energy of each atom, float64 [N] in eV, from features of the same graph."""
        net = self.head(features.scalar, graph.system, graph.n_atoms).double()
        return torch.addcmul(gather(self.atomic_energies, graph.numbers), net, self.scale)

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
        with torch.set_grad_enabled(create_graph or derivatives):
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
            encoded = self._encode(graph, graph.edge_vectors(placed, cell))
            energies = self.atom_energies(encoded, graph)
            energy = segment_sum(energies, graph.system, graph.n_atoms.shape[0])
            slopes = torch.autograd.grad(energy.sum(), inputs, create_graph=create_graph) if derivatives else None
            result = Prediction(
                energy=energy,
                forces=-slopes[0] if slopes and forces else None,
                stress=_per_volume(slopes[-1], graph) if slopes and stress else None,
                features=encoded.scalar if features else None,
                energies=energies,
            )
        return result if create_graph else _detached(result)

    def describe(self) -> dict[str, Any]:
        """Size, domain and make-up, JSON-ready."""
        parameters = list(self.parameters())
        return {
            "encoder": encoder_name(self.encoder),
            "options": self.encoder.options(),
            "head": self.head_name,
            "auxiliary": sorted(self.auxiliary),
            "parameters": sum(p.numel() for p in parameters),
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
            "cutoff": self.cutoff,
            "elements": [chemical_symbols[z] for z in self.elements],
            "atomic_energies": {chemical_symbols[z]: float(self.atomic_energies[z]) for z in self.elements},
            "scale": float(self.scale),
            "dtype": str(self.dtype).removeprefix("torch."),
        }


def _per_volume(slope: Tensor, graph: Graph) -> Tensor:
    """`∂E/∂ε / V`, NaN for structures that are not periodic along all three axes."""
    a, b, c = graph.cell.unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum(-1).abs()
    periodic = graph.pbc.all(-1)
    # A zero cell must not reach the division: its infinity would come back as NaN in the gradient of the other
    # structures.
    stress = slope / torch.where(periodic, volume, 1.0).view(-1, 1, 1)
    return torch.where(periodic.view(-1, 1, 1), stress, float("nan"))


def _detached(prediction: Prediction) -> Prediction:
    def free(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.detach()

    return replace(
        prediction,
        energy=prediction.energy.detach(),
        forces=free(prediction.forces),
        stress=free(prediction.stress),
        features=free(prediction.features),
        energies=prediction.energies.detach(),
    )
