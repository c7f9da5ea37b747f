"""Specification of dynamic training.

What a run of this kind writes, for whoever looks at it:

- series ``training``, a row per step: step, epoch, loss, loss_forces (eV/Å, mean over the steps of the roll-outs),
  energy_mae (eV/atom), apart (Å: where roll-outs of training end, from the reference), learning_rate, grad_norm,
  seconds, data_wait.
- series ``validation``, a row per epoch (and one before the first): the columns of every training, and ``rollout_mepa``
  (what chooses: a sum over elements, a mean over S_val structures, eV/Å), ``rollout_mepa/element=H`` and so on (its
  parts), ``rollout_first`` (eV/Å: on the starts themselves, equal frames), ``rollout_apart`` (Å, at the end of S_val),
  ``rollout_apart_trained`` (Å, at the end of S), ``n_structures`` (S trained with in the epoch that ends), ``stage``
  (from 1; its changes are the marks of the curriculum), ``evaluation_s`` (s of ``seconds`` that evaluations took so
  far; the rest is training).
- events: `Message` "Roll-outs of 1, 2, 4, 8 structures, ..." (the plan), "Converged after epoch N; next stage:
  roll-outs of S structures", and as a warning "... they are not made longer ..." when roll-outs went astray;
  `Evaluated` and `Saved` as in every training.
- ``rollouts.json``: ``{"1": {"last": row, "best": row}, ..., "timestep": fs}``, by stage; a row has n_structures,
  error (eV/Å of each step, sum over elements), apart (Å of each step), rollout_mepa.
- ``checkpoints/best_stage_K.safetensors`` of each stage that is over, ``best`` of the present one, at the end
  ``chosen``, which the run's folder stands for.
- ``test_rollouts.npz``: roll-outs of the chosen potential on the test part: error and on_reference [R,S,T], apart
  [R,S,2], energy [R,S], timestep, run, start, n_atoms [R], elements [T] (`mlipkit.strategies.dynamic.Rollouts`).
- facts of `Finished`: sentence, chosen (number of the stage), stages (`mlipkit.strategies.dynamic.Stage` each:
  n_structures, first_epoch, epochs, steps, evaluations, training_s, validation_s, best_epoch, rollout_mepa,
  per_element, rollout_first, apart, file), energy_shift, held_at, evaluations, training_s, validation_s, metrics,
  frames, runs, test_rollouts (structures, starts, mepa, equal_frames, per_element, drift, diverged, divergence_fs).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from mlipkit.runs.part import Part, refuse_idle, several, unit
from mlipkit.runs.spec_train import FittingSpec, ModelSpec, OptimiserSpec, SplitSpec

MANY_RUNS = 5
"""Runs from which whole ones are held out."""


class RunSplitSpec(SplitSpec):
    """How AIMD runs are divided; parts are always contiguous in time."""

    by: Literal["auto", "trajectory", "block"] = Field(  # type: ignore[assignment]
        default="auto", description="auto: whole runs where there are at least five, else blocks in time"
    )

    def method(self, n_trajectories: int) -> str:
        if self.by != "auto":
            return self.by
        return "trajectory" if n_trajectories >= MANY_RUNS else "block"


class CurriculumSpec(Part):
    """How long roll-outs are, and when they become longer."""

    n_structures: list[int] = Field(
        default=[1, 2, 4, 8],
        min_length=1,
        description="structures of a roll-out in each stage, the start included; all 1: the control of equal compute",
    )
    converge: Literal["patience_at_min_lr", "at_min_lr", "patience", "fixed"] = Field(
        default="patience_at_min_lr",
        description="a stage is over when the patience of the schedule is exceeded at the minimum rate (as published), "
        "as soon as that rate is reached (published code), after optimiser.patience epochs, or after stage_epochs",
    )
    stage_epochs: int | None = Field(default=None, ge=1, description="fixed: epochs of every stage")
    evaluations_per_epoch: int | None = Field(
        default=None, ge=1,
        description="fixed: force evaluations per epoch, so that stages and arms do the same work; empty: every start "
        "point once",
    )  # fmt: skip
    points_per_epoch: int | None = Field(
        default=None, ge=1, description="start points per epoch; empty: every one, or as evaluations_per_epoch says"
    )
    start_from: Literal["current", "best"] = Field(
        default="current", description="weights with which the next stage begins"
    )
    apart_limit: float | None = Field(
        default=0.2, gt=0, json_schema_extra=unit("Å"),
        description="roll-outs that end further from the reference on average are not made longer; empty: no limit",
    )  # fmt: skip
    choose: Literal["best", "last"] = Field(
        default="best", description="the potential of the run: of the stage best on validation, or of the last"
    )

    _several = field_validator("n_structures", mode="before")(several)

    @model_validator(mode="after")
    def _every_option_acts(self):
        found = self.n_structures
        if min(found) < 1 or any(b < a for a, b in itertools.pairwise(found)):
            raise ValueError("n_structures: numbers of at least 1 that never fall")
        if (self.converge == "fixed") != (self.stage_epochs is not None):
            raise ValueError("stage_epochs and converge: fixed go together")
        if self.evaluations_per_epoch is not None and self.points_per_epoch is not None:
            raise ValueError("evaluations_per_epoch and points_per_epoch say the same thing twice")
        return refuse_idle(self, "converge", {"evaluations_per_epoch": ("fixed",)})


class RolloutSpec(Part):
    """How positions and gradients go from step to step, and where neighbour lists and velocities come from."""

    bptt: bool = Field(
        default=True, description="gradients run back through the positions (as published); false: published code"
    )
    window: int | None = Field(default=None, ge=1, description="steps after which that chain is cut; empty: never")
    recompute: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="compute each step again for its gradients instead of keeping it: less memory, more time; auto: "
        "above 8 structures",
    )
    position_update: Literal["verlet", "euler"] = Field(
        default="verlet", description="euler leaves the acceleration out of positions (published text)"
    )
    refresh: int | None = Field(
        default=1, ge=1,
        description="neighbour lists are those of the reference every so many structures; empty: of the start for all "
        "(published code)",
    )  # fmt: skip
    velocities: Literal["auto", "file", "lattice", "difference"] = Field(
        default="auto",
        description="of the file (Å/fs; lattice: displacements per step in fractions of the cell), or differences of "
        "positions; auto: of the file where it has them",
    )
    frozen: list[int] = Field(default=[], description="atoms that do not move, by index")

    _several = field_validator("frozen", mode="before")(several)

    @model_validator(mode="after")
    def _every_option_acts(self):
        if self.window is not None and not self.bptt:
            raise ValueError("window has no effect without bptt")
        return self


class RolloutLossSpec(Part):
    """What dynamic training makes small."""

    kind: Literal["mepa", "mae", "mse"] = Field(
        default="mepa",
        description="error of a step: absolute, mean of each element and summed over them; mean absolute; mean square",
    )
    first_step: float = Field(default=50.0, ge=0, description="weight of the start in longer roll-outs; others have 1")
    energy: float = Field(default=1.0, ge=0, description="weight of energies per atom while roll-outs have 1 structure")
    energy_dyn: float = Field(default=0.0, ge=0, description="weight of the start's energy in longer roll-outs")
    refit_energy: bool = Field(default=True, description="at the end, fit the energy zero to training frames again")


class RolloutValidationSpec(Part):
    """Roll-outs of validation runs, of the same length in all stages."""

    n_structures: int = Field(default=60, ge=1, description="structures of a roll-out, the start included")
    n_points: int = Field(default=64, ge=1, description="starts, evenly spread over the validation part")
    test_points: int = Field(default=64, ge=1, description="starts, evenly spread over the test part")
    test_structures: int = Field(
        default=120, ge=1, description="structures of the roll-outs of the test part, fewer where its runs are shorter"
    )


class DynamicOptimiserSpec(OptimiserSpec):
    """Adam as published, with a rate that each later stage starts from."""

    stage_learning_rate: float = Field(default=1e-4, gt=0, description="rate with which later stages start")
    schedule_factor: float = Field(default=0.33, gt=0, lt=1, description="plateau and step: rate times this")
    schedule_patience: int = Field(default=15, ge=1, description="plateau: epochs without better roll-outs")
    minimum_rate: float = Field(default=2e-6, gt=0, description="the schedule never goes below")
    ema_decay: float | None = Field(
        default=None, ge=0, lt=1, description="decay of the running average of the weights; empty: off"
    )
    clip_norm: float | None = Field(default=1.0, gt=0, description="largest gradient norm; empty: no clipping")


class DynamicSpec(FittingSpec):
    """Train a potential on pieces of AIMD runs that it integrates itself."""

    kind: Literal["dynamic"] = "dynamic"
    data: str | list[str] = Field(
        description="AIMD runs, every frame in order of time: sample, file, folder, glob, list"
    )
    potential: str | None = Field(
        default=None, description="what to start from: a .safetensors file, a run, universal:so3lr; empty: a new model"
    )
    auxiliary_heads: Literal["keep", "drop"] = Field(
        default="keep", description="self-supervised heads of the potential to start from: keep or drop"
    )
    model: ModelSpec = ModelSpec()
    split: RunSplitSpec = RunSplitSpec()
    curriculum: CurriculumSpec = CurriculumSpec()
    rollout: RolloutSpec = RolloutSpec()
    loss: RolloutLossSpec = RolloutLossSpec()
    rollout_validation: RolloutValidationSpec = RolloutValidationSpec()
    optimiser: DynamicOptimiserSpec = DynamicOptimiserSpec()
    n_train: int | None = Field(
        default=None, ge=1, description="train on this many frames, in whole runs, the last one cut; empty: all"
    )
    batch_size: int = Field(default=32, ge=1, description="start points per step")
    max_epochs: int = Field(default=1000, ge=1, description="epochs over all stages at most")

    PLACES: ClassVar = ("potential", "data", "validation", "test")

    @property
    def default_name(self) -> str:
        return "dynamic" if self.potential else f"dynamic_{self.model.encoder}"

    def places(self) -> Iterator[tuple[str, str]]:
        return ((field, text) for field, text in super().places() if text)

    @model_validator(mode="after")
    def _parts_fit(self):
        if self.potential and self.model != ModelSpec():
            raise ValueError("model has no effect with potential: its encoder is what it is")
        if not self.potential and self.auxiliary_heads == "drop":
            raise ValueError("auxiliary_heads: drop has no effect on a new model, which has none")
        converge, optimiser = self.curriculum.converge, self.optimiser
        if (converge == "patience") != (optimiser.patience is not None):
            raise ValueError("optimiser.patience and curriculum.converge: patience go together")
        if converge.endswith("min_lr") and optimiser.schedule != "plateau":
            raise ValueError(f"curriculum.converge: {converge} needs optimiser.schedule: plateau")
        if self.allow_partial:
            raise ValueError("allow_partial has no effect: every frame of a run needs forces")
        return self
