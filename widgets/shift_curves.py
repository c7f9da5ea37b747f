"""Below the map: Q of a set over its frames with what is usual, and bond lengths of the sets on the same bins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
from ase.data import chemical_symbols

from mlipkit.data import FrameSet
from mlipkit.plots import explorer as plots
from mlipkit.plots.runs import COLOURS, Mark

from .parts import row
from .plot import Plot
from .shift_data import Points, ShiftData, ShiftSet
from .ticker import in_background

FS_PER_PS = 1000.0
MOST_POINTS = 1000
"""Points per curve; of more frames the highest of each stretch is shown."""
BOND_FRAMES = 100
"""Frames per set, evenly spread, whose bonds are counted."""
FEWEST_BINS, MOST_BINS = 12, 60
FIRST_PAIRS = ("O-H", "C-H", "N-H", "Cl-H", "C-C", "O-C")


class QSeries(w.VBox):
    """Q of one set over time or frames, element by element: the mean of each frame, or its worst atom.

    Args:
        on_frame: called with the frame that was clicked.
    """

    def __init__(self, on_frame: Callable[[int], None]) -> None:
        self._on_frame = on_frame
        self._at: tuple[ShiftData, ShiftSet, tuple[int, ...], int, int] | None = None
        self._key: tuple[object, int] = (None, -1)
        self._n_curves = 0
        self.which = w.ToggleButtons(
            options=[("frame mean", "mean"), ("worst atom", "max")], style={"button_width": "auto"}
        )
        self.plot = Plot(
            plots.value_series([], {}, x_title="frame", y_title="SOAP Q"), height=230, on_click=self._clicked,
            label="Outside training space (SOAP Q) over the frames of a set",
        )  # fmt: skip
        self.plot.prompt = True
        super().__init__([row(w.HTML("<b>Outside training space (SOAP Q)</b>"), self.which), self.plot])
        self.add_class("mlipkit-pane-curves")
        self.which.observe(lambda _change: self._again(), "value")

    def show(self, data: ShiftData, one: ShiftSet, elements: Sequence[int], frame: int, atom: int) -> None:
        """Show a set, mark a frame of it, and draw the Q of one atom (-1: none) where all frames have the same atoms.

        Only what has changed is sent; of a growing run the curves alone.
        """
        self._at = data, one, tuple(elements), frame, atom
        points = one.points
        if points is None or not points.n_frames:
            self.plot.cursor = None
            return
        x = self._axis(one)
        marks = {at: kind for at, kind in one.marks.items() if at < len(x)}
        look = (data, one.name, self._at[2], self.which.value, tuple(data.bands.items()), tuple(marks.items()))
        if (look, data.revision) != self._key:
            curves = self._curves(points, elements)
            if look != self._key[0]:
                self.plot.show(self._figure(data, one, curves, x))
            else:
                self.plot.replace({i: thin(x, values) for i, values in enumerate(curves.values())})
            self._key, self._n_curves = (look, data.revision), len(curves)
        self.plot.cursor = float(x[frame]) if 0 <= frame < len(x) else None
        sizes = np.diff(points.offsets)
        own = np.zeros(0)
        if 0 <= atom < sizes.min() and len(x) > 1 and len(np.unique(points.numbers[points.offsets[:-1] + atom])) == 1:
            own = points.q[points.offsets[:-1] + atom]
        self.plot.replace({self._n_curves: thin(x, own) if len(own) else (own, own)})

    def _axis(self, one: ShiftSet) -> np.ndarray:
        return one.times() / (FS_PER_PS if one.timed else 1.0)

    def _curves(self, points: Points, elements: Sequence[int]) -> dict[int, np.ndarray]:
        """Element -> [F]."""
        frame_of = np.repeat(np.arange(points.n_frames), np.diff(points.offsets))
        found = {}
        for z in elements:
            mine = points.numbers == z
            if mine.any():
                found[z] = per_frame(points.q[mine], frame_of[mine], points.n_frames, str(self.which.value))
        return found

    def _figure(self, data: ShiftData, one: ShiftSet, curves: dict[int, np.ndarray], x: np.ndarray) -> go.Figure:
        points = one.points
        assert points is not None
        known = {
            z: float(np.nanmax(limit)) for z in curves if np.isfinite(limit := points.limit[points.numbers == z]).any()
        }
        thinned = {chemical_symbols[z]: thin(x, values) for z, values in curves.items()}
        marks = [
            Mark(float(x[at]), "failure" if kind == "failure" else "warning", f"{kind}, frame {at}")
            for at, kind in one.marks.items() if at < len(x)
        ]  # fmt: skip
        figure = plots.value_series(
            next((at for at, _ in thinned.values()), []), {name: values for name, (_, values) in thinned.items()},
            x_title="time (ps)" if one.timed else "frame",
            y_title="mean Q" if self.which.value == "mean" else "largest Q",
            colours={chemical_symbols[z]: plots.element_colour(z) for z in curves},
            bands={chemical_symbols[z]: data.bands[z] for z in curves if z in data.bands},
            limits={chemical_symbols[z]: limit for z, limit in known.items()}, marks=marks,
        )  # fmt: skip
        line = {"width": 1.2, "color": plots.PICKED}
        figure.add_scatter(x=[], y=[], name="picked atom", mode="lines", line=line, showlegend=False)
        return figure.update_layout(margin={"t": 28, "b": 40})

    def _again(self) -> None:
        if self._at is not None:
            self.show(*self._at)

    def _clicked(self, x: float, _y: float, _trace: int) -> None:
        times = self._axis(self._at[1]) if self._at is not None else np.zeros(0)
        if len(times):
            self._on_frame(int(np.abs(times - x).argmin()))


class BondPane(w.VBox):
    """Bond lengths of the visible sets, counted beside the notebook; ticks show the frame on show."""

    def __init__(self) -> None:
        self._data: ShiftData | None = None
        self._sets: tuple[str, ...] = ()
        self._counted: dict[tuple[str, str, int], np.ndarray] = {}
        self._waiting: set[tuple[str, str, int]] = set()
        self._now = np.zeros(0)
        self._key: tuple[object, ...] = ()
        self.pair = w.Dropdown(options=["-"], description="bond", layout={"width": "160px"})
        self.pair.style.description_width = "40px"
        self.plot = Plot(plots.density_curves([0, 1], {}, x_title="length (Å)"), height=230, label="Bond lengths")
        super().__init__([row(w.HTML("<b>Lengths</b>"), self.pair), self.plot])
        self.add_class("mlipkit-pane-bonds")
        self.pair.observe(lambda _change: self._draw(), "value")

    def show(self, data: ShiftData, sets: Sequence[str]) -> None:
        """Show these sets."""
        self._data, self._sets = data, tuple(sets)
        pairs = [
            f"{chemical_symbols[b]}-{chemical_symbols[a]}"
            for a, b in combinations_with_replacement(data.elements, 2)
            if (a, b) != (1, 1) or data.elements == [1]
        ]
        pairs.sort(key=lambda pair: FIRST_PAIRS.index(pair) if pair in FIRST_PAIRS else len(FIRST_PAIRS))
        if pairs and list(self.pair.options) != pairs:
            self.pair.options = pairs
            self.pair.value = pairs[0]
        self._draw()

    def point_at(self, one: ShiftSet, frame: int) -> None:
        """Show the bonds of one frame as ticks."""
        if self.pair.value in (None, "-") or not 0 <= frame < len(one.frames):
            return
        rows = one.sound([frame])
        self._now = lengths_of(one.frame_set(rows), str(self.pair.value)) if rows else np.zeros(0)
        self.plot.replace({len(self.plot.shown[0]) - 1: (self._now, np.zeros(len(self._now)))})

    def _draw(self) -> None:
        if self._data is None or self.pair.value in (None, "-"):
            return
        known: dict[str, np.ndarray] = {}
        for name in self._sets:
            one, pair = self._data[name], str(self.pair.value)
            step = max(1, len(one.frames) // BOND_FRAMES)
            # A growing run is counted again only when it is a good deal longer.
            key = (name, pair, int(np.log2(len(one.frames) + 1)) if one.run is not None else len(one.frames))
            if key in self._counted:
                known[name] = self._counted[key]
            elif key not in self._waiting and len(one.frames):
                self._waiting.add(key)
                # Read here: a run's files are not for two threads.
                frames = one.frame_set(one.sound(range(0, len(one.frames), step)))
                in_background(
                    lambda frames=frames, pair=pair: lengths_of(frames, pair),
                    lambda found, error, key=key: self._arrived(key, found, error),
                )
        drawn = (self.pair.value, tuple((name, id(values)) for name, values in known.items()))
        if drawn == self._key:
            return
        self._key = drawn
        there = [values for values in known.values() if len(values)]
        if not there:
            self.plot.show(plots.density_curves([0, 1], {}, x_title=f"{self.pair.value} (Å)"))
            return
        bins = int(np.clip(np.sqrt(max(map(len, there))), FEWEST_BINS, MOST_BINS))
        edges = np.linspace(min(v.min() for v in there), max(v.max() for v in there) + 1e-9, bins + 1)
        curves = {name: np.histogram(v, edges, density=True)[0] for name, v in known.items() if len(v)}
        tones = {name: set_colour(self._data, name) for name in curves}
        figure = plots.density_curves(edges, curves, x_title=f"{self.pair.value} (Å)", colours=tones, now=self._now)
        self.plot.show(figure.update_layout(margin={"t": 28, "b": 40}))

    def _arrived(self, key: tuple[str, str, int], found: object, error: BaseException | None) -> None:
        self._waiting.discard(key)
        self._counted[key] = np.zeros(0) if error is not None else np.asarray(found)
        self._draw()


def set_colour(data: ShiftData, name: str) -> str:
    """Colour of a set on the map and in the bond lengths."""
    return COLOURS[data.names.index(name) % len(COLOURS)]


def lengths_of(frames: FrameSet, pair: str) -> np.ndarray:
    """Bond lengths [B] in Å; none where an element of the pair is missing."""
    from mlipkit.analysis.bonds import bond_lengths, cuts_of

    numbers = {chemical_symbols.index(symbol) for symbol in pair.split("-")}
    if not numbers <= set(frames.elements):
        return np.zeros(0)
    return bond_lengths(frames, pair, cuts_of(pair).soft).lengths


def per_frame(values: np.ndarray, frame: np.ndarray, count: int, how: str) -> np.ndarray:
    """[F] mean or largest of values [n] in each frame; NaN where there is none."""
    found = np.full(count, np.nan)
    if how == "max":
        largest = np.full(count, -np.inf)
        np.maximum.at(largest, frame, values)
        return np.where(np.isfinite(largest), largest, np.nan)
    many = np.bincount(frame, minlength=count)
    found[many > 0] = np.bincount(frame, values, count)[many > 0] / many[many > 0]
    return found


def thin(x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `MOST_POINTS`: the highest value of each stretch, at the start of the stretch."""
    step = -(-len(x) // MOST_POINTS) if len(x) else 1
    if step <= 1:
        return x, values
    starts = np.arange(0, len(x), step)
    return x[starts], np.fmax.reduceat(values, starts)
