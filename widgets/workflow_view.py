"""WorkflowView: one workflow run with pause, stop and resume, and below it what StrategyComparison shows of it."""

from __future__ import annotations

from html import escape

import ipywidgets as w

from mlipkit.runs import Run

from .arms_data import ArmsData
from .arms_pane import ArmsPane
from .base import RunView, show
from .workflow_folder import WorkflowFolder


class WorkflowView(RunView):
    """A workflow run on screen: stages, errors, rounds, maps; candidate frames when it waits for its user.

    Args:
        run: a workflow run or its folder; None for an empty view.
    """

    EMPTY = "No workflow is open yet. Start one with a Launcher, or open one: WorkflowView('runs/iterative_0')."

    REVIEWS = False

    def _build(self) -> None:
        self.pane = ArmsPane(on_approve=self._approved)
        self.empty = w.HTML(f'<div class="mk-empty">{escape(self.EMPTY)}</div>')
        self.body.children = [self.empty, self.pane]
        self._workflow: WorkflowFolder | None = None

    def _reset(self) -> None:
        self._workflow = WorkflowFolder(self.run) if self.run is not None else None
        self.pane.watch(ArmsData([self._workflow] if self._workflow is not None else []))
        show(self.empty, self._workflow is None)
        show(self.pane, self._workflow is not None)

    def _update(self, run: Run, state: str) -> None:
        if self._workflow is not None and self.pane.data.refresh():
            self.pane.update()

    def _sentence(self, run: Run, state: str) -> str:
        if self._workflow is not None and state in ("running", "review"):
            return self._workflow.sentence
        return super()._sentence(run, state)

    def _approved(self) -> None:
        self._ticker.hurry()

    def _set_dark(self, dark: bool) -> None:
        self.pane.set_dark(dark)
