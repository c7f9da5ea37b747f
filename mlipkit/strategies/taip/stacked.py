"""Structures of equal size, all adapted at once: gradients of each, and an encoder with other weights for every one.

Rows of a structure have to be as many as those of every other. In small molecules every pair of atoms is an edge, so
that the list is the same for all and never searched for; lists of other structures are filled up to the longest. Edges
beyond the cutoff change nothing. As long as all have the same weights, their products are those of one batch.
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
from mlipkit.models.self_supervised import NoiseHead
from mlipkit.ops import pairs_pay, positions_only, segment_sum
from mlipkit.strategies.taip.options import NOISE
from mlipkit.strategies.taip.own_weights import OwnWeights
from mlipkit.strategies.taip.per_structure import Tape, taped

LARGEST = 32
"""Atoms of a molecule up to which all its pairs are edges."""
EDGES = 3000
"""Of a structure, up to which this pays: with more, the loops over one cost little beside its products."""


def stackable(graph: Graph, potential: Potential) -> bool:
    """Whether its structures are of one size and small enough, and the potential's edges come by structure."""
    n_atoms = graph.n_atoms
    return (
        len(n_atoms) > 1
        and comes_by_structure(potential)
        and int(n_atoms[0]) > 1
        and bool((n_atoms == n_atoms[0]).all())
        and graph.edge_index.shape[1] <= EDGES * len(n_atoms)
    )


def comes_by_structure(potential: Potential) -> bool:
    """Whether nothing is put behind the edges of all structures, as an atom that is its own neighbour is."""
    return not getattr(potential.encoder, "self_loops", False)


def takes_all_pairs(graph: Graph, potential: Potential) -> bool:
    """Whether all pairs of its molecules may be their edges."""
    noise = dict(potential.auxiliary.items()).get(NOISE)
    kept = isinstance(noise, NoiseHead) and noise.edges == "kept"  # those of the clean structure are fewer
    return not kept and int(graph.n_atoms[0]) <= LARGEST and not bool(graph.pbc.any())


class Stacked:
    """Encoder of a potential for S structures of n atoms.

    Args:
        potential: gives architecture, and the weights that all begin with.
        graph: of the structures.
        weights: others to begin with, [S,P], those of each structure one after the other (`flattened`).

    Attributes:
        flat: the weights as they are, [P] as long as all have the same, or [S,P].
        tape: keeps what gradients are made of.
        all_pairs: whether all pairs are edges, whatever list a graph brings.
    """

    def __init__(self, potential: Potential, graph: Graph, weights: Tensor | None = None) -> None:
        self.potential, self.n_systems, self.n_atoms = potential, graph.n_systems, int(graph.n_atoms[0])
        self.all_pairs = takes_all_pairs(graph, potential)
        parameters = potential.encoder_parameters()
        self.names = list(parameters)
        self.shapes = [p.shape for p in parameters.values()]
        self.sizes = [shape.numel() for shape in self.shapes]
        self.flat = flattened(list(parameters.values())) if weights is None else weights
        self.tape = Tape(self.n_systems, self.flat.new_zeros(()).requires_grad_())
        self._places = views(torch.arange(self.flat.shape[-1]), self.shapes)

    def encode(self, graph: Graph, numbers: Tensor | None = None, positions: Tensor | None = None) -> Features:
        """As `Potential.encode`, of S structures or of several versions of all of them one after the other; taped."""
        own, tape = self.flat.ndim == 2, self.tape
        state: dict[str, Tensor] = {
            name: taped(one, place, own, tape)
            for name, one, place in zip(self.names, views(self.flat, self.shapes), self._places, strict=True)
        }
        versions = graph.n_systems // self.n_systems
        tape.versions = 1 if own else versions
        return self._encode(state, versions, own, graph, numbers, positions)

    def _encode(
        self, state: dict[str, Tensor], versions: int, own: bool, graph: Graph, numbers: Tensor | None,
        positions: Tensor | None,
    ) -> Features:  # fmt: skip
        size, n = self.n_systems, self.n_atoms
        numbers = graph.numbers if numbers is None else numbers
        positions = graph.positions if positions is None else positions
        # Rows of a structure meet its own weights as one block.
        turned = own and versions > 1

        def by_structure(values: Tensor) -> Tensor:
            return values.view(versions, size, n, *values.shape[1:]).transpose(0, 1).flatten(0, 2)

        def by_version(values: Tensor) -> Tensor:
            return values.view(size, versions, n, *values.shape[1:]).transpose(0, 1).flatten(0, 2)

        encoder, dtype = self.potential.encoder, self.potential.dtype
        # ViSNet's messages of mirrored pairs come as all first directions, then all second ones, not by structure.
        # So would those of any encoder without compiled loops, which are for the CPU.
        mirrored = encoder.takes_pairs and pairs_pay(dtype) and not isinstance(encoder, ViSNet)
        mirrored = mirrored and positions.device.type == "cpu"
        placed = by_structure(positions) if turned else positions
        if self.all_pairs:
            ends, away = _complete(n, size * versions, mirrored, positions.device), None
        else:
            mirrored = mirrored and graph.pairs is not None
            ends, away = _filled_up(graph, size if turned else 1, mirrored, self.potential.cutoff)
        vectors = placed.index_select(0, ends[0]) - placed.index_select(0, ends[1])
        vectors = vectors if away is None else vectors + away
        given = (by_structure(numbers) if turned else numbers, ends, vectors.to(dtype))
        found = functional_call(encoder, state, given, {"mirrored": True} if mirrored else {})
        if not turned:
            return found
        return Features(
            by_version(found.scalar),
            *(None if part is None else by_version(part) for part in (found.vector, found.tensor)),
        )

    def predict(self, graph: Graph) -> Prediction:
        """Energies, forces and features of the S structures with the weights as they are."""
        potential, flat = self.potential, self.flat.expand(self.n_systems, -1)
        state: dict[str, Tensor] = {
            name: one.as_subclass(OwnWeights) for name, one in zip(self.names, views(flat, self.shapes), strict=True)
        }
        with torch.enable_grad(), positions_only():
            positions = graph.positions.detach().requires_grad_()
            features = self._encode(state, 1, True, graph, None, positions)
            energies = potential.atom_energies(features, graph)
            (slope,) = torch.autograd.grad(energies.sum(), positions)
        energies = energies.detach()
        return Prediction(
            segment_sum(energies, graph.system, graph.n_systems), -slope, None, features.scalar.detach(), energies
        )


def flattened(parameters: Sequence[Tensor]) -> Tensor:
    """One row [P] of all weights."""
    return torch.cat([p.detach().flatten() for p in parameters])


def views(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """The weights again, [*shape] of [P] and [S,*shape] of [S,P]; they share its memory."""
    parts = flat.split([shape.numel() for shape in shapes], -1)
    return [part.view(*flat.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


@lru_cache(maxsize=16)
def _complete(n: int, copies: int, mirrored: bool, device: torch.device) -> Tensor:
    """Edges [2,E] of complete graphs of n atoms, one after the other; one of each pair if mirrored."""
    take = torch.ones(n, n, dtype=torch.bool).tril(-1) if mirrored else ~torch.eye(n, dtype=torch.bool)
    receiver, sender = take.nonzero().unbind(1)
    first = n * torch.arange(copies).unsqueeze(1)
    return torch.stack([(sender + first).flatten(), (receiver + first).flatten()]).to(device)


def _filled_up(graph: Graph, size: int, mirrored: bool, cutoff: float) -> tuple[Tensor, Tensor]:
    """Edges [2,E] of structures, equally many of each, and what their cells add to the vectors [E,3], Å.

    Those that are filled in lead from the last atom of a structure to an image of itself that it does not see.

    Args:
        size: structures; versions of one come one after the other then. 1: all stay where they are.
        mirrored: one of each pair.
    """
    edges = graph.pair_index if mirrored else graph.edge_index
    shift = graph.shift.index_select(0, graph.pairs) if mirrored and graph.pairs is not None else graph.shift
    n, copies = int(graph.n_atoms[0]), graph.n_systems
    system = graph.system.index_select(0, edges[1])
    count = torch.bincount(system, minlength=copies)
    most = int(count.max())
    rank = torch.arange(len(system), device=system.device) - (count.cumsum(0) - count).index_select(0, system)
    place = torch.arange(copies, device=system.device)
    place = (place % size) * (copies // size) + place // size
    own = place.index_select(0, system)
    rows = own * most + rank
    last = n * torch.arange(1, copies + 1, device=system.device) - 1
    ends = last.repeat_interleave(most).expand(2, -1).clone()
    ends[:, rows] = edges + n * (own - system)
    away = graph.cell.new_zeros((copies * most, 3))
    away[:, 0] = 2 * cutoff
    cells = graph.cell.index_select(0, system)
    away[rows] = torch.einsum("ek,ekl->el", shift.to(cells.dtype), cells)
    return ends, away
