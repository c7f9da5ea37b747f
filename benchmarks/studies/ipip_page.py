"""Fills places of ``docs/ipip_case.md`` from what was measured: ``python benchmarks/studies/ipip_page.py``.

A study that is not run, and arms and seeds that are not finished, are named below every table that is about them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ipip_tables as tables
import ipip_tables_runs as runs
from ipip_found import COMMAND, Case, Record, cases, not_run
from pages import filled
from records import RESULTS, read_lines

from mlipkit.data.whole import write_whole

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ipip_case.md"
SPEED, LABELS = "student_speed.jsonl", "ipip_labels.jsonl"


def state(some: Sequence[Case]) -> str:
    """How much there is, and of what there is the answers in a sentence each."""
    done, wanted = sum(case.finished for case in some), sum(case.wanted for case in some)
    if not done:
        return (
            f"**The studies are not run yet:** none of {wanted} arms and seeds is finished (`{COMMAND}`). What stands "
            "below is the plan, what was published, and the speed of students, which is measured apart."
        )
    told = f"{done} of {wanted} arms and seeds are finished."
    if done < wanted:
        told += " What is said below is said of these alone."
    lacks = "\n\n".join([*(case.unjudged() for case in some if case.finished), not_run(some)])
    points = [text for text in lacks.split("\n\n") if text]
    points += [f"{case.title}: {case.compared['sentence']}" for case in some if case.compared]
    return "\n".join([told, "", *(f"- {text}" for text in points)]).strip()


def places(some: Sequence[Case], speeds: Sequence[Record], labels: Sequence[Record] = ()) -> dict[str, str]:
    """Name of a place -> what stands there.

    Args:
        speeds: lines of `student_speed.py`. labels: of `ipip_labels.py`.
    """
    return {
        "state": state(some),
        "verdicts": tables.verdicts(some),
        "claims": tables.claims(some, list(runs.faster(some, speeds)), list(runs.fewer(some))),
        "published": tables.published(),
        "errors": tables.errors(some),
        "rounds": tables.rounds(some),
        "labels": tables.labels(some, labels),
        "parts": tables.parts(some),
        "stability": runs.failures(some, "stability"),
        "reaction failures": runs.failures(some, "reaction"),
        "species": runs.species(some),
        "species over time": runs.over_time(some),
        "checkpoints": runs.checkpoints(some),
        "speed": runs.speed(some, speeds),
        "speed in the loops": runs.in_loops(some),
        "budget": tables.budget(some),
        "method": tables.method(some),
    }


def main() -> None:
    filling = places(cases(RESULTS), read_lines(RESULTS / SPEED), read_lines(RESULTS / LABELS))
    write_whole(PAGE, filled(PAGE.read_text(encoding="utf-8"), filling, PAGE.name).encode())


if __name__ == "__main__":
    main()
