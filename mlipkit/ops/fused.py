"""The neighbour sum in compiled loops on the CPU: each edge is read once, and nothing of its size is made but filters.

With partners g (of the scalar sum) and G (of the vector sum) the operation is one form, linear in (g, G), in (x, v), in
w, and in its second term in u:

    T(g, G; x, v; w; u) = Σ_ij  g_i x₂_j w₃  +  u·G_i x₁_j w₂  +  G_i·v_j w₁

(x₁, x₂: the parts of x along u and scalar; w₁, w₂, w₃: filters of v, x₁, x₂; summed over features). The sum is
∂T/∂(g, G); its derivative are the other slopes of T; the derivative of those in directions (hx, hv), hw, hu are the
slopes of

    T(g, G; hx, hv; w; u) + T(g, G; x, v; hw; u) + T(g, G; x₁; w₂; hu)

which are the same loops again. Two functions, a sum and its slopes, therefore give derivatives of any order; the second
order has loops of its own that read every edge once for all three summands. Scalars alone (SchNet) are the first term.

A mirrored list (see `Edges`) has one filter for both directions of a pair: half the filters, half their products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from mlipkit.errors import ModelError
from mlipkit.ops import native
from mlipkit.ops.message import Edges, register


class _Table(NamedTuple):
    """Ends of the edges; mirrored edges are met from both."""

    sender: np.ndarray
    receiver: np.ndarray
    mirrored: bool

    @property
    def turned(self) -> _Table:
        """Senders and receivers exchanged."""
        return _Table(self.receiver, self.sender, self.mirrored)


def table_of(edges: Edges) -> _Table:
    """Made once for all layers."""
    known = edges.tables.get("fused")
    if isinstance(known, _Table):
        return known
    sender, receiver = edges.sender.contiguous().numpy(), edges.receiver.contiguous().numpy()
    _kernels().check(edges.n_atoms, sender, receiver)
    table = edges.tables["fused"] = _Table(sender, receiver, edges.mirrored)
    return table


def _kernels() -> Any:
    kernels = native.kernels()
    assert kernels is not None
    return kernels


def _added(*values: Tensor | None) -> Tensor | None:
    given = [value for value in values if value is not None]
    return sum(given[1:], given[0]) if given else None


# ---- scalars


def _scalar_sum(x: Tensor, w: Tensor, table: _Table) -> Tensor:
    s, n = torch.empty_like(x), x.shape[0]
    native.run(_kernels().scalar_sum, x.shape[1], 2 * w.numel(), x, *table, x.shape[1], n, x, w, s)
    return s


def _scalar_edges(g: Tensor, x: Tensor, table: _Table) -> Tensor:
    n_edges, (n, width) = len(table.sender), x.shape
    dw = x.new_empty((n_edges, width))
    native.run(_kernels().scalar_edges, n_edges, 2 * dw.numel(), x, *table, width, n, x, g, dw)
    return dw


class _ScalarSum(Function):
    """`s_i = Σ_j x_j w`: [N,D], [E,D] -> [N,D]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, table: _Table) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.table = table
        return _scalar_sum(x, w, table)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        given = ctx.saved_tensors
        return *_ScalarSlopes.apply(g, *given, ctx.table, *native.wanted(ctx, *given)), None


class _ScalarSlopes(Function):
    """`dx_j = Σ_i g_i w` and `dw = g_i x_j`, None where not wanted."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, table: _Table, want_x: bool, want_w: bool) -> Any:
        # What is saved must be what was given: a copy made here would not know where it came from.
        ctx.save_for_backward(g, x, w)
        ctx.table = table
        ctx.set_materialize_grads(False)
        g = g.contiguous()
        return _scalar_sum(g, w, table.turned) if want_x else None, _scalar_edges(g, x, table) if want_w else None

    @staticmethod
    def backward(ctx: Any, hx: Tensor | None, hw: Tensor | None) -> Any:
        g, x, w = ctx.saved_tensors
        table, dg, dx, dw = ctx.table, None, None, None
        want_g, want_x, want_w = native.wanted(ctx, g, x, w)
        hx, hw = (None if value is None else value.contiguous() for value in (hx, hw))
        if torch.is_grad_enabled():
            if hx is not None:
                dg = _ScalarSum.apply(hx, w, table)
                _, dw = _ScalarSlopes.apply(g, hx, w, table, False, want_w)
            if hw is not None:
                dg = _added(dg, _ScalarSum.apply(x, hw, table))
                dx, _ = _ScalarSlopes.apply(g, x, hw, table, want_x, False)
            return dg, dx, dw, None, None, None
        g = g.contiguous()
        if hx is not None and hw is not None and want_g:
            dg, (n, width) = torch.empty_like(x), x.shape
            native.run(_kernels().scalar_second_sum, width, 4 * w.numel(), x, *table, width, n, hx, w, x, hw, dg)
        elif hx is not None:
            dg = _scalar_sum(hx, w, table)
        elif hw is not None:
            dg = _scalar_sum(x, hw, table)
        if hw is not None and want_x:
            dx = _scalar_sum(g, hw, table.turned)
        if hx is not None and want_w:
            dw = _scalar_edges(g, hx, table)
        return dg, dx, dw, None, None, None


# ---- scalars and vectors


def vector_sum(x: Tensor, v: Tensor | None, w: Tensor, u: Tensor, table: _Table) -> tuple[Tensor, Tensor]:
    n, rows, width = x.shape[0], w.shape[1], w.shape[2]
    s, m = x.new_empty((n, width)), x.new_empty((n, 3, width))
    native.run(_kernels().vector_sum, width, 4 * w.numel(), x, *table, rows, width, n, x, v, w, u, s, m)
    return s, m


def vector_spread(g: Tensor, G: Tensor, v: Tensor | None, w: Tensor, u: Tensor, table: _Table) -> Any:
    n, rows, width = g.shape[0], w.shape[1], g.shape[1]
    dx, dv = g.new_empty((n, 2 * width)), None if v is None else torch.empty_like(v)
    sizes = (rows, width, n)
    native.run(_kernels().vector_spread, width, 3 * w.numel(), g, *table, *sizes, g, G, w, u, dx, dv)
    return dx, dv


def vector_edges(
    g: Tensor, G: Tensor, x: Tensor, v: Tensor | None, w: Tensor, u: Tensor, table: _Table, want_w: bool, want_u: bool
) -> Any:
    dw, du = torch.empty_like(w) if want_w else None, torch.empty_like(u) if want_u else None
    n_edges, rows, width = w.shape
    native.run(
        _kernels().vector_edges, n_edges, 6 * w.numel(), g, *table, rows, width, g.shape[0], x, v, w, u, g, G, dw, du
    )
    return dw, du


class _VectorSum(Function):
    """`s_i = Σ_j x₂_j w₃`, `m_i = Σ_j u x₁_j w₂ + v_j w₁`: x [N,2D], v [N,3,D] or None, w [E,3 or 2,D], u [E,3]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor | None, w: Tensor, u: Tensor, table: _Table) -> Any:
        ctx.save_for_backward(x, v, w, u)
        ctx.table = table
        return vector_sum(x, v, w, u, table)

    @staticmethod
    def backward(ctx: Any, g: Tensor, G: Tensor) -> Any:
        given = ctx.saved_tensors
        return *_VectorSlopes.apply(g, G, *given, ctx.table, native.wanted(ctx, *given)), None


class _VectorSlopes(Function):
    """Slopes of T in x, v, w and u; None where not wanted."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, G: Tensor, x: Tensor, v: Tensor | None, w: Tensor, u: Tensor, table: _Table, wanted: Any
    ) -> Any:
        ctx.save_for_backward(g, G, x, v, w, u)
        ctx.table = table
        ctx.set_materialize_grads(False)
        g, G = g.contiguous(), G.contiguous()
        dx = dv = dw = du = None
        if wanted[0] or wanted[1]:
            dx, dv = vector_spread(g, G, v, w, u, table)
        if wanted[2] or wanted[3]:
            dw, du = vector_edges(g, G, x, v, w, u, table, *wanted[2:])
        return dx, dv, dw, du

    @staticmethod
    def backward(ctx: Any, hx: Tensor | None, hv: Tensor | None, hw: Tensor | None, hu: Tensor | None) -> Any:
        g, G, x, v, w, u = ctx.saved_tensors
        table, wanted = ctx.table, native.wanted(ctx, *ctx.saved_tensors)
        # Contiguous, as what is given to the functions must be.
        hx = torch.zeros_like(x) if hx is None else hx.contiguous()
        hv = torch.zeros_like(v) if hv is None and v is not None else None if hv is None else hv.contiguous()
        hw = torch.zeros_like(w) if hw is None else hw.contiguous()
        hu = torch.zeros_like(u) if hu is None else hu.contiguous()
        if torch.is_grad_enabled():
            return *_second_by_parts(g, G, x, v, w, u, hx, hv, hw, hu, table), None, None
        g, G = g.contiguous(), G.contiguous()
        kernels, n, (n_edges, rows, width) = _kernels(), x.shape[0], w.shape
        dg, dG, dx, dv, dw, du = torch.empty_like(g), torch.empty_like(G), None, None, None, None
        sizes, work = (rows, width, n), 8 * w.numel()
        native.run(
            kernels.vector_second_sum, width, work, x, *table, *sizes, x, v, w, u, hx, hv, hw, hu, dg, dG
        )  # fmt: skip
        if wanted[2] or wanted[3]:
            dx, dv = torch.empty_like(x), None if v is None else torch.empty_like(v)
            native.run(
                kernels.vector_second_spread, width, work, x, *table, *sizes,
                g, G, w, u, hw, hu, dx, dv,
            )  # fmt: skip
        if wanted[4] or wanted[5]:
            dw, du = torch.empty_like(w) if wanted[4] else None, torch.empty_like(u) if wanted[5] else None
            native.run(
                kernels.vector_second_edges, n_edges, work, x, *table, *sizes,
                x, w, u, hx, hv, hw, hu, g, G, dw, du,
            )  # fmt: skip
        return dg, dG, dx, dv, dw, du, None, None


def _second_by_parts(
    g: Tensor, G: Tensor, x: Tensor, v: Tensor | None, w: Tensor, u: Tensor,
    hx: Tensor, hv: Tensor | None, hw: Tensor, hu: Tensor, table: _Table,
) -> Any:  # fmt: skip
    """Slopes of the three summands, differentiable again."""
    # The third summand is T without its first and last term.
    only = torch.zeros(w.shape[1], 1, dtype=w.dtype)
    only[-2] = 1
    along = w * only
    sums = [_VectorSum.apply(*given, table) for given in ((hx, hv, w, u), (x, v, hw, u), (x, v, along, hu))]
    _, _, dw1, du1 = _VectorSlopes.apply(g, G, hx, hv, w, u, table, (False, False, True, True))
    dx2, dv2, _, du2 = _VectorSlopes.apply(g, G, x, v, hw, u, table, (True, True, True, True))
    dx3, dv3, dw3, _ = _VectorSlopes.apply(g, G, x, v, along, hu, table, (True, True, True, False))
    dg, dG = (_added(*parts) for parts in zip(*sums, strict=True))
    return dg, dG, dx2 + dx3, _added(dv2, dv3), dw1 + dw3 * only, du1 + du2


@register("fused", serves=lambda edges, x, *_: native.serves(x), mirrored=True)
def fused(
    edges: Edges, x: Tensor, basis: Tensor, weight: Tensor | None, unit: Tensor | None, vector: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Filters by one matrix product, sums in compiled loops."""
    filters = (basis if weight is None else basis @ weight).to(x.dtype)
    if len(filters) != len(edges.sender):
        raise ModelError("no filter for every edge", expected=len(edges.sender), found=len(filters))
    x, filters = x.contiguous(), filters.contiguous()
    if unit is None:
        return _ScalarSum.apply(x, filters, table_of(edges)), None
    width, rows = x.shape[1] // 2, 2 if vector is None else 3
    vector = None if vector is None else vector.contiguous()
    return _VectorSum.apply(x, vector, filters.view(-1, rows, width), unit.to(x.dtype).contiguous(), table_of(edges))
