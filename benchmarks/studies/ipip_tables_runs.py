"""Tables of ``docs/ipip_case.md`` about simulations: failures, species, speed; cases in, Markdown out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ipip_found import (
    ARMS,
    LOOP,
    SCRATCH,
    Case,
    Record,
    between,
    counted,
    figure,
    ranged,
    shown,
    tabled,
)
from pages import markdown

from mlipkit.analysis.proportions import difference, wilson
from mlipkit.analysis.survival import Survival, kaplan_meier, stratified_log_rank
from mlipkit.strategies.ipip import CURES
from mlipkit.strategies.ipip.mechanism import CHECKPOINTS
from mlipkit.strategies.ipip.species_record import together

MOST = 4
"""Formulas that are named; the others are added up."""
FASTER = 4.0
"""Published speed of the student over the general model."""
SPEED_COMMAND = "python benchmarks/student_speed.py"


def tests(lines: Sequence[Record], deed: str) -> list[Record]:
    """What simulations have given, seed by seed; where there are several tests, the last."""
    return [line[deed][-1] for line in lines if line[deed]]


def failed(found: Sequence[Record]) -> tuple[int, int]:
    """Of all seeds together: failed, runs."""
    return sum(one["failed"] for one in found), sum(one["n"] for one in found)


def lives(line: Record, deed: str, length: float) -> Survival:
    """Of the simulations of one seed, each `length` fs or until it failed."""
    (found,) = tests([line], deed)
    times = found["times_fs"]
    return kaplan_meier([*times, *[length] * (found["n"] - len(times))], np.arange(found["n"]) < len(times))


def sooner(loop: Sequence[Record], others: Sequence[Record], deed: str, length: float) -> str:
    """p of the log-rank test that the loop's simulations and others last alike, each seed beside its own; "" for none.

    It speaks of these students, not of others that might have been trained.
    """
    mine = {line["seed"]: line for line in loop if line[deed]}
    pairs = [(lives(mine[line["seed"]], deed, length), lives(line, deed, length))
             for line in others if line[deed] and line["seed"] in mine]  # fmt: skip
    if not pairs:
        return ""
    p = stratified_log_rank(pairs)
    return "< 0.001" if p < 1e-3 else f"{p:.2g}"


def failures(some: Sequence[Case], deed: str) -> str:
    """Counts with intervals, the difference to the loop, when and why."""
    rows, mine = [], [case for case in some if getattr(case.spec, deed).runs]
    for case in mine:
        test = getattr(case.spec, deed)
        for arm, lines in case.arms():
            found = tests(lines, deed)
            if not found:
                continue
            count, runs = failed(found)
            low, high = wilson(count, runs)
            beside = []
            for cure in CURES:
                less, p, loop = "", "", tests(case.of(cure), deed)
                if arm != cure and loop:
                    apart, *ends = (100 * one for one in difference(failed(loop), (count, runs)))
                    less = f"{apart:+.0f} ({ends[0]:+.0f} to {ends[1]:+.0f})"
                    p = sooner(case.of(cure), lines, deed, test.steps * test.timestep)
                beside += [less, p]
            times = [time / 1000 for one in found for time in one["times_fs"]]
            reasons: dict[str, int] = {}
            for one in found:
                for name, n in one["reasons"].items():
                    reasons[name] = reasons.get(name, 0) + n
            rows.append((
                *case.words, f"{test.temperature:g}", f"{test.steps * test.timestep / 1000:g}", ARMS[arm],
                f"{count} of {runs}", ", ".join(str(one["failed"]) for one in found),
                f"{100 * count / runs:.0f} ({between(100 * low, 100 * high, 0)})",
                f"{figure(float(np.median(times)))} ({figure(min(times))} to {figure(max(times))})" if times else "",
                *beside, counted(reasons),
            ))  # fmt: skip
    apart = [f"{name} less this, {what}" for name in (ARMS[cure] for cure in CURES) for what in ("% (95 %)", "p")]
    head = ("study", "encoder", "K", "ps", "arm", "failed", "by seed", "% (95 %)",
            "of those that failed: median, ps (range)", *apart, "reasons")  # fmt: skip
    return tabled(head, rows, mine)


def fewer(some: Sequence[Case]) -> Iterator[tuple[str, ...]]:
    """Rows of the claims: failures of a loop and of a student of the labelled frames alone."""
    for case, cure in product(some, CURES):
        loop, scratch = (failed(tests(case.of(arm), "stability")) for arm in (cure, SCRATCH))
        if not loop[1] or not scratch[1]:
            continue
        apart, low, high = (100 * one for one in difference(loop, scratch))
        said = "fewer" if high < 0 else "more" if low > 0 else "not told apart"
        seeds, kelvin = min(len(case.of(arm)) for arm in (cure, SCRATCH)), case.spec.stability.temperature
        yield (
            "failed simulations: 13 % before, none after", *case.words,
            f"scratch {share(scratch)}, {ARMS[cure]} {share(loop)}: {apart:+.0f} % ({low:+.0f} to {high:+.0f})", said,
            f"{seeds} seed{'s' * (seeds != 1)}, runs of all seeds taken as alike, {kelvin:g} K",
        )  # fmt: skip


def share(count: tuple[int, int]) -> str:
    return f"{count[0]} of {count[1]}"


def followed(case: Case) -> Iterator[tuple[str, Record]]:
    """Arm -> species in its simulations, all seeds together."""
    for arm, lines in case.arms():
        if found := [one["species"] for one in tests(lines, "reaction")]:
            yield arm, together(found)


def reacting(some: Sequence[Case]) -> list[Case]:
    return [case for case in some if case.spec.reaction.runs]


def species(some: Sequence[Case]) -> str:
    """Clusters in all frames and at the end, changes that last, mass balance."""
    rows, mine = [], reacting(some)
    for case in mine:
        for arm, found in followed(case):
            told = found["runs"] - found["too_short"]
            rows.append((
                *case.words, ARMS[arm], found["runs"], f"{found['balanced']} of {found['frames']}",
                mean(found["mean_clusters"]), counted(found["formulas"], MOST), mean(found["last_clusters"]),
                counted(found["last_formulas"], MOST), told, sum(found["events"].values()) if told else "",
                counted(found["events"]),
            ))  # fmt: skip
    element = mine[0].spec.reaction.track if mine else ""
    head = ("study", "encoder", "arm", "runs", "frames in which all atoms are found", f"{element} clusters, mean",
            "which, in all frames", "at the end", "which, at the end", "runs long enough for changes",
            "changes that last", "which")  # fmt: skip
    return tabled(head, rows, mine)


def mean(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def checkpoints(some: Sequence[Case]) -> str:
    """Runs that pass each checkpoint of the published mechanism."""
    rows, mine = [], reacting(some)
    for case in mine:
        for arm, found in followed(case):
            passed, told = found["checkpoints"], found["runs"] - found["too_short"]
            if passed is not None:
                rows.append((*case.words, ARMS[arm], *(f"{passed[name]} of {told}" for name in CHECKPOINTS)))
    return tabled(("study", "encoder", "arm", *CHECKPOINTS), rows, mine)


def over_time(some: Sequence[Case]) -> str:
    """Clusters at moments of the simulations."""
    rows, mine = [], reacting(some)
    for case in mine:
        series = (case.compared or {}).get("species_over_time", {})
        for arm in (arm for arm in case.planned if arm in series):
            rows += [(*case.words, ARMS[arm], f"{one['time'] / 1000:g}", one["runs"], mean(one["clusters"]),
                      counted(one["formulas"], MOST)) for one in series[arm]]  # fmt: skip
    head = ("study", "encoder", "arm", "ps", "runs that reach it", "clusters per run", "which, in all runs")
    return tabled(head, rows, mine, judged=True)


def measured(lines: Sequence[Record]) -> dict[tuple[str, str, int, str], dict[str, dict[int, Record]]]:
    """(teacher, device, atoms, command) -> potential -> systems together -> line; the last of each counts.

    Lines of students follow those of the teacher that they were measured beside.
    """
    found: dict[tuple[str, str, int, str], dict[str, dict[int, Record]]] = {}
    teacher = ""
    for line in lines:
        if line["times_the_teacher"] == 1.0:
            teacher = line["potential"]
        threads = line.get("threads", 1)
        device = f"cpu, {threads} thread{'s'[: threads > 1]}" if line["device"] == "cpu" else line["device"]
        key = teacher, device, line["atoms"], line["command"]
        found.setdefault(key, {}).setdefault(line["potential"], {})[line["batch"]] = line
    return found


def speed(some: Sequence[Case], lines: Sequence[Record]) -> str:
    """Students beside the teacher, one system and several together."""
    rows, beside = [], {teacher for teacher, *_ in measured(lines)}
    for (teacher, device, atoms, _), found in measured(lines).items():
        for name, batches in found.items():
            loads = [one["load"] for one in batches.values()]
            single, together = batches.get(1), batches.get(max(batches))
            rows.append((
                teacher.removeprefix("universal:"), name.removeprefix("universal:"), one_of(batches)["dtype"], atoms,
                device, *timed(single), together["batch"] if together else "", *timed(together),
                between(min(loads), max(loads), 0),
            ))  # fmt: skip
    head = ("teacher", "potential", "precision", "atoms", "device", "alone, steps/s", "times the teacher", "together",
            "steps/s", "times the teacher", "load")  # fmt: skip
    lacking = [
        f"*Not measured yet, beside {name.removeprefix('universal:')}:* `{SPEED_COMMAND} --teacher {name}`"
        for name in dict.fromkeys(case.spec.teacher for case in some) if name not in beside
    ]  # fmt: skip
    return "\n\n".join([*([markdown(head, rows)] if rows else []), *lacking])


def one_of(batches: Mapping[int, Record]) -> Record:
    return next(iter(batches.values()))


def timed(line: Record | None) -> tuple[str, str]:
    return ("", "") if line is None else (figure(line["system_steps_per_s"]), f"{line['times_the_teacher']:.1f}")


def faster(some: Sequence[Case], lines: Sequence[Record]) -> Iterator[tuple[str, ...]]:
    """Rows of the claims: times of the students of the studies beside their teachers."""
    for (teacher, device, atoms, _), found in measured(lines).items():
        for encoder in dict.fromkeys(case.encoder for case in some if case.spec.teacher == teacher):
            ratios = {n: one["times_the_teacher"] for n, one in sorted(found.get(encoder, {}).items())}
            if ratios:
                said = {n: ratio >= FASTER for n, ratio in ratios.items()}
                names = {n: "one system" if n == 1 else f"{n} together" for n in ratios}
                each = ", ".join(f"{ratio:.1f} x ({names[n]})" for n, ratio in ratios.items())
                answer = ", ".join(f"{names[n]}: {'yes' if yes else 'no'}" for n, yes in said.items())
                if len(set(said.values())) == 1:
                    answer = "yes" if all(said.values()) else "no"
                loads = [one["load"] for one in found[encoder].values()]
                rests = f"{atoms} atoms, {device}, beside {teacher.removeprefix('universal:')}, load {max(loads):.0f}"
                yield "4 times as fast as the general model", "", encoder, each, answer, rests


def in_loops(some: Sequence[Case]) -> str:
    """MD steps per second in the loops themselves."""
    rows = []
    for case in some:
        lines = case.of(LOOP)
        first = [line["rounds"][0].get("md_steps_per_s") for line in lines[:1]]
        later = [row["md_steps_per_s"] for line in lines for row in line["rounds"][1:] if row.get("md_steps_per_s")]
        if later and first[0]:
            rows.append((*case.words, case.teacher, case.spec.sampling.starts,
                         figure(first[0]), ranged(later), shown(float(np.mean(later)) / first[0])))  # fmt: skip
    head = ("study", "encoder", "teacher", "systems together", "teacher, steps/s", "students, steps/s", "times")
    return tabled(head, rows, some)
