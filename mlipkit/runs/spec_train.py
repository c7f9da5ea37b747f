"""Specifications of runs that fit weights to labelled frames: what they share, and training from scratch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mlipkit.errors import nearest
from mlipkit.labels import LABELS
from mlipkit.runs.part import Part, refuse_idle, unit
from mlipkit.runs.spec_base import BaseSpec


class SplitSpec(Part):
    """How frames are divided when no separate validation and test files are named."""

    validation: float = Field(default=0.1, ge=0, description="share (below 1) or number of frames for validation")
    test: float = Field(default=0.1, ge=0, description="share (below 1) or number of frames for the test")
    by: Literal["auto", "trajectory", "block", "random"] = Field(
        default="auto", description="auto: blocks for time-ordered frames, else random"
    )
    seed: int = Field(default=0, ge=0, description="random seed of the split")

    def method(self, n_trajectories: int) -> str:
        """How frames of so many trajectories are divided, as `mlipkit.data.split` names it."""
        return self.by

    @model_validator(mode="after")
    def _share_or_number(self):
        for name in ("validation", "test"):
            value = getattr(self, name)
            if value > 1 and value != int(value):
                raise ValueError(f"{name}: {value:g} is neither a share below 1 nor a whole number of frames")
        return self


ENCODER_OPTIONS: dict[str, tuple[str, ...]] = {
    "painn": ("n_radial",),
    "schnet": ("n_radial",),
    "visnet": ("n_radial", "heads", "lmax", "envelope"),
    "egnn": ("envelope",),
}
"""Settings of each encoder beside width, layers and cutoff; a test compares them with `mlipkit.models.ENCODERS`."""
WITH_VECTORS = ("painn", "visnet")
"""Encoders whose features have vectors; the same test."""


class ModelSpec(Part):
    """Encoder, its size, and the head that makes energies of its features."""

    encoder: Literal["painn", "schnet", "visnet", "egnn"] = Field(
        default="painn",
        description="message-passing encoder: painn and visnet know directions, schnet and egnn distances",
    )
    features: int = Field(default=64, ge=1, description="width of the atom features")
    layers: int = Field(default=3, ge=1, description="number of interaction layers")
    cutoff: float = Field(
        default=5.0, gt=0, description="radius within which atoms see each other", json_schema_extra=unit("Å")
    )
    n_radial: int | None = Field(
        default=None,
        ge=1,
        description="number of radial functions; empty: 20 for painn, 50 for schnet, 32 for visnet; egnn has none",
    )
    heads: int = Field(default=8, ge=1, description="visnet: attention heads; they divide the features")
    lmax: int = Field(default=1, ge=1, le=2, description="visnet: degree of its vectors, 2 is slower and knows more")
    envelope: bool = Field(
        default=True,
        description="visnet, egnn: messages fade out at the cutoff; false as published, where energies jump there",
    )
    head: Literal["per_atom", "per_atom_wide", "pooled", "pooled_features", "gated"] = Field(
        default="per_atom",
        description="energy from features: atom by atom (per_atom, wide, gated: with the vectors of painn or visnet), "
        "or of all atoms together (pooled, pooled_features), which fits one composition only",
    )
    seed: int | None = Field(
        default=None, ge=0, description="random seed of the initial weights; empty: the run's seed"
    )

    @property
    def encoder_options(self) -> dict[str, bool | int | float]:
        """Those settings that the encoder has, under the names of `mlipkit.models`; what is empty keeps its default."""
        names = ("features", "layers", "cutoff", *ENCODER_OPTIONS[self.encoder])
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _every_option_acts(self):
        options = sorted({option for known in ENCODER_OPTIONS.values() for option in known})
        acting = {name: tuple(e for e, known in ENCODER_OPTIONS.items() if name in known) for name in options}
        return refuse_idle(self, "encoder", acting)

    @model_validator(mode="after")
    def _parts_fit(self):
        if self.head == "gated" and self.encoder not in WITH_VECTORS:
            raise ValueError(f"head: gated takes vectors, which only {' and '.join(WITH_VECTORS)} have")
        if self.encoder == "visnet" and self.features % self.heads:
            raise ValueError(f"heads: {self.heads} do not divide {self.features} features")
        return self


class TasksSpec(Part):
    """Self-supervised tasks of TAIP, learned beside the labels, so that the potential can adapt when it is used."""

    enabled: bool = Field(default=False, description="train with the tasks")
    noise: float = Field(
        default=1.0, ge=0, description="weight: which noise level separates two structures; 0: without"
    )
    types: float = Field(default=1.0, ge=0, description="weight: types of hidden atoms; 0: without")
    pseudo_forces: float = Field(default=1.0, ge=0, description="weight: forces of hidden atoms; 0: without")
    levels: int | None = Field(
        default=None, ge=2, description="noise levels; empty: 50 for periodic frames, 30 for molecules"
    )
    sigma_max: float = Field(
        default=10.0, gt=0, description="largest noise; 1 keeps molecules whole", json_schema_extra=unit("Å")
    )
    sigma_min: float = Field(default=0.01, gt=0, description="smallest noise", json_schema_extra=unit("Å"))
    edges: Literal["rebuilt", "kept"] = Field(
        default="rebuilt", description="neighbours of displaced structures: their own, or those of the clean ones"
    )
    pooling: Literal["sum", "mean"] = Field(
        default="sum", description="over atoms in the noise task; mean where structures differ in size"
    )
    type_rate: float | None = Field(
        default=None, ge=0, lt=1, description="share of hidden types; empty: 0.10 for periodic frames, else 0.15"
    )
    gamma: float = Field(default=1.0, ge=1, description="power of the loss of hidden types")
    force_rate: float | None = Field(
        default=None, ge=0, lt=1, description="share of hidden forces; empty: 0.05 for periodic frames, else 0.10"
    )
    mf_mode: Literal["paper", "authors"] = Field(
        default="paper", description="hidden forces as printed, or as the authors' code does (decoder never trained)"
    )
    decoder: Literal["filter", "equivariant"] = Field(
        default="filter", description="of hidden forces: as published, or one that turns with the structure"
    )

    @model_validator(mode="after")
    def _every_option_acts(self):
        if not self.enabled:
            for name in type(self).model_fields:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name}: has no effect unless enabled")
        elif not (self.noise or self.types or self.pseudo_forces):
            raise ValueError("noise, types, pseudo_forces: one of them needs a weight")
        if self.sigma_min > self.sigma_max:
            raise ValueError("sigma_min: is larger than sigma_max")
        return refuse_idle(self, "mf_mode", {"decoder": ("paper",)})


class LossSpec(Part):
    """What training makes small."""

    kind: Literal["l1", "l2", "huber"] = Field(default="l2", description="penalty of one residual")
    energy: float = Field(default=1.0, ge=0, description="weight of the energy term")
    forces: float = Field(default=10.0, ge=0, description="weight of the force term")
    stress: float = Field(default=0.0, ge=0, description="weight of the stress term")
    energy_unit: Literal["per_atom", "total"] = Field(default="per_atom", description="energies in the loss")
    huber_delta: float = Field(default=0.05, gt=0, description="huber: where the penalty turns linear")

    @model_validator(mode="after")
    def _every_option_acts(self):
        return refuse_idle(self, "kind", {"huber_delta": ("huber",)})


class OptimiserSpec(Part):
    """AdamW with warm-up, schedule, gradient clipping and a running average of the weights."""

    learning_rate: float = Field(default=1e-3, gt=0, description="largest learning rate")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled weight decay")
    schedule: Literal["plateau", "cosine", "step", "constant"] = Field(
        default="plateau", description="learning-rate schedule"
    )
    schedule_factor: float = Field(default=0.5, gt=0, lt=1, description="plateau and step: rate times this")
    schedule_patience: int = Field(default=10, ge=1, description="plateau: epochs without a better objective")
    schedule_epochs: int = Field(default=50, ge=1, description="step: epochs between two steps")
    minimum_rate: float = Field(default=1e-6, gt=0, description="the schedule never goes below")
    warmup_steps: int = Field(default=0, ge=0, description="steps of linear warm-up")
    ema_decay: float | None = Field(
        default=0.99, ge=0, lt=1, description="decay of the running average of the weights; empty: off"
    )
    clip_norm: float | None = Field(default=10.0, gt=0, description="largest gradient norm; empty: no clipping")
    patience: int | None = Field(
        default=None, ge=1, description="training ends after so many epochs without improvement; empty: never"
    )

    @model_validator(mode="after")
    def _every_option_acts(self):
        acting = {
            "schedule_factor": ("plateau", "step"), "schedule_patience": ("plateau",), "schedule_epochs": ("step",),
            "minimum_rate": ("plateau", "step", "cosine"),
        }  # fmt: skip
        return refuse_idle(self, "schedule", acting)


def places_in(value: str | list[str] | None) -> list[str]:
    """The places of a field: none, one or several."""
    return [] if not value else [value] if isinstance(value, str) else list(value)


class ReadingSpec(BaseSpec):
    """Labelled frames, their parts, and how their labels are found in the files."""

    data: str | list[str] = Field(description="labelled frames: sample, file, folder, glob, or a list of them")
    validation: str | list[str] | None = Field(
        default=None, description="separate validation frames, as data; empty: split off from data"
    )
    test: str | list[str] | None = Field(
        default=None, description="separate test frames, as data; empty: split off from data"
    )
    split: SplitSpec = SplitSpec()
    keys: dict[str, str | None] | None = Field(
        default=None,
        description="names of labels in the file, for example {forces: dft_forces}; {stress: null} ignores one; "
        "empty: found by themselves",
    )
    units: dict[str, str] | None = Field(
        default=None,
        description="for files that declare none (npz): for example {energy: kcal/mol}; empty: declared or recognised",
    )
    allow_partial: bool = Field(default=False, description="accept labels that only some of the frames have")
    unconverged: Literal["keep", "drop", "error"] = Field(
        default="keep", description="frames whose electronic structure did not converge (VASP)"
    )

    @model_validator(mode="after")
    def _labels_exist(self):
        for label in self.keys or {}:
            if label not in LABELS:
                raise ValueError(f"keys: '{label}' is no label, {nearest(label, LABELS)}")
        for what in self.units or {}:
            if what not in ("energy", "length"):
                raise ValueError(f"units: '{what}' has no unit of its own, known: energy, length")
        return self

    PLACES: ClassVar[tuple[str, ...]] = ("data", "validation", "test")

    @property
    def frame_places(self) -> list[str]:
        """Places whose frames are read with the options `keys`, `units` and `unconverged`."""
        return [text for value in (self.data, self.validation, self.test) for text in places_in(value)]


class FittingSpec(ReadingSpec):
    """What every run that fits weights to labelled frames has: frames, their parts, loss, optimiser, ends."""

    n_train: int | None = Field(
        default=None, ge=1, description="train on this many frames of the training part; empty: all"
    )
    optimiser: OptimiserSpec = OptimiserSpec()
    batch_size: int = Field(default=10, ge=1, description="frames per step")
    max_epochs: int = Field(default=200, ge=1, description="passes over the training frames at most")
    max_steps: int | None = Field(default=None, ge=1, description="steps at most; empty: no bound")
    time_limit_s: float | None = Field(
        default=None, gt=0, description="training time at most; empty: no bound", json_schema_extra=unit("s")
    )

    CHANGEABLE: ClassVar = ("max_epochs", "max_steps", "time_limit_s", "threads")


class TrainSpec(FittingSpec):
    """Train a potential on labelled frames."""

    kind: Literal["train"] = "train"
    model: ModelSpec = ModelSpec()
    loss: LossSpec = LossSpec()
    taip: TasksSpec = TasksSpec()

    @property
    def default_name(self) -> str:
        return f"train_{self.model.encoder}"
