"""The curves of one simulation on one time axis, with its verdict marked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import ipywidgets as w
import plotly.graph_objects as go

from mlipkit.data.series import Series
from mlipkit.events import Verdict
from mlipkit.plots import runs as plots

from .curves import CurveFeed
from .plot import Plot

FS_PER_PS = 1000.0
ENERGIES = {"potential_energy": "potential energy", "conserved_energy": "conserved energy"}
"""Columns of the series `md` that are drawn as energies, and their names on screen."""
COLUMNS = ("temperature", *ENERGIES, "max_force")


class MDCurves(w.VBox):
    """Temperature, energies and largest force of a simulation, fed while it grows.

    Args:
        on_click: called with the time in ps where a curve was clicked.

    Attributes:
        marks: first warning, failure.
    """

    def __init__(self, on_click: Callable[[float], None]) -> None:
        self.marks: list[plots.Mark] = []
        self._target: float | None = None
        self.plot = Plot(
            _empty(), height=420, on_click=lambda x, _y, _trace: on_click(x),
            label="Temperature, energy change and largest force over simulated time",
        )  # fmt: skip
        super().__init__([self.plot])
        self.add_class("mlipkit-pane-curves")
        self.reset()

    def reset(self, target_temperature: float | None = None) -> None:
        """Begin with another simulation. `target_temperature`: K, drawn as a line."""
        self.marks, self._target = [], target_temperature
        self._feed = CurveFeed(
            self.plot, {name: number for number, name in enumerate(COLUMNS)}, "time_fs", x_scale=1 / FS_PER_PS,
            from_first=tuple(ENERGIES),
        )  # fmt: skip
        self.plot.show(_empty())
        self._draw_marks()
        self.plot.cursor = None

    @property
    def rows(self) -> int:
        """Steps on show."""
        return self._feed.rows

    def update(self, series: Series) -> bool:
        """Bring the curves up to the series `md`; True when something was sent."""
        return self._feed.update(series)

    def point_at(self, time: float) -> None:
        """Move the line that marks the frame on show. `time`: fs."""
        self.plot.cursor = time / FS_PER_PS

    def mark(self, verdict: Verdict) -> None:
        """Mark a warning or a failure."""
        kinds = {mark.kind for mark in self.marks}
        if verdict.outcome == "warning" and "warning" not in kinds:
            self.marks.append(plots.Mark(verdict.time / FS_PER_PS, "warning", verdict.sentence))
        elif verdict.outcome == "failed" and "failure" not in kinds:
            self.marks.append(plots.Mark(verdict.time / FS_PER_PS, "failure", verdict.sentence))
            if verdict.first_warning is not None and "warning" not in kinds and verdict.step:
                time = verdict.time * verdict.first_warning / verdict.step
                self.marks.append(plots.Mark(time / FS_PER_PS, "warning", "first warning"))
        else:
            return
        self._draw_marks()

    def _draw_marks(self) -> None:
        self.plot.relayout(**plots.mark_layout(self.marks, self._target))


@cache
def _empty() -> go.Figure:
    """One figure for all simulations; made once, as that takes tens of milliseconds in which no click is answered."""
    return plots.md_curves([], temperature=[], energies={name: [] for name in ENERGIES.values()}, max_force=[])
