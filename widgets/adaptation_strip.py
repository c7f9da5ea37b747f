"""What a simulation that adapts shows besides: self-supervised loss, gradient, weights, and where it adapted."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

import ipywidgets as w
import numpy as np

from mlipkit.plots import adaptation as plots

from .curves import CurveFeed
from .md_curves import FS_PER_PS
from .parts import show
from .plot import Plot

if TYPE_CHECKING:
    from mlipkit.data.series import Series
    from mlipkit.runs import AdaptationSpec

RULES = {
    "nonsaving": "Each step adapts from the trained weights and restores them afterwards",
    "save_every": "Each step adapts from the weights of the last one and keeps them",
    "save_every_k": "Every {every}. step adapts and keeps its weights",
    "threshold": "A step adapts where its loss is above {threshold:.3g} (dashed), and keeps its weights",
}
HELD = "Every {hold}. step adapts from the trained weights; its weights are used until the next"
SOME = ("save_every_k", "threshold")
"""Strategies of which only some steps adapt: these are marked."""
MOST_MARKS = 400
LINES = ("self_supervised", *plots.TASKS)
NO_ENERGY = "The forces depend on weights that themselves depend on the positions: no energy is conserved."


class AdaptationStrip(w.VBox):
    """Curves of the series `adaptation` on the time axis of the simulation; hidden where nothing adapts.

    Args:
        on_click: called with the time in ps where a curve was clicked.

    Attributes:
        adapted: steps that adapted; `steps`: of so many.
    """

    def __init__(self, on_click: Callable[[float], None]) -> None:
        self.told = w.HTML()
        self.plot = Plot(
            plots.adaptation_strip(), height=400, on_click=lambda x, _y, _trace: on_click(x),
            label="Self-supervised loss, gradient and change of the weights over simulated time",
        )  # fmt: skip
        super().__init__([self.told, self.plot])
        self.reset(None)

    def reset(self, how: AdaptationSpec | None, timestep: float = 1.0) -> None:
        """Begin with another simulation.

        Args:
            how: None, or the strategy "none", for one that does not adapt. timestep: fs.
        """
        self._how = how if how is not None and how.strategy != "none" else None
        self._timestep = timestep
        self._feed: CurveFeed | None = None
        self._tasks: tuple[str, ...] = ()
        self.steps = self.adapted = 0
        self._marks = np.empty((0, 2))
        self._drift = self._largest = 0.0
        self._threshold = np.nan
        self.told.value = ""
        self.plot.cursor = None
        show(self, False)

    def update(self, series: Series) -> bool:
        """Bring everything up to the series `adaptation`; True when something was sent."""
        how = self._how
        if how is None or not len(series):
            return False
        if self._feed is None:
            self._begin(series)
        assert self._feed is not None
        if len(series) < self.steps:  # it was resumed from an earlier step
            self.steps = self.adapted = 0
            self._marks, self._largest = np.empty((0, 2)), 0.0
        if not self._feed.update(series):
            return False
        self._count(series)
        self._tell()
        show(self, True)
        return True

    def point_at(self, time: float) -> None:
        """Move the line that marks the frame on show. `time`: fs."""
        if self._feed is not None:
            self.plot.cursor = time / FS_PER_PS

    def _begin(self, series: Series) -> None:
        seen = series.overview(list(plots.TASKS), max_points=200)
        self._tasks = tuple(name for name in plots.TASKS if np.isfinite(seen[name][1]).any())
        self.plot.show(plots.adaptation_strip(self._tasks))
        assert self._how is not None
        # Where the specification leaves it open, only the series knows it.
        self._threshold = float(series.read(["threshold"], len(series) - 1)["threshold"][-1])
        self.plot.relayout(shapes=plots.threshold_line(self._threshold))
        names = ("self_supervised", *self._tasks)
        traces = {name: number for number, name in enumerate(names)}
        after = len(names) + 1
        traces |= {"gradient": after, "change": after + 1, "drift": after + 2}
        self._feed = CurveFeed(self.plot, traces, "step", x_scale=self._timestep / FS_PER_PS)

    def _count(self, series: Series) -> None:
        """Steps that adapted since the last look, and their marks."""
        rows = series.read(["step", "self_supervised", "adapted", "change", "drift"], self.steps)
        self.steps += len(rows["step"])
        moved = rows["adapted"] > 0
        self.adapted += int(moved.sum())
        self._largest = max(self._largest, float(np.nanmax(rows["change"], initial=0.0)))
        self._drift = float(rows["drift"][-1])
        if self._how is not None and self._how.strategy in SOME and moved.any():
            time = rows["step"][moved] * self._timestep / FS_PER_PS
            self._marks = np.concatenate([self._marks, np.stack([time, rows["self_supervised"][moved]], axis=1)])
            few = self._marks[:: -(-len(self._marks) // MOST_MARKS)]
            self.plot.replace({1 + len(self._tasks): (few[:, 0], few[:, 1])})

    def _tell(self) -> None:
        how = self._how
        assert how is not None
        held = how.hold > 1
        rule = (HELD if held else RULES[how.strategy]).format(hold=how.hold, every=how.every, threshold=self._threshold)
        drift = "" if how.strategy == "nonsaving" else f", drift {self._drift:.3g} now"
        parts = [
            f"<b>Adaptation.</b> {escape(rule)}: <b>{self.adapted}</b> of {self.steps} steps have adapted, "
            f"largest weight change {self._largest:.3g}{drift}."
        ]
        if how.direction == "random":
            parts.append("Control: each step goes in a random direction of equal length.")
        parts.append(NO_ENERGY)
        text = f'<div class="mk-quiet">{" ".join(parts)}</div>'
        if self.told.value != text:
            self.told.value = text
