"""What all views of a run share: head, buttons, the loop that looks at the folder, code and folder panels.

A view only reads the run folder, and writes the user's wishes through `Run`. It can be closed, opened again in another
notebook, or lose its kernel at any time without harm to the run.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import ipywidgets as w

from mlipkit.errors import MlipkitError
from mlipkit.runs import Run
from mlipkit.runs.places import short_place

from .live_view import PanelView
from .parts import button, close_all, row, show
from .states import duration, look, sentence_case, state_of

LIVE_S, IDLE_S, HIDDEN_S = 0.2, 1.5, 5.0
"""Seconds between two looks at the folder: while news are expected, otherwise, and while no page shows the view."""
ASKED_S = 0.05
"""Seconds between two looks at the state alone, while the answer to a wish is waited for."""
MOST_HIDDEN = 3
"""Views of one run that no page shows any more (their cell was run again) before the oldest is closed."""


class RunView(PanelView):
    """Base of the views of one run.

    Args:
        run: a run, its folder, or None for an empty view.

    Subclasses fill `body`, and bring it up to date in `_update`.
    """

    EMPTY = "Nothing is open yet."
    REVIEWS = True
    """Whether candidate frames that wait are opened by a button; views that show them by themselves have none."""

    def __init__(self, run: Run | str | os.PathLike[str] | None = None) -> None:
        # What cannot be shown is refused before anything is made.
        opened = self._opened(run)
        self.run: Run | None = None
        self.header = self._head()
        self.pause_button = button("‖ Pause", lambda: self._ask("pause"), tip="Pause; the process keeps its memory")
        self.resume_button = button("▶ Resume", lambda: self._ask("resume"), tip="Go on from the same step")
        self.stop_button = button("■ Stop", lambda: self._ask("stop"), tip="End after this step, with a checkpoint")
        self.review_button = button("◆ Review frames", self._review, kind="warning", hidden=True,
                                    tip="Look at the frames that wait to be labelled")  # fmt: skip
        self.toolbar = row(self.pause_button, self.resume_button, self.stop_button, self.review_button)
        self.review_box, self.body = w.VBox(), w.VBox()
        self._make_panels("Python that does the same", "The specification of this run", "Where the run is kept")
        self._asked = self._state = ""
        self._due = 0.0
        self._begin(self.header, self.toolbar, self.problem, self.review_box, self.body, self.panel_buttons, self.panel)
        self._build()
        self._first(lambda: self.watch(opened))

    # For users

    def watch(self, run: Run | str | os.PathLike[str] | None) -> None:
        """Show another run, with all that its folder already holds.

        Raises:
            RunError: the folder holds no run.
        """
        self.run = self._opened(run)
        self._asked, self._state = "", ""
        for child in self.review_box.children:
            close_all(child)
        self.review_box.children = []
        self._say("")
        self._toggle("")
        self._reset()
        self.refresh()
        self._close_forgotten(keep=MOST_HIDDEN)
        self._wake()

    def refresh(self) -> str:
        """Look at the folder once, now; the run's state. The view does this by itself in a kernel."""
        if self.run is None:
            self._show_state("empty")
            self.header.title, self.header.detail, self.header.age, self.header.done = "", "", -1.0, -1.0
            self.header.sentence = ""
            return "empty"
        state = state_of(self.run)
        self._show_state(state)
        self._update(self.run, state)
        self._write_head(self.run, state)
        self.header.beat += 1
        return state

    # For subclasses

    def _opened(self, run: Run | str | os.PathLike[str] | None) -> Run | None:
        """The run of a folder; a run that this view cannot show is refused here."""
        return run if isinstance(run, Run) or run is None else Run(run)

    def _build(self) -> None:
        """Make the widgets of `body` once."""

    def _reset(self) -> None:
        """Forget the run that was shown before."""

    def _update(self, run: Run, state: str) -> None:
        """Bring `body` up to the run's files."""

    def _progress(self, run: Run) -> str:
        """Words on how far the run is."""
        progress = run.progress
        if progress is None:
            return ""
        text = f"{progress.unit} {progress.done}" + (f" of {progress.total}" if progress.total else "")
        if progress.remaining_s is not None and self._state == "running":
            text += f" · {duration(progress.remaining_s)} left"
        return text

    def _sentence(self, run: Run, state: str) -> str:
        """One sentence below the head."""
        if state == "waiting":
            return f"{sentence_case(run.reason)}. Starts by itself when that run is done."
        return look(state).sentence if state == "lost" else sentence_case(run.reason) or look(state).sentence

    # The loop

    def _tick(self) -> float | None:
        if self._closed:
            return None
        now = time.monotonic()
        if self._asked and self.run is not None and now < self._due and state_of(self.run) == self._state:
            return ASKED_S
        state = self.refresh()
        self._due = time.monotonic() + LIVE_S
        if self._hidden:
            return HIDDEN_S
        return ASKED_S if self._asked else LIVE_S if look(state).live else IDLE_S

    def _write_head(self, run: Run, state: str) -> None:
        header, age = self.header, run.heartbeat_age
        header.title = run.name
        header.detail = self._progress(run)
        expected = look(state).live or state == "paused"
        header.age = round(age, 1) if age is not None and expected else -1.0
        header.live = look(state).live
        progress = run.progress
        share = progress.done / progress.total if progress is not None and progress.total else -1.0
        header.done = round(1.0 if state == "completed" else share, 4)
        header.sentence = f"{self._asked} …" if self._asked else self._sentence(run, state)

    def _show_state(self, state: str) -> None:
        if state == self._state:
            return
        self._state, self._asked = state, ""
        self.header.state = state
        show(self.toolbar, state != "empty")
        show(self.panel_buttons, state != "empty")
        show(self.pause_button, state == "running")
        self._show_review(state)
        show(self.resume_button, state in ("paused", "stopped", "crashed", "lost"))
        show(self.stop_button, state in ("waiting", "queued", "running", "paused"))
        self.resume_button.button_style = "primary" if state in ("paused", "crashed", "lost") else ""
        for made in (self.pause_button, self.resume_button, self.stop_button):
            made.disabled = False

    # Candidate frames that wait for the user

    def _show_review(self, state: str) -> None:
        show(self.review_button, state == "review" and self.REVIEWS)
        if state != "review" and self.review_box.children:
            self.review_box.children[0].refresh_all()  # type: ignore[attr-defined]

    def _review(self) -> None:
        """Open the candidate frames of this run, or close them."""
        from .review_pane import ReviewPane
        from .workflow_folder import WorkflowFolder

        if self.review_box.children:
            for child in self.review_box.children:
                close_all(child)
            self.review_box.children = []
        elif self.run is not None:
            pane = ReviewPane(WorkflowFolder(self.run), self._ticker.hurry)
            pane.set_dark(self.header.dark)
            self.review_box.children = [pane]

    # Wishes

    def _ask(self, wish: str) -> None:
        if self.run is None:
            return
        words = {"pause": ("Pausing", self.pause_button), "stop": ("Stopping", self.stop_button)}
        self._asked, pressed = words.get(wish, ("Going on", self.resume_button))
        pressed.disabled = True
        self.header.sentence = f"{self._asked} …"
        self._say("")
        try:
            getattr(self.run, wish)()
        except MlipkitError as error:
            self._asked = ""
            pressed.disabled = False
            self._say(str(error))
        self._ticker.hurry()

    def _code(self) -> str:
        assert self.run is not None
        name = type(self).__name__
        place = short_place(self.run.folder)
        return (
            f"{self.run.code()}\n# the same view, also from another notebook:\n"
            f"from mlipkit_widgets import {name}\n{name}({place!r})\n"
        )

    def _yaml(self) -> str:
        return self.run.yaml() if self.run is not None else ""

    def _folder(self) -> str:
        return listing(self.run.folder) if self.run is not None else ""

    def _shows(self) -> Run | None:
        return self.run


def listing(folder: Path) -> str:
    """The folder and what lies in it."""
    if not folder.is_dir():
        return f"{folder}\n  (no longer exists)"
    files = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    return f"{folder}\n  " + "  ".join(name for name in files if not name.startswith("."))
