"""DT-EGNN, the network of Dynamic Training: random Fourier features of distances (Tancik et al., NeurIPS 33, 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

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
        phase = d.unsqueeze(-1) * self.frequencies
        first, *rest = self.message
        assert isinstance(first, nn.Linear)
        # The first map is linear in each part of [h_i, h_j, γ]: the atoms' parts are mapped before they are gathered.
        receiving, sending, fourier = first.weight.split([self.width, self.width, 2 * phase.shape[1]], dim=1)
        m = nn.functional.linear(torch.cat([phase.sin(), phase.cos()], dim=-1), fourier, first.bias)
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
