"""PaiNN for energies and forces alone: its layers forwards and backwards by hand, without autograd.

Inside `mlipkit.ops.positions_only` nobody asks for slopes in the weights or for slopes of slopes. Then a layer keeps
what its own slopes need and nothing else, and small structures, whose time goes into operator calls, need a third of
them. The loops are those of `mlipkit.ops.fused` and `mlipkit.ops.gating`: results are those of the layers themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu

from mlipkit.ops import Edges, fused, gating

Blocks = list[tuple[Any, Any]]
"""Message and update of each layer (`mlipkit.models.painn`)."""

_silu_backward = torch.ops.aten.silu_backward


def serves(layers: Blocks, basis: Tensor) -> bool:
    """Whether the layers are plain ones and compiled loops may be used."""
    return gating.compiled(basis) and all(
        type(layer) is nn.Linear
        for exchange, update in layers
        for layer in (exchange.mix_in, exchange.mix_out, exchange.filter, update.uv, *list(update.mix)[::2])
    )


class Layers(Function):
    """(s, v) of all layers: start [N,D], basis [E,K+1], unit [E,3] -> [N,D], [N,3,D]; slopes in basis and unit only."""

    @staticmethod
    def forward(ctx: Any, basis: Tensor, unit: Tensor, s: Tensor, layers: Blocks, edges: Edges) -> Any:
        table, kept, v = fused.table_of(edges), [], None
        for exchange, update in layers:
            s, v, own = _forwards(exchange, update, s, v, basis, unit, table)
            kept.append(own)
        ctx.kept, ctx.layers, ctx.table, ctx.unit = kept, layers, table, unit
        return s, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gs: Tensor, gv: Tensor) -> Any:
        d_basis = d_unit = None
        for (exchange, update), kept in reversed(list(zip(ctx.layers, ctx.kept, strict=True))):
            gs, gv, dw, du = _backwards(exchange, update, kept, gs, gv, ctx.unit, ctx.table)
            # [K,E] is several times faster to make than [E,K].
            slope = kept[-1] @ dw.flatten(1).t()
            d_basis = slope if d_basis is None else d_basis.add_(slope)
            d_unit = du if d_unit is None else d_unit.add_(du)
        return d_basis.t() if d_basis is not None else None, d_unit, None, None, None


def _forwards(exchange: Any, update: Any, s: Tensor, v: Tensor | None, basis: Tensor, unit: Tensor, table: Any) -> Any:
    width = s.shape[1]
    before = linear(s, exchange.mix_in.weight, exchange.mix_in.bias)
    weight = torch.cat([exchange.filter.weight.t(), exchange.filter.bias.unsqueeze(0)])
    if v is None:
        weight = weight[:, width:]
        x = linear(silu(before), exchange.mix_out.weight[width:], exchange.mix_out.bias[width:])
        carry = moved = None
    else:
        c = linear(silu(before), exchange.mix_out.weight, exchange.mix_out.bias)
        carry, x = c[:, :width].contiguous(), c[:, width:].contiguous()
        moved = gating.run("scale", carry, v, carry, torch.empty_like(v))
    filters = (basis @ weight).view(len(basis), 2 if v is None else 3, width)
    ds, dv = fused.vector_sum(x, moved, filters, unit, table)
    s1, v1 = ds.add_(s), dv if v is None else dv.add_(v)
    uv = linear(v1, update.uv.weight, update.uv.bias)
    first, _, last = update.mix
    joined = gating.run("norms", s1, update.epsilon, uv, s1, s.new_empty((len(s), 2 * width)))
    inner = linear(joined, first.weight, first.bias)
    a = linear(silu(inner), last.weight, last.bias)
    s2, v2 = torch.empty_like(s1), torch.empty_like(v1)
    gating.run("gate", s1, s1, v1, uv, a, s2, v2)
    return s2, v2, (v, before, x, carry, moved, filters, uv, joined, inner, a, weight)


def _backwards(exchange: Any, update: Any, kept: Any, gs: Tensor, gv: Tensor, unit: Tensor, table: Any) -> Any:
    v, before, x, carry, moved, filters, uv, joined, inner, a, _ = kept
    gs, gv, width = gs.contiguous(), gv.contiguous(), gs.shape[1]
    first, _, last = update.mix
    duv, da = torch.empty_like(uv), torch.empty_like(a)
    gating.run("gate_slopes", gs, gs, gv, uv, a, duv, da)
    dx = _silu_backward(da @ last.weight, inner) @ first.weight
    duv_norm, ds_norm = torch.empty_like(uv), torch.empty_like(gs)
    gating.run("norms_slopes", gs, dx, uv, joined, duv_norm, ds_norm)
    gs = ds_norm.add_(gs)
    gv = torch.addmm(gv.view(-1, width), duv.add_(duv_norm).view(-1, 2 * width), update.uv.weight).view(gv.shape)
    dw, du = fused.vector_edges(gs, gv, x, moved, filters, unit, table, True, True)
    if v is None:  # what the first layer starts from hangs on no position
        return gs, gv, dw, du
    dx, d_moved = fused.vector_spread(gs, gv, moved, filters, unit, table)
    dc = gs.new_empty((len(gs), 3 * width))
    d_carry, dv = torch.empty_like(carry), torch.empty_like(v)
    gating.run("scale_slopes", carry, d_moved, v, carry, dv, d_carry)
    torch.cat([d_carry, dx], dim=1, out=dc)
    hidden = _silu_backward(dc @ exchange.mix_out.weight, before)
    return torch.addmm(gs, hidden, exchange.mix_in.weight), dv.add_(gv), dw, du
