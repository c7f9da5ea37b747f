"""An encoder with other weights for every structure: molecules of equal size, all adapted at once.

Every pair of atoms is an edge, so that the list is the same for all structures and never searched for; those beyond the
cutoff change nothing. Versions of a structure (clean, displaced, with hidden types) go through its weights together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.func import functional_call

from mlipkit.data.graph import Graph
from mlipkit.models import Potential, Prediction, ViSNet
from mlipkit.models.encoder import Features
from mlipkit.ops import pairs_pay, segment_sum
from mlipkit.strategies.taip.own_weights import OwnWeights

LARGEST = 32
"""Atoms of a molecule up to which this pays: all pairs are made, and the loops over one structure cost little more."""


def stackable(graph: Graph) -> bool:
    """Whether its structures are molecules of one size, small enough."""
    n_atoms = graph.n_atoms
    return (
        len(n_atoms) > 1
        and 1 < int(n_atoms[0]) <= LARGEST
        and bool((n_atoms == n_atoms[0]).all())
        and not bool(graph.pbc.any())
    )


class Stacked:
    """Encoder of a potential with weights [S,...] of its own for each of S structures of n atoms.

    Args:
        potential: gives architecture, and the weights that all begin with.
        weights: others to begin with, [S,...] each.

    Attributes:
        weights: in the order of `potential.encoder_parameters()`; leaves that ask for gradients.
    """

    def __init__(
        self, potential: Potential, n_systems: int, n_atoms: int, weights: Sequence[Tensor] | None = None
    ) -> None:
        self.potential, self.n_systems, self.n_atoms = potential, n_systems, n_atoms
        self.names = list(potential.encoder_parameters())
        if weights is None:
            start = [p.detach() for p in potential.encoder_parameters().values()]
            weights = [p.expand(n_systems, *p.shape).clone() for p in start]
        self.weights: Sequence[Tensor] = [weight.detach().requires_grad_() for weight in weights]

    def encode(self, graph: Graph, numbers: Tensor | None = None, positions: Tensor | None = None) -> Features:
        """As `Potential.encode`, of S structures or of several versions of all of them one after the other."""
        size, n = self.n_systems, self.n_atoms
        versions = graph.n_systems // size
        numbers = graph.numbers if numbers is None else numbers
        positions = graph.positions if positions is None else positions

        def by_structure(values: Tensor) -> Tensor:
            return values.view(versions, size, n, *values.shape[1:]).transpose(0, 1).flatten(0, 2)

        def by_version(values: Tensor) -> Tensor:
            return values.view(size, versions, n, *values.shape[1:]).transpose(0, 1).flatten(0, 2)

        encoder, dtype = self.potential.encoder, self.potential.dtype
        # ViSNet's messages of mirrored pairs come as all first directions, then all second ones, not by structure.
        mirrored = encoder.takes_pairs and pairs_pay(dtype) and not isinstance(encoder, ViSNet)
        ends = _complete(n, size * versions, mirrored, positions.device)
        placed = by_structure(positions) if versions > 1 else positions
        vectors = placed.index_select(0, ends[0]) - placed.index_select(0, ends[1])
        given = (by_structure(numbers) if versions > 1 else numbers, ends, vectors.to(dtype))
        state: dict[str, Tensor] = {
            name: one.as_subclass(OwnWeights) for name, one in zip(self.names, self.weights, strict=True)
        }
        found = functional_call(encoder, state, given, {"mirrored": True} if mirrored else {})
        if versions == 1:
            return found
        return Features(
            by_version(found.scalar),
            *(None if part is None else by_version(part) for part in (found.vector, found.tensor)),
        )

    def predict(self, graph: Graph) -> Prediction:
        """Energies, forces and features of the S structures with the weights as they are."""
        potential = self.potential
        self.weights = [weight.detach() for weight in self.weights]
        with torch.enable_grad():
            positions = graph.positions.detach().requires_grad_()
            features = self.encode(graph, None, positions)
            energies = potential.atom_energies(features, graph)
            (slope,) = torch.autograd.grad(energies.sum(), positions)
        energies = energies.detach()
        return Prediction(
            segment_sum(energies, graph.system, graph.n_systems), -slope, None, features.scalar.detach(), energies
        )


@lru_cache(maxsize=16)
def _complete(n: int, copies: int, mirrored: bool, device: torch.device) -> Tensor:
    """Edges [2,E] of complete graphs of n atoms, one after the other; one of each pair if mirrored."""
    take = torch.ones(n, n, dtype=torch.bool).tril(-1) if mirrored else ~torch.eye(n, dtype=torch.bool)
    receiver, sender = take.nonzero().unbind(1)
    first = n * torch.arange(copies).unsqueeze(1)
    return torch.stack([(sender + first).flatten(), (receiver + first).flatten()]).to(device)
