"""What `ipip.py` has recorded of the studies of iterative pretraining, study by study, and what lacks."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ipip import Study
from pages import markdown
from records import merged, read_lines

from mlipkit.runs import IPIPSpec, parse_spec
from mlipkit.strategies.ipip import CURES
from mlipkit.strategies.ipip.comparing import QUESTIONS
from mlipkit.strategies.ipip.evaluating import selected_row

Record = Mapping[str, Any]
HERE = Path(__file__).resolve().parent
PLAN = "ipip_small.yaml"
COMMAND = "python benchmarks/studies/ipip.py"
STUDIES = {
    "a_ethanol": "ethanol",
    "a_ethanol_long": "ethanol, four times the steps",
    "a_ethanol_tuned": "ethanol, fine-tuned teacher",
    "a_aspirin": "aspirin",
    "b_acac": "acetylacetone",
    "b_acac_hot": "acetylacetone, pool at 900 K",
    "b_acac_frames": "acetylacetone, whose frames",
    "c_combustion": "CH4O2 fragments",
    "c_mo_s_o": "Mo3O9 in sulfur",
}
"""Study -> its name on the page."""
ARMS = {
    "ipip": "the loop",
    "continual": "continual loop",
    "scratch": "scratch",
    "one_shot": "one-shot",
    "denoising": "denoising",
    "denoising_fractional": "denoising, torsions",
    "distillation": "distillation",
    "n2n": "n2n",
    "a2a": "a2a",
    "hessian": "Hessian",
    "no_forgetting": "loop, nothing forgotten",
    "no_relabelling": "loop, nothing relabelled",
    "no_unstable": "loop, unstable frames not preferred",
    "no_fresh_weights": "loop, weights go on",
    "no_new_frames": "continual loop, no new frames",
    "no_student_md": "continual loop, new frames of the teacher's MD",
    "teacher": "teacher, fine-tuned",
}
"""Arm -> its name on the page, in the order of the page."""
LOOP, SCRATCH, ONE_SHOT, TEACHER = "ipip", "scratch", "one_shot", "teacher"
ZERO_SHOT = "teacher, zero-shot"
PRETRAINED = (ONE_SHOT, "denoising", "denoising_fractional", "distillation", "n2n", "a2a", "hessian")
"""Other pretrainings, as the comparison names them."""


@dataclass(frozen=True)
class Case:
    """One study of the plan with one encoder.

    Attributes:
        spec: of its loop, with all defaults; its data is as the plan names it.
        seeds: that are planned. planned: arms, in the order of the page.
        lines: arm -> seed -> what `ipip.py` has kept of it.
        compared: what it has written of the comparison, None before.
        tuned: whether the teacher was fine-tuned on the same frames before it taught.
    """

    study: str
    encoder: str
    spec: IPIPSpec
    seeds: Sequence[int]
    planned: Sequence[str]
    lines: Mapping[str, Mapping[int, Record]]
    compared: Record | None
    tuned: bool = False

    @property
    def teacher(self) -> str:
        """Its name on the page."""
        return self.spec.teacher.removeprefix("universal:") + (", fine-tuned" if self.tuned else "")

    def control(self, name: str) -> str:
        """An arm, or the untrained teacher, as the page calls it."""
        return ARMS[TEACHER] if self.tuned and name == ZERO_SHOT else ARMS.get(name, name)

    @property
    def words(self) -> tuple[str, str]:
        """First cells of its rows."""
        return STUDIES[self.study], self.encoder

    @property
    def title(self) -> str:
        return ", ".join(self.words)

    @property
    def command(self) -> str:
        return f"{COMMAND} {self.study}"

    @property
    def finished(self) -> int:
        """Arms and seeds that are."""
        return sum(map(len, self.lines.values()))

    @property
    def wanted(self) -> int:
        return len(self.seeds) * len(self.planned)

    @property
    def in_verdicts(self) -> int:
        """Arms and seeds that the comparison rests on."""
        return sum(row["seeds"] for row in (self.compared or {"rows": ()})["rows"] if row["arm"] in ARMS)

    @property
    def verdicts(self) -> dict[tuple[str, str], Record]:
        """(question, quantity) -> verdict."""
        return {(one["question"], one["quantity"]): one for one in (self.compared or {}).get("verdicts", ())}

    def questions(self, cure: str) -> tuple[str, str]:
        """Names of a loop's verdicts against the controls and against the teacher; "" where it was not compared."""
        arms = {row["arm"] for row in (self.compared or {"rows": ()})["rows"]}
        there = [one for one in CURES if one in arms]
        if cure not in there:
            return "", ""
        return QUESTIONS[LOOP if cure == there[0] else cure]

    def of(self, arm: str) -> list[Record]:
        """Lines of an arm in the order of seeds."""
        return [line for _, line in sorted(self.lines.get(arm, {}).items())]

    def arms(self, some: Sequence[str] = ()) -> Iterator[tuple[str, list[Record]]]:
        """Those of which there is a line, in the order of the page."""
        yield from ((arm, self.of(arm)) for arm in some or self.planned if self.of(arm))

    def figure(self, arm: str, name: str, seeds: Sequence[int] | None = None) -> np.ndarray:
        """[S] of the student that stands for each seed: the one that validation frames select."""
        mine = self.lines.get(arm, {})
        lines = [mine[seed] for seed in (sorted(mine) if seeds is None else seeds)]
        return np.array([selected_row(line)[name] for line in lines], float)

    def ratio(self, arm: str, other: str, name: str) -> float | None:
        """Mean over that of another arm, over the seeds that both have; None: none."""
        both = sorted(set(self.lines.get(arm, {})) & set(self.lines.get(other, {})))
        return float(self.figure(arm, name, both).mean() / self.figure(other, name, both).mean()) if both else None

    def lacking(self) -> str:
        """What is not finished of it, in a line; "" where all is."""
        if self.finished == self.wanted:
            return ""
        text = f"{self.title}: {self.finished} of {self.wanted} arms and seeds are finished"
        without = [ARMS[arm] for arm in self.planned if not self.of(arm)]
        text += f"; none yet of: {', '.join(without)}" if without else ""
        return f"*{text}:* `{self.command}`"

    def unjudged(self) -> str:
        """The same of its verdicts, which are made anew by a command."""
        if self.in_verdicts == self.finished:
            return self.lacking()
        text = f"{self.title}: verdicts rest on {self.in_verdicts} arms and seeds, finished are {self.finished}"
        return "\n\n".join(filter(None, [self.lacking(), f"*{text}:* `{self.command} --table`"]))

    def judged_seeds(self, *arms: str) -> int:
        """Fewest seeds of these arms in the comparison; the zero-shot teacher is the same for all."""
        seeds = {row["arm"]: row["seeds"] for row in (self.compared or {"rows": ()})["rows"]}
        return min(seeds.get(arm, 0) for arm in arms if arm != ZERO_SHOT)


def cases(folder: Path, plan: str = PLAN) -> list[Case]:
    """Every study of a plan with each of its encoders, in the order of the page.

    Args:
        folder: of results.
    """
    found = []
    for name in yaml.safe_load((HERE / plan).read_text(encoding="utf-8"))["studies"]:
        study, stem = Study(plan, name), Path(plan).stem
        # The last line of an arm and seed counts; other plans write into the same file.
        lines = [one for one in read_lines(folder / f"ipip_{name}.jsonl") if one["plan"] == stem]
        path = folder / f"ipip_{name}.json"
        compared = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if compared.get("plan", stem) != stem:
            compared = {}
        for encoder, options in study.encoders.items():
            record = merged(study.template, {"kind": "ipip", "model": {"encoder": encoder, **options}})
            spec = parse_spec(record)
            assert isinstance(spec, IPIPSpec)
            planned = [arm for arm in ARMS if arm in study.arms]
            mine = {
                arm: {
                    one["seed"]: one for one in lines
                    if (one["encoder"], one["arm"]) == (encoder, arm) and one["seed"] in study.seeds
                }
                for arm in planned
            }  # fmt: skip
            found.append(
                Case(name, encoder, spec, study.seeds, planned, mine, compared.get(encoder), bool(study.tuned))
            )
    return sorted(found, key=lambda one: list(STUDIES).index(one.study))


def tabled(head: Sequence[str], rows: Sequence[Sequence[Any]], some: Sequence[Case], judged: bool = False) -> str:
    """A table, and below it what lacks of the cases that it is about.

    Args:
        judged: it shows verdicts.
    """
    begun = [case for case in some if case.finished]
    lacks = [case.unjudged() if judged else case.lacking() for case in begun]
    return "\n\n".join(filter(None, [markdown(head, rows) if rows else "", *lacks, not_run(some)]))


def not_run(some: Sequence[Case]) -> str:
    """Cases of which nothing is finished, in a line; "" where there is none."""
    idle = [case for case in some if not case.finished]
    names = dict.fromkeys(case.study for case in idle)
    said = f"*Not run yet: {'; '.join(case.title for case in idle)}:* `{' '.join([COMMAND, *names])}`"
    return said if idle else ""


def numbers_of(budget: str) -> list[int]:
    """The four numbers of `mlipkit.strategies.ipip.plan.Budget.sentence`: gradient steps, labels, MD of both."""
    return [int(one) for one in re.findall(r"\d+", budget)]


def figure(value: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def ranged(values: Sequence[float] | np.ndarray) -> str:
    """Mean, and least to most where they differ."""
    mean, low, high = (figure(float(one)) for one in (np.mean(values), np.min(values), np.max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def shown(value: float | None) -> str:
    """A ratio."""
    return "" if value is None else f"{value:.2f}"


def between(low: float, high: float, digits: int = 2) -> str:
    return f"{low:.{digits}f} to {high:.{digits}f}"


def counted(names: Mapping[str, int], most: int = 0) -> str:
    """``max force 3, overlap 1``."""
    some = sorted(names.items(), key=lambda one: -one[1])
    text = ", ".join(f"{name} {count}" for name, count in (some[:most] if most else some))
    return f"{text}, others {sum(count for _, count in some[most:])}" if most and len(some) > most else text
