"""A plot that is a map of points: lasso, box, zoom, and picking anywhere on it.

The page tells what the user drew, in data coordinates; which points are meant is decided here, where all of them are
known, also those that a page shows only as an image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go

from .plot import Parts, Plot
from .ticker import on_loop


class MapPlot(Plot):
    """Shows a map.

    Args:
        on_pick: called as ``on_pick(x, y, dx, dy)`` with a place and the size of a pixel there.
        on_select: called as ``on_select(kind, polygon)`` with "lasso" or "box" and its corners [m,2].
        on_range: called with x0, x1, y0, y1 of the part that shall be on show, or None for the whole.
    """

    def __init__(
        self,
        figure: go.Figure | Parts,
        *,
        height: int = 420,
        label: str = "",
        on_pick: Callable[[float, float, float, float], None],
        on_select: Callable[[str, np.ndarray], None],
        on_range: Callable[[tuple[float, float, float, float] | None], None],
    ) -> None:
        super().__init__(go.Figure(), height=height, label=label)
        self.tools, self.prompt = "map", True
        self._on_pick, self._on_select, self._on_range = on_pick, on_select, on_range
        self.show(figure)

    def _heard(self, content: dict) -> None:
        kind, x, y = content.get("type"), content.get("x"), content.get("y")
        if kind == "pick" and x is not None and y is not None:
            on_loop(self._on_pick, float(x), float(y), float(content["dx"]), float(content["dy"]))
        elif kind == "select" and isinstance(x, list) and isinstance(y, list) and len(x) == len(y) > 2:
            on_loop(self._on_select, str(content.get("kind")), np.stack([np.array(x, float), np.array(y, float)], 1))
        elif kind == "range" and x is None:
            on_loop(self._on_range, None)
        elif kind == "range" and isinstance(x, list) and isinstance(y, list):
            on_loop(self._on_range, (*sorted(map(float, x)), *sorted(map(float, y))))


def inside(polygon: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """bool [n]: points within a closed polygon [m,2], by the even-odd rule; edges that cross are fine."""
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    near = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    px, py = x[near], y[near]
    odd = np.zeros(len(near), bool)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y1 == y2:
            continue
        crosses = (y1 > py) != (y2 > py)
        odd ^= crosses & (px < (x2 - x1) * (py - y1) / (y2 - y1) + x1)
    found = np.zeros(len(x), bool)
    found[near[odd]] = True
    return found


def nearest(x: np.ndarray, y: np.ndarray, at: tuple[float, float], pixel: tuple[float, float]) -> tuple[int, float]:
    """The point nearest to a place as the reader sees it, and its distance in pixels; (-1, inf) without points."""
    distance = ((x - at[0]) / pixel[0]) ** 2 + ((y - at[1]) / pixel[1]) ** 2
    distance = np.where(np.isfinite(distance), distance, np.inf)
    if not len(distance) or not np.isfinite(distance.min()):
        return -1, np.inf
    best = int(distance.argmin())
    return best, float(np.sqrt(distance[best]))
