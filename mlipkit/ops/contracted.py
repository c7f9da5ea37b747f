"""The neighbour sum with neighbours contracted first, for many neighbours on a CPU without compiled loops.

The sum is linear in the filter, `Σ_j x_j ∘ (φ(d_ij) W) = Σ_b W_b ∘ (Σ_j φ_b(d_ij) x_j)`: neighbours times radial
functions is a matrix product per atom, and W acts on atoms. The filter [E,3D], larger than everything else by far, is
never made.

The product over neighbours is one face of the trilinear form `Σ_imkc a_imk x_s(im)c g_ikc` (s = sender in place m of
atom i); its derivatives are the other two faces, and theirs again. Three small functions therefore give derivatives of
any order without ever keeping the gathered senders. Each runs over a few atoms at a time, whose gathered rows stay in
the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from mlipkit.ops.message import Edges, register

SMALLEST = 5000
"""Neighbours times features from which this version is the faster one: 40 neighbours at D = 128, 80 at D = 64."""
BLOCK = 1 << 17
"""Gathered numbers at a time."""


class _Slots(NamedTuple):
    """Edges laid out as a table of N rows and M columns; `sender` of an empty place is atom 0, its basis is zero."""

    place: Tensor  # [E] row-major place of each edge
    sender: Tensor  # [N,M]


class _Rows(NamedTuple):
    """Radial functions laid out per atom: `plain` [N,M,K] and, times the unit vectors, `along` [N,M,3K]."""

    basis: Tensor
    unit: Tensor | None
    plain: Tensor
    along: Tensor | None


def _blocks(sender: Tensor, channels: int) -> Iterator[slice]:
    rows = max(1, BLOCK // max(1, sender.shape[1] * channels))
    for start in range(0, sender.shape[0], rows):
        yield slice(start, start + rows)


def _gathered(x: Tensor, sender: Tensor) -> Tensor:
    return x.index_select(0, sender.reshape(-1)).view(*sender.shape, x.shape[1])


class _Sum(Function):
    """`t_ikc = Σ_m a_imk x_s(im)c`: [N,M,K], [N,C] -> [N,K,C]."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, sender: Tensor) -> Tensor:
        ctx.save_for_backward(a, x, sender)
        out = x.new_empty((a.shape[0], a.shape[2], x.shape[1]))
        for rows in _blocks(sender, x.shape[1]):
            torch.bmm(a[rows].mT, _gathered(x, sender[rows]), out=out[rows])
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        a, x, sender = ctx.saved_tensors
        return (
            _Slope.apply(x, g, sender) if ctx.needs_input_grad[0] else None,
            _Spread.apply(a, g, sender) if ctx.needs_input_grad[1] else None,
            None,
        )


class _Slope(Function):
    """`a_imk = Σ_c x_s(im)c g_ikc`: [N,C], [N,K,C] -> [N,M,K]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, sender: Tensor) -> Tensor:
        g = g.contiguous()
        ctx.save_for_backward(x, g, sender)
        out = x.new_empty((*sender.shape, g.shape[1]))
        for rows in _blocks(sender, x.shape[1]):
            torch.bmm(_gathered(x, sender[rows]), g[rows].mT, out=out[rows])
        return out

    @staticmethod
    def backward(ctx: Any, a: Tensor) -> Any:
        x, g, sender = ctx.saved_tensors
        return (
            _Spread.apply(a, g, sender) if ctx.needs_input_grad[0] else None,
            _Sum.apply(a, x, sender) if ctx.needs_input_grad[1] else None,
            None,
        )


class _Spread(Function):
    """`x_jc = Σ_im [s(im) = j] Σ_k a_imk g_ikc`: [N,M,K], [N,K,C] -> [N,C]."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, g: Tensor, sender: Tensor) -> Tensor:
        g = g.contiguous()
        ctx.save_for_backward(a, g, sender)
        out = g.new_zeros((a.shape[0], g.shape[2]))
        for rows in _blocks(sender, g.shape[2]):
            out.index_add_(0, sender[rows].reshape(-1), torch.bmm(a[rows], g[rows]).flatten(0, 1))
        return out

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> Any:
        a, g, sender = ctx.saved_tensors
        return (
            _Slope.apply(x, g, sender) if ctx.needs_input_grad[0] else None,
            _Sum.apply(a, x, sender) if ctx.needs_input_grad[1] else None,
            None,
        )


def _slots(edges: Edges) -> _Slots:
    known = edges.tables.get("slots")
    if isinstance(known, _Slots):
        return known
    receiver, n = edges.receiver, edges.n_atoms
    counts = torch.bincount(receiver, minlength=n)
    columns = int(counts.max()) if n else 0
    order = torch.argsort(receiver, stable=True)
    rank = torch.arange(receiver.shape[0]) - (counts.cumsum(0) - counts)[receiver[order]]
    place = torch.empty_like(rank).index_copy_(0, order, receiver[order] * columns + rank)
    sender = receiver.new_zeros(n * columns).index_copy_(0, place, edges.sender)
    slots = edges.tables["slots"] = _Slots(place, sender.view(n, columns))
    return slots


def _rows(edges: Edges, basis: Tensor, unit: Tensor | None) -> _Rows:
    known = edges.tables.get("rows")
    if isinstance(known, _Rows) and known.basis is basis and known.unit is unit:
        return known
    slots = _slots(edges)

    def laid_out(values: Tensor) -> Tensor:
        table = values.new_zeros((slots.sender.numel(), values.shape[1]))
        return table.index_copy(0, slots.place, values).view(*slots.sender.shape, values.shape[1])

    along = None if unit is None else laid_out((unit.unsqueeze(2) * basis.unsqueeze(1)).flatten(1))
    rows = edges.tables["rows"] = _Rows(basis, unit, laid_out(basis), along)
    return rows


def _serves(edges: Edges, x: Tensor, basis: Tensor, weight: Tensor | None, unit: Tensor | None) -> bool:
    width = x.shape[1] if unit is None else x.shape[1] // 2
    return (
        weight is not None and basis.shape[1] < width and x.device.type == "cpu" and edges.per_atom * width >= SMALLEST
    )


@register("contracted", serves=_serves)
def contracted(
    edges: Edges, x: Tensor, basis: Tensor, weight: Tensor | None, unit: Tensor | None, vector: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Radial functions with neighbours first, filter weights after."""
    if weight is None:
        weight = torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
    rows, sender = _rows(edges, basis, unit), _slots(edges).sender
    if rows.along is None:
        return (_Sum.apply(rows.plain, x, sender) * weight).sum(1), None
    width, n, k = x.shape[1] // 2, edges.n_atoms, basis.shape[1]
    along, scalar = x.split(width, dim=-1)
    w_along, w_scalar = weight[:, -2 * width :].split(width, dim=-1)
    moved = (_Sum.apply(rows.along, along, sender).view(n, 3, k, width) * w_along).sum(2)
    if vector is None:
        return (_Sum.apply(rows.plain, scalar, sender) * w_scalar).sum(1), moved
    joined = torch.cat([scalar.unsqueeze(1), vector], dim=1)
    sums = _Sum.apply(rows.plain, joined.flatten(1), sender).view(n, k, 4, width)
    carried = (sums[:, :, 1:] * weight[:, None, :width]).sum(1)
    return (sums[:, :, 0] * w_scalar).sum(1), moved + carried
