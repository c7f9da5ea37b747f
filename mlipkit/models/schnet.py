"""SchNet: continuous-filter convolutions on distances (Schütt et al., NeurIPS 30, 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from mlipkit.models.bases import (
    ShiftedSoftplus,
    cosine_cutoff,
    gaussians,
    linear,
    mlp,
    polar,
    shifted_softplus,
)
from mlipkit.models.encoder import N_TYPES, Encoder, Features
from mlipkit.ops import Edges, message


class Interaction(nn.Module):
    """`m_i = Σ_j (P x_j) ∘ W_ij`, `x_i <- x_i + MLP(m_i)` with `W_ij = MLP(g(d_ij)) fc(d_ij)`."""

    def __init__(self, width: int, n_filters: int, n_radial: int) -> None:
        super().__init__()
        self.filter_in = linear(n_radial, n_filters)
        self.filter_out = linear(n_filters, n_filters)
        self.project = linear(width, n_filters, bias=False)
        self.update = mlp(n_filters, width, width, activation=ShiftedSoftplus)

    def forward(self, x: Tensor, edges: Edges, radial: Tensor, envelope: Tensor) -> Tensor:
        filters = self.filter_out(shifted_softplus(self.filter_in(radial))) * envelope
        return x + self.update(message(edges, self.project(x), filters))


class SchNet(Encoder):
    """SchNet encoder: scalars only.

    | symbol | argument | default | published (TAIP) |
    |---|---|---|---|
    | D | features | 64 | 128 |
    | L | layers | 3 | 3 |
    | rc | cutoff, Å | 5.0 | 6.0 |
    | K | n_radial, Gaussians | 50 | 50 |
    | F | n_filters (None: as features) | None | 128 |
    """

    takes_pairs = True

    def __init__(
        self,
        features: int = 64,
        layers: int = 3,
        cutoff: float = 5.0,
        n_radial: int = 50,
        n_filters: int | None = None,
    ) -> None:
        super().__init__()
        self.cutoff, self.width, self.n_radial = float(cutoff), features, n_radial
        self.n_filters = features if n_filters is None else n_filters
        self.embedding = nn.Embedding(N_TYPES, features)
        self.layers = nn.ModuleList(Interaction(features, self.n_filters, n_radial) for _ in range(layers))

    def options(self) -> dict[str, bool | int | float | str]:
        return {
            "features": self.width,
            "layers": len(self.layers),
            "cutoff": self.cutoff,
            "n_radial": self.n_radial,
            "n_filters": self.n_filters,
        }

    def forward(self, numbers: Tensor, edge_index: Tensor, edge_vectors: Tensor, mirrored: bool = False) -> Features:
        edges = Edges(edge_index, numbers.shape[0], mirrored)
        d, _ = polar(edge_vectors)
        envelope = cosine_cutoff(d, self.cutoff).unsqueeze(-1)
        radial = gaussians(d, self.cutoff, self.n_radial)
        x: Tensor = self.embedding(numbers)
        for layer in self.layers:
            x = layer(x, edges, radial, envelope)
        return Features(x)


__all__ = ["SchNet"]
