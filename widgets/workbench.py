"""Workbench: the runs of a folder, the one that is open, its map, the tray, and the one obvious next step.

It only reads run folders and launches; what can be clicked here can be typed as well (`mlipkit.runs`: `next_step`,
`before_failure`, `label_step`, `train_step`, `simulate_step`, `survival_change`). Both see the same folders.
"""

from __future__ import annotations

import os
from pathlib import Path

import ipywidgets as w

from mlipkit.data import FrameSet, Selection, Tray
from mlipkit.errors import MlipkitError
from mlipkit.runs import Run, SurvivalChange, next_step
from mlipkit.runs.failure_frames import stored_frames
from mlipkit.runs.places import short_place

from .applies_panel import question_of
from .base import HIDDEN_S, IDLE_S, LIVE_S, RunView
from .begin_pane import BeginPane
from .compare_pane import ComparePane
from .forms_pane import FormsPane
from .launcher import VIEWS, Launcher
from .live_view import LiveView
from .map_pane import MapPane
from .md_view import FS_PER_PS, MDView
from .next_actions import NextActions
from .next_bar import NextBar
from .next_code import code_of
from .parts import button, close_all, row, show
from .runs_data import RunsData
from .runs_pane import RunsPane, root_of
from .states import look
from .tray_strip import TrayStrip
from .workbench_memory import Memory

GONE = "run this cell again. Runs continue, and what was open, viewed and selected is restored."


class Workbench(LiveView):
    """One place for the whole loop: simulate, see the failure, select, label, train on, simulate again.

    Args:
        root: folder in which runs are kept.
        viewer: "auto", "nglview", or "still" for pictures without WebGL.
        tray: folder of the selection.
        read_only: only look at runs and compare them: nothing is launched, picked, thrown away or remembered.

    Attributes:
        run: the run that is open, or None.
        view: its view (MDView, TrainingMonitor, LabelView, WorkflowView), or None.
        step: the step on the NEXT button.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "runs",
        viewer: str = "auto",
        tray: str | os.PathLike[str] = "selections/tray",
        read_only: bool = False,
    ) -> None:
        self.root = root_of(os.fspath(root))
        self.viewer, self.read_only = viewer, read_only
        self.data, self.memory = RunsData(self.root), Memory(self.root, kept=not read_only)
        self.run: Run | None = None
        self.view: RunView | None = None
        self._made: dict[type[RunView], RunView] = {}
        self._key: object = None
        self._linking = False
        self.header = self._head(gone=GONE)
        self.next = NextBar(lambda: self.actions.act(), self._toggle_begin, self._panel, lambda: self._choice())
        self.actions = NextActions(self)
        self.forms = FormsPane(
            self.root, self.watch, lambda: show(self.empty, self.run is None and not self.forms.is_open)
        )
        self.runs_pane = RunsPane(self.data, self.watch, self.forms.toggle_launcher, self._set_beside, self.next.say)
        self.map = MapPane(self._map_picked, self._encircled, read_only)
        self.comparison = ComparePane()
        self.begin = BeginPane(self._train_first)
        show(self.begin, False)
        self.empty = w.HTML(
            '<div class="mk-empty">No run is open. NEXT below begins with a sample or with data of your own; '
            "+\u00a0New\u00a0run has a form for everything else.</div>"
        )
        self.head, self.view_box = w.VBox(), w.VBox()
        self.middle = w.VBox([self.comparison, self.forms, self.empty, self.view_box])
        self.middle.add_class("mlipkit-pane-opened")
        self.tray = TrayStrip(Tray(tray), self._selection_changed, self._thumbnail_picked, self.next.say)
        self._begin(
            self.header, self.head, row(self.runs_pane, self.middle, kind="mlipkit-bench"), self.tray, self.begin,
            self.actions.own.pane, self.next,
        )  # fmt: skip
        self.help_button = button(
            "What could help?",
            lambda: self.forms.toggle_answers(self.run),
            hidden=True,
            tip="Which strategies fit the open run, what they need, and what they would cost",
        )
        buttons = self.help_button, self._export_button(self.next.put), self._picture_button(self.next.put)
        self.next.main.children = (*self.next.main.children, *buttons)
        for part in (self.tray, self.next.main, self.next.why, self.runs_pane.new_button, self.runs_pane.actions):
            show(part, not read_only)
        self.add_class("mlipkit-workbench")
        self._close_forgotten()
        self.data.refresh()
        runs = self.data.runs
        self.watch(self.data.run(self.memory.opened) or (runs[-1] if runs else None))
        self._ticker.start()

    # For users

    @property
    def step(self):
        """The one obvious next step."""
        return self.actions.step

    @property
    def launcher(self) -> Launcher | None:
        """The form on show, or None."""
        return self.forms.launcher

    @property
    def selection(self) -> Selection:
        """What lies in the tray."""
        return self.tray.selection

    def watch(self, run: Run | str | os.PathLike[str] | None) -> None:
        """Show a run, with all that its folder already holds.

        Raises:
            RunError: the folder holds no run.
        """
        run = run if isinstance(run, Run) or run is None else Run(run)
        self.data.refresh()
        run = self.data.run(run.folder) or run if run is not None else None
        self.forms.shut()
        if run != self.run or (run is not None and self.view is None):
            self._show_run(run)
        self.memory.open(run)
        self.refresh()

    def act(self) -> None:
        """Do the step that stands on the NEXT button."""
        self.actions.act()

    def go_to_failure(self, run: Run) -> None:
        """Show where a simulation failed, and remember that it was looked at."""
        self.watch(run)
        if isinstance(self.view, MDView):
            self.view.refresh()
            self.view.go_to_failure()
            self.memory.see(run)
            self.refresh()

    def show_change(self, before: Run, after: Run, change: SurvivalChange) -> None:
        """Show survival before and after, and remember that it was seen."""
        self.comparison.show_change(before, after, change)
        self.memory.compare(after)
        self.refresh()

    def refresh(self) -> bool:
        """Look at the folder once, now; True while news are expected. In a kernel this goes on by itself."""
        self.data.refresh()
        self.tray.refresh()
        if self.run is not None and self.data.run(self.run.folder) is not self.run:
            # It was deleted, or is another one by now.
            self._show_run(self.data.run(self.run.folder))
            self.memory.open(self.run)
        self.runs_pane.update(self.run)
        self._next()
        self.map.refresh()
        self._link()
        self._write_head()
        return self.data.live or self.map.live or bool(self.next.busy)

    @property
    def closed(self) -> bool:
        """Nothing happens here any more."""
        return self._closed

    # The loop

    def _tick(self) -> float | None:
        if self._closed:
            return None
        live = self.refresh()
        return HIDDEN_S if self._hidden else 2 * LIVE_S if live else IDLE_S

    def _shows(self) -> Path:
        return self.root

    def _end(self) -> None:
        self.actions.close()
        self.forms.shut()
        self.map.close()
        self.begin.close()
        for view in self._made.values():
            close_all(view.panel_buttons)
            close_all(view.panel)
            view.close()

    @property
    def _title(self) -> str:
        return f"workbench_{self.run.name}" if self.run is not None else "workbench"

    def _write_head(self) -> None:
        asked = self.run is not None and question_of(self.run) is not None
        show(self.help_button, asked and look(self.data.states.get(self.run.folder, "")).final)  # type: ignore[union-attr]
        self.header.beat += 1
        show(self.header, self.run is None)
        if self.run is None:
            self.header.title, self.header.detail = "Workbench", short_place(self.root)
            self.header.live = False

    def _next(self) -> None:
        """Find the next step when anything has changed that it depends on."""
        if self.read_only:
            return
        memory = self.memory
        jobs = memory.jobs
        stamps = tuple(one.stamp for one in jobs)
        key = (self.data.revision, self.tray.selection, memory.seen, memory.compared, stamps)
        if key != self._key:
            self._key = key
            try:
                step = next_step(self.data.runs, self.tray.selection, memory.seen, memory.compared, jobs)
            except (MlipkitError, OSError) as error:
                self._key = None
                self.next.say(str(error))
                return
            if step.action != "begin":
                show(self.begin, False)
            self.actions.show(step)
        elif self.actions.step.action == "watch":
            self.actions.draw()

    # What is open

    def _show_run(self, run: Run | None) -> None:
        """Show a run in the view of its kind. Views stay and are hidden: parts of one that is being removed from a
        page must not change any more, and the map stands inside one."""
        cls = VIEWS.get(run.kind, RunView) if run is not None else None
        self.run = run
        if self.view is not None and cls is not type(self.view):
            self.view.watch(None)
            self.map.watch(None)
            self.view = None
        if run is not None and cls is not None:
            if cls in self._made:
                self.view = self._made[cls]
                self.view.watch(run)
            else:
                self.view = MDView(run, self.viewer) if cls is MDView else cls(run)
                self._made[cls] = self.view
                self._adopt(self.view)
        for view in self._made.values():
            show(view, view is self.view)
            show(view.header, view is self.view)
        show(self.empty, run is None and not self.forms.is_open)
        self._link()

    def _adopt(self, view: RunView) -> None:
        """Head and buttons of the view go over the whole width; code and folder are opened from the NEXT bar."""
        view.children = [view.problem, view.review_box, view.body]
        if isinstance(view, MDView):
            view.beside(self.map)
            view.picture.on_atom = self._atom_picked
            if not self.read_only:
                view.bar.offer("+ Tray", self._keep_frame, "Put the frame on show into the tray")
            view.observe(lambda _change: self._link(), ["frame", "replica", "marked"])
        self.head.children = [*self.head.children, view.header, view.toolbar]
        self.view_box.children = [*self.view_box.children, view]

    # One frame and one selection for all

    def _link(self) -> None:
        """Tell the map where the reader is."""
        view = self.view
        if self._linking or not isinstance(view, MDView):
            return
        self.map.watch(self.run, view.replica)
        atom = int(view.marked[0]) if len(view.marked) == 1 else -1
        self.map.point_at(view.frame, atom, view._following and self.data.live)

    def _map_picked(self, frame: int, atom: int) -> None:
        view = self.view
        if not isinstance(view, MDView):
            return
        self._linking = True
        try:
            view.marked = (atom,)
            view.go(frame)
            if view.picture._shown is not None:
                view.picture.describe(atom)
        finally:
            self._linking = False
        self._link()

    def _keep_frame(self) -> None:
        view, run = self.view, self.run
        if not isinstance(view, MDView) or run is None or view.atoms is None:
            return
        self.next.say("")
        try:
            frames = stored_frames(run, run.replica_folder(view.replica), [view.frame])
        except (MlipkitError, OSError) as error:
            self.next.say(str(error))
            return
        criterion = {"kind": "one frame", "run": str(run.folder), "replica": view.replica, "frame": view.frame}
        self.tray.add(frames, Selection.of(frames, criterion=criterion, sentence=f"frames of {run.name}, one by one"))

    def _atom_picked(self, atom: int) -> None:
        if isinstance(self.view, MDView):
            self.view.marked = (atom,)

    def _encircled(self, frames: FrameSet, selection: Selection) -> None:
        if self.read_only:
            self.next.say("Frames cannot be selected in a recording: use Run here to make runs of your own.")
            return
        self.tray.add(frames, selection)

    def _thumbnail_picked(self, name: str, replica: int, time: float) -> None:
        run = self.data.named(name)
        if run is None:
            self.next.say(f"{name} is not in this folder any more; its frames are kept")
            return
        self.watch(run)
        view = self.view
        if isinstance(view, MDView):
            view.replica = replica
            view.refresh()
            view._curve_clicked(time / FS_PER_PS)

    def _selection_changed(self, selection: Selection) -> None:
        self.map.choose(selection)
        if not self._closed:
            self._next()

    # Other things that can be done

    def _choice(self) -> None:
        self.actions.choice_changed()

    def _set_beside(self, before: Run, after: Run) -> None:
        if not self.next.busy:
            self.next.say("")
            self.actions.compare(before, after)

    def _toggle_begin(self) -> None:
        show(self.begin, self.begin.layout.display == "none")

    def _train_first(self, spec) -> None:
        show(self.begin, False)
        self.actions.launch(spec)

    def _panel(self, kind: str) -> str:
        if kind == "folder":
            return self.view._folder() if self.view is not None and self.run is not None else str(self.root)
        if kind == "yaml":
            spec = self.actions.spec
            return spec.to_yaml() if spec is not None else self.run.yaml() if self.run is not None else ""
        return code_of(self)
