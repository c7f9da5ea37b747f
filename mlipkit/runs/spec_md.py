"""Specifications of simulations: molecular dynamics, relaxation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from mlipkit.errors import nearest
from mlipkit.runs.limits import CHECKS, check_limit
from mlipkit.runs.part import Part, refuse_idle, unit
from mlipkit.runs.spec_adaptation import AdaptationSpec
from mlipkit.runs.spec_base import BaseSpec

ENSEMBLE_OPTIONS: dict[str, tuple[str, ...]] = {
    "nve": (),
    "langevin": ("temperature", "friction"),
    "berendsen": ("temperature", "relaxation_time"),
    "nose_hoover": ("temperature", "relaxation_time"),
    "bussi": ("temperature", "relaxation_time"),
    "npt": ("temperature", "relaxation_time", "pressure", "pressure_relaxation_time"),
}
"""Settings of each ensemble; a test compares them with `mlipkit.md.ENSEMBLES`."""


THERMOSTAT_SEEDS = 1_000_003
"""Added to the run's seed for the thermostat: equal seeds would repeat the draws of the start velocities."""


def _several(value: Any) -> Any:
    """``"300, 400"`` as a list: in a form or on the command line brackets are easily forgotten."""
    if isinstance(value, str) and "," in value:
        return [part.strip() for part in value.strip("[] ").split(",")]
    return value


def listed(value: Any) -> list[Any]:
    """One value or a list as a list."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


Kelvin = Annotated[float, Field(ge=0)]


class OutsideSpec(Part):
    """A check that watches whether atoms leave the space of the training structures (SOAP Q)."""

    fit_on: str = Field(
        default="",
        description="what counts as inside: a training run, frames, or a saved OODModel; empty: this check is off",
    )
    then: Literal["warn", "fail", "keep"] = Field(
        default="warn",
        description="what happens outside: a warning; the run fails; a warning, and frames are kept in outside.traj",
    )
    factor: float = Field(default=1.0, gt=0, description="multiple of each element's limit from which on it is outside")
    every: int = Field(
        default=20, ge=1, description="steps between two looks, beside those at stored frames; two in a row count"
    )
    components: int = Field(default=5, ge=1, description="components of the map that is fitted")
    most: int = Field(default=50, ge=1, description="keep: frames of each simulation at most")
    apart: float = Field(
        default=50.0, ge=0, description="keep: time between two frames at least", json_schema_extra=unit("fs")
    )

    @model_validator(mode="after")
    def _every_option_acts(self):
        if not self.fit_on and self.model_fields_set - {"fit_on"}:
            changed = [n for n in type(self).model_fields if getattr(self, n) != type(self).model_fields[n].default]
            if changed:
                raise ValueError(f"{changed[0]}: has no effect without fit_on")
        return refuse_idle(self, "then", {"most": ("keep",), "apart": ("keep",)})


class MDSpec(BaseSpec):
    """Molecular dynamics with a potential, watched by stability checks.

    Every start at every temperature is simulated `replicas` times: ``starts x temperatures x replicas`` simulations.
    """

    kind: Literal["md"] = "md"
    potential: str = Field(
        default="sample:ethanol_1000",
        description="sample, .safetensors file, training run, universal:so3lr, or factory of a calculator",
    )
    start: str | Annotated[list[str], Field(min_length=1)] = Field(
        default="sample:ethanol_300K@0", description="first structure: sample, file or run, with @frame; or a list"
    )
    ensemble: Literal["langevin", "nve", "berendsen", "nose_hoover", "bussi", "npt"] = Field(
        default="langevin", description="ensemble and thermostat"
    )
    temperature: Annotated[Kelvin | Annotated[list[Kelvin], Field(min_length=1)], BeforeValidator(_several)] = Field(
        default=300.0, description="target and start temperature, or a list", json_schema_extra=unit("K")
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
    adaptation: AdaptationSpec = AdaptationSpec()
    outside: OutsideSpec = OutsideSpec()
    checkpoint_every: int = Field(default=1000, ge=1, description="steps between checkpoints")
    replicas: int = Field(
        default=1, ge=1, description="copies of each start at each temperature, with different random numbers"
    )
    batch: int | None = Field(
        default=None, ge=1, description="simulations that go together, the rest follow; empty: what memory allows"
    )
    keep_velocities: bool = Field(
        default=False, description="start from the velocities in the file instead of random ones"
    )

    PLACES: ClassVar = ("potential", "start")
    CHANGEABLE: ClassVar = ("steps", "time_ps", "temperature", "friction", "checks", "threads")

    def places(self) -> Iterator[tuple[str, str]]:
        yield from super().places()
        if self.outside.fit_on:
            yield "outside.fit_on", self.outside.fit_on

    @property
    def ensemble_options(self) -> dict[str, Any]:
        """Those settings that the ensemble has, under the names of `mlipkit.md`."""
        return {name: getattr(self, name) for name in ENSEMBLE_OPTIONS[self.ensemble]}

    @model_validator(mode="after")
    def _every_option_acts(self):
        options = {option for known in ENSEMBLE_OPTIONS.values() for option in known} - {"temperature"}
        acting = {name: tuple(e for e, known in ENSEMBLE_OPTIONS.items() if name in known) for name in sorted(options)}
        # Simulations at constant pressure go one after the other.
        acting["batch"] = tuple(e for e in ENSEMBLE_OPTIONS if e != "npt")
        return refuse_idle(self, "ensemble", acting)

    @model_validator(mode="after")
    def _warm_enough(self):
        # Bussi's scales velocities, which are zero at 0 K; the others divide by the temperature.
        needing = ("nose_hoover", "npt") if self.keep_velocities else ("nose_hoover", "npt", "bussi")
        if 0 in listed(self.temperature) and self.ensemble in needing:
            raise ValueError(f"temperature: {self.ensemble} needs one above 0 K; langevin takes 0 K")
        return self

    @model_validator(mode="after")
    def _replicas_differ(self):
        # With the velocities of the file only a thermostat's random numbers tell replicas apart.
        if not self.keep_velocities or self.ensemble in ("langevin", "bussi"):
            return self
        if self.replicas > 1:
            raise ValueError(
                f"replicas: {self.ensemble} has no random numbers, so with keep_velocities all would be the same; "
                "use langevin or bussi, or draw velocities"
            )
        if self.ensemble == "nve" and len(listed(self.temperature)) > 1:
            raise ValueError("temperature: has no effect on nve with keep_velocities; give one")
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
    def n_simulations(self) -> int:
        """Starts times temperatures times replicas."""
        return len(listed(self.start)) * len(listed(self.temperature)) * self.replicas

    def table(self) -> list[dict[str, Any]]:
        """One row for each simulation: index, start, temperature, velocity_seed, thermostat_seed, folder.

        Replicas of a start and temperature follow each other, then come the temperatures, then the starts. The seeds of
        the first are those of a run with one simulation; the others have streams of their own, which no other seed of
        the run repeats.
        """
        grid = list(product(listed(self.start), listed(self.temperature), range(self.replicas)))
        rows = []
        for index, (start, temperature, _) in enumerate(grid):
            velocity, thermostat = (
                (self.seed, self.seed + THERMOSTAT_SEEDS)
                if index == 0
                else (int(one) >> 1 for one in np.random.SeedSequence([self.seed, index]).generate_state(2, np.uint64))
            )
            rows.append({
                "index": index, "start": start, "temperature": temperature, "velocity_seed": velocity,
                "thermostat_seed": thermostat, "folder": "" if len(grid) == 1 else f"replica_{index:03d}",
            })  # fmt: skip
        return rows

    @property
    def default_name(self) -> str:
        kelvin = sorted(set(listed(self.temperature)))
        return f"md_{kelvin[0]:g}K" if len(kelvin) == 1 else f"md_{kelvin[0]:g}-{kelvin[-1]:g}K"


def _steps_in(time_ps: float, timestep: float) -> int:
    """Number of steps of `timestep` fs in `time_ps`, at least one."""
    return max(round(time_ps * 1000 / timestep), 1)


class RelaxSpec(BaseSpec):
    """Relax structures to the nearest minimum of the energy (FIRE)."""

    kind: Literal["relax"] = "relax"
    potential: str = Field(
        default="sample:ethanol_1000",
        description="sample, .safetensors file, training run, universal:so3lr, or factory of a calculator",
    )
    start: str | Annotated[list[str], Field(min_length=1)] = Field(
        default="sample:ethanol_300K@0",
        description="structures: samples, files or runs, with @frame; all frames of a file, the last of a run",
    )
    fmax: float = Field(
        default=0.05, gt=0, description="converged when no force is larger", json_schema_extra=unit("eV/Å")
    )
    steps: int = Field(default=500, ge=1, description="steps at most")
    cell: bool = Field(default=False, description="relax the cell too")
    hydrostatic: bool = Field(default=False, description="cell: its size only, not its shape")
    pressure: float = Field(default=0.0, description="cell: target pressure", json_schema_extra=unit("GPa"))
    smax: float = Field(
        default=0.1, gt=0, description="cell: converged when no stress component is larger",
        json_schema_extra=unit("GPa"),
    )  # fmt: skip
    stride: int = Field(default=10, ge=1, description="steps between stored frames; the last one is always stored")
    batch: int | None = Field(
        default=None, ge=1, description="structures that go together, the rest follow; empty: what memory allows"
    )

    PLACES: ClassVar = ("potential", "start")
    CHANGEABLE: ClassVar = ("steps", "fmax", "smax", "threads")

    @model_validator(mode="after")
    def _every_option_acts(self):
        if not self.cell:
            for name in ("hydrostatic", "pressure", "smax"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} has no effect without cell")
        return self

    @property
    def default_name(self) -> str:
        return "relax"
