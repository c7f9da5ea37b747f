"""Feeds curves of a growing series to a plot: the whole once, decimated, then only what is new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .plot import Plot

if TYPE_CHECKING:
    from mlipkit.data.series import Series

MOST_POINTS = 1400
"""Points per curve that a page ever gets: lowest and highest of every pixel. More take the page longer to draw."""
PER_ROUND = 64

Curve = tuple[np.ndarray, np.ndarray]


class CurveFeed:
    """Keeps traces of a plot equal to columns of a series.

    Between two whole pictures of about half `MOST_POINTS`, new rows are appended, in the usual round at most
    `PER_ROUND` points (lowest and highest of each stretch): messages stay small however long and fast a run is.

    Args:
        plot: where the traces are.
        traces: column -> trace number.
        x: column of the common axis.
        x_scale: factor on the x column (0.001 for fs to ps).
        scales: column -> factor on its values.
        from_first: columns shown as the difference from their first row.
        exact: the x column is not evenly spaced; for series of few rows, all of which are read.
    """

    def __init__(
        self,
        plot: Plot,
        traces: Mapping[str, int],
        x: str,
        *,
        x_scale: float = 1.0,
        scales: Mapping[str, float] | None = None,
        from_first: tuple[str, ...] = (),
        exact: bool = False,
    ) -> None:
        self.plot, self.traces, self.x, self.x_scale = plot, dict(traces), x, x_scale
        self.scales, self.from_first, self.exact = dict(scales or {}), from_first, exact
        self.rows = 0
        self._on_page = 0
        self._first: dict[str, float] = {}

    def update(self, series: Series) -> bool:
        """Bring the plot up to the series; True when something was sent."""
        total = len(series)
        if total == self.rows:
            return False
        columns = [name for name in self.traces if name in series.columns]
        # After a long silence (a busy kernel) the tail must not look coarser than the rest.
        tail = max(PER_ROUND, -(-(total - self.rows) * MOST_POINTS // (2 * max(self.rows, 1))))
        anew = total < self.rows or self.rows == 0 or self._on_page + tail > MOST_POINTS
        if anew:
            first = series.read(list(self.from_first), 0, 1) if self.from_first else {}
            self._first = {name: float(np.nan_to_num(values[0])) for name, values in first.items()}
            curves = self._curves(series, columns, 0, total, MOST_POINTS // 2)
            self._on_page = 0
            self.plot.replace(curves)
        else:
            curves = self._curves(series, columns, self.rows, total, tail)
            self.plot.extend(curves)
        self._on_page += max((len(x) for x, _ in curves.values()), default=0)
        self.rows = total
        return True

    def _curves(self, series: Series, columns: list[str], start: int, stop: int, most: int) -> dict[int, Curve]:
        if self.exact:
            read = series.read([self.x, *columns], start, stop)
            step = max(1, -(-(stop - start) // most))
            found = {name: (read[self.x][::step], read[name][::step]) for name in columns}
        else:
            found = decimated(series, columns, self.x, start, stop, most)
        return {
            self.traces[name]: (x * self.x_scale, (y - self._first.get(name, 0.0)) * self.scales.get(name, 1.0))
            for name, (x, y) in found.items()
        }


def decimated(series: Series, columns: list[str], x: str, start: int, stop: int, most: int) -> dict[str, Curve]:
    """Column -> (x, y) of rows `start` to `stop`, at most about `most` points each.

    Rows are recorded at an even pace, so the x of a row between the first and the last is on the straight line.
    """
    if stop - start <= most:
        read = series.read([x, *columns], start, stop)
        return {name: (read[x], read[name]) for name in columns}
    first = float(series.read([x], start, start + 1)[x][0])
    last = float(series.read([x], stop - 1, stop)[x][0])
    slope = (last - first) / (stop - 1 - start)
    overview = series.overview(columns, max_points=most, start=start, stop=stop)
    return {name: (first + slope * (np.asarray(rows) - start), values) for name, (rows, values) in overview.items()}
