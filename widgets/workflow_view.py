"""WorkflowView: one workflow run with pause, stop and resume, and below it what StrategyComparison shows of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as w

from mlipkit.errors import MlipkitError, RunError
from mlipkit.runs import Run

from .arms_data import ArmsData
from .arms_pane import ArmsPane
from .base import RunView
from .parts import button, show
from .staged_folder import PLAN, WORDS, StagedFolder, kind_of
from .workflow_folder import WorkflowFolder


class WorkflowView(RunView):
    """A workflow run on screen: stages, errors, rounds, maps; candidate frames when it waits for its user.

    Args:
        run: a workflow run or its folder; None for an empty view.

    Raises:
        RunError: a run of another kind, or a workflow that was not launched as a run.
    """

    EMPTY = "No workflow is open yet. Start one with a Launcher, or open one: WorkflowView('runs/iterative_0')."

    KIND: ClassVar[str] = "workflow"
    REVIEWS = False

    # What a view of another strategy has of its own

    def _make_pane(self) -> Any:
        return ArmsPane(on_approve=self._approved)

    def _folder_of(self, place: Run | Path) -> StagedFolder:
        return WorkflowFolder(place)

    def _data_of(self, folders: Sequence[Any]) -> Any:
        return ArmsData(folders)

    # What all of them share

    def _opened(self, run: Run | str | os.PathLike[str] | None) -> Run | None:
        if run is not None and not isinstance(run, Run):
            folder = Path(run).expanduser()
            if (folder / PLAN).is_file() and not (folder / "spec.yaml").is_file():
                raise RunError(
                    f"{WORDS[self.KIND]} made without launch: there is no run to pause or stop", where=folder.name,
                    hint=f"StrategyComparison({os.fspath(run)!r}) shows it",
                )  # fmt: skip
        opened = super()._opened(run)
        if opened is not None and opened.kind != self.KIND:
            raise RunError(f"not {WORDS[self.KIND]}", where=opened.name, found=f"a run of kind '{opened.kind}'")
        return opened

    def _build(self) -> None:
        self.pane = self._make_pane()
        self.empty = w.HTML(f'<div class="mk-empty">{escape(self.EMPTY)}</div>')
        self.body.children = [self.empty, self.pane]
        self._workflow: Any = None
        tip = "Set all of this folder side by side, or show this one alone"
        self.compare_button = button("Compare", self._beside_others, hidden=True, tip=tip)
        self.toolbar.children = (*self.toolbar.children, self.compare_button)
        self._all = self._unread = False

    def _reset(self) -> None:
        self._workflow = self._folder_of(self.run) if self.run is not None else None
        self._all = False
        self.pane.watch(self._data_of([self._workflow] if self._workflow is not None else []))
        show(self.empty, self._workflow is None)
        show(self.pane, self._workflow is not None)

    def _update(self, run: Run, state: str) -> None:
        if self._workflow is not None:
            news = self.pane.data.refresh()
            if problem := self.pane.data.problem:
                self._say(problem)
            elif self._unread:
                self._say("")
            self._unread = bool(problem)
            if news:
                self.pane.update()
        self.pane.alone = not self._all
        self.pane.tell()
        others = len(self._others(run))
        show(self.compare_button, others > 0)
        text = "This one alone" if self._all else f"Compare with {others} other{'s' * (others != 1)}"
        if self.compare_button.description != text:
            self.compare_button.description = text

    def _others(self, run: Run) -> list[Path]:
        """Others of this kind beside this one."""
        found = sorted(path.parent for path in run.folder.parent.glob(f"*/{PLAN}"))
        return [folder for folder in found if folder.resolve() != run.folder and kind_of(folder) == self.KIND]

    def _beside(self) -> list[StagedFolder]:
        """Those of them that can be read."""
        found = []
        for folder in self._others(self.run) if self.run is not None else ():
            with contextlib.suppress(OSError, ValueError, MlipkitError):
                found.append(self._folder_of(folder))
        return found

    def _beside_others(self) -> None:
        if self.run is None or self._workflow is None:
            return
        self._all = not self._all
        more = self._beside() if self._all else []
        self.pane.watch(self._data_of([self._workflow, *more]))
        self.refresh()

    def _sentence(self, run: Run, state: str) -> str:
        if self._workflow is not None and state in ("running", "paused", "review"):
            return self._workflow.sentence
        return super()._sentence(run, state)

    def _approved(self) -> None:
        self._ticker.hurry()

    def _set_dark(self, dark: bool) -> None:
        self.pane.set_dark(dark)
