"""Heads: what turns features into energies, and the registry of auxiliary heads that are saved with a potential."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from mlipkit.errors import ModelError, nearest
from mlipkit.models.bases import mlp
from mlipkit.ops import gather, segment_sum


class PerAtomHead(nn.Module):
    """`E_net = Σ_i MLP_[D,D/2,1](x_i)` with SiLU: size-extensive (TAIP eq. 4, IPIP eq. 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = mlp(width, width // 2, 1)

    def forward(self, scalar: Tensor, system: Tensor, n_atoms: Tensor) -> Tensor:
        """Energy of each atom.

        Args:
            scalar: [N,D] features.
            system: int64 [N], structure of each atom.
            n_atoms: int64 [S], atoms per structure.

        Returns:
            [N], eV before the scale.
        """
        return self.mlp(scalar).squeeze(-1)


class PerAtomWideHead(PerAtomHead):
    """`E_net = Σ_i MLP_[D,D,1](x_i)` (IPIP's PaiNN)."""

    def __init__(self, width: int) -> None:
        nn.Module.__init__(self)
        self.mlp = mlp(width, width, 1)


class PooledHead(nn.Module):
    """`u = Σ_i MLP_[D,D,D](x_i)`, `E_net = MLP_[D,D,1](u)` (TAIP code).

    Neither extensive nor additive over fragments: for one fixed composition only. Every atom is given an equal share.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.atoms = mlp(width, width, width)
        self.structure = mlp(width, width, 1)

    def forward(self, scalar: Tensor, system: Tensor, n_atoms: Tensor) -> Tensor:
        """As `PerAtomHead.forward`."""
        pooled = segment_sum(self.atoms(scalar), system, n_atoms.shape[0])
        share = self.structure(pooled).squeeze(-1) / n_atoms.clamp(min=1)
        return gather(share, system)


ENERGY_HEADS: dict[str, type[nn.Module]] = {
    "per_atom": PerAtomHead,
    "per_atom_wide": PerAtomWideHead,
    "pooled": PooledHead,
}


def build_energy_head(name: str, width: int) -> nn.Module:
    """Energy head by name for D = `width` features."""
    if name not in ENERGY_HEADS:
        raise ModelError(f"unknown energy head '{name}'", where="head", hint=nearest(name, ENERGY_HEADS))
    return ENERGY_HEADS[name](width)


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
