"""The three self-supervised losses of each structure.

    L_ni = -log p_t                                        p = softmax(cls([u, ũ])), ũ of R + σ_t ξ
    L_ma = mean over hidden types of (1 - cos(o_i, onehot(z_i)))^γ
    L_mf = mean over hidden forces of |f_i - sg(F^p_i)|_1 / 3,  F^p = -∂E^p/∂R of the structure with hidden types

Hidden types and hidden forces share one encoding. Losses are per structure: their mean trains, their sum adapts each
structure's own weights. `encode` is the potential's own, or one with other weights for each structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mlipkit.data.graph import Graph
from mlipkit.models import Potential
from mlipkit.models.encoder import MASK, Features
from mlipkit.models.heads import NORM_EPS
from mlipkit.ops import gather, segment_sum
from mlipkit.strategies.taip.draws import Draws, joined, perturbed
from mlipkit.strategies.taip.options import TASKS, Heads


class Encode(Protocol):
    def __call__(self, graph: Graph, /, numbers: Tensor | None = None, positions: Tensor | None = None) -> Features: ...


@dataclass(frozen=True)
class TaskLosses:
    """Losses [S] by task (`TASKS`, those that were asked for), and whether the noise level was recognised [S]."""

    by_task: Mapping[str, Tensor]
    hit: Tensor | None

    def total(self, weights: Mapping[str, float]) -> Tensor:
        """Weighted sum [S]."""
        parts = [weights[name] * loss for name, loss in self.by_task.items()]
        return torch.stack([part.double() for part in parts]).sum(0)


def losses(
    potential: Potential,
    heads: Heads,
    graph: Graph,
    draws: Draws,
    tasks: frozenset[str],
    *,
    encode: Encode | None = None,
    clean: Tensor | None = None,
    together: bool = False,
    search: bool = True,
) -> TaskLosses:
    """The self-supervised losses of S structures; gradients flow to encoder and heads.

    Args:
        graph: clean structures.
        draws: of the same structures.
        tasks: names of those that count, of `heads.tasks`.
        encode: takes the place of `potential.encode`.
        clean: features [N,D] of the clean structures, where they are known already.
        together: one encoding of all versions of the structures side by side, which is faster for few atoms.
        search: False where `encode` needs no list of the edges of displaced structures.
    """
    own, encode = encode is not None, encode or potential.encode
    wanted = [name for name in TASKS if name in tasks]
    noisy = None
    if "noise" in tasks:
        assert heads.noise is not None
        noisy = perturbed(graph, draws.displacement, potential.cutoff, heads.noise.edges if search else "kept")
    hides = bool(tasks & {"types", "pseudo_forces"})
    positions = graph.positions
    if "pseudo_forces" in tasks:
        positions = positions.detach().requires_grad_()
    numbers = graph.numbers
    if heads.types is not None:
        numbers = torch.where(draws.masked, MASK, numbers)
    n, pseudo = len(graph.numbers), graph.moved(positions, graph.cell)
    parts = [pseudo] * hides + ([] if noisy is None else [noisy] + [graph] * (clean is None))
    kinds = [numbers] * hides + [graph.numbers] * (len(parts) - hides)
    if together and len(parts) > 1:
        encoded = _split(encode(joined(*parts), torch.cat(kinds)), n)
    elif own and len(parts) == 3:
        # Forces are those of the structure with hidden types alone: what comes of them need not pass the others.
        rest = _split(encode(joined(*parts[1:]), torch.cat(kinds[1:])), n)
        encoded = [encode(parts[0], kinds[0]), *rest]
    else:
        encoded = [encode(part, kind) for part, kind in zip(parts, kinds, strict=True)]
    features = encoded[0] if hides else None
    found: dict[str, Tensor] = {}
    hit = None
    for name in wanted:
        if name == "noise":
            clean = encoded[-1].scalar if clean is None else clean
            found[name], hit = _noise(heads, graph, clean, encoded[int(hides)].scalar, draws.level)
        elif name == "types":
            assert features is not None
            found[name] = _types(heads, graph, features, draws)
        else:
            assert features is not None
            found[name] = _pseudo_forces(potential, heads, pseudo, features, draws)
    return TaskLosses(found, hit)


def _split(features: Features, n: int) -> list[Features]:
    """Features of each n atoms."""
    parts = [None if one is None else one.split(n) for one in (features.scalar, features.vector, features.tensor)]
    return [Features(*(None if part is None else part[index] for part in parts)) for index in range(len(parts[0]))]  # type: ignore[arg-type]


def _noise(heads: Heads, graph: Graph, clean: Tensor, noisy: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    head = heads.noise
    assert head is not None
    u, other = (head.pooled(one, graph.system, graph.n_atoms) for one in (clean, noisy))
    logits = head(u, other)
    return torch.nn.functional.cross_entropy(logits, level, reduction="none"), logits.detach().argmax(1) == level


def _types(heads: Heads, graph: Graph, features: Features, draws: Draws) -> Tensor:
    head = heads.types
    assert head is not None
    rows = draws.masked.nonzero().squeeze(1)
    scores = head(gather(features.scalar, rows))
    right = scores.gather(1, gather(graph.numbers, rows).unsqueeze(1)).squeeze(1)
    cosine = right / (scores.square().sum(1) + NORM_EPS).sqrt()
    return _mean((1 - cosine).pow(head.gamma), gather(graph.system, rows), graph.n_systems)


def _pseudo_forces(potential: Potential, heads: Heads, graph: Graph, features: Features, draws: Draws) -> Tensor:
    head = heads.forces
    assert head is not None
    forces = pseudo_forces(potential, heads, graph, features)
    rows = draws.hidden.nonzero().squeeze(1)
    vectors = graph.edge_vectors(graph.positions.detach()).to(forces.dtype)
    if head.mode == "paper":
        said = head(head.shown(forces, draws.hidden), draws.hidden, graph.edge_index, vectors)
        residual = gather(said, rows) - gather(forces, rows).detach()
    else:
        # Their list of labels holds views of what is then changed in place: label and input are the same noisy force.
        noisy = torch.where(draws.hidden.unsqueeze(1), forces + draws.force_noise.to(forces.dtype), forces)
        with torch.no_grad():
            said = head(noisy, draws.hidden, graph.edge_index, vectors)
        residual = gather(said, rows) - gather(noisy, rows)
    return _mean(residual.abs().mean(1), gather(graph.system, rows), graph.n_systems)


def pseudo_forces(potential: Potential, heads: Heads, graph: Graph, features: Features) -> Tensor:
    """`F^p = -∂E^p/∂R` [N,3], eV/Å, on the autograd graph; of features that hang on `graph.positions`."""
    assert heads.forces is not None
    if heads.forces.pseudo_energy == "graph_sum":
        assert heads.noise is not None
        energy = heads.noise.pooled(features.scalar, graph.system, graph.n_atoms).sum()
    else:
        energy = potential.head(features, graph.system, graph.n_atoms).sum() * potential.scale.to(features.scalar.dtype)
    (slope,) = torch.autograd.grad(energy, graph.positions, create_graph=True)
    return -slope.to(features.scalar.dtype)


def _mean(values: Tensor, system: Tensor, n_systems: int) -> Tensor:
    """Mean [S] over the rows of each structure."""
    count = segment_sum(torch.ones_like(values), system, n_systems)
    return segment_sum(values, system, n_systems) / count.clamp(min=1)
