"""What the tasks leave to chance: a noise level and its displacements, which types and which forces are hidden.

Every structure has a stream of its own, fixed by two numbers, so that results depend neither on the order of structures
nor on what they are evaluated with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mlipkit.data.graph import Graph
from mlipkit.data.neighbours import SMALL, neighbour_list
from mlipkit.strategies.taip.options import Heads

_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Draws:
    """Random numbers of S structures with N atoms.

    Attributes:
        level: int64 [S], index of the noise level, from 0.
        displacement: [N,3], Å: `σ_t ξ`.
        masked: bool [N], types that are hidden (C1).
        hidden: bool [N], pseudo-forces that are hidden (C2).
        force_noise: [N,3], unit normal; of the authors' masks only.
    """

    level: Tensor
    displacement: Tensor
    masked: Tensor
    hidden: Tensor
    force_noise: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Draws:
        return Draws(
            self.level.to(device), self.displacement.to(device, dtype), self.masked.to(device), self.hidden.to(device),
            self.force_noise.to(device, dtype),
        )  # fmt: skip


def n_hidden(rate: float, n_atoms: int) -> int:
    """`max(1, ⌊ρ n⌋ + 1)`, and never more than there are."""
    return min(max(1, int(np.floor(rate * n_atoms)) + 1), n_atoms)


def draw(heads: Heads, n_atoms: Sequence[int], seed: int, keys: Sequence[int]) -> Draws:
    """The draws of structures.

    Args:
        n_atoms: atoms of each.
        seed: of the run.
        keys: number of each structure (of its frame, of a step of MD) within the seed.
    """
    total = int(sum(n_atoms))
    level = np.zeros(len(n_atoms), np.int64)
    displacement, force_noise = np.zeros((total, 3)), np.zeros((total, 3))
    masked, hidden = np.zeros(total, bool), np.zeros(total, bool)
    sigmas = heads.noise.sigmas if heads.noise is not None else None
    start = 0
    for index, (n, key) in enumerate(zip(n_atoms, keys, strict=True)):
        # Counter-based: the stream of (seed, key) costs nothing to find and overlaps with no other.
        rng = np.random.Generator(np.random.Philox(key=[seed & _WORD, key & _WORD]))
        span = slice(start, start + n)
        if sigmas is not None:
            level[index] = rng.integers(len(sigmas))
            displacement[span] = sigmas[level[index]] * rng.standard_normal((n, 3))
        if heads.types is not None:
            masked[start + rng.permutation(n)[: n_hidden(heads.types.rate, n)]] = True
        if heads.forces is not None:
            hidden[start + rng.permutation(n)[: n_hidden(heads.forces.rate, n)]] = True
            if heads.forces.mode == "authors":
                force_noise[span] = rng.standard_normal((n, 3))
        start += n
    return Draws(*map(torch.from_numpy, (level, displacement, masked, hidden, force_noise)))


def perturbed(graph: Graph, displacement: Tensor, cutoff: float, edges: str = "rebuilt") -> Graph:
    """The structures with atoms displaced [N,3] Å: their own pairs, or with edges="kept" those of the clean ones."""
    positions = graph.positions + displacement.to(graph.positions.dtype)
    if edges == "kept":
        return graph.moved(positions, graph.cell)
    host, cells, pbc = (one.detach().cpu().numpy() for one in (positions.double(), graph.cell.double(), graph.pbc))
    counts = graph.n_atoms.tolist()
    if len(set(counts)) == 1 and counts[0] <= SMALL and not pbc.any():
        edge_index = _molecules(host.reshape(len(counts), counts[0], 3), cutoff)
        shift = np.zeros((edge_index.shape[1], 3), np.int64)
    else:
        found, start = [], 0
        for index, n in enumerate(counts):
            one, image, _ = neighbour_list(host[start : start + n], cells[index], pbc[index], cutoff)
            found.append((one + start, image))
            start += n
        edge_index = np.concatenate([one for one, _ in found], axis=1)
        shift = np.concatenate([image for _, image in found])
    device = graph.positions.device
    return replace(
        graph, positions=positions, edge_index=torch.from_numpy(edge_index).to(device),
        shift=torch.from_numpy(shift).to(device),
    )  # fmt: skip


def _molecules(positions: np.ndarray, cutoff: float) -> np.ndarray:
    """Pairs within the cutoff [2,E] of molecules of equal size, positions [S,n,3]: as `neighbour_list`, all at once."""
    vectors = positions[:, None] - positions[:, :, None]
    distance2 = np.einsum("sijk,sijk->sij", vectors, vectors)
    system, i, j = np.nonzero((distance2 > 0) & (distance2 < cutoff * cutoff))
    first = system * positions.shape[1]
    return np.stack([first + j, first + i])


def joined(*graphs: Graph) -> Graph:
    """One batch of several, in order."""
    sizes = np.cumsum([0, *(len(one.numbers) for one in graphs)]).tolist()
    systems = np.cumsum([0, *(one.n_systems for one in graphs)]).tolist()
    return Graph(
        numbers=torch.cat([one.numbers for one in graphs]),
        positions=torch.cat([one.positions for one in graphs]),
        edge_index=torch.cat([one.edge_index + at for one, at in zip(graphs, sizes, strict=False)], dim=1),
        shift=torch.cat([one.shift for one in graphs]),
        cell=torch.cat([one.cell for one in graphs]),
        pbc=torch.cat([one.pbc for one in graphs]),
        system=torch.cat([one.system + at for one, at in zip(graphs, systems, strict=False)]),
        n_atoms=torch.cat([one.n_atoms for one in graphs]),
    )


def parts(graph: Graph) -> list[Graph]:
    """The structures of a batch one by one."""
    if graph.n_systems == 1:
        return [graph]
    counts = graph.n_atoms.tolist()
    of_edge = torch.bincount(graph.system[graph.edge_index[1]], minlength=len(counts)).tolist()
    atoms, edges = np.cumsum([0, *counts]).tolist(), np.cumsum([0, *of_edge]).tolist()
    return [
        Graph(
            numbers=graph.numbers[atoms[i] : atoms[i + 1]], positions=graph.positions[atoms[i] : atoms[i + 1]],
            edge_index=graph.edge_index[:, edges[i] : edges[i + 1]] - atoms[i],
            shift=graph.shift[edges[i] : edges[i + 1]],
            cell=graph.cell[i : i + 1], pbc=graph.pbc[i : i + 1],
            system=torch.zeros_like(graph.system[atoms[i] : atoms[i + 1]]), n_atoms=graph.n_atoms[i : i + 1],
        )
        for i in range(len(counts))
    ]  # fmt: skip
