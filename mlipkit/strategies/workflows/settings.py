"""Every number of a workflow in plain dataclasses; the plan, the specification and the widgets map onto them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlipkit.errors import SpecError, check_choice


@dataclass(frozen=True)
class Evaluation:
    """How every model of an arm is judged; the same in all arms and seeds, so that errors can be paired by frame.

    Attributes:
        independent: number of start structures, relaxed with the untouched model and labelled.
        self_md: which models simulate from one common unseen start: all, last (the last fine-tuned one), none. The
            untouched model does so too.
        frames: labelled frames of each such simulation.
        steps: of each; None: as many as a run of the arm.
        seed: of all draws of the evaluation.
    """

    independent: int = 22
    self_md: Literal["all", "last", "none"] = "all"
    frames: int = 11
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.self_md, ("all", "last", "none"), "evaluation.self_md")
        for name, lowest in (("independent", 0), ("frames", 1), ("steps", 1)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise SpecError("out of range", where=f"evaluation.{name}", expected=f"at least {lowest}", found=value)


@dataclass(frozen=True)
class Settings:
    """Numbers of an arm. The defaults are the published scale: five runs of 1 ns, eleven frames of each.

    Attributes:
        runs: MD runs, and with them labelling rounds: the budget is ``runs * frames`` labels and
            ``runs * steps * timestep`` of MD in every arm.
        steps, timestep, stride: steps of a run, fs, steps between stored rows.
        frames: frames labelled per run.
        equilibration: share of a run before the first of them.
        spacing: rows between two frames; None: evenly up to the last row.
        temperature: K.
        md: further options of the simulations, handed on as they are (ensemble, pressure, checks, ...).
        relax_starts: start structures are relaxed with the untouched model before anything else is done with them.
        starts: hybrid: starts that go side by side; they divide `runs`, with at least two rounds.
        base: which model a fine-tuning starts from: the untouched one, or that of the previous round.
        sizes: naive and longrun: how many labelled frames each of their models gets; None: as the rounds of the
            iterative arm, ``frames, 2 frames, ...``.
        run_by_run: naive: the model of size k frames gets the first runs instead of a random draw over all.
        share_first_run: the first run of all arms is the same one (as in the published data; the arms then share
            frames).
        longrun_as_published: the long run is only as long as its frames need at the spacing of the other arms, which
            makes its MD time unequal.
        rattle, strain: high_force: Å, and strain components.
        hot: high_force: K of its simulations.
        review: candidate frames wait for the user before they are labelled.
        density: g/cm³: a simulation that leaves this range is stopped and the workflow flagged.
        failure: what becomes of a training run whose simulation fails: "stop" flags the workflow and builds nothing on
            it; "keep" labels the rows up to the last good one, and the next run starts there.
        train: options of every fine-tuning: validation (share), epochs or gradients (frame-gradients per fine-tuning),
            and what else the tools take.
        evaluation: see `Evaluation`.
    """

    runs: int = 5
    steps: int = 2_000_000
    timestep: float = 0.5
    stride: int = 1000
    frames: int = 11
    equilibration: float = 0.5
    spacing: int | None = None
    temperature: float = 300.0
    md: Mapping[str, Any] = field(default_factory=dict)
    relax_starts: bool = False
    starts: int = 2
    base: Literal["untouched", "previous"] = "untouched"
    sizes: tuple[int, ...] | None = None
    run_by_run: bool = False
    share_first_run: bool = False
    longrun_as_published: bool = False
    rattle: float = 0.1
    strain: float = 0.05
    hot: float = 600.0
    review: bool = False
    density: tuple[float, float] = (0.3, 3.0)
    failure: Literal["stop", "keep"] = "stop"
    train: Mapping[str, Any] = field(default_factory=lambda: {"validation": 0.2, "epochs": 250})
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        for name in ("runs", "steps", "stride", "frames", "starts"):
            if getattr(self, name) < 1:
                raise SpecError("out of range", where=name, expected="at least 1", found=getattr(self, name))
        if self.steps % self.stride:
            raise SpecError(
                "the last step would not be stored, from which the next run starts", where=("steps", "stride"),
                expected=f"steps divisible by {self.stride}", found=self.steps,
            )  # fmt: skip
        check_choice(self.failure, ("stop", "keep"), "failure")
        check_choice(self.base, ("untouched", "previous"), "base")
        for name in ("timestep", "temperature", "rattle", "strain", "hot"):
            if not 0 < getattr(self, name) < math.inf:
                raise SpecError("out of range", where=name, expected="above 0", found=getattr(self, name))
        _check_train(self.train)
        low, high = self.density
        if not 0 <= low < high:
            raise SpecError("not a range", where="density", expected="low < high in g/cm³", found=self.density)
        if self.sizes is not None and not self.sizes:
            raise SpecError("none", where="sizes", hint="Leave it out for the sizes of the iterative rounds")
        if self.sizes is not None and (list(self.sizes) != sorted(set(self.sizes)) or min(self.sizes) < 1):
            raise SpecError("sizes must rise", where="sizes", found=list(self.sizes))

    @property
    def rows(self) -> int:
        """Rows of a run's trajectory, the start included."""
        return self.steps // self.stride + 1

    @property
    def labels(self) -> int:
        """Training labels of every arm."""
        return self.runs * self.frames

    def to_json(self) -> dict[str, Any]:
        record = dataclasses.asdict(self)
        return {**record, "density": list(self.density), "sizes": None if self.sizes is None else list(self.sizes)}


def _check_train(train: Mapping[str, Any]) -> None:
    """Refuse what would end a fine-tuning hours later, or be passed over in silence."""
    share = train.get("validation")
    if share is None or not 0 < share < 1:
        raise SpecError("out of range", where="train.validation", expected="a share, 0 < share < 1", found=share)
    given = [name for name in ("epochs", "gradients") if train.get(name) is not None]
    if len(given) != 1:
        raise SpecError("one of the two decides how long is trained", where="train", expected="epochs or gradients",
                        found=" and ".join(given) or "neither")  # fmt: skip
    lowest = {"epochs": 0, "gradients": 1}[given[0]]
    if train[given[0]] < lowest:
        raise SpecError("out of range", where=f"train.{given[0]}", expected=f"at least {lowest}",
                        found=train[given[0]])  # fmt: skip


def acting(train: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a fine-tuning without epochs beside gradients, as plans of earlier versions tell them: they had no
    effect."""
    return {name: value for name, value in train.items() if name != "epochs" or not train.get("gradients")}
