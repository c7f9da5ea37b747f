"""Objective terms of training: the self-supervised losses, and noise augmentation, the control of equal cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mlipkit.errors import ModelError
from mlipkit.models import Potential
from mlipkit.strategies.taip.draws import draw, perturbed
from mlipkit.strategies.taip.options import TASKS, TaipOptions, heads_of
from mlipkit.strategies.taip.tasks import losses
from mlipkit.training import EnergyForcesStress

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph, Targets
    from mlipkit.models import Prediction
    from mlipkit.training import TrainSettings
    from mlipkit.training.objective import Figures, StepState

FIGURES = {"noise": "loss_noise", "types": "loss_types", "pseudo_forces": "loss_pseudo_forces"}
"""Column of the training series by task: its loss before the weight, a mean over structures."""
HIT = "noise_recognised"
"""Column: share of structures whose noise level was recognised."""
TOGETHER = 64
"""Atoms of a batch up to which all its versions go through the encoder at once."""


@dataclass(frozen=True)
class SelfSupervised:
    """Objective term: the weighted self-supervised losses of a potential with heads (`attach`), mean over structures.

    One term for all tasks, as hidden types and hidden forces share an encoding. The clean features are those of the
    energies. Figures: `FIGURES`, and `HIT`; each task has its column also in the series of validations (``train_*``).
    """

    options: TaipOptions = field(default_factory=TaipOptions)

    name = "self_supervised"

    @property
    def labels(self) -> Mapping[str, float]:
        return {}

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(name for name in TASKS if self.options.weights[name])

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"features"} if "noise" in self.tasks else ())

    @property
    def figures(self) -> dict[str, str]:
        return {FIGURES[name]: "" for name in self.tasks} | ({HIT: ""} if "noise" in self.tasks else {})

    def __call__(
        self, state: StepState, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Figures]:
        potential = state.potential
        heads = heads_of(potential, "objective")
        assert isinstance(potential, Potential)
        if lacking := [name for name in self.tasks if name not in heads.tasks]:
            raise ModelError(
                "no head for a task with a weight", where="objective", expected=", ".join(lacking),
                found=", ".join(heads.tasks), hint="Give the potential its heads with the same options: attach",
            )  # fmt: skip
        (seed,) = torch.randint(1 << 62, (1,), generator=state.generator("self-supervised")).tolist()
        counts = graph.n_atoms.tolist()
        draws = draw(heads, counts, seed, range(len(counts))).to(graph.positions.device, potential.dtype)
        known = None if prediction is None else prediction.features
        found = losses(
            potential, heads, graph, draws, frozenset(self.tasks), clean=known, together=len(graph.numbers) <= TOGETHER
        )
        n = state.total(torch.tensor(graph.n_systems, device=graph.positions.device))
        loss = found.total(self.options.weights).sum() / n
        figures = {FIGURES[name]: one.detach().sum() / n for name, one in found.by_task.items()}
        if found.hit is not None:
            figures[HIT] = found.hit.to(loss.dtype).sum() / n
        return loss, figures


@dataclass(frozen=True)
class NoisyLabels:
    """Objective term: the supervised loss of the same structures with displaced atoms and unchanged labels.

    The control of self-supervised training: it too sees displaced structures. A step costs more than one on labels
    alone and less than one with all three tasks.

    Args:
        loss: penalty with its weights; its figures are reported as ``noisy_*``.
        sigma: Å, standard deviation of each component.
    """

    loss: EnergyForcesStress
    sigma: float = 0.005

    name = "noisy_labels"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    @property
    def labels(self) -> Mapping[str, float]:
        return {}

    @property
    def figures(self) -> dict[str, str]:
        return {f"noisy_{name}": unit for name, unit in self.loss.figures.items()}

    def __call__(
        self, state: StepState, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Figures]:
        (seed,) = torch.randint(1 << 62, (1,), generator=state.generator("noisy labels")).tolist()
        normal = np.random.default_rng(seed).standard_normal(tuple(graph.positions.shape))
        displacement = torch.from_numpy(self.sigma * normal).to(graph.positions)
        moved = perturbed(graph, displacement, state.potential.cutoff)
        found = state.potential(
            moved, forces="forces" in self.loss.needs, stress="stress" in self.loss.needs, create_graph=True
        )
        loss, figures = self.loss(state, moved, targets, found)
        return loss, {f"noisy_{name}": value for name, value in figures.items()}


def published(settings: TrainSettings) -> TrainSettings:
    """Training settings as the paper and its code have them, with the budget of the given ones: AdamW 1e-4 without
    decay or clipping, halved every 150 epochs, batch 2, L1 on total energies and 1000 times L1 on forces.

    Args:
        settings: epochs, steps, seeds, precision and device are kept.
    """
    return replace(
        settings, batch_size=2, loss="l1", energy_weight=1.0, forces_weight=1000.0, energy_unit="total",
        learning_rate=1e-4, weight_decay=0.0, clip_norm=None, schedule="step", schedule_factor=0.5,
        schedule_epochs=150, ema_decay=None, warmup_steps=0, monitor="objective",
    )  # fmt: skip
