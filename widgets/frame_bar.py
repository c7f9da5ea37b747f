"""The row that goes through frames: arrows, player, slider, and words on where one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ipywidgets as w

from mlipkit.plots.runs import FAILURE, WARNING

from .parts import button, show
from .ticker import Ticker

PLAY_S = 0.125


class FrameBar(w.Box):
    """Asks for frames; what is on show is told to it with `tell`.

    Args:
        go: called with the number of the frame that the user wants; out of range means the first or last.
        follow: called when the user wants the newest frame, and each newer one.
    """

    def __init__(self, go: Callable[[int], None], follow: Callable[[], None]) -> None:
        self._go, self._telling = go, False
        self.frame, self.last = 0, 0
        self.slider = w.IntSlider(
            description="frame", min=0, max=1, readout=False, layout={"flex": "1 1 260px", "width": "auto"}
        )
        self.text, self.marks = w.HTML(), w.HTML()
        self.marks.add_class("mlipkit-slider-marks")
        show(self.marks, False)
        self.back_button = button("◀", lambda: go(self.frame - 1), tip="One frame back")
        self.play_button = button("▶", self.play, tip="Play or halt")
        self.next_button = button("▶|", lambda: go(self.frame + 1), tip="One frame on")
        self.live_button = button("● Live", follow, tip="Follow the newest frame", hidden=True)
        for made in (self.back_button, self.play_button, self.next_button):
            made.add_class("mlipkit-icon-button")
        self._player = Ticker(self._play_on)
        super().__init__([
            self.back_button, self.play_button, self.next_button, self._track(), self.text, self.live_button,
        ])  # fmt: skip
        self.add_class("mlipkit-row")
        self.slider.observe(self._slider_moved, "value")

    def _track(self) -> w.Box:
        """The slider with room for marks above it."""
        self.slider.layout.flex, self.slider.layout.width = "0 0 auto", "100%"
        box = w.Box([self.marks, self.slider], layout={"flex": "1 1 260px", "width": "auto", "display": "flex"})
        box.layout.flex_flow, box.layout.overflow = "column nowrap", "visible"
        return box

    def mark(self, marks: Mapping[int, str]) -> None:
        """Put signs above the slider. `marks`: frame -> "warning" or "failure"."""
        signs = {"warning": ("▼", WARNING), "failure": ("✖", FAILURE)}
        text = "".join(
            f'<span title="{kind}, frame {frame}" style="left:{100 * frame / max(self.last, 1):.2f}%;'
            f'color:{signs[kind][1]}">{signs[kind][0]}</span>'
            for frame, kind in sorted(marks.items())
        )
        text = f'<div class="mk-marks">{text}</div>' if text else ""
        if text != self.marks.value:
            self.marks.value = text
            show(self.marks, bool(text))

    def tell(self, frame: int, last: int, text: str) -> None:
        """Say which frame is on show, which is the last there is, and what stands beside the slider (HTML)."""
        self.frame, self.last, self._telling = frame, last, True
        try:
            self.slider.max = max(last, 1)
            self.slider.value = frame
        finally:
            self._telling = False
        if self.text.value != text:
            self.text.value = text

    def offer(self, text: str, action: Callable[[], object], tip: str) -> w.Button:
        """One more thing that can be done with the frame on show."""
        made = button(text, action, tip=tip)
        self.children = (*self.children, made)
        return made

    def offer_live(self, offered: bool) -> None:
        """Show or hide the way back to the newest frame."""
        show(self.live_button, offered)

    def play(self) -> None:
        """Play from the frame on show, or halt."""
        if self._player.running:
            self.halt()
            return
        self._go(0 if self.frame >= self.last else self.frame)
        self.play_button.description = "‖"
        self._player.start()

    def halt(self) -> None:
        """Stop playing."""
        self._player.stop()
        self.play_button.description = "▶"

    def _play_on(self) -> float | None:
        if self.frame >= self.last:
            self.play_button.description = "▶"
            return None
        self._go(self.frame + 1)
        return PLAY_S

    def _slider_moved(self, change: dict) -> None:
        if not self._telling:
            self._go(change["new"])
