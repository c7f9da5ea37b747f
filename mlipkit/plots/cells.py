"""Images of many points: cells of a map by group, by value or by kind, and the colours they share.

An image costs the same whatever the number of atoms; a mark in the legend stands beside it, as images have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mlipkit.plots.elements import element_colour

POINTS = 4000
"""Largest number of points that are drawn one by one."""
CELLS = 160
"""Cells of a binned map along each axis."""
# Ever lighter, so that its ends are told apart without red or green; neither vanishes on light or dark ground.
SCALE: list[list[Any]] = [[0.0, "#5A48B8"], [1 / 3, "#A84FA0"], [2 / 3, "#DB7157"], [1.0, "#F2B431"]]
GROUND = "rgba(128,128,128,0.28)"


def group_points(
    x: np.ndarray, y: np.ndarray, labels: np.ndarray, colours: Mapping[str, str], text: Sequence[str] | None
) -> list[go.Scatter]:
    """One trace of points per group, the smallest group on top."""
    order = by_size(labels)
    said = None if text is None else np.asarray(text)
    return [
        go.Scatter(
            x=x[labels == name], y=y[labels == name], name=str(name), mode="markers",
            marker={"size": 5, "opacity": 0.6, "color": colour},
            text=None if said is None else said[labels == name],
        )
        for name, colour in zip(order, colours_of(order, colours), strict=True)
    ]  # fmt: skip


def group_cells(x: np.ndarray, y: np.ndarray, labels: np.ndarray, colours: Mapping[str, str]) -> list[go.Heatmap]:
    """One image per group; a cell is the more opaque the more atoms it holds (logarithm). A key per group follows."""
    xs, ys = edges_of(x), edges_of(y)
    order = by_size(labels)
    palette = colours_of(order, colours)
    traces: list[Any] = []
    for name, colour in zip(order, palette, strict=True):
        mine = labels == name
        rows, columns = (slice(place.min(), place.max() + 1) for place in (cell_of(y[mine], ys), cell_of(x[mine], xs)))
        counts = np.log1p(np.histogram2d(y[mine], x[mine], bins=(ys, xs))[0][rows, columns])
        # 255 shades in one byte each, and no cell outside the group's own rectangle: a seventh of the size.
        traces.append(
            go.Heatmap(
                x=middles(xs)[columns], y=middles(ys)[rows], z=np.ceil(254 * counts / counts.max()).astype(np.uint8),
                zmin=0, zmax=254, showscale=False, hoverinfo="skip", legendgroup=str(name), name=str(name),
                colorscale=[[0.0, faint(colour, 0.0)], [1e-3, faint(colour, 0.35)], [1.0, faint(colour, 0.95)]],
            )
        )  # fmt: skip
    return traces + [legend_key(str(name), colour, str(name)) for name, colour in zip(order, palette, strict=True)]


def value_points(
    x: np.ndarray, y: np.ndarray, values: np.ndarray, title: str, text: Sequence[str] | None
) -> go.Scatter:
    """Points coloured by value, with a bar."""
    # The largest values on top: they are what one looks for.
    order = np.argsort(values, kind="stable")
    return go.Scatter(
        x=x[order], y=y[order], mode="markers", showlegend=False,
        text=None if text is None else np.asarray(text)[order],
        marker={"size": 5, "opacity": 0.8, "color": values[order], "colorscale": SCALE, "showscale": True,
                "colorbar": colour_bar(title)},
    )  # fmt: skip


def value_cells(
    x: np.ndarray, y: np.ndarray, values: np.ndarray | None, title: str, how: str,
    edges: tuple[np.ndarray, np.ndarray] | None = None,
) -> go.Heatmap:  # fmt: skip
    """An image of counts, or of the mean or largest value of each cell; empty cells stay empty."""
    xs, ys = edges or (edges_of(x), edges_of(y))
    counts = np.histogram2d(y, x, bins=(ys, xs))[0]
    bar = colour_bar(title)
    if values is None:
        shown = np.where(counts > 0, np.log10(np.maximum(counts, 1)), np.nan)
        ticks = np.arange(0, int(np.nanmax(shown, initial=0)) + 1)
        bar = {
            **colour_bar("atoms per cell"),
            "tickvals": ticks.tolist(),
            "ticktext": [f"{10 ** int(t):,}" for t in ticks],
        }
    elif how == "max":
        shown = np.full(counts.shape, -np.inf)
        np.maximum.at(shown, (cell_of(y, ys), cell_of(x, xs)), values)
        shown[counts == 0] = np.nan
    else:
        sums = np.histogram2d(y, x, bins=(ys, xs), weights=values)[0]
        shown = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return go.Heatmap(
        x=middles(xs), y=middles(ys), z=shown.astype(np.float32), colorscale=SCALE, colorbar=bar, name="",
        hoverongaps=False, hovertemplate="%{z:.3g}<extra></extra>",
    )  # fmt: skip


def categories(kind: np.ndarray, xs: np.ndarray, ys: np.ndarray, palette: Sequence[str]) -> go.Heatmap:
    """An image of small integers, each with its colour."""
    n = len(palette)
    scale = [[(i + side) / n, colour] for i, colour in enumerate(palette) for side in (0, 1)]
    return go.Heatmap(
        x=middles(xs), y=middles(ys), z=kind, zmin=-0.5, zmax=n - 0.5, colorscale=scale, showscale=False,
        hoverinfo="skip",
    )  # fmt: skip


def dots(x: np.ndarray, y: np.ndarray, xs: np.ndarray, ys: np.ndarray, radius: int) -> np.ndarray:
    """Cells that dots of a radius cover."""
    hit = np.zeros((len(ys) - 1, len(xs) - 1), dtype=bool)
    rows, columns = cell_of(y, ys), cell_of(x, xs)
    reach = np.arange(-radius, radius + 1)
    for dy, dx in ((i, j) for i in reach for j in reach if i * i + j * j <= radius * radius + radius):
        hit[np.clip(rows + dy, 0, len(ys) - 2), np.clip(columns + dx, 0, len(xs) - 2)] = True
    return hit


def cell_of(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Number of the cell that holds each value."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def edges_of(values: np.ndarray, cells: int = CELLS) -> np.ndarray:
    """Borders [cells + 1] around all values, with a margin."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.02 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, cells + 1)


def middles(edges: np.ndarray) -> np.ndarray:
    """Middles of cells from their borders."""
    return 0.5 * (edges[1:] + edges[:-1])


def by_size(labels: np.ndarray) -> list[str]:
    """Groups, the largest first and so at the bottom."""
    names, counts = np.unique(labels, return_counts=True)
    return [str(names[i]) for i in np.argsort(-counts, kind="stable")]


def colours_of(order: Sequence[str], colours: Mapping[str, str]) -> list[str]:
    """Colour of each group: the caller's, the element's, or the next of `COLOURS`."""
    return [colours.get(name) or element_colour(name, number) for number, name in enumerate(order)]


def faint(colour: str, alpha: float) -> str:
    """A #rrggbb colour with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def legend_key(name: str, colour: str, group: str | None = None) -> go.Scatter:
    """A mark in the legend for an image."""
    marker = {"symbol": "square", "size": 9, "color": colour}
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, legendgroup=group)


def colour_bar(title: str) -> dict[str, Any]:
    """The bar beside a map."""
    return {"title": {"text": title, "side": "right"}, "thickness": 14, "outlinewidth": 0}
