"""The tray of a Workbench: how many frames were picked and why, what they look like, undo."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets as w

from mlipkit.data import FrameSet, Selection, Tray
from mlipkit.data.tray_frames import TrayFrames
from mlipkit.errors import DataError, MlipkitError

from .parts import button, row, show
from .thumbnails import Thumbnails, thumbnail
from .tray_box import MOST_PICTURES, TrayBox

EMPTY = "Empty: Select frames, or a lasso on the map, puts frames here."
REPLICA = re.compile(r"^(.*)/replica_(\d+)$")


class TrayStrip(TrayBox):
    """Shows a tray with the frames that are kept beside it, and changes it.

    Args:
        tray: where the selection is kept.
        on_change: called with the selection when it has changed, here or by another view.
        on_pick: called with run, replica and simulated time (fs) of the picture that was clicked.
        say: called with one line on what went wrong.
    """

    def __init__(
        self,
        tray: Tray,
        on_change: Callable[[Selection], None],
        on_pick: Callable[[str, int, float], None],
        say: Callable[[str], None],
    ) -> None:
        self.kept = TrayFrames(tray.folder)
        self._on_pick, self._say = on_pick, say
        self._places: list[tuple[str, int, float]] = []
        self.text = w.HTML()
        self.undo_button = button("↶ Undo", self.undo, tip="The tray as it was before the last change")
        self.clear_button = button("Clear", self.clear, tip="Empty the tray; Undo refills it")
        self.pictures = Thumbnails(self._picked)
        super().__init__(tray, on_change, row(self.text, self.undo_button, self.clear_button), self.pictures)
        self.refresh(force=True)

    def add(self, frames: FrameSet, selection: Selection) -> None:
        """Put frames into the tray, beside those that lie there."""
        self.kept.add(frames)
        self._change(lambda: self.tray.add(selection))

    def undo(self) -> None:
        """Back to the selection before."""
        self._change(self.tray.undo)

    def clear(self) -> None:
        """Empty the tray."""
        self._change(self.tray.clear)

    def frames(self) -> FrameSet:
        """The frames in the tray, tagged.

        Raises:
            DataError: the tray is empty, or frames of it were picked in a view that keeps none.
        """
        return self.kept.of(self.selection)

    def _change(self, change: Callable[[], object]) -> None:
        try:
            change()
        except (MlipkitError, OSError) as error:
            self._say(str(error))
        self._show()
        self._on_change(self.selection)

    def _show(self) -> None:
        chosen = self.selection
        n = len(chosen)
        many = f"{n} frame{'s' * (n != 1)}" if n else ""
        why = chosen.sentence if n else EMPTY
        self.text.value = (
            f"<div class='mk-count'><b>TRAY</b> <b>{many}</b>"
            f"<div class='mk-quiet mk-why' title='{escape(why)}'>{escape(why)}</div></div>"
        )
        self.undo_button.disabled = not self.tray.undo_steps
        self.clear_button.disabled = not n
        items, self._places = self._items(chosen)
        more = n - len(items)
        self.pictures.show(items, f"+ {more} more" if more > 0 and items else "")
        show(self.pictures, bool(items))

    def _items(self, chosen: Selection) -> tuple[list[dict[str, Any]], list[tuple[str, int, float]]]:
        if not len(chosen):
            return [], []
        first = Selection(chosen.uids[:MOST_PICTURES], {}, {}, "", "")
        try:
            frames = self.kept.of(first)
        except DataError:
            return [], []
        items, places = [], []
        for i, uid in enumerate(first.uids):
            source, time = frames.sources[int(frames.source_codes[i])], float(frames.time[i])
            found = REPLICA.match(source)
            run, replica = (found[1], int(found[2])) if found else (source, 0)
            text = (f"#{replica} " if found else "") + (f"{time / 1000:.3f} ps" if time == time else run)
            items.append({
                "svg": thumbnail(frames[i], chosen.atoms.get(uid, ())), "text": text,
                "told": f"Frame of {source}" + (f" at {time / 1000:.4f} ps" if time == time else "") + ": show it",
            })  # fmt: skip
            places.append((run, replica, time))
        return items, places

    def _picked(self, index: int) -> None:
        if 0 <= index < len(self._places):
            self._on_pick(*self._places[index])
