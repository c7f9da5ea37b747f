"""The steps between PaiNN's linear maps, per atom and feature: plain formulas, and one compiled loop each on the CPU.

    scaled(v, c)          v_k c                                            vectors times a scalar factor
    norms(uv, s)          (√(Σ (V v)_k² + ε), s)                           what the update's MLP reads
    gate(s, v, uv, a)     s + a_ss + a_sv Σ (U v)_k (V v)_k,  v_k + a_vv (U v)_k
    silu(x)               x σ(x)

Plain PyTorch needs ten to sixty operator calls for one of these and its derivatives; a loop reads and writes every
number once. First and second derivatives are loops; third ones are those of the plain formulas of the second.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from mlipkit.ops import native
from mlipkit.ops.message import forced


def compiled(x: Tensor) -> bool:
    """Whether loops are taken for this tensor."""
    return forced() in (None, "fused") and native.serves(x)


def run(name: str, like: Tensor, *arguments: Any) -> Any:
    """Run a loop of `atom_kernels` over the N atoms and D features of `like` [N,D]; gives its last argument."""
    n, width = like.shape[0], like.shape[-1]
    kernel = getattr(native.kernels("atom_kernels"), name)
    native.run(kernel, n, 8 * like.numel(), like, width, n, *arguments)
    return arguments[-1]


def _filled(*pairs: tuple[Tensor | None, Tensor]) -> list[Tensor]:
    """Partners of slopes, zero where nobody asked, contiguous."""
    return [torch.zeros_like(like) if h is None else h.contiguous() for h, like in pairs]


# ---- v c


def scaled(v: Tensor, c: Tensor) -> Tensor:
    """`v_k c`: [N,3,D], [N,D] -> [N,3,D]."""
    if not compiled(v):
        return v * c.unsqueeze(1)
    return _Scale.apply(v.contiguous(), c.contiguous())


class _Scale(Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, c: Tensor) -> Tensor:
        ctx.save_for_backward(v, c)
        out = torch.empty_like(v)
        run("scale", c, v, c, out)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _ScaleSlopes.apply(g.contiguous(), *ctx.saved_tensors)


class _ScaleSlopes(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, v: Tensor, c: Tensor) -> Any:
        ctx.save_for_backward(g, v, c)
        ctx.set_materialize_grads(False)
        dv, dc = torch.empty_like(v), torch.empty_like(c)
        run("scale_slopes", c, g, v, c, dv, dc)
        return dv, dc

    @staticmethod
    def backward(ctx: Any, hv: Tensor | None, hc: Tensor | None) -> Any:
        g, v, c = ctx.saved_tensors
        hv, hc = _filled((hv, v), (hc, c))
        if torch.is_grad_enabled():
            wide = hc.unsqueeze(1)
            return hv * c.unsqueeze(1) + v * wide, g * wide, (g * hv).sum(1)
        dg, dv, dc = torch.empty_like(v), torch.empty_like(v), torch.empty_like(c)
        run("scale_second", c, g, v, c, hv, hc, dg, dv, dc)
        return dg, dv, dc


# ---- (√(Σ V² + ε), s)


def norms(uv: Tensor, s: Tensor, epsilon: float) -> Tensor:
    """`(√(Σ_k (V v)_k² + ε), s)`: [N,3,2D] (U v, V v), [N,D] -> [N,2D]."""
    if not compiled(s):
        v_v = uv[..., s.shape[1] :]
        return torch.cat([(v_v.square().sum(1) + epsilon).sqrt(), s], dim=-1)
    return _Norms.apply(uv.contiguous(), s.contiguous(), epsilon)


class _Norms(Function):
    @staticmethod
    def forward(ctx: Any, uv: Tensor, s: Tensor, epsilon: float) -> Tensor:
        x = s.new_empty((s.shape[0], 2 * s.shape[1]))
        run("norms", s, epsilon, uv, s, x)
        ctx.save_for_backward(uv, x)
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return *_NormsSlopes.apply(g.contiguous(), *ctx.saved_tensors), None


class _NormsSlopes(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, uv: Tensor, x: Tensor) -> Any:
        ctx.save_for_backward(g, uv, x)
        ctx.set_materialize_grads(False)
        duv, ds = torch.empty_like(uv), x.new_empty((x.shape[0], x.shape[1] // 2))
        run("norms_slopes", ds, g, uv, x, duv, ds)
        return duv, ds

    @staticmethod
    def backward(ctx: Any, huv: Tensor | None, hs: Tensor | None) -> Any:
        g, uv, x = ctx.saved_tensors
        width = x.shape[1] // 2
        huv, hs = _filled((huv, uv), (hs, g[:, :width]))
        if torch.is_grad_enabled():
            # x is a function of uv: its own slope would count that dependence twice, so the norm is made again.
            h, v_v = huv[..., width:], uv[..., width:]
            norm = v_v.square().sum(1) + (x[:, :width].square() - v_v.square().sum(1)).detach()
            norm = norm.sqrt()
            dg = (h * v_v).sum(1) / norm
            slope = g[:, None, :width] * (h - v_v * (dg / norm).unsqueeze(1)) / norm.unsqueeze(1)
            return torch.cat([dg, hs], dim=-1), torch.cat([torch.zeros_like(slope), slope], dim=-1), None
        dg, duv = torch.empty_like(x), torch.empty_like(uv)
        run("norms_second", hs, g, uv, x, huv, hs, dg, duv)
        return dg, duv, None


# ---- the gate


def gate(s: Tensor, v: Tensor, uv: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """`s + a_ss + a_sv Σ (U v)_k (V v)_k`, `v_k + a_vv (U v)_k`.

    Args:
        s: [N,D]. v: [N,3,D]. uv: [N,3,2D], U v and V v. a: [N,3D], (a_vv, a_sv, a_ss).
    """
    if not compiled(s):
        width = s.shape[1]
        u_v, v_v = uv.split(width, dim=-1)
        a_vv, a_sv, a_ss = a.split(width, dim=-1)
        return s + a_ss + a_sv * (u_v * v_v).sum(1), v + a_vv.unsqueeze(1) * u_v
    return _Gate.apply(s.contiguous(), v.contiguous(), uv.contiguous(), a.contiguous())


class _Gate(Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor, v: Tensor, uv: Tensor, a: Tensor) -> Any:
        ctx.save_for_backward(uv, a)
        s_out, v_out = torch.empty_like(s), torch.empty_like(v)
        run("gate", s, s, v, uv, a, s_out, v_out)
        return s_out, v_out

    @staticmethod
    def backward(ctx: Any, gs: Tensor, gv: Tensor) -> Any:
        return gs, gv, *_GateSlopes.apply(gs.contiguous(), gv.contiguous(), *ctx.saved_tensors)


class _GateSlopes(Function):
    @staticmethod
    def forward(ctx: Any, gs: Tensor, gv: Tensor, uv: Tensor, a: Tensor) -> Any:
        ctx.save_for_backward(gs, gv, uv, a)
        ctx.set_materialize_grads(False)
        duv, da = torch.empty_like(uv), torch.empty_like(a)
        run("gate_slopes", gs, gs, gv, uv, a, duv, da)
        return duv, da

    @staticmethod
    def backward(ctx: Any, huv: Tensor | None, ha: Tensor | None) -> Any:
        gs, gv, uv, a = ctx.saved_tensors
        huv, ha = _filled((huv, uv), (ha, a))
        if torch.is_grad_enabled():
            width = gs.shape[1]
            (u, w), (hu, hw) = uv.split(width, dim=-1), huv.split(width, dim=-1)
            (a_vv, a_sv, _), (h_vv, h_sv, h_ss) = (part.unsqueeze(1).split(width, dim=-1) for part in (a, ha))
            q, g = (hu * w + hw * u).sum(1, keepdim=True), gs.unsqueeze(1)
            dgs = (h_ss + h_sv * (u * w).sum(1, keepdim=True) + a_sv * q).squeeze(1)
            da = torch.cat([(hu * gv).sum(1), (g * q).squeeze(1), torch.zeros_like(gs)], dim=-1)
            du, dw = g * (h_sv * w + hw * a_sv) + h_vv * gv, g * (h_sv * u + hu * a_sv)
            return dgs, h_vv * u + hu * a_vv, torch.cat([du, dw], dim=-1), da
        dgs, dgv, duv, da = (torch.empty_like(like) for like in (gs, gv, uv, a))
        run("gate_second", gs, gs, gv, uv, a, huv, ha, dgs, dgv, duv, da)
        return dgs, dgv, duv, da


# ---- silu


def silu(x: Tensor) -> Tensor:
    """`x σ(x)`, any shape."""
    # Only the second derivative has a loop of its own.
    if not x.requires_grad or native.only_positions() or not compiled(x):
        return torch.nn.functional.silu(x)
    return _Silu.apply(x.contiguous())


class _Silu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.nn.functional.silu(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _SiluSlope.apply(g.contiguous(), *ctx.saved_tensors)


class _SiluSlope(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(g, x)
        return torch.ops.aten.silu_backward(g, x)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> Any:
        (g, x), h = ctx.saved_tensors, h.contiguous()
        sigma = torch.sigmoid(x)
        if torch.is_grad_enabled():
            rest = 1 - sigma
            return h * sigma * (1 + x * rest), g * h * sigma * rest * (2 + x * (rest - sigma))
        dg, dx = torch.empty_like(x), torch.empty_like(x)
        kernel = native.kernels("atom_kernels").silu_second  # type: ignore[union-attr]
        native.run(kernel, x.numel(), 6 * x.numel(), x, sigma, x, g, h, dg, dx)
        return dg, dx
