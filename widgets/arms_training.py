"""The trainings of an evaluation while it runs: validation errors of all arms, and what has been said of them."""

from __future__ import annotations

from html import escape
from pathlib import Path

import ipywidgets as w
import plotly.graph_objects as go

from mlipkit.data.series import Series
from mlipkit.errors import MlipkitError
from mlipkit.events import Message
from mlipkit.plots.adaptation import arms_training
from mlipkit.runs import Run

from .parts import show
from .plot import Plot

TOLD = "Force errors of validation frames while the potentials are trained: one line for each arm and seed."
ARMS = {"baseline": "labels alone", "noise": "noise augmentation", "taip": "with the tasks"}
DONE = ": trained in "
LATEST = 6


class ArmsTraining(w.VBox):
    """Curves of all trainings of an evaluation, drawn from their folders.

    Attributes:
        trained: trainings that have ended.
    """

    def __init__(self) -> None:
        self.said, self.told = w.HTML(), w.HTML(f'<div class="mk-quiet">{escape(TOLD)}</div>')
        self.plot = Plot(go.Figure(), height=300, label="Validation force error of all trainings over their steps")
        super().__init__([self.told, self.plot, self.said])
        self.watch(None)

    def watch(self, run: Run | None) -> None:
        """Begin with another evaluation."""
        self.run, self._seen, self._rows, self.trained = run, 0, 0, 0
        self._lines: list[str] = []
        self.said.value = ""
        for part in (self.told, self.plot):
            show(part, False)

    def update(self) -> None:
        """Look once."""
        if self.run is None:
            return
        for entry in self.run.entries(self._seen):
            self._seen = entry.seq
            if isinstance(entry.event, Message):
                self._lines.append(entry.event.text)
                self.trained += DONE in entry.event.text
        text = "".join(f'<div class="mk-quiet">{escape(line)}</div>' for line in self._lines[-LATEST:])
        if self.said.value != text:
            self.said.value = text
        self._draw(self.run.folder)

    def _draw(self, folder: Path) -> None:
        curves, rows = [], 0
        for place in sorted(folder.glob("seed_*/*/series/validation")):
            try:
                found = Series(place).read(["step", "forces_mae"])
            except MlipkitError:  # its header is being written, or these frames have no forces
                continue
            arm, seed = place.parts[-3], place.parts[-4].removeprefix("seed_")
            words = ARMS.get(arm, arm.replace("_", " "))
            curves.append((words, int(seed), found["step"], found["forces_mae"]))
            rows += len(found["step"])
        if rows == self._rows:
            return
        self._rows = rows
        self.plot.show(arms_training(curves))
        for part in (self.told, self.plot):
            show(part, rows > 0)
