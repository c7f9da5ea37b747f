"""`Potential`: an encoder with its energy head, atomic energies and auxiliary heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from mlipkit.errors import ModelError
from mlipkit.models.contract import BasePotential
from mlipkit.models.encoder import N_TYPES, Encoder, Features
from mlipkit.models.heads import AuxiliaryHead, build_auxiliary, build_energy_head
from mlipkit.models.registry import build_encoder, check_complete, dtype_of, encoder_name, register_potential
from mlipkit.ops import gather, pairs_pay

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph


@register_potential
class Potential(BasePotential):
    """Encoder + energy head + atomic energies + scale + named auxiliary heads.

    `E = Σ_i (scale · head(x_i) + E0(z_i))`; shapes, units and derivatives as in `BasePotential`.

    Args:
        encoder: gives features per atom.
        atomic_energies: atomic number -> energy of the free atom, eV; covers `elements`.
        elements: atomic numbers in the domain (default: the keys of `atomic_energies`). Others raise `ModelError`.
        scale: eV per unit of the head's output.
        head: name in `mlipkit.models.heads.ENERGY_HEADS`.

    Attributes:
        auxiliary: `nn.ModuleDict` of further heads (`mlipkit.models.heads.AuxiliaryHead`), saved with the potential.
    """

    kind = "potential"
    atomic_energies: Tensor
    scale: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        atomic_energies: Mapping[int, float],
        scale: float = 1.0,
        head: str = "per_atom",
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__(list(atomic_energies) if elements is None else elements)
        chosen = list(self.elements)
        missing = [chemical_symbols[z] for z in chosen if z not in atomic_energies]
        if missing:
            raise ModelError(
                "elements without an atomic energy",
                where="atomic_energies",
                found=", ".join(missing),
                hint="mlipkit.data.fit_atomic_energies(frames) gives them",
            )
        if encoder.elements is not None and (strange := set(chosen) - set(encoder.elements)):
            raise ModelError(
                "elements that the encoder cannot tell apart", where="elements",
                found=", ".join(chemical_symbols[z] for z in sorted(strange)),
                hint="Build the encoder with elements=[...] that hold them",
            )  # fmt: skip
        self.encoder = encoder
        self.head_name = head
        self.head = build_energy_head(head, encoder)
        self.auxiliary = nn.ModuleDict()
        # NaN outside the domain: on a GPU, where looking at the types would stall it, a stray element still shows.
        energies = torch.full((N_TYPES,), float("nan"), dtype=torch.float64)
        energies[chosen] = torch.tensor([float(atomic_energies[z]) for z in chosen], dtype=torch.float64)
        self.register_buffer("atomic_energies", energies)
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float64))

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
    def dtype(self) -> torch.dtype:
        """Of the encoder's parameters."""
        return next(self.encoder.parameters()).dtype

    def encoder_parameters(self) -> dict[str, nn.Parameter]:
        """Named parameters of the encoder, always in the same order."""
        return dict(self.encoder.named_parameters())

    def encode(self, graph: Graph, numbers: Tensor | None = None, positions: Tensor | None = None) -> Features:
        """Features of a batch, with other types or positions than the graph's where given.

        Type 0 hides a type. Other edges come with `dataclasses.replace(graph, edge_index=..., shift=...)`. Nothing is
        detached: gradients flow to `positions` and to the parameters under the caller's grad mode.
        """
        return self._encode(graph, positions, None, numbers)

    def _encode(self, graph: Graph, positions: Tensor | None, cell: Tensor | None, numbers: Tensor | None) -> Features:
        encoder, dtype = self.encoder, self.dtype
        numbers = graph.numbers if numbers is None else numbers
        if encoder.takes_pairs and pairs_pay(dtype) and graph.pairs is not None:
            vectors = graph.edge_vectors(positions, cell, pairs=True).to(dtype)
            return encoder(numbers, graph.pair_index, vectors, mirrored=True)
        return encoder(numbers, graph.edge_index, graph.edge_vectors(positions, cell).to(dtype))

    def atom_energies(self, features: Features, graph: Graph) -> Tensor:
        """Energy of each atom, float64 [N] in eV, from features of the same graph."""
        net = self.head(features, graph.system, graph.n_atoms).double()
        return torch.addcmul(gather(self.atomic_energies, graph.numbers), net, self.scale)

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self._encode(graph, positions, cell, None)
        return self.atom_energies(features, graph), features.scalar

    def describe(self) -> dict[str, Any]:
        """Size, domain and make-up, JSON-ready."""
        parameters = list(self.parameters())
        return {
            "kind": self.kind,
            "encoder": encoder_name(self.encoder),
            "options": dict(self.encoder.options()),
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

    def specification(self) -> dict[str, Any]:
        auxiliary: dict[str, Any] = {}
        for name, head in self.auxiliary.items():
            if not isinstance(head, AuxiliaryHead):
                raise ModelError("no AuxiliaryHead", where=f"potential.auxiliary['{name}']", found=type(head).__name__)
            auxiliary[name] = {"kind": head.kind, "options": head.options()}
        return {
            "encoder": {"name": encoder_name(self.encoder), "options": dict(self.encoder.options())},
            "head": self.head_name,
            "auxiliary": auxiliary,
            "elements": list(self.elements),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_specification(cls, spec: Mapping[str, Any], *, where: str) -> Potential:
        check_complete(spec, {"encoder", "head", "auxiliary", "elements", "dtype"}, where)
        dtype = dtype_of(spec, where)
        potential = cls(
            build_encoder(spec["encoder"]["name"], **spec["encoder"]["options"]),
            atomic_energies=dict.fromkeys(spec["elements"], 0.0),
            head=spec["head"],
        )
        for name, head in spec["auxiliary"].items():
            potential.auxiliary[name] = build_auxiliary(head["kind"], head["options"])
        return potential.to(dtype)
