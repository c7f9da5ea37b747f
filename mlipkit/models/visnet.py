"""ViSNet: attention over neighbours, with spherical harmonics up to l = 2 (Wang et al., Nat. Commun. 15, 313, 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlipkit.errors import ModelError
from mlipkit.models.bases import cosine_cutoff, exponential, linear, polar
from mlipkit.models.encoder import N_TYPES, Encoder, Features
from mlipkit.ops import Edges, gather, message
from mlipkit.ops.attend import Arcs, attend
from mlipkit.ops.vectors import carry, mixed, rejected


def exp_normal(d: Tensor, cutoff: float, n: int) -> Tensor:
    """`exp(-β (e^{-α d} - μ_k)²)`, μ_k = linspace(e^{-rc}, 1, n), α = 5/rc, β = (2/n (1 - e^{-rc}))^-2. -> [E,n]."""
    start = math.exp(-cutoff)
    centres = torch.linspace(start, 1.0, n, dtype=d.dtype, device=d.device)
    beta = (2.0 / n * (1.0 - start)) ** -2
    return exponential((torch.exp(d * (-5.0 / cutoff)).unsqueeze(-1) - centres).square(), -beta)


def harmonics(unit: Tensor, lmax: int) -> Tensor:
    """Real spherical harmonics of unit vectors [E,3], `|Y_l| = 1` for each l: l = 1 is (x, y, z). -> [E,3] or [E,8]."""
    if lmax == 1:
        return unit
    x, y, z = unit.unbind(-1)
    root = math.sqrt(3.0)
    second = [root * x * z, root * x * y, y * y - 0.5 * (x * x + z * z), root * y * z, 0.5 * root * (z * z - x * x)]
    return torch.cat([unit, torch.stack(second, dim=-1)], dim=-1)


def _stacked(width: int, *parts: int, bias: bool = True) -> nn.Linear:
    """Maps D -> parts_k D as one, each with the Xavier-uniform start that it would have alone."""
    layer = linear(width, sum(parts) * width, bias=bias)
    for block in layer.weight.data.split([part * width for part in parts]):
        nn.init.xavier_uniform_(block)
    return layer


def _rows(layer: nn.Linear, x: Tensor, start: int, stop: int | None = None) -> Tensor:
    """`layer(x)`, some of its outputs only."""
    bias = None if layer.bias is None else layer.bias[start:stop]
    return nn.functional.linear(x, layer.weight[start:stop], bias)


@dataclass(frozen=True)
class _Geometry:
    """What all layers know about the edges: cutoff function [E], that of the vector messages [E], Y [E,M]."""

    arcs: Arcs
    cutoff: Tensor
    envelope: Tensor
    harmonics: Tensor


class Interaction(nn.Module):
    """One ViSNet layer.

    `att_ij = SiLU(Σ_head q_i k_j dk_ij) fc`, `m_ij = att val_j dv_ij`, `(s1, s2) = SiLU(Lin m_ij)`;
    `V_i = Σ_j v_j ∘ s1 + Y_ij ∘ s2`, `(o1, o2, o3) = Lin Σ_j m_ij`;
    `x += <v1, v2> ∘ o2 + o3`, `v += v3 ∘ o1 + V`, `f += SiLU(Lin f) ∘ <Rej(W_t v_i, Y), Rej(W_s v_j, -Y)>`.

    The first layer gets no vectors and leaves the parts of its maps idle that act on them; the last one has no edge
    update. Until the first edge update f is the same in both directions of a pair, and made once for both.
    """

    def __init__(self, width: int, heads: int, last: bool) -> None:
        super().__init__()
        self.width, self.heads, self.last = width, heads, last
        self.norm = nn.LayerNorm(width)
        self.query_key_value = _stacked(width, 1, 1, 1)
        # Rows: dk, dv, and SiLU(Lin f) of the edge update.
        self.edge = _stacked(width, 1, 1) if last else _stacked(width, 1, 1, 1)
        # Rows: v1, v2, v3, and W_t, W_s of the edge update.
        self.vector = _stacked(width, 3, bias=False) if last else _stacked(width, 3, 1, 1, bias=False)
        self.spread = linear(width, 2 * width)
        self.out = linear(width, 3 * width)

    def forward(self, x: Tensor, v: Tensor | None, f: Tensor, geometry: _Geometry) -> tuple[Tensor, Tensor, Tensor]:
        width, arcs, y, envelope = self.width, geometry.arcs, geometry.harmonics, geometry.envelope
        qkv = self.query_key_value(self.norm(x))
        m, total = attend(arcs, qkv, _rows(self.edge, f, 0, 2 * width), geometry.cutoff, self.heads)
        if v is None:
            v = carry(arcs, None, _rows(self.spread, m, width), y, envelope)
            return x + _rows(self.out, total, 2 * width), v, f
        moved = carry(arcs, v, self.spread(m), y, envelope)
        dx, dv = mixed(_rows(self.vector, v, 0, 3 * width), self.out(total))
        if not self.last:
            # Slices of a map's output would meet their gradients in a copy of all of it.
            f = rejected(arcs, f, _rows(self.edge, f, 2 * width), _rows(self.vector, v, 3 * width), y)
        return x + dx, v + dv + moved, f


class ViSNet(Encoder):
    """ViSNet encoder: scalars [N,D] and vectors [N,3,D], with lmax 2 also components of degree two [N,5,D].

    | symbol | argument | default | published |
    |---|---|---|---|
    | D | features | 64 | 128 (PyG), 256 (MD22) |
    | L | layers | 3 | 6, 9 |
    | H | heads; D is a multiple | 8 | 8 |
    | K | n_radial | 32 | 32 |
    | rc | cutoff, Å | 5.0 | 5.0 |
    | | lmax, 1 or 2 | 1 | 1, 2 |
    | | envelope, `(s1, s2) fc(d_ij)` | True | False: bias and SiLU make vectors jump as a pair crosses the cutoff |
    | | self_loops, an atom is its own neighbour at d = 0 in the attention | False | True (PyG) |

    No largest number of neighbours: with one, the energy is discontinuous.
    """

    takes_pairs = True

    def __init__(
        self,
        features: int = 64,
        layers: int = 3,
        cutoff: float = 5.0,
        n_radial: int = 32,
        heads: int = 8,
        lmax: int = 1,
        envelope: bool = True,
        self_loops: bool = False,
    ) -> None:
        super().__init__()
        if heads < 1 or features % heads:
            raise ModelError(
                "heads do not divide the features", where=("encoder", "visnet"),
                expected=f"a divisor of {features}", found=heads,
            )  # fmt: skip
        if lmax not in (1, 2):
            raise ModelError("no such lmax", where=("encoder", "visnet"), expected="1 or 2", found=lmax)
        self.cutoff, self.width, self.n_radial = float(cutoff), features, n_radial
        self.heads, self.lmax, self.envelope, self.self_loops = heads, lmax, envelope, self_loops
        self.embedding = nn.Embedding(N_TYPES, features)
        self.neighbour_embedding = nn.Embedding(N_TYPES, features)
        self.neighbour_filter = linear(n_radial, features)
        self.combine = linear(2 * features, features)
        self.edge_filter = linear(n_radial, features)
        self.layers = nn.ModuleList(Interaction(features, heads, k == layers - 1) for k in range(layers))
        self.norm = nn.LayerNorm(features)

    def options(self) -> dict[str, bool | int | float | str]:
        return {
            "features": self.width,
            "layers": len(self.layers),
            "cutoff": self.cutoff,
            "n_radial": self.n_radial,
            "heads": self.heads,
            "lmax": self.lmax,
            "envelope": self.envelope,
            "self_loops": self.self_loops,
        }

    def forward(self, numbers: Tensor, edge_index: Tensor, edge_vectors: Tensor, mirrored: bool = False) -> Features:
        n = numbers.shape[0]
        d, unit = polar(edge_vectors)
        y = harmonics(unit, self.lmax)
        cutoff = cosine_cutoff(d, self.cutoff)
        radial = exp_normal(d, self.cutoff, self.n_radial) * cutoff.unsqueeze(-1)
        x = self._embed(numbers, Edges(edge_index, n, mirrored), radial, cutoff.unsqueeze(-1))
        arcs, ends = Arcs(edge_index, n, mirrored), edge_index
        if mirrored:
            y = torch.cat([y, torch.cat([-y[:, :3], y[:, 3:]], dim=-1)])
        if self.self_loops:
            arcs, ends = (
                arcs.with_loops(),
                torch.cat([edge_index, torch.arange(n, device=d.device).expand(2, n)], dim=1),
            )
            d, y = torch.cat([d, d.new_zeros(n)]), torch.cat([y, y.new_zeros((n, y.shape[1]))])
            cutoff = cosine_cutoff(d, self.cutoff)
            radial = exp_normal(d, self.cutoff, self.n_radial) * cutoff.unsqueeze(-1)
        # The cutoff function is inside m_ij; SiLU of a map with a bias is not zero where m_ij is.
        envelope = cutoff if self.envelope else (d < self.cutoff).to(d.dtype)
        geometry = _Geometry(arcs, arcs.each(cutoff), arcs.each(envelope), y)
        f = (gather(x, ends[0]) + gather(x, ends[1])) * self.edge_filter(radial)
        v: Tensor | None = None
        for layer in self.layers:
            x, v, f = layer(x, v, f, geometry)
        assert v is not None
        return Features(self.norm(x), v[:, :3], v[:, 3:] if self.lmax == 2 else None)

    def _embed(self, numbers: Tensor, edges: Edges, radial: Tensor, cutoff: Tensor) -> Tensor:
        """`Lin([Emb z_i, Σ_j Emb'(z_j) ∘ (Lin e(d_ij)) fc])`, without self-loops."""
        basis = torch.cat([radial * cutoff, cutoff], dim=-1)
        # The bias is one more row of the filter map, on the cutoff function itself.
        weight = torch.cat([self.neighbour_filter.weight.t(), self.neighbour_filter.bias.unsqueeze(0)])
        around = message(edges, self.neighbour_embedding(numbers), basis, weight)
        return self.combine(torch.cat([self.embedding(numbers), around], dim=-1))
