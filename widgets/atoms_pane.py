"""The atoms of one frame: 3D view, what they are coloured by, and the atom that was clicked."""

from __future__ import annotations

import ipywidgets as w
import numpy as np
from ase import Atoms

from . import drawing
from .base import row
from .scene import Picture, make_scene


class AtomsPane(w.VBox):
    """Shows one frame at a time; the colour scale of forces stays the same over frames.

    Args:
        viewer: "auto", "nglview" or "still".

    Attributes:
        colour: the choice what atoms are coloured by: "element" or "force".
        force_top: end of the force scale, eV/Å.
    """

    def __init__(self, viewer: str = "auto") -> None:
        self.scene = make_scene(viewer)
        self.scene.widget.add_class("mlipkit-scene")
        self.colour = w.Dropdown(
            options=[("element", "element"), ("force", "force")], value="element", description="colour by",
            layout={"width": "190px"},
        )  # fmt: skip
        self.colour_bar, self.text = w.HTML(), w.HTML()
        self.force_top = 1.0
        self._shown: tuple[Atoms, tuple[int, ...]] | None = None
        self._loaded: Atoms | None = None
        super().__init__([self.scene.widget, row(self.colour, self.colour_bar), self.text])
        self.add_class("mlipkit-pane-3d")
        self.colour.observe(lambda _change: self._colour_changed(), "value")
        if self.scene.widget.has_trait("picked"):
            self.scene.widget.observe(self._picked, "picked")

    def reset(self) -> None:
        """Forget the structure that was shown before."""
        self._shown, self.force_top, self.text.value = None, 1.0, ""

    def load(self, atoms: Atoms) -> None:
        """Begin with another structure: its first frame, which decides bonds and the point of view."""
        # Simulations with one start need not be drawn anew, and keep the reader's point of view.
        if self._loaded is None or not _equal(self._loaded, atoms):
            self.scene.load(atoms)
        self._loaded = atoms

    def show(self, atoms: Atoms, marked: tuple[int, ...] = ()) -> None:
        """Show a frame of the structure on load, with some atoms marked."""
        self._shown = atoms, marked
        forces = forces_of(atoms) if self.colour.value == "force" else None
        values = np.linalg.norm(forces, axis=1) if forces is not None else None
        positions = atoms.positions
        if not atoms.pbc.any() and self._loaded is not None:
            # A free molecule wanders off; the median keeps the rest in view when single atoms fly away.
            positions = positions - np.nan_to_num(np.nanmedian(positions - self._loaded.positions, axis=0))
        self.scene.show(Picture(positions, values, (0.0, self.force_top), marked))

    def scale_forces(self, largest: np.ndarray, settled: bool) -> None:
        """Set the end of the force scale a little above the usual largest force, so that a failure stands out.

        Args:
            largest: largest force of each step, eV/Å.
            settled: no further steps will come.
        """
        largest = largest[np.isfinite(largest)]
        if not len(largest):
            return
        top = _round_up(1.2 * float(np.median(largest)))
        # Only in whole jumps: colours that drift say nothing.
        if top > self.force_top or self.force_top > 2 * top or settled:
            self.force_top = top
            self._draw_colour_bar()

    def set_dark(self, dark: bool) -> None:
        """Follow the theme of the page."""
        self.scene.set_dark(dark)

    def _colour_changed(self) -> None:
        self._draw_colour_bar()
        if self._shown is not None:
            self.show(*self._shown)

    def _draw_colour_bar(self) -> None:
        text = ""
        if self.colour.value == "force":
            text = (
                f'<span class="mk-colourbar">0<i style="background:{drawing.gradient()}"></i>'
                f"≥ {self.force_top:g} eV/Å</span>"
            )
        if self.colour_bar.value != text:
            self.colour_bar.value = text

    def _picked(self, change: dict) -> None:
        atom = (change["new"] or {}).get("atom1")
        if not atom or self._shown is None:
            return
        atoms, index = self._shown[0], int(atom.get("index", -1))
        if not 0 <= index < len(atoms):
            return
        forces = forces_of(atoms)
        force = f" · force {np.linalg.norm(forces[index]):.2f} eV/Å" if forces is not None else ""
        self.text.value = f"<b>{atoms.symbols[index]} {index}</b>{force}"


def _equal(one: Atoms, other: Atoms) -> bool:
    """Whether two structures look the same: elements, positions, cell."""
    return (
        np.array_equal(one.numbers, other.numbers)
        and np.array_equal(one.pbc, other.pbc)
        and np.allclose(one.positions, other.positions, atol=1e-4)
        and np.allclose(one.cell, other.cell, atol=1e-4)
    )


def forces_of(atoms: Atoms) -> np.ndarray | None:
    """Stored forces [N,3] of a frame in eV/Å, or None."""
    return atoms.calc.results.get("forces") if atoms.calc is not None else None


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step for step in (1, 2, 5, 10) if step * power >= value * 0.999) * power)
