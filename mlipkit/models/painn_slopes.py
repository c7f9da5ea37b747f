"""PaiNN for energies and forces alone: from edge vectors to features and back by hand, without autograd.

Inside `mlipkit.ops.positions_only` nobody asks for slopes in the weights or for slopes of slopes. Then a layer keeps
what its own slopes need and nothing else, what hangs on no position is not followed back, and the slope of an edge is
made from the slopes of its filters in the distance: slopes in the basis are never needed. Small structures, whose time
goes into operator calls, need a quarter of them. Results are those of the layers themselves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu

from mlipkit.models.bases import SHORTEST, SiLU
from mlipkit.ops import Edges, fused, gating, native

_silu_backward = torch.ops.aten.silu_backward
Pair = tuple[Tensor, Tensor]
_SHARED = (Tensor, nn.Parameter)


class Weights(NamedTuple):
    """Of one layer: weight and bias of its linear maps, in the order of their use."""

    mix_in: Pair
    mix_out: Pair
    filter: Pair
    uv: Pair
    first: Pair
    last: Pair
    epsilon: float


def weights_of(encoder: nn.Module, like: Tensor) -> list[Weights] | None:
    """Parameters of all layers as they are now; None where compiled loops may not be used or a layer is no plain one.

    Read from the modules' own tables, several times faster than attributes. Nothing is kept from call to call: a
    change of parameters in place does not always show.
    """
    modules, found = encoder._modules, []
    if not gating.compiled(like) or not _plain(modules["embedding"], nn.Embedding):
        return None
    for exchange, update in zip(*(modules[name]._modules.values() for name in ("messages", "updates")), strict=True):  # type: ignore[union-attr]
        outer, inner = exchange._modules, update._modules  # type: ignore[union-attr]
        first, activation, last = inner["mix"]._modules.values()  # type: ignore[union-attr]
        maps = (outer["mix_in"], outer["mix_out"], outer["filter"], inner["uv"], first, last)
        if type(activation) is not SiLU or not all(_plain(layer, nn.Linear) for layer in maps):
            return None
        tables = (layer._parameters for layer in maps)  # type: ignore[union-attr]
        found.append(Weights(*((own["weight"], own["bias"]) for own in tables), update.epsilon))  # type: ignore[arg-type]
    return found


def _plain(layer: Any, kind: type[nn.Module]) -> bool:
    """Whether its parameters say all: of this very class, not wrapped, hooked or made from others at every call."""
    own = layer._parameters
    hooks = layer._forward_hooks or layer._forward_pre_hooks
    return type(layer) is kind and "weight" in own and (kind is nn.Embedding or "bias" in own) and not hooks


class Layers(Function):
    """(s, v) of all layers: edge vectors [E,3] -> [N,D], [N,3,D]; slopes in the edge vectors only."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, numbers: Tensor, encoder: Any, layers: list[Weights], edges: Edges) -> Any:
        ctx.set_materialize_grads(False)
        table, kept, v = fused.table_of(edges), [], None
        ray, basis, slope = _radial(vectors, encoder.n_radial, encoder.cutoff)
        s, mixed = _start(encoder.embedding.weight, numbers, layers[0])
        for own in layers:
            s, v, passed = _forwards(own, s, v, mixed, basis, ray, table)
            kept.append(passed)
            mixed = None
        # Nothing that is given back: a result that knew this node and was known by it would outlive both.
        ctx.given = layers, kept, ray, slope, table, s.shape
        if count := native.counter():
            for tensor in (ray, slope, *(one for passed in kept for one in passed if one is not None)):
                count(tensor)
        return s, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gs: Tensor | None, gv: Tensor | None) -> Any:
        layers, kept, ray, slope, table, shape = ctx.given
        dr = ray.new_zeros((len(ray), 3))
        gs = ray.new_zeros(shape) if gs is None else gs.contiguous()
        gv = None if gv is None else gv.clone(memory_format=torch.contiguous_format)  # it is added to
        for own, passed in zip(reversed(layers), reversed(kept), strict=True):
            assert gs is not None
            gs, gv = _backwards(own, passed, gs, gv, slope, ray, table, dr)
        return dr, None, None, None, None


def _radial(vectors: Tensor, n_radial: int, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    kernels, n = _kernels(), len(vectors)
    ray = vectors.new_empty((n, kernels.RAY))
    basis, slope = vectors.new_empty((2, n, n_radial + 1))
    native.run(
        kernels.radial, n, 8 * basis.numel(), basis, n, n_radial, cutoff, SHORTEST, vectors.contiguous(),
        ray, basis, slope,
    )  # fmt: skip
    return ray, basis, slope


def _start(embedding: Tensor, numbers: Tensor, own: Weights) -> tuple[Tensor, Tensor]:
    """Features that the first layer starts from, and what its message makes of them: once per type where that pays."""
    n, (weight, bias) = len(numbers), own.mix_out
    # Anything but a plain table may hold one for each structure: then no two atoms are alike.
    shared = type(embedding) in _SHARED
    types = embedding[: int(numbers.max()) + 1] if n and shared else embedding
    s = embedding.index_select(0, numbers) if shared else nn.functional.embedding(numbers, embedding)
    few, width = shared and len(types) < n, s.shape[1]
    # The first layer has no vectors: their third of the map is never computed.
    mixed = linear(silu(linear(types if few else s, *own.mix_in)), weight[width:], bias[width:])
    return s, mixed.index_select(0, numbers) if few else mixed


def _forwards(
    own: Weights, s: Tensor, v: Tensor | None, mixed: Tensor | None, basis: Tensor, ray: Tensor, table: Any
) -> Any:
    n, width = s.shape
    before = moved = None
    if mixed is None:
        before = linear(s, *own.mix_in)
        mixed, moved = linear(silu(before), *own.mix_out), torch.empty_like(v)  # type: ignore[arg-type]
    rows = mixed.shape[1] // width
    # Filters are linear in basis and cutoff function, the last column: the bias is its weight.
    filters = torch.cat([own.filter[0], own.filter[1].unsqueeze(1)], dim=1)[-rows * width :].t()
    w = basis @ filters
    s1, v1 = torch.empty_like(s), s.new_empty((n, 3, width))
    native.run(_kernels().exchange, width, 4 * w.numel(), s, *table, rows, width, n, mixed, s, v, w, ray, moved, s1, v1)
    uv = linear(v1, *own.uv)
    joined = gating.run("norms", s1, own.epsilon, uv, s1, s.new_empty((n, 2 * width)))
    inner = linear(joined, *own.first)
    a = linear(silu(inner), *own.last)
    s2, v2 = torch.empty_like(s), torch.empty_like(v1)
    gating.run("gate", s1, s1, v1, uv, a, s2, v2)
    return s2, v2, (v, before, mixed, moved, filters, w, uv, joined, inner, a)


def _backwards(
    own: Weights, passed: Any, gs: Tensor, gv: Tensor | None, slope: Tensor, ray: Tensor, table: Any, dr: Tensor
) -> Any:
    v, before, mixed, moved, filters, w, uv, joined, inner, a = passed
    kernels, (n, width) = _kernels(), gs.shape
    # Where nobody asks for vectors, their third of the update has no slope.
    rows = 2 if gv is None else 3
    da, ds = gs.new_empty((n, rows * width)), torch.empty_like(gs)
    native.run(kernels.update_mix, n, 8 * gs.numel(), gs, rows, width, n, gs, gv, uv, da)
    gx = _silu_backward(da @ own.last[0][-rows * width :], inner) @ own.first[0]
    duv = torch.empty_like(uv)
    native.run(kernels.update_uv, n, 16 * gs.numel(), gs, width, n, gs, gv, gx, uv, joined, a, duv, ds)
    flat = duv.view(-1, 2 * width)
    gv = flat @ own.uv[0] if gv is None else gv.view(-1, width).addmm_(flat, own.uv[0])
    n_edges, rows = len(ray), mixed.shape[1] // width
    wd = slope @ filters
    native.run(
        kernels.exchange_edges, n_edges, 6 * w.numel(), gs, *table, rows, width, n,
        ds, gv, mixed, moved, w, wd, ray, dr,
    )  # fmt: skip
    if v is None:  # what the first layer starts from hangs on no position
        return None, None
    dc, dv = torch.empty_like(mixed), torch.empty_like(v)
    native.run(kernels.exchange_atoms, width, 3 * w.numel(), gs, *table, width, n, ds, gv, mixed, v, w, ray, dc, dv)
    return ds.addmm_(_silu_backward(dc @ own.mix_out[0], before), own.mix_in[0]), dv


def _kernels() -> Any:
    return native.kernels("painn_kernels")
