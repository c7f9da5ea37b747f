"""Every number of the loop and its controls in plain dataclasses; plan and specification map onto them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mlipkit.errors import SpecError, check_choice

Init = Literal["fresh", "previous_pretrained", "previous_finetuned"]
Gate = Literal["off", "noise", "committee"]
BEFORE = {"look_every": 5, "proton_transfer": False}
"""Of instability, in records that do not tell."""


@dataclass(frozen=True)
class Sampling:
    """MD that makes pools; the same for the teacher and all students, seeds included unless `md_seeds` or `md_of` say
    otherwise.

    Attributes:
        starts: start structures, drawn from the training frames without repetition as long as there are enough.
        steps, timestep, stride: steps of each run, fs, steps between stored frames (the start is never kept).
        temperature: K.
        ensemble: langevin (isolated molecules) or nose_hoover (cells).
        friction: 1/fs, langevin; the published 0.01 per ASE time unit is 0.001/fs.
        relaxation_time: fs, nose_hoover; chain length 3.
        batch: runs that go together; None: as many as memory allows.
    """

    starts: int = 100
    steps: int = 50_000
    timestep: float = 1.0
    stride: int = 50
    temperature: float = 300.0
    ensemble: Literal["langevin", "nose_hoover"] = "langevin"
    friction: float = 0.001
    relaxation_time: float = 100.0
    batch: int | None = None


@dataclass(frozen=True)
class Instability:
    """When a run is unstable, and which of its frames are worth having (`mlipkit.strategies.ipip.instability`).

    Attributes:
        force_cap: eV/Å, of the largest force on an atom; None: ten times the 99.9th percentile in the first pool, and
            50 where none is at hand that all arms have: in the teacher's first MD and in the tests of every arm.
        hot: multiple of the target temperature, averaged over `hot_fs`; None: reactions may heat what is simulated.
        overlap, closest: pairs below this share of the sum of covalent radii, or below this distance (Å).
        stretch: multiple of its length at the start that a bond may have for `stretch_fs`; None: bonds may break, as
            in reactive systems.
        proton_transfer: hydrogens of N, O, S and halogens may go to another such atom; False: that is a stretched bond.
        window, every: last frames before a failure that are candidates, and steps between two of them.
        skip: share of the steps of the window (or of the run, where it failed before) that lie next to the failure and
            from which none is taken. Our reading: of a whole long run it would be more than the window.
        look_every: steps between two looks at temperature, pairs and bonds; forces are looked at in every step. Hot
            atoms can meet and part within five steps. Every look costs: one in each step about a seventh of the MD of
            small molecules.
    """

    force_cap: float | None = 50.0
    hot: float | None = 3.0
    hot_fs: float = 50.0
    overlap: float = 0.6
    closest: float = 0.4
    stretch: float | None = 1.6
    stretch_fs: float = 20.0
    window: int = 200
    every: int = 5
    skip: float = 0.02
    look_every: int = 1
    proton_transfer: bool = True

    @property
    def kept(self) -> int:
        """Steps before a failure that have to be kept for its window."""
        return self.window * self.every + self._skipped(self.window * self.every)

    def last_before(self, failed: int) -> int:
        """Last step of a candidate in a run that failed at a step."""
        return failed - self._skipped(min(failed, self.window * self.every))

    def _skipped(self, steps: int) -> int:
        return math.ceil(self.skip * steps)

    def to_json(self) -> dict[str, Any]:
        # What is as it was before it could be chosen is not told: the folders of then go on.
        return {name: value for name, value in dataclasses.asdict(self).items() if BEFORE.get(name, ...) != value}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Instability:
        return cls(**{**BEFORE, **record})


@dataclass(frozen=True)
class Stability:
    """The test by MD that no student learns from.

    Attributes:
        runs: simulations of each model; 0: no such test.
        steps, timestep, temperature, friction: of each, Langevin.
        models: the student that validation frames select, the last one, or every one.
        relax_steps, fmax: minimisation (FIRE) with the model itself before each, eV/Å.
        track: element whose clusters are followed (such as "Mo"); "": species are not looked at here.
        stride: steps between stored frames, in which species are counted.
    """

    runs: int = 100
    steps: int = 50_000
    timestep: float = 1.0
    temperature: float = 2500.0
    friction: float = 0.001
    models: Literal["selected", "last", "all"] = "selected"
    relax_steps: int = 500
    fmax: float = 0.05
    track: str = ""
    stride: int = 100


@dataclass(frozen=True)
class Reaction(Stability):
    """A second test at a temperature of its own, at which species are followed over time.

    Attributes:
        runs: 0: no such test.
        ensemble, relaxation_time: nose_hoover (chain length 3, fs), or langevin with the friction.
        track: element whose clusters are followed; "": all species alike, and no changes are told.
        lifetime: fs that a change of the tracked clusters must last.
    """

    runs: int = 0
    temperature: float = 1500.0
    ensemble: Literal["langevin", "nose_hoover"] = "nose_hoover"
    relaxation_time: float = 100.0
    lifetime: float = 1000.0


@dataclass(frozen=True)
class Settings:
    """Numbers of an arm. Defaults are the published loop where the paper says them.

    Attributes:
        iterations: K, after the first (one-shot) round.
        sampling, instability, stability, reaction: see there.
        forget: share of the pool that is dropped at random in each iteration.
        pool: "replace": as many new frames as were forgotten; "grow": `new_share` of the first pool come new.
        relabel: which frames a student labels anew: all, those that a student made, none ("off").
        gate: a student labels only where its forces are below the cap and its spread (under noise, or of all students
            so far, under noise as long as there is one alone) is below the 80th percentile; "off": everywhere.
        prefer_unstable: new frames come from unstable runs first; else uniformly from all runs.
        init: weights that a pretraining starts from.
        pretrain_energy: "off": forces alone; "refit": energies as well, less a constant per element of each labeller.
        pretrain_steps, finetune_steps: gradient steps of each; all arms have the sum over all rounds.
        teacher_steps: gradient steps of the fine-tuned teacher; None: the same sum. Its steps cost far more.
        pool_split: share of the pool that chooses the best pretraining weights.
        split_seed: of that choice.
        pool_seed: of starts, velocities and thermostats: the same for all seeds of an arm, so that these share the
            first pool.
        md_seeds: velocities and thermostats of the students' simulations that make pools: the teacher's ("same", so
            that simulations of all rounds can be compared one by one), or others in every iteration ("fresh").
        md_of: whose simulations new frames come from: the student's, or the teacher's, with velocities and thermostats
            of their own in every iteration and none of its frames preferred.
        noise: Å, standard deviation: denoising, and the spread under noise.
        torsion: rad, standard deviation of rotatable torsions: denoising_fractional.
        copies: denoising_fractional: conformations per frame.
        signal: weight of a further signal of the teacher (n2n, a2a, hessian) beside its forces.
        hessian_rows: random rows of the teacher's Hessian per frame.
    """

    iterations: int = 3
    sampling: Sampling = field(default_factory=Sampling)
    instability: Instability = field(default_factory=Instability)
    stability: Stability = field(default_factory=Stability)
    reaction: Reaction = field(default_factory=Reaction)
    forget: float = 0.1
    pool: Literal["replace", "grow"] = "replace"
    new_share: float = 0.1
    relabel: Literal["all", "student_origin", "off"] = "all"
    gate: Gate = "off"
    prefer_unstable: bool = True
    init: Init = "fresh"
    pretrain_energy: Literal["off", "refit"] = "off"
    pretrain_steps: int = 1500
    finetune_steps: int = 1500
    teacher_steps: int | None = None
    pool_split: float = 0.15
    split_seed: int = 42
    pool_seed: int = 0
    md_seeds: Literal["same", "fresh"] = "same"
    md_of: Literal["student", "teacher"] = "student"
    noise: float = 0.05
    torsion: float = 2.0
    copies: int = 4
    signal: float = 1.0
    hessian_rows: int = 2

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            check_choice(getattr(self, name), choices, name)
        for name in ("stability", "reaction"):
            check_choice(getattr(self, name).models, ("selected", "last", "all"), f"{name}.models")
        check_choice(self.reaction.ensemble, ("langevin", "nose_hoover"), "reaction.ensemble")
        check_choice(self.sampling.ensemble, ("langevin", "nose_hoover"), "sampling.ensemble")
        for name in ("pretrain_steps", "finetune_steps", "copies", "hessian_rows"):
            if getattr(self, name) < 1:
                raise SpecError("out of range", where=name, expected="at least 1", found=getattr(self, name))
        if self.iterations < 0:
            raise SpecError("out of range", where="iterations", expected="0 or more", found=self.iterations)
        for name in ("forget", "new_share", "pool_split"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError("out of range", where=name, expected="a share, 0 <= share < 1",
                                found=getattr(self, name))  # fmt: skip
        for name in _POSITIVE:
            part, _, last = name.rpartition(".")
            value = getattr(getattr(self, part) if part else self, last)
            if name == "instability.hot" and value is None:
                continue
            if value is None or not 0 < value < math.inf:
                raise SpecError("out of range", where=name, expected="above 0", found=value)
        for name in ("stability", "reaction"):
            if getattr(self, name).runs < 0:
                raise SpecError("out of range", where=f"{name}.runs", expected="0 or more",
                                found=getattr(self, name).runs)  # fmt: skip
        for name in ("sampling", "stability", "reaction"):
            part = getattr(self, name)
            if part.steps < self.instability.look_every and getattr(part, "runs", True):
                raise SpecError("temperature, pairs and bonds would never be looked at", where="instability.look_every",
                                expected=f"at most {part.steps}, the steps of {name}",
                                found=self.instability.look_every)  # fmt: skip
        one = self.sampling
        if one.stride < 1 or one.steps // one.stride < 2 or one.starts < 1:
            raise SpecError("a run gives at least two frames", where="sampling", found=f"{one.steps} steps, every "
                            f"{one.stride} stored, {one.starts} starts")  # fmt: skip

    @property
    def total_steps(self) -> int:
        """Gradient steps of every arm."""
        return (self.iterations + 1) * (self.pretrain_steps + self.finetune_steps)

    @property
    def pool_frames(self) -> int:
        """Frames of the first pool, before any run fails."""
        return self.sampling.starts * (self.sampling.steps // self.sampling.stride)

    def to_json(self) -> dict[str, Any]:
        record = {**dataclasses.asdict(self), "instability": self.instability.to_json()}
        # As plans were written before there were such things: their folders go on.
        if not self.reaction.runs:
            del record["reaction"]
        for name, before in (("md_seeds", "same"), ("md_of", "student")):
            if record[name] == before:
                del record[name]
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Settings:
        parts: dict[str, Callable[..., Any]] = {"sampling": Sampling, "stability": Stability, "reaction": Reaction}
        made = {name: parts[name](**value) for name, value in record.items() if name in parts}
        return cls(**{**record, **made, "instability": Instability.from_json(record["instability"])})


_POSITIVE = (
    "noise", "torsion",
    *(f"sampling.{name}" for name in ("timestep", "temperature", "relaxation_time")),
    *(f"instability.{name}" for name in ("hot", "hot_fs", "overlap", "closest", "window", "every", "look_every")),
    *(f"{one}.{name}" for one in ("stability", "reaction") for name in ("steps", "timestep", "temperature", "stride")),
)  # fmt: skip
_CHOICES: dict[str, tuple[str, ...]] = {
    "pool": ("replace", "grow"), "relabel": ("all", "student_origin", "off"), "gate": get_args(Gate),
    "init": get_args(Init), "pretrain_energy": ("off", "refit"), "md_seeds": ("same", "fresh"),
    "md_of": ("student", "teacher"),
}  # fmt: skip
