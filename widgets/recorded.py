"""Recorded: a run that comes with a notebook, on screen at once, and a button that computes the same here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape

import ipywidgets as w

from mlipkit.errors import MlipkitError
from mlipkit.runs import Run
from mlipkit.runs.shipped import exhibit, kept_every, recorded_on, run_here, run_of_recording

from .base import RunView
from .exhibits import view_of
from .header import Header
from .launcher import VIEWS
from .live_view import LiveView
from .parts import ClosingBox, button, row, show
from .ticker import in_background

TOLD = "It came with the notebook and nothing is computed."
HERE = "Run here computes the same on this machine."
FIRST = "Run here starts the first simulation on this machine; NEXT leads on from there."


class Recorded(ClosingBox):
    """What was recorded for a notebook, under the day; "Run here" replaces it by runs of one's own.

    Args:
        name: one of `mlipkit.runs.recordings()`: ``"00_start_here/ethanol_1000_900K"``, in the view of its kind. Or a
            notebook (`mlipkit.runs.exhibits()`): ``"04_naive_vs_iterative"``, all that it shows together.
        root: folder in which runs are kept.

    Attributes:
        recording: the recorded run; of several the first.
        run: the run on show: the recording, or the one that was run here; of several the first.
        view: its view, such as MDView, ShiftExplorer, StrategyComparison or Workbench.
    """

    _closed = True
    """Until it is built: there is nothing to end when that fails."""

    def __init__(self, name: str, root: str | os.PathLike[str] = "runs") -> None:
        self.exhibit, self.root = exhibit(name), root
        self.recording = self.exhibit.first[0]
        self._busy = False
        self.header, self.problem = Header(), w.HTML()
        self.here_button = button("▶ Run here", self.run_here, kind="primary",
                                  tip="Launch the same specification on this machine and show that run")  # fmt: skip
        self.back_button = button("Show the recording", self.show_recording, tip="Your run goes on", hidden=True)
        self._views: dict[bool, LiveView] = {}
        self.run: Run
        self.view: LiveView
        self._head = [self.header, row(self.here_button, self.back_button), self.problem]
        super().__init__(self._head)
        self._closed = False
        self.add_class("mlipkit-view")
        self._say("")
        here = [run_of_recording(run, root) for run in self.exhibit.first]
        self._watch([run for run in here if run is not None] if all(here) else [])

    def run_here(self) -> None:
        """Launch the recorded specification, what it reads before it, and show that run; or open what was launched."""
        if self._busy or self._closed:
            return
        self._busy = self.here_button.disabled = True
        self.header.sentence = "Starting …"
        self._say("")

        def started(runs: object, error: BaseException | None) -> None:
            self._busy = self.here_button.disabled = False
            if isinstance(runs, list):
                self._watch(runs)
                return
            self._tell()
            self._say(str(error))
            if not isinstance(error, MlipkitError) and error is not None:
                raise error

        in_background(lambda: [run_here(run, self.root) for run in self.exhibit.first], started)

    def show_recording(self) -> None:
        """Show the recording again; a run that was started goes on."""
        self._watch([])

    def _end(self) -> None:
        for view in self._views.values():
            view.close()

    def _watch(self, own: Sequence[Run]) -> None:
        """Show runs of one's own, or without any the recordings."""
        if self._closed:
            return
        self.run = own[0] if own else self.recording
        if self.exhibit.view == "run":
            self._watch_one()
        else:
            # Views stay and are hidden: parts of one that is being removed from a page must not change any more.
            if bool(own) not in self._views:
                self._views[bool(own)] = view_of(self.exhibit, own, self.root)
            for key, view in self._views.items():
                show(view, key == bool(own))
            self.view = self._views[bool(own)]
        self.children = [*self._head, *self._views.values()]
        self._tell()

    def _watch_one(self) -> None:
        if not self._views:
            self._views[False] = self.view = VIEWS[self.run.kind](self.run)
            return
        assert isinstance(self.view, RunView)
        self.view.watch(self.run)

    def _tell(self) -> None:
        day, header, every = recorded_on(self.run), self.header, kept_every(self.run)
        header.word = header.icon = ""
        header.title = f"Recorded on {day}" if day else "Run here"
        thinned = f"Of frames and curves one point in {every} is kept." if every > 1 else ""
        parts = [TOLD, thinned, FIRST if self.exhibit.view == "workbench" else HERE]
        header.sentence = " ".join(filter(None, parts)) if day else "The same specification, computed on this machine."
        show(self.here_button, bool(day))
        show(self.back_button, not day)

    def _say(self, problem: str) -> None:
        self.problem.value = f'<div class="mk-verdict mk-wrong" role="alert">{escape(problem)}</div>' if problem else ""
        show(self.problem, bool(problem))
