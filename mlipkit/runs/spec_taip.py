"""Specification of the evaluation of TAIP with its controls.

What runs with TAIP write beside the usual, for whoever looks at it:

- ``series/training`` of a training with tasks: loss_noise, loss_types, loss_pseudo_forces (mean over structures, before
  their weights), noise_recognised (share); the same as ``train_*`` in ``series/validation``.
- ``series/adaptation`` of every simulation that adapts, a row per step: step, self_supervised (weighted sum),
  loss_noise, loss_types, loss_pseudo_forces, gradient (norm; 0 below the threshold), change (norm of the step, 0 where
  none was taken), drift (norm of weights minus trained weights), adapted (1 where a step was taken: with "threshold" a
  crossing), threshold. Losses and gradient of a step that is not due are NaN.
- an evaluation's ``taip.json`` and ``taip_maps.npz``: see `mlipkit.strategies.taip.study`; its first sentence is the
  reason of `Finished`.
  Facts of `Finished`: sentence, answer, test (which the answer is of), rates (by seed and quantity), seconds_per_frame,
  training_s, frames, tests. Events: `Message` "ARM, seed N: trained in ...", "Seed N, adaptation step ...: errors", and
  those of every training in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mlipkit.runs.part import Part, several, unit
from mlipkit.runs.spec_train import FittingSpec, LossSpec, ModelSpec, OptimiserSpec, TasksSpec, places_in

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _each_once(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("each once")
    return values


def _unless_said(block: Any) -> Any:
    """A block of tasks that does not say whether they are on is one of tasks that are."""
    return {"enabled": True, **block} if isinstance(block, Mapping) else block


class AdaptationStudySpec(Part):
    """How potentials adapt in the evaluation; the step is chosen on validation frames."""

    optimiser: Literal["adam_fresh", "sgd", "adam_kept"] = Field(
        default="adam_fresh",
        description="a new Adam for every structure, plain gradient, or one Adam that goes from structure to structure",
    )
    rates: Annotated[list[Rate], Field(min_length=1), BeforeValidator(several), AfterValidator(_each_once)] = Field(
        default=[1e-7, 1e-6, 1e-5, 1e-4, 1e-3], description="adaptation steps that are tried on the validation frames"
    )
    together: int = Field(
        default=1,
        ge=1,
        description="frames that share a step; with more than one, each prediction depends on the others in its batch",
    )
    seed: int = Field(default=0, ge=0, description="random seed of noise and hidden atoms")
    draws: int = Field(
        default=16,
        ge=1,
        description="draws that the loss of a frame is averaged over where it is set against its error",
    )
    repeats: int = Field(
        default=3, ge=2, description="seeds of noise and hidden atoms that repeatability is taken from"
    )


class TaipLossSpec(LossSpec):
    """What training makes small, as published: absolute errors of total energies and, times 1000, of forces."""

    kind: Literal["l1", "l2", "huber"] = Field(default="l1", description="penalty of one residual")
    forces: float = Field(default=1000.0, ge=0, description="weight of the force term")
    energy_unit: Literal["per_atom", "total"] = Field(default="total", description="energies in the loss")


class TaipOptimiserSpec(OptimiserSpec):
    """AdamW with warm-up, schedule and a running average of the weights; no clipping, as published."""

    clip_norm: float | None = Field(default=None, gt=0, description="largest gradient norm; empty: no clipping")


class TaipSpec(FittingSpec):
    """Does test-time adaptation help? Trains the cure and its controls for each seed, adapts, measures, judges."""

    kind: Literal["taip"] = "taip"
    shifted: str | list[str] = Field(
        default="", description="test frames out of distribution; a list has a test set for each place"
    )
    model: ModelSpec = ModelSpec()
    loss: TaipLossSpec = TaipLossSpec()
    optimiser: TaipOptimiserSpec = TaipOptimiserSpec()
    taip: Annotated[TasksSpec, BeforeValidator(_unless_said)] = TasksSpec(enabled=True)
    adaptation: AdaptationStudySpec = AdaptationStudySpec()
    seeds: Annotated[
        list[Annotated[int, Field(ge=0)]], Field(min_length=1), BeforeValidator(several), AfterValidator(_each_once)
    ] = Field(default=[0, 1, 2], description="seeds of the trainings; fewer than three say little")
    noise_sigma: Annotated[
        list[Rate], Field(min_length=1), BeforeValidator(several), AfterValidator(_each_once)
    ] = Field(
        default=[0.005], json_schema_extra=unit("Å"),
        description="control: displacements of noise augmentation; of several the best on the validation frames",
    )  # fmt: skip
    ablate: bool = Field(default=False, description="also train without each of the tasks")
    features: bool = Field(default=False, description="also measure how far features shift (needs scikit-learn)")
    effect: float = Field(default=0.3, gt=0, lt=1, description="smallest gain of interest, as a share of the error")
    most: int | None = Field(default=None, ge=2, description="frames of a test set at most, evenly spaced; empty: all")

    PLACES: ClassVar = ("data", "validation", "test", "shifted")
    CHANGEABLE: ClassVar = ("threads",)

    @property
    def frame_places(self) -> list[str]:
        return [*super().frame_places, *places_in(self.shifted)]

    @property
    def default_name(self) -> str:
        return f"taip_{self.model.encoder}"

    @model_validator(mode="after")
    def _parts_fit(self):
        if not self.taip.enabled:
            raise ValueError("taip.enabled: an evaluation of the tasks needs them")
        if self.model.seed is not None:
            raise ValueError("model.seed: every training begins from its own of the seeds")
        for name, given in (("time_limit_s", self.time_limit_s), ("optimiser.patience", self.optimiser.patience)):
            if given is not None:
                raise ValueError(f"{name}: ends some trainings before others, and all arms need as many steps")
        for name in ("test", "shifted"):
            places = places_in(getattr(self, name))
            if len(set(places)) < len(places):
                raise ValueError(f"{name}: each once")
        return self
