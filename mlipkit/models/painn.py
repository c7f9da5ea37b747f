"""PaiNN: polarizable atom interaction network, scalars and vectors (Schütt, Unke, Gastegger, ICML 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlipkit.models import painn_slopes
from mlipkit.models.bases import bessel, cosine_cutoff, linear, mlp, polar
from mlipkit.models.encoder import N_TYPES, Encoder, Features
from mlipkit.ops import Edges, message, only_positions
from mlipkit.ops.gating import gate, norms, scaled, silu

# Inside the root of |V v|: the second derivative of a plain norm is NaN at zero (an atom without neighbours).
NORM_EPS = 1e-8


class Message(nn.Module):
    """`(q_vv, q_vs, q_ss) = MLP(s_j) ∘ (Lin φ(d_ij)) fc(d_ij)`; `s += Σ q_ss`, `v += Σ q_vv ∘ v_j + q_vs ∘ u_ij`."""

    def __init__(self, width: int, n_radial: int) -> None:
        super().__init__()
        self.width = width
        self.mix_in = linear(width, width)
        self.mix_out = linear(width, 3 * width)
        self.filter = linear(n_radial, 3 * width)

    def forward(self, s: Tensor, v: Tensor | None, edges: Edges, basis: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        # The bias is one more row of the filter map, on the cutoff function itself (last column of the basis):
        # cutoff and bias then cost nothing per edge and feature.
        weight = torch.cat([self.filter.weight.t(), self.filter.bias.unsqueeze(0)])
        hidden = silu(self.mix_in(s))
        if v is None:
            # The first layer has no vectors: their third of the map and of the filter is never computed.
            a = nn.functional.linear(hidden, self.mix_out.weight[self.width :], self.mix_out.bias[self.width :])
            ds, dv = message(edges, a, basis, weight[:, self.width :], unit)
            return s + ds, dv
        carry, a = self.mix_out(hidden).split([self.width, 2 * self.width], dim=-1)
        ds, dv = message(edges, a, basis, weight, unit, scaled(v, carry))
        return s + ds, v + dv


class Update(nn.Module):
    """`s += a_ss + a_sv ∘ <U v, V v>`, `v += a_vv ∘ U v` with `(a_vv, a_sv, a_ss) = MLP([ν, s])`, `ν = |V v|`."""

    def __init__(self, width: int, vector_bias: bool) -> None:
        super().__init__()
        self.width, self.epsilon = width, NORM_EPS
        # U and V as one map: rows 0..D-1 are U, rows D..2D-1 are V.
        self.uv = linear(width, 2 * width, bias=vector_bias)
        self.mix = mlp(2 * width, width, 3 * width)

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        uv = self.uv(v)
        return gate(s, v, uv, self.mix(norms(uv, s, self.epsilon)))


class PaiNN(Encoder):
    """PaiNN encoder: scalars [N,D] and vectors [N,3,D].

    | symbol | argument | default | published (TAIP, IPIP) |
    |---|---|---|---|
    | D | features | 64 | 128 |
    | L | layers | 3 | 3 (TAIP), 6 (IPIP) |
    | rc | cutoff, Å | 5.0 | 6.0 (original paper 5.0) |
    | K | n_radial, sin(kπd/rc)/d | 20 | 20 |
    | | readout, a last scalar MLP [D,D,D] | False | |
    | | vector_bias | False | True in the authors' checkpoints: breaks rotation, only to load them |
    """

    takes_pairs = True

    def __init__(
        self,
        features: int = 64,
        layers: int = 3,
        cutoff: float = 5.0,
        n_radial: int = 20,
        readout: bool = False,
        vector_bias: bool = False,
    ) -> None:
        super().__init__()
        self.cutoff, self.width = float(cutoff), features
        self.n_radial, self.vector_bias = n_radial, vector_bias
        self.embedding = nn.Embedding(N_TYPES, features)
        self.messages = nn.ModuleList(Message(features, n_radial) for _ in range(layers))
        self.updates = nn.ModuleList(Update(features, vector_bias) for _ in range(layers))
        self.readout = mlp(features, features, features) if readout else None

    def options(self) -> dict[str, bool | int | float | str]:
        return {
            "features": self.width,
            "layers": len(self.messages),
            "cutoff": self.cutoff,
            "n_radial": self.n_radial,
            "readout": self.readout is not None,
            "vector_bias": self.vector_bias,
        }

    def forward(self, numbers: Tensor, edge_index: Tensor, edge_vectors: Tensor, mirrored: bool = False) -> Features:
        edges = Edges(edge_index, numbers.shape[0], mirrored)
        if only_positions() and (layers := painn_slopes.weights_of(self, edge_vectors)):
            s, v = painn_slopes.Layers.apply(edge_vectors, numbers, self, layers, edges)
        else:
            s, v = self._layers(numbers, edge_vectors, edges)
        if self.readout is not None:
            s = self.readout(s)
        return Features(s, v)

    def _layers(self, numbers: Tensor, edge_vectors: Tensor, edges: Edges) -> tuple[Tensor, Tensor | None]:
        d, unit = polar(edge_vectors)
        envelope = cosine_cutoff(d, self.cutoff).unsqueeze(-1)
        basis = torch.cat([bessel(d, self.cutoff, self.n_radial) * envelope, envelope], dim=-1)
        s: Tensor = self.embedding(numbers)
        v: Tensor | None = None
        for exchange, update in zip(self.messages, self.updates, strict=True):
            s, v = exchange(s, v, edges, basis, unit)
            s, v = update(s, v)
        return s, v
