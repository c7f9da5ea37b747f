"""Arms that have been evaluated, as they lie on the disk, and which of them are seeds of one experiment."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import yaml

from mlipkit.data.whole import read_json
from mlipkit.errors import RunError, SpecError
from mlipkit.strategies.ipip.evaluating import ERRORS, evaluation_in, selected_row
from mlipkit.strategies.ipip.plan import CURES, LOOPS, WHOLE, LoopPlan, plan, without
from mlipkit.strategies.ipip.timeline import PLAN, plan_in, timeline
from mlipkit.strategies.workflows.differences import differing, told
from mlipkit.strategies.workflows.work import read_record

AGAIN = "Delete the folder of its stage evaluate and resume the run: it is evaluated again"


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
        if not folder.is_dir():
            raise RunError("no such folder", where=str(folder))
        kind = _kind(folder)
        if kind != "ipip":
            raise RunError("holds no run of iterative pretraining", where=str(folder),
                           found=f"a run of kind '{kind}'" if kind else None)  # fmt: skip
        record = evaluation_in(folder)
        if record is None or not (folder / PLAN).is_file():
            return None
        return cls(folder, plan_in(folder), record, read_json(folder / PLAN).get("tools"))

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

    @functools.cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """Of ``errors.npz``: [F] each.

        Raises:
            RunError: it is not there, damaged, not of these frames, or without a number for a frame of the student that
                stands for this arm: no mean over all frames is then to be had.
        """
        path, n = self.folder / ERRORS, self.record["n_frames"]
        try:
            with np.load(path) as file:
                found = dict(file)
        except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
            raise RunError(f"errors of the test frames cannot be read: {error}", where=str(path), hint=AGAIN) from None
        mine, teachers = (
            [f"{model}/{one}" for one in ("energy", "forces")] for model in (self.student["model"], "teacher")
        )
        sizes = {name: len(found.get(name, ())) for name in ("n_atoms", *teachers, *mine)}
        wrong = [f"{name} {size}" for name, size in sizes.items() if size != n]
        if wrong:
            raise RunError("errors are not those of the evaluation beside them", where=str(path),
                           expected=f"{n} of each", found=", ".join(wrong), hint=AGAIN)  # fmt: skip
        lost = int((~np.isfinite([found[name] for name in mine])).any(0).sum())
        if lost:
            raise RunError(f"its student {self.student['model']} has no answer for some test frames",
                           where=str(self.folder), found=f"{lost} of {n}",
                           hint="Its errors over the other frames would be biased in its favour: leave this run "
                                "out and say so")  # fmt: skip
        return found

    def errors(self, model: str, quantity: str) -> np.ndarray:
        """[F] eV/Å or eV/atom."""
        return self.arrays[f"{model}/{quantity}"]

    def trajectories(self) -> list[int] | None:
        """[F]; None where there is nothing to group: every frame for itself, or evaluated before they were kept."""
        found = self.arrays.get("trajectory")
        return None if found is None or len(np.unique(found)) == len(found) else found.tolist()

    def weights(self) -> np.ndarray:
        """[F] atoms."""
        return self.arrays["n_atoms"].astype(float)


def _kind(folder: Path) -> str:
    """Kind of the run in a folder, "" for none; arms that were not launched have a plan alone."""
    try:
        found = yaml.safe_load((folder / "spec.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "ipip" if (folder / PLAN).is_file() else ""
    except (ValueError, yaml.YAMLError) as error:
        raise RunError(f"cannot be read: {error}", where=str(folder / "spec.yaml")) from None
    return str(found.get("kind", "")) if isinstance(found, dict) else ""


def check_parts(arms: Mapping[str, Sequence[Evaluated]]) -> None:
    """Refuse another loop, or one without a part, that differs from the loop in more: whose merit would it be?

    Args:
        arms: of each the seeds, which have equal settings (`one_experiment`).

    Raises:
        RunError: other settings than those that the arm makes of the loop's; a part that the loop lacks.
    """
    for arm in LOOPS[1:]:
        loop = CURES[0] if CURES[0] in arms else WHOLE.get(arm, "")
        if arm not in arms or loop not in arms:
            continue
        whole, part = arms[loop][0], arms[arm][0]
        theirs, here = dataclasses.asdict(without(arm, whole.plan.loop)), dataclasses.asdict(part.plan.loop)
        if names := differing(theirs, here):
            raise RunError(
                f"arms {loop} and {arm} differ in more than what sets them apart",
                where=f"{whole.folder} and {part.folder}", expected=told(theirs, names), found=told(here, names),
                hint="Compare those with equal settings",
            )  # fmt: skip
        try:
            plan(arm, whole.plan.loop, whole.plan.seed)
        except SpecError as error:
            raise RunError(str(error), where=f"{whole.folder} and {part.folder}") from None


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
