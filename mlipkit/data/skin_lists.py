"""Neighbour lists of many moving structures as one flat list: one look at all displacements decides what is rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlipkit.data.columns import Array
from mlipkit.data.neighbours import _edges, _search
from mlipkit.errors import DataError


class SkinLists:
    """Lists of S structures together, rebuilt one by one and only when they must be (Verlet, Phys. Rev. 159, 98, 1967).

    A list holds all pairs within cutoff + skin of the positions at its last rebuild. While no atom has moved by more
    than skin/2 since then, no pair within the cutoff can be missing. Pairs beyond the cutoff are in the list; models
    give them weight zero.

    While nothing has to be rebuilt a call costs a handful of operations on flat tensors and hands one number to the
    host; there is no loop over structures.

    Args:
        cutoff: Å.
        skin: Å; 0 rebuilds whenever an atom moves.
        n_atoms: atoms of each structure.
        pbc: bool [S,3].
        device: where edges, shifts and shift vectors lie.
        lenient: a structure whose positions are not finite keeps the list it has (none: no pairs) instead of raising.
        coincident: also pairs of atoms on one point, as in `neighbour_list`.

    Attributes:
        edge_index: int64 [2,E], atoms numbered through all structures; in order of structure, then as `neighbour_list`.
        shift: int64 [E,3]. shift_vectors: float64 [E,3], `shift @ cell`, Å.
        n_rebuilds: lists built so far, all structures together.
        beyond: share of the pairs that were beyond the cutoff when their list was built.
    """

    def __init__(
        self,
        cutoff: float,
        skin: float,
        n_atoms: Sequence[int],
        pbc: Any,
        device: torch.device | str = "cpu",
        lenient: bool = False,
        coincident: bool = False,
    ) -> None:
        if not (np.isfinite(skin) and skin >= 0):
            raise DataError("skin is not a length", expected="0 or more Å", found=skin)
        self.cutoff, self.skin, self.lenient, self.coincident = float(cutoff), float(skin), lenient, coincident
        self.device = torch.device(device)
        self.n_rebuilds = 0
        self._counts = [int(n) for n in n_atoms]
        self._pbc = np.array(pbc, bool).reshape(len(self._counts), 3)
        self._limit = (0.5 * self.skin) ** 2
        # Per structure: edges, shifts, shift vectors, number of pairs beyond the cutoff; None before the first list.
        self._parts: list[tuple[Array, Array, Array, int] | None] = [None] * len(self._counts)
        # Positions and cells for which the lists were built; NaN before.
        self._positions = np.full((sum(self._counts), 3), np.nan)
        self._cells = np.full((len(self._counts), 3, 3), np.nan)
        self._reset()

    def _reset(self) -> None:
        self._offsets = np.concatenate([[0], np.cumsum(self._counts)]).astype(np.int64)
        self._then: Tensor | None = None
        self._cell: Tensor | None = None
        self._cell_version = -1
        self._spliced = False

    def update(self, positions: Tensor, cell: Tensor) -> bool:
        """Make the lists valid for positions [N,3] and cells [S,3,3], Å; whether anything was rebuilt.

        Raises:
            DataError: as `neighbour_list`.
        """
        if self._then is not None and self._cells_are_those(cell):
            moved = positions - self._then
            # The only number that the host waits for. A NaN compares false and reaches the search and its error.
            if torch.linalg.vector_norm(moved, dim=1).max().item() <= 0.5 * self.skin:
                return False
        self._rebuild(positions, cell)
        return True

    def _cells_are_those(self, cell: Tensor) -> bool:
        # At constant cell it is the very tensor that was there before, and nothing has to be compared.
        if cell is self._cell and cell._version == self._cell_version:
            return True
        if self._pbc.any() and not np.array_equal(cell.detach().cpu().numpy(), self._cells):
            return False
        self._cell, self._cell_version = cell, cell._version
        return True

    def _rebuild(self, positions: Tensor, cell: Tensor) -> None:
        host, cells = positions.detach().cpu().numpy(), cell.detach().cpu().numpy()
        moved = host - self._positions
        stale = ~(np.maximum.reduceat(np.einsum("nk,nk->n", moved, moved), self._offsets[:-1]) <= self._limit)
        stale |= self._pbc.any(1) & (cells != self._cells).any((1, 2))
        changed = [
            self._build(index, host[self._span(index)], cells[index]) for index in np.flatnonzero(stale).tolist()
        ]
        self._then = torch.tensor(self._positions, device=positions.device)
        self._cell, self._cell_version = cell, cell._version
        if self._spliced and not any(changed):
            return
        parts = [part for part in self._parts if part is not None]
        edges = np.concatenate([part[0] for part in parts], axis=1)
        self.edge_index = torch.from_numpy(edges).to(self.device)
        self.shift = torch.from_numpy(np.concatenate([part[1] for part in parts])).to(self.device)
        self.shift_vectors = torch.from_numpy(np.concatenate([part[2] for part in parts])).to(self.device)
        self.beyond = sum(part[3] for part in parts) / max(edges.shape[1], 1)
        self._spliced = True

    def _span(self, index: int) -> slice:
        return slice(self._offsets[index], self._offsets[index + 1])

    def _build(self, index: int, positions: Array, cell: Array) -> bool:
        """Make the list of one structure anew; whether it differs from the one before."""
        if self.lenient and not (np.isfinite(positions).all() and np.isfinite(cell).all()):
            if self._parts[index] is None:
                self._parts[index] = np.empty((2, 0), np.int64), np.empty((0, 3), np.int64), np.empty((0, 3)), 0
            return True
        i, j, images, vectors, order = _search(
            positions, cell, self._pbc[index], self.cutoff + self.skin, self.coincident
        )
        edges = _edges(i, j, order, np.int64)
        edges += self._offsets[index]
        shift = np.take(images, order, axis=0).astype(np.int64)
        vectors = np.take(vectors, order, axis=0)
        beyond = int((np.einsum("ek,ek->e", vectors, vectors) >= self.cutoff**2).sum())
        self._positions[self._span(index)], self._cells[index] = positions, cell
        self.n_rebuilds += 1
        old = self._parts[index]
        part = self._parts[index] = edges, shift, shift @ np.asarray(cell, np.float64), beyond
        # Within a molecule smaller than the cutoff it is the same list again.
        same = old is not None and old[3] == beyond and edges.shape == old[0].shape
        return not (same and all(np.array_equal(old[k], part[k]) for k in range(3)))  # type: ignore[index]

    def select(self, structures: Sequence[int]) -> None:
        """Go on with some of the structures; their lists stay."""
        old, chosen = self._offsets, list(structures)
        self._positions = np.concatenate([self._positions[self._span(index)] for index in chosen])
        self._cells, self._pbc = self._cells[chosen], self._pbc[chosen]
        self._counts, parts = [self._counts[index] for index in chosen], [self._parts[index] for index in chosen]
        self._reset()
        self._parts = [
            part and (part[0] + (self._offsets[place] - old[index]), *part[1:])
            for place, (index, part) in enumerate(zip(chosen, parts, strict=True))
        ]

    @property
    def n_pairs(self) -> list[int]:
        """Pairs of each structure, those of the skin included."""
        return [0 if part is None else part[0].shape[1] for part in self._parts]

    def reference(self, index: int) -> tuple[Array, Array] | None:
        """Positions and cell for which the list of a structure was built, None before there is one. A checkpoint keeps
        them: `restore` with them gives the same list, and so the same rounding, as in an uninterrupted run."""
        return None if self._parts[index] is None else (self._positions[self._span(index)], self._cells[index])

    def restore(self, index: int, positions: Array, cell: Array) -> None:
        """Build the list of one structure for what `reference` gave."""
        self._build(index, positions, cell)
