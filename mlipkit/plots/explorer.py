"""Pictures of the shift explorer from plain arrays: the map of atoms, and one number over frames with its limits.

A map of some thousand atoms is drawn point by point; of more it is an image of bins, as a page draws a point in about
20 µs and a picture at once. Callers decide which points to give: hidden elements and sets are left out before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import plotly.graph_objects as go
from ase.data import chemical_symbols
from numpy.typing import ArrayLike

from mlipkit.errors import DataError
from mlipkit.plots.bins import BINS, GREY, Extent, Groups, Values, extent_of, over, png, rgb, shade
from mlipkit.plots.elements import element_colour
from mlipkit.plots.runs import COLOURS, FAILURE, WARNING, Mark, mark_layout, styled

MANY_POINTS = 3000
"""Up to so many points each is drawn; beyond them an image of bins."""
PICKED, CHOSEN = "#D6186F", "#D6186F"
"""Colour of the point that was clicked and of those in the selection."""


@dataclass(frozen=True)
class Trail:
    """A moving frame: its atoms now (x, y) [m], and the way of one point of it [t,2], oldest first."""

    now: np.ndarray
    way: np.ndarray
    colour: str = "#0072B2"


def by_element(numbers: ArrayLike) -> Groups:
    """Colours of atoms [n] by their atomic number."""
    known, codes = np.unique(np.asarray(numbers, int), return_inverse=True)
    return Groups(codes, tuple(chemical_symbols[z] for z in known), tuple(element_colour(int(z)) for z in known))


def score_map(
    x: ArrayLike,
    y: ArrayLike,
    colour: Groups | Values,
    *,
    axes: tuple[str, str] = ("PC1", "PC2"),
    chosen: ArrayLike | None = None,
    behind: ArrayLike | None = None,
    picked: tuple[float, float] | None = None,
    trail: Trail | None = None,
    marks: Sequence[tuple[float, float, str]] = (),
    text: Sequence[str] | None = None,
    extent: Extent | None = None,
) -> go.Figure:
    """Map of atoms.

    Args:
        x, y: [n] coordinates; points that are not finite are left out.
        colour: what each point is coloured by.
        axes: titles; one that begins with "log10 " gets powers of ten as ticks.
        chosen: bool [n], points of a selection.
        behind: bool [n], points drawn grey below the others (the sets that one is compared with).
        picked: the one point that was clicked.
        trail: a running simulation.
        marks: (x, y, "warning" or "failure").
        text: [n] what is shown on pointing at a point, when all are drawn.
        extent: x0, x1, y0, y1 of the part on show; all points when omitted.
    """
    data, layout = map_parts(
        x, y, colour, axes=axes, chosen=chosen, behind=behind, picked=picked, trail=trail, marks=marks, text=text,
        extent=extent,
    )  # fmt: skip
    return go.Figure({"data": data, "layout": layout})


def map_parts(
    x: ArrayLike,
    y: ArrayLike,
    colour: Groups | Values,
    *,
    axes: tuple[str, str] = ("PC1", "PC2"),
    chosen: ArrayLike | None = None,
    behind: ArrayLike | None = None,
    picked: tuple[float, float] | None = None,
    trail: Trail | None = None,
    marks: Sequence[tuple[float, float, str]] = (),
    text: Sequence[str] | None = None,
    extent: Extent | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Traces and layout of `score_map` as plain data; a page that changes ten times a second is fed with these."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim != 1:
        raise DataError("x and y differ in size", where="score_map", expected=x.shape, found=y.shape)
    known = np.isfinite(x) & np.isfinite(y)
    back = np.zeros(len(x), bool) if behind is None else np.asarray(behind, bool)
    taken = np.zeros(len(x), bool) if chosen is None else np.asarray(chosen, bool)
    x0, x1, y0, y1 = extent or extent_of(x[known], y[known])
    layout = _base_layout()
    layout["xaxis"] = {**layout["xaxis"], **_axis(axes[0], x0, x1)}
    layout["yaxis"] = {**layout["yaxis"], **_axis(axes[1], y0, y1)}
    inside = known & (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    data: list[dict[str, Any]] = []
    if np.count_nonzero(inside) > MANY_POINTS:
        rgba = np.zeros((BINS[1], BINS[0], 4), np.uint8)
        for part, look in ((inside & back, None), (inside & ~back, colour)):
            if part.any():
                rgba = over(rgba, shade(x[part], y[part], _take(look, part), (x0, x1, y0, y1)))
        some = inside & taken
        if np.count_nonzero(some) > MANY_POINTS // 4:
            rgba = over(rgba, shade(x[some], y[some], CHOSEN, (x0, x1, y0, y1)))
        layout["images"] = [{
            "source": png(rgba), "xref": "x", "yref": "y", "x": x0, "y": y1, "sizex": x1 - x0, "sizey": y1 - y0,
            "sizing": "stretch", "layer": "below",
        }]  # fmt: skip
        # A page selects only where there is a trace.
        data.append(_points(np.array([x0, x1]), np.array([y0, y1]), {"opacity": 0.0, "size": 1}))
        text = None
    else:
        data.append(_points(x[inside & back], y[inside & back], {"color": GREY, "size": 3, "opacity": 0.45}))
        front = inside & ~back
        data += _coloured(x[front], y[front], _take(colour, front), None if text is None else np.asarray(text)[front])
    data += _legend(colour)
    if np.count_nonzero(inside & taken) <= MANY_POINTS // 4:
        ring = {"color": "rgba(0,0,0,0)", "size": 8, "line": {"color": CHOSEN, "width": 1.6}}
        data.append(_points(x[inside & taken], y[inside & taken], ring, name="selected"))
    if trail is not None and len(trail.way):
        data.append(_points(trail.now[:, 0], trail.now[:, 1], {
            "color": "rgba(0,0,0,0)", "size": 6, "line": {"color": trail.colour, "width": 1.2},
        }, name="frame now"))  # fmt: skip
        fade = np.linspace(0.1, 1.0, len(trail.way))
        data.append(_points(
            trail.way[:, 0], trail.way[:, 1],
            {"color": trail.colour, "size": 5, "opacity": [round(float(f), 2) for f in fade]}, name="trail",
        ) | {"mode": "lines+markers", "line": {"color": trail.colour, "width": 1}})  # fmt: skip
    for kind, sign, tone in (("warning", "triangle-down", WARNING), ("failure", "x", FAILURE)):
        there = [(a, b) for a, b, what in marks if what == kind]
        if there:
            at = np.array(there)
            data.append(_points(at[:, 0], at[:, 1], {
                "symbol": sign, "size": 13, "color": tone, "line": {"color": "#ffffff", "width": 1},
            }, name=kind))  # fmt: skip
    if picked is not None:
        # Black and white: seen on light and dark ground, and on every colour.
        for tone, width in (("#000000", 5), ("#ffffff", 2)):
            ring = {"symbol": "circle-open", "size": 16, "color": tone, "line": {"color": tone, "width": width}}
            data.append(_points(np.array(picked[:1]), np.array(picked[1:]), ring, name="picked"))
    return data, layout


def value_series(
    x: ArrayLike,
    curves: Mapping[str, ArrayLike],
    *,
    x_title: str,
    y_title: str,
    colours: Mapping[str, str] | None = None,
    bands: Mapping[str, tuple[float, float]] | None = None,
    limits: Mapping[str, float] | None = None,
    marks: Sequence[Mark] = (),
) -> go.Figure:
    """One number over frames or time, with the band that is usual and the limit above it.

    Args:
        x: [f] frame numbers or times.
        curves: name -> [f].
        bands: name -> lowest and highest usual value.
        limits: name -> value above which atoms count as outside the training space.
        marks: first warning and failure, in the unit of `x`.
    """
    figure = go.Figure()
    tones = {name: (colours or {}).get(name, COLOURS[i % len(COLOURS)]) for i, name in enumerate(curves)}
    for name, values in curves.items():
        figure.add_trace(go.Scatter(
            x=np.asarray(x), y=np.asarray(values, float), name=name, mode="lines" if len(np.ravel(values)) > 1 else
            "markers", line={"width": 1.6, "color": tones[name]},
        ))  # fmt: skip
    laid = mark_layout(marks)
    shapes: list[dict[str, Any]] = [
        {
            "type": "rect", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": low, "y1": high, "layer": "below",
            "line": {"width": 0}, "fillcolor": tones.get(name, GREY), "opacity": 0.13,
        }
        for name, (low, high) in (bands or {}).items()
    ]  # fmt: skip
    shapes += [
        {
            "type": "line", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": limit, "y1": limit,
            "line": {"color": tones.get(name, GREY), "dash": "dot", "width": 1.3},
        }
        for name, limit in (limits or {}).items()
    ]  # fmt: skip
    figure.update_layout(shapes=shapes + laid["shapes"], annotations=laid["annotations"], showlegend=True)
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text=y_title, rangemode="tozero")
    return styled(figure, 240)


def density_curves(
    edges: ArrayLike, curves: Mapping[str, ArrayLike], *, x_title: str, y_title: str = "share per Å",
    colours: Mapping[str, str] | None = None, now: ArrayLike | None = None,
) -> go.Figure:  # fmt: skip
    """Histograms on common bins as steps, one colour each.

    Args:
        edges: [b+1]; curves: name -> [b] densities.
        now: [v] values of the frame on show, as ticks on the axis.
    """
    borders = np.asarray(edges, float)
    figure = go.Figure()
    for index, (name, values) in enumerate(curves.items()):
        tone = (colours or {}).get(name, COLOURS[index % len(COLOURS)])
        figure.add_trace(go.Scatter(
            x=0.5 * (borders[1:] + borders[:-1]), y=np.asarray(values, float), name=name, mode="lines",
            line={"shape": "hvh", "width": 1.6, "color": tone}, fill="tozeroy", fillcolor=_clear(tone, 0.12),
        ))  # fmt: skip
    ticks = np.asarray([] if now is None else now, float)
    figure.add_trace(go.Scatter(
        x=ticks, y=np.zeros(len(ticks)), name="this frame", mode="markers", showlegend=bool(len(ticks)),
        marker={"symbol": "line-ns-open", "size": 12, "color": PICKED, "line": {"width": 1.4}},
    ))  # fmt: skip
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text=y_title, rangemode="tozero")
    return styled(figure, 240)


def _take(colour: Groups | Values | None, mask: np.ndarray) -> Groups | Values | None:
    if isinstance(colour, Groups):
        return Groups(np.asarray(colour.codes)[mask], colour.names, colour.colours)
    if isinstance(colour, Values):
        return Values(np.asarray(colour.values, float)[mask], colour.low, colour.high, colour.title)
    return None


def _points(x: np.ndarray, y: np.ndarray, marker: dict[str, Any], name: str = "") -> dict[str, Any]:
    # What a loop leaves out must not fade: Python answers what is inside.
    steady = {"marker": {"opacity": marker.get("opacity", 1.0)}} if not isinstance(marker.get("opacity"), list) else {}
    return {
        "type": "scatter", "mode": "markers", "x": _plain(x), "y": _plain(y), "marker": marker, "name": name,
        "hoverinfo": "skip", "showlegend": False, "selected": steady, "unselected": steady,
    }  # fmt: skip


def _coloured(
    x: np.ndarray, y: np.ndarray, colour: Groups | Values | None, text: np.ndarray | None
) -> list[dict[str, Any]]:
    shown = {} if text is None else {"hoverinfo": "text"}
    if isinstance(colour, Values):
        marker = {
            "color": [None if np.isnan(v) else round(float(min(v, colour.high)), 5) for v in colour.values], "size": 4,
            "opacity": 0.85, "colorscale": "Viridis", "cmin": colour.low, "cmax": colour.high,
        }  # fmt: skip
        more = (shown and text is not None and {**shown, "hovertext": text.tolist()}) or {}
        return [_points(x, y, marker) | more]
    assert isinstance(colour, Groups)
    made = []
    for code, (name, tone) in enumerate(zip(colour.names, colour.colours, strict=True)):
        mine = colour.codes == code
        if mine.any():
            more = {} if text is None else {**shown, "hovertext": text[mine].tolist()}
            made.append(_points(x[mine], y[mine], {"color": tone, "size": 4, "opacity": 0.75}, name) | more)
    return made


def _legend(colour: Groups | Values) -> list[dict[str, Any]]:
    """Entries without points: they are there however the points are drawn."""
    nothing = {"type": "scatter", "mode": "markers", "x": [None], "y": [None], "hoverinfo": "skip"}
    if isinstance(colour, Groups):
        return [
            {**nothing, "name": name, "showlegend": True, "marker": {"color": tone, "size": 8}}
            for name, tone in zip(colour.names, colour.colours, strict=True)
        ]
    bar = {
        "title": {"text": colour.title, "side": "right"}, "thickness": 12, "len": 0.9, "outlinewidth": 0,
    }  # fmt: skip
    return [{**nothing, "showlegend": False, "marker": {
        "color": [colour.low], "cmin": colour.low, "cmax": colour.high, "colorscale": "Viridis", "showscale": True,
        "colorbar": bar,
    }}]  # fmt: skip


def _axis(title: str, low: float, high: float) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": title.removeprefix("log10 "), "standoff": 6}, "range": [low, high]}
    if title.startswith("log10 "):
        powers = range(int(np.ceil(low)), int(np.floor(high)) + 1)
        axis |= {"tickmode": "array", "tickvals": list(powers), "ticktext": [f"10<sup>{p}</sup>" for p in powers]}
    return axis


def _base_layout() -> dict[str, Any]:
    layout = dict(_styled_layout())
    return {**layout, "xaxis": dict(layout["xaxis"]), "yaxis": dict(layout["yaxis"])}


@cache
def _styled_layout() -> dict[str, Any]:
    layout = styled(go.Figure(), 420).to_plotly_json()["layout"]
    layout.pop("template", None)
    layout["modebar"] = {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": COLOURS[0], "orientation": "h"}
    layout |= {"hovermode": "closest", "dragmode": "lasso", "margin": {"l": 62, "r": 12, "t": 34, "b": 44}}
    return layout


def _plain(values: np.ndarray) -> list[float]:
    # Seven digits are finer than a pixel of any zoom, and half the text.
    return np.asarray(values, np.float64).round(6).tolist()


def _clear(colour: str, alpha: float) -> str:
    red, green, blue = rgb(colour)
    return f"rgba({red:.0f},{green:.0f},{blue:.0f},{alpha})"
