"""The pieces that turn gradients into weights: AdamW, learning-rate schedule, moving average, clipping.

Each keeps its state in the open, so that a checkpoint is a dictionary and resuming is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mlipkit.errors import RunError

if TYPE_CHECKING:
    from mlipkit.training.settings import TrainSettings


def adamw(module: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019) over the trainable parameters; decay on weight matrices only."""
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    decayed = [p for p in trainable if p.ndim >= 2 and id(p) not in tables]
    chosen = {id(p) for p in decayed}
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if id(p) not in chosen], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        fused=True,
    )


def optimiser_tensors(optimiser: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """State of an optimiser as tensors named ``<quantity>/<parameter>``."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        for quantity, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{quantity}/{name}"] = torch.as_tensor(value)
    return tensors


def restore_optimiser(optimiser: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Undo `optimiser_tensors`. Parameters without saved state start fresh, as they had none.

    Raises:
        RunError: a tensor belongs to no parameter, or has another shape.
    """
    parameters = dict(module.named_parameters())
    for key, value in tensors.items():
        quantity, _, name = key.partition("/")
        parameter = parameters.get(name)
        if parameter is None or (value.ndim and value.shape != parameter.shape):
            raise RunError("optimiser state does not fit the potential", where=name)
        optimiser.state[parameter][quantity] = value.to(parameter.device, copy=True)


class LearningRate:
    """Learning rate as a function of step and of what the validation said so far.

    `rate(step)` is ``settings.learning_rate`` times warm-up times schedule, never below `minimum_rate` once warm. The
    plateau schedule (reduce when the objective has not improved for `schedule_patience` epochs) keeps three numbers;
    all others are pure functions of the step.

    Args:
        settings: the numbers.
        steps_per_epoch: optimiser steps in an epoch.
    """

    def __init__(self, settings: TrainSettings, steps_per_epoch: int) -> None:
        self.settings = settings
        self.steps_per_epoch = max(1, steps_per_epoch)
        bounds = [settings.max_steps]
        if settings.max_epochs is not None:
            bounds.append(settings.max_epochs * self.steps_per_epoch)
        self.planned = max(1, min(bound for bound in bounds if bound is not None)) if any(bounds) else 0
        self.base = settings.learning_rate
        self.first_step = 0
        self.factor = 1.0
        self.best = math.inf
        self.waited = 0

    def rate(self, step: int) -> float:
        """Rate of the step with this index (from 0)."""
        settings, done = self.settings, step - self.first_step
        if done < settings.warmup_steps:
            return self.base * (done + 1) / (settings.warmup_steps + 1)
        lowest = min(settings.minimum_rate, self.base)
        if settings.schedule == "plateau":
            return max(lowest, self.base * self.factor)
        if settings.schedule == "step":
            epochs = done // self.steps_per_epoch
            return max(lowest, self.base * settings.schedule_factor ** (epochs // settings.schedule_epochs))
        if settings.schedule == "cosine":
            end = self.planned - self.first_step
            if settings.stage_epochs is not None:
                end = settings.stage_epochs * self.steps_per_epoch
            span = max(1, end - settings.warmup_steps)
            part = min(1.0, (done - settings.warmup_steps) / span)
            return lowest + (self.base - lowest) * 0.5 * (1 + math.cos(math.pi * part))
        return self.base

    @property
    def at_minimum(self) -> bool:
        """Whether the plateau schedule can reduce no further."""
        return self.base * self.factor <= self.settings.minimum_rate

    @property
    def exceeded_at_minimum(self) -> bool:
        """Whether the plateau schedule would reduce the rate once more, if it could."""
        return self.at_minimum and self.waited > self.settings.schedule_patience

    def epoch_ends(self, objective: float) -> bool:
        """Tell the plateau schedule the epoch's objective; True when the rate was reduced."""
        if self.settings.schedule != "plateau":
            return False
        if objective < self.best:
            self.best, self.waited = objective, 0
            return False
        self.waited += 1
        if self.waited <= self.settings.schedule_patience or self.at_minimum:
            return False
        self.factor, self.waited = self.factor * self.settings.schedule_factor, 0
        return True

    def new_stage(self, step: int, steps_per_epoch: int) -> None:
        """Start over at this step with the stage's own rate: warm-up, schedule, nothing remembered."""
        self.steps_per_epoch = max(1, steps_per_epoch)
        self.base = self.settings.stage_learning_rate or self.settings.learning_rate
        self.first_step, self.factor, self.best, self.waited = step, 1.0, math.inf, 0

    def foresee(self, steps_per_stage: Sequence[int]) -> None:
        """Plan for the present stage and those after it, of so many steps each."""
        bound = self.settings.max_steps
        planned = self.first_step + sum(steps_per_stage)
        self.planned = planned if bound is None else min(planned, bound)

    def state(self) -> dict[str, Any]:
        """Everything that is not in the settings."""
        best = self.best if math.isfinite(self.best) else None
        return {"first_step": self.first_step, "factor": self.factor, "best": best, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo `state`."""
        self.first_step, self.factor, self.waited = state["first_step"], state["factor"], state["waited"]
        self.best = math.inf if state["best"] is None else state["best"]
        if self.first_step:
            self.base = self.settings.stage_learning_rate or self.settings.learning_rate


class MovingAverage:
    """Exponential moving average of the trainable weights: ``a <- d a + (1 - d) w`` after every step.

    ``d = min(decay, (1 + n) / (10 + n))`` with n updates so far, so that a short training is not held at its start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, parameter in self._live.items():
            self.average[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module holds the averaged weights; afterwards bit for bit its own again."""
        own = {name: parameter.detach().clone() for name, parameter in self._live.items()}
        try:
            self._copy(self.average)
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def take_over(self) -> None:
        """Forget the past: the average is the present weights."""
        for name, parameter in self._live.items():
            self.average[name].copy_(parameter)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._live.items():
            parameter.copy_(values[name])

    def restore(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Take averages and count from a checkpoint.

        Raises:
            RunError: a weight has no saved average of its shape.
        """
        for name, average in self.average.items():
            if name not in tensors or tensors[name].shape != average.shape:
                raise RunError("the checkpoint holds no moving average that fits the potential", where=name)
            average.copy_(tensors[name])
        self.updates = updates


def clip(module: nn.Module, bound: float | None) -> Tensor:
    """Norm of all gradients together (before clipping); scales them down to `bound` when it is larger."""
    parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
    if bound is not None:
        return torch.nn.utils.clip_grad_norm_(parameters, bound)
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
