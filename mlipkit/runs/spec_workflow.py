"""Specification of a workflow: one arm with one seed, from start structures to the evaluation of its models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mlipkit.errors import MlipkitError
from mlipkit.runs.part import Part, refuse_idle, unit
from mlipkit.runs.spec_base import BaseSpec
from mlipkit.runs.spec_finetune import FinetuneLossSpec, FinetuneOptimiserSpec, RecipeSpec
from mlipkit.runs.spec_label import LabelSpec
from mlipkit.runs.spec_md import ENSEMBLE_OPTIONS, MDSpec

if TYPE_CHECKING:
    from mlipkit.strategies.workflows import Plan, Settings


class StartSpec(Part):
    """Where start structures come from: packed from molecules, or drawn from given ones."""

    molecules: dict[str, Any] = Field(
        default_factory=dict,
        description="molecules and how many of each in a periodic box, for example {water: 8}; names or files",
    )
    density: float = Field(default=0.8, gt=0, description="molecules: of the box", json_schema_extra=unit("g/cm³"))
    tolerance: float = Field(
        default=2.0, gt=0, description="molecules: least distance between two of them", json_schema_extra=unit("Å")
    )
    place: str | None = Field(
        default=None, description="given structures instead: sample, file, run or factory; each start is one of them"
    )
    relax: bool = Field(default=True, description="relax each start with the untouched model first")

    @model_validator(mode="after")
    def _one_source(self):
        if bool(self.molecules) == (self.place is not None):
            raise ValueError("either molecules, from which boxes are packed, or the place of given structures")
        for name in ("density", "tolerance"):
            if self.place is not None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect with given structures, only with molecules")
        for name, count in self.molecules.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ValueError(f"molecules: {name}: expected a whole number of molecules; found {count!r}")
        return self


class SamplingSpec(Part):
    """A run of MD from which frames are taken."""

    ensemble: Literal["langevin", "nose_hoover", "bussi", "berendsen", "npt"] = Field(
        default="langevin", description="ensemble and thermostat"
    )
    temperature: float = Field(default=300.0, gt=0, description="of every run", json_schema_extra=unit("K"))
    timestep: float = Field(default=0.5, gt=0, le=10, description="time step", json_schema_extra=unit("fs"))
    time_ps: float = Field(default=1000.0, gt=0, description="length of a run", json_schema_extra=unit("ps"))
    stride: int = Field(default=1000, ge=1, description="steps between stored frames; they divide the run")
    equilibration: float = Field(default=0.5, ge=0, lt=1, description="share of a run before its first labelled frame")
    friction: float = Field(default=0.01, ge=0, description="langevin: friction", json_schema_extra=unit("1/fs"))
    relaxation_time: float = Field(
        default=50.0, gt=0, description="other thermostats: relaxation time", json_schema_extra=unit("fs")
    )
    pressure: float = Field(default=0.0, description="npt: target pressure", json_schema_extra=unit("GPa"))
    pressure_relaxation_time: float = Field(
        default=500.0, gt=0, description="npt: relaxation time of the pressure", json_schema_extra=unit("fs")
    )
    density_low: float = Field(
        default=0.3, ge=0, description="a box below this has boiled away: the workflow stops and says so",
        json_schema_extra=unit("g/cm³"),
    )  # fmt: skip
    density_high: float = Field(
        default=3.0, gt=0, description="a box above this has collapsed", json_schema_extra=unit("g/cm³")
    )
    failure: Literal["stop", "keep"] = Field(
        default="stop",
        description="a run that fails: stop flags the workflow; keep labels what came before and goes on from there",
    )
    checks: dict[str, Any] = Field(
        default_factory=dict, description="limits of stability checks, for example {max_force: 50}"
    )

    @property
    def steps(self) -> int:
        """Steps of a run."""
        return max(round(self.time_ps * 1000 / self.timestep), 1)

    @property
    def options(self) -> dict[str, Any]:
        """Settings of the ensemble, beside the temperature, under the names of `mlipkit.md`."""
        known = [name for name in ENSEMBLE_OPTIONS[self.ensemble] if name != "temperature"]
        return {"ensemble": self.ensemble, **{name: getattr(self, name) for name in known}, "checks": dict(self.checks)}

    @model_validator(mode="after")
    def _every_option_acts(self):
        MDSpec(checks=self.checks)  # names and limits
        options = sorted({option for known in ENSEMBLE_OPTIONS.values() for option in known} - {"temperature"})
        acting = {name: tuple(e for e, known in ENSEMBLE_OPTIONS.items() if name in known) for name in options}
        return refuse_idle(self, "ensemble", acting)


class EngineSpec(Part):
    """What labels frames."""

    maker: str = Field(
        default="gfn1-xtb",
        description="gfn1-xtb, gfn2-xtb, pyscf, universal:so3lr, a potential, recorded:FILE, factory of a calculator",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="settings of the engine, for example {charge: 1}")
    timeout_s: float | None = Field(
        default=1800.0, gt=0, description="longest time for a frame; empty: no limit", json_schema_extra=unit("s")
    )
    processes: int = Field(default=1, ge=1, description="frames at once, each in a process of its own")


class TuningOptimiserSpec(FinetuneOptimiserSpec):
    """AdamW with the rate of fine-tuning; budgets are equal, so nothing ends early unless asked for."""

    patience: int | None = Field(
        default=None, ge=1, description="training ends after so many epochs without improvement; empty: never"
    )


class TuningSpec(Part):
    """Every fine-tuning of the workflow."""

    validation: float = Field(default=0.2, gt=0, lt=1, description="share of the labelled frames that choose the epoch")
    max_epochs: int = Field(default=250, ge=0, description="passes over the training frames at most")
    gradients: int | None = Field(
        default=None,
        ge=1,
        description="frame-gradients per fine-tuning, which then decide the epochs; empty: max_epochs",
    )
    batch_size: int = Field(default=4, ge=1, description="frames per step")
    recipe: RecipeSpec = RecipeSpec()
    loss: FinetuneLossSpec = FinetuneLossSpec()
    optimiser: TuningOptimiserSpec = TuningOptimiserSpec()
    replay: str | None = Field(default=None, description="general frames mixed in with the old potential's labels")

    @model_validator(mode="after")
    def _parts_fit(self):
        if (self.recipe.mix == "none") != (self.replay is None):
            raise ValueError("recipe.mix and replay go together: one says how, the other which frames")
        if self.gradients is not None and self.max_epochs != type(self).model_fields["max_epochs"].default:
            raise ValueError("either max_epochs or gradients, which decide the epochs")
        if self.recipe.shifts == "isolated":
            raise ValueError("recipe.shifts: a workflow fits its constants or keeps the old ones")
        return self


class EvaluationSpec(Part):
    """What every model is tried on; the same for all arms and seeds."""

    independent: int = Field(default=22, ge=0, description="start structures, relaxed and labelled, as test set")
    self_md: Literal["all", "last", "none"] = Field(
        default="all", description="models that run MD from one common unseen start: all, the last one, none"
    )
    frames: int = Field(default=11, ge=1, description="labelled frames of each such run")
    time_ps: float | None = Field(
        default=None, gt=0, description="length of each such run; empty: as those of the arm",
        json_schema_extra=unit("ps"),
    )  # fmt: skip
    seed: int = Field(default=0, ge=0, description="random seed of the evaluation")


class WorkflowSpec(BaseSpec):
    """Sample, label and fine-tune in the order of an arm, and evaluate every model beside its controls."""

    kind: Literal["workflow"] = "workflow"
    arm: Literal["naive", "iterative", "longrun", "hybrid", "packmol_first", "high_force"] = Field(
        default="iterative",
        description="naive: all frames from the untouched model; iterative: each run with the model tuned so far; "
        "longrun: one long run; hybrid: several iterative chains together",
    )
    potential: str = Field(
        default="universal:so3lr", description="the model to be tuned: universal:so3lr, a .safetensors file, a run"
    )
    start: StartSpec = Field(description="start structures")
    runs: int = Field(default=5, ge=1, description="MD runs; the budget is runs times frames labels in every arm")
    frames: int = Field(default=11, ge=1, description="labelled frames of each run")
    sampling: SamplingSpec = SamplingSpec()
    label: EngineSpec = EngineSpec()
    tuning: TuningSpec = TuningSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    base: Literal["untouched", "previous"] = Field(
        default="untouched", description="what a fine-tuning starts from: the untouched model, or the one before"
    )
    sizes: list[int] | None = Field(
        default=None, description="naive, longrun: frames of each of their models; empty: as the iterative rounds"
    )
    run_by_run: bool = Field(default=False, description="naive: smaller models get the first runs, not a random draw")
    chains: int = Field(default=2, ge=1, description="hybrid: starts side by side; they divide the runs")
    share_first_run: bool = Field(default=False, description="the first run is the same in all arms, as published")
    as_published: bool = Field(
        default=False, description="longrun: as long as its frames need, with unequal MD time, as published"
    )
    rattle: float = Field(default=0.1, gt=0, description="high_force: displacement", json_schema_extra=unit("Å"))
    strain: float = Field(default=0.05, gt=0, description="high_force: largest strain component")
    hot: float = Field(default=600.0, gt=0, description="high_force: of its runs", json_schema_extra=unit("K"))
    review: bool = Field(default=False, description="frames wait for approval before they are labelled")
    reuse: list[str] = Field(
        default=[], description="other workflows, whose equal stages (such as the test sets) are taken over"
    )
    fmax: float = Field(
        default=0.05, gt=0, description="relaxations: converged when no force is larger", json_schema_extra=unit("eV/Å")
    )
    relax_steps: int = Field(default=200, ge=1, description="relaxations: steps at most")
    dtype: Literal["float32", "float64"] = Field(default="float64", description="precision of the model")

    PLACES: ClassVar = ("potential",)
    CHANGEABLE: ClassVar = ("threads",)

    def places(self) -> Iterator[tuple[str, str]]:
        yield from super().places()
        if self.start.place:
            yield "start.place", self.start.place
        if self.tuning.replay:
            yield "tuning.replay", self.tuning.replay
        for field, text in self.labelling.places():
            if field != "data":
                yield field, text
        for text in self.reuse:
            yield "reuse", text

    @property
    def labelling(self) -> LabelSpec:
        """The label maker as a labelling run would name it."""
        one = self.label
        more: dict[str, Any] = (
            {} if LabelSpec(data=".", maker=one.maker).engine != "potential" else {"device": self.device}
        )
        return LabelSpec(
            data=".", maker=one.maker, options=one.options, timeout_s=one.timeout_s, processes=one.processes,
            threads=max(self.threads, one.processes), **more,
        )  # fmt: skip

    @property
    def settings(self) -> Settings:
        """The numbers as `mlipkit.strategies.workflows` takes them."""
        from mlipkit.strategies.workflows import Evaluation, Settings

        one, test, tuning = self.sampling, self.evaluation, self.tuning
        train: dict[str, Any] = {"validation": tuning.validation, "epochs": tuning.max_epochs}
        if tuning.gradients is not None:
            train = {"validation": tuning.validation, "gradients": tuning.gradients}
        return Settings(
            runs=self.runs, steps=one.steps, timestep=one.timestep, stride=one.stride, frames=self.frames,
            equilibration=one.equilibration, temperature=one.temperature, md=one.options,
            relax_starts=self.start.relax, starts=self.chains, base=self.base,
            sizes=None if self.sizes is None else tuple(self.sizes), run_by_run=self.run_by_run,
            share_first_run=self.share_first_run, longrun_as_published=self.as_published, rattle=self.rattle,
            strain=self.strain, hot=self.hot, review=self.review, density=(one.density_low, one.density_high),
            failure=one.failure,
            train=train,
            evaluation=Evaluation(
                independent=test.independent, self_md=test.self_md, frames=test.frames, seed=test.seed,
                steps=None if test.time_ps is None else max(round(test.time_ps * 1000 / one.timestep), 1),
            ),
        )  # fmt: skip

    @property
    def plan(self) -> Plan:
        """The stages of this workflow."""
        from mlipkit.strategies.workflows import plan

        return plan(self.arm, self.settings, self.seed)

    @model_validator(mode="after")
    def _every_option_acts(self):
        acting = {
            "sizes": ("naive", "longrun"), "run_by_run": ("naive",), "chains": ("hybrid",),
            "as_published": ("longrun",),
            "rattle": ("high_force",), "strain": ("high_force",), "hot": ("high_force",),
            "base": ("iterative", "hybrid", "packmol_first"),
            "share_first_run": ("naive", "iterative", "longrun", "hybrid"),
        }  # fmt: skip
        return refuse_idle(self, "arm", acting)

    @model_validator(mode="after")
    def _plan_can_be_made(self):
        try:
            _ = self.plan
            if self.start.molecules and self.labelling.engine == "pyscf":
                raise ValueError("label.maker: PySCF labels molecules only, but boxes of molecules are periodic")
        except MlipkitError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def default_name(self) -> str:
        return f"{self.arm}_{self.seed}"
