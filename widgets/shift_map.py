"""The map of atoms: draws what the controls ask for, and tells what was picked or encircled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets as w
import numpy as np
from ase.data import chemical_symbols

from mlipkit.data import Selection
from mlipkit.plots import explorer as plots

from .map_plot import MapPlot, nearest
from .shift_controls import Picks
from .shift_curves import FS_PER_PS, set_colour
from .shift_data import ShiftData

REACH = 14
"""Pixels from a point within which a click means it."""
TRAIL = 200
"""Frames of a running simulation that stay on the map."""
Place = tuple[str, int, int]
"""Set, frame, atom."""


@dataclass(frozen=True)
class Following:
    """A simulation that moves over the map: its set, the frame on show, the atom whose way is drawn, is it running."""

    name: str
    frame: int
    atom: int
    live: bool = False


class ShiftMap(w.VBox):
    """Shows the points of the sets.

    Args:
        on_pick: called with set, frame and atom of the point that was clicked.
        on_select: called with the kind of loop, its corners [m,2] and the points inside.

    Attributes:
        sentence: what the picture says in words, "" when nothing is to be said.
    """

    def __init__(
        self,
        on_pick: Callable[[str, int, int], None],
        on_select: Callable[[str, np.ndarray, np.ndarray], None],
    ) -> None:
        self._on_pick, self._on_select = on_pick, on_select
        self.data, self.picks = ShiftData(), Picks("PC1, PC2", "element", (), ())
        self._extents: dict[str, tuple[float, float, float, float] | None] = {}
        self._chosen = np.zeros(0, bool)
        self._selection = Selection()
        self._shown = np.zeros(0, bool)
        self._place: Place | None = None
        self._following: Following | None = None
        self._whole: tuple[object, tuple[float, float, float, float]] | None = None
        self.sentence = ""
        empty = plots.Groups(np.zeros(0, int), (), ())
        self.plot = MapPlot(
            plots.map_parts([], [], empty), height=430, label="Map of atoms by their surroundings",
            on_pick=self._picked, on_select=self._encircled, on_range=self._ranged,
        )  # fmt: skip
        super().__init__([self.plot])
        self.add_class("mlipkit-pane-map")

    def show(
        self,
        data: ShiftData,
        picks: Picks,
        selection: Selection,
        place: Place | None,
        following: Following | None = None,
    ) -> None:
        """Draw a picture; all points are known here, the page gets what it can show."""
        if data is not self.data:
            self._extents.clear()
        if selection is not self._selection or data is not self.data or len(self._chosen) != data.n_points:
            self._chosen = data.chosen(selection)
        self.data, self.picks, self._selection = data, picks, selection
        self._place, self._following = place, following
        self.draw()

    def draw(self) -> None:
        """Draw again what is on show."""
        data, picks = self.data, self.picks
        x, y = data.coordinates(picks.map)
        shown = data.shown(picks.elements, picks.sets)
        shown = self._without_past(shown)
        behind, self.sentence = self._behind(shown)
        self._shown = shown
        extent = self._extents.get(picks.map) or self._whole_map(x, y)
        mine = np.flatnonzero(shown)
        colour = self._colour(mine)
        few = len(mine) <= plots.MANY_POINTS
        text = data.labels(mine) if few else None
        self.plot.show(
            plots.map_parts(
                x[mine], y[mine], colour, axes=data.axes(picks.map), extent=extent, text=text,
                chosen=self._chosen[mine], behind=behind[mine], picked=self._picked_at(x, y), trail=self._trail(x, y),
                marks=self._marks(x, y),
            )
        )  # fmt: skip

    # What is drawn

    def _whole_map(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
        """The part that holds all points, whatever is hidden; of a growing run widened in jumps."""
        key = (self.data, self.picks.map)
        finite = np.isfinite(x) & np.isfinite(y)
        now = plots.extent_of(x[finite], y[finite])
        if self._whole is not None and self._whole[0] == key:
            old = self._whole[1]
            if (
                old[0] <= now[0] + 1e-9
                and old[1] >= now[1] - 1e-9
                and old[2] <= now[2] + 1e-9
                and old[3] >= now[3] - 1e-9
            ):
                return old
        self._whole = key, now
        return now

    def _without_past(self, shown: np.ndarray) -> np.ndarray:
        """Of a running simulation only the last frames."""
        if self._following is None or not self._following.live or self._following.name not in self.data.names:
            return shown
        code, row = self.data.names.index(self._following.name), self.data.column("row")
        past = (row <= self._following.frame - TRAIL) | (row > self._following.frame)
        return shown & ~((self.data.column("set") == code) & past)

    def _behind(self, shown: np.ndarray) -> tuple[np.ndarray, str]:
        """Points in grey below the rest: sets that another is compared with, or that a simulation moves over."""
        data, picks = self.data, self.picks
        codes = data.column("set")
        if picks.only_in in data.names:
            only = data.only_in(picks.only_in, picks.map, shown)
            mine = shown & (codes == data.names.index(picks.only_in))
            share = 100 * only.sum() / max(int(mine.sum()), 1)
            return shown & ~only, (
                f"{int(only.sum())} of {int(mine.sum())} atoms of {picks.only_in} ({share:.1f} %) lie where no other "
                f"set on show has one of their element (bins of {data.bin_width(picks.map):.2g}): those in colour."
            )
        if self._following is not None and self._following.name in data.names:
            return shown & (codes != data.names.index(self._following.name)), ""
        return np.zeros(len(shown), bool), ""

    def _colour(self, mine: np.ndarray) -> plots.Groups | plots.Values:
        data, kind = self.data, self.picks.colour
        if kind == "set":
            return plots.Groups(
                data.column("set")[mine], tuple(data.names), tuple(set_colour(data, n) for n in data.names)
            )
        if kind == "time":
            times = np.full(len(data.column("set")), np.nan)
            title = "frame"
            for code, one in enumerate(data.sets):
                where = np.flatnonzero(data.column("set") == code)
                if len(where):
                    title = "time (ps)" if one.timed else title
                    times[where] = (one.times() / (FS_PER_PS if one.timed else 1.0))[data.column("row")[where]]
            return _scaled(times[mine], title)
        if kind == "Q / limit":
            return plots.Values(data.column("ratio")[mine], 0.0, 2.0, "Q / limit")
        if kind == "force error":
            return _scaled(data.column("force_error")[mine], "force error (eV/Å)", low=0.0, share=99.0)
        codes = np.searchsorted(data.elements, data.column("numbers")[mine])
        names = tuple(chemical_symbols[z] for z in data.elements)
        return plots.Groups(codes, names, tuple(plots.element_colour(z) for z in data.elements))

    def _picked_at(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
        if self._place is None or self._place[0] not in self.data.names or self._place[2] < 0:
            return None
        index = self.data.index(*self._place)
        return (float(x[index]), float(y[index])) if index >= 0 and np.isfinite(x[index] + y[index]) else None

    def _trail(self, x: np.ndarray, y: np.ndarray) -> plots.Trail | None:
        moving = self._following
        if moving is None or moving.name not in self.data.names:
            return None
        first, one = self.data.index(moving.name, 0), self.data[moving.name].points
        if first < 0 or one is None:
            return None
        last = min(moving.frame, one.n_frames - 1)
        rows = np.arange(max(0, last - TRAIL + 1), last + 1)
        way = first + one.offsets[rows] + moving.atom
        now = np.arange(first + one.offsets[last], first + one.offsets[last + 1])
        now = now[self._shown[now]]
        step = max(1, len(now) // 400)
        return plots.Trail(
            np.stack([x[now], y[now]], 1)[::step], np.stack([x[way], y[way]], 1), set_colour(self.data, moving.name)
        )

    def _marks(self, x: np.ndarray, y: np.ndarray) -> list[tuple[float, float, str]]:
        """First warning and failure at the atom that was furthest outside then."""
        found = []
        for name in self.picks.sets:
            one = self.data[name]
            for frame, kind in one.marks.items():
                if one.points is None or frame >= one.points.n_frames:
                    continue
                index = self.data.index(name, frame, one.points.worst(frame))
                if np.isfinite(x[index] + y[index]):
                    found.append((float(x[index]), float(y[index]), kind))
        return found

    # What the reader does

    def _picked(self, x: float, y: float, dx: float, dy: float) -> None:
        where = self.data.coordinates(self.picks.map)
        mine = np.flatnonzero(self._shown)
        best, distance = nearest(where[0][mine], where[1][mine], (x, y), (dx, dy))
        if best >= 0 and distance <= REACH:
            name, frame, atom = self.data.place(int(mine[best]))
            self._on_pick(name, frame, atom)

    def _encircled(self, kind: str, polygon: np.ndarray) -> None:
        self._on_select(kind, polygon, self.data.within(self.picks.map, polygon, self._shown))

    def _ranged(self, extent: tuple[float, float, float, float] | None) -> None:
        self._extents[self.picks.map] = extent
        self.draw()


def _scaled(values: np.ndarray, title: str, low: float | None = None, share: float = 100.0) -> plots.Values:
    finite = values[np.isfinite(values)]
    high = float(np.percentile(finite, share)) if len(finite) else 1.0
    bottom = low if low is not None else float(finite.min()) if len(finite) else 0.0
    return plots.Values(values, bottom, high if high > bottom else bottom + 1.0, title)
