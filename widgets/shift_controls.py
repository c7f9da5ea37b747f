"""What the map shows: which scores, coloured by what, which elements and sets, and what only one set reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets as w
import numpy as np
from ase.data import chemical_symbols

from mlipkit.plots.elements import element_colour

from .parts import row, show
from .shift_data import ShiftData

COLOUR_BY = ("element", "set", "time", "Q / limit", "force error")
EMBED = "t-SNE …"
"""Choice that has t-SNE computed first."""
NOTHING = "-"


@dataclass(frozen=True)
class Picks:
    """What the reader wants to see."""

    map: str
    colour: str
    elements: tuple[int, ...]
    sets: tuple[str, ...]
    only_in: str = ""


class ShiftControls(w.Box):
    """Asks for a picture; `picks` is what was asked for.

    Args:
        on_change: called when the picks have changed.
        on_embed: called when t-SNE is asked for and not there yet.
    """

    def __init__(self, on_change: Callable[[], None], on_embed: Callable[[], None]) -> None:
        self._on_change, self._on_embed, self._telling = on_change, on_embed, False
        self.map = w.Dropdown(options=["PC1, PC2"], description="map", layout={"width": "210px"})
        self.colour = w.Dropdown(options=["element"], description="colour", layout={"width": "210px"})
        self.only_in = w.Dropdown(options=[NOTHING], description="only in", layout={"width": "210px"})
        self.elements: dict[int, w.ToggleButton] = {}
        self.sets: dict[str, w.ToggleButton] = {}
        self._elements, self._sets = row(kind="mlipkit-toggles"), row(kind="mlipkit-toggles")
        super().__init__([self.map, self.colour, self.only_in, self._elements, self._sets])
        self.add_class("mlipkit-row")
        self.add_class("mlipkit-shift-controls")
        for choice in (self.map, self.colour, self.only_in):
            choice.observe(self._changed, "value")

    def offer(self, data: ShiftData) -> None:
        """Offer what there is to see; what was picked before stays picked."""
        self._telling = True
        try:
            maps = [*data.maps, *([] if "t-SNE" in data.maps or not data.n_points else [EMBED])]
            _options(self.map, maps or ["PC1, PC2"])
            known = [name for name in COLOUR_BY if name != "force error" or _finite(data, "force_error")]
            _options(self.colour, [name for name in known if name != "set" or len(data.names) > 1])
            _options(self.only_in, [NOTHING, *(data.names if len(data.names) > 1 else [])])
            show(self.only_in, len(data.names) > 1)
            self._toggles(self.elements, self._elements, {z: chemical_symbols[z] for z in data.elements})
            self._toggles(self.sets, self._sets, {name: name for name in data.names})
            show(self._sets, len(data.names) > 1)
            for number, toggle in self.elements.items():
                toggle.style.text_color = None
                toggle.layout.border_bottom = f"3px solid {element_colour(number)}"
        finally:
            self._telling = False

    @property
    def picks(self) -> Picks:
        """What was asked for."""
        return Picks(
            "PC1, PC2" if self.map.value == EMBED else str(self.map.value), str(self.colour.value),
            tuple(z for z, toggle in self.elements.items() if toggle.value),
            tuple(name for name, toggle in self.sets.items() if toggle.value),
            "" if self.only_in.value in (NOTHING, None) else str(self.only_in.value),
        )  # fmt: skip

    def pick_map(self, name: str) -> None:
        """Choose a map without being asked."""
        self.map.value = name

    def _toggles(self, known: dict, box: w.Box, wanted: dict) -> None:
        for key in [key for key in known if key not in wanted]:
            known.pop(key).close()
        for key, text in wanted.items():
            if key not in known:
                known[key] = w.ToggleButton(value=True, description=text, tooltip=f"Show or hide {text}")
                known[key].observe(self._changed, "value")
        ordered = {key: known[key] for key in wanted}
        known.clear()
        known.update(ordered)
        if tuple(box.children) != tuple(known.values()):
            box.children = tuple(known.values())

    def _changed(self, change: dict) -> None:
        if self._telling:
            return
        if change["owner"] is self.map and change["new"] == EMBED:
            self._on_embed()
            return
        self._on_change()


def _options(choice: w.Dropdown, options: list[str]) -> None:
    if list(choice.options) == options:
        return
    value = choice.value if choice.value in options else options[0]
    choice.options = options
    choice.value = value


def _finite(data: ShiftData, name: str) -> bool:
    return bool(np.isfinite(data.column(name)).any())
