"""Neighbour lists: all pairs and images with 0 < d < cutoff, for any cell shape and any mix of periodic axes.

Pairs are integers without gradient; distances are recomputed from positions wherever gradients must flow. The search
itself is vesin's (Fraux and Loche, https://github.com/Luthaf/vesin).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from mlipkit.data.columns import Array
from mlipkit.errors import DataError

if TYPE_CHECKING:
    from vesin import NeighborList

    from mlipkit.data.frameset import FrameSet

_local = threading.local()
SMALL = 48
"""Atoms up to which all pairs of a molecule are tried."""


def neighbour_list(
    positions: Array, cell: Array, pbc: Array | Sequence[bool], cutoff: float, coincident: bool = False
) -> tuple[Array, Array, Array]:
    """All directed pairs within `cutoff`.

    Args:
        positions: [n,3] Å; atoms may lie outside the cell.
        cell: [3,3] Å, rows are the cell vectors; ignored along axes that are not periodic.
        pbc: bool [3].
        cutoff: Å.
        coincident: also pairs of atoms on one point, which models cannot take: d = 0 has no direction.

    Returns:
        edge_index int64 [2,E] (row 0 sender j, row 1 receiver i), sorted by receiver, then sender, then shift;
        shift int64 [E,3];
        r_ij float64 [E,3] = R_j - R_i + shift @ cell, Å.

    Raises:
        DataError: positions or cell are not finite, a periodic axis without a cell vector, a cutoff that is no length.
    """
    i, j, shift, vectors, order = _search(positions, cell, pbc, cutoff, coincident)
    return (
        _edges(i, j, order, np.int64),
        np.take(shift, order, axis=0).astype(np.int64),
        np.take(vectors, order, axis=0),
    )


def _search(
    positions: Array, cell: Array, pbc: Array | Sequence[bool], cutoff: float, coincident: bool = False
) -> tuple[Array, Array, Array, Array, Array]:
    """(i, j, shift, vectors, order): vesin's pairs as views that hold until the next call in this thread, and the
    indices of those to keep, in order. Few and small temporaries: fresh memory costs more than the search itself."""
    positions = np.ascontiguousarray(positions, np.float64)
    cell = np.ascontiguousarray(cell, np.float64)
    periodic = np.array(pbc, bool)
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise DataError("cutoff is not a length", expected="a positive number of Å", found=cutoff)
    if positions.ndim != 2 or positions.shape[1] != 3 or cell.shape != (3, 3) or periodic.shape != (3,):
        raise DataError(
            "wrong shapes for a neighbour list",
            expected="positions [n,3], cell [3,3], pbc [3]",
            found=f"{positions.shape}, {cell.shape}, {periodic.shape}",
        )
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise DataError("positions or cell are not finite")
    box = np.where(periodic[:, None], cell, 0.0)
    if (periodic & (np.linalg.norm(box, axis=1) == 0)).any():
        raise DataError("a periodic axis has no cell vector", found=f"cell {cell.tolist()}, pbc {periodic.tolist()}")
    if len(positions) <= SMALL and not periodic.any():
        return _all_pairs(positions, cutoff, coincident)
    finder = _finder(float(cutoff))
    i, j, shift, vectors = finder.compute(positions, box, periodic, quantities="ijSD", copy=False)
    i, j = i.view(np.int64), j.view(np.int64)
    order = _order(i, j, shift, len(positions))
    distance2 = np.einsum("ek,ek->e", vectors, vectors)
    keep = (distance2 < cutoff * cutoff) if coincident else (distance2 > 0) & (distance2 < cutoff * cutoff)
    return i, j, shift, vectors, order if keep.all() else order[keep[order]]


def _all_pairs(positions: Array, cutoff: float, coincident: bool) -> tuple[Array, Array, Array, Array, Array]:
    """`_search` of a molecule so small that trying all pairs is cheaper than calling the search."""
    vectors = positions[None] - positions[:, None]
    distance2 = np.einsum("ijk,ijk->ij", vectors, vectors)
    near = distance2 < cutoff * cutoff
    if coincident:
        np.fill_diagonal(near, False)
    else:
        near &= distance2 > 0
    i, j = np.nonzero(near)
    return i, j, np.zeros((len(i), 3), np.int32), vectors[i, j], np.arange(len(i))


def _finder(cutoff: float) -> NeighborList:
    """The search of this thread for a cutoff; a few stay, as a simulation asks for two cutoffs in turn."""
    finders = _local.__dict__.setdefault("finders", {})
    if cutoff not in finders:
        # Brings torch where that is installed: nothing that looks at molecules only has to wait for it.
        from vesin import NeighborList

        if len(finders) >= 4:
            finders.clear()
        finders[cutoff] = NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    return finders[cutoff]


def _order(i: Array, j: Array, shift: Array, n_atoms: int) -> Array:
    """Indices that sort by receiver i, sender j, shift."""
    if not len(i):
        return np.empty(0, np.int64)
    low = shift.min(axis=0).astype(np.int64)
    span = shift.max(axis=0) - low + 1
    if float(n_atoms) ** 2 * float(np.prod(span, dtype=float)) > 2.0**62:
        return np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], j, i))
    key = i * n_atoms
    key += j
    for axis in range(3):
        key *= span[axis]
        key += shift[:, axis]
        key -= low[axis]
    return np.argsort(key)


def _edges(i: Array, j: Array, order: Array, dtype: type) -> Array:
    edges = np.empty((2, len(order)), dtype)
    edges[0], edges[1] = np.take(j, order), np.take(i, order)
    return edges


class NeighbourCache:
    """Neighbour lists of a FrameSet, each computed once and kept in flat blocks while `max_bytes` allows.

    What no longer fits is computed when asked for: memory stays bounded and no list is ever thrown out.

    Args:
        frames: the set.
        cutoff: Å.
        max_bytes: bound of the memory for lists.
    """

    BLOCK: Final = 1 << 18
    """Edges per block."""

    def __init__(self, frames: FrameSet, cutoff: float, max_bytes: int = 1 << 30) -> None:
        self.frames = frames
        self.cutoff = float(cutoff)
        self.max_bytes = max_bytes
        self._block = np.full(len(frames), -1, np.int32)
        self._start = np.zeros(len(frames), np.int32)
        self._count = np.zeros(len(frames), np.int32)
        self._edges: list[Array] = []
        self._shifts: list[Array] = []
        self._used = 0
        self._bytes = 0

    def __len__(self) -> int:
        """Number of lists kept."""
        return int((self._block >= 0).sum())

    @property
    def nbytes(self) -> int:
        """Memory of the blocks."""
        return self._bytes

    def get(self, i: int) -> tuple[Array, Array]:
        """(edge_index int32 [2,E], shift int16 or int32 [E,3]) of frame `i`; see `neighbour_list`."""
        block = self._block[i]
        if block >= 0:
            start = self._start[i]
            end = start + self._count[i]
            return self._edges[block][:, start:end], self._shifts[block][start:end]
        frame = self.frames.frame(int(i))
        receivers, senders, images, _, order = _search(frame["positions"], frame["cell"], frame["pbc"], self.cutoff)
        edges = _edges(receivers, senders, order, np.int32)
        wide = np.take(images, order, axis=0)
        shift = wide.astype(np.int16)
        if not np.array_equal(shift, wide):
            return edges, wide
        self._keep(i, edges, shift)
        return edges, shift

    def _keep(self, i: int, edges: Array, shift: Array) -> None:
        n_edges = edges.shape[1]
        if not self._edges or self._used + n_edges > self._edges[-1].shape[1]:
            size = max(self.BLOCK, n_edges)
            nbytes = size * (2 * 4 + 3 * 2)
            if self._bytes + nbytes > self.max_bytes:
                return
            self._edges.append(np.empty((2, size), np.int32))
            self._shifts.append(np.empty((size, 3), np.int16))
            self._bytes += nbytes
            self._used = 0
        end = self._used + n_edges
        self._edges[-1][:, self._used : end] = edges
        self._shifts[-1][self._used : end] = shift
        self._start[i], self._count[i] = self._used, n_edges
        self._block[i] = len(self._edges) - 1
        self._used = end
