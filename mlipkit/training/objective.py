"""What training makes small: objective terms, summed by the loop. Energies, forces and stress are the first of them.

A term is a callable ``(state, graph, targets, prediction) -> (loss, figures)`` with a `name`, the `needs` of its
prediction and the units of its `figures`. Self-supervised losses, roll-outs and regularisers are further terms; the
loop knows none of them.

With several processes every one holds its own share of a batch, with another number of atoms and labels. A mean over
the whole batch is therefore made from sums: a term divides its local sum by ``state.total(count)``, the count over all
processes, and the loop adds losses, figures and gradients over processes. One process with the whole batch computes the
same numbers. Averaging the processes' means instead would weight atoms of small structures more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from mlipkit.errors import ModelError, SpecError

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph, Targets
    from mlipkit.models import BasePotential, Prediction
    from mlipkit.training.settings import EnergyUnit, Loss, TrainSettings

Figures = dict[str, Tensor]


def _same(count: Tensor) -> Tensor:
    return count


@dataclass(frozen=True)
class StepState:
    """What a term may know of the step it is called in.

    Attributes:
        potential: the model, with its auxiliary heads.
        epoch, step: counted from 1 and 0: the step about to be made.
        seed: `TrainSettings.noise_seed`.
        rank: index of this process.
        extra: what the data source put beside graph and targets (sequences of frames, provenance), or None.
        total: sums a tensor of counts over all processes. Every process must call it equally often.
    """

    potential: BasePotential
    epoch: int = 0
    step: int = 0
    seed: int = 0
    rank: int = 0
    extra: Any = None
    total: Callable[[Tensor], Tensor] = _same

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Random numbers for one purpose of this step. Seeded by (seed, purpose, step, process), so that a resumed
        training draws what the uninterrupted one draws, without any stored state."""
        import hashlib

        key = f"{self.seed}/{purpose}/{self.step}/{self.rank}".encode()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
        return torch.Generator(device=device).manual_seed(seed)


class ObjectiveTerm(Protocol):
    """One summand of the training loss. Pure apart from the weights it reads through `state.potential`.

    Attributes:
        name: short identifier, unique among the terms of a training.
        needs: what the loop must predict for it, of "energy", "forces", "stress", "features"; empty when the term makes
            its own predictions (`prediction` is then None unless another term needs one).
        labels: weight per label kind it learns from, for coverage checks.
        figures: unit of every figure it reports, by column name of the training series.
    """

    @property
    def name(self) -> str: ...
    @property
    def needs(self) -> frozenset[str]: ...
    @property
    def labels(self) -> Mapping[str, float]: ...
    @property
    def figures(self) -> Mapping[str, str]: ...

    def __call__(
        self, state: StepState, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Figures]: ...


def penalty(residual: Tensor, kind: Loss, delta: float) -> Tensor:
    """Elementwise |r| (l1), r² (l2) or Huber: r²/2 up to `delta`, then delta·(|r| - delta/2). Any shape."""
    if kind == "l1":
        return residual.abs()
    if kind == "l2":
        return residual * residual
    size = residual.abs()
    return torch.where(size <= delta, 0.5 * residual * residual, delta * (size - 0.5 * delta))


@dataclass(frozen=True)
class EnergyForcesStress:
    """Supervised loss on energies, forces and stress, with missing labels (NaN) left out.

    ``L = w_E <ℓ(ΔE)> + w_F <ℓ(ΔF)> + w_S <ℓ(Δσ)>`` with ℓ the penalty and <> the mean over the labelled structures,
    force components or stress components of the whole batch. ΔE is the difference of total energies divided by the
    number of atoms (`energy_unit` "per_atom", eV/atom) or undivided ("total", eV); ΔF in eV/Å; Δσ in eV/Å³, only of
    structures periodic along three axes. A label without a single value in the batch contributes nothing.

    Figures: the weighted parts `loss_energy`, `loss_forces`, `loss_stress` and the batch's mean absolute errors
    `energy_mae` (eV/atom in any case), `forces_mae`, `stress_mae`; NaN where nothing is labelled.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"energy": 1.0, "forces": 10.0})
    loss: Loss = "l2"
    energy_unit: EnergyUnit = "per_atom"
    huber_delta: float = 0.05

    name = "labels"

    def __post_init__(self) -> None:
        if not self.weights:
            raise SpecError(
                "every weight is 0", where=("objective", self.name), hint="Weigh energies, forces or stress"
            )

    @classmethod
    def from_settings(cls, settings: TrainSettings) -> EnergyForcesStress:
        """The term that the settings describe."""
        return cls(settings.weights(), settings.loss, settings.energy_unit, settings.huber_delta)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.weights)

    @property
    def labels(self) -> Mapping[str, float]:
        return self.weights

    @property
    def figures(self) -> dict[str, str]:
        units = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}
        return {f"loss_{name}": "" for name in self.weights} | {f"{name}_mae": units[name] for name in self.weights}

    def __call__(
        self, state: StepState, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Figures]:
        """Loss (scalar, this process's share) and figures (shares likewise).

        Raises:
            ModelError: the prediction lacks what the weights ask for.
        """
        pairs = {name: self._residual(name, graph, targets, prediction) for name in self.weights}
        counts = torch.stack([mask.sum() for _, mask, _ in pairs.values()])
        totals = state.total(counts)
        loss: Tensor | None = None
        figures: Figures = {}
        for (name, (residual, _, unit)), total in zip(pairs.items(), totals, strict=True):
            values = self._penalised(name, residual * unit, targets)
            part = self.weights[name] * values.sum() / total.clamp(min=1)
            loss = part if loss is None else loss + part.to(loss.dtype)
            figures[f"loss_{name}"] = part.detach()
            figures[f"{name}_mae"] = residual.detach().abs().sum() / total
        assert loss is not None
        return loss, figures

    def _penalised(self, name: str, values: Tensor, targets: Targets) -> Tensor:
        return penalty(values, self.loss, self.huber_delta)

    def _residual(
        self, name: str, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """Difference (0 where masked; energies per atom), mask of labelled values, factor to the unit of the loss."""
        predicted = getattr(prediction, name, None)
        if predicted is None:
            raise ModelError("was not predicted", where=("objective", name))
        target = getattr(targets, name)
        mask = torch.isfinite(target)
        unit: Tensor | float = 1.0
        if name == "stress":
            mask = mask & graph.pbc.all(-1)[:, None, None]
        # The mask is applied before the subtraction: NaN times zero would still poison the gradient.
        residual = torch.where(mask, predicted, 0.0) - torch.where(mask, target, 0.0).to(predicted.dtype)
        if name == "energy":
            residual = residual / graph.n_atoms
            unit = graph.n_atoms if self.energy_unit == "total" else 1.0
        return residual, mask, unit
