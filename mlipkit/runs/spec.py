"""Specifications: what a run shall do, as validated plain data.

One specification is the same thing as a YAML file, as options of a command, as the form of the Launcher and as a Python
object. It holds plain values only (numbers, texts, lists): whatever a run needs beyond that is named, not passed.
How places are named is in `mlipkit.runs.places`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, model_validator

from mlipkit.errors import SpecError, nearest
from mlipkit.labels import LABELS
from mlipkit.runs.limits import CHECKS, check_limit
from mlipkit.runs.part import Part, code_of, refuse_idle, unit

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class SplitSpec(Part):
    """How frames are divided when no separate validation and test files are named."""

    validation: float = Field(default=0.1, ge=0, description="share (below 1) or number of frames for validation")
    test: float = Field(default=0.1, ge=0, description="share (below 1) or number of frames for the test")
    by: Literal["auto", "trajectory", "block", "random"] = Field(
        default="auto", description="auto: blocks for time-ordered frames, else random"
    )
    seed: int = Field(default=0, ge=0, description="random seed of the split")

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


class _Spec(Part):
    version: Literal[1] = 1
    name: str = Field(default="", description="name of the run's folder; empty: chosen from the kind")
    seed: int = Field(default=0, ge=0, description="random seed of everything that has no seed of its own")
    dtype: Literal["float32", "float64"] = Field(default="float32", description="precision of the model")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1")
    threads: int = Field(default=1, ge=1, description="CPU threads the run may use")

    HOME: ClassVar[str] = "mk."
    PLACES: ClassVar[tuple[str, ...]] = ()
    CHANGEABLE: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _name_is_a_folder_name(self):
        if self.name and not NAME.match(self.name):
            raise ValueError("name: letters, digits, '.', '_' and '-' only, as it becomes a folder")
        return self

    @model_validator(mode="after")
    def _device_has_float64(self):
        if self.device == "mps":
            raise ValueError("device: mps has no float64, in which energies are summed and atoms are moved; use cpu")
        return self

    @property
    def default_name(self) -> str:
        """Folder name used when `name` is empty."""
        raise NotImplementedError

    def places(self) -> Iterator[tuple[str, str]]:
        """(field, text) of everything the run reads: files, samples, other runs, factories."""
        for field in self.PLACES:
            value = getattr(self, field)
            for text in value if isinstance(value, list) else [value]:
                if text:
                    yield field, text

    def to_yaml(self) -> str:
        """This specification as YAML; `load_spec` reads it back equal."""
        record = self.model_dump(mode="json")
        first = {key: record.pop(key) for key in ("kind", "version", "name")}
        return yaml.safe_dump({**first, **record}, sort_keys=False, allow_unicode=True)

    def code(self) -> str:
        """Python that launches the same run, with only the fields that differ from the defaults."""
        return f"import mlipkit as mk\n\nrun = mk.launch({code_of(self)})\nrun.wait()\n"


class TrainSpec(_Spec):
    """Train a potential on labelled frames."""

    kind: Literal["train"] = "train"
    data: str | list[str] = Field(description="labelled frames: sample, file, folder, glob, or a list of them")
    validation: str | None = Field(default=None, description="separate validation frames; empty: split off from data")
    test: str | None = Field(default=None, description="separate test frames; empty: split off from data")
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
    n_train: int | None = Field(
        default=None, ge=1, description="train on this many frames of the training part; empty: all"
    )
    model: ModelSpec = ModelSpec()
    loss: LossSpec = LossSpec()
    optimiser: OptimiserSpec = OptimiserSpec()
    batch_size: int = Field(default=10, ge=1, description="frames per step")
    max_epochs: int = Field(default=200, ge=1, description="passes over the training frames at most")
    max_steps: int | None = Field(default=None, ge=1, description="steps at most; empty: no bound")
    time_limit_s: float | None = Field(
        default=None, gt=0, description="training time at most; empty: no bound", json_schema_extra=unit("s")
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

    PLACES: ClassVar = ("data", "validation", "test")
    CHANGEABLE: ClassVar = ("max_epochs", "max_steps", "time_limit_s", "threads")

    @property
    def default_name(self) -> str:
        return f"train_{self.model.encoder}"


ENSEMBLE_OPTIONS: dict[str, tuple[str, ...]] = {
    "nve": (),
    "langevin": ("temperature", "friction"),
    "berendsen": ("temperature", "relaxation_time"),
    "nose_hoover": ("temperature", "relaxation_time"),
    "bussi": ("temperature", "relaxation_time"),
    "npt": ("temperature", "relaxation_time", "pressure", "pressure_relaxation_time"),
}
"""Settings of each ensemble; a test compares them with `mlipkit.md.ENSEMBLES`."""


class MDSpec(_Spec):
    """Molecular dynamics with a potential, watched by stability checks."""

    kind: Literal["md"] = "md"
    potential: str = Field(
        default="sample:ethanol_1000", description="sample, .safetensors file, training run, or factory of a calculator"
    )
    start: str = Field(default="sample:ethanol_300K@0", description="first structure: sample, file or run, with @frame")
    ensemble: Literal["langevin", "nve", "berendsen", "nose_hoover", "bussi", "npt"] = Field(
        default="langevin", description="ensemble and thermostat"
    )
    temperature: float = Field(
        default=300.0, ge=0, description="target and start temperature", json_schema_extra=unit("K")
    )
    timestep: float = Field(default=0.5, gt=0, le=10, description="time step", json_schema_extra=unit("fs"))
    steps: int = Field(default=20000, ge=1, description="number of steps (from time_ps when that is given)")
    time_ps: float | None = Field(
        default=None, gt=0, description="simulated time; replaces steps", json_schema_extra=unit("ps")
    )
    stride: int = Field(default=20, ge=1, description="steps between stored frames")
    friction: float = Field(default=0.01, ge=0, description="langevin: friction", json_schema_extra=unit("1/fs"))
    relaxation_time: float = Field(
        default=100.0, gt=0, description="other thermostats: relaxation time", json_schema_extra=unit("fs")
    )
    pressure: float = Field(default=0.0, description="npt: target pressure", json_schema_extra=unit("GPa"))
    pressure_relaxation_time: float = Field(
        default=1000.0, gt=0, description="npt: relaxation time of the pressure", json_schema_extra=unit("fs")
    )
    checks: dict[str, Any] = Field(
        default_factory=dict,
        description="limits of stability checks, for example {max_force: 50}; {overlap: false} switches one off",
    )
    checkpoint_every: int = Field(default=1000, ge=1, description="steps between checkpoints")
    replicas: int = Field(default=1, ge=1, description="copies of the system with different random numbers")
    keep_velocities: bool = Field(
        default=False, description="start from the velocities in the file instead of random ones"
    )

    PLACES: ClassVar = ("potential", "start")
    CHANGEABLE: ClassVar = ("steps", "time_ps", "temperature", "friction", "checks", "threads")

    @property
    def ensemble_options(self) -> dict[str, float]:
        """Those settings that the ensemble has, under the names of `mlipkit.md`."""
        return {name: getattr(self, name) for name in ENSEMBLE_OPTIONS[self.ensemble]}

    @model_validator(mode="after")
    def _every_option_acts(self):
        options = {option for known in ENSEMBLE_OPTIONS.values() for option in known} - {"temperature"}
        acting = {name: tuple(e for e, known in ENSEMBLE_OPTIONS.items() if name in known) for name in sorted(options)}
        return refuse_idle(self, "ensemble", acting)

    @model_validator(mode="after")
    def _warm_enough(self):
        # Bussi's scales velocities, which are zero at 0 K; the others divide by the temperature.
        needing = ("nose_hoover", "npt") if self.keep_velocities else ("nose_hoover", "npt", "bussi")
        if self.temperature == 0 and self.ensemble in needing:
            raise ValueError(f"temperature: {self.ensemble} needs one above 0 K; langevin takes 0 K")
        return self

    @model_validator(mode="after")
    def _checks_exist(self):
        for name, limit in self.checks.items():
            if name not in CHECKS:
                raise ValueError(f"checks: unknown check '{name}', {nearest(name, CHECKS)}")
            check_limit(name, limit)
        return self

    @model_validator(mode="after")
    def _steps_from_time(self):
        if self.time_ps is not None:
            steps = _steps_in(self.time_ps, self.timestep)
            if "steps" in self.model_fields_set and self.steps != steps:
                raise ValueError(
                    f"give either steps or time_ps: {self.time_ps:g} ps at {self.timestep:g} fs are {steps} steps, "
                    f"not {self.steps}"
                )
            object.__setattr__(self, "steps", steps)
        return self

    def changed(self, **values: Any) -> MDSpec:
        # The number of steps follows from the time or the other way round, whichever was said last.
        if "steps" in values:
            values.setdefault("time_ps", None)
        elif values.get("time_ps", self.time_ps) is not None and {"time_ps", "timestep"} & set(values):
            time, timestep = values.get("time_ps", self.time_ps), values.get("timestep", self.timestep)
            values["steps"] = _steps_in(time, timestep)
        return super().changed(**values)

    @property
    def default_name(self) -> str:
        return f"md_{self.temperature:g}K"


def _steps_in(time_ps: float, timestep: float) -> int:
    """Number of steps of `timestep` fs in `time_ps`, at least one."""
    return max(round(time_ps * 1000 / timestep), 1)


Spec = Annotated[TrainSpec | MDSpec, Field(discriminator="kind")]
KINDS: dict[str, type[_Spec]] = {"train": TrainSpec, "md": MDSpec}


def parse_spec(record: Mapping[str, Any], where: str = "specification") -> TrainSpec | MDSpec:
    """Build the specification that a plain mapping describes.

    Raises:
        SpecError: unknown kind, unknown or wrong field, written by a newer version.
    """
    if not isinstance(record, Mapping):
        raise SpecError("not a mapping of field: value lines", where=where, found=type(record).__name__)
    record = dict(record)
    kind = record.get("kind")
    if kind not in KINDS:
        raise SpecError("unknown kind of run", where=where, found=repr(kind), hint=nearest(str(kind), KINDS))
    version = record.get("version", 1)
    if version != 1:
        raise SpecError(
            "unknown version of the specification", where=where, expected="version 1", found=version,
            hint="It was written by a newer mlipkit: update mlipkit",
        )  # fmt: skip
    try:
        return KINDS[kind](**record)  # type: ignore[return-value]
    except SpecError as error:
        raise SpecError(
            error.what, where=(where, *error.where[1:]), expected=error.expected, found=error.found, hint=error.hint
        ) from None


def load_spec(path: str | os.PathLike[str]) -> TrainSpec | MDSpec:
    """Read a specification from a YAML file.

    Raises:
        SpecError: no such file, not YAML, or not a specification.
    """
    path = Path(path)
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"not YAML: {error}", where=str(path)) from None
    return parse_spec(record, where=str(path))
