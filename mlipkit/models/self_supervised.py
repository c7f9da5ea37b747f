"""Auxiliary heads of the three self-supervised tasks of TAIP (doi 10.1038/s41467-025-57101-4), saved with a potential.

    noise    u = Σ_i head_u(x_i),  logits = cls([u, ũ])            which of T noise levels separates two structures
    types    o_i = dec1(x̃_i)                                       type of an atom that was hidden from the encoder
    forces   f_i = dec2(F̃, r_ij)                                   forces of atoms that were hidden among visible ones

Each head knows the numbers of its task, so that a loaded potential adapts as it was trained. The tasks themselves are
in `mlipkit.strategies.taip`.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mlipkit.errors import ModelError, check_choice
from mlipkit.models.bases import (
    ShiftedSoftplus,
    cosine_cutoff,
    gaussians,
    linear,
    mlp,
    polar,
    shifted_softplus,
)
from mlipkit.models.encoder import N_TYPES
from mlipkit.models.heads import NORM_EPS, AuxiliaryHead, register_head
from mlipkit.ops import Edges, message, segment_sum

Pooling = Literal["sum", "mean"]
MaskedForces = Literal["paper", "authors"]
Decoder = Literal["filter", "equivariant"]
PseudoEnergy = Literal["head", "graph_sum"]
NoiseEdges = Literal["rebuilt", "kept"]

SMALL_START = 0.01
"""Of the classifier's last map: before any training all levels are equally likely, the loss is ln T."""


@register_head
class NoiseHead(AuxiliaryHead):
    """`u = Σ_i MLP_[D,D](x_i)`, logits `MLP_[2D,D,T]([u, ũ])`.

    Args:
        width: D.
        levels: T.
        sigma_max, sigma_min: Å; standard deviations of the levels 1 and T, geometric between them.
        pooling: over atoms: "sum" (published) or "mean" (for structures of different size).
        edges: of the perturbed structure: "rebuilt", or "kept" as in the clean one (the authors' MD code).
        weight: of the loss in training; 0: of no task, the head only gives u ("graph_sum" of `ForcesHead`).
    """

    kind = "taip_noise"

    def __init__(
        self,
        width: int,
        levels: int = 50,
        sigma_max: float = 10.0,
        sigma_min: float = 0.01,
        pooling: Pooling = "sum",
        edges: NoiseEdges = "rebuilt",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice(pooling, get_args(Pooling), "pooling")
        check_choice(edges, get_args(NoiseEdges), "edges")
        if levels < 2 or not 0 < sigma_min <= sigma_max:
            raise ModelError(
                "no ladder of noise", where="taip_noise", expected="2 levels or more, 0 < sigma_min <= sigma_max",
                found=(levels, sigma_min, sigma_max),
            )  # fmt: skip
        self.width, self.levels, self.pooling, self.edges = width, levels, pooling, edges
        self.sigma_max, self.sigma_min, self.weight = float(sigma_max), float(sigma_min), float(weight)
        self.atoms = mlp(width, width)
        self.classify = mlp(2 * width, width, levels)
        last = self.classify[-1]
        assert isinstance(last, nn.Linear)
        last.weight.data *= SMALL_START

    def options(self) -> dict[str, Any]:
        return {
            "width": self.width, "levels": self.levels, "sigma_max": self.sigma_max, "sigma_min": self.sigma_min,
            "pooling": self.pooling, "edges": self.edges, "weight": self.weight,
        }  # fmt: skip

    @property
    def sigmas(self) -> list[float]:
        """Å, of the levels 1..T."""
        ratio = (self.sigma_min / self.sigma_max) ** (1.0 / (self.levels - 1))
        return [self.sigma_max * ratio**level for level in range(self.levels)]

    def pooled(self, scalar: Tensor, system: Tensor, n_atoms: Tensor) -> Tensor:
        """Graph features u [S,D] of features [N,D]."""
        u = segment_sum(self.atoms(scalar), system, len(n_atoms))
        return u / n_atoms.to(u.dtype).unsqueeze(1) if self.pooling == "mean" else u

    def forward(self, clean: Tensor, noisy: Tensor) -> Tensor:
        """Logits [S,T] of graph features [S,D]."""
        return self.classify(torch.cat([clean, noisy], dim=-1))


@register_head
class TypesHead(AuxiliaryHead):
    """`o_i = MLP_[D,D,119](x̃_i)`, one output for each atomic number (0: the mask, never a label).

    Args:
        width: D.
        rate: ρ; ⌊ρ n⌋ + 1 atoms of a structure are hidden.
        gamma: γ of the loss `(1 - cos)^γ`.
        weight: of the loss in training.
    """

    kind = "taip_types"

    def __init__(self, width: int, rate: float = 0.10, gamma: float = 1.0, weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= rate < 1 or gamma < 1:
            raise ModelError(
                "out of range", where="taip_types", expected="0 <= rate < 1, gamma >= 1", found=(rate, gamma)
            )
        self.width, self.rate, self.gamma, self.weight = width, float(rate), float(gamma), float(weight)
        self.decode = mlp(width, width, N_TYPES)

    def options(self) -> dict[str, Any]:
        return {"width": self.width, "rate": self.rate, "gamma": self.gamma, "weight": self.weight}

    def forward(self, scalar: Tensor) -> Tensor:
        """Scores [N,119] of features [N,D]."""
        return self.decode(scalar)


@register_head
class ForcesHead(AuxiliaryHead):
    """Forces of hidden atoms from those of visible neighbours, by one continuous-filter layer.

    "filter" (published): `h_j = W F̃_j`, `h'_i = h_i + MLP(Σ_j P h_j ∘ W_ij)`, `MLP_[H,H,3](ssp(h'_i))`, with shifted
    softplus; the one on h' is ours. It reads x, y and z as three numbers and does not turn with the structure.

    "equivariant" (ours): `v_j = F̃_j ⊗ w`, `s_j = MLP([|F̃_j|, hidden_j])`, `v_i + Σ_j v_j ∘ W¹_ij + u_ij ⊗ (a(s_j) ∘
    W²_ij)`, gated by the scalar sums; a hidden atom has zero force and says so in s.

    Args:
        width: D of the encoder; sizes the decoder.
        cutoff: rc, Å, of the edges that it is given.
        rate: ρ; ⌊ρ n⌋ + 1 atoms of a structure are hidden.
        mode: "paper": hidden forces are a learned vector, the decoder learns them from the others. "authors": hidden
            forces get unit normal noise and are their own label, the decoder's output is a constant: it is never
            trained, and the loss pulls the noisy forces to the output of a fixed random network.
        pseudo_energy: what is differentiated: "head", the energy, or "graph_sum", the sum of all u (authors).
        decoder: see above.
        hidden, filters, n_radial: H (2D), F (D), K.
        weight: of the loss in training.
    """

    kind = "taip_forces"

    def __init__(
        self,
        width: int,
        cutoff: float,
        rate: float = 0.05,
        mode: MaskedForces = "paper",
        pseudo_energy: PseudoEnergy = "head",
        decoder: Decoder = "filter",
        hidden: int | None = None,
        filters: int | None = None,
        n_radial: int = 50,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice(mode, get_args(MaskedForces), "mode")
        check_choice(decoder, get_args(Decoder), "decoder")
        check_choice(pseudo_energy, get_args(PseudoEnergy), "pseudo_energy")
        if not 0 <= rate < 1:
            raise ModelError("out of range", where="taip_forces", expected="0 <= rate < 1", found=rate)
        self.width, self.cutoff, self.rate, self.n_radial = width, float(cutoff), float(rate), n_radial
        self.mode, self.pseudo_energy, self.decoder = mode, pseudo_energy, decoder
        self.hidden, self.filters, self.weight = hidden or 2 * width, filters or width, float(weight)
        self.token = nn.Parameter(torch.zeros(3))
        wide, f = self.hidden, self.filters
        if decoder == "filter":
            self.enter = linear(3, wide)
            self.filter = mlp(n_radial, f, f, activation=ShiftedSoftplus)
            self.project = linear(wide, f, bias=False)
            self.update = mlp(f, wide, wide, activation=ShiftedSoftplus)
            self.leave = mlp(wide, wide, 3, activation=ShiftedSoftplus)
        else:
            self.spread = nn.Parameter(torch.randn(f) / f**0.5)
            self.enter = mlp(2, f, 2 * f)
            self.filter = mlp(n_radial, f, 3 * f, activation=ShiftedSoftplus)
            self.gate = mlp(2 * f, f, f)
            self.leave = linear(f, 1, bias=False)

    def options(self) -> dict[str, Any]:
        return {
            "width": self.width, "cutoff": self.cutoff, "rate": self.rate, "mode": self.mode,
            "pseudo_energy": self.pseudo_energy, "decoder": self.decoder, "hidden": self.hidden,
            "filters": self.filters, "n_radial": self.n_radial, "weight": self.weight,
        }  # fmt: skip

    def shown(self, forces: Tensor, hidden: Tensor) -> Tensor:
        """Forces [N,3] as the decoder sees them: hidden atoms [N] bear the token, in the equivariant decoder zero."""
        token = self.token if self.decoder == "filter" else torch.zeros_like(self.token)
        return torch.where(hidden.unsqueeze(1), token.to(forces.dtype), forces)

    def forward(self, shown: Tensor, hidden: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Forces [N,3], eV/Å, of all atoms from shown ones [N,3]; hidden bool [N], edges [2,E], vectors [E,3] Å."""
        edges = Edges(edge_index, len(shown))
        d, unit = polar(edge_vectors)
        # The authors cut distances to whole Å before the Gaussians.
        radial = gaussians(d.trunc() if self.mode == "authors" else d, self.cutoff, self.n_radial)
        filters = self.filter(radial) * cosine_cutoff(d, self.cutoff).unsqueeze(-1)
        if self.decoder == "filter":
            h = self.enter(shown)
            h = h + self.update(message(edges, self.project(h), filters))
            return self.leave(shifted_softplus(h))
        size = (shown.square().sum(1, keepdim=True) + NORM_EPS).sqrt()
        scalar = self.enter(torch.cat([size, hidden.unsqueeze(1).to(size.dtype)], dim=1))
        vector = shown.unsqueeze(2) * self.spread
        s, v = message(edges, scalar, filters, None, unit, vector)
        gate = self.gate(torch.cat([s, ((vector + v).square().sum(1) + NORM_EPS).sqrt()], dim=1))
        return self.leave((vector + v) * gate.unsqueeze(1)).squeeze(-1)
