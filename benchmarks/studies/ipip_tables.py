"""Tables of ``docs/ipip_case.md`` about errors, verdicts, claims and budgets: cases in, Markdown out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ipip_found import (
    ARMS,
    LOOP,
    ONE_SHOT,
    PRETRAINED,
    SCRATCH,
    TEACHER,
    ZERO_SHOT,
    Case,
    Record,
    between,
    figure,
    numbers_of,
    ranged,
    shown,
    tabled,
)
from pages import markdown

from mlipkit.strategies.ipip import CURES, LOOPS, WHOLE

QUANTITIES = {"forces": "forces_mae", "energy": "energy_mae"}
TITLES = ("against the best control", "against its teacher")
TOLD = {
    "no_forgetting": "forgetting",
    "no_relabelling": "relabelling by the student",
    "no_unstable": "preferring frames before failures",
    "no_fresh_weights": "fresh weights in each round",
    "no_new_frames": "new frames in each round (continual loop)",
    "no_student_md": "frames of the students' MD rather than the teacher's (continual loop)",
    ONE_SHOT: "iterating at all (against one-shot)",
}
"""Arm without it -> part of the loop."""
PUBLISHED = {
    "Ac-Ala3-NHMe": ((0.0896, 0.0867, 0.0744, 0.0572), (0.0801, 0.0729, 0.0740, 0.0729)),
    "DHA": ((0.0938, 0.0899, 0.0867, 0.0801), (0.0618, 0.0622, 0.0612, 0.0542)),
    "stachyose": ((0.1351, 0.1223, 0.1289, 0.0911), (0.0934, 0.0887, 0.0924, 0.0694)),
    "AT-AT": ((0.1311, 0.1156, 0.1187, 0.0889), (0.0959, 0.0893, 0.0886, 0.0792)),
    "AT-AT-CG-CG": ((0.2030, 0.1842, 0.1821, 0.1601), (0.1289, 0.1154, 0.1157, 0.1088)),
    "buckyball catcher": ((0.5001, 0.4564, 0.3902, 0.2727), (0.1843, 0.1581, 0.1657, 0.1054)),
    "double-walled nanotube": ((0.8003, 0.6786, 0.6247, 0.5421), (0.3627, 0.3764, 0.3478, 0.2344)),
}
"""Energy and force MAE (kcal/mol, kcal/mol/Å) of baseline, GPIP, Frad, IPIP: arXiv 2507.20118, MD22.

Forces of GPIP and Frad for AT-AT are printed as ten times these, which can only be a slip.
"""
PUBLISHED_TEACHER = {"buckyball catcher": 1.6554, "double-walled nanotube": 1.1065}
"""Force MAE of the general model there."""
AGAINST_OTHERS, BELOW_TEACHER = 0.8, 0.2
"""Published ratios of errors: to other pretraining, and of forces to the general model."""


def verdicts(some: Sequence[Case]) -> str:
    """Against the best control, and against the teacher."""
    rows = [
        (f"{ARMS[cure]} {title}", *case.words, quantity, case.control(one["best_control"]), f"{one['ratio']:.3f}",
         between(one["lower"], one["upper"], 3), f"{one['n_seeds']}, {one['n_units']}", word(one))
        for k, title in enumerate(TITLES) for cure in CURES for case in some for quantity in QUANTITIES
        if (one := case.verdicts.get((case.questions(cure)[k], quantity)))
    ]  # fmt: skip
    head = ("question", "study", "encoder", "errors of", "best control", "ratio", "95 % interval", "seeds, frames",
            "verdict")  # fmt: skip
    return tabled(head, rows, some, judged=True)


def word(verdict: Record) -> str:
    """The answer, and why it is none."""
    if verdict["answer"] == "works":
        return "works"
    if verdict["answer"] == "undecided":
        return "undecided"
    if verdict["lower"] > 1:
        return "does not work: the control is better"
    return f"does not work: a gain of {100 * verdict['effect']:.0f} % is excluded"


def errors(some: Sequence[Case]) -> str:
    """All arms, and the teacher without and with training."""
    rows = []
    for case in some:
        for arm, lines in case.arms():
            if not rows or rows[-1][:2] != case.words:
                zero = lines[0]["rows"][0]
                rows.append((*case.words, case.control(ZERO_SHOT), "", "", figure(zero["forces_mae"]), "", "",
                             figure(zero["energy_mae"]), "", "", ""))  # fmt: skip
            cells = []
            for name in QUANTITIES.values():
                cells += [ranged(case.figure(arm, name)), *(shown(case.ratio(arm, other, name))
                                                          for other in (SCRATCH, LOOP))]  # fmt: skip
            share = 100 * case.figure(arm, "better_than_teacher") / [line["n_test"] for line in lines]
            selected = ", ".join(f"{k:.0f}" for k in case.figure(arm, "round")) if arm in LOOPS else ""
            rows.append((*case.words, ARMS[arm], f"{len(lines)} of {len(case.seeds)}", selected, *cells, ranged(share)))
    head = ("study", "encoder", "arm", "seeds", "selected rounds", "forces, meV/Å", "over scratch", "over the loop",
            "energy, meV/atom", "over scratch", "over the loop", "better than the teacher on, % of frames")  # fmt: skip
    return tabled(head, rows, some)


def rounds(some: Sequence[Case]) -> str:
    """The loops round by round, over their seeds."""
    rows = []
    for case, (arm, lines) in ((one, each) for one in some for each in one.arms(CURES)):
        for k in range(min((len(line["rounds"]) for line in lines), default=0)):
            mine = [line["rounds"][k] for line in lines]
            tested = [row for line in lines for row in line["rows"][1:] if row["round"] == k]
            # All seeds share the teacher's simulations: counted for each seed they would be too many.
            sampled = mine if k else mine[:1]
            rows.append((
                *case.words, ARMS[arm], k, len(lines),
                *(ranged([row[name] for row in tested]) for name in QUANTITIES.values()),
                ranged([row["pool"]["size"] for row in mine]),
                *(over(mine, name) for name in ("forgotten", "relabelled", "new", "new_unstable")),
                f"{sum(row['md_failed'] for row in sampled)} of {sum(row['md_runs'] for row in sampled)}",
                f"{100 * np.mean([row['pool']['teacher_share'] for row in mine]):.0f} %",
                over(mine, "student_vs_teacher", 1e3), over(mine, "validation_before"),
                over(mine, "validation_after"),
            ))  # fmt: skip
    head = ("study", "encoder", "arm", "round", "seeds", "forces, meV/Å", "energy, meV/atom", "pool", "forgotten",
            "relabelled", "new", "of them from before failures", "failed, of the runs it is from", "teacher's labels",
            "student's labels against the teacher's, meV/Å", "validation before fine-tuning, meV/Å",
            "after, meV/Å")  # fmt: skip
    return tabled(head, rows, some)


def labels(some: Sequence[Case], lines: Sequence[Record]) -> str:
    """How far the labels of the pools are from the target, of frames that the target labelled as well.

    Args:
        lines: of `ipip_labels.py`; the last of a pool counts.
    """
    rows, without = [], []
    for case in some:
        mine = {(one["seed"], one["round"]): one for one in lines
                if (one["study"], one["encoder"]) == (case.study, case.encoder)}  # fmt: skip
        if case.study in TARGETS and not mine:
            without.append(case)
        for k in sorted({round for _, round in mine}):
            found = [one for (_, round), one in mine.items() if round == k]
            cells = []
            for who in ("teacher", "student"):
                each = [error for one in found if who in one for error in one[who]["each"]]
                cells += [len(each), figure(float(np.mean(each)))] if each else ["", ""]
            tested = [row for line in case.of(LOOP) for row in line["rows"][1:] if row["round"] == k - 1]
            own = ranged([row["forces_mae"] for row in tested]) if tested else ""
            rows.append((*case.words, k, len(found), *cells, own))
    head = ("study", "encoder", "round", "loops", "teacher's labels", "off by, meV/Å", "student's labels",
            "off by, meV/Å", "that student on test frames, meV/Å")  # fmt: skip
    told = [f"*Not measured yet: {'; '.join(case.title for case in without)}:* `{LABELS_COMMAND}`"] if without else []
    return "\n\n".join([*([markdown(head, rows)] if rows else []), *told])


def over(rows: Sequence[Record], name: str, scale: float = 1.0) -> str:
    """Over seeds; "" where no seed knows it."""
    values = [scale * row[name] for row in rows if row.get(name) is not None]
    return ranged(values) if values else ""


def parts(some: Sequence[Case]) -> str:
    """The loop over itself without one of its parts, and over one-shot.

    Of the students that validation selects, and of the last ones: where none after round 0 is selected, the first are
    the same whatever the part does.
    """
    rows, mine = [], [case for case in some if set(WHOLE) & set(case.planned)]
    for case in mine:
        for arm, title in TOLD.items():
            for quantity, name in QUANTITIES.items():
                question = "controls" if arm == ONE_SHOT else arm
                one = case.verdicts.get((question, quantity), {}).get("against", {}).get(arm)
                if one and arm in case.planned:
                    last = [
                        ranged([line["rows"][-1][name] for line in case.of(each)])
                        for each in (WHOLE.get(arm, LOOP), arm)
                    ]
                    rows.append((*case.words, title, quantity, f"{one['ratio']:.3f}",
                                 between(one["lower"], one["upper"], 3),
                                 helps(one, case.judged_seeds(WHOLE.get(arm, LOOP), arm)), *last))  # fmt: skip
    head = ("study", "encoder", "part", "errors of", "with over without", "95 % interval", "does it earn its keep?",
            "last students, with", "without")  # fmt: skip
    return tabled(head, rows, mine, judged=True)


def helps(one: Record, seeds: int) -> str:
    """Whether an interval is below or above 1; one seed is not asked."""
    if seeds < 2:
        return "undecided"
    if one["lower"] == one["upper"] == 1:
        return "no: the same students were selected"
    return "yes" if one["upper"] < 1 else "no, it does harm" if one["lower"] > 1 else "not shown"


def claims(some: Sequence[Case], speeds: Sequence[Sequence[str]], failures: Sequence[Sequence[str]]) -> str:
    """What is published beside what was found.

    Args:
        speeds, failures: rows that `ipip_tables_runs` has made of what is measured there.
    """
    rows = [*against(some), *speeds, *failures]
    return tabled(("published", "study", "encoder", "here", "reached?", "what it rests on"), rows, some, judged=True)


def against(some: Sequence[Case]) -> Iterator[tuple[str, ...]]:
    """Ratios to other pretraining and to the teacher."""
    for case, cure, quantity in product(some, CURES, QUANTITIES):
        verdict = case.verdicts.get((case.questions(cure)[0], quantity), {})
        others = {arm: one for arm, one in verdict.get("against", {}).items() if arm in PRETRAINED}
        if others:
            # The one that does best is the control with the largest ratio.
            arm = max(others, key=lambda name, others=others: others[name]["ratio"])
            yield (
                "errors 20 % below other pretraining", *case.words,
                f"{ARMS[cure]}: {quantity} {gain(others[arm])} {ARMS[arm]}, the best of {len(others)}",
                *reached(case, cure, arm, others[arm], AGAINST_OTHERS, verdict["n_units"]),
            )  # fmt: skip
    for case in some:
        if case.tuned:
            continue
        for cure in CURES:
            verdict = case.verdicts.get((case.questions(cure)[1], "forces"), {})
            for name, one in verdict.get("against", {}).items():
                arm = name if name == ZERO_SHOT else TEACHER
                yield (
                    "forces more than 80 % below the general model", *case.words,
                    f"{ARMS[cure]}: forces {gain(one)} {name}",
                    *reached(case, cure, arm, one, BELOW_TEACHER, verdict["n_units"]),
                )  # fmt: skip


def gain(one: Record) -> str:
    """``-12 % (-20 to -4) against``."""
    ends = " to ".join(f"{100 * (one[name] - 1):+.0f}" for name in ("lower", "upper"))
    return f"{100 * (one['ratio'] - 1):+.0f} % ({ends}) against"


def reached(case: Case, cure: str, arm: str, one: Record, published: float, frames: int) -> tuple[str, str]:
    """Where the published ratio lies to the interval, and what that rests on."""
    seeds = case.judged_seeds(cure, arm)
    rests = f"{seeds} seed{'s' * (seeds != 1)}, {frames} test frames, all counted"
    if seeds < 2:
        return "one seed tells nothing of it", rests
    if one["upper"] <= published:
        return "yes", rests
    return "no" if one["lower"] > published else "possible, not shown", rests


def published() -> str:
    """The paper's own tables as ratios."""
    rows, medians = [], []
    for system, tables in PUBLISHED.items():
        ratios = [ratio for baseline, *others, own in tables for ratio in (own / baseline, own / min(others))]
        teacher = PUBLISHED_TEACHER.get(system)
        medians.append(ratios)
        rows.append((system, *map(shown, ratios), shown(teacher and tables[1][-1] / teacher)))
    rows.append(("median", *(shown(float(one)) for one in np.median(medians, axis=0)), ""))
    head = ("MD22", "energies over baseline", "over the better of GPIP and Frad", "forces over baseline",
            "over the better of GPIP and Frad", "over the general model")  # fmt: skip
    return markdown(head, rows)


TARGETS = ("c_mo_s_o",)
"""Studies whose target is a method that runs here."""
LABELS_COMMAND = "python benchmarks/studies/ipip_labels.py"
DEEDS = {
    "training": ("pretrain", "finetune"),
    "pools: MD, labels": ("starts", "sample", "pool", "choose", "renew"),
    "tests": ("evaluate", "stability", "reaction"),
}
"""Column -> stages whose time it adds up."""


def budget(some: Sequence[Case]) -> str:
    rows = []
    for case in some:
        for arm, lines in case.arms():
            steps, labels, teacher_md, student_md = numbers_of(lines[0]["budget"])
            seconds = [{name: sum(line["stage_wall_s"].get(one, 0.0) for one in deeds) for name, deeds in DEEDS.items()}
                       for line in lines]  # fmt: skip
            # An arm that was interrupted has told the CPU time of its last stretch alone.
            whole = [line["cpu_s"] for line in lines if line["wall_s"] > 0.99 * sum(line["stage_wall_s"].values())]
            cpu = ranged([one / 60 for one in whole]) if whole else ""
            cpu += f" [{len(whole)}]" if 0 < len(whole) < len(lines) else ""
            rows.append((
                *case.words, ARMS[arm], steps, dft(case), labels, teacher_md, student_md,
                *(ranged([one[name] / 60 for one in seconds]) for name in DEEDS), cpu,
            ))  # fmt: skip
    head = ("study", "encoder", "arm", "gradient steps", "DFT frames", "teacher's labels", "MD steps of the teacher",
            "of students", *(f"{name}, min" for name in DEEDS), "CPU, min")  # fmt: skip
    return tabled(head, rows, some)


def dft(case: Case) -> str:
    """``40 + 10``: to train on and to choose by."""
    return f"{case.spec.n_train} + {case.spec.split.validation:g}"


SYSTEMS = {
    "a_ethanol": "9 atoms, MD17, DFT",
    "a_ethanol_long": "9 atoms, MD17, DFT",
    "a_ethanol_tuned": "9 atoms, MD17, DFT",
    "a_aspirin": "21 atoms, rMD17, DFT",
    "b_acac": "15 atoms, 300 K, DFT",
    "b_acac_hot": "15 atoms, 300 K, DFT",
    "b_acac_frames": "15 atoms, 300 K, DFT",
    "c_combustion": "7 atoms, whole and broken, DFT",
    "c_mo_s_o": "36 atoms, cell of 20 Å, GFN1-xTB",
}
"""Study -> its frames."""
THERMOSTATS = {"langevin": "Langevin", "nose_hoover": "Nosé-Hoover"}


def method(some: Sequence[Case]) -> str:
    """Sizes, steps and temperatures, from the plan."""
    rows, students = [], []
    for case in some:
        spec, steps = case.spec, case.spec.pretraining.steps
        rows.append((
            *case.words, SYSTEMS[case.study], case.teacher, dft(case),
            f"{spec.split.test:g}", simulated(spec.sampling, spec.sampling.starts), spec.settings.pool_frames,
            f"{spec.loop.iterations + 1} x ({steps} + {spec.finetuning.steps}), {spec.pretraining.batch_size}",
            *(simulated(one, one.runs) for one in (spec.stability, spec.reaction)), len(case.planned), len(case.seeds),
        ))  # fmt: skip
        model = spec.model
        students.append(f"{model.encoder} {model.features} features, {model.layers} layers, cutoff {model.cutoff:g} Å")
    head = ("study", "encoder", "frames", "teacher", "DFT frames, training + validation", "test", "MD of the pool",
            "pool", "gradient steps, batch", "failures are counted in", "species are followed in", "arms",
            "seeds")  # fmt: skip
    tuned = {case.spec.teacher_tuning.steps for case in some if TEACHER in case.planned}
    told = f"Students: {'; '.join(dict.fromkeys(students))}. The fine-tuned teacher has {', '.join(map(str, tuned))} "
    return f"{markdown(head, rows)}\n\n{told}gradient steps, each of which costs far more than one of a student."


def simulated(one: Any, runs: int) -> str:
    """``20 x 2 ps, 600 K, Langevin``."""
    thermostat = THERMOSTATS[getattr(one, "ensemble", "langevin")]
    return f"{runs} x {one.steps * one.timestep / 1000:g} ps, {one.temperature:g} K, {thermostat}" if runs else ""
