"""StrategyComparison: arms of a strategy side by side, while they run or afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import traitlets as t
import yaml

from mlipkit.errors import MlipkitError, RunError
from mlipkit.runs import Run
from mlipkit.runs.places import short_place

from .adaptation_pane import is_evaluation
from .arms_data import ArmsData
from .arms_pane import ArmsPane
from .base import HIDDEN_S, IDLE_S, LIVE_S, listing
from .evaluations import Evaluations, sorted_out
from .live_view import PanelView
from .loop_data import LoopData
from .loop_folder import LoopFolder
from .loop_pane import LoopPane
from .parts import close_all, show
from .staged_arms import problem_of
from .staged_folder import DAMAGED, kind_at, kind_of
from .standing import counted
from .states import look
from .workflow_folder import WorkflowFolder

EMPTY = (
    "No workflow is open yet: StrategyComparison(['runs/naive_0', 'runs/iterative_0']), or StrategyComparison('runs') "
    "for all in a folder. A Launcher starts one; runs of iterative pretraining are compared here, too, and "
    "evaluations of test-time adaptation."
)
NOUNS = {"workflow": "workflow", "ipip": "run"}
FOLDERS: dict[str, type[Any]] = {"workflow": WorkflowFolder, "ipip": LoopFolder}
DATA: dict[str, type[Any]] = {"workflow": ArmsData, "ipip": LoopData}
CODE = {
    "workflow": ("mlipkit.strategies.workflows", "compare_arms"),
    "ipip": ("mlipkit.strategies.ipip.comparing", "compare"),
}
Place = Run | str | os.PathLike[str]
ORDER = ("running", "review", "queued", "waiting", "paused", "failed", "crashed", "lost", "stopped", "resting",
         "completed")  # fmt: skip
"""Which state of several workflows the head shows."""


class StrategyComparison(PanelView):
    """Verdict, errors with controls, budgets and rounds of several workflows, or of runs of iterative pretraining.

    Each is one arm with one seed. Folders are read only, at any time: of what runs, has ended, failed or waits for the
    user. Of workflows maps, bonds and residuals are shown, and candidate frames that wait are looked at, struck out
    and approved; of iterative pretraining what became of the pool in each iteration, failed simulations and speed.
    An evaluation of test-time adaptation has a page of its own: errors of all potentials beside their controls, scan
    of the step, features before and after.

    Args:
        runs: runs or their folders, all of one kind or evaluations; or one folder: it is such a run, or all in it are
            shown, later ones too.
        viewer: "auto", "nglview" or "still", for candidate frames.

    Attributes:
        round: the round on show in all pictures (a traitlet), from 1, 0 while there is none; iterations of
            pretraining count from 0.

    Raises:
        RunError: a folder that holds neither, or runs of both kinds.
    """

    round = t.Int(0)

    def __init__(self, runs: Iterable[Place] | Place | None = None, viewer: str = "auto") -> None:
        self.header = self._head(gone="run this cell again. Workflows go on, and their folders hold everything.")
        self._viewer, self._kind = viewer, "workflow"
        self.pane: Any = ArmsPane(self._round_chosen, self.refresh, viewer)
        self.pane_box, self.evaluations = w.VBox([self.pane]), Evaluations()
        self.empty = w.HTML(f'<div class="mk-empty">{escape(EMPTY)}</div>')
        self._make_panels("Python that draws the same", "Specifications of these workflows", "Where they are kept")
        self._moving = self._dark = False
        self._known: tuple[int, ...] | None = None
        self.workflows: list[Any] = []
        self._unread: list[str] = []
        self._wanted: list[Place] = []
        self._root: Path | None = None
        self._begin(
            self.header, self.empty, self.problem, self.evaluations, self.pane_box, self.panel_buttons, self.panel
        )
        self._first(lambda: self.watch(runs))
        self._close_forgotten()

    # For users

    def watch(self, runs: Iterable[Place] | Place | None) -> None:
        """Show other runs."""
        root: Path | None = None
        places: list[Place] = []
        if isinstance(runs, str | os.PathLike) and not isinstance(runs, Run):
            folder = Path(runs).expanduser()
            if kind_of(folder) or is_evaluation(folder):
                places = [folder]
            else:
                root = folder
        elif isinstance(runs, Run):
            places = [runs]
        elif runs is not None:
            places = list(runs)
        evaluations, places = sorted_out(places)
        kinds = {kind_at(one) for one in places} - {DAMAGED}
        if len(kinds) > 1:
            raise RunError("runs of several strategies are not set side by side", where="StrategyComparison",
                           found=" and ".join(sorted(kinds)), hint="One comparison for each")  # fmt: skip
        self._kind = kinds.pop() if kinds else "workflow"
        self.evaluations.watch(evaluations)
        self._root, self._unread, self._wanted = root, [], list(places)
        self.workflows = [FOLDERS[self._kind](self._wanted.pop())] if len(places) == 1 else []
        self._look_for_more()
        self._open()
        self.refresh()
        self._wake()

    def refresh(self) -> str:
        """Look once at all folders; the state that the head shows."""
        if self._look_for_more():
            self._open()
        elif self.pane.data.refresh() or self._known != self._revisions:
            self._known = self._revisions
            self.pane.update()
        self.evaluations.update()
        self.pane.alone = len(self.workflows) == 1
        self.pane.tell()
        self._say(" · ".join(one for one in (*self._unread, self.pane.data.problem) if one))
        return self._write_head()

    def choose(self, round: int) -> None:
        """Show a round everywhere."""
        self.pane.choose(round)

    def _shows(self) -> frozenset[Path]:
        return frozenset(one.folder for one in self.workflows) | self.evaluations.folders

    def _set_dark(self, dark: bool) -> None:
        self._dark = dark
        self.pane.set_dark(dark)

    # The loop

    @property
    def _revisions(self) -> tuple[int, ...]:
        return tuple(one.revision for one in self.workflows)

    def _look_for_more(self) -> bool:
        """Open what was asked for and is not open yet; True when something came."""
        self._unread, before = [], len(self.workflows)
        wanted, more = self._wanted, False
        if self._root is not None:
            more = self.evaluations.look_in(self._root)
            known = {one.folder for one in self.workflows}
            if not self._root.is_dir():
                self._unread.append(f"there is no folder {self._root} yet")
            found = sorted(self._root.glob("*/"))
            kinds = {folder: kind for folder in found if (kind := kind_of(folder))}
            sound = [kind for kind in kinds.values() if kind != DAMAGED]
            if not known and sound:
                # Of a folder with both the kind of the first is shown.
                self._kind = sound[0]
            if others := sum(kind != self._kind for kind in sound):
                self._unread.append(f"{others} of another strategy not shown")
            wanted = [one for one, kind in kinds.items()
                      if kind in (self._kind, DAMAGED) and one.resolve() not in known]  # fmt: skip
        left = []
        for place in wanted:
            try:
                self.workflows = [*self.workflows, FOLDERS[self._kind](place)]
            except (OSError, ValueError, MlipkitError) as error:
                # One that is broken does not hide the others, and is tried again.
                self._unread.append(problem_of(error))
                left.append(place)
        if self._root is None:
            self._wanted = left
        return more or len(self.workflows) > before

    def _open(self) -> None:
        self._known = self._revisions
        wanted = {"workflow": ArmsPane, "ipip": LoopPane}[self._kind]
        if not isinstance(self.pane, wanted):
            old = self.pane
            made = LoopPane(self._round_chosen) if wanted is LoopPane else None
            self.pane = made or ArmsPane(self._round_chosen, self.refresh, self._viewer)
            self.pane.set_dark(self._dark)
            self.pane_box.children = [self.pane]
            close_all(old)
        self.pane.watch(DATA[self._kind](self.workflows))
        show(self.pane, bool(self.workflows))
        there = bool(self.workflows or self.evaluations.runs)
        show(self.empty, not there)
        show(self.panel_buttons, there)

    def _write_head(self) -> str:
        states = [one.state for one in self.workflows] + self.evaluations.states
        state = next((one for one in ORDER if one in states), states[0] if states else "empty")
        head, arms = self.header, self.pane.data.arms
        head.state, head.title = state, "Strategy comparison" if states else "No workflow"
        n, m = len(self.workflows), len(self.evaluations.runs)
        told = [f"{len(arms)} arm{'s' * (len(arms) != 1)}, {n} {NOUNS[self._kind]}{'s' * (n != 1)}"] if n else []
        head.detail = ", ".join([*told, *([f"{m} evaluation{'s' * (m != 1)} of adaptation"] if m else [])])
        waits = [one for one in self.workflows if one.state != "completed"]
        head.sentence = waits[0].sentence if n == 1 and waits else self.evaluations.sentence or counted(states)
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
        except (OSError, ValueError, MlipkitError) as error:
            self._say(problem_of(error))
            return IDLE_S
        if self._hidden:
            return HIDDEN_S
        return LIVE_S * 2 if look(state).live else IDLE_S

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

    def _code(self) -> str:
        if self.evaluations.runs and not self.workflows:
            return self.evaluations.code()
        places = [short_place(one.folder) for one in self.workflows]
        unequal = ", unequal=True" if self._kind == "workflow" and self.pane.data.unequal() else ""
        module, compare = CODE[self._kind]
        return (
            f"from {module} import {compare}\n\n"
            f"found = {compare}({places!r}{unequal})\nprint(found.sentence)\nprint(found.table())\n\n"
            "# the same view, also from another notebook:\nfrom mlipkit_widgets import StrategyComparison\n"
            f"StrategyComparison({places!r})\n"
        )

    def _yaml(self) -> str:
        parts = [f"# {run.name}\n{run.yaml()}" for run in self.evaluations.runs]
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

    def _folder(self) -> str:
        every = [*self.evaluations.runs, *self.workflows]
        return "\n".join(f"{one.name}: {listing(one.folder)}" for one in every)
