"""Iterative pretraining as its folder shows it at this moment: plan, stages, and every iteration as a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlipkit.plots.pretraining import Iteration
from mlipkit.strategies.ipip import species_record
from mlipkit.strategies.ipip.evaluating import NAME, evaluation_in
from mlipkit.strategies.ipip.species_record import RunSpecies
from mlipkit.strategies.ipip.timeline import stage_of_test, timeline

from .staged_folder import StagedFolder

MILLI = 1000.0
TESTS = ("reaction", "stability")
"""Tests in which species may be followed, the one that is made for it first."""


@dataclass(frozen=True)
class Followed:
    """Test simulations in which species were followed: stage, round of the student, facts, series, time step (fs)."""

    stage: str
    round: int
    test: Mapping[str, Any]
    runs: list[RunSpecies]
    timestep: float


class LoopFolder(StagedFolder):
    """Reads one arm with one seed, alive or ended; `refresh` reads what is new.

    Args:
        place: a run of iterative pretraining, or its folder.

    Attributes:
        evaluation: what was found on the test frames, or None.
        rows: of `mlipkit.strategies.ipip.timeline`.

    Raises:
        RunError: the folder holds no such thing.
    """

    KIND = "ipip"

    def _begin(self) -> None:
        self.evaluation: dict[str, Any] | None = None
        self.rows: list[dict[str, Any]] = []
        self._rows_of = -1
        self._species: dict[str, list[RunSpecies] | None] = {}

    def _read_more(self) -> None:
        self.evaluation = self._read(NAME, evaluation_in, self.evaluation)
        if self._rows_of != self.revision:
            self.rows, self._rows_of = timeline(self.folder), self.revision

    @property
    def arm(self) -> str:
        """As it is carried out: scratch where pretraining is off."""
        asked = self._asked
        return getattr(asked, "method", None) or (asked.arm if asked is not None else self.folder.name)

    @property
    def n_rounds(self) -> int:
        return len(self.rows)

    @property
    def iterations(self) -> list[Iteration]:
        """What the pictures draw, of what is known so far."""
        teacher = self.rows[0]["md_steps_per_s"] if self.rows else None
        return [iteration_of(row, teacher) for row in self.rows]

    def followed(self, round: int) -> Followed | None:
        """The test of an iteration in which species were followed, else the last such test there is."""
        known = [row for row in self.rows for name in TESTS if (row[name] or {}).get("species")]
        chosen = next((row for row in known if row["round"] == round), known[-1] if known else None)
        if chosen is None:
            return None
        name = next(name for name in TESTS if (chosen[name] or {}).get("species"))
        stage = stage_of_test(self.plan, name, chosen["round"])
        if stage not in self._species:
            self._species[stage] = species_record.load(self.folder / self.plan.folder(stage))
        runs = self._species[stage]
        timestep = float(self.plan[stage].options["timestep"])
        return None if not runs else Followed(stage, chosen["round"], chosen[name], runs, timestep)

    @property
    def spent(self) -> Any:
        """Of `plan.budget`, so far."""
        return self.plan.spent(self.records)


def iteration_of(row: Mapping[str, Any], teacher_rate: float | None) -> Iteration:
    """One row of the timeline as it is drawn.

    Args:
        row: of `mlipkit.strategies.ipip.timeline`.
        teacher_rate: MD steps per second of the teacher.
    """
    tuned, test, rate = row["finetuning"] or {}, row["stability"] or {}, row["md_steps_per_s"]
    error, before = tuned.get("forces_mae"), tuned.get("before")
    taught_again = row["round"] and row["md_by"] == "teacher"
    return Iteration(
        row["round"], parts_of(row), row["forgotten"] or 0,
        validation=None if error is None else MILLI * error, test=row["forces_mae"],
        failed=_share(row["md_fraction"], row["md_interval"]), n_failed=row["md_failed"] or 0,
        n_runs=row["md_runs"] or 0, sampler=sampler_of(row["md_by"]),
        tested=_share(test.get("fraction"), test.get("interval")), n_tested_failed=test.get("failed", 0),
        n_tested=test.get("n", 0), teacher_share=row["pool"]["teacher_share"] if row["pool"] else None,
        speed=rate / teacher_rate if rate and teacher_rate and not taught_again else None,
        pretrained=None if before is None else MILLI * before,
    )  # fmt: skip


def parts_of(row: Mapping[str, Any]) -> dict[str, int]:
    """Frames of the pool by what became of them in this iteration; they add up to its size."""
    if not row["pool"]:
        return {}
    size = row["pool"]["size"]
    if row["new"] is None:
        return {"first": size}
    new, relabelled = row["new"], row["relabelled"]
    unstable = min(row["new_unstable"] or 0, new)
    return {"kept": size - new - relabelled, "relabelled": relabelled, "new": new - unstable, "unstable": unstable}


def sampler_of(name: str | None) -> str:
    """``teacher``, ``student 0``."""
    return (name or "").replace("finetune_", "student ")


def _share(value: float | None, interval: Any) -> tuple[float, float, float] | None:
    return None if value is None or not interval else (value, *interval)
