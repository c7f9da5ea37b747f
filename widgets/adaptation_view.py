"""AdaptationView: one evaluation of TAIP with pause, stop and resume, and the page of what it found."""

from __future__ import annotations

import os
from html import escape

import ipywidgets as w

from mlipkit.errors import RunError
from mlipkit.runs import Run, TaipSpec

from .adaptation_pane import AdaptationPane
from .base import RunView
from .parts import show


class AdaptationView(RunView):
    """Does adaptation help? Trainings of all arms while they go on, then verdict, errors, controls, scan, features.

    Args:
        run: an evaluation of TAIP or its folder; None for an empty view.

    Raises:
        RunError: a run of another kind.
    """

    EMPTY = "No evaluation is open yet. Start one with a Launcher, or open one: AdaptationView('runs/taip_painn')."

    def _opened(self, run: Run | str | os.PathLike[str] | None) -> Run | None:
        opened = super()._opened(run)
        if opened is not None and opened.kind != "taip":
            raise RunError("no evaluation of TAIP", where=opened.name, found=f"a run of kind '{opened.kind}'")
        return opened

    def _build(self) -> None:
        self.pane = AdaptationPane()
        self.empty = w.HTML(f'<div class="mk-empty">{escape(self.EMPTY)}</div>')
        self.body.children = [self.empty, self.pane]

    def _reset(self) -> None:
        self.pane.watch(self.run)
        show(self.empty, self.run is None)
        show(self.pane, self.run is not None)

    def _update(self, run: Run, state: str) -> None:
        self.pane.update()

    @property
    def _planned(self) -> int:
        """Trainings of all seeds."""
        spec = self.run.spec if self.run is not None else None
        if not isinstance(spec, TaipSpec):
            return 0
        tasks = sum(weight > 0 for weight in (spec.taip.noise, spec.taip.types, spec.taip.pseudo_forces))
        return len(spec.seeds) * (3 + (tasks if spec.ablate and tasks > 1 else 0))

    def _progress(self, run: Run) -> str:
        if run.state == "completed":
            return f"{self._planned} trainings"
        now = min(self.pane.training.trained + 1, self._planned)
        progress = run.progress
        step = f" · {progress.unit} {progress.done} of {progress.total}" if progress is not None else ""
        return f"training {now} of {self._planned}{step}"

    def _write_head(self, run: Run, state: str) -> None:
        super()._write_head(run, state)
        # The progress of a run is that of the training at hand.
        if state != "completed" and self._planned:
            trained, progress = self.pane.training.trained, run.progress
            part = progress.done / progress.total if progress is not None and progress.total else 0.0
            self.header.done = round(min(1.0, (trained + (part if part < 1 else 0.0)) / self._planned), 4)

    def _sentence(self, run: Run, state: str) -> str:
        if state == "completed":
            seeds = len(getattr(run.spec, "seeds", ()))
            few = " Fewer than three seeds say little." if seeds < 3 else ""
            return f"{seeds} seed{'s' * (seeds != 1)}, each with its own controls; the answer stands first.{few}"
        return super()._sentence(run, state)
