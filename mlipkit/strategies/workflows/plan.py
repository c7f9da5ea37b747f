"""What a workflow will do, as plain data: stages with inputs by name, one seed per purpose, and what they cost.

A plan is made by a pure function (`mlipkit.strategies.workflows.arms`) and never changes while it is carried out.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mlipkit.errors import SpecError, nearest

Deed = Literal["structures", "relax", "perturb", "simulate", "pick", "review", "label", "finetune", "evaluate"]
DEEDS: tuple[Deed, ...] = (
    "structures", "relax", "perturb", "simulate", "pick", "review", "label", "finetune", "evaluate",
)  # fmt: skip
UNTOUCHED = "untouched"
"""Name of the universal model as it was given, where a stage names a model."""


@dataclass(frozen=True)
class Stage:
    """One step of a workflow.

    Attributes:
        name: unique in the plan; also the end of its folder's name.
        does: which deed, one of the plan's `KNOWN`.
        inputs: role -> names of earlier stages (or `UNTOUCHED` for the role "model").
        options: JSON-ready numbers of this deed.
        seeds: purpose -> seed.
        purpose: whether it makes training data or is part of the evaluation.
        round: number of the model that its frames or weights belong to; 0 before the first fine-tuning.
    """

    name: str
    does: str
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    purpose: Literal["training", "evaluation"] = "training"
    round: int = 0

    def to_json(self) -> dict[str, Any]:
        record = dataclasses.asdict(self)
        return {**record, "inputs": {role: list(names) for role, names in self.inputs.items()}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Stage:
        return cls(**{**record, "inputs": {role: tuple(names) for role, names in record["inputs"].items()}})


@dataclass(frozen=True)
class Budget:
    """What a plan spends.

    Attributes:
        labels: frames for which training labels are asked (failures included: they cost, too).
        md_ps: simulated time that training frames are taken from.
        gradients: frame-gradients of all fine-tunings.
        test_labels, test_md_ps: the same of the evaluation, which no arm learns from.
    """

    labels: int = 0
    md_ps: float = 0.0
    gradients: int = 0
    test_labels: int = 0
    test_md_ps: float = 0.0

    @property
    def sentence(self) -> str:
        """``55 labels, 5 ps of MD, 400 frame-gradients; evaluation: 33 labels, 2 ps of MD``."""
        text = f"{self.labels} labels, {self.md_ps:g} ps of MD, {self.gradients} frame-gradients"
        if self.test_labels or self.test_md_ps:
            text += f"; evaluation: {self.test_labels} labels, {self.test_md_ps:g} ps of MD"
        return text

    def of(self, planned: Budget) -> str:
        """What was spent of a plan: ``5 of 6 labels, 0.04 of 0.04 ps of MD, 10 of 14 frame-gradients``."""
        return (
            f"{self.labels} of {planned.labels} labels, {self.md_ps:g} of {planned.md_ps:g} ps of MD, "
            f"{self.gradients} of {planned.gradients} frame-gradients"
        )


@dataclass(frozen=True)
class Plan:
    """One arm with one seed. Plans of other strategies have deeds and budgets of their own.

    Attributes:
        arm: naive, iterative, longrun, hybrid, packmol_first or high_force.
        seed: of this repetition; every stage has seeds of its own that follow from it.
        stages: in the order in which they are done.
        settings: the numbers it was made from, JSON-ready.
    """

    arm: str
    seed: int
    stages: tuple[Stage, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    KNOWN: ClassVar[tuple[str, ...]] = DEEDS

    def __post_init__(self) -> None:
        known: set[str] = set()
        for stage in self.stages:
            if stage.does not in self.KNOWN:
                raise SpecError("unknown kind of stage", where=(stage.name,), hint=nearest(stage.does, self.KNOWN))
            if stage.name in known:
                raise SpecError("two stages of one name", where=(self.arm, stage.name))
            for role, names in stage.inputs.items():
                for name in names:
                    if name not in known and not (role in ("model", "models") and name == UNTOUCHED):
                        raise SpecError("names no earlier stage", where=(stage.name, role), found=name,
                                        hint=nearest(name, known))  # fmt: skip
            known.add(stage.name)

    def __getitem__(self, name: str) -> Stage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise SpecError("no such stage", where=self.arm, hint=nearest(name, [stage.name for stage in self.stages]))

    def of(self, does: str, purpose: str | None = None) -> list[Stage]:
        """Stages of one deed, in order."""
        return [one for one in self.stages if one.does == does and purpose in (None, one.purpose)]

    def folder(self, name: str) -> str:
        """``stages/03_md_1``."""
        number = [stage.name for stage in self.stages].index(name)
        return f"stages/{number:02d}_{name}"

    def frames_of(self, name: str) -> int:
        """How many frames a stage shall give, before anything fails."""
        stage = self[name]
        if stage.does in ("structures", "perturb", "pick"):
            return int(stage.options["count"])
        return sum(self.frames_of(one) for one in stage.inputs.get("frames", ()))

    def trained_on(self, stage: Stage) -> int:
        """How many labelled frames a fine-tuning shall have, validation included, before anything fails."""
        there = sum(self.frames_of(name) for name in stage.inputs["data"])
        return min(there, stage.options.get("size") or there)

    @property
    def budget(self) -> Any:
        spent: dict[str, float] = {"labels": 0, "md_ps": 0.0, "test_labels": 0, "test_md_ps": 0.0}
        for stage in self.stages:
            test = "test_" if stage.purpose == "evaluation" else ""
            if stage.does == "label":
                spent[f"{test}labels"] += self.frames_of(stage.name)
            elif stage.does == "simulate":
                spent[f"{test}md_ps"] += stage.options["steps"] * stage.options["timestep"] / 1000
        gradients = sum(planned_gradients(self.trained_on(one), one.options) for one in self.of("finetune"))
        return Budget(
            labels=int(spent["labels"]), md_ps=round(spent["md_ps"], 9), gradients=gradients,
            test_labels=int(spent["test_labels"]), test_md_ps=round(spent["test_md_ps"], 9),
        )  # fmt: skip

    def spent(self, records: Mapping[str, Mapping[str, Any]]) -> Any:
        """What the stages that are done have cost: labels asked for, MD up to where it ended, gradients computed.

        Args:
            records: facts of the stages that are done, by name.
        """
        spent: dict[str, float] = {"labels": 0, "md_ps": 0.0, "gradients": 0, "test_labels": 0, "test_md_ps": 0.0}
        for stage in self.stages:
            facts, test = records.get(stage.name), "test_" if stage.purpose == "evaluation" else ""
            if facts is None:
                continue
            if stage.does == "label":
                spent[f"{test}labels"] += facts["asked"]
            elif stage.does == "simulate":
                steps = (facts["rows"] - 1) * stage.options["stride"]
                spent[f"{test}md_ps"] += steps * stage.options["timestep"] / 1000
            elif stage.does == "finetune":
                spent["gradients"] += facts.get("frame_gradients") or 0
        whole = {name: round(value, 9) if "md" in name else int(value) for name, value in spent.items()}
        return Budget(**whole)  # type: ignore[arg-type]

    def key(self, name: str) -> str:
        """Hash of everything that decides what a stage gives: its own words and those of all it builds on."""
        return self._keys[self[name].name]

    @functools.cached_property
    def _keys(self) -> dict[str, str]:
        keys = {UNTOUCHED: UNTOUCHED}
        for stage in self.stages:
            words = {
                "does": stage.does, "options": dict(stage.options), "seeds": dict(stage.seeds),
                "inputs": {role: [keys[one] for one in names] for role, names in stage.inputs.items()},
            }  # fmt: skip
            keys[stage.name] = hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:16]
        return keys

    @functools.cached_property
    def by_hand(self) -> frozenset[str]:
        """Stages that build on frames that a user has approved: what they give does not follow from the plan alone."""
        found: set[str] = set()
        for stage in self.stages:
            if stage.does == "review" or any(not found.isdisjoint(names) for names in stage.inputs.values()):
                found.add(stage.name)
        return frozenset(found)

    def words(self, stage: Stage) -> str:
        """What a stage will do, for people."""
        options = stage.options
        if stage.does == "simulate":
            return f"{options['steps'] * options['timestep'] / 1000:g} ps of MD at {options['temperature']:g} K"
        if stage.does == "pick":
            return f"{options['count']} frames" + (f", rows {_rows(options['rows'])}" if "rows" in options else "")
        if stage.does == "structures":
            return f"{options['count']} start structures"
        if stage.does == "perturb":
            return f"{options['count']} frames, {options['how']} by {options['amount']:g}"
        if stage.does == "label":
            return f"{self.frames_of(stage.name)} labels"
        if stage.does == "finetune":
            n_train, held = parts_of(self.trained_on(stage), options["validation"])
            return f"{n_train} + {held} frames, {planned_epochs(n_train, options)} epochs"
        return stage.does

    def table(self) -> str:
        """The plan for people, a line per stage and the budget."""
        lines = [f"{self.arm}, seed {self.seed}"]
        for number, stage in enumerate(self.stages):
            source = ", ".join(f"{role}: {_short(names)}" for role, names in stage.inputs.items())
            lines.append(f"{number:3d}  {stage.name:24s} {self.words(stage):38s} {source}".rstrip())
        return "\n".join([*lines, self.budget.sentence])

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1, "arm": self.arm, "seed": self.seed, "settings": dict(self.settings),
            "budget": dataclasses.asdict(self.budget), "stages": [stage.to_json() for stage in self.stages],
        }  # fmt: skip

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        stages = tuple(Stage.from_json(one) for one in record["stages"])
        return cls(record["arm"], record["seed"], stages, record.get("settings", {}))


def planned_epochs(n_train: int, options: Mapping[str, Any]) -> int:
    """Epochs of a fine-tuning on so many training frames: given, or as many as give the asked-for gradients."""
    if options.get("gradients"):
        return max(1, round(int(options["gradients"]) / max(n_train, 1)))
    return int(options["epochs"])


def parts_of(n: int, validation: float) -> tuple[int, int]:
    """Numbers of training and validation frames of `n` labelled ones: at least one of each where there are two."""
    held = min(max(round(n * validation), 1), n - 1) if n > 1 else 0
    return n - held, held


def planned_gradients(n: int, options: Mapping[str, Any]) -> int:
    n_train, _ = parts_of(n, float(options["validation"]))
    return n_train * planned_epochs(n_train, options)


def equal_budgets(plans: Iterable[Plan], tolerance: float = 1e-6) -> str:
    """Refuse to set arms side by side that differ in labels or in MD time.

    Returns:
        One line for people with the common budget; gradients, which may differ, are given per arm.

    Raises:
        SpecError: names the first two plans that differ, in what and by how much.
    """
    chosen = list(plans)
    if not chosen:
        raise SpecError("no plan to compare", where="equal_budgets")
    first = chosen[0]
    for other in chosen[1:]:
        for name, label, unit in (("labels", "labels", "labels"), ("md_ps", "MD time", "ps")):
            ours, theirs = getattr(first.budget, name), getattr(other.budget, name)
            if abs(ours - theirs) > tolerance * max(abs(ours), abs(theirs), 1):
                raise SpecError(
                    "unequal budgets, so a comparison would be meaningless: "
                    f"{label} differ by {theirs - ours:+g} {unit}",
                    where=f"{first.arm} (seed {first.seed}) and {other.arm} (seed {other.seed})",
                    expected=f"{ours:g} {unit} as {first.arm}", found=f"{theirs:g} {unit}",
                    hint="Give both arms the same runs, steps and frames per run",
                )  # fmt: skip
    gradients: dict[str, set[int]] = {}
    for one in chosen:
        gradients.setdefault(one.arm, set()).add(one.budget.gradients)
    each = ", ".join(f"{arm} {'/'.join(map(str, sorted(found)))}" for arm, found in gradients.items())
    return (
        f"Equal budgets: {first.budget.labels} labels and {first.budget.md_ps:g} ps of MD in each of {len(chosen)} "
        f"workflows; frame-gradients: {each}."
    )


def _short(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} ({len(names)})"


def _rows(rows: Sequence[int]) -> str:
    return f"{rows[0]} to {rows[-1]} every {rows[1] - rows[0]}" if len(rows) > 1 else str(rows[0])
