"""Pictures of bond lengths: distributions of several sets on the same bins, and their moments with intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.colors import hex_to_rgb
from plotly.subplots import make_subplots

from mlipkit.plots.runs import COLOURS, STOPPED, styled

TITLES = {"mean": "mean, Å", "std": "std, Å", "skew": "skew", "q05": "5 % quantile, Å", "q95": "95 % quantile, Å"}


def bond_distributions(
    edges: ArrayLike,
    densities: Mapping[str, ArrayLike],
    *,
    pair: str,
    means: Mapping[str, float] | None = None,
    hard_cut: float | None = None,
    title: str = "",
    log: bool = False,
) -> go.Figure:
    """Distributions of one bond in several sets, on the same bins.

    Args:
        edges: [B+1] Å. densities: set -> [B] 1/Å.
        pair: "O-H", on the axis.
        means: set -> Å, a dotted line in the colour of the set.
        hard_cut: Å, a line where the published histogram ends.
        title: one line, for example how far apart the sets are.
        log: logarithmic, so that the tail of a soft bond is seen.
    """
    borders = np.asarray(edges, dtype=float)
    figure = go.Figure()
    for index, (name, density) in enumerate(densities.items()):
        values = np.asarray(density, dtype=float)
        # As steps from edge to edge, so that bars of several sets can be told apart.
        x, y = np.repeat(borders, 2), np.concatenate([[0], np.repeat(values, 2), [0]])
        if log:
            y = np.where(y > 0, y, np.nan)
        colour = COLOURS[index % len(COLOURS)]
        figure.add_trace(
            go.Scatter(
                x=x, y=y, name=name, mode="lines", line={"width": 1.8, "color": colour}, fillcolor=faint(colour),
                fill="none" if log else "tozeroy", hovertemplate="%{x:.3f} Å: %{y:.3g}<extra>" + name + "</extra>",
            )
        )  # fmt: skip
        if means and name in means:
            figure.add_vline(x=means[name], line={"dash": "dot", "color": colour, "width": 1.5})
    if hard_cut is not None:
        figure.add_vline(
            x=hard_cut, line={"dash": "dash", "color": STOPPED, "width": 1.2}, annotation_text="hard cut",
            annotation_position="top left", annotation_font_color=STOPPED,
        )  # fmt: skip
    figure.update_xaxes(title_text=f"{pair} distance (Å)")
    figure.update_yaxes(title_text="density (1/Å)", rangemode="tozero")
    if log:
        figure.update_yaxes(type="log", exponentformat="power", nticks=4)
    styled(figure, 340)
    return titled(figure, title).update_layout(hovermode="closest")


def bond_figures(
    figures: Mapping[str, Mapping[str, tuple[float, float, float]]], *, names: tuple[str, ...] = tuple(TITLES)
) -> go.Figure:
    """Moments and quantiles of several sets side by side, each with its interval.

    Args:
        figures: set -> mean, std, skew, q05, q95 -> (value, low, high).
    """
    figure = make_subplots(rows=1, cols=len(names), horizontal_spacing=0.05, subplot_titles=[TITLES[n] for n in names])
    for index, (name, values) in enumerate(figures.items()):
        for column, key in enumerate(names, start=1):
            value, low, high = values[key]
            figure.add_trace(
                go.Scatter(
                    x=[value], y=[name], mode="markers", marker={"size": 9, "color": COLOURS[index % len(COLOURS)]},
                    error_x={"type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low]},
                    showlegend=False, hovertemplate="%{x:.4g} [" + f"{low:.4g}, {high:.4g}]<extra>{name}</extra>",
                ),
                row=1, col=column,
            )  # fmt: skip
    styled(figure, 110 + 32 * len(figures))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_yaxes(showticklabels=False, selector=lambda axis: axis.anchor != "x")
    figure.update_xaxes(nticks=4)
    figure.update_annotations(font_size=12)
    return figure.update_layout(hovermode="closest", margin_t=36)


def faint(colour: str, opacity: float = 0.18) -> str:
    """A colour for areas through which others are seen, on light and dark ground."""
    red, green, blue = hex_to_rgb(colour)
    return f"rgba({red},{green},{blue},{opacity})"


def titled(figure: go.Figure, title: str) -> go.Figure:
    """A title above the legend, with room for both."""
    if title:
        figure.update_layout(
            title={"text": title, "font": {"size": 13}, "x": 0, "xref": "paper", "yref": "container", "y": 0.97},
            margin_t=72,
        )
    return figure
