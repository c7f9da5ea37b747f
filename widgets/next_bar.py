"""The NEXT bar: one button with the one obvious step, why it is that one, and the step as code, YAML and folder."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets as w

from mlipkit.runs import NextStep

from .parts import button, row, show
from .tray_actions import MAKERS

LIVE = ("watch",)
PANELS = {"code": "Python that does the same", "yaml": "The specification of this step or of the open run",
          "folder": "Where the open run is kept"}  # fmt: skip


class NextBar(w.VBox):
    """Shows a step and asks for it to be done.

    Args:
        act: called when the step shall be done.
        other: called when "Open my data" was pressed.
        panel: kind of panel ("code", "yaml", "folder") -> its text.
        on_choice: called when label maker, own DFT or number of frames were changed.

    Attributes:
        maker: the choice of a label maker; shown with the step that needs one.
        most: how many frames are selected at most; shown with the step that selects.
        own: whether the user computes the labels; shown with the step that labels.
    """

    def __init__(
        self,
        act: Callable[[], object],
        other: Callable[[], object],
        panel: Callable[[str], str],
        on_choice: Callable[[], object],
    ) -> None:
        self._panel_text, self._panel_kind, self._told = panel, "", ""
        self._busy, self._step = "", None
        self.label = w.HTML("<b>NEXT</b>")
        self.button = button("", act, kind="primary")
        self.data_button = button("Open my data", other, tip="Train a first potential on data of your own", hidden=True)
        self.maker = w.Combobox(options=list(MAKERS), value=MAKERS[0], ensure_option=False, description="label with")
        self.maker.layout.width, self.maker.tooltip = "270px", "Any label maker; the one of the training frames is best"
        self.own = w.ToggleButton(
            description="My own DFT", tooltip="Label by your own VASP or CP2K: inputs out, labels in"
        )
        self.most = w.BoundedIntText(value=10, min=1, max=1000, description="at most", layout={"width": "160px"})
        self.most.tooltip = "So many frames at most"
        self.why, self.problem, self.panel = w.HTML(), w.HTML(), w.HTML()
        self.panels = [
            button(kind.upper() if kind == "yaml" else kind.capitalize(), lambda k=kind: self.toggle(k), tip=tip)
            for kind, tip in PANELS.items()
        ]
        self.main = row(self.label, self.button, self.data_button, self.most, self.maker, self.own, *self.panels)
        super().__init__([self.main, self.why, self.problem, self.panel])
        self.add_class("mlipkit-next")
        for part in (self.maker, self.most, self.own):
            show(part, False)
            part.observe(lambda _change: on_choice(), "value")
        self.say("")
        self.toggle("")

    @property
    def busy(self) -> str:
        """What is being done, "" when nothing is."""
        return self._busy

    def show_step(self, step: NextStep, time: str = "", words: str = "") -> None:
        """Put a step on the button.

        Args:
            time: what it will take, "" when that is not known (yet).
            words: instead of the step's own words.
        """
        self._step = step
        waits = step.action in LIVE and not words.startswith("Watch")
        text = self._busy or f"{words or step.words}{f' ({time})' if time else ''}"
        icon = "… " if self._busy else "● " if waits else "▶ "
        if self.button.description != icon + text:
            self.button.description = icon + text
            self.button.tooltip = step.why or step.words
        self.button.disabled = bool(self._busy) or waits
        self.button.button_style = "" if waits else "primary"
        show(self.data_button, step.action == "begin")
        show(self.maker, step.action == "label" and not self.own.value)
        show(self.own, step.action == "label")
        show(self.most, step.action == "select")
        for part in (self.data_button, self.maker, self.most, self.own):
            part.disabled = bool(self._busy)
        html = f'<div class="mk-quiet" role="status">{escape(step.why)}</div>' if step.why else ""
        if self.why.value != html:
            self.why.value = html

    def work(self, words: str) -> None:
        """Say what is being done instead of the step; "" when it is done."""
        self._busy = words
        if self._step is not None:
            self.show_step(self._step)

    def say(self, problem: str) -> None:
        """Show what went wrong in one line, or nothing."""
        line = " ".join(problem.split())
        html = f'<div class="mk-verdict mk-wrong" role="alert">{escape(line)}</div>' if line else ""
        if self.problem.value != html:
            self.problem.value = html
        show(self.problem, bool(line))

    def offer_makers(self, first: str | None, others: list[str]) -> None:
        """Choose a label maker beforehand, and name others that are there."""
        options = list(dict.fromkeys([*([first] if first else []), *MAKERS, *others]))
        if list(self.maker.options) != options:
            self.maker.options = options
        if first and self.maker.value != first:
            self.maker.value = first

    def put(self, text: str) -> None:
        """Put a line where code and folder stand."""
        self._panel_kind, self._told = "", text
        self.refresh_panel()

    def still_html(self) -> str:
        """The step in a file."""
        words = escape(self.button.description.partition(" ")[2])
        return f"<p><b>NEXT</b> {words}</p>{self.why.value}"

    def toggle(self, kind: str) -> None:
        """Open a panel, or close it."""
        self._panel_kind, self._told = "" if kind == self._panel_kind else kind, ""
        self.refresh_panel()

    def refresh_panel(self) -> None:
        """Bring the open panel up to the step."""
        text = self._panel_text(self._panel_kind) if self._panel_kind else self._told
        html = f'<pre class="mk-code">{escape(text)}</pre>' if text else ""
        if self.panel.value != html:
            self.panel.value = html
        show(self.panel, bool(text))
