"""The filter-weighted neighbour sum, the hot operation of SchNet and PaiNN, behind one call.

With filters `w_ij = φ(d_ij) W` (radial basis [E,K] times weight [K,C]), sender features `x_j` and unit vectors
`u_ij`:

    scalar_i   = Σ_j x_j ∘ w_ij                                        SchNet, PaiNN scalars
    vector_i   = Σ_j u_ij ⊗ (x_j ∘ w_ij) + Σ_j v_j ∘ w_ij              PaiNN vectors

Versions of it register here with the problems that they serve; `message` takes the last registered one that serves.
Every version is linear in all of its floating arguments taken one at a time and must be twice differentiable: one
test runs gradcheck and gradgradcheck over all of them against `reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, overload

import torch
from torch import Tensor

from mlipkit.errors import ModelError, nearest
from mlipkit.ops.segment import gather, segment_sum


class Edges:
    """Edges of a batch, with the index tables that a version may need, made once and shared by all layers.

    Attributes:
        sender, receiver: int64 [E], atoms j and i of `r_ij = R_j - R_i`.
        n_atoms: number of atoms N in the batch.
        mirrored: each edge `j -> i` stands also for `i -> j`, with the same filter and the opposite unit vector.
        tables: what versions keep here between layers, by their own name.
    """

    def __init__(self, edge_index: Tensor, n_atoms: int, mirrored: bool = False) -> None:
        self.sender, self.receiver = edge_index.unbind(0)
        self.n_atoms = n_atoms
        self.mirrored = mirrored
        self.tables: dict[str, object] = {}

    @property
    def per_atom(self) -> float:
        """Mean number of neighbours, known without looking at the device."""
        return (1 + self.mirrored) * self.sender.shape[0] / max(self.n_atoms, 1)

    def directed(self, basis: Tensor, unit: Tensor | None) -> tuple[Edges, Tensor, Tensor | None]:
        """Both directions of a mirrored list one by one, with what belongs to its edges; made once for all layers."""
        known = self.tables.get("directed")
        if not isinstance(known, tuple) or known[0] is not basis or known[1] is not unit:
            ends = torch.stack([self.sender, self.receiver])
            edges = Edges(torch.cat([ends, ends.flip(0)], dim=1), self.n_atoms)
            both = None if unit is None else torch.cat([unit, -unit])
            known = self.tables["directed"] = (basis, unit, edges, torch.cat([basis, basis]), both)
        return known[2], known[3], known[4]


def forced() -> str | None:
    """Name of the version that `use_version` asks for."""
    return _forced.get()


class Version(Protocol):
    def __call__(
        self, edges: Edges, x: Tensor, basis: Tensor, weight: Tensor | None, unit: Tensor | None, vector: Tensor | None
    ) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True)
class _Registered:
    run: Version
    serves: Callable[[Edges, Tensor, Tensor, Tensor | None, Tensor | None], bool]
    mirrored: bool


VERSIONS: dict[str, _Registered] = {}
_forced: ContextVar[str | None] = ContextVar("message_version", default=None)


def register(name: str, serves: Callable[..., bool], mirrored: bool = False) -> Callable[[Version], Version]:
    """Register a version; `serves(edges, x, basis, weight, unit)` says whether it is the one to take.

    Args:
        mirrored: it knows mirrored edges; others get both directions one by one.
    """

    def keep(run: Version) -> Version:
        VERSIONS[name] = _Registered(run, serves, mirrored)
        return run

    return keep


@contextmanager
def use_version(name: str) -> Iterator[None]:
    """Take the version of this name inside the block, whatever the problem (tests, benchmarks)."""
    if name not in VERSIONS:
        raise ModelError(f"no version '{name}' of the message sum", hint=nearest(name, VERSIONS))
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


@overload
def message(edges: Edges, x: Tensor, basis: Tensor, weight: Tensor | None = None) -> Tensor: ...
@overload
def message(
    edges: Edges, x: Tensor, basis: Tensor, weight: Tensor | None, unit: Tensor, vector: Tensor | None = None
) -> tuple[Tensor, Tensor]: ...
def message(
    edges: Edges,
    x: Tensor,
    basis: Tensor,
    weight: Tensor | None = None,
    unit: Tensor | None = None,
    vector: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor | None]:
    """Filter-weighted sum over neighbours (equations in the module's head).

    Args:
        edges: E directed edges among N atoms.
        x: sender features. Without `unit` [N,D]; with `unit` [N,2D], first the part that multiplies the unit vectors,
            then the scalar part.
        basis: radial basis times cutoff function [E,K], zero at and beyond the cutoff; or, when `weight` is None, the
            filters themselves [E,C].
        weight: [K,C], C = D, 2D (with `unit`) or 3D (with `unit` and `vector`; the filter of `vector` comes first).
        unit: [E,3] unit vectors `u_ij`.
        vector: [N,3,D] sender vectors `v_j`; None where they are zero (first layer).

    Returns:
        Sums over neighbours: scalar [N,D], or with `unit` the pair scalar [N,D], vector [N,3,D].
    """
    name = _forced.get()
    if name is None:
        # Transforms of torch.func know only plain operations.
        plain = torch._C._are_functorch_transforms_active()
        name = (
            "reference"
            if plain
            else next(key for key in reversed(VERSIONS) if VERSIONS[key].serves(edges, x, basis, weight, unit))
        )
    version = VERSIONS[name]
    if edges.mirrored and not version.mirrored:
        edges, basis, unit = edges.directed(basis, unit)
    scalar, vectors = version.run(edges, x, basis, weight, unit, vector)
    return scalar if vectors is None else (scalar, vectors)


@register("reference", serves=lambda *_: True)
def reference(
    edges: Edges, x: Tensor, basis: Tensor, weight: Tensor | None, unit: Tensor | None, vector: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Filters per edge, gathered senders, sum per receiver: the equations word by word."""
    filters = basis if weight is None else basis @ weight
    n, receiver = edges.n_atoms, edges.receiver
    senders = gather(x, edges.sender)
    if unit is None:
        return segment_sum(senders * filters, receiver, n), None
    width = x.shape[1] // 2
    if vector is None:
        along, scalar = (senders * filters).split(width, dim=-1)
        moved = along.unsqueeze(1) * unit.unsqueeze(2)
    else:
        carry, direct = filters.split([width, 2 * width], dim=-1)
        along, scalar = (senders * direct).split(width, dim=-1)
        moved = torch.addcmul(along.unsqueeze(1) * unit.unsqueeze(2), gather(vector, edges.sender), carry.unsqueeze(1))
    return segment_sum(scalar, receiver, n), segment_sum(moved, receiver, n)
