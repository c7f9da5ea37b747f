"""Attention over the edges of a batch (ViSNet), as plain formulas and in compiled loops.

Per edge j -> i and head, with pre-activations h = (h_k, h_v) and a cutoff function f:

    l = Σ q_i k_j SiLU(h_k),   m_ij = SiLU(l) f v_j SiLU(h_v),   total_i = Σ_j m_ij

The loops gather nothing: q, k and v are read where they lie. What they write of the size of edges is m alone, and h is
read as it leaves its linear map. Algebra of the slopes: `mlipkit.ops.attend_kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import silu

from mlipkit.ops import native
from mlipkit.ops.looped import Tensors, apply
from mlipkit.ops.segment import gather, segment_sum

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


class Arcs:
    """Directed edges e, of which the first `pairs` and the next `pairs` are two directions of the same pairs.

    What belongs to pairs has one row for both, in the order (pairs, others): row p is that of edges p (where p < pairs)
    and p + pairs. What belongs to edges has E rows.

    Attributes:
        sender, receiver: int64 [E].
        n_atoms: N.
        pairs: number of pairs.
    """

    def __init__(self, edge_index: Tensor, n_atoms: int, mirrored: bool = False) -> None:
        """Edges [2,E]; a mirrored list [2,E/2] holds one direction of each pair."""
        self.pairs = edge_index.shape[1] if mirrored else 0
        both = torch.cat([edge_index, edge_index.flip(0)], dim=1) if mirrored else edge_index
        self.sender, self.receiver = both.contiguous().unbind(0)
        self.n_atoms = n_atoms

    def with_loops(self) -> Arcs:
        """And each atom to itself, after all others."""
        own = torch.arange(self.n_atoms, device=self.sender.device).expand(2, self.n_atoms)
        made = Arcs(torch.cat([torch.stack([self.sender, self.receiver]), own], dim=1), self.n_atoms)
        made.pairs = self.pairs
        return made

    def shared(self, values: Tensor) -> int:
        """Pairs whose two directions share rows of `values`."""
        return len(self.sender) - len(values)

    def each(self, values: Tensor) -> Tensor:
        """Rows of pairs as rows of edges."""
        shared = self.shared(values)
        return torch.cat([values[:shared], values]) if shared else values

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        return self.sender.numpy(), self.receiver.numpy()

    @cached_property
    def tables(self) -> tuple[Rows, Rows]:
        """Edges by receiver and by sender, as (first, other, number) of `mlipkit.ops.attend_kernels`."""
        make = native.kernels("attend_kernels").table  # type: ignore[union-attr]
        sender, receiver = self.ends
        return make(self.n_atoms, receiver, sender), make(self.n_atoms, sender, receiver)


def attend(arcs: Arcs, qkv: Tensor, h: Tensor, cutoff: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Messages [E,D] and their sums [N,D].

    Args:
        qkv: [N,3D], queries, keys and values.
        h: [E,2D] or, one row a pair, [R,2D].
        cutoff: [E].
        heads: parts of D with an attention of their own.
    """
    return apply(Attention(arcs, heads), qkv, h, cutoff)


@dataclass(frozen=True)
class Attention:
    arcs: Arcs
    heads: int

    def formula(self, qkv: Tensor, h: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
        arcs, width = self.arcs, h.shape[1] // 2
        q, key_value = qkv.split([width, 2 * width], dim=-1)
        key, value = gather(key_value, arcs.sender).split(width, dim=-1)
        dk, dv = arcs.each(silu(h)).split(width, dim=-1)
        product = (gather(q, arcs.receiver) * key * dk).view(-1, self.heads, width // self.heads)
        attention = silu(product.sum(-1)) * cutoff.unsqueeze(-1)
        m = ((value * dv).view_as(product) * attention.unsqueeze(-1)).view(-1, width)
        return m, segment_sum(m, arcs.receiver, arcs.n_atoms)

    def _run(self, name: str, count: int, h: Tensor, tables: Any, *arguments: Any) -> None:
        width = h.shape[1] // 2
        kernel = native.kernels("attend_kernels").loops(width // self.heads)[name]  # type: ignore[union-attr]
        sizes = (self.arcs.shared(h), self.heads, width)
        native.run(kernel, count, 4 * h.numel(), h, *tables, *sizes, *arguments)

    def _per_head(self, like: Tensor, count: int) -> list[Tensor]:
        return [like.new_empty((len(self.arcs.sender), self.heads)) for _ in range(count)]

    def forward(self, qkv: Tensor, h: Tensor, cutoff: Tensor) -> Tensors:
        n, width = self.arcs.n_atoms, h.shape[1] // 2
        m, total = h.new_empty((len(cutoff), width)), h.new_empty((n, width))
        self._run("attend", n, h, self.arcs.tables[0], qkv, h, cutoff, m, total)
        return m, total

    def slopes(self, partners: Sequence[Any], *given: Any) -> Tensors:
        (gm, gt), (qkv, h, cutoff) = partners, given
        arcs = self.arcs
        dqkv, dh, df = (torch.empty_like(t) for t in given)
        kept = self._per_head(h, 2)
        self._run("edge_slopes", len(h), h, arcs.ends, qkv, h, cutoff, gm, gt, dh, df, *kept)
        both = (*arcs.tables[0], *arcs.tables[1])
        self._run("atom_slopes", arcs.n_atoms, h, both, qkv, h, gm, gt, *kept, dqkv)
        return dqkv, dh, df

    def second(self, partners: Sequence[Any], given: Sequence[Any], tangents: Sequence[Any]) -> Tensors:
        (gm, gt), (qkv, h, cutoff), (tqkv, th, tf) = partners, given, tangents
        arcs = self.arcs
        dgm, dgt, dqkv, dh, df = (torch.empty_like(t) for t in (gm, gt, qkv, h, cutoff))
        kept = self._per_head(h, 4)
        self._run(
            "edge_second", len(h), h, arcs.ends, qkv, h, cutoff, gm, gt, tqkv, th, tf, dgm, dh, df, *kept
        )  # fmt: skip
        both = (*arcs.tables[0], *arcs.tables[1])
        self._run(
            "atom_second", arcs.n_atoms, h, both, qkv, h, gm, gt, tqkv, th, dgm, *kept, dgt, dqkv
        )  # fmt: skip
        return dgm, dgt, dqkv, dh, df
