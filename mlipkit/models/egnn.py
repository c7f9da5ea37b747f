"""DT-EGNN, the network of Dynamic Training: random Fourier features of distances (Tancik et al., NeurIPS 33, 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from mlipkit.errors import ModelError, nearest
from mlipkit.models.bases import cosine_cutoff, linear, polar
from mlipkit.models.encoder import N_TYPES, Encoder, Features
from mlipkit.ops import Edges, gather, segment_sum

NORMS: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "none": nn.Identity}
"""No batch statistics: with them a structure's energy would depend on what it is evaluated with."""


def _block(n_in: int, width: int, norm: type[nn.Module]) -> nn.Sequential:
    """`Lin, norm, SiLU, Lin, norm, SiLU`."""
    return nn.Sequential(
        linear(n_in, width), norm(width), nn.SiLU(), linear(width, width), norm(width), nn.SiLU()
    )  # fmt: skip


class _Fourier(Function):
    """`γ(d) = [sin(b d), cos(b d)]`, [E] and [K] to [E,2K]; sines and cosines are computed once for all derivatives."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, b: Tensor) -> Tensor:
        phase = d.unsqueeze(-1) * b
        waves = torch.cat([phase.sin(), phase.cos()], dim=-1)
        ctx.save_for_backward(d, b, waves)
        return waves

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        d, b, waves = ctx.saved_tensors
        return _FourierSlope.apply(slope, d, b, waves.detach()), None


class _FourierSlope(Function):
    """`Σ_k b_k (g_k cos(b_k d) - g_{K+k} sin(b_k d))`, [E,2K] and [E] to [E], with its own derivatives."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, d: Tensor, b: Tensor, waves: Tensor) -> Tensor:
        ctx.save_for_backward(slope, d, b, waves)
        (sine, cosine), (g, h) = waves.chunk(2, dim=-1), slope.chunk(2, dim=-1)
        return torch.mv(torch.addcmul(g * cosine, h, sine, value=-1.0), b)

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> Any:
        slope, d, b, waves = ctx.saved_tensors
        if torch.is_grad_enabled():
            # To be differentiated once more: what was computed before hangs on nothing.
            phase = d.unsqueeze(-1) * b
            waves = torch.cat([phase.sin(), phase.cos()], dim=-1)
        (sine, cosine), (g, h) = waves.chunk(2, dim=-1), slope.chunk(2, dim=-1)
        scaled = weight.unsqueeze(-1) * b
        turned = -weight * torch.mv(torch.addcmul(g * sine, h, cosine), b * b)
        return torch.cat([scaled * cosine, -scaled * sine], dim=-1), turned, None, None


class Interaction(nn.Module):
    """`m_ij = φ_m([h_i, h_j, γ(d_ij)])`, `h_i += φ_u([h_i, Σ_j m_ij])` with `γ(d) = [sin(b d), cos(b d)]`."""

    frequencies: Tensor

    def __init__(self, width: int, n_fourier: int, sigma: float, norm: type[nn.Module]) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("frequencies", torch.randn(n_fourier) * (sigma / math.sqrt(2.0)))
        self.message = _block(2 * width + 2 * n_fourier, width, norm)
        self.update = _block(2 * width, width, norm)

    def forward(self, h: Tensor, edges: Edges, d: Tensor, envelope: Tensor) -> Tensor:
        waves = _Fourier.apply(d, self.frequencies)
        first, *rest = self.message
        assert isinstance(first, nn.Linear)
        # The first map is linear in each part of [h_i, h_j, γ]: the atoms' parts are mapped before they are gathered.
        receiving, sending, fourier = first.weight.split([self.width, self.width, waves.shape[1]], dim=1)
        m = nn.functional.linear(waves, fourier, first.bias)
        m = m + gather(h @ receiving.t(), edges.receiver) + gather(h @ sending.t(), edges.sender)
        for layer in rest:
            m = layer(m)
        total = segment_sum(m * envelope, edges.receiver, edges.n_atoms)
        return h + self.update(torch.cat([h, total], dim=-1))


class EGNN(Encoder):
    """DT-EGNN encoder: scalars only, in spite of the name; forces come from the derivative.

    | symbol | argument | default | published (DT) |
    |---|---|---|---|
    | D | features | 64 | 128 |
    | L | layers | 3 | 3 |
    | rc | cutoff, Å | 5.0 | 5.0 |
    | | elements, columns of the one-hot input | all 118 | those of the data set |
    | | n_fourier, frequencies b of each layer (twice as many edge features) | 256 | 256 |
    | σ | sigma, b ~ N(0, σ²)/√2, 1/Å | 4.0 | 4.0 |
    | | norm: "layer" or "none" | layer | layer |
    | | envelope, `m_ij fc(d_ij)` | True | False: energy and forces jump as a pair crosses the cutoff |

    The frequencies are random, differ between layers, are not trained and are saved with the weights. With the head
    `pooled_features` this is the published network (513,281 weights for three elements and D = 128); it is not
    extensive, with `per_atom` it is.
    """

    columns: Tensor

    def __init__(
        self,
        features: int = 64,
        layers: int = 3,
        cutoff: float = 5.0,
        elements: Sequence[int] | None = None,
        n_fourier: int = 256,
        sigma: float = 4.0,
        norm: str = "layer",
        envelope: bool = True,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ModelError(f"unknown norm '{norm}'", where=("encoder", "egnn"), hint=nearest(norm, NORMS))
        given = list(range(1, N_TYPES) if elements is None else elements)
        try:
            known = sorted({int(z) for z in given})
        except (TypeError, ValueError):
            known = []
        if not known or known[0] < 1 or known[-1] >= N_TYPES:
            raise ModelError(
                "no usable element", where=("encoder", "egnn"), expected="atomic numbers 1..118", found=given
            )
        self.cutoff, self.width, self.elements = float(cutoff), features, tuple(known)
        self.n_fourier, self.sigma, self.norm, self.envelope = n_fourier, float(sigma), norm, envelope
        # Row of each type; zero for the mask, so that a hidden type is no column at all.
        columns = torch.zeros(N_TYPES, len(known))
        columns[known, torch.arange(len(known))] = 1.0
        self.register_buffer("columns", columns, persistent=False)
        self.embedding = linear(len(known), features)
        self.layers = nn.ModuleList(Interaction(features, n_fourier, sigma, NORMS[norm]) for _ in range(layers))

    def options(self) -> dict[str, bool | int | float | str | list[int]]:
        return {
            "features": self.width,
            "layers": len(self.layers),
            "cutoff": self.cutoff,
            "elements": list(self.elements or ()),
            "n_fourier": self.n_fourier,
            "sigma": self.sigma,
            "norm": self.norm,
            "envelope": self.envelope,
        }

    def forward(self, numbers: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Features:
        edges = Edges(edge_index, numbers.shape[0])
        d, _ = polar(edge_vectors)
        envelope = cosine_cutoff(d, self.cutoff) if self.envelope else (d < self.cutoff).to(d.dtype)
        h: Tensor = self.embedding(gather(self.columns, numbers))
        for layer in self.layers:
            h = layer(h, edges, d, envelope.unsqueeze(-1))
        return Features(h)
