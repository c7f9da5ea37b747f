"""Graphs of one or several structures as plain tensors, built by slicing flat arrays and cached neighbour lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from mlipkit.data.columns import Array
from mlipkit.data.neighbours import NeighbourCache, neighbour_list
from mlipkit.errors import require

if TYPE_CHECKING:
    from mlipkit.data.frameset import FrameSet


class _Tensors:
    """`to` for a dataclass of tensors."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None):
        """A copy on `device`; `dtype` changes the floating tensors in working precision and never integer ones."""
        changes: dict[str, Tensor] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            wanted = dtype if value.is_floating_point() and field.name not in self._float64 else None
            changes[field.name] = value.to(device=device, dtype=wanted)
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    _float64 = frozenset[str]()


@dataclass(frozen=True)
class Graph(_Tensors):
    """S structures with N atoms and E directed edges ``j -> i``, atoms and edges in order of structure.

    ============  ============  ===================================================================
    numbers       int64 [N]     atomic numbers
    positions     float [N,3]   Å
    edge_index    int64 [2,E]   row 0 sender j, row 1 receiver i; sorted by receiver
    shift         int64 [E,3]   cell images: r_ij = R_j - R_i + shift @ cell
    cell          float [S,3,3] Å, rows are the cell vectors
    pbc           bool [S,3]
    system        int64 [N]     structure of each atom
    n_atoms       int64 [S]
    ============  ============  ===================================================================
    """

    numbers: Tensor
    positions: Tensor
    edge_index: Tensor
    shift: Tensor
    cell: Tensor
    pbc: Tensor
    system: Tensor
    n_atoms: Tensor

    @property
    def n_systems(self) -> int:
        return self.n_atoms.shape[0]

    def edge_vectors(self, positions: Tensor | None = None, cell: Tensor | None = None, pairs: bool = False) -> Tensor:
        """r_ij [E,3] in Å, differentiable in `positions` [N,3] and `cell` [S,3,3] (by default those of the graph).

        Args:
            positions: Å. cell: Å.
            pairs: of the edges `pairs` only.
        """
        positions = self.positions if positions is None else positions
        cell = self.cell if cell is None else cell
        edge_index = self.pair_index if pairs else self.edge_index
        sender, receiver = edge_index.unbind(0)
        vectors = positions.index_select(0, sender) - positions.index_select(0, receiver)
        if self._one_image and not cell.requires_grad:
            return vectors
        shift = self.shift.index_select(0, self.pairs) if pairs else self.shift  # type: ignore[arg-type]
        shift, cell = shift.to(vectors.dtype), cell.to(vectors.dtype)
        if self.n_systems == 1:
            return vectors + shift @ cell[0]
        return vectors + torch.einsum("ek,ekl->el", shift, cell.index_select(0, self.system[receiver]))

    @cached_property
    def _one_image(self) -> bool:
        """Whether all edges are known to stay in their cell; other devices than the CPU are not asked."""
        return self.pbc.device.type == "cpu" and not bool(self.shift.any())

    @cached_property
    def pairs(self) -> Tensor | None:
        """int64 [E/2], one edge `j -> i` of each pair whose other is `i -> j` of opposite shift.

        None where some edge has no such other, or where the list is not on the CPU.
        """
        if self.shift.device.type != "cpu" or len(self.shift) != self.edge_index.shape[1]:
            return None
        (sender, receiver), shift, n = self.edge_index.numpy(), self.shift.numpy(), len(self.numbers)
        here, there = receiver * n, sender * n
        here += sender
        there += receiver
        largest = 0 if self._one_image else int(np.abs(shift).max())
        if float(n) ** 2 * float(2 * largest + 1) ** 3 > 2.0**62:
            return None
        if largest:
            image = ((shift + largest) @ np.array([(2 * largest + 1) ** 2, 2 * largest + 1, 1])).astype(np.int64)
            here = here * (2 * largest + 1) ** 3 + image
            there = there * (2 * largest + 1) ** 3 + ((2 * largest + 1) ** 3 - 1 - image)
        if (here == there).any() or not np.array_equal(np.sort(here), np.sort(there)):
            return None
        return torch.from_numpy(np.flatnonzero(here < there))

    @cached_property
    def pair_index(self) -> Tensor:
        """int64 [2,E/2], ends of the edges `pairs`."""
        assert self.pairs is not None
        return self.edge_index.index_select(1, self.pairs)

    def moved(self, positions: Tensor, cell: Tensor) -> Graph:
        """The same edges with other positions [N,3] and cells [S,3,3], Å; what follows from the edges alone is kept."""
        # Once a step of MD, where `dataclasses.replace` takes four times as long. All that is cached is of the edges.
        graph = object.__new__(Graph)
        vars(graph).update(vars(self), positions=positions, cell=cell)
        return graph

    def to_pyg(self) -> Any:
        """A `torch_geometric.data.Data` (z, pos, edge_index, shift, cell, pbc, batch, n_atoms).

        Raises:
            MissingPackageError: torch-geometric is not installed.
        """
        data = require("torch_geometric.data", "pyg", "Graph.to_pyg")
        return data.Data(
            z=self.numbers,
            pos=self.positions,
            edge_index=self.edge_index,
            shift=self.shift,
            cell=self.cell,
            pbc=self.pbc,
            batch=self.system,
            n_atoms=self.n_atoms,
            num_nodes=len(self.numbers),
        )

    @staticmethod
    def from_pyg(data: Any) -> Graph:
        """The inverse of `to_pyg`; edges are sorted by receiver, missing cells are zero.

        Args:
            data: `Data` or `Batch` with z, pos, edge_index and, where periodic, shift, cell [S,3,3], pbc [S,3].
        """
        batch = getattr(data, "batch", None)
        system = torch.zeros_like(data.z) if batch is None else batch
        n_systems = int(system.max()) + 1 if len(system) else 0
        cell, pbc, shift = (getattr(data, name, None) for name in ("cell", "pbc", "shift"))
        receiver_order = torch.argsort(data.edge_index[1], stable=True)
        n_edges = data.edge_index.shape[1]
        shift = data.edge_index.new_zeros((n_edges, 3)) if shift is None else shift
        return Graph(
            numbers=data.z.long(),
            positions=data.pos,
            edge_index=data.edge_index[:, receiver_order],
            shift=shift.long()[receiver_order],
            cell=data.pos.new_zeros((n_systems, 3, 3)) if cell is None else cell.reshape(n_systems, 3, 3),
            pbc=torch.zeros((n_systems, 3), dtype=torch.bool, device=data.pos.device)
            if pbc is None
            else pbc.reshape(n_systems, 3),
            system=system,
            n_atoms=torch.bincount(system, minlength=n_systems),
        )


@dataclass(frozen=True)
class Targets(_Tensors):
    """Labels of a batch; NaN = missing.

    energy float64 [S] eV; forces [N,3] eV/Å; stress [S,3,3] eV/Å³ (missing unless periodic along all three axes);
    source, tag int64 [S] codes of the FrameSet.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor
    source: Tensor
    tag: Tensor

    _float64 = frozenset({"energy"})


ATOMS_PER_BATCH = 768
"""Most atoms that frames evaluated together hold, unless one frame alone has more: memory stays that of a training
step, and larger batches are no faster."""


def batches_by_size(
    n_atoms: Sequence[int] | np.ndarray, batch_size: int, within: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Indices of frames to evaluate together, frames of similar size side by side.

    Args:
        n_atoms: int [F], atoms per frame.
        batch_size: most frames of a batch; fewer where they hold more than `ATOMS_PER_BATCH` atoms.
        within: int64 indices to take; all when None.

    Yields:
        int64 arrays that together hold every index once.
    """
    sizes = np.asarray(n_atoms)
    order = np.argsort(sizes, kind="stable") if within is None else within[np.argsort(sizes[within], kind="stable")]
    start = 0
    while start < len(order):
        held = np.cumsum(sizes[order[start : start + batch_size]])
        stop = start + max(1, int(np.searchsorted(held, ATOMS_PER_BATCH, side="right")))
        yield order[start:stop]
        start = stop


def collate(
    frames: FrameSet, indices: Sequence[int] | Array, cache: NeighbourCache, dtype: torch.dtype = torch.float32
) -> tuple[Graph, Targets]:
    """Batch of the frames `indices`, in that order.

    Args:
        frames: the set; `cache` must have been made for it.
        indices: int [S].
        cache: neighbour lists of `frames`.
        dtype: of positions, cells, forces and stress; energies stay float64.
    """
    batch = frames.select(indices)
    rows = np.asarray(indices).tolist()
    lists = [cache.get(i) for i in rows]
    n_atoms = batch.n_atoms
    n_edges = np.array([edges.shape[1] for edges, _ in lists], np.int64)
    edge_index = np.concatenate([edges for edges, _ in lists], axis=1, dtype=np.int64)
    edge_index += np.repeat(batch.offsets[:-1], n_edges)
    pbc = batch.pbc
    stress = np.where(np.all(pbc, axis=1).reshape(-1, 1, 1), batch.stress, np.nan)
    graph = Graph(
        numbers=torch.from_numpy(batch.numbers.astype(np.int64)),
        positions=_tensor(batch.positions, dtype),
        edge_index=torch.from_numpy(edge_index),
        shift=torch.from_numpy(np.concatenate([shift for _, shift in lists], dtype=np.int64)),
        cell=_tensor(batch.cell, dtype),
        pbc=torch.from_numpy(np.array(pbc)),
        system=torch.from_numpy(np.repeat(np.arange(len(rows)), n_atoms)),
        n_atoms=torch.from_numpy(np.array(n_atoms)),
    )
    targets = Targets(
        energy=_tensor(batch.energy, torch.float64),
        forces=_tensor(batch.forces, dtype),
        stress=_tensor(stress, dtype),
        source=torch.from_numpy(batch.source_codes.astype(np.int64)),
        tag=torch.from_numpy(batch.tag_codes.astype(np.int64)),
    )
    return graph, targets


def graph_of(structure: Atoms | Mapping[str, Any], cutoff: float, dtype: torch.dtype = torch.float32) -> Graph:
    """Graph of one structure.

    Args:
        structure: `ase.Atoms`, or a mapping with numbers, positions, cell, pbc such as ``frames.frame(i)``.
        cutoff: Å.
        dtype: of positions and cell.
    """
    if isinstance(structure, Atoms):
        structure = {
            "numbers": structure.numbers,
            "positions": structure.positions,
            "cell": structure.cell.array,
            "pbc": structure.pbc,
        }
    numbers = np.array(structure["numbers"], np.int64)
    edge_index, shift, _ = neighbour_list(structure["positions"], structure["cell"], structure["pbc"], cutoff)
    return Graph(
        numbers=torch.from_numpy(numbers),
        positions=_tensor(structure["positions"], dtype),
        edge_index=torch.from_numpy(edge_index),
        shift=torch.from_numpy(shift),
        cell=_tensor(structure["cell"], dtype)[None],
        pbc=torch.from_numpy(np.array(structure["pbc"], bool))[None],
        system=torch.zeros(len(numbers), dtype=torch.int64),
        n_atoms=torch.tensor([len(numbers)]),
    )


def _tensor(array: Array, dtype: torch.dtype) -> Tensor:
    # A copy: frame columns are read-only and torch tensors are not.
    return torch.from_numpy(np.array(array, np.float64)).to(dtype)
