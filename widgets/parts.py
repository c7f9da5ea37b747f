"""Small things that every part of a view is made of: buttons, rows, showing and hiding, closing."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w

from .ticker import on_loop


def button(text: str, action: Callable[[], object], *, tip: str = "", kind: str = "", hidden: bool = False) -> w.Button:
    """A button that runs `action` on the kernel's loop. `kind`: "", "primary", "danger"."""
    made = w.Button(description=text, tooltip=tip or text, button_style=kind)
    made.on_click(lambda _button: on_loop(action))
    show(made, not hidden)
    return made


def show(widget: w.DOMWidget, visible: bool) -> None:
    """Show or hide a widget; a hidden one takes no room."""
    widget.layout.display = None if visible else "none"


def row(*widgets: w.Widget, kind: str = "mlipkit-row") -> w.Box:
    """Widgets side by side that wrap into further lines when the page is narrow."""
    box = w.Box(list(widgets))
    box.add_class(kind)
    return box


def close_all(widget: w.Widget) -> None:
    """Close a widget and everything inside it."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    layout, style = getattr(widget, "layout", None), getattr(widget, "style", None)
    widget.close()
    for part in (layout, style):
        if isinstance(part, w.Widget):
            part.close()


class ClosingBox(w.VBox):
    """A box that is closed once, with all its parts; subclasses have `_end`, what to stop before."""

    _closed = False

    def close(self) -> None:
        """Remove the box with all its parts. Runs go on, and what lies on disk stays."""
        if self._closed:
            return
        self._closed = True
        self._end()
        layout = self.layout
        for child in self.children:
            close_all(child)
        super().close()
        layout.close()

    def _end(self) -> None:
        """Stop what was begun."""
