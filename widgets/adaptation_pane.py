"""Before and after adaptation: verdict, errors of all arms beside their controls, scan of the step, features, cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import ipywidgets as w
import numpy as np

from mlipkit.errors import MlipkitError
from mlipkit.plots import adaptation as plots
from mlipkit.plots.embedding import Panel, embedding_maps, measures_of
from mlipkit.runs import Run
from mlipkit.runs.taip_report import (
    MAPS,
    MILLI,
    NAME,
    QUESTIONS,
    UNITS,
    WORDS,
    cost_of,
    shifts_of,
    taip_maps,
    taip_record,
)

from .arms_training import ArmsTraining
from .parts import row, show
from .plot import Plot
from .staged_arms import problem_of

NO_VERDICT = "The verdict comes when every seed has been trained and measured."
CONTROLS = ("off", "random", "noise", "baseline")
MEASURES = ("mmd2", "mmd_p", "frechet", "auc")
NAMES = {**WORDS, "baseline": "trained on labels alone (baseline)"}
KINDS = {"baseline": "baseline", "off": "before adaptation", "adapted": "after adaptation"}
"""Kind of features -> title of its map."""
ANSWERS = {
    "works": ("✓", "#007a5a", "works"), "does not": ("✖", "#c04f00", "does not work"),
    "undecided": ("◔", "#0072b2", "undecided"),
}  # fmt: skip
TITLES = {"forces": "force error", "energy": "energy error"}
UNKNOWN = ("·", "#6b7280", "?")
ERRORS = (
    "Error of each potential over that of the baseline, with 95 % intervals over seeds and frames; dotted: nothing "
    "gained. Adaptation has to beat the best of its controls, also the same potential without it and a random step."
)
SCAN = (
    "Error over the adaptation step, as a multiple of that without adaptation; one line for each seed. The step is "
    "chosen on validation frames (star). Dotted: the same scan on these test frames (an oracle, not used)."
)
FEATURES = (
    "Features of training and of test frames, first seed. Do they come closer by adaptation? Compare the numbers: MMD² "
    "and Fréchet distance are 0 and AUC is 0.5 where the sets cannot be told apart."
)


class AdaptationPane(w.VBox):
    """The page of one evaluation of TAIP: what is being trained, then verdict, errors, controls, scan and features.

    Attributes:
        run: the evaluation, or None.
        record: what it wrote at its end; empty before.
    """

    def __init__(self) -> None:
        self.run: Run | None = None
        self.record: Mapping[str, Any] = {}
        self._stamp, self._moving = (0, 0), False
        self._maps: dict[str, dict[str, Any]] = {}
        self.verdict, self.answers, self.table, self.cost = (w.HTML() for _ in range(4))
        self.title = w.HTML()
        self.problem = w.HTML()
        self.no_verdict = w.HTML(f'<div class="mk-empty">{escape(NO_VERDICT)}</div>')
        self.training = ArmsTraining()
        self.test_set = w.Dropdown(options=["-"], description="test frames", layout={"width": "340px"})
        self.quantity = w.Dropdown(options=["-"], description="error of", layout={"width": "190px"})
        self.errors = Plot(plots.arm_ratios([]), height=300, label="Errors of every potential over the baseline's")
        self.scan = Plot(plots.rate_scan([]), height=320, label="Error over the adaptation step")
        self.maps = Plot(plots.rate_scan([]), height=430, label="Features of training and test frames by t-SNE")
        self.measures = w.HTML()
        errors = w.VBox([_quiet(ERRORS), self.errors]).add_class("mlipkit-pane-half")
        scanned = w.VBox([_quiet(SCAN), self.scan]).add_class("mlipkit-pane-half")
        self.pictures = row(errors, scanned, kind="mlipkit-panes")
        self.feature_box = w.VBox([_quiet(FEATURES), self.maps, self.measures])
        self.found_box = w.VBox([
            self.verdict, row(self.test_set, self.quantity), self.answers, self.pictures, self.table, self.feature_box,
            self.cost,
        ])  # fmt: skip
        super().__init__([self.title, self.problem, self.no_verdict, self.training, self.found_box])
        for choice in (self.test_set, self.quantity):
            choice.observe(lambda _change: self._draw(), "value")
        self.watch(None)

    def watch(self, run: Run | None, title: str = "") -> None:
        """Show another evaluation. `title`: above it, where there are several."""
        self.run, self.record, self._stamp, self._maps = run, {}, (0, 0), {}
        self.title.value = f"<b>{escape(title)}</b>" if title else ""
        show(self.title, bool(title))
        self.training.watch(run)
        show(self.problem, False)
        show(self.no_verdict, run is not None)
        show(self.found_box, False)
        self.update()

    def update(self) -> None:
        """Look at the folder once."""
        if self.run is None:
            return
        stamp = _stamp(self.run)
        if stamp != self._stamp:
            self.record, self._maps, self._stamp, problem = {}, {}, stamp, ""
            try:
                self.record = taip_record(self.run)
                self._maps = taip_maps(self.run)
            except (OSError, ValueError, KeyError, EOFError, BadZipFile, MlipkitError) as error:
                # A verdict stands without its maps.
                problem = problem_of(error)
            self.problem.value = f'<div class="mk-problem">{escape(problem)}</div>' if problem else ""
            show(self.problem, bool(problem))
            self._offer()
        show(self.no_verdict, not self.record)
        show(self.found_box, bool(self.record))
        show(self.training, not self.record)
        if not self.record:
            self.training.update()

    @property
    def shown(self) -> tuple[str, str]:
        """(test set, quantity) on show."""
        return str(self.test_set.value), str(self.quantity.value)

    # What is chosen

    def _offer(self) -> None:
        """Test sets out of distribution first, forces first; the first verdict is that of the report."""
        if not self.record:
            return
        # A set without any error has ratios and no verdict.
        known = {one["test"]: None for one in self.record["ratios"]}
        tests = [*self.record["shifted"], *(name for name in known if name not in self.record["shifted"])]
        quantities = list(dict.fromkeys(one["quantity"] for one in self.record["ratios"]))
        self._moving = True
        try:
            self.test_set.options = [name for name in tests if name in known] or ["-"]
            self.quantity.options = sorted(quantities, key=list(UNITS).index) or ["-"]
        finally:
            self._moving = False
        self._draw()

    def _draw(self) -> None:
        if self._moving or not self.record:
            return
        test, quantity = self.shown
        found = [one for one in self.record["verdicts"] if one["quantity"] == quantity]
        self.verdict.value = "".join(map(_verdict_html, (one for one in found if one["test"] == test)))
        self.answers.value = _answers_html(found, list(self.test_set.options))
        ratios = {
            one["column"]: one for one in self.record["ratios"] if (one["test"], one["quantity"]) == (test, quantity)
        }
        figure = plots.arm_ratios(arms_of(ratios), f"{TITLES[quantity]} / that of the baseline")
        self.errors.height = int(figure.layout.height)  # type: ignore[attr-defined]
        self.errors.show(figure)
        asked = next((one for one in found if (one["test"], one["question"]) == (test, "adaptation")), None)
        self.table.value = _table_html(ratios, asked, UNITS[quantity])
        self.scan.show(plots.rate_scan(scans_of(self.record["seeds"], test, quantity), UNITS[quantity]))
        self.cost.value = _html_table(*_of_test(*cost_of(self.record["seeds"]), test))
        self._draw_features(test)

    def _draw_features(self, test: str) -> None:
        shifts, maps = shifts_of(self.record, test), self._maps.get(test, {})
        show(self.feature_box, bool(shifts))
        if not shifts:
            return
        of_atoms = {
            atoms: {kind: measures_of(*(one[name] for name in MEASURES)) for kind, one in kinds.items()}
            for atoms, kinds in shifts.items()
        }
        measured = of_atoms["all"]
        # Three maps stand side by side: what does not fit above them stands in the table.
        short = {kind: {name: text.partition(" ")[0] for name, text in one.items()} for kind, one in measured.items()}
        panels = {
            _title(kind): Panel(
                np.concatenate(maps[kind]), ["training"] * len(maps[kind][0]) + [test] * len(maps[kind][1]), measures,
            )
            for kind, measures in short.items() if kind in maps
        }  # fmt: skip
        show(self.maps, bool(panels))
        if panels:
            self.maps.show(embedding_maps(panels))
        head = ["features", "atoms", *next(iter(measured.values()))]
        rows = [
            [_title(kind), atoms, *one.values()] for atoms, kinds in of_atoms.items() for kind, one in kinds.items()
        ]
        self.measures.value = _html_table(rows, head)


def arms_of(ratios: Mapping[str, Mapping[str, Any]]) -> list[plots.ArmError]:
    """Arms from top to bottom: the cure, its controls, its parts."""
    found = []
    for column in ("adapted", *CONTROLS, *(name for name in WORDS if name not in ("adapted", *CONTROLS))):
        kind = plots.CURE if column == "adapted" else plots.CONTROL if column in CONTROLS else plots.PART
        if column == "baseline":
            found.append(plots.ArmError(NAMES[column], kind, 1.0, 1.0, 1.0))
        elif column in ratios:
            one = ratios[column]
            found.append(plots.ArmError(NAMES[column], kind, one["ratio"], one["lower"], one["upper"]))
    return found


def scans_of(seeds: Iterable[Mapping[str, Any]], test: str, quantity: str) -> list[plots.Scan]:
    """Scans of validation frames and of a test set, seed by seed."""
    found = []
    for seed in seeds:
        for name, scans in (("validation frames", seed["scan"]), (test, seed["scan_tests"].get(test, {}))):
            scan = scans.get(quantity, {})
            rates = [rate for rate in scan if float(rate) > 0]
            if rates:
                found.append(plots.Scan(
                    name, seed["seed"], [float(rate) for rate in rates],
                    [float("nan") if scan[rate] is None else scan[rate] for rate in rates], scan["0"],
                    float(seed["rates"]["adapted"][quantity]) if name == "validation frames" else None,
                ))  # fmt: skip
    return found


def _verdict_html(one: Mapping[str, Any]) -> str:
    if one["question"] == "placebo":
        if one["answer"] != "works":
            return ""
        said = "The random step would have been called a cure too: distrust the verdict."
        return f'<div class="mk-note">{said}</div>'
    icon, tone, _ = ANSWERS.get(one["answer"], UNKNOWN)
    words = f"{QUESTIONS[one['question']]}: {one['sentence']}"
    return f'<div class="mk-verdict mk-answer" role="status" style="--mk-tone:{tone}">{icon} {escape(words)}</div>'


def _answers_html(found: Iterable[Mapping[str, Any]], tests: Iterable[str]) -> str:
    """One line for each test set: what the three questions are answered with."""
    by = {(one["test"], one["question"]): one for one in found}
    rows = []
    for test in tests:
        cells = []
        for question in QUESTIONS:
            one = by.get((test, question))
            icon, _, said = ANSWERS.get(one["answer"], UNKNOWN) if one else UNKNOWN
            cells.append(f"{icon} {said}, {_interval(one)}" if one else "–")
        rows.append([test, *cells])
    return _html_table(rows, ["test frames", *(f"{words}: error / best control" for words in QUESTIONS.values())])


def _table_html(ratios: Mapping[str, Mapping[str, Any]], asked: Mapping[str, Any] | None, unit: str) -> str:
    rows = []
    baseline = next(iter(ratios.values()))["baseline"] if ratios else float("nan")
    for arm in arms_of(ratios):
        column = next(name for name, words in NAMES.items() if words == arm.name)
        error = baseline if column == "baseline" else ratios[column]["error"]
        against = (asked or {}).get("against", {}).get(column)
        rows.append([
            arm.name, f"{error * MILLI:.4g}", "1" if column == "baseline" else _interval(ratios[column]),
            _interval(against) if against else "–",
        ])  # fmt: skip
    return _html_table(rows, ["potential", f"error, {unit}", "over the baseline", "adapted over this control"])


def _interval(one: Mapping[str, Any]) -> str:
    return f"{one['ratio']:.3f} ({one['lower']:.3f} to {one['upper']:.3f})"


def _of_test(rows: list[list[str]], head: list[str], test: str) -> tuple[list[list[str]], list[str]]:
    """Rows of a test set of a table whose second column names it."""
    return [[one[0], *one[2:]] for one in rows if one[1] == test], [head[0], *head[2:]]


def _html_table(rows: Iterable[Iterable[str]], head: Iterable[str]) -> str:
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in rows)
    return f'<table class="mk-table"><tr>{"".join(f"<th>{escape(one)}</th>" for one in head)}</tr>{lines}</table>'


def _title(kind: str) -> str:
    return KINDS.get(kind, kind)


def _quiet(text: str) -> w.HTML:
    return w.HTML(f'<div class="mk-quiet">{escape(text)}</div>')


def _stamp(run: Run) -> tuple[int, int]:
    found = []
    for name in (NAME, MAPS):
        try:
            found.append((run.folder / name).stat().st_mtime_ns)
        except OSError:
            found.append(-1)
    return found[0], found[1]


def is_evaluation(folder: Path) -> bool:
    """Whether a folder holds an evaluation of TAIP."""
    try:
        with open(folder / "spec.yaml", encoding="utf-8") as file:
            return any(line.split() == ["kind:", "taip"] for line in file)
    except (OSError, UnicodeDecodeError):
        return False
