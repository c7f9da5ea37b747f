"""What opens above the run of a Workbench: a form for a new run, and which strategies fit the run that is open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as w

from mlipkit.runs import Run
from mlipkit.runs.spec import AnySpec

from .applies_panel import AppliesPanel, fields_of, question_of
from .launcher import Launcher
from .parts import button, close_all, row


class FormsPane(w.VBox):
    """Empty until something is asked for.

    Args:
        root: folder in which runs are kept.
        on_start: called with a run that was started from a form.
        on_change: called when something was opened or closed.

    Attributes:
        launcher, applies: the form and the answers on show, or None.
    """

    def __init__(self, root: Path, on_start: Callable[[Run], None], on_change: Callable[[], None]) -> None:
        self.root, self._on_start, self._on_change = root, on_start, on_change
        self.launcher: Launcher | None = None
        self.applies: AppliesPanel | None = None
        super().__init__()

    @property
    def is_open(self) -> bool:
        """Something is on show."""
        return self.launcher is not None or self.applies is not None

    def toggle_launcher(self) -> None:
        """Open an empty form, or close the form."""
        if self.launcher is not None:
            self.shut()
            return
        self.shut()
        self.launcher = Launcher("md", self.root)
        self._show("✖ Close the form")

    def toggle_answers(self, run: Run | None) -> None:
        """Ask which strategies fit a run; again: close the answers."""
        asked = question_of(run) if run is not None else None
        if self.applies is not None or asked is None:
            self.shut()
            return
        self.shut()
        self.applies = AppliesPanel(*asked, root=self.root)
        self.applies.on_open(self._fill)
        self._show("✖ Close the answers")

    def shut(self) -> None:
        """Close what is on show. Runs go on."""
        parts, self.children = self.children, []
        self.launcher = self.applies = None
        for part in parts:
            part.close() if isinstance(part, (Launcher, AppliesPanel)) else close_all(part)
        self._on_change()

    def _fill(self, spec: AnySpec) -> None:
        """The form of a strategy that was chosen, above the answers."""
        if self.launcher is not None:
            self.launcher.close()
        self.launcher = Launcher(spec.kind, self.root, **fields_of(spec))
        self._show("")

    def _show(self, words: str) -> None:
        if self.launcher is not None:
            self.launcher.on_start(self._on_start)
        kept = [row(button(words, self.shut))] if words else [tuple(self.children)[-1]]
        self.children = [part for part in (self.launcher, self.applies) if part is not None] + kept
        self._on_change()
