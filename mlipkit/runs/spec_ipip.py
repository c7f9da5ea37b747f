"""Specification of iterative pretraining (IPIP), of its ablations, and of the methods that it is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from mlipkit.errors import MlipkitError, nearest
from mlipkit.runs.part import Part, refuse_idle, unit
from mlipkit.runs.spec_train import LossSpec, ModelSpec, OptimiserSpec, ReadingSpec, TrainSpec

if TYPE_CHECKING:
    from mlipkit.strategies.ipip import LoopPlan, Settings

Arm = Literal[
    "ipip", "continual", "no_forgetting", "no_relabelling", "no_unstable", "no_fresh_weights", "no_new_frames",
    "no_student_md", "scratch", "one_shot", "denoising", "denoising_fractional", "distillation", "n2n", "a2a",
    "hessian", "teacher",
]  # fmt: skip


class PoolSamplingSpec(Part):
    """MD that makes pools: the teacher's, and with the same starts and, unless asked otherwise, seeds the students'."""

    starts: int = Field(default=20, ge=1, description="start structures, drawn from the training frames")
    steps: int = Field(default=2000, ge=2, description="steps of each run")
    timestep: float = Field(default=1.0, gt=0, le=10, description="time step", json_schema_extra=unit("fs"))
    stride: int = Field(default=20, ge=1, description="steps between stored frames")
    temperature: float = Field(default=300.0, gt=0, description="of every run", json_schema_extra=unit("K"))
    ensemble: Literal["langevin", "nose_hoover"] = Field(
        default="langevin", description="langevin for isolated molecules, nose_hoover for cells"
    )
    friction: float = Field(default=0.001, ge=0, description="langevin: friction", json_schema_extra=unit("1/fs"))
    relaxation_time: float = Field(
        default=100.0, gt=0, description="nose_hoover: relaxation time", json_schema_extra=unit("fs")
    )
    batch: int | None = Field(default=None, ge=1, description="runs that go together; empty: as memory allows")

    @model_validator(mode="after")
    def _every_option_acts(self):
        return refuse_idle(self, "ensemble", {"friction": ("langevin",), "relaxation_time": ("nose_hoover",)})


class InstabilitySpec(Part):
    """When a run is unstable, and which of its frames are candidates."""

    force_cap: float | None = Field(
        default=50.0, gt=0, description="largest force on an atom; empty: ten times the 99.9th percentile of the pool, "
        "in the teacher's first MD and in the tests of all arms 50",
        json_schema_extra=unit("eV/Å"),
    )  # fmt: skip
    hot: float | None = Field(
        default=3.0, gt=1, description="mean temperature, as a multiple of the target; empty: reactions may heat"
    )
    hot_fs: float = Field(default=50.0, gt=0, description="time of that mean", json_schema_extra=unit("fs"))
    overlap: float = Field(default=0.6, gt=0, description="nearest pair, as a share of the covalent radii")
    closest: float = Field(default=0.4, gt=0, description="nearest pair of any elements", json_schema_extra=unit("Å"))
    stretch: float | None = Field(
        default=1.6, gt=1, description="bond, as a multiple of its length at the start; empty: bonds may break"
    )
    stretch_fs: float = Field(
        default=20.0, ge=0, description="how long it is stretched before that counts", json_schema_extra=unit("fs")
    )
    window: int = Field(default=200, ge=1, description="last frames before a failure that are candidates")
    every: int = Field(default=5, ge=1, description="steps between two of them")
    skip: float = Field(
        default=0.02, ge=0, lt=1, description="share of the window's steps, next to the failure, without candidates"
    )
    look_every: int = Field(
        default=1, ge=1, description="steps between two looks at temperature, pairs and bonds (forces: every step)"
    )
    proton_transfer: bool = Field(
        default=True, description="hydrogens of N, O, S and halogens may go to another such atom; no: a stretched bond"
    )

    @model_validator(mode="after")
    def _every_option_acts(self):
        for name, without in (("stretch_fs", "stretch: bonds may break"), ("hot_fs", "hot: reactions may heat")):
            of = name.removesuffix("_fs")
            if getattr(self, of) is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect without {without}")
        return self


class LoopSpec(Part):
    """What each iteration does with the pool."""

    iterations: int = Field(default=3, ge=0, description="iterations after the first, one-shot round")
    forget: float = Field(default=0.1, ge=0, lt=1, description="share of the pool that is dropped at random")
    pool: Literal["replace", "grow"] = Field(
        default="replace",
        description="replace: as many new frames as were forgotten; grow: new_share of the first pool",
    )
    new_share: float = Field(default=0.1, ge=0, lt=1, description="grow: new frames, as a share of the first pool")
    relabel: Literal["all", "student_origin", "off"] = Field(
        default="all",
        description="frames that the student labels anew: all, those that a student made, none (arm continual: none)",
    )
    gate: Literal["off", "noise", "committee"] = Field(
        default="off", description="it labels only where it is calm and sure: spread under noise, or of all students"
    )
    prefer_unstable: bool = Field(default=True, description="new frames come from unstable runs first")
    init: Literal["fresh", "previous_pretrained", "previous_finetuned"] = Field(
        default="fresh",
        description="weights that a pretraining starts from (arm continual: those of the pretraining before)",
    )
    pretrain_energy: Literal["off", "refit"] = Field(
        default="off", description="pretraining: forces alone, or energies less a constant per element and labeller"
    )
    pool_seed: int = Field(
        default=0, ge=0, description="random seed of starts and MD: the same for all seeds of an arm"
    )
    md_seeds: Literal["same", "fresh"] = Field(
        default="same", description="velocities and thermostat of the students' MD: the teacher's, new ones each time"
    )
    md_of: Literal["student", "teacher"] = Field(
        default="student", description="whose MD new frames come from (arm no_student_md: the teacher's)"
    )

    @model_validator(mode="after")
    def _every_option_acts(self):
        refuse_idle(self, "relabel", {"gate": ("all", "student_origin")})
        refuse_idle(self, "md_of", {"md_seeds": ("student",), "prefer_unstable": ("student",)})
        if self.md_of == "teacher" and self.relabel == "student_origin":
            raise ValueError("relabel 'student_origin' has no effect with md_of 'teacher': no student makes a frame")
        return refuse_idle(self, "pool", {"new_share": ("grow",)})


class PretrainLossSpec(LossSpec):
    """Absolute errors of forces; energies only where a method takes them."""

    kind: Literal["l1", "l2", "huber"] = Field(default="l1", description="penalty of one residual")
    energy: float = Field(default=4.0, ge=0, description="weight of the energy term, where energies are learned")
    forces: float = Field(default=100.0, ge=0, description="weight of the force term")
    energy_unit: Literal["per_atom", "total"] = Field(default="total", description="energies in the loss")


class StudentOptimiserSpec(OptimiserSpec):
    """AdamW; trainings end by their steps, so that all arms spend the same."""

    learning_rate: float = Field(default=5e-4, gt=0, description="largest learning rate")
    schedule: Literal["plateau", "cosine", "step", "constant"] = Field(
        default="cosine", description="learning-rate schedule"
    )

    @model_validator(mode="after")
    def _ends_by_steps(self):
        if self.patience is not None:
            raise ValueError("patience has no effect: trainings end by their steps, which are equal in all arms")
        return self


class StudentTrainingSpec(Part):
    """One training of the student."""

    steps: int = Field(default=1500, ge=1, description="gradient steps of each round; all arms have the sum of all")
    batch_size: int = Field(default=10, ge=1, description="frames per step")
    look_every: int = Field(default=50, ge=1, description="steps between two looks at the validation")
    loss: PretrainLossSpec = PretrainLossSpec()
    optimiser: StudentOptimiserSpec = StudentOptimiserSpec()


class TeacherTuningSpec(Part):
    """arm teacher: the teacher itself fine-tuned on the DFT frames."""

    steps: int | None = Field(default=None, ge=1, description="gradient steps; empty: as many as the students' arms")
    batch_size: int = Field(default=4, ge=1, description="frames per step")
    learning_rate: float = Field(default=1e-4, gt=0, description="largest learning rate")


class SignalsSpec(Part):
    """What methods beside the loop pretrain on."""

    noise: float = Field(default=0.05, gt=0, description="denoising: standard deviation", json_schema_extra=unit("Å"))
    torsion: float = Field(
        default=2.0, gt=0, description="denoising_fractional: of the turns", json_schema_extra=unit("rad")
    )
    copies: int = Field(default=4, ge=1, description="denoising_fractional: conformations per frame")
    weight: float = Field(default=1.0, gt=0, description="n2n, a2a, hessian: beside the loss of forces")
    hessian_rows: int = Field(default=2, ge=1, description="hessian: random rows per frame")


class StabilitySpec(Part):
    """The test by MD that nobody learns from."""

    runs: int = Field(default=20, ge=0, description="simulations of a student; 0: no such test")
    steps: int = Field(default=2000, ge=2, description="steps of each")
    timestep: float = Field(default=1.0, gt=0, le=10, description="time step", json_schema_extra=unit("fs"))
    temperature: float = Field(default=600.0, gt=0, description="of each", json_schema_extra=unit("K"))
    friction: float = Field(default=0.001, ge=0, description="Langevin friction", json_schema_extra=unit("1/fs"))
    models: Literal["selected", "last", "all"] = Field(
        default="selected", description="the student that validation frames select, the last, or that of every round"
    )
    relax_steps: int = Field(default=500, ge=0, description="minimisation before, steps at most; 0: none")
    track: str = Field(default="", description="element whose clusters are followed, such as Mo; empty: none")
    stride: int = Field(default=100, ge=1, description="steps between stored frames")

    @model_validator(mode="after")
    def _stores_frames(self):
        followed = self.track or isinstance(self, ReactionSpec)
        if self.runs and followed and self.stride > self.steps:
            raise ValueError(f"stride: {self.stride} is more than {self.steps} steps, no frame shows the species")
        return self

    @field_validator("track")
    @classmethod
    def _an_element(cls, value: str) -> str:
        from ase.data import chemical_symbols

        if value and value not in chemical_symbols[1:]:
            raise ValueError(f"'{value}' is no element, {nearest(value, chemical_symbols[1:])}")
        return value


class ReactionSpec(StabilitySpec):
    """A second test at a temperature of its own: which species there are over time."""

    runs: int = Field(default=0, ge=0, description="simulations of a student; 0: no such test")
    steps: int = Field(default=5000, ge=2, description="steps of each")
    temperature: float = Field(default=1500.0, gt=0, description="of each", json_schema_extra=unit("K"))
    ensemble: Literal["langevin", "nose_hoover"] = Field(default="nose_hoover", description="thermostat")
    relaxation_time: float = Field(
        default=100.0, gt=0, description="nose_hoover: relaxation time", json_schema_extra=unit("fs")
    )
    track: str = Field(
        default="", description="element whose clusters and their changes are followed, such as Mo; empty: all alike"
    )
    lifetime: float = Field(
        default=1000.0, ge=0, description="how long a change of these clusters must last", json_schema_extra=unit("fs")
    )
    stride: int = Field(default=20, ge=1, description="steps between stored frames")

    @model_validator(mode="after")
    def _tells_something(self):
        refuse_idle(self, "ensemble", {"friction": ("langevin",), "relaxation_time": ("nose_hoover",)})
        length = self.steps * self.timestep
        if self.runs and self.track and length < self.lifetime:
            raise ValueError(
                f"a run of {length:g} fs is shorter than the lifetime of {self.lifetime:g} fs: no change could count"
            )
        return self


class IPIPSpec(ReadingSpec):
    """Pretrain a small student on frames of a universal teacher, fine-tune it on DFT frames, and let both improve."""

    kind: Literal["ipip"] = "ipip"
    arm: Arm = Field(
        default="ipip",
        description="ipip: the loop as published; continual: with weights carried over and the teacher's labels alone; "
        "no_new_frames: that without new frames; no_student_md: that with new frames of the teacher's MD; "
        "other no_...: the published loop without one of its parts; "
        "scratch: the DFT frames alone; one_shot, denoising, distillation, n2n, a2a, hessian: other pretrainings; "
        "teacher: fine-tuned itself",
    )
    pretrain: bool = Field(
        default=True, description="false: no pretraining, energies and forces of the DFT frames alone (arm scratch)"
    )
    teacher: str = Field(
        default="universal:so3lr",
        description="universal:so3lr, universal:sevennet-0, universal:chgnet, a run, a .safetensors file, or "
        "FILE.py:function that makes a potential or an ASE calculator",
    )
    n_train: int | None = Field(
        default=None, ge=2, description="DFT frames to train on; empty: all of the training part"
    )
    model: ModelSpec = ModelSpec()
    sampling: PoolSamplingSpec = PoolSamplingSpec()
    instability: InstabilitySpec = InstabilitySpec()
    loop: LoopSpec = LoopSpec()
    pretraining: StudentTrainingSpec = StudentTrainingSpec()
    finetuning: StudentTrainingSpec = StudentTrainingSpec()
    signals: SignalsSpec = SignalsSpec()
    teacher_tuning: TeacherTuningSpec = TeacherTuningSpec()
    stability: StabilitySpec = StabilitySpec()
    reaction: ReactionSpec = ReactionSpec()
    reuse: list[str] = Field(
        default=[], description="other arms and seeds, whose equal stages (such as the teacher's MD) are taken over"
    )

    accept_teacher: bool = Field(
        default=False, description="go on, and take stages over, although the teacher's weights or code have changed"
    )

    PLACES: ClassVar = ("teacher", "data", "validation", "test")
    CHANGEABLE: ClassVar = ("threads", "accept_teacher")

    def places(self) -> Iterator[tuple[str, str]]:
        yield from super().places()
        for text in self.reuse:
            yield "reuse", text

    @property
    def method(self) -> str:
        """The arm that is carried out: scratch where pretraining is off."""
        return self.arm if self.pretrain else "scratch"

    @property
    def settings(self) -> Settings:
        """The numbers as `mlipkit.strategies.ipip` takes them."""
        from mlipkit.strategies.ipip import Instability, Reaction, Sampling, Settings, Stability

        loop, signals = self.loop, self.signals
        return Settings(
            iterations=loop.iterations, sampling=Sampling(**self.sampling.model_dump()),
            instability=Instability(**self.instability.model_dump()),
            stability=dataclasses.replace(Stability(), **self.stability.model_dump()),
            reaction=dataclasses.replace(Reaction(), **self.reaction.model_dump()),
            forget=loop.forget, pool=loop.pool, new_share=loop.new_share, relabel=loop.relabel, gate=loop.gate,
            prefer_unstable=loop.prefer_unstable, init=loop.init, pretrain_energy=loop.pretrain_energy,
            pretrain_steps=self.pretraining.steps, finetune_steps=self.finetuning.steps,
            teacher_steps=self.teacher_tuning.steps, pool_seed=loop.pool_seed, md_seeds=loop.md_seeds, md_of=loop.md_of,
            noise=signals.noise, torsion=signals.torsion, copies=signals.copies, signal=signals.weight,
            hessian_rows=signals.hessian_rows,
        )  # fmt: skip

    @property
    def plan(self) -> LoopPlan:
        """The stages of this arm."""
        from mlipkit.strategies.ipip import plan

        return plan(self.method, self.settings, self.seed)

    @property
    def reading(self) -> TrainSpec:
        """The DFT frames as a training run would name them."""
        shared = {name: getattr(self, name) for name in ReadingSpec.model_fields}
        return TrainSpec(**shared, n_train=self.n_train, model=self.model)

    @model_validator(mode="after")
    def _parts_fit(self):
        if not self.pretrain and self.arm not in ("ipip", "scratch"):
            raise ValueError(f"pretrain: false is the arm scratch, and contradicts arm '{self.arm}'")
        if self.model.seed is not None:
            raise ValueError("model.seed: has no effect, new weights begin from the seed of the run")
        if self.method == "a2a" and self.model.head.startswith("pooled"):
            raise ValueError(f"model.head: '{self.model.head}' has no energies of atoms, which a2a learns")
        self._check_losses()
        try:
            _ = self.plan
        except MlipkitError as error:
            raise ValueError(str(error)) from None
        return self

    def _check_losses(self) -> None:
        loss = self.pretraining.loss
        energies = self.method == "distillation" or self.loop.pretrain_energy == "refit"
        for name in ("stress",) if energies else ("stress", "energy", "energy_unit"):
            if getattr(loss, name) != type(loss).model_fields[name].default:
                what = "energies and forces" if energies else "forces alone, unless loop.pretrain_energy is 'refit'"
                raise ValueError(f"pretraining.loss.{name}: has no effect, pretraining takes {what}")
        if not loss.forces and not (energies and loss.energy):
            raise ValueError("pretraining.loss.forces: without it nothing is learned")
        last = self.finetuning.loss
        if not (last.energy or last.forces or last.stress):
            raise ValueError("finetuning.loss: every weight is 0, nothing is learned")

    @property
    def default_name(self) -> str:
        return f"{self.method}_{self.seed}"
