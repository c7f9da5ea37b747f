"""The atoms of one frame: 3D view, what they are coloured by, and the atom that was clicked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ipywidgets as w
import numpy as np
from ase import Atoms

from . import drawing
from .parts import row
from .scene import Picture, StillScene, make_scene
from .ticker import after, kernel_loop, on_loop

LATER_S = 0.5
FAR_FROM_LOADED = 2.5
"""Å from the structure on load beyond which its bonds mean nothing any more."""


@dataclass(frozen=True)
class Scale:
    """A number per atom to colour by, beside the force: its name on screen, the ends of its colours, their words."""

    name: str
    low: float
    high: float
    low_text: str
    high_text: str


class AtomsPane(w.VBox):
    """Shows one frame at a time; the colour scale of forces stays the same over frames.

    Args:
        viewer: "auto", "nglview" or "still".
        scales: further numbers to colour by; `show` is given their values.
        later: put the 3D view on the page a moment after the rest: building it takes the page a second in which plots
            beside it would not be drawn.

    Attributes:
        colour: the choice what atoms are coloured by: "element", "force" or the name of a scale.
        force_top: end of the force scale, eV/Å.
        on_atom: called with the index of an atom that was clicked.
    """

    def __init__(self, viewer: str = "auto", scales: tuple[Scale, ...] = (), later: bool = False) -> None:
        self.scene = make_scene(viewer)
        self.scene.widget.add_class("mlipkit-scene")
        self.colour = w.Dropdown(
            options=["element", *(scale.name for scale in scales), "force"], value="element", description="colour by",
            layout={"width": "190px"},
        )  # fmt: skip
        self.number = w.Text(description="atom", placeholder="no.", layout={"width": "105px"})
        self.number.tooltip = "Look at the atom of this number, as a click on it does"
        self.colour.style.description_width, self.number.style.description_width = "68px", "36px"
        self.colour_bar, self.text = w.HTML(), w.HTML()
        self.said = w.HTML()
        self.said.add_class("mk-said")
        self.on_atom: Callable[[int], None] | None = None
        self.force_top = 1.0
        self._scales = {scale.name: scale for scale in scales}
        self._shown: tuple[Atoms, tuple[int, ...], Mapping[str, np.ndarray]] | None = None
        self._loaded: Atoms | None = None
        rest = [row(self.colour, self.number, self.colour_bar), self.text, self.said]
        later = later and kernel_loop() is not None
        place = w.Box(layout={"height": self.scene.widget.layout.height or "auto"}) if later else self.scene.widget
        super().__init__([place, *rest])
        self.add_class("mlipkit-pane-3d")
        if later:
            after(LATER_S, self._stand)
        self.number.observe(lambda change: self._numbered(str(change["new"])), "value")
        self.colour.observe(lambda _change: self._colour_changed(), "value")
        if self.scene.widget.has_trait("picked"):
            self.scene.widget.observe(self._picked, "picked")

    def _stand(self) -> None:
        self.children = [self.scene.widget, *tuple(self.children)[1:]]

    def reset(self) -> None:
        """Forget the structure that was shown before."""
        self._shown, self.force_top, self.text.value, self.number.value = None, 1.0, "", ""

    def load(self, atoms: Atoms) -> None:
        """Begin with another structure: its first frame, which decides bonds and the point of view."""
        # Simulations with one start need not be drawn anew, and keep the reader's point of view.
        if self._loaded is None or not _equal(self._loaded, atoms):
            self.scene.load(atoms)
        self._loaded = atoms

    def follows(self, atoms: Atoms) -> bool:
        """Whether a frame can be shown with the bonds of the structure on load: the same atoms, none far from there."""
        loaded = self._loaded
        return (
            loaded is not None
            and np.array_equal(loaded.numbers, atoms.numbers)
            and np.allclose(loaded.cell, atoms.cell, atol=1e-4)
            and float(np.abs(self._beside(atoms) - loaded.positions).max(initial=0.0)) < FAR_FROM_LOADED
        )

    def show(self, atoms: Atoms, marked: tuple[int, ...] = (), numbers: Mapping[str, np.ndarray] | None = None) -> None:
        """Show a frame of the structure on load, with some atoms marked.

        Args:
            numbers: name of a scale -> one number per atom.
        """
        self._shown = atoms, marked, numbers or {}
        self.scene.show(self._picture())
        words = self.words
        if self.said.value != words:
            self.said.value = words

    @property
    def words(self) -> str:
        """The picture in words, for those who cannot see it; "" when there is none."""
        if self._shown is None:
            return ""
        atoms, marked, _ = self._shown
        told = [f"{len(atoms)} atoms, {atoms.get_chemical_formula()}", f"coloured by {self.colour.value}"]
        if marked:
            told.append("marked: " + ", ".join(f"{atoms.symbols[i]} {i}" for i in marked if i < len(atoms)))
        forces = forces_of(atoms)
        if forces is not None and len(forces) and np.isfinite(forces).all():
            size = np.linalg.norm(forces, axis=1)
            worst = int(size.argmax())
            told.append(f"largest force {size[worst]:.2f} eV/Å on {atoms.symbols[worst]} {worst}")
        return "; ".join(told)

    def still(self) -> str:
        """SVG of the frame on show, from a fixed point of view; "" when there is none."""
        if self._shown is None or self._loaded is None:
            return ""
        drawn = StillScene()
        drawn.load(self._loaded)
        drawn.show(self._picture())
        drawn.close()
        return drawn.widget.value

    def _picture(self) -> Picture:
        assert self._shown is not None
        atoms, marked, numbers = self._shown
        values, domain = None, (0.0, self.force_top)
        if (scale := self._scales.get(str(self.colour.value))) is not None:
            values, domain = numbers.get(scale.name), (scale.low, scale.high)
        elif self.colour.value == "force" and (forces := forces_of(atoms)) is not None:
            values = np.linalg.norm(forces, axis=1)
        return Picture(self._beside(atoms), values, domain, marked)

    def _beside(self, atoms: Atoms) -> np.ndarray:
        """Positions [N,3] where the structure on load lies: a free molecule wanders off.

        The median keeps the rest in view when single atoms fly away.
        """
        if atoms.pbc.any() or self._loaded is None or np.isnan(atoms.positions).all():
            return atoms.positions
        return atoms.positions - np.nan_to_num(np.nanmedian(atoms.positions - self._loaded.positions, axis=0))

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
        ends = ("0", f"≥ {self.force_top:g} eV/Å") if self.colour.value == "force" else None
        if (scale := self._scales.get(str(self.colour.value))) is not None:
            ends = scale.low_text, scale.high_text
        text = ""
        if ends is not None:
            text = (
                f'<span class="mk-colourbar">{ends[0]}<i style="background:{drawing.gradient()}"></i>{ends[1]}</span>'
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
        self.describe(index)
        if self.on_atom is not None:
            on_loop(self.on_atom, index)

    def _numbered(self, text: str) -> None:
        """The number of an atom was typed."""
        atoms = self._shown[0] if self._shown is not None else None
        if atoms is None or not text.strip().isdecimal():
            return
        index = int(text)
        if index >= len(atoms):
            self.text.value = f"no such atom: they are 0 to {len(atoms) - 1}"
            return
        self.describe(index)
        if self.on_atom is not None:
            on_loop(self.on_atom, index)

    def describe(self, index: int) -> None:
        """Say what is known of one atom of the frame on show."""
        assert self._shown is not None
        atoms, _, numbers = self._shown
        forces = forces_of(atoms)
        told = [f"<b>{atoms.symbols[index]} {index}</b>"]
        told += [f"force {np.linalg.norm(forces[index]):.2f} eV/Å"] if forces is not None else []
        told += [f"{name} {values[index]:.2f}" for name, values in numbers.items() if len(values) > index]
        self.text.value = " · ".join(told)


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
