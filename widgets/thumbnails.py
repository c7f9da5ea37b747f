"""Small still pictures of frames in a row, one of which can be picked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets as t
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors

from . import drawing
from .ticker import on_loop

STATIC = Path(__file__).parent / "static"
WIDTH, HEIGHT = 92, 76
MANY_ATOMS = 400


class Thumbnails(anywidget.AnyWidget):
    """A row of pictures with a line of text each; a click, or Enter, picks one.

    Args:
        on_pick: called with the number of the picture.
        on_act: called with the number of the picture whose second button was pressed.

    Attributes:
        items: what the page draws: ``{"svg", "text", "told"}`` each, with ``picked``, and where there is something to
            be done with it ``action`` (text of a second button) and ``out`` (it was taken out).
        more: words behind the last picture.
    """

    _esm = STATIC / "thumbnails.js"

    items = t.List().tag(sync=True)
    more = t.Unicode("").tag(sync=True)

    def __init__(self, on_pick: Callable[[int], None], on_act: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self._on_pick, self._on_act = on_pick, on_act
        self.on_msg(self._message)

    def _message(self, _widget: object, content: dict, _buffers: object) -> None:
        if content.get("type") == "pick":
            on_loop(self._on_pick, int(content["index"]))
        elif content.get("type") == "act" and self._on_act is not None:
            on_loop(self._on_act, int(content["index"]))

    def show(self, items: Sequence[dict[str, Any]], more: str = "") -> None:
        """Draw these; nothing is sent when nothing has changed."""
        if list(items) != self.items:
            self.items = list(items)
        self.more = more


def thumbnail(atoms: Atoms, marked: Sequence[int] = ()) -> str:
    """SVG text of a frame, far atoms first; marked atoms in the colour of marks."""
    flat = (atoms.positions - atoms.positions.mean(axis=0)) @ drawing.viewpoint().T
    reach = float(np.abs(flat[:, :2]).max(initial=1.0)) + 0.8
    scale = 0.5 * min(WIDTH, HEIGHT) / reach
    order = np.argsort(flat[:, 2])
    if len(order) > MANY_ATOMS:
        # Those in front hide the others anyway.
        order = order[-MANY_ATOMS:]
    chosen = set(marked)
    circles = []
    for i in order:
        tone = drawing.MARK if i in chosen else _tone(int(atoms.numbers[i]))
        radius = max(1.2, (0.9 if i in chosen else 0.6) * covalent_radii[atoms.numbers[i]] * scale)
        x, y = WIDTH / 2 + scale * flat[i, 0], HEIGHT / 2 - scale * flat[i, 1]
        circles.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{tone}"/>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" xmlns="http://www.w3.org/2000/svg" '
        f'stroke="#444" stroke-width="0.3">{"".join(circles)}</svg>'
    )


def _tone(number: int) -> str:
    red, green, blue = (int(255 * part) for part in jmol_colors[number])
    return f"#{red:02x}{green:02x}{blue:02x}"
