"""Maps of atoms in score space: by element, set, time or value; what one set leaves out; growth; a path over time.

Plain arrays in, a plotly Figure out. Some thousands of points are drawn one by one; above that a map is binned, so that
a figure stays small (at most `CELLS` squared cells, whatever the number of atoms) and dense regions are not one blot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mlipkit.errors import DataError
from mlipkit.plots.cells import (
    CELLS,
    GROUND,
    POINTS,
    by_size,
    categories,
    colours_of,
    dots,
    edges_of,
    group_cells,
    group_points,
    legend_key,
    value_cells,
    value_points,
)
from mlipkit.plots.elements import element_colour
from mlipkit.plots.runs import COLOURS, STOPPED, styled


def score_map(
    x: ArrayLike, y: ArrayLike, *, groups: Sequence[str] | np.ndarray | None = None, values: ArrayLike | None = None,
    value_title: str = "", how: Literal["mean", "max"] = "mean", axes: tuple[str, str] = ("PC1", "PC2"),
    colours: Mapping[str, str] | None = None, text: Sequence[str] | None = None, log: bool = False,
    limit: int = POINTS,
) -> go.Figure:  # fmt: skip
    """Atoms in a plane of two scores (PC1-2, PC3-4, T²-Q), coloured by group or by value; counts without either.

    Args:
        x, y: [n].
        groups: [n] element, set or iteration of each atom.
        values: [n] time, Q, force error; `value_title` names it with its unit.
        how: what a cell of a binned map shows of its values.
        axes: titles, with explained variance where there is one.
        colours: group -> colour; elements have theirs.
        text: [n] shown beside the pointer (points only).
        log: both axes logarithmic, for T² and Q; all scores must be positive.
        limit: more points than this are binned.

    Raises:
        DataError: columns of different length, both groups and values, logarithm of what is not positive.
    """
    a, b = _pair(x, y, "score_map")
    if groups is not None and values is not None:
        raise DataError("a map is coloured by groups or by values", where="score_map")
    if log and len(a) and min(a.min(), b.min()) <= 0:
        raise DataError("a logarithmic map needs positive scores", where="score_map", found=min(a.min(), b.min()))
    binned = len(a) > limit
    if log and binned:
        a, b = np.log10(a), np.log10(b)
    figure = go.Figure()
    if groups is not None:
        labels = _column(groups, len(a), "group")
        if binned:
            figure.add_traces(group_cells(a, b, labels, colours or {}))
        else:
            figure.add_traces(group_points(a, b, labels, colours or {}, text))
    else:
        column = None if values is None else _column(values, len(a), "value").astype(float)
        if binned or column is None:
            figure.add_trace(value_cells(a, b, column, value_title, how))
        else:
            figure.add_trace(value_points(a, b, column, value_title, text))
    styled(figure, 460)
    titles = tuple(f"log₁₀ {title}" if log and binned else title for title in axes)
    for update, title, column in ((figure.update_xaxes, titles[0], a), (figure.update_yaxes, titles[1], b)):
        update(title_text=title, **(_log_axis(column) if log and not binned else {}))
    figure.update_layout(hovermode="closest", legend={"itemsizing": "constant"})
    if binned:
        _noted(figure, f"binned: {len(a):,} atoms in {CELLS} × {CELLS} cells")
    return figure


def white_overlay(
    a: tuple[ArrayLike, ArrayLike], b: tuple[ArrayLike, ArrayLike], names: tuple[str, str], *,
    groups: Sequence[str] | np.ndarray | None = None, dot: int = 2, axes: tuple[str, str] = ("PC1", "PC2"),
    ghost: bool = True, share: float | None = None,
) -> go.Figure:  # fmt: skip
    """Set A with set B drawn over it in the colour of the ground: what stays visible, B does not cover.

    The published picture (arXiv 2603.10159). Drawing order and dot size decide what is seen: its number belongs to it.

    Args:
        a, b: scores (x [n], y [n]) of both sets.
        names: of both sets.
        groups: [n] element of each atom of A.
        dot: radius of a dot in cells of the map.
        ghost: show where B lies by a shade of grey; without it B is invisible, as published.
        share: U(A\\B) of the coverage grid, for the title.
    """
    ax, ay = _pair(*a, "white_overlay")
    bx, by = _pair(*b, "white_overlay")
    labels = np.full(len(ax), names[0]) if groups is None else _column(groups, len(ax), "group")
    order = by_size(labels)
    # The figure is wider than high; dots come out round enough.
    xs, ys = edges_of(np.concatenate([ax, bx]), 2 * CELLS), edges_of(np.concatenate([ay, by]), 5 * CELLS // 4)
    picture = np.zeros((len(ys) - 1, len(xs) - 1), dtype=np.uint8)
    for number, name in enumerate(order, start=2):
        mine = labels == name
        picture[dots(ax[mine], ay[mine], xs, ys, dot)] = number
    picture[dots(bx, by, xs, ys, dot)] = 1 if ghost else 0
    palette = ["rgba(0,0,0,0)", "rgba(128,128,128,0.22)", *colours_of(order, {})]
    figure = go.Figure(categories(picture, xs, ys, palette))
    for name, colour in zip(order, palette[2:], strict=True):
        figure.add_trace(legend_key(f"only {names[0]}" if groups is None else name, colour))
    if ghost:
        figure.add_trace(legend_key(names[1], "rgba(128,128,128,0.5)"))
    note = "" if groups is None else f"in colour: only {names[0]}"
    if share is not None:
        note += f"{'; ' if note else ''}U({names[0]} \\ {names[1]}) = {share:.1%}"
    return _finished(figure, axes, note)


def coverage_grid(
    a: ArrayLike, b: ArrayLike, width: float, names: tuple[str, str], *, axes: tuple[str, str] = ("PC1", "PC2")
) -> go.Figure:
    """Bins that only A, only B, or both occupy.

    Args:
        a, b: [n, 2], [m, 2] column and row of occupied bins.
        width: of the bins, units of the scores.
        names: of both sets.
    """
    first, second = _bins(a, "coverage_grid"), _bins(b, "coverage_grid")
    low, shape = _frame_of_bins(np.concatenate([first, second]))
    kind = np.zeros(shape, dtype=np.uint8)
    for bins, flag in ((first, 1), (second, 2)):
        kind[tuple((np.unique(bins, axis=0) - low)[:, ::-1].T)] |= flag
    palette = ["rgba(0,0,0,0)", COLOURS[1], COLOURS[0], GROUND]
    figure = go.Figure(categories(kind, *_bin_edges(low, shape, width), palette))
    counts = [int((kind == flag).sum()) for flag in (1, 2, 3)]
    for name, colour, count in zip(
        (f"only {names[0]}", f"only {names[1]}", "both"), palette[1:], counts, strict=True
    ):  # fmt: skip
        figure.add_trace(legend_key(f"{name}: {count:,} bins", "rgba(128,128,128,0.6)" if colour == GROUND else colour))
    return _finished(figure, axes, f"bins of {width:g}")


def growth_panels(
    bins: ArrayLike, born: ArrayLike, names: Sequence[str], width: float, *, axes: tuple[str, str] = ("PC1", "PC2")
) -> go.Figure:
    """One panel per iteration: bins it found first in colour, those that were there before in grey.

    Args:
        bins: [M, 2] column and row of occupied bins, each once; born: [M] number of the iteration that found it.
        names: of the iterations.
        width: of the bins, units of the scores.
    """
    places, first = _bins(bins, "growth_panels"), _column(born, len(np.asarray(bins)), "iteration").astype(int)
    low, shape = _frame_of_bins(places)
    rows = tuple((places - low)[:, ::-1].T)
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    titles = [f"{name}: +{int((first == number).sum()):,}" for number, name in enumerate(names)]
    figure = make_subplots(
        rows=lines, cols=columns, shared_xaxes=True, shared_yaxes=True, subplot_titles=titles,
        horizontal_spacing=0.02, vertical_spacing=0.14,
    )  # fmt: skip
    for number in range(len(names)):
        kind = np.zeros(shape, dtype=np.uint8)
        # Two bins of different elements may share a place: what is new stays in sight.
        for when, flag in ((first < number, 1), (first == number, 2)):
            kind[tuple(row[when] for row in rows)] = flag
        panel = categories(kind, *_bin_edges(low, shape, width), ["rgba(0,0,0,0)", GROUND, COLOURS[1]])
        figure.add_trace(panel, row=number // columns + 1, col=number % columns + 1)
    styled(figure, 110 + 230 * lines)
    figure.update_xaxes(nticks=4, matches="x")
    figure.update_yaxes(matches="y")
    for column in range(columns):
        figure.update_xaxes(title_text=axes[0], row=lines, col=column + 1)
    for line in range(lines):
        figure.update_yaxes(title_text=axes[1], row=line + 1, col=1)
    figure.update_layout(hovermode="closest", margin_t=60)
    figure.update_annotations(font_size=13)
    return figure


def growth_curve(names: Sequence[str], new: ArrayLike, total: ArrayLike, width: float) -> go.Figure:
    """Newly occupied bins of each iteration as bars, those of the union as a line, on one axis.

    Args:
        names: of the iterations [T]; new, total: [T] bins; width: of the bins, units of the scores.
    """
    figure = go.Figure(go.Bar(x=list(names), y=np.asarray(new), name="new", marker={"color": COLOURS[1]}))
    figure.add_trace(
        go.Scatter(x=list(names), y=np.asarray(total), name="union of all so far", mode="lines+markers",
                   line={"color": COLOURS[0], "width": 2})
    )  # fmt: skip
    styled(figure, 320)
    figure.update_xaxes(title_text="iteration", type="category")
    figure.update_yaxes(title_text=f"occupied bins of {width:g}", rangemode="tozero")
    return figure


def time_projection(
    x: ArrayLike, y: ArrayLike, time: ArrayLike, fit_on: tuple[ArrayLike, ArrayLike], *,
    time_title: str = "time (ps)", fit_on_name: str = "fit-on set", axes: tuple[str, str] = ("PC1", "PC2"),
) -> go.Figure:  # fmt: skip
    """A trajectory over the map of its fit-on set: colour is time, grey the set.

    Args:
        x, y, time: [n] scores of the trajectory's atoms and the time of their frame.
        fit_on: scores (x, y) of the set.
    """
    a, b = _pair(x, y, "time_projection")
    gx, gy = _pair(*fit_on, "time_projection")
    when = _column(time, len(a), "time").astype(float)
    xs, ys = edges_of(np.concatenate([a, gx])), edges_of(np.concatenate([b, gy]))
    ground = categories(dots(gx, gy, xs, ys, 0).astype(np.uint8), xs, ys, ["rgba(0,0,0,0)", "rgba(128,128,128,0.3)"])
    figure = go.Figure(ground)
    if len(a) > POINTS:
        figure.add_trace(value_cells(a, b, when, time_title, "mean", (xs, ys)))
    else:
        figure.add_trace(value_points(a, b, when, time_title, None))
    figure.add_trace(legend_key(fit_on_name, "rgba(128,128,128,0.6)"))
    return _finished(figure, axes, "")


def distance_trend(
    time: ArrayLike, distance: ArrayLike, *, by_element: Mapping[str, ArrayLike] | None = None,
    rho: tuple[float, float, float] | None = None, time_title: str = "time (ps)",
) -> go.Figure:  # fmt: skip
    """Distance of each frame to the fit-on set against time.

    Args:
        time, distance: [F] median over atoms, units of the scores.
        by_element: symbol -> [F].
        rho: Spearman's ρ with the ends of its interval, for the title.
    """
    figure = go.Figure()
    for symbol, values in (by_element or {}).items():
        colour = element_colour(symbol)
        figure.add_trace(
            go.Scatter(x=np.asarray(time), y=np.asarray(values), name=symbol, mode="lines", opacity=0.75,
                       line={"width": 1.2, "color": colour})
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(x=np.asarray(time), y=np.asarray(distance), name="all atoms", mode="lines+markers",
                   line={"width": 2.6, "color": STOPPED}, marker={"size": 5})
    )  # fmt: skip
    styled(figure, 340)
    figure.update_xaxes(title_text=time_title)
    # A single metal ion lies ten times further out than hydrogen: on a linear axis it would flatten all others.
    figure.update_yaxes(title_text="distance to the fit-on set<br>(median, score units)", **_log_axis(distance))
    if rho is not None:
        ends = f" (95% interval {rho[1]:.2f} to {rho[2]:.2f})" if np.isfinite(rho[1:]).all() else ""
        _noted(figure, f"Spearman ρ = {rho[0]:.2f}{ends}")
    return figure


def _frame_of_bins(bins: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    low = bins.min(axis=0) - 1
    columns, rows = (bins.max(axis=0) - low + 2).tolist()
    return low, (rows, columns)


def _bin_edges(low: np.ndarray, shape: tuple[int, int], width: float) -> tuple[np.ndarray, np.ndarray]:
    return (low[0] + np.arange(shape[1] + 1)) * width, (low[1] + np.arange(shape[0] + 1)) * width


def _bins(bins: ArrayLike, where: str) -> np.ndarray:
    table = np.asarray(bins)
    if table.ndim != 2 or table.shape[1] != 2 or not len(table):
        raise DataError("bins are rows of two integers", where=where, found=table.shape)
    return table.astype(np.int64)


def _pair(x: ArrayLike, y: ArrayLike, where: str) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(x, dtype=float).reshape(-1), np.asarray(y, dtype=float).reshape(-1)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("two finite columns of scores are drawn", where=where, found=f"{len(a)} and {len(b)} values")
    return a, b


def _column(values: ArrayLike, n: int, what: str) -> np.ndarray:
    array = np.asarray(values).reshape(-1)
    if len(array) != n:
        raise DataError(f"one {what} per atom", where="a map", expected=n, found=len(array))
    return array


def _noted(figure: go.Figure, text: str) -> None:
    """A line of small print below the axis title: above stands a legend of any length."""
    figure.update_layout(margin_b=82)
    figure.add_annotation(
        text=text, xref="paper", yref="paper", x=1, y=0, xanchor="right", yanchor="top", yshift=-58, showarrow=False,
        font={"size": 11},
    )  # fmt: skip


def _log_axis(values: ArrayLike) -> dict[str, Any]:
    """A logarithmic axis with 1, 2, 5 while few decades are shown, and whole decades beyond."""
    array = np.asarray(values, dtype=float)
    array = array[np.isfinite(array) & (array > 0)]
    decades = np.ptp(np.log10(array)) if len(array) else 0.0
    return {"type": "log", "dtick": "D2" if decades < 2.5 else 1}


def _finished(figure: go.Figure, axes: tuple[str, str], note: str) -> go.Figure:
    styled(figure, 460)
    figure.update_xaxes(title_text=axes[0])
    figure.update_yaxes(title_text=axes[1])
    figure.update_layout(hovermode="closest")
    if note:
        _noted(figure, note)
    return figure
