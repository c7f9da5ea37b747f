"""TrainingMonitor: loss and errors of a training while it runs or afterwards."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import cache
from html import escape

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go

from mlipkit.errors import MlipkitError
from mlipkit.events import Evaluated, Message
from mlipkit.plots import live
from mlipkit.plots.rollouts import ABOVE_MARKS
from mlipkit.plots.runs import parity
from mlipkit.runs import Run
from mlipkit.runs.parity_file import parity_pairs
from mlipkit.runs.places import short_place
from mlipkit.runs.shipped import recorded_on

from .base import RunView
from .beside_door import BesideDoor
from .curves import CurveFeed
from .parts import close_all, row, show
from .plot import Plot
from .rollout_curves import RolloutCurves, marks_of
from .states import duration, sentence_case
from .task_curves import TaskCurves

EVALUATED = {"train_loss": live.EPOCH_LOSS, "objective": live.VALIDATION_LOSS,
             "forces_mae": live.FORCES, "energy_mae": live.ENERGY}  # fmt: skip
METRICS = {
    "energy_mae": ("energy MAE", "meV/atom"), "energy_rmse": ("energy RMSE", "meV/atom"),
    "forces_mae": ("force MAE", "meV/Å"), "forces_rmse": ("force RMSE", "meV/Å"),
    "stress_mae": ("stress MAE", "meV/Å³"), "stress_rmse": ("stress RMSE", "meV/Å³"),
}  # fmt: skip


STEP_ERROR = "error of a step<br>of roll-outs"
RETENTION = "Retention: how far the potential has moved from its own original labels of general frames; 0 at the start."
NO_CURVES = "Curves appear with the first steps."
PARITY = "Prediction against label for {} frames not used in training; on the dotted line both agree."
MOST_POINTS = 3000
"""Points of a parity picture; its errors count all."""


class TrainingMonitor(RunView):
    """Curves, best epoch and error table of a training, alive or ended, with pause, stop and resume.

    Args:
        run: a training run or its folder; None for an empty monitor.
    """

    EMPTY = "No training is open yet. Start one with a Launcher, or open one: TrainingMonitor('runs/NAME')."

    def _build(self) -> None:
        self.plot = Plot(_empty(), height=460, label="Loss, force error and energy error over the optimiser steps")
        self.empty = w.HTML(f'<div class="mk-empty">{escape(self.EMPTY)}</div>')
        self.summary = w.HTML()
        self.table = w.HTML()
        self.kept = w.HTML(f'<div class="mk-quiet">{escape(RETENTION)}</div>')
        told = "Distance from the old labels of general frames over the optimiser steps"
        self.retention = Plot(live.retention_progress(), height=280, label=told)
        self.parity = row(kind="mlipkit-panes")
        self.rollouts, self.tasks, self.door = RolloutCurves(), TaskCurves(), BesideDoor()
        self.toolbar.children = (*self.toolbar.children, self.door.button)
        self.body.children = [
            self.empty, self.plot, row(self.summary), self.door.box, self.rollouts, self.tasks, row(self.table),
            self.parity, self.kept, self.retention,
        ]  # fmt: skip

    def _reset(self) -> None:
        dynamic = self.run is not None and self.run.kind == "dynamic"
        loss, evaluated = "loss", EVALUATED
        if dynamic:
            # Its loss jumps with every stage, as weights of its steps do; the error of its steps goes on.
            loss, evaluated = "loss_forces", {name: k for name, k in EVALUATED.items() if name != "train_loss"}
        self.plot.show(_empty(dynamic))
        self._steps = CurveFeed(self.plot, {loss: live.TRAINING_LOSS}, "step")
        self._epochs = CurveFeed(
            self.plot, evaluated, "step", scales={"forces_mae": 1000.0, "energy_mae": 1000.0}, exact=True
        )
        self.retention.show(live.retention_progress())
        self._kept = CurveFeed(
            self.retention, {"retention_forces_mae": 0, "retention_energy_mae": 1}, "step", exact=True,
            scales={"retention_forces_mae": 1000.0, "retention_energy_mae": 1000.0},
        )  # fmt: skip
        for part in (self.kept, self.retention):
            show(part, False)
        self._seen = 0
        self._best: Evaluated | None = None
        self._latest: Evaluated | None = None
        self._warning = ""
        self._drop_parity()
        self.rollouts.reset()
        self.tasks.reset()
        self.door.offer(None)
        self.summary.value = self.table.value = ""
        self.empty.value = f'<div class="mk-empty">{escape(self.EMPTY if self.run is None else NO_CURVES)}</div>'
        self._show_curves(False)

    def _update(self, run: Run, state: str) -> None:
        names = run.series_names()
        for name, feed in (("training", self._steps), ("validation", self._epochs)):
            if name in names:
                try:
                    feed.update(run.series(name))
                    if name == "validation" and "retention_forces_mae" in run.series(name).columns:
                        self._kept.update(run.series(name))
                        for part in (self.kept, self.retention):
                            show(part, True)
                except MlipkitError:
                    continue  # its header is being written at this moment
        for entry in run.entries(self._seen):
            self._seen = entry.seq
            if isinstance(entry.event, Evaluated):
                self._latest = entry.event
                if entry.event.best or self._best is None:
                    self._best = entry.event
            elif isinstance(entry.event, Message) and entry.event.level == "warning":
                self._warning = entry.event.text
        with suppress(MlipkitError, OSError, ValueError):  # a file is being written at this moment
            self.rollouts.update(run)
            self.tasks.update(run)
        self._show_curves(self._steps.rows + self._epochs.rows > 0)
        if self._best is not None:
            marks = marks_of(self.rollouts.stages)
            best = live.best_line(self._best.step)
            self.plot.relayout(shapes=[*best, *marks["shapes"]], annotations=marks["annotations"])
        self._write("summary", self._words(state))
        self._write("table", errors_table(run.metrics()))
        if state == "completed" and not self.parity.children:
            self._draw_parity(run)
        elif state == "running":  # it goes on, for longer
            self._drop_parity()
        self.door.offer(run)

    def _draw_parity(self, run: Run) -> None:
        pictures: list[w.Widget] = []
        for quantity, unit, split, *pair in parity_pairs(run.files.parity):
            name = "force components" if quantity == "forces" else quantity
            figure = parity(*pair, quantity=name, unit=unit, most=MOST_POINTS).update_layout(hovermode="closest")
            figure.update_layout(title_font_size=13)
            plot = Plot(figure, height=320, label=f"Predicted against labelled {name} of {split} frames")
            pane = w.VBox([plot])
            pane.add_class("mlipkit-pane-parity")
            pictures += [] if pictures else [w.HTML(f'<div class="mk-quiet">{escape(PARITY.format(split))}</div>')]
            pictures.append(pane)
        self.parity.children = pictures

    def _drop_parity(self) -> None:
        for child in self.parity.children:
            close_all(child)
        self.parity.children = []

    def _write(self, part: str, text: str) -> None:
        widget = getattr(self, part)
        if widget.value != text:
            widget.value = text

    def _show_curves(self, there: bool) -> None:
        show(self.plot, there)
        show(self.empty, not there)

    def _words(self, state: str) -> str:
        if self._best is None or self._latest is None:
            first = "The untrained potential is evaluated first." if state == "running" else ""
            return f'<span class="mk-quiet">{first}</span>'
        stages = self.rollouts.stages
        text = f"best epoch <b>{self._best.epoch}</b> (step {self._best.step}), latest {self._latest.epoch}"
        if stages:
            text = f"roll-out steps <b>{stages[-1].length}</b>, stage {stages[-1].number} · {text}"
        if self._best.epoch == 0 and self._latest.epoch > 0:
            text += " · <b>no epoch is better than the start yet</b>"
        if self._latest.learning_rate:
            text += f" · learning rate {self._latest.learning_rate:.2g}"
        if self._warning:
            text += f'<br><span class="mk-wrong">! {escape(self._warning)}</span>'
        return text

    def _progress(self, run: Run) -> str:
        text = super()._progress(run)
        return f"epoch {self._latest.epoch} · {text}" if self._latest is not None and text else text

    def _sentence(self, run: Run, state: str) -> str:
        if state == "completed":
            seconds = run.facts().get("seconds")
            took = f" in {duration(seconds)}" if isinstance(seconds, (int, float)) else ""
            why = f" {sentence_case(run.reason).removesuffix('.')}." if run.reason else ""
            place = short_place(run.folder)
            if run.facts().get("worse_than_start"):
                return f"Fine-tuned{took}.{why} Next: other settings or other frames; the start is still the best."
            did = "Fine-tuned" if run.kind == "finetune" else "Trained"
            # A recording has no weights to go on with.
            after = "" if recorded_on(run) else f" Next: run MD with potential='{place}' and see whether it lasts."
            return f"{did}{took}.{why}{after}"
        return super()._sentence(run, state)


@cache
def _empty(dynamic: bool = False) -> go.Figure:
    figure = live.training_progress()
    if dynamic:
        figure.data[live.EPOCH_LOSS].showlegend = False  # type: ignore[attr-defined]
        figure.update_yaxes(title_text=STEP_ERROR, row=1, col=1).update_layout(ABOVE_MARKS)
    return figure


def errors_table(metrics: dict[str, dict[str, float]]) -> str:
    """HTML table of errors, one line per split."""
    known = [name for name in METRICS if any(math.isfinite(m.get(name, math.nan)) for m in metrics.values())]
    if not known:
        return ""
    head = "".join(f"<th>{METRICS[name][0]}<br>{METRICS[name][1]}</th>" for name in known)
    lines = "".join(
        f"<tr><td>{escape(split)}</td>" + "".join(f"<td>{_milli(figures.get(name))}</td>" for name in known) + "</tr>"
        for split, figures in metrics.items()
    )
    return f'<table class="mk-table"><tr><th>best potential</th>{head}</tr>{lines}</table>'


def _milli(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{1000 * value:.3g}"
