"""Every number of a training in one plain dataclass. Specifications, command line and widgets map onto it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from mlipkit.errors import SpecError, nearest

Loss = Literal["l1", "l2", "huber"]
EnergyUnit = Literal["per_atom", "total"]
Schedule = Literal["constant", "plateau", "step", "cosine"]
Precision = Literal["float32", "float64", "bf16-mixed"]
Converge = Literal["patience", "patience_at_min_lr", "at_min_lr", "fixed"]
StageStart = Literal["current", "best"]


@dataclass(frozen=True)
class TrainSettings:
    """Settings of `mlipkit.training.train`. Every option given here acts, or is refused.

    Attributes:
        batch_size: frames per step and process; the effective batch is ``batch_size * num_processes``.
        evaluation_batch_size: frames per batch when only errors are wanted.
        max_epochs: passes over the training data.
        max_steps: optimiser steps over the whole training, resumed parts included; None: no limit.
        time_limit_s: seconds of training, resumed parts included; None: no limit. A training that ends on the clock
            ends at a step that depends on the machine: exact repetition is promised only without it.
        points_per_epoch: frames drawn per epoch instead of all; draws walk through permutations of all frames, so
            every frame is seen equally often. None: all.
        loss: absolute error (l1), squared error (l2) or Huber error, averaged over the labelled values.
        huber_delta: error at which Huber turns from quadratic to linear, in the unit of each label.
        energy_weight, forces_weight, stress_weight: factors of the parts of the loss; 0 leaves a part out. A weight
            above 0 for a label that no training frame has is an error.
        energy_unit: the loss and the objective take energies per atom (eV/atom) or in total (eV).
        learning_rate, weight_decay, beta1, beta2: AdamW. Decay acts on matrices only, not on biases, norms or
            embedding tables.
        clip_norm: bound of the gradient norm over all parameters; None: no clipping.
        schedule: constant; plateau (times `schedule_factor` after `schedule_patience` epochs without a better
            objective); step (times `schedule_factor` every `schedule_epochs` epochs); cosine (from `learning_rate`
            to `minimum_rate` over the planned steps).
        minimum_rate: the schedule never goes below.
        warmup_steps: the rate rises linearly over the first steps, of the training and of every later stage.
        stage_learning_rate: starting rate of later stages of a staged data source; None: `learning_rate`.
        stage_start: weights with which a later stage begins: those of the last step, or the best of the stage before.
        stage_epochs: with converge "fixed": epochs of every stage.
        ema_decay: decay of the exponential moving average of the weights, which is then evaluated and saved as the
            potential; None: off. The effective decay starts lower: min(decay, (1 + step) / (10 + step)).
        patience: early stopping after this many epochs without a better objective; None: off.
        stop_at_minimum_rate: with the plateau schedule, patience counts only once the rate is at its minimum.
        converge: when a training, or a stage of it, is over: "patience" (as `patience` says), "patience_at_min_lr"
            (`schedule_patience` is exceeded once more at the minimum of the plateau schedule), "at_min_lr" (as soon as
            the schedule has reached its minimum, at which nothing is trained), "fixed" (after `stage_epochs`).
        monitor: "objective" (validation errors weighted like the loss) or the name of a validation figure such as
            "forces_mae"; lower is better. Selects the best checkpoint and drives plateau and patience.
        shuffle_seed, noise_seed: one seed per purpose: the order of frames; random numbers inside objective terms.
        precision: dtype of the weights, or bf16 products over float32 weights.
        device: "cpu", "cuda" or "auto".
        num_processes: processes with one device each (gloo on CPU, nccl on CUDA).
        deterministic: ask torch for deterministic algorithms (only needed on accelerators; costs time).
        checkpoint_s, checkpoint_steps: save the exact state at least this often, also inside an epoch.
        plausibility_ev: largest plausible energy per atom beside the atomic energies, eV (bound matter: below 9).
        final_frames: training frames measured at most for the final table of errors; validation and test always whole.
    """

    batch_size: int = 10
    evaluation_batch_size: int = 64
    max_epochs: int = 100
    max_steps: int | None = None
    time_limit_s: float | None = None
    points_per_epoch: int | None = None

    loss: Loss = "l2"
    huber_delta: float = 0.05
    energy_weight: float = 1.0
    forces_weight: float = 10.0
    stress_weight: float = 0.0
    energy_unit: EnergyUnit = "per_atom"

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float | None = 10.0
    schedule: Schedule = "plateau"
    schedule_factor: float = 0.5
    schedule_patience: int = 10
    schedule_epochs: int = 50
    minimum_rate: float = 1e-6
    warmup_steps: int = 0
    stage_learning_rate: float | None = None
    stage_start: StageStart = "current"
    stage_epochs: int | None = None
    ema_decay: float | None = 0.99
    patience: int | None = None
    stop_at_minimum_rate: bool = False
    converge: Converge = "patience"
    monitor: str = "objective"

    shuffle_seed: int = 0
    noise_seed: int = 0
    precision: Precision = "float32"
    device: str = "cpu"
    num_processes: int = 1
    deterministic: bool = False

    checkpoint_s: float = 60.0
    checkpoint_steps: int | None = None
    plausibility_ev: float = 12.0
    final_frames: int = 10_000

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise SpecError(f"unknown {name} '{value}'", where=name, hint=nearest(str(value), choices))
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpecError("out of range", where=name, expected="at least 1", found=value)
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SpecError("out of range", where=name, expected="a number above 0", found=value)
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise SpecError("out of range", where=name, expected="0 or more", found=getattr(self, name))
        for name in ("beta1", "beta2", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise SpecError("out of range", where=name, expected="0 <= value < 1", found=value)
        if not 0 < self.schedule_factor < 1:
            raise SpecError(
                "out of range", where="schedule_factor", expected="between 0 and 1", found=self.schedule_factor
            )
        if self.minimum_rate > self.learning_rate:
            raise SpecError(
                "above the learning rate",
                where="minimum_rate",
                expected=f"at most {self.learning_rate:g}",
                found=f"{self.minimum_rate:g}",
            )
        if self.stop_at_minimum_rate and (self.schedule != "plateau" or self.patience is None):
            raise SpecError(
                "has no effect here",
                where="stop_at_minimum_rate",
                hint="It needs schedule='plateau' and a patience",
            )

        self._check_converge()

    def _check_converge(self) -> None:
        if self.converge != "patience" and self.patience is not None:
            raise SpecError(f"has no effect with converge='{self.converge}'", where="patience", found=self.patience)
        if self.converge in ("patience_at_min_lr", "at_min_lr") and self.schedule != "plateau":
            raise SpecError("needs schedule='plateau'", where="converge", found=f"schedule='{self.schedule}'")
        if (self.converge == "fixed") != (self.stage_epochs is not None):
            raise SpecError("go together", where="converge='fixed' and stage_epochs", found=self.stage_epochs)

    def weights(self) -> dict[str, float]:
        """Weight per label, labels with weight 0 left out."""
        pairs = {"energy": self.energy_weight, "forces": self.forces_weight, "stress": self.stress_weight}
        return {name: weight for name, weight in pairs.items() if weight > 0}

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary of all settings."""
        return dataclasses.asdict(self)


_CHOICES: dict[str, tuple[str, ...]] = {
    "loss": ("l1", "l2", "huber"),
    "energy_unit": ("per_atom", "total"),
    "schedule": ("constant", "plateau", "step", "cosine"),
    "precision": ("float32", "float64", "bf16-mixed"),
    "converge": ("patience", "patience_at_min_lr", "at_min_lr", "fixed"),
    "stage_start": ("current", "best"),
}
_AT_LEAST_ONE = (
    "batch_size",
    "evaluation_batch_size",
    "max_steps",
    "points_per_epoch",
    "schedule_patience",
    "schedule_epochs",
    "stage_epochs",
    "patience",
    "num_processes",
    "checkpoint_steps",
    "final_frames",
)
_POSITIVE = (
    "time_limit_s",
    "huber_delta",
    "learning_rate",
    "minimum_rate",
    "stage_learning_rate",
    "clip_norm",
    "checkpoint_s",
    "plausibility_ev",
)
_NOT_NEGATIVE = ("max_epochs", "energy_weight", "forces_weight", "stress_weight", "weight_decay", "warmup_steps")
