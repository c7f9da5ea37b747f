"""The runs of a folder as a list with parents above their children, one of which is open."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import traitlets as t

from .ticker import on_loop

STATIC = Path(__file__).parent / "static"


class RunTree(anywidget.AnyWidget):
    """One line per run; a click, or Enter on the line that the arrow keys lead to, opens it.

    Args:
        on_open: called with the name of the run.

    Attributes:
        lines: what the page draws, see `RunsData`.
        opened: name of the run that is open, "" for none.
    """

    _esm = STATIC / "run_tree.js"

    lines = t.List().tag(sync=True)
    opened = t.Unicode("").tag(sync=True)

    def __init__(self, on_open: Callable[[str], None]) -> None:
        super().__init__()
        self._on_open = on_open
        self.on_msg(self._message)

    def show(self, lines: list[dict[str, Any]], opened: str) -> None:
        """Draw these; nothing is sent when nothing has changed."""
        if lines != self.lines:
            self.lines = lines
        if opened != self.opened:
            self.opened = opened

    def still_html(self) -> str:
        """The list in a file."""
        rows = (
            f'<div style="margin-left:{16 * one["depth"]}px">{escape(one["icon"])} <b>{escape(one["name"])}</b> '
            f'{escape(one["text"])} <span class="mk-quiet">{escape(one["origin"])}</span></div>'
            for one in self.lines
        )
        return "".join(rows)

    def _message(self, _widget: object, content: dict, _buffers: object) -> None:
        if content.get("type") == "open":
            on_loop(self._on_open, str(content.get("name")))
