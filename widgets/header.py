"""The head of every view: state, title, progress and the age of the last sign of life."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets as t

from .states import look

STATIC = Path(__file__).parent / "static"


class Header(anywidget.AnyWidget):
    """State chip, title, detail, progress bar, one sentence, and a warning that also speaks when the kernel cannot.

    Attributes:
        state: a key of `states.LOOKS`; sets icon, word, colour and whether news are expected.
        age: seconds since the worker's last sign of life; negative when that has no meaning. The page counts on.
        done: share of the work, 0 to 1; negative hides the bar.
        beat: number that changes with every round of the view's loop; the page measures its silence.
        gone: what to do when the kernel is gone, after "The kernel was restarted or is gone:".
        dark: theme of the page, reported by it.
        showing: number of places on pages where this view is shown.
    """

    _esm = STATIC / "header.js"
    _css = STATIC / "view.css"

    state = t.Unicode("empty")
    icon = t.Unicode().tag(sync=True)
    word = t.Unicode().tag(sync=True)
    tone = t.Unicode().tag(sync=True)
    title = t.Unicode().tag(sync=True)
    detail = t.Unicode().tag(sync=True)
    sentence = t.Unicode().tag(sync=True)
    done = t.Float(-1.0).tag(sync=True)
    age = t.Float(-1.0).tag(sync=True)
    live = t.Bool(False).tag(sync=True)
    beat = t.Int(0).tag(sync=True)
    gone = t.Unicode("run this cell again to reconnect. The run itself continues.").tag(sync=True)
    dark = t.Bool(False).tag(sync=True)
    showing = t.Int(0)

    def __init__(self, **values: object) -> None:
        super().__init__(**values)
        self._shown: set[str] = set()
        self._on_shown: Callable[[], None] | None = None
        self._restyle()
        self.on_msg(self._message)

    def on_shown(self, callback: Callable[[], None]) -> None:
        """Call back whenever the view appears on a page."""
        self._on_shown = callback

    @t.observe("state")
    def _restyle(self, _change: object = None) -> None:
        style = look(self.state)
        self.icon, self.word, self.tone, self.live = style.icon, style.word, style.tone, style.live

    def _message(self, _widget: object, content: dict, _buffers: object) -> None:
        name = str(content.get("id"))
        if content.get("type") == "shown":
            self._shown.add(name)
        elif content.get("type") == "hidden":
            self._shown.discard(name)
        else:
            return
        self.showing = len(self._shown)
        if content["type"] == "shown" and self._on_shown is not None:
            self._on_shown()
