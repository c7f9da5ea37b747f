"""Recorded: a run that comes with a notebook, on screen at once, and a button that computes the same here."""

from __future__ import annotations

import os
from html import escape

import ipywidgets as w

from mlipkit.errors import MlipkitError
from mlipkit.runs import Run
from mlipkit.runs.shipped import recorded_on, recording, run_here, run_of_recording

from .base import RunView
from .header import Header
from .launcher import VIEWS
from .parts import ClosingBox, button, row, show
from .ticker import in_background

TOLD = "It came with the notebook and nothing is computed. Run here computes the same on this machine."


class Recorded(ClosingBox):
    """The view of a recorded run, under the day on which it was recorded; "Run here" replaces it by a run of one's own.

    Args:
        name: one of `mlipkit.runs.recordings()`: ``"00_start_here/ethanol_1000_900K"``.
        root: folder in which runs are kept.

    Attributes:
        recording: the recorded run.
        run: the run on show: the recording, or the one that was run here.
        view: its view, such as MDView.
    """

    def __init__(self, name: str, root: str | os.PathLike[str] = "runs") -> None:
        self.recording, self.root = recording(name), root
        self._busy = False
        self.header, self.problem = Header(), w.HTML()
        self.here_button = button("▶ Run here", self.run_here, kind="primary",
                                  tip="Launch the same specification on this machine and show that run")  # fmt: skip
        self.back_button = button("Show the recording", self.show_recording, tip="Your run goes on", hidden=True)
        self.run: Run = run_of_recording(self.recording, root) or self.recording
        self.view: RunView = VIEWS[self.run.kind](self.run)
        super().__init__([self.header, row(self.here_button, self.back_button), self.problem, self.view])
        self.add_class("mlipkit-view")
        self._say("")
        self._tell()

    def run_here(self) -> None:
        """Launch the recorded specification, what it reads before it, and show that run; or open what was launched."""
        if self._busy or self._closed:
            return
        self._busy = self.here_button.disabled = True
        self.header.sentence = "Starting …"
        self._say("")

        def started(run: object, error: BaseException | None) -> None:
            self._busy = self.here_button.disabled = False
            if isinstance(run, Run):
                self._watch(run)
                return
            self._tell()
            self._say(str(error))
            if not isinstance(error, MlipkitError) and error is not None:
                raise error

        in_background(lambda: run_here(self.recording, self.root), started)

    def show_recording(self) -> None:
        """Show the recording again; a run that was started goes on."""
        self._watch(self.recording)

    def _end(self) -> None:
        self.view.close()

    def _watch(self, run: Run) -> None:
        if self._closed:
            return
        self.run = run
        self.view.watch(run)
        self._tell()

    def _tell(self) -> None:
        day, header = recorded_on(self.run), self.header
        header.word = header.icon = ""
        header.title = f"Recorded on {day}" if day else "Run here"
        header.sentence = TOLD if day else "The same specification, computed on this machine."
        show(self.here_button, bool(day))
        show(self.back_button, not day)

    def _say(self, problem: str) -> None:
        self.problem.value = f'<div class="mk-verdict mk-wrong" role="alert">{escape(problem)}</div>' if problem else ""
        show(self.problem, bool(problem))
