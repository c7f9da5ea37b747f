"""Arms side by side: does the loop beat the best of its controls, and which of its parts earns its keep.

The verdict is that of `mlipkit.analysis.cures.judge_cure` on force errors over training seeds and test frames, every
frame counted: the loop against scratch, one-shot and every other pretraining, at equal gradient steps and with the same
DFT frames. Of the students of a loop the one that is best on the DFT validation frames stands for it. Three further
questions are answered apart: against the teacher, zero-shot and fine-tuned on the same frames; the continual loop
against the same controls; and the loop against itself without one of its parts. Where there is no loop but the
continual one, all is asked of that.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlipkit.errors import RunError
from mlipkit.strategies.ipip.evaluated import Evaluated, check_parts, check_simulations
from mlipkit.strategies.ipip.evaluating import compared
from mlipkit.strategies.ipip.plan import ARMS, CURES, LOOPS, PARTS, WHOLE, equal_steps
from mlipkit.strategies.ipip.species_record import sentence, together
from mlipkit.strategies.ipip.timeline import timeline
from mlipkit.strategies.ipip.tools import as_told
from mlipkit.strategies.workflows.differences import one_experiment

if TYPE_CHECKING:
    from mlipkit.analysis.cures import CureVerdict, Errors

LOOP, CONTINUAL = CURES
TITLES = {LOOP: "Iterative pretraining", CONTINUAL: "Continual pretraining"}
QUESTIONS = {LOOP: ("controls", "teacher"), CONTINUAL: (CONTINUAL, f"{CONTINUAL}, teacher")}
"""Loop -> names of its verdicts against the controls and the teacher; of the loop that is judged first, the first."""
TESTS = ("stability", "reaction")
ZERO_SHOT = "teacher, zero-shot"
Quantity = Literal["forces", "energy"]
Place = Path | str | Any
QUANTITIES: dict[str, str] = {"forces": "force MAE", "energy": "energy MAE"}
EFFECT = 0.2
"""Gain that the paper claims against other pretraining: a fifth off the error."""


@dataclass(frozen=True)
class Comparison:
    """What tables and pictures are drawn from.

    Attributes:
        sentence: the answer in one sentence.
        rows: per arm: arm, seeds, students (the round of each seed's), figures as [mean over seeds, least, most]
            (forces_mae, energy_mae, forces_norm in meV), to_scratch (ratio), better (frames, than the zero-shot
            teacher, where it has an answer) of compared, n_frames, steps, teacher_labels.
        rounds: per round of the loop: the same of every student of it, over seeds.
        verdicts: question -> verdict; questions are `QUESTIONS` and the ablations, each for "forces" and "energy":
            ``("controls", "forces")``.
        stability: arm -> failed, runs, share, interval, reasons, times_fs (of failures); loop_less_this: difference
            with its interval, to the loop that is judged first or, of a loop without a part, to that loop.
        reactions: the same of simulations in which species are followed, with species (`species_record.together`).
        budgets: one line.
        notes: what a reader must know beside the figures.
    """

    sentence: str
    rows: list[dict[str, Any]]
    rounds: list[dict[str, Any]]
    verdicts: Mapping[tuple[str, str], CureVerdict]
    stability: Mapping[str, Mapping[str, Any]]
    budgets: str
    notes: list[str] = field(default_factory=list)
    reactions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "sentence": self.sentence, "budgets": self.budgets, "notes": self.notes, "rows": self.rows,
            "rounds": self.rounds, "stability": dict(self.stability), "reactions": dict(self.reactions),
            "verdicts": [
                {"question": question, "quantity": quantity, **dataclasses.asdict(verdict)}
                for (question, quantity), verdict in self.verdicts.items()
            ],
        }  # fmt: skip

    def table(self) -> str:
        """The rows as aligned text, the verdicts below."""
        head = ("arm", "seeds", "F meV/Å", "E meV/atom", "F/scratch", "better than teacher", "failed", "teacher labels")
        lines: list[tuple[str, ...]] = [head]
        for row in self.rows:
            shown = [_shown(row.get(name)) for name in ("forces_mae", "energy_mae")]
            test, ratio = self.stability.get(row["arm"]), row.get("to_scratch")
            better = "" if row.get("better") is None else f"{row['better']} of {row['compared']}"
            lines.append((
                row["arm"], str(row["seeds"]), *shown, "" if ratio is None else f"{ratio:.3g}", better,
                "" if test is None else f"{test['failed']} of {test['runs']}", str(row["teacher_labels"]),
            ))  # fmt: skip
        widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
        text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        said = [f"{question}, {quantity}: {one.sentence}" for (question, quantity), one in self.verdicts.items()]
        seen = [f"{arm}: {one['failed']} of {one['runs']} runs failed; {sentence(one['species'])}"
                for arm, one in self.reactions.items()]  # fmt: skip
        return "\n".join([self.sentence, "", *text, "", *said, *seen, self.budgets, *self.notes])


def compare(folders: Iterable[Place] | Place, *, effect: float = EFFECT, n_draws: int = 2000) -> Comparison:
    """Set arms side by side that have been evaluated; those that are not yet are named in the notes.

    Args:
        folders: of arms and seeds, or runs (whatever has a `folder`).
        effect: smallest gain worth having, see `judge_cure`.

    Raises:
        RunError: a folder that is not there or holds something else, none is evaluated, arms with other tools, test
            frames or simulations, seeds of an arm with other settings, parts of a loop with others than the loop, a
            seed given twice, errors that cannot be read or are not of all test frames.
        SpecError: unequal gradient steps.
    """
    several: Any = [folders] if isinstance(folders, str | os.PathLike) or hasattr(folders, "folder") else folders
    given = [Path(getattr(one, "folder", one)).expanduser() for one in several]
    read = {folder: Evaluated.read(folder) for folder in given}
    found = [one for one in (read[folder] for folder in given) if one is not None]
    if not found:
        raise RunError("nothing is evaluated yet", where="compare", hint="Let an arm run to its end, or resume it")
    for one in found[1:]:
        theirs, mine = as_told(found[0].words, one.words), as_told(one.words, found[0].words)
        if one.record["uids"] != found[0].record["uids"] or mine != theirs:
            raise RunError("arms that differ in more than their method", where=str(one.folder),
                           expected=f"the test frames and tools of {found[0].folder.name}",
                           found=", ".join(f"other {name}" for name in theirs if theirs[name] != mine.get(name))
                           or "other test frames")  # fmt: skip
    check_simulations(found)
    arms = {arm: mine for arm in ARMS if (mine := [one for one in found if one.plan.arm == arm])}
    for mine in arms.values():
        one_experiment(mine, lambda one: dataclasses.asdict(one.plan.loop))
    check_parts(arms)
    verdicts = _verdicts(arms, effect, n_draws)
    rows = [_row(arm, mine, arms.get("scratch", [])) for arm, mine in arms.items()]
    rows.insert(0, _zero_shot(found[0]))
    return Comparison(
        _sentence(arms, verdicts), rows, _rounds(arms.get(_lead(arms), [])), verdicts, _tests(arms, TESTS[0]),
        equal_steps([one.plan for one in found]), [*_notes(arms), *_left_out(read)], _tests(arms, TESTS[1]),
    )  # fmt: skip


def _lead(arms: Mapping[str, Any]) -> str:
    """The loop that is judged first; "" for none."""
    return next((arm for arm in CURES if arm in arms), "")


def _errors(mine: Sequence[Evaluated], quantity: str, model: str = "", teachers: bool = False) -> Errors:
    """Of every seed and frame; the zero-shot teacher is the same for every seed.

    Args:
        teachers: of frames for which the teacher has an answer alone.
    """
    from mlipkit.analysis.cures import Errors

    tables = np.stack([one.errors(model or one.student["model"], quantity) for one in mine])
    rows = np.flatnonzero(np.isfinite(mine[0].errors("teacher", quantity)) if teachers else np.ones(tables.shape[1]))
    uids, groups = mine[0].record["uids"], mine[0].trajectories()
    # Errors are positive for the statistics; a perfect frame is one to rounding.
    made = Errors.table(
        np.maximum(tables[:, rows], 1e-12), [one.plan.seed for one in mine], [uids[k] for k in rows],
        None if groups is None else [groups[k] for k in rows],
    )  # fmt: skip
    weights = mine[0].weights()[rows] if quantity == "forces" else np.ones(len(rows))
    return dataclasses.replace(made, weights=np.tile(weights, len(mine)))


def _verdicts(
    arms: Mapping[str, Sequence[Evaluated]], effect: float, n_draws: int
) -> dict[tuple[str, str], CureVerdict]:
    from mlipkit.analysis.cures import judge_cure

    lead = _lead(arms)
    if not lead:
        return {}
    found: dict[tuple[str, str], CureVerdict] = {}
    for quantity, words in QUANTITIES.items():
        others = {arm: _errors(mine, quantity) for arm, mine in arms.items() if arm not in (*LOOPS, "teacher")}
        teachers = {ZERO_SHOT: _errors(arms[lead], quantity, "teacher", teachers=True)}
        if "teacher" in arms:
            teachers["teacher, fine-tuned"] = _errors(arms["teacher"], quantity, teachers=True)
        questions: dict[str, tuple[Errors, dict[str, Errors], float]] = {}
        for arm in CURES:
            if arm in arms:
                asked = QUESTIONS[LOOP if arm == lead else arm]
                questions[asked[0]] = _errors(arms[arm], quantity), others, effect
                questions[asked[1]] = _errors(arms[arm], quantity, teachers=True), teachers, 0.8
        for arm, whole in WHOLE.items():
            if arm in arms and whole in arms:
                questions[arm] = _errors(arms[whole], quantity), {arm: _errors(arms[arm], quantity)}, 0.05
        for question, (loop, controls, least) in questions.items():
            if controls and len(np.unique(np.asarray(loop.frames))) > 1:
                found[question, quantity] = judge_cure(loop, controls, quantity=words, effect=least, n_draws=n_draws)
    return found


def _ratio(mine: Sequence[Evaluated], others: Sequence[Evaluated], name: str) -> float | None:
    """Of means over the seeds that both have; None: there is none."""
    both = {one.plan.seed for one in mine} & {one.plan.seed for one in others}
    means = [np.mean([one.student[name] for one in some if one.plan.seed in both]) for some in (mine, others) if both]
    return float(means[0] / means[1]) if both and means[1] else None


def _left_out(read: Mapping[Path, Evaluated | None]) -> list[str]:
    names = [folder.name for folder, one in read.items() if one is None]
    return [f"Not in the verdict, as not evaluated yet: {', '.join(names)}."] if names else []


def _row(arm: str, mine: Sequence[Evaluated], scratch: Sequence[Evaluated]) -> dict[str, Any]:
    def over(name: str) -> list[float]:
        values = [one.student[name] for one in mine]
        return [float(np.mean(values)), float(min(values)), float(max(values))]

    spent = [one.plan.spent(one.facts) for one in mine]
    better = [one.student.get("better_than_teacher") for one in mine]
    return {
        "arm": arm, "seeds": len(mine), "students": [one.student["round"] for one in mine],
        **{name: over(name) for name in ("forces_mae", "energy_mae", "forces_norm")},
        "to_scratch": _ratio(mine, scratch, "forces_mae"),
        "better": None if None in better else round(float(np.mean(better))),  # type: ignore[arg-type]
        "n_frames": mine[0].record["n_frames"], "compared": compared(mine[0].record),
        "steps": spent[0].steps, "teacher_labels": spent[0].teacher_labels,
    }  # fmt: skip


def _zero_shot(one: Evaluated) -> dict[str, Any]:
    row = one.record["rows"][0]
    return {"arm": ZERO_SHOT, "seeds": 1, "n_frames": one.record["n_frames"], "steps": 0, "teacher_labels": 0,
            **{name: [row[name]] * 3 for name in ("forces_mae", "energy_mae", "forces_norm")}}  # fmt: skip


def _rounds(loops: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """Of the loop, round by round, means over seeds."""
    tables = [timeline(one.folder) for one in loops]
    found = []
    for k in range(min(map(len, tables), default=0)):
        rows = [table[k] for table in tables]

        def mean(name: str, rows: list[dict[str, Any]] = rows) -> float | None:
            values = [row[name] for row in rows if row[name] is not None]
            return float(np.mean(values)) if values else None

        names = ("forces_mae", "energy_mae", "forces_norm", "md_fraction", "student_vs_teacher", "new_unstable",
                 "md_steps_per_s")  # fmt: skip
        shares = [row["pool"]["teacher_share"] for row in rows if row["pool"]]
        sizes = [row["pool"]["size"] for row in rows if row["pool"]]
        found.append({"round": k, **{name: mean(name) for name in names},
                      "teacher_share": float(np.mean(shares)) if shares else None,
                      "pool": float(np.mean(sizes)) if sizes else None})  # fmt: skip
    return found


def _tests(arms: Mapping[str, Sequence[Evaluated]], deed: str) -> dict[str, dict[str, Any]]:
    from mlipkit.analysis.proportions import difference, wilson

    lead = _lead(arms)
    counted: dict[str, tuple[int, int]] = {}
    reasons: dict[str, dict[str, int]] = {}
    species: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {}
    for arm, mine in arms.items():
        tests = []
        for one in mine:
            facts = one.test(deed)
            if facts is not None:
                tests.append(facts)
        if tests:
            counted[arm] = sum(facts["failed"] for facts in tests), sum(facts["n"] for facts in tests)
            every = [name for facts in tests for name in facts["reasons"]]
            reasons[arm] = {
                name: sum(facts["reasons"].get(name, 0) for facts in tests) for name in dict.fromkeys(every)
            }
            times[arm] = sorted(time for facts in tests for time in facts["times_fs"])
            if all("species" in facts for facts in tests):
                species[arm] = together([facts["species"] for facts in tests])
    found = {}
    for arm, (failed, runs) in counted.items():
        found[arm] = {"failed": failed, "runs": runs, "share": failed / runs, "interval": list(wilson(failed, runs)),
                      "reasons": reasons[arm], "times_fs": times[arm]}  # fmt: skip
        if arm in species:
            found[arm]["species"] = species[arm]
        whole = WHOLE.get(arm, lead)
        if arm != whole and whole in counted:
            found[arm]["loop_less_this"] = list(difference(counted[whole], (failed, runs)))
    return found


def _sentence(arms: Mapping[str, Any], verdicts: Mapping[tuple[str, str], CureVerdict]) -> str:
    """The verdict first: against the best control; then what was seen of the parts of the loop."""
    verdict, lead = verdicts.get(("controls", "forces")), _lead(arms)
    if verdict is None:
        missing = "control, such as scratch or one_shot," if lead else "loop (ipip or continual)"
        parts = [_parts(loop, verdicts, f"the parts of {title.lower()}") for loop, title in TITLES.items()]
        return f"No verdict: no {missing} has been evaluated yet.{''.join(parts)}"
    text = f"{TITLES[lead]}, forces on test frames: {verdict.sentence}{_parts(lead, verdicts)}"
    if other := verdicts.get((CONTINUAL, "forces")):
        text += f" {TITLES[CONTINUAL]}: {other.sentence}{_parts(CONTINUAL, verdicts)}"
    return text


def _parts(loop: str, verdicts: Mapping[tuple[str, str], CureVerdict], whose: str = "its parts") -> str:
    """What each part of a loop is worth, "" where none was left out."""
    from mlipkit.analysis.cures import three_digits

    said = {"works": "earns its keep", "does not": "does not", "undecided": "is undecided"}
    each = [
        f"{part} {said[one.answer]} ({three_digits(one.ratio)})"
        for arm, part in PARTS[loop].items() if (one := verdicts.get((arm, "forces")))
    ]  # fmt: skip
    return f" Of {whose}: {', '.join(each)}." if each else ""


def _notes(arms: Mapping[str, Sequence[Evaluated]]) -> list[str]:
    notes = []
    loops = arms.get(_lead(arms), [])
    for one in loops:
        n, row = compared(one.record), one.student
        wins = row.get("better_than_teacher")
        if wins is not None:
            notes.append(
                f"Seed {one.plan.seed}: the student's force error is smaller than the zero-shot teacher's on {wins} of "
                f"{n} frames and larger on {n - wins}; {row['ratio_to_teacher']:.3g} times it over all."
            )
            if lost := one.record["n_frames"] - n:
                notes.append(f"The teacher has no answer for {lost} further frames: there, only students are compared.")
    for loop in CURES:
        mine = arms.get(loop, [])
        first = [one for one in mine if not one.student["round"] and len(one.record["rows"]) > 2]
        if first:
            notes.append(
                f"In {len(first)} of {len(mine)} seeds of {loop} validation selects the student of round 0: "
                "iterating did not help there, and no part of it can show."
            )
    if loops and "teacher" not in arms:
        notes.append(
            "No arm fine-tunes the teacher on the same frames: unless it learned them before, much of its error may be "
            "its level of theory."
        )
    for mine in arms.values():
        for one in mine:
            tested = {facts["model"] for deed in TESTS if (facts := one.test(deed)) is not None}
            for name in sorted(tested - {one.student["model"]}):
                notes.append(
                    f"{one.plan.arm}, seed {one.plan.seed}: simulations test the student of round "
                    f"{one.plan[name].round}, errors are those of the one that validation selects, of round "
                    f"{one.student['round']}."
                )
    few = min(len(mine) for mine in arms.values())
    if few < 3:
        seeds = f"{few} seed{'s' * (few > 1)}"
        notes.append(f"Some arms have only {seeds}: fewer than three say little about chance variation.")
    return notes


def _shown(value: Sequence[float] | None) -> str:
    if value is None:
        return ""
    mean, low, high = value
    return f"{mean:.4g}" if low == high else f"{mean:.4g} ({low:.4g} to {high:.4g})"
