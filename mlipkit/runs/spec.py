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
from typing import Annotated, Any, ClassVar, Literal, TypeGuard

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlipkit.errors import SpecError, nearest
from mlipkit.labels import LABELS

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


def unit(text: str) -> dict[str, Any]:
    """Extra of a field that a form or a help text shows behind the number."""
    return {"unit": text}


class Part(BaseModel):
    """Base of everything in a specification: unknown fields and live objects are refused with a `SpecError`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants", validate_default=False
    )

    def __init__(self, **values: Any) -> None:
        plain = {key: _plain(value, key) for key, value in values.items()}
        try:
            super().__init__(**plain)
        except ValidationError as error:
            raise _spec_error(type(self), error) from None

    # Tells pydantic that nested parts need not pass through this __init__: the outermost one then knows the whole
    # path of a wrong field ("model: encodr").
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def changed(self, **values: Any):
        """A copy with some fields replaced, validated again. Nested ones by dots: ``{"model.features": 32}``."""
        record = self.model_dump(mode="json")
        for path, value in values.items():
            *heads, last = path.replace("__", ".").split(".")
            place = record
            for head in heads:
                if not isinstance(place.get(head), dict):
                    raise SpecError("unknown field", where=path, hint=nearest(head, place))
                place = place[head]
            place[last] = _plain(value, path)
        return type(self)(**record)


def _acting(part: Any, choice: str, acting: Mapping[str, tuple[str, ...]]) -> Any:
    """Refuse values that were changed and have no effect with what was chosen: a wish must not go unheard."""
    chosen = getattr(part, choice)
    for name, choices in acting.items():
        if chosen not in choices and getattr(part, name) != type(part).model_fields[name].default:
            raise ValueError(f"{name} has no effect with {choice} '{chosen}', only with {', '.join(choices)}")
    return part


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


class ModelSpec(Part):
    """Encoder and its size."""

    encoder: Literal["painn", "schnet"] = Field(default="painn", description="message-passing encoder")
    features: int = Field(default=64, ge=1, description="width of the atom features")
    layers: int = Field(default=3, ge=1, description="number of interaction layers")
    cutoff: float = Field(
        default=5.0, gt=0, description="radius within which atoms see each other", json_schema_extra=unit("Å")
    )
    n_radial: int | None = Field(
        default=None, ge=1, description="number of radial functions; empty: 20 for painn, 50 for schnet"
    )
    seed: int | None = Field(
        default=None, ge=0, description="random seed of the initial weights; empty: the run's seed"
    )


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
        return _acting(self, "kind", {"huber_delta": ("huber",)})


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
        return _acting(self, "schedule", acting)


class _Spec(Part):
    version: Literal[1] = 1
    name: str = Field(default="", description="name of the run's folder; empty: chosen from the kind")
    seed: int = Field(default=0, ge=0, description="random seed of everything that has no seed of its own")
    dtype: Literal["float32", "float64"] = Field(default="float32", description="precision of the model")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1")
    threads: int = Field(default=1, ge=1, description="CPU threads the run may use")

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
        return f"import mlipkit as mk\n\nrun = mk.launch({_code(self)})\nrun.wait()\n"


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


CHECKS = (
    "finite", "temperature", "max_force", "energy_drift", "overlap", "broken_bonds", "lone_atoms", "density",
)  # fmt: skip
"""Stability checks; a test compares them with `mlipkit.md.CHECKS`."""
CHECK_LIMITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(CHECKS, ("warn", "fail", "every")),
    "finite": ("every",),
    "temperature": ("warn", "fail", "every", "during", "jump"),
    "energy_drift": ("warn", "fail", "every", "window"),
    "overlap": ("warn", "fail", "every", "least"),
}
"""Limits of each check that act; a test compares them with the fields in `mlipkit.md`."""
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
        return _acting(self, "ensemble", acting)

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
            _check_limit(name, limit)
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


def _check_limit(name: str, limit: Any) -> None:
    """Refuse what is no limit of the check `name`, as `mlipkit.md.build_checks` would much later."""
    if limit is None or isinstance(limit, bool):
        return
    known = CHECK_LIMITS[name]
    if not isinstance(limit, Mapping):
        if "fail" not in known:
            raise ValueError(f"checks: {name} has no limit, it is true or false; found {limit!r:.40}")
        if not _is_number(limit) or not limit > 0:
            raise ValueError(f"checks: {name}: expected a number above 0, limits by name or false; found {limit!r:.40}")
        return
    for field, value in limit.items():
        if field not in known:
            raise ValueError(f"checks: {name}: unknown limit '{field}', {nearest(field, known)}")
        if value is None and field in ("warn", "fail"):
            continue
        if field == "every":
            expected, fits = "a whole number of steps", _is_number(value) and value >= 1 and value % 1 == 0
        elif field in ("warn", "during", "least"):
            # At 0 these warn at once, wait for nothing, bound nothing; a failure at 0 would end every run.
            expected, fits = "a number of at least 0", _is_number(value) and value >= 0
        else:
            expected, fits = "a number above 0", _is_number(value) and value > 0
        if not fits:
            raise ValueError(f"checks: {name}: {field}: expected {expected}; found {value!r:.40}")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


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


def _plain(value: Any, where: str) -> Any:
    """The value as plain data, or the advice what to name instead."""
    if value is None or isinstance(value, (bool, int, float, str, Part)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}: {key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}: {index}") for index, item in enumerate(value)]
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    what = type(value).__name__
    raise SpecError(
        f"a live Python object ({what}) cannot go into a specification, as the run is another process",
        where=where.split(": "),
        hint="Write a function without arguments that returns it and name it: 'file.py:make' or 'package.module:make'"
        + ("; frames can also be saved with mlipkit.write(path, frames) and named by their path"
           if what in ("Atoms", "FrameSet") else ""),
    )  # fmt: skip


def _spec_error(cls: type[Part], error: ValidationError) -> SpecError:
    problems = error.errors(include_url=False)
    # An unknown field explains a missing one ("dat" and no "data"), so it speaks first.
    problem = min(problems, key=lambda item: item["type"] != "extra_forbidden")
    path = [str(part) for part in problem["loc"]]
    where = (cls.__name__, *path)
    if problem["type"] == "extra_forbidden":
        return SpecError("unknown field", where=where, hint=nearest(path[-1], _fields_at(cls, path[:-1])))
    if problem["type"] == "missing":
        return SpecError("this field is needed", where=where)
    if problem["type"] == "value_error":
        return SpecError(str(problem.get("ctx", {})["error"]), where=where)
    found, hint = problem.get("input"), None
    if problem["type"] == "literal_error" and isinstance(found, str):
        hint = nearest(found, re.findall(r"'([^']+)'", problem.get("ctx", {})["expected"]))
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    return SpecError(message, where=where, found=f"{found!r:.80}", hint=hint)


def _fields_at(cls: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = cls.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        cls = inner
    return list(cls.model_fields)


def _code(part: Part) -> str:
    default = type(part).model_fields
    given = []
    for key in type(part).model_fields:
        value = getattr(part, key)
        if key in ("kind", "version") or (value == default[key].get_default(call_default_factory=True)):
            continue
        if key == "steps" and getattr(part, "time_ps", None) is not None:
            continue
        given.append(f"{key}={_code(value) if isinstance(value, Part) else repr(value)}")
    prefix = "mk." if isinstance(part, _Spec) else "mk.runs."
    return f"{prefix}{type(part).__name__}({', '.join(given)})"
