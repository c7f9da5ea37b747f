"""Species over time in the test simulations of a student: one simulation at a time, and what lasted of its changes."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go

from mlipkit.plots.species import species_graph
from mlipkit.strategies.ipip.species_record import RunSpecies

from .loop_folder import MILLI, Followed, LoopFolder
from .parts import row, show
from .plot import Plot

TOLD = "A bond forms below 1.2 and breaks above 1.4 times the sum of covalent radii; mass balances in {} of {} frames."


class LoopSpecies(w.VBox):
    """Shown where the chosen run has simulations in which species were followed."""

    def __init__(self) -> None:
        self.told, self.passed = w.HTML(), w.HTML()
        self.simulation = w.Dropdown(options=["-"], description="simulation", layout={"width": "320px"})
        self.graph = Plot(go.Figure(), height=470, label="Species of one test simulation over time")
        super().__init__([self.told, row(self.simulation), self.graph, self.passed])
        self._found: Followed | None = None
        self._moving = False
        self._drawn: object = None
        self.simulation.observe(self._picked, "value")
        show(self, False)

    def tell(self, one: LoopFolder | None, round: int) -> None:
        """Show the test of a student: that of an iteration, or the last there is."""
        found = self._found = one.followed(round) if one is not None else None
        show(self, found is not None)
        if found is None or one is None:
            return
        test, runs = found.test, found.runs
        said = f"Test simulations of student {found.round}: {test['sentence']}."
        balance = TOLD.format(test["species"]["balanced"], test["species"]["frames"])
        _write(self.told, f'<div class="mk-note">{escape(said)}</div><div class="mk-quiet">{escape(balance)}</div>')
        names = [_name(k, run, test["runs"][k]) for k, run in enumerate(runs)]
        if list(self.simulation.options) != names:
            self._moving = True
            try:
                self.simulation.options = names
                # Where something happened there is something to see.
                self.simulation.value = names[max(range(len(runs)), key=lambda k: len(runs[k].changes or ()))]
            finally:
                self._moving = False
        self._draw((one.folder, found.stage))

    def _draw(self, which: object) -> None:
        index = self.simulation.index
        if self._found is None or index is None or self._drawn == (which, index):
            return
        self._drawn = which, index
        test, run = self._found.test, self._found.runs[index]
        ending, element = test["runs"][index], test["species"]["element"]
        events = [(one["time"] / MILLI, one["kind"], f"{_side(one['before'])} → {_side(one['after'])}")
                  for one in run.changes or ()]  # fmt: skip
        show(self.graph, len(run.time) > 0)
        if len(run.time):
            figure = species_graph(
                run.time / MILLI, {name: run.count(name) for name in run.formulas},
                run.tracked(element) if element else (), element=element, events=events,
                end_ps=ending["step"] * self._found.timestep / MILLI, failed=bool(ending["failed"]),
            )  # fmt: skip
            self.graph.height = int(figure.layout.height)  # type: ignore[attr-defined]
            self.graph.show(figure)
        text = "" if run.checkpoints is None else ", ".join(
            f"{name} {'not seen' if time is None else f'from {time / MILLI:.3g} ps'}"
            for name, time in run.checkpoints.items())  # fmt: skip
        _write(self.passed, f'<div class="mk-quiet">{escape(text)}</div>' if text else "")
        show(self.passed, bool(text))

    def _picked(self, _change: dict) -> None:
        if not self._moving and self._drawn is not None:
            self._draw(self._drawn[0])  # type: ignore[index]


def _name(k: int, run: RunSpecies, ending: Mapping[str, Any]) -> str:
    n = len(run.changes or ())
    text = f"{k}: {n} change{'s' * (n != 1)}" if run.changes is not None else f"{k}: changes unknown"
    return f"{text}, failed" if ending["failed"] else text


def _side(formulas: list[str]) -> str:
    return " + ".join(formulas) or "nothing"


def _write(widget: w.HTML, text: str) -> None:
    if widget.value != text:
        widget.value = text
