"""Radial bases, cutoff function and activation (methods: SchNet, NeurIPS 30, 2017; PaiNN, ICML 2021).

All take distances d [E] in Å. Constants are made in the dtype of `d`, so that a float64 model is exact to float64.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from mlipkit.ops.gating import silu

# Below this distance (Å) the direction of an edge is taken as zero and its length as this one: two atoms on one
# point, which noise on positions can make, then have finite derivatives of any order.
SHORTEST = 1e-4


def polar(edge_vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Length d [E] in Å and unit vector [E,3] of `edge_vectors` [E,3], safe at zero length."""
    d = edge_vectors.square().sum(-1).clamp(min=SHORTEST**2).sqrt()
    return d, edge_vectors / d.unsqueeze(-1)


def cosine_cutoff(d: Tensor, cutoff: float) -> Tensor:
    """`fc(d) = ½ (cos(π d / rc) + 1)` below rc, exactly 0 with all derivatives at and beyond it. [E] -> [E]."""
    return torch.where(d < cutoff, 0.5 * torch.cos(d * (math.pi / cutoff)) + 0.5, 0.0)


def bessel(d: Tensor, cutoff: float, n: int) -> Tensor:
    """`φ_k(d) = sin(k π d / rc) / d`, k = 1..n (PaiNN). [E] -> [E,n], 1/Å."""
    k = torch.arange(1, n + 1, dtype=d.dtype, device=d.device) * (math.pi / cutoff)
    d = d.unsqueeze(-1)
    return torch.sin(d * k) / d


def exponential(x: Tensor, rate: float) -> Tensor:
    """`e^(rate x)`, as a power of two: on a CPU `torch.exp` takes twelve times as long where its result underflows, as
    it does for most of the Gaussians of an edge, and four times as long elsewhere."""
    return torch.exp2(x * (rate / math.log(2.0)))


def gaussians(d: Tensor, cutoff: float, n: int) -> Tensor:
    """`g_k(d) = exp(-(d - μ_k)² / (2 δ²))`, μ_k = linspace(0, rc, n), δ = μ_2 - μ_1 (SchNet). [E] -> [E,n]."""
    centres = torch.linspace(0.0, cutoff, n, dtype=d.dtype, device=d.device)
    width = cutoff / (n - 1)
    return exponential((d.unsqueeze(-1) - centres).square(), -0.5 / width**2)


def shifted_softplus(x: Tensor) -> Tensor:
    """`ssp(a) = ln(½ e^a + ½)`, zero at zero."""
    return nn.functional.softplus(x) - math.log(2.0)


class SiLU(nn.Module):
    """`x σ(x)` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return silu(x)


class ShiftedSoftplus(nn.Module):
    """`shifted_softplus` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return shifted_softplus(x)


def linear(n_in: int, n_out: int, *, bias: bool = True) -> nn.Linear:
    """Linear map with Xavier-uniform weights and zero bias, the start of every encoder and head here."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def mlp(*widths: int, activation: type[nn.Module] = SiLU) -> nn.Sequential:
    """`MLP_[a,b,c]`: linear maps a->b->c with the activation between them, none after the last."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [linear(n_in, n_out), activation()]
    return nn.Sequential(*layers[:-1])
