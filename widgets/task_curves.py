"""What a training with self-supervised tasks shows besides: the loss of each task, and noise levels recognised."""

from __future__ import annotations

from contextlib import suppress
from html import escape

import ipywidgets as w

from mlipkit.errors import MlipkitError
from mlipkit.plots import adaptation as plots
from mlipkit.runs import Run

from .curves import CurveFeed
from .parts import show
from .plot import Plot

TOLD = (
    "Self-supervised tasks, learned beside the labels (TAIP): which noise level separates a structure from its "
    "displaced copy, types of hidden atoms, forces of hidden atoms. Thin: each step; thick: mean of an epoch."
)
RECOGNISED = "train_noise_recognised"


class TaskCurves(w.VBox):
    """Loss of each task while a training grows; hidden for trainings without tasks."""

    def __init__(self) -> None:
        self.told = w.HTML(f'<div class="mk-quiet">{escape(TOLD)}</div>')
        self.plot = Plot(
            plots.task_losses(), height=320, label="Loss of each self-supervised task over the optimiser steps"
        )
        super().__init__([self.told, self.plot])
        self.reset()

    def reset(self) -> None:
        """Forget the training that was shown before."""
        self._tasks: tuple[str, ...] | None = None
        self._steps: CurveFeed | None = None
        self._epochs: CurveFeed | None = None
        show(self, False)

    def update(self, run: Run) -> None:
        """Bring the curves up to the run's files."""
        names = run.series_names()
        if "training" not in names:
            return
        try:
            training = run.series("training")
        except MlipkitError:  # its header is being written at this moment
            return
        tasks = tuple(name for name in plots.TASKS if name in training.columns)
        if not tasks:
            return
        if tasks != self._tasks:
            self._begin(tasks)
        assert self._steps is not None
        assert self._epochs is not None
        self._steps.update(training)
        if "validation" in names:
            with suppress(MlipkitError):
                self._epochs.update(run.series("validation"))
        show(self, self._steps.rows > 0)

    def _begin(self, tasks: tuple[str, ...]) -> None:
        self._tasks = tasks
        figure = plots.task_losses(tasks)
        self.plot.height = int(figure.layout.height)  # type: ignore[attr-defined]
        self.plot.show(figure)
        self._steps = CurveFeed(self.plot, {name: number for number, name in enumerate(tasks)}, "step")
        epochs = {f"train_{name}": len(tasks) + number for number, name in enumerate(tasks)}
        if "loss_noise" in tasks:
            epochs[RECOGNISED] = 2 * len(tasks)
        self._epochs = CurveFeed(self.plot, epochs, "step", exact=True)
