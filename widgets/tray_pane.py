"""The tray: how many frames were picked and why, what they look like, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

import ipywidgets as w

from mlipkit.data import Selection, Tray
from mlipkit.errors import MlipkitError
from mlipkit.runs.places import file_name, short_place

from .parts import button, row, show
from .shift_data import ShiftData
from .shift_sets import place_of
from .thumbnails import Thumbnails, thumbnail
from .ticker import in_background
from .tray_actions import Exported, TrayActions
from .tray_box import MOST_PICTURES, TrayBox

EMPTY = "Nothing is picked yet: draw a lasso or a box on the map."


class TrayPane(TrayBox):
    """Shows a tray and changes it.

    Args:
        tray: where the selection is kept.
        data: the sets that it is made from.
        on_change: called with the selection when it has changed, here or by another view.
        on_pick: called with set and frame when a picture is clicked.

    Attributes:
        exported: the file that was written last.
    """

    def __init__(
        self,
        tray: Tray,
        data: ShiftData,
        on_change: Callable[[Selection], None],
        on_pick: Callable[[str, int], None],
    ) -> None:
        self.data, self._on_pick = data, on_pick
        self._rows: list[tuple[str, int]] = []
        self._drawn: tuple[object, ...] = ()
        self.exported: Path | None = None
        self.count, self.text = w.HTML(), w.HTML()
        self.lasso = w.ToggleButtons(
            options=[("lasso adds", "add"), ("takes away", "remove")], style={"button_width": "auto"},
        )  # fmt: skip
        self.tag = w.Text(description="tag", placeholder="a name for them", continuous_update=False)
        self.tag.layout.width = "230px"
        self.undo_button = button("↶ Undo", lambda: self._change(tray.undo), tip="Back to the selection before")
        self.invert_button = button("Invert", self.invert, tip="All other frames of all sets")
        self.clear_button = button("Clear", lambda: self._change(tray.clear), tip="Empty the tray; Undo refills it")
        self.export_button = button("Export", self.export, kind="primary", tip="Write extended XYZ with tag and uids")
        self.actions = row(self.undo_button, self.invert_button, self.clear_button, self.export_button)
        self.pictures = Thumbnails(self._picked)
        self.next = TrayActions(self._export_for, self._trained_on, self._file_name)
        super().__init__(
            tray, on_change, row(self.count, self.lasso, self.tag, self.actions), self.pictures, self.text, self.next
        )
        self.tag.observe(self._tagged, "value")
        self.refresh(force=True)

    def offer(self, text: str, action: Callable[[Selection], object], tip: str = "") -> w.Button:
        """One more thing that can be done with the selected frames (label, train)."""
        made = button(text, lambda: self._guard(lambda: action(self.tray.selection)), tip=tip)
        self.actions.children = (*self.actions.children, made)
        return made

    def take(self, made: Selection) -> None:
        """A lasso was drawn: add its frames, or take them away."""
        self._change((lambda: self.tray.add(made)) if self.lasso.value == "add" else (lambda: self.tray.remove(made)))

    def invert(self) -> None:
        """Select what is not selected. A run's frames count as far as they are on the map."""
        sets = [
            one.frame_set(one.sound(range(one.points.n_frames)))
            for one in self.data.sets if one.points is not None and one.points.n_frames
        ]  # fmt: skip
        self._change(lambda: self.tray.invert(sets))

    def _file_name(self) -> str:
        """The tag as the name of a file."""
        return file_name(self.selection.tag, self.tray.name)

    def _trained_on(self) -> list[str]:
        """Places of the sets that the map was fitted on: what potentials of this map were trained on."""
        return [place_of(one) for one in self.data.sets if one.fitted]

    def _export_for(self, then: Exported) -> None:
        """Write the selected frames without a word of their own."""
        selection, path = self.selection, self.tray.folder.parent / f"{self._file_name()}.extxyz"
        try:
            sets = self.data.frame_sets(selection)
        except (MlipkitError, OSError) as error:
            self._say(str(error), wrong=True)
            then(None)
            return

        def done(_result: object, error: BaseException | None) -> None:
            if error is not None:
                self._say(str(error), wrong=True)
            else:
                self.exported = path
            then(None if error is not None else path)

        in_background(lambda: selection.export(path, sets), done)

    def export(self) -> None:
        """Write the selected frames beside the tray, under their tag."""
        selection = self.selection
        path = self.tray.folder.parent / f"{self._file_name()}.extxyz"
        self.export_button.disabled = True
        self._say("Writing …")

        def done(_result: object, error: BaseException | None) -> None:
            self.export_button.disabled = False
            if error is not None:
                self._say(str(error), wrong=True)
                return
            self.exported = path
            place = short_place(path)
            self._say(f"{len(selection)} frames are in {place}. {after}")

        # Read here: a run's files are not for two threads.
        sets = self.data.frame_sets(selection)
        bare = sum(int((~frames.has("forces")).sum()) for frames in sets)
        after = f"Train on them: data=[…, {short_place(path)!r}]; the run's split.json then lists their uids."
        if bare:
            after = f"{bare} of them come from runs and have no labels: a potential must not learn its own predictions."
        in_background(lambda: selection.export(path, sets), done)

    def look_again(self) -> None:
        """Other sets, or more of their frames, are there now."""
        self._show()

    def _change(self, change: Callable[[], object]) -> None:
        self._say("")
        self._guard(change)
        self._show(pictures=False)
        # The map answers first: it is where the reader looks.
        self._on_change(self.selection)
        self._draw_pictures()

    def _guard(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (MlipkitError, OSError) as error:
            self._say(str(error), wrong=True)

    def _say(self, text: str, wrong: bool = False) -> None:
        look = "mk-wrong" if wrong else "mk-quiet"
        self.text.value = f'<div class="{look}" role="status">{escape(text)}</div>' if text else ""

    def _show(self, pictures: bool = True) -> None:
        chosen = self.selection
        there = len(chosen) > 0
        many = f"<b>{len(chosen)} frame{'s' * (len(chosen) != 1)}</b> in the tray"
        many += f" <span class='mk-quiet'>for {chosen.n_atoms} atoms</span>" if chosen.n_atoms else ""
        why = f"<div class='mk-quiet mk-why' title='{escape(chosen.sentence)}'>{escape(chosen.sentence)}</div>"
        self.count.value = f"<div class='mk-count'>{many}{why if there else ''}</div>"
        self.undo_button.disabled = not self.tray.undo_steps
        for made in self.actions.children[2:]:
            made.disabled = not there
        if self.tag.value != chosen.tag:
            self.tag.value = chosen.tag
        show(self.pictures, there)
        self.next.update(chosen)
        if not there and not self.text.value:
            self._say(EMPTY)
        elif there and EMPTY in self.text.value:
            self._say("")
        if pictures:
            self._draw_pictures()

    def _draw_pictures(self) -> None:
        chosen = self.selection
        self._rows = self.data.rows_of(chosen)
        meant = [chosen.atoms.get(uid) for uid in chosen.uids[:MOST_PICTURES]]
        key = (tuple(self._rows[:MOST_PICTURES]), chosen.uids[:MOST_PICTURES], tuple(meant))
        if key != self._drawn:
            self._drawn = key
            self.pictures.show([self._picture(name, at) for name, at in self._rows[:MOST_PICTURES]], self._more(chosen))
        else:
            self.pictures.more = self._more(chosen)

    def _more(self, chosen: Selection) -> str:
        hidden, away = len(self._rows) - MOST_PICTURES, len(chosen) - len(self._rows)
        told = [f"+ {hidden} more"] if hidden > 0 else []
        told += [f"{away} from sets that are not open here"] if away > 0 else []
        return ", ".join(told)

    def _picture(self, name: str, at: int) -> dict[str, str]:
        one = self.data[name]
        atoms = one.frames[at]
        uid = int(one.frame_set([at]).uids[0])
        marked: Mapping[int, tuple[int, ...]] = self.selection.atoms
        return {
            "svg": thumbnail(atoms, marked.get(uid, ())), "text": f"{name} {at}",
            "told": f"Frame {at} of {name}, uid {uid:016x}: show it",
        }  # fmt: skip

    def _picked(self, index: int) -> None:
        if 0 <= index < len(self._rows):
            self._on_pick(*self._rows[index])

    def _tagged(self, change: dict) -> None:
        if change["new"] != self.selection.tag:
            self._change(lambda: self.tray.tag(change["new"].strip()))
