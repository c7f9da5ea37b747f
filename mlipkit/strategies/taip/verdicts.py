"""Does adaptation help, or the training with the tasks, or neither? Answers from the errors of several seeds.

For every test set and quantity `judge_cure` is asked three times:

==============  =================================================================================
question        cure against controls
==============  =================================================================================
adaptation      adapted against baseline, noise augmentation, adaptation off, random step
joint training  adaptation off against baseline, noise augmentation
placebo         random step against adaptation off: whether the pipeline finds what is not there
==============  =================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mlipkit.analysis.cures import CureVerdict, Errors, judge_cure
from mlipkit.strategies.taip.arms import BASELINE, NOISE
from mlipkit.strategies.taip.measuring import ADAPTED, OFF, QUANTITIES, RANDOM, SMALLEST, Measured

QUESTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "adaptation": (ADAPTED, (BASELINE, NOISE, OFF, RANDOM)),
    "joint_training": (OFF, (BASELINE, NOISE)),
    "placebo": (RANDOM, (OFF,)),
}
"""Question -> its cure and its controls, by column of the errors."""
WORDS = {"adaptation": "Adaptation", "joint_training": "Training with the tasks", "placebo": "A random step"}
TITLES = {"forces": "force error", "energy": "energy error"}
PUBLISHED = 0.3
"""Gain over the baseline that the paper reports, as a share of the error."""


def errors_of(seeds: Sequence[Measured], test: str, column: str, quantity: str) -> Errors | None:
    """Table of errors [S,F] of a column; None where it was not measured."""
    rows = [one.errors[test].get(column, {}).get(quantity) for one in seeds]
    if any(row is None for row in rows):
        return None
    labels = seeds[0].uids[test], seeds[0].groups[test]
    return Errors.table(np.stack(rows), [one.seed for one in seeds], *labels)  # type: ignore[arg-type]


def verdicts(seeds: Sequence[Measured], effect: float = PUBLISHED) -> list[dict[str, Any]]:
    """One record per test set, quantity and question, JSON-ready: those two, and the fields of `CureVerdict`."""
    found = []
    for test in seeds[0].errors:
        for quantity in QUANTITIES:
            for question in QUESTIONS:
                verdict = answer(seeds, test, quantity, question, effect)
                if verdict is not None:
                    record = asdict(verdict)
                    found.append({"test": test, "quantity": quantity, "question": question, **record})
    return found


def answer(
    seeds: Sequence[Measured], test: str, quantity: str, question: str, effect: float = PUBLISHED
) -> CureVerdict | None:
    """The verdict on one question; None where the frames have no such label, or no arm has an error there."""
    cure, controls = QUESTIONS[question]
    tables = {name: errors_of(seeds, test, name, quantity) for name in (cure, *controls)}
    if any(one is None for one in tables.values()):
        return None
    known = {name: one for name, one in tables.items() if one is not None}
    if all(np.max(one.values) <= SMALLEST for one in known.values()):
        return None
    return judge_cure(known.pop(cure), known, quantity=f"{TITLES[quantity]} on '{test}'", effect=effect, n_draws=1000)


def ratios(seeds: Sequence[Measured], column: str) -> list[dict[str, Any]]:
    """Error of a column over that of the baseline with its interval, per test set and quantity."""
    found = []
    for test in seeds[0].errors:
        for quantity in QUANTITIES:
            cure, base = (errors_of(seeds, test, name, quantity) for name in (column, BASELINE))
            if cure is None or base is None:
                continue
            verdict = judge_cure(cure, {BASELINE: base}, n_draws=1000)
            against = verdict.against[BASELINE]
            found.append({
                "test": test, "quantity": quantity, "column": column, "ratio": against.ratio,
                "lower": against.lower, "upper": against.upper, "error": verdict.errors["cure"],
                "baseline": verdict.errors[BASELINE],
            })  # fmt: skip
    return found


def first_sentence(found: Sequence[Mapping[str, Any]], shifted: Sequence[str]) -> str:
    """What a report begins with: the verdict on adaptation, and on joint training, for the first shifted test set.

    Args:
        found: of `verdicts`. shifted: names of the test sets that are out of distribution; the first one counts.
    """
    tests = [*shifted, *(one["test"] for one in found)]
    said = []
    for question in ("adaptation", "joint_training"):
        for quantity in QUANTITIES:
            one = next(
                (v for v in found if (v["test"], v["quantity"], v["question"]) == (tests[0], quantity, question)), None
            )
            if one is not None:
                said.append(f"{WORDS[question]}: {one['sentence']}")
                break
    return " ".join(said) if said else "Undecided: no error to measure."
