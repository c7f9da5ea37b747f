"""Heads: what turns features into energies, and the registry of auxiliary heads that are saved with a potential."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from mlipkit.errors import ModelError, nearest
from mlipkit.models.bases import linear, mlp
from mlipkit.models.encoder import Encoder, Features
from mlipkit.ops import gather, segment_sum

# Inside the root of |W v|, whose second derivative is NaN at zero otherwise (an atom without neighbours).
NORM_EPS = 1e-8


class EnergyHead(nn.Module):
    """Base of energy heads: features of a batch in, energy of each atom out.

    Attributes:
        needs_vectors: it takes `Features.vector`, and goes with encoders that have it.
    """

    needs_vectors: ClassVar[bool] = False

    def forward(self, features: Features, system: Tensor, n_atoms: Tensor) -> Tensor:
        """Energy of each atom.

        Args:
            features: of N atoms.
            system: int64 [N], structure of each atom.
            n_atoms: int64 [S], atoms per structure.

        Returns:
            [N], eV before the scale.
        """
        raise NotImplementedError


class PerAtomHead(EnergyHead):
    """`E_net = Σ_i MLP_[D,D/2,1](x_i)` with SiLU: size-extensive (TAIP eq. 4, IPIP eq. 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = mlp(width, width // 2, 1)

    def forward(self, features: Features, system: Tensor, n_atoms: Tensor) -> Tensor:
        return self.mlp(features.scalar).squeeze(-1)


class PerAtomWideHead(PerAtomHead):
    """`E_net = Σ_i MLP_[D,D,1](x_i)` (IPIP's PaiNN)."""

    def __init__(self, width: int) -> None:
        nn.Module.__init__(self)
        self.mlp = mlp(width, width, 1)


class PooledHead(EnergyHead):
    """`u = Σ_i MLP_[D,D,D](x_i)`, `E_net = MLP_[D,D,1](u)` (TAIP code).

    Neither extensive nor additive over fragments: for one fixed composition only. Every atom is given an equal share.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.atoms = mlp(width, width, width)
        self.structure = mlp(width, width, 1)

    def forward(self, features: Features, system: Tensor, n_atoms: Tensor) -> Tensor:
        pooled = segment_sum(self.atoms(features.scalar), system, n_atoms.shape[0])
        share = self.structure(pooled).squeeze(-1) / n_atoms.clamp(min=1)
        return gather(share, system)


class PooledFeaturesHead(PooledHead):
    """`u = Σ_i x_i`, `E_net = MLP_[D,D,1](u)` with ReLU (DT): as `PooledHead`, for one fixed composition only."""

    def __init__(self, width: int) -> None:
        nn.Module.__init__(self)
        self.atoms = nn.Identity()
        self.structure = mlp(width, width, 1, activation=nn.ReLU)


class GatedBlock(nn.Module):
    """`(x', g) = MLP([x, |W1 v|])`, `v' = g ∘ W2 v`; W1 and W2 without bias (ViSNet)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.inner = linear(n_in, n_in, bias=False)
        self.outer = linear(n_in, n_out, bias=False)
        self.mix = mlp(2 * n_in, n_in, 2 * n_out)

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        norm = (self.inner(v).square().sum(1) + NORM_EPS).sqrt()
        scalar, gate = self.mix(torch.cat([x, norm], dim=-1)).chunk(2, dim=-1)
        return scalar, gate.unsqueeze(1) * self.outer(v)


class GatedHead(EnergyHead):
    """Two gated equivariant blocks D -> D/2 -> 1 on scalars and vectors, SiLU between them (ViSNet): extensive."""

    needs_vectors = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = GatedBlock(width, width // 2), GatedBlock(width // 2, 1)

    def forward(self, features: Features, system: Tensor, n_atoms: Tensor) -> Tensor:
        assert features.vector is not None
        # Degrees one and two share maps and norm.
        v = features.vector if features.tensor is None else torch.cat([features.vector, features.tensor], dim=1)
        x, v = self.first(features.scalar, v)
        return self.second(nn.functional.silu(x), v)[0].squeeze(-1)


ENERGY_HEADS: dict[str, type[EnergyHead]] = {
    "per_atom": PerAtomHead,
    "per_atom_wide": PerAtomWideHead,
    "pooled": PooledHead,
    "pooled_features": PooledFeaturesHead,
    "gated": GatedHead,
}


def build_energy_head(name: str, encoder: Encoder) -> EnergyHead:
    """Energy head by name, for the features of an encoder."""
    if name not in ENERGY_HEADS:
        raise ModelError(f"unknown energy head '{name}'", where="head", hint=nearest(name, ENERGY_HEADS))
    kind = ENERGY_HEADS[name]
    if kind.needs_vectors and not _has_vectors(encoder):
        raise ModelError(
            f"energy head '{name}' takes vector features, which {type(encoder).__name__} has not", where="head",
            hint="PaiNN and ViSNet have them",
        )  # fmt: skip
    return kind(encoder.width)


def _has_vectors(encoder: Encoder) -> bool:
    """Asked of one atom without neighbours."""
    parameter = next(encoder.parameters())
    none = torch.zeros((2, 0), dtype=torch.int64, device=parameter.device)
    with torch.no_grad():
        return encoder(none.new_ones(1), none, parameter.new_zeros((0, 3))).vector is not None


class AuxiliaryHead(nn.Module):
    """Base of heads that ride along with a potential (self-supervised tasks) and are saved with it.

    A subclass sets `kind`, registers with `register_head`, and gives its constructor arguments in `options`. Its
    `forward` takes whatever its task needs.
    """

    kind: ClassVar[str]

    def options(self) -> dict[str, Any]:
        """Constructor arguments, JSON-ready."""
        raise NotImplementedError


AUXILIARY_HEADS: dict[str, type[AuxiliaryHead]] = {}
_Head = TypeVar("_Head", bound=type[AuxiliaryHead])


def register_head(cls: _Head) -> _Head:
    """Class decorator: make an auxiliary head loadable from file by its `kind`."""
    AUXILIARY_HEADS[cls.kind] = cls
    return cls


def build_auxiliary(kind: str, options: dict[str, Any]) -> AuxiliaryHead:
    """Auxiliary head by kind, as stored in a file."""
    if kind not in AUXILIARY_HEADS:
        raise ModelError(
            f"unknown auxiliary head '{kind}'",
            hint=f"Import the module that defines it before loading; {nearest(kind, AUXILIARY_HEADS)}",
        )
    return AUXILIARY_HEADS[kind](**options)


@register_head
class MLPHead(AuxiliaryHead):
    """SiLU MLP on the features of each atom, [N,D] -> [N,out]."""

    kind = "mlp"

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.widths = list(widths)
        self.mlp = mlp(*widths)

    def options(self) -> dict[str, Any]:
        return {"widths": self.widths}

    def forward(self, scalar: Tensor) -> Tensor:
        return self.mlp(scalar)
