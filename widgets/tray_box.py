"""What every view of a tray has: the selection on disk, whoever changed it."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w

from mlipkit.data import Selection, Tray

MOST_PICTURES = 12


class TrayBox(w.VBox):
    """Base of the views of a tray; a subclass has `_show`, and calls `refresh(force=True)` when it is built.

    Args:
        tray: where the selection is kept.
        on_change: called with the selection when it has changed, here or by another view.
        parts: what is in the box.
    """

    def __init__(self, tray: Tray, on_change: Callable[[Selection], None], *parts: w.Widget) -> None:
        self.tray, self._on_change = tray, on_change
        super().__init__(list(parts))
        self.add_class("mlipkit-tray")

    @property
    def selection(self) -> Selection:
        """What is selected at present."""
        return self.tray.selection

    def refresh(self, force: bool = False) -> bool:
        """Show what is on disk; True when another view had changed it."""
        changed = self.tray.refresh()
        if changed or force:
            self._show()
            self._on_change(self.selection)
        return changed

    def _show(self) -> None:
        """Draw the selection."""
        raise NotImplementedError
