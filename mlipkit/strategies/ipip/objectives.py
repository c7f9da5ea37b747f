"""Objective terms of pretrainings: denoising, and what a student learns of its teacher beside forces.

    denoising   L = <|ε̂ - ε|²> / σ²,  ε̂ = -(σ²/kT) F(R + ε),  ε ~ N(0, σ²)
    n2n         L = w <|W x_student - x_teacher|²> / <|x_teacher|²>
    a2a         L = w <(e_student - e_teacher - s_Z)²>,  s_Z the mean difference of each element in the batch
    hessian     L = w <|∂F_student/∂x - ∂F_teacher/∂x|>

==========  =======================================================================================================
symbol      meaning
==========  =======================================================================================================
``F``       forces of the student: near a minimum noise is what forces undo, so that the same head can say both
``kT``      25.85 meV (300 K), which fixes the scale of ε̂
``W``       linear map that is learned along, of student features to the width of the teacher's
==========  =======================================================================================================

Definitions are ours where the paper (arXiv 2507.20118) only names a method; a2a it does not define at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mlipkit.errors import ModelError
from mlipkit.ops import use_version
from mlipkit.strategies.ipip.pools import atom_rows
from mlipkit.units import BOLTZMANN

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.data.graph import Graph, Targets
    from mlipkit.models import BasePotential, Prediction
    from mlipkit.strategies.ipip.signals import Signals
    from mlipkit.training.objective import Figures, StepState

KT = BOLTZMANN * 300.0
MAP = "n2n"
"""Name of the auxiliary head that maps student features to the teacher's; taken off after pretraining."""


@dataclass(frozen=True)
class Denoise:
    """Predict Gaussian noise on the positions.

    Args:
        sigma: Å. The graph's edges must reach far enough for the moved atoms (`SKIN`).
    """

    sigma: float

    name = "denoising"
    needs: frozenset[str] = frozenset()

    @property
    def labels(self) -> Mapping[str, float]:
        return {}

    @property
    def figures(self) -> Mapping[str, str]:
        return {"noise_mae": "Å"}

    def __call__(
        self, state: StepState, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Figures]:
        noise = torch.randn(graph.positions.shape, generator=state.generator("noise"), dtype=torch.float64)
        noise = (self.sigma * noise).to(graph.positions)
        residual = predicted_noise(state.potential, graph, noise, self.sigma, create_graph=True) - noise
        total = state.total(torch.tensor(float(residual.numel()), dtype=torch.float64))
        figures = {"noise_mae": residual.detach().abs().sum() / total}
        return (residual / self.sigma).square().sum() / total, figures


SKIN = 0.5
"""Å beyond the cutoff of the edges of frames that are to be moved: seven times the spread of a pair at 0.05 Å."""


def predicted_noise(
    potential: BasePotential, graph: Graph, noise: Tensor, sigma: float, create_graph: bool = False
) -> Tensor:
    """ε̂ [N,3] in Å of a batch whose atoms are moved by `noise`."""
    moved = graph.moved(graph.positions + noise, graph.cell)
    forces = potential(moved, forces=True, create_graph=create_graph).forces
    assert forces is not None
    return -(sigma**2 / KT) * forces


@dataclass(frozen=True)
class NoiseError:
    """Validation figure of denoising: mean |ε̂ - ε| of one fixed draw of noise."""

    frames: FrameSet
    sigma: float
    seed: int = 0

    @property
    def figures(self) -> Mapping[str, str]:
        return {"noise_mae": "Å"}

    def __call__(self, potential: BasePotential) -> Mapping[str, float]:
        from mlipkit.data.graph import batches_by_size, collate
        from mlipkit.data.neighbours import NeighbourCache

        draws = np.random.default_rng(self.seed).normal(0.0, self.sigma, self.frames.positions.shape)
        cache = NeighbourCache(self.frames, potential.cutoff + SKIN, max_bytes=0)
        sums = 0.0
        for chosen in batches_by_size(self.frames.n_atoms, 32):
            graph, _ = collate(self.frames, chosen, cache, potential.dtype)
            noise = torch.from_numpy(draws[atom_rows(self.frames, chosen)]).to(graph.positions)
            graph, noise = graph.to(potential.device), noise.to(potential.device)
            sums += float((predicted_noise(potential, graph, noise, self.sigma) - noise).abs().sum())
        return {"noise_mae": sums / draws.size}


@dataclass(frozen=True)
class Features:
    """n2n: features of the teacher from a linear map of the student's.

    Args:
        weight: beside the loss of forces. size: mean square of the teacher's features, for a loss without unit.
    """

    weight: float
    size: float

    name = "features"
    needs = frozenset({"features"})

    @property
    def labels(self) -> Mapping[str, float]:
        return {}

    @property
    def figures(self) -> Mapping[str, str]:
        return {"loss_features": ""}

    def __call__(
        self, state: StepState, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Figures]:
        head = getattr(state.potential, "auxiliary", {})[MAP]
        if prediction is None or prediction.features is None:
            raise ModelError("the student has no features", where="n2n")
        taught: Signals = state.extra
        residual = head(prediction.features) - taught.values.to(prediction.features.dtype)
        total = state.total(torch.tensor(float(residual.numel()), dtype=torch.float64))
        loss = self.weight * residual.square().sum() / (self.size * total)
        return loss, {"loss_features": loss.detach()}


@dataclass(frozen=True)
class AtomEnergies:
    """a2a: energies of atoms, less one shift per element."""

    weight: float

    name = "atom_energies"
    needs = frozenset({"energy"})

    @property
    def labels(self) -> Mapping[str, float]:
        return {}

    @property
    def figures(self) -> Mapping[str, str]:
        return {"loss_atom_energies": ""}

    def __call__(
        self, state: StepState, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Figures]:
        assert prediction is not None
        taught: Signals = state.extra
        apart = prediction.energies - taught.values.to(prediction.energies.dtype)
        counts = torch.bincount(graph.numbers, minlength=119).to(apart.dtype)
        sums = torch.zeros(len(counts), dtype=apart.dtype, device=apart.device).index_add(0, graph.numbers, apart)
        residual = apart - (sums / counts.clamp(min=1))[graph.numbers]
        total = state.total(torch.tensor(float(len(residual)), dtype=torch.float64))
        loss = self.weight * residual.square().sum() / total
        return loss, {"loss_atom_energies": loss.detach()}


@dataclass(frozen=True)
class HessianRows:
    """Rows of the Hessian by differentiating the student's forces once more; eV/Å²."""

    weight: float

    name = "hessian"
    needs: frozenset[str] = frozenset()

    @property
    def labels(self) -> Mapping[str, float]:
        return {}

    @property
    def figures(self) -> Mapping[str, str]:
        return {"loss_hessian": "", "hessian_mae": "eV/Å²"}

    def __call__(
        self, state: StepState, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Figures]:
        taught: Signals = state.extra
        assert taught.coordinates is not None
        rows = hessian_rows(state.potential, graph, taught.coordinates)
        wanted = taught.values.to(rows.dtype)
        # Rows that the teacher could not tell are left out.
        known = torch.isfinite(wanted)
        residual = torch.where(known, rows - wanted.nan_to_num(), 0.0)
        total = state.total(known.sum().to(torch.float64).clamp(min=1.0))
        error = residual.abs().sum() / total
        return self.weight * error, {"loss_hessian": self.weight * error.detach(), "hessian_mae": error.detach()}


def hessian_rows(potential: BasePotential, graph: Graph, coordinates: Tensor) -> Tensor:
    """∂F/∂x [N,R,3] of R coordinates of each structure, differentiable in the weights.

    Args:
        coordinates: int64 [S,R], 3 atom + axis within each structure.
    """
    # Fused operations know two derivatives of themselves, this needs a third; so does torch's layer norm.
    with use_version("reference"), _plain_norms(potential):
        positions = graph.positions.detach().requires_grad_()
        forces = potential(graph.moved(positions, graph.cell), forces=True, create_graph=True).forces
        assert forces is not None
        first = (torch.cumsum(graph.n_atoms, 0) - graph.n_atoms).unsqueeze(1)
        atoms, axes = first + torch.div(coordinates, 3, rounding_mode="floor"), coordinates % 3
        found = []
        for row in range(coordinates.shape[1]):
            # Structures do not touch each other: one slope gives a row of each.
            picked = forces[atoms[:, row], axes[:, row]].sum()
            found.append(torch.autograd.grad(picked, positions, create_graph=True)[0])
    return torch.stack(found, 1)


@contextmanager
def _plain_norms(module: nn.Module) -> Iterator[None]:
    """Layer norms written out: torch's own has a wrong third derivative, without a word (seen with 2.13)."""
    norms = [one for one in module.modules() if isinstance(one, nn.LayerNorm)]
    for one in norms:
        one.forward = partial(_norm, one)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for one in norms:
            del one.forward


def _norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    axes = tuple(range(-len(layer.normalized_shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    found = centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + layer.eps)
    if layer.weight is not None:
        found = found * layer.weight
    return found if layer.bias is None else found + layer.bias
