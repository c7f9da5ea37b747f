"""What every view of something alive shares: a head, a loop that looks again and again, panels of code, one end."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Hashable
from html import escape
from pathlib import Path
from typing import ClassVar

import ipywidgets as w

from mlipkit.errors import MlipkitError
from mlipkit.runs.places import file_name, short_place

from . import exporting
from .header import Header
from .parts import ClosingBox, button, row, show
from .ticker import Ticker, on_loop


class LiveView(ClosingBox):
    """Base of views with a head and a loop. A subclass makes `header` by `_head`, its parts, and calls `_begin`.

    Subclasses have `_tick`, what to do in the loop and the seconds until the next time, and may have `_set_dark`,
    `_end`, `_shows`, and for panels `_code`, `_yaml` and `_folder`.
    """

    header: Header
    _closed = True
    """Until it is built: there is nothing to end when that fails."""
    _was_shown = False
    _views: ClassVar[weakref.WeakSet[LiveView]] = weakref.WeakSet()

    def _head(self, **values: object) -> Header:
        """A head that tells when the page shows this view, and its theme."""
        made = Header(**values)
        made.on_shown(self._appeared)
        made.observe(lambda change: on_loop(self._set_dark, bool(change["new"])), "dark")
        return made

    def _begin(self, *parts: w.Widget) -> None:
        """Put the parts together; from here on there is something to close."""
        super().__init__(list(parts))
        self.add_class("mlipkit-view")
        self._ticker = Ticker(self._tick)
        self._closed = False
        LiveView._views.add(self)

    def _first(self, begin: Callable[[], object]) -> None:
        """Open what the view was made for; where that fails nothing of the view stays."""
        try:
            begin()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the loop and remove the view with all its parts. Runs go on, and what lies on disk stays."""
        if not self._closed:
            LiveView._views.discard(self)
            self._ticker.stop()
        super().close()

    def export(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write what is on show as one HTML file that opens anywhere (see `mlipkit_widgets.export` for pictures).

        Args:
            path: ``exports/TITLE.html`` when omitted.
        """
        name = file_name(self._title, "view")
        return exporting.export(self, Path("exports") / f"{name}.html" if path is None else path)[0]

    # For subclasses

    def _export_button(self, say: Callable[[str], object]) -> w.Button:
        """A button that writes the file, and says where it is or what is wrong."""

        def write() -> None:
            try:
                say(f"Written: {short_place(self.export())}")
            except (MlipkitError, OSError) as error:
                say(str(error))

        return button("Export", write, tip="What is on show, as one HTML file for anybody")

    def _picture_button(self, say: Callable[[str], object]) -> w.Button:
        """A button that has the page write its figures."""

        def written(files: list[Path], silent: int) -> None:
            told = f"Written: {', '.join(short_place(file) for file in files)}" if files else ""
            missing = f"{silent} figure{'s' * (silent != 1)} could not be drawn: no page shows them" if silent else ""
            say("\n".join(filter(None, (told, missing))))

        def write() -> None:
            try:
                exporting.page_pictures(self, Path("exports") / file_name(self._title, "view"), written)
            except (MlipkitError, OSError) as error:
                say(str(error))

        return button("Pictures", write, tip="Each figure on show as SVG and PNG")

    @property
    def _title(self) -> str:
        """Name of what is written of this view."""
        return self.header.title

    def _tick(self) -> float | None:
        raise NotImplementedError

    def _set_dark(self, dark: bool) -> None:
        """Follow the theme of the page."""

    def _end(self) -> None:
        """Stop what the view has begun besides its loop."""

    def _shows(self) -> Hashable:
        """What is on show: views of one kind that show the same replace each other. None: nothing yet."""
        return None

    # Where it is

    @property
    def _hidden(self) -> bool:
        """On no page any more; one that was never shown does not count."""
        return self._was_shown and not self.header.showing

    def _appeared(self) -> None:
        self._was_shown = True
        self._wake()

    def _wake(self) -> None:
        """Look at once, and again and again from now on."""
        self._ticker.start()
        self._ticker.hurry()

    def _close_forgotten(self, keep: int = 0) -> None:
        """Close older views of the same that no page shows any more: their cell was run again."""
        mine = self._shows()
        same = [one for one in list(LiveView._views) if type(one) is type(self) and one is not self and one._hidden]
        forgotten = [one for one in same if mine is not None and one._shows() == mine]
        for view in forgotten[: max(0, len(forgotten) - keep)]:
            view.close()


class PanelView(LiveView):
    """A live view with a line for problems, and code, specification and folder on request."""

    def _make_panels(self, code: str, yaml: str, folder: str) -> None:
        """`problem`, `panel_buttons` and `panel`; the arguments are what the buttons say of themselves."""
        self.problem, self.panel = w.HTML(), w.HTML()
        self._panel_kind = ""
        self.panel_buttons = row(
            button("Code", lambda: self._toggle("code"), tip=code),
            button("YAML", lambda: self._toggle("yaml"), tip=yaml),
            button("Folder", lambda: self._toggle("folder"), tip=folder),
            self._export_button(self._put),
            self._picture_button(self._put),
        )
        show(self.problem, False)
        show(self.panel, False)

    def _say(self, problem: str) -> None:
        """Show what went wrong in one line, or nothing."""
        text = f'<div class="mk-verdict mk-wrong" role="alert">{escape(problem)}</div>' if problem else ""
        if self.problem.value != text:
            self.problem.value = text
            show(self.problem, bool(problem))

    def _put(self, text: str) -> None:
        """Put a line where code and folder stand."""
        self._panel_kind = ""
        self.panel.value = f'<pre class="mk-code">{escape(text)}</pre>'
        show(self.panel, True)

    def _toggle(self, kind: str) -> None:
        """Open a panel, or close it when it is open; "" closes all."""
        self._panel_kind = "" if kind == self._panel_kind else kind
        text = {"": str, "code": self._code, "yaml": self._yaml, "folder": self._folder}[self._panel_kind]()
        self.panel.value = f'<pre class="mk-code">{escape(text)}</pre>' if text else ""
        show(self.panel, bool(text))

    def _code(self) -> str:
        raise NotImplementedError

    def _yaml(self) -> str:
        raise NotImplementedError

    def _folder(self) -> str:
        raise NotImplementedError
