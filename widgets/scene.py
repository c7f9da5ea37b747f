"""Atoms on a page: nglview where it is installed, else a still SVG picture. Both have the same few methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import ipywidgets as w
import numpy as np
from ase import Atoms

from . import drawing, nglview_compat
from .parts import close_all
from .ticker import on_loop

PROGRAM = Path(__file__).parent / "static" / "ngl_stage.js"
MANY_ATOMS = 3000
FAR = 9000.0
"""Å; atoms that a failing simulation threw further are drawn here, as the page cannot place them."""


@dataclass(frozen=True)
class Picture:
    """One frame: positions [N,3] in Å, optional per-atom values [N] with the ends of their scale, marked atoms."""

    positions: np.ndarray
    values: np.ndarray | None = None
    domain: tuple[float, float] = (0.0, 1.0)
    marked: tuple[int, ...] = ()


class Scene(Protocol):
    """What MDView asks of a 3D view."""

    @property
    def widget(self) -> w.DOMWidget: ...

    def load(self, atoms: Atoms) -> None:
        """Show another structure; `atoms` gives elements, cell and the bonds to draw."""
        ...

    def show(self, picture: Picture) -> None:
        """Move, colour and mark the atoms."""
        ...

    def set_dark(self, dark: bool) -> None:
        """Follow the theme of the page."""
        ...

    def close(self) -> None: ...


def make_scene(viewer: str = "auto", height: int = 360) -> Scene:
    """A scene: "nglview", "still", or "auto" for nglview when it and its front end are installed."""
    if viewer == "nglview" or (viewer == "auto" and nglview_compat.available()):
        return NGLScene(height)
    return StillScene(height)


class NGLScene:
    """3D view by nglview. Positions of the shown frame only travel to the page.

    Attributes:
        twin: views with the same name here turn together; "" for one that turns alone. Set before the first structure.
    """

    def __init__(self, height: int = 360) -> None:
        self.widget = _stage_class()()
        self.widget.layout.width, self.widget.layout.height = "100%", f"{height}px"
        self.widget._view_height = f"{height}px"
        self.widget.when_ready = self._restore
        self._atoms: Atoms | None = None
        self._picture: Picture | None = None
        self._dark = False
        self.twin = ""

    def load(self, atoms: Atoms) -> None:
        self._atoms, self._picture = atoms, None
        self._restore()

    def show(self, picture: Picture) -> None:
        self._picture = picture
        self.widget.run(f"this.mlipkit?.show({self._frame(picture)});")

    def set_dark(self, dark: bool) -> None:
        self._dark = dark
        self.widget.run(f"this.mlipkit?.background({json.dumps(dark)});")

    def close(self) -> None:
        self.widget.when_ready = None
        self.widget.close()

    def _frame(self, picture: Picture) -> str:
        positions = np.nan_to_num(picture.positions, nan=0.0, posinf=FAR, neginf=-FAR).clip(-FAR, FAR)
        values = None
        if picture.values is not None:
            values = np.nan_to_num(picture.values, nan=picture.domain[1], posinf=picture.domain[1]).round(4).tolist()
        return json.dumps({
            "positions": positions.round(3).ravel().tolist(), "values": values, "domain": picture.domain,
            "scale": drawing.COLOURS, "marked": picture.marked,
        })  # fmt: skip

    def _restore(self) -> None:
        """Give the whole picture to a page that has just opened the view."""
        if self._atoms is None:
            return
        options = {
            "unitcell": bool(self._atoms.pbc.any()), "dark": self._dark, "large": len(self._atoms) > MANY_ATOMS,
            "twin": self.twin,
        }  # fmt: skip
        program = PROGRAM.read_text(encoding="utf-8").replace("@OPTIONS@", json.dumps(options))
        self.widget.run(program.replace("@STRUCTURE@", json.dumps(pdb(self._atoms))))
        if self._picture is not None:
            self.show(self._picture)


class StillScene:
    """SVG picture, drawn anew for each frame from a fixed viewpoint; needs no script and no WebGL."""

    def __init__(self, height: int = 360) -> None:
        self.widget = w.HTML(layout={"width": "100%"})
        self._height = height
        self._rotation = drawing.viewpoint()

    def load(self, atoms: Atoms) -> None:
        self._numbers = atoms.numbers
        self._pairs = drawing.bonds(atoms)
        self._cell = np.array(atoms.cell) if atoms.pbc.any() else None
        corners = atoms.positions if self._cell is None else np.concatenate([
            atoms.positions, [np.array(bits) @ self._cell for bits in np.ndindex(2, 2, 2)]
        ])  # fmt: skip
        self._centre = corners.mean(axis=0)
        self._radius = float(np.linalg.norm(corners - self._centre, axis=1).max()) + 1.0

    def show(self, picture: Picture) -> None:
        self.widget.value = drawing.draw(
            self._numbers, picture.positions, pairs=self._pairs, centre=self._centre, radius=self._radius,
            rotation=self._rotation, values=picture.values, domain=picture.domain, marked=picture.marked,
            cell=self._cell, height=self._height,
        )  # fmt: skip

    def set_dark(self, dark: bool) -> None:
        """The picture has no background of its own."""

    def close(self) -> None:
        self.widget.close()


def pdb(atoms: Atoms) -> str:
    """PDB text of one structure, enough for elements, cell and bonds; positions are kept inside its narrow columns."""
    lines = []
    if atoms.pbc.any():
        a, b, c, alpha, beta, gamma = atoms.cell.cellpar()
        lines.append(f"CRYST1{a:9.3f}{b:9.3f}{c:9.3f}{alpha:7.2f}{beta:7.2f}{gamma:7.2f} P 1")
    positions = np.nan_to_num(atoms.positions).clip(-999, FAR)
    for i, (symbol, (x, y, z)) in enumerate(zip(atoms.get_chemical_symbols(), positions, strict=True), start=1):
        lines.append(
            f"HETATM{i % 100000:5d} {symbol:<4s} MOL A   1    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00{symbol:>12s}"
        )
    return "\n".join([*lines, "END", ""])


@cache
def _stage_class():
    nglview = nglview_compat.load()

    class Stage(nglview.NGLWidget):
        """nglview's widget as a bare host of its stage.

        Left out: its threads (one polls for ever, also after `close`), its archive of all messages (it grows with every
        frame) and its own trajectory player.
        """

        when_ready: Callable[[], None] | None = None

        def _initialize_threads(self) -> None:
            self.on_msg(self._handle_nglview_custom_msg)

        def _create_player(self) -> None:
            self._iplayer = w.Box()

        def _handle_nglview_custom_msg(self, _widget, message, _buffers) -> None:
            if message.get("type") == "request_loaded" and self.when_ready is not None:
                on_loop(self.when_ready)

        def run(self, code: str) -> None:
            """Run JavaScript in the view, with `this` as nglview's view object; lost when no page shows it."""
            self.send({
                "type": "call_method", "target": "Widget", "methodName": "executeCode", "args": [code], "kwargs": {},
            })  # fmt: skip

        def close(self) -> None:
            for part in (self._iplayer, self._ibtn_fullscreen, self._widget_image, self.layout):
                if isinstance(part, w.Widget):
                    close_all(part)
            super().close()

    return Stage
