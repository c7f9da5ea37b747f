"""Vectors in ViSNet, as plain formulas and in compiled loops: messages, and the update of edges and atoms by them.

With pre-activations z = (z1, z2) or h, spherical harmonics Y [E,M] and a cutoff function f of each edge j -> i:

    carry     V_i = Σ_j f (SiLU(z1) v_j + SiLU(z2) Y)
    rejected  f_ij + SiLU(h) <a_i - (a_i·Y) Y, b_j - (b_j·Y) Y>
    mixed     <v1, v2> o2 + o3,  v3 o1

`<a - (a·Y)Y, b - (b·Y)Y> = a·b - (2 - |Y|²)(a·Y)(b·Y)`, and |Y|² is lmax: 1 (M = 3) leaves the product of both
projections once, 2 (M = 8) leaves a·b alone. Algebra of the slopes: `carry_kernels`, `reject_kernels`,
`mix_kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from mlipkit.ops import native
from mlipkit.ops.attend import Arcs
from mlipkit.ops.looped import Tensors, apply
from mlipkit.ops.segment import gather, segment_sum


def carry(arcs: Arcs, v: Tensor | None, z: Tensor, y: Tensor, cutoff: Tensor) -> Tensor:
    """Sums of vector messages [N,M,D].

    Args:
        v: [N,M,D]; None where they are zero (first layer).
        z: [E,2D], or [E,D] without v.
        y: [E,M], M = 3 or 8.
        cutoff: [E].
    """
    return apply(Carry(arcs), v, z, y, cutoff)


def rejected(arcs: Arcs, f: Tensor, h: Tensor, ab: Tensor, y: Tensor) -> Tensor:
    """Updated features of edges [E,D].

    Args:
        f, h: [E,D] or, one row a pair, [R,D].
        ab: [N,M,2D], vectors a and b.
        y: [E,M], M = 3 or 8.
    """
    return apply(Rejected(arcs), f, h, ab, y)


def mixed(w: Tensor, o: Tensor) -> tuple[Tensor, Tensor]:
    """What is added to scalars [N,D] and vectors [N,M,D]; from w [N,M,3D] = (v1, v2, v3) and o [N,3D], M = 3 or 8."""
    return apply(Mixed(), w, o)


def _run(module: str, name: str, components: int, rows: int, work: Tensor, *arguments: Any) -> None:
    kernel = native.kernels(module).LOOPS[components][name]  # type: ignore[union-attr]
    native.run(kernel, rows, 4 * work.numel(), work, *arguments)


@dataclass(frozen=True)
class Carry:
    arcs: Arcs

    def formula(self, v: Tensor | None, z: Tensor, y: Tensor, cutoff: Tensor) -> tuple[Tensor]:
        arcs, s = self.arcs, silu(z) * cutoff.unsqueeze(-1)
        if v is None:
            moved = y.unsqueeze(-1) * s.unsqueeze(1)
        else:
            s1, s2 = s.unsqueeze(1).chunk(2, dim=-1)
            moved = torch.addcmul(gather(v, arcs.sender) * s1, y.unsqueeze(-1), s2)
        return (segment_sum(moved, arcs.receiver, arcs.n_atoms),)

    def _run(self, name: str, rows: int, z: Tensor, y: Tensor, v: Tensor | None, tables: Any, *arguments: Any) -> None:
        parts = 1 if v is None else 2
        sizes = (parts, z.shape[1] // parts)
        _run("carry_kernels", name, y.shape[1], rows, z, *tables, *sizes, *arguments)

    def forward(self, v: Tensor | None, z: Tensor, y: Tensor, cutoff: Tensor) -> Tensors:
        n, width = self.arcs.n_atoms, z.shape[1] // (1 if v is None else 2)
        out = z.new_empty((n, y.shape[1], width))
        self._run("carry", n, z, y, v, self.arcs.tables[0], v, z, y, cutoff, out)
        return (out,)

    def slopes(self, partners: Sequence[Any], *given: Any) -> Tensors:
        (g,), (v, z, y, cutoff), arcs = partners, given, self.arcs
        dv, dz, dy, df = (None if t is None else torch.empty_like(t) for t in given)
        self._run("edge_slopes", len(z), z, y, v, arcs.ends, *given, g, dz, dy, df)
        if v is not None:
            self._run("atom_slopes", arcs.n_atoms, z, y, v, arcs.tables[1], z, cutoff, g, dv)
        return dv, dz, dy, df

    def second(self, partners: Sequence[Any], given: Sequence[Any], tangents: Sequence[Any]) -> Tensors:
        (g,), (v, z, y, cutoff), (_, tz, _, tf), arcs = partners, given, tangents, self.arcs
        dv, dz, dy, df = (None if t is None else torch.empty_like(t) for t in given)
        dg = torch.empty_like(g)
        self._run(
            "sum_second", arcs.n_atoms, z, y, v, arcs.tables[0], *given, g, *tangents, dg, dz, dy, df
        )  # fmt: skip
        if v is not None:
            self._run("atom_second", arcs.n_atoms, z, y, v, arcs.tables[1], z, cutoff, g, tz, tf, dv)
        return dg, dv, dz, dy, df


@dataclass(frozen=True)
class Rejected:
    arcs: Arcs

    def formula(self, f: Tensor, h: Tensor, ab: Tensor, y: Tensor) -> tuple[Tensor]:
        arcs, width = self.arcs, f.shape[1]
        target, source = ab.split(width, dim=-1)
        a, b = gather(target, arcs.receiver), gather(source, arcs.sender)
        dot, along = (a * b).sum(1), y.unsqueeze(-1)
        if y.shape[1] == 3:
            dot = dot - (a * along).sum(1) * (b * along).sum(1)
        return (torch.addcmul(arcs.each(f), arcs.each(silu(h)), dot),)

    def _run(self, name: str, rows: int, h: Tensor, y: Tensor, tables: Any, *arguments: Any) -> None:
        sizes = (self.arcs.shared(h), h.shape[1])
        _run("reject_kernels", name, y.shape[1], rows, h, *tables, *sizes, *arguments)

    def forward(self, f: Tensor, h: Tensor, ab: Tensor, y: Tensor) -> Tensors:
        out = f.new_empty((len(y), f.shape[1]))
        self._run("reject", len(y), h, y, self.arcs.ends, f, h, ab, y, out)
        return (out,)

    def slopes(self, partners: Sequence[Any], *given: Any) -> Tensors:
        (g,), (_, h, ab, y), arcs = partners, given, self.arcs
        df, dh, dab, dy = (torch.empty_like(t) for t in given)
        dy = torch.empty_like(y) if y.shape[1] == 3 else torch.zeros_like(y)
        self._run("edge_slopes", len(h), h, y, arcs.ends, h, ab, y, g, df, dh, dy)
        for side, table in enumerate(arcs.tables):
            self._run("atom_slopes", arcs.n_atoms, h, y, (*table, side), h, ab, y, g, dab)
        return df, dh, dab, dy

    def second(self, partners: Sequence[Any], given: Sequence[Any], tangents: Sequence[Any]) -> Tensors:
        (g,), (_, h, ab, y), (_, th, tab, ty), arcs = partners, given, tangents, self.arcs
        dg, dh, dab = (torch.empty_like(t) for t in (g, h, ab))
        dy = torch.empty_like(y) if y.shape[1] == 3 else torch.zeros_like(y)
        self._run("edge_second", len(h), h, y, arcs.ends, h, ab, y, g, *tangents, dg, dh, dy)
        for side, table in enumerate(arcs.tables):
            self._run("atom_second", arcs.n_atoms, h, y, (*table, side), h, ab, y, g, th, tab, ty, dab)
        return dg, None, dh, dab, dy


@dataclass(frozen=True)
class Mixed:
    def formula(self, w: Tensor, o: Tensor) -> tuple[Tensor, Tensor]:
        (v1, v2, v3), (o1, o2, o3) = w.chunk(3, dim=-1), o.chunk(3, dim=-1)
        return (v1 * v2).sum(1) * o2 + o3, v3 * o1.unsqueeze(1)

    def _run(self, name: str, w: Tensor, o: Tensor, *arguments: Any) -> None:
        _run("mix_kernels", name, w.shape[1], len(w), w, o.shape[1] // 3, w, o, *arguments)

    def forward(self, w: Tensor, o: Tensor) -> Tensors:
        n, components, width = len(w), w.shape[1], o.shape[1] // 3
        x, v = o.new_empty((n, width)), o.new_empty((n, components, width))
        self._run("mixed", w, o, x, v)
        return x, v

    def slopes(self, partners: Sequence[Any], *given: Any) -> Tensors:
        dw, do = (torch.empty_like(t) for t in given)
        self._run("slopes", *given, *partners, dw, do)
        return dw, do

    def second(self, partners: Sequence[Any], given: Sequence[Any], tangents: Sequence[Any]) -> Tensors:
        made = tuple(torch.empty_like(t) for t in (*partners, *given))
        self._run("second", *given, *partners, *tangents, *made)
        return made
