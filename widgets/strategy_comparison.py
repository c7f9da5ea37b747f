"""StrategyComparison: arms of fine-tuning workflows side by side, while they run or afterwards."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import ClassVar

import ipywidgets as w
import traitlets as t
import yaml

from mlipkit.runs import Run

from .arms_data import ArmsData, problem_of
from .arms_pane import ArmsPane
from .base import HIDDEN_S, IDLE_S, LIVE_S, button, close_all, row, short_path, show
from .header import Header
from .standing import counted
from .states import look
from .ticker import Ticker, on_loop
from .workflow_folder import WorkflowFolder, is_workflow

EMPTY = (
    "No workflow is open yet: StrategyComparison(['runs/naive_0', 'runs/iterative_0']), or StrategyComparison('runs') "
    "for all in a folder. A Launcher starts one."
)
Place = Run | str | os.PathLike[str]
ORDER = ("running", "review", "queued", "waiting", "paused", "failed", "crashed", "lost", "stopped", "resting",
         "completed")  # fmt: skip
"""Which state of several workflows the head shows."""


class StrategyComparison(w.VBox):
    """Verdict, errors with controls, budgets, rounds, maps, bonds and residuals of several workflows.

    A workflow is one arm with one seed. Folders are read only, at any time: of workflows that run, have ended, failed
    or wait for the user. Candidate frames that wait are looked at, struck out and approved here.

    Args:
        runs: workflow runs or their folders; or one folder: it is a workflow, or all workflows in it are shown, later
            ones too.
        viewer: "auto", "nglview" or "still", for candidate frames.

    Attributes:
        round: the round on show in all pictures (a traitlet), from 1; 0 while there is none.

    Raises:
        RunError: a folder that holds no workflow.
    """

    round = t.Int(0)
    _views: ClassVar[weakref.WeakSet[StrategyComparison]] = weakref.WeakSet()

    def __init__(self, runs: Iterable[Place] | Place | None = None, viewer: str = "auto") -> None:
        self.header = Header(gone="run this cell again. Workflows go on, and their folders hold everything.")
        self.header.on_shown(self._appeared)
        self.header.observe(lambda change: on_loop(self.pane.set_dark, bool(change["new"])), "dark")
        self.pane = ArmsPane(self._round_chosen, self.refresh, viewer)
        self.empty, self.problem, self.panel = (
            w.HTML(f'<div class="mk-empty">{escape(EMPTY)}</div>'),
            w.HTML(),
            w.HTML(),
        )
        self._panel_kind = ""
        self.buttons = row(
            button("Code", lambda: self._toggle("code"), tip="Python that draws the same"),
            button("YAML", lambda: self._toggle("yaml"), tip="Specifications of these workflows"),
            button("Folder", lambda: self._toggle("folder"), tip="Where they are kept"),
        )
        show(self.panel, False)
        show(self.problem, False)
        self._closed = self._was_shown = self._moving = False
        self._known: tuple[int, ...] | None = None
        self.workflows: list[WorkflowFolder] = []
        self._root: Path | None = None
        super().__init__([self.header, self.empty, self.problem, self.pane, self.buttons, self.panel])
        self.add_class("mlipkit-view")
        self._ticker = Ticker(self._tick)
        self.watch(runs)
        self._close_forgotten()

    # For users

    def watch(self, runs: Iterable[Place] | Place | None) -> None:
        """Show other workflows."""
        self._root = None
        places: list[Place] = []
        if isinstance(runs, str | os.PathLike) and not isinstance(runs, Run):
            folder = Path(runs).expanduser()
            if is_workflow(folder):
                places = [folder]
            else:
                self._root = folder
        elif isinstance(runs, Run):
            places = [runs]
        elif runs is not None:
            places = list(runs)
        self.workflows = [WorkflowFolder(one) for one in places]
        self._look_for_more()
        self._open()
        self.refresh()
        self._ticker.start()
        self._ticker.hurry()

    def refresh(self) -> str:
        """Look once at all folders; the state that the head shows."""
        if self._look_for_more():
            self._open()
        elif self.pane.data.refresh() or self._known != self._revisions:
            self._known = self._revisions
            self.pane.update()
        self.pane.alone = len(self.workflows) == 1
        self.pane.tell()
        return self._head()

    def choose(self, round: int) -> None:
        """Show a round everywhere."""
        self.pane.choose(round)

    def close(self) -> None:
        """End the loop and remove the view. Workflows go on."""
        if self._closed:
            return
        self._closed = True
        StrategyComparison._views.discard(self)
        self._ticker.stop()
        layout = self.layout
        for child in self.children:
            close_all(child)
        super().close()
        layout.close()

    def _close_forgotten(self) -> None:
        """End views of these workflows that no page shows any more: their cell was run again."""
        mine = {one.folder for one in self.workflows}
        for view in list(StrategyComparison._views):
            same = mine == {one.folder for one in view.workflows}
            if same and view._was_shown and not view.header.showing:
                view.close()
        StrategyComparison._views.add(self)

    # The loop

    @property
    def _revisions(self) -> tuple[int, ...]:
        return tuple(one.revision for one in self.workflows)

    def _look_for_more(self) -> bool:
        if self._root is None:
            return False
        known = {one.folder for one in self.workflows}
        found = sorted(self._root.glob("*/")) if self._root.is_dir() else []
        new = [folder for folder in found if folder.resolve() not in known and is_workflow(folder)]
        self.workflows = [*self.workflows, *(WorkflowFolder(folder) for folder in new)]
        return bool(new)

    def _open(self) -> None:
        self._known = self._revisions
        self.pane.watch(ArmsData(self.workflows))
        there = bool(self.workflows)
        show(self.empty, not there)
        show(self.pane, there)
        show(self.buttons, there)

    def _head(self) -> str:
        states = [one.state for one in self.workflows]
        state = next((one for one in ORDER if one in states), states[0] if states else "empty")
        head, arms = self.header, self.pane.data.arms
        head.state, head.title = state, "Strategy comparison" if states else "No workflow"
        n = len(states)
        head.detail = f"{len(arms)} arm{'s' * (len(arms) != 1)}, {n} workflow{'s' * (n != 1)}" if n else ""
        waits = [one for one in self.workflows if one.state != "completed"]
        head.sentence = waits[0].sentence if n == 1 and waits else counted(states)
        planned = sum(len(one.plan.stages) for one in self.workflows if one.plan is not None)
        done = sum(len(one.records) for one in self.workflows)
        head.done = round(done / planned, 4) if planned and waits else -1.0
        ages = [one.run.heartbeat_age if one.run is not None else one.age for one in self.workflows
                if one.state == "running"]  # fmt: skip
        known = [age for age in ages if age is not None]
        head.age = round(min(known), 1) if known else -1.0
        head.live = look(state).live
        head.beat += 1
        return state

    def _tick(self) -> float | None:
        if self._closed:
            return None
        try:
            state = self.refresh()
            self._say("")
        except (OSError, ValueError) as error:
            self._say(problem_of(error))
            return IDLE_S
        if self._was_shown and not self.header.showing:
            return HIDDEN_S
        return LIVE_S * 2 if look(state).live else IDLE_S

    def _appeared(self) -> None:
        self._was_shown = True
        self._ticker.start()
        self._ticker.hurry()

    def _round_chosen(self, round: int) -> None:
        self._moving = True
        try:
            self.round = round
        finally:
            self._moving = False

    @t.observe("round")
    def _round_set(self, change: dict) -> None:
        if not self._moving and change["new"] != self.pane.round:
            self.pane.choose(change["new"])

    # Panels

    def _say(self, problem: str) -> None:
        text = f'<div class="mk-verdict mk-wrong" role="alert">{escape(problem)}</div>' if problem else ""
        if self.problem.value != text:
            self.problem.value = text
            show(self.problem, bool(problem))

    def _toggle(self, kind: str) -> None:
        self._panel_kind = "" if kind == self._panel_kind else kind
        text = {"": str, "code": self._code, "yaml": self._yaml, "folder": self._where}[self._panel_kind]()
        self.panel.value = f'<pre class="mk-code">{escape(text)}</pre>' if text else ""
        show(self.panel, bool(text))

    def _code(self) -> str:
        places = [short_path(one.folder) for one in self.workflows]
        unequal = ", unequal=True" if self.pane.data.unequal() else ""
        return (
            "from mlipkit.strategies.workflows import compare_arms\n\n"
            f"found = compare_arms({places!r}{unequal})\nprint(found.sentence)\nprint(found.table())\n\n"
            "# the same view, also from another notebook:\nfrom mlipkit_widgets import StrategyComparison\n"
            f"StrategyComparison({places!r})\n"
        )

    def _yaml(self) -> str:
        parts = []
        for one in self.workflows:
            if one.run is not None:
                text = one.run.spec.to_yaml()
            elif one.plan is not None:
                text = yaml.safe_dump(
                    {"arm": one.plan.arm, "seed": one.plan.seed, "settings": dict(one.plan.settings)}, sort_keys=False
                )
            else:
                text = ""
            parts.append(f"# {one.name}\n{text}")
        return "---\n".join(parts)

    def _where(self) -> str:
        return "\n".join(
            f"{one.name}: {one.folder}\n  "
            + "  ".join(sorted(path.name + ("/" if path.is_dir() else "") for path in one.folder.iterdir()
                               if not path.name.startswith(".")))
            for one in self.workflows
        )  # fmt: skip
