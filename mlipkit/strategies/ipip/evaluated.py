"""Arms that have been evaluated, as they lie on the disk, and which of them are seeds of one experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlipkit.data.whole import read_json
from mlipkit.errors import RunError
from mlipkit.strategies.ipip.evaluating import ERRORS, NAME, selected_row
from mlipkit.strategies.ipip.plan import LoopPlan
from mlipkit.strategies.ipip.timeline import timeline
from mlipkit.strategies.workflows.differences import differing, told
from mlipkit.strategies.workflows.work import read_record


@dataclass(frozen=True)
class Evaluated:
    """An arm with one seed that has been evaluated."""

    folder: Path
    plan: LoopPlan
    record: Mapping[str, Any]
    words: Any

    @classmethod
    def read(cls, folder: Path) -> Evaluated | None:
        """None before its evaluation.

        Raises:
            RunError: there is no such folder, or something else in it.
        """
        if not any((folder / name).is_file() for name in ("plan.json", "spec.yaml")):
            what = "holds no run of iterative pretraining" if folder.is_dir() else "no such folder"
            raise RunError(what, where=str(folder))
        if not (folder / NAME).is_file() or not (folder / "plan.json").is_file():
            return None
        plan = read_json(folder / "plan.json")
        made: Any = LoopPlan.from_json(plan)
        return cls(folder, made, read_json(folder / NAME), plan.get("tools"))

    @property
    def student(self) -> Mapping[str, Any]:
        """Row of the student that stands for it."""
        return selected_row(self.record)

    @property
    def facts(self) -> dict[str, Any]:
        """Of its stages, by name."""
        records = {stage.name: read_record(self.folder / self.plan.folder(stage.name)) for stage in self.plan.stages}
        return {name: record["facts"] for name, record in records.items() if record is not None}

    def test(self, deed: str) -> Mapping[str, Any] | None:
        """Facts of its simulations: of the student that stands for it, or of the last one that was simulated."""
        found = [row[deed] for row in timeline(self.folder) if row[deed]]
        return next((one for one in found if one["model"] == self.student["model"]), found[-1] if found else None)

    def errors(self, model: str, quantity: str) -> np.ndarray:
        """[F] eV/Å or eV/atom."""
        with np.load(self.folder / ERRORS) as arrays:
            return arrays[f"{model}/{quantity}"]

    def trajectories(self) -> list[int] | None:
        """[F]; None where there is nothing to group: every frame for itself, or evaluated before they were kept."""
        with np.load(self.folder / ERRORS) as arrays:
            found = arrays.get("trajectory")
        return None if found is None or len(np.unique(found)) == len(found) else found.tolist()

    def weights(self) -> np.ndarray:
        with np.load(self.folder / ERRORS) as arrays:
            return arrays["n_atoms"].astype(float)


def check_seeds(mine: Sequence[Evaluated]) -> None:
    """Refuse what are no seeds of one experiment: an average over them would be of nothing.

    Args:
        mine: of one arm.

    Raises:
        RunError: other settings, a seed given twice.
    """
    first, seeds = mine[0], {}
    for one in mine:
        both = f"{seeds.get(one.plan.seed, first).folder} and {one.folder}"
        if one.plan.seed in seeds:
            raise RunError(f"arm {one.plan.arm}, seed {one.plan.seed} is given twice", where=both)
        seeds[one.plan.seed] = one
        theirs, here = (dataclasses.asdict(each.plan.loop) for each in (first, one))
        other = differing(theirs, here)
        if other:
            raise RunError(
                f"two experiments, not two seeds of arm {one.plan.arm}", where=both, expected=told(theirs, other),
                found=told(here, other), hint="Compare those with equal settings",
            )  # fmt: skip


def check_simulations(found: Sequence[Evaluated]) -> None:
    """Refuse arms whose pools or failures come from simulations of another kind: their difference would not be one of
    methods.

    Raises:
        RunError: other lengths, temperatures, limits or numbers of simulations.
    """
    first: dict[str, tuple[Evaluated, Mapping[str, Any]]] = {}
    for one in found:
        for stage in one.plan.stages:
            if stage.does not in SIMULATIONS or (stage.does == "sample" and stage.round):
                continue
            other, theirs = first.setdefault(stage.does, (one, stage.options))
            names = differing(theirs, stage.options)
            if names:
                raise RunError(
                    f"arms that differ in more than their method: {SIMULATIONS[stage.does]}",
                    where=f"{other.folder} and {one.folder}", expected=told(theirs, names),
                    found=told(stage.options, names), hint="Compare arms that were simulated alike",
                )  # fmt: skip


SIMULATIONS = {
    "sample": "MD of the first pool", "stability": "simulations that count failures",
    "reaction": "simulations that follow species",
}  # fmt: skip
"""Deed -> what it is, for people."""
