"""Pictures of errors: force parity per element, softening, residuals over time and energy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mlipkit.plots.bonds import faint
from mlipkit.plots.runs import COLOURS, MILLI, STOPPED, styled

MOST_POINTS = 2000
"""Points of a panel above which it shows counts in bins instead."""


def force_parity(
    norms: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    lines: Mapping[str, tuple[float, float]] | None = None,
    slopes: Mapping[str, float] | None = None,
    columns: int = 4,
) -> go.Figure:
    """Size of predicted against labelled forces, one panel per element, with the diagonal.

    Args:
        norms: element -> (|F| labelled [M], |F| predicted [M]), eV/Å.
        lines: element -> (slope, intercept in eV/Å) of a robust line, drawn orange.
        slopes: element -> softening slope through the origin, in the panel's title.
        columns: panels in a row.
    """
    n = max(1, len(norms))
    columns = min(columns, n)
    rows = -(-n // columns)
    titles = [
        name if not slopes or name not in slopes else f"<b>{name}</b>  slope {slopes[name]:.3f}" for name in norms
    ]
    figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=titles, horizontal_spacing=0.22 / columns,
        vertical_spacing=0.28 / rows,
    )  # fmt: skip
    for index, (name, (labelled, predicted)) in enumerate(norms.items()):
        row, column = index // columns + 1, index % columns + 1
        x, y = np.asarray(labelled, dtype=float), np.asarray(predicted, dtype=float)
        end = float(max(x.max(initial=0.0), y.max(initial=0.0))) * 1.03 or 1.0
        figure.add_trace(cloud(x, y, (0, end), (0, end), unit="eV/Å"), row=row, col=column)
        figure.add_trace(_straight(1.0, 0.0, end, STOPPED, "dot"), row=row, col=column)
        if lines and name in lines and np.isfinite(lines[name]).all():
            figure.add_trace(_straight(*lines[name], end, COLOURS[1], "solid"), row=row, col=column)
        figure.update_xaxes(range=[0, end], row=row, col=column)
        figure.update_yaxes(range=[0, end], row=row, col=column)
    # One title per row and column says it for all panels.
    for column in range(1, columns + 1):
        last = max(index for index in range(n) if index % columns == column - 1)
        figure.update_xaxes(title_text="|F| label (eV/Å)", row=last // columns + 1, col=column)
    for row in range(1, rows + 1):
        figure.update_yaxes(title_text="|F| predicted (eV/Å)", row=row, col=1)
    styled(figure, 290 * rows + 20)
    figure.update_xaxes(nticks=5)
    figure.update_yaxes(nticks=5)
    figure.update_annotations(font_size=13)
    return figure.update_layout(hovermode="closest", showlegend=False)


def cloud(
    x: np.ndarray, y: np.ndarray, x_range: tuple[float, float], y_range: tuple[float, float], *, unit: str = "",
    colour: str = COLOURS[0], bins: int = 70,
) -> go.Scatter | go.Heatmap:  # fmt: skip
    """Points, or their counts in bins (darker by the logarithm) where there are too many to be told apart."""
    if len(x) <= MOST_POINTS:
        return go.Scatter(
            x=x, y=y, mode="markers", marker={"size": 4, "opacity": 0.45, "color": colour}, showlegend=False,
            hovertemplate=f"%{{x:.3g}}, %{{y:.3g}} {unit}<extra></extra>",
        )  # fmt: skip
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=bins, range=[x_range, y_range])
    shown = np.where(counts > 0, np.log10(np.maximum(counts, 1)), np.nan).T
    return go.Heatmap(
        x=0.5 * (x_edges[1:] + x_edges[:-1]), y=0.5 * (y_edges[1:] + y_edges[:-1]), z=shown, customdata=counts.T,
        colorscale=[[0, faint(colour, 0.25)], [0.5, faint(colour, 0.65)], [1, faint(colour, 1.0)]], showscale=False,
        hovertemplate=f"%{{x:.3g}}, %{{y:.3g}} {unit}: %{{customdata}}<extra></extra>",
    )  # fmt: skip


def softening_slopes(slopes: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> go.Figure:
    """Softening slopes per element and potential with intervals; below one the forces are too small.

    Args:
        slopes: potential -> element -> (slope, low, high).
    """
    figure = go.Figure()
    elements = list(dict.fromkeys(element for values in slopes.values() for element in values))
    for index, (name, values) in enumerate(slopes.items()):
        shift = 0.0 if len(slopes) == 1 else (index / (len(slopes) - 1) - 0.5) * min(0.6, 0.16 * len(slopes))
        known = [element for element in elements if element in values]
        table = np.array([values[element] for element in known], dtype=float).reshape(-1, 3)
        figure.add_trace(
            go.Scatter(
                x=[elements.index(element) + shift for element in known], y=table[:, 0], mode="markers", name=name,
                marker={"size": 8, "color": COLOURS[index % len(COLOURS)]}, text=known,
                error_y={
                    "type": "data", "symmetric": False, "array": table[:, 2] - table[:, 0],
                    "arrayminus": table[:, 0] - table[:, 1], "thickness": 1.5, "width": 3,
                },
                hovertemplate="%{text}: %{y:.3f}<extra>" + name + "</extra>",
            )
        )  # fmt: skip
    figure.add_hline(y=1, line={"color": STOPPED, "dash": "dot"})
    figure.update_xaxes(tickmode="array", tickvals=list(range(len(elements))), ticktext=elements, showgrid=False)
    figure.update_yaxes(title_text="softening slope<br>F predicted / F label")
    return styled(figure, 300).update_layout(hovermode="closest", showlegend=len(slopes) > 1)


def residuals_over_time(
    time_ps: Mapping[str, ArrayLike], residual: Mapping[str, ArrayLike], *, split_ps: float | None = None
) -> go.Figure:
    """Energy residuals of each potential over time, with its mean as a line.

    Args:
        time_ps: potential -> [F]. residual: potential -> [F] eV/atom, shown in meV.
        split_ps: a moment to compare before and after.
    """
    figure = go.Figure()
    for index, (name, values) in enumerate(residual.items()):
        colour = COLOURS[index % len(COLOURS)]
        t, e = np.asarray(time_ps[name], dtype=float), np.asarray(values, dtype=float) * MILLI
        there = np.isfinite(t) & np.isfinite(e)
        t, e = t[there], e[there]
        if not len(t):
            continue
        order = np.argsort(t, kind="stable")
        figure.add_trace(
            go.Scatter(
                x=t[order], y=e[order], name=f"{name}: mean {e.mean():.2f}, std {e.std():.2f} meV/atom",
                mode="lines+markers", line={"width": 1, "color": faint(colour, 0.6)},
                marker={"size": 6, "color": colour},
                hovertemplate="%{y:.2f} meV/atom<extra>" + name + "</extra>",
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(x=[t.min(), t.max()], y=[e.mean()] * 2, mode="lines", showlegend=False, hoverinfo="skip",
                       line={"width": 1.5, "color": colour, "dash": "dot"})
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": STOPPED, "width": 1})
    if split_ps is not None:
        figure.add_vline(x=split_ps, line={"color": STOPPED, "dash": "dash"})
    figure.update_xaxes(title_text="time (ps)")
    figure.update_yaxes(title_text="(E predicted - E label) / n<br>meV/atom")
    styled(figure, 340)
    # A legend entry with figures is long: one below the other.
    return figure.update_layout(
        hovermode="closest",
        legend={"orientation": "v", "yanchor": "bottom", "y": 1.02},
        margin_t=30 + 20 * len(residual),
    )


def binned_residuals(bins: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]]) -> go.Figure:
    """Mean and standard deviation of residuals in bins of the labelled energy.

    Args:
        bins: potential -> (edges [B+1], mean [B], std [B]) in eV/atom, shown in meV; empty bins are NaN.
    """
    figure = go.Figure()
    zero = min((float(np.asarray(edges, dtype=float)[0]) for edges, _, _ in bins.values()), default=0.0)
    for index, (name, (edges, mean, std)) in enumerate(bins.items()):
        borders = (np.asarray(edges, dtype=float) - zero) * MILLI
        middle, spread = np.asarray(mean, dtype=float) * MILLI, np.asarray(std, dtype=float) * MILLI
        full = np.isfinite(middle)
        figure.add_trace(
            go.Scatter(
                x=(0.5 * (borders[1:] + borders[:-1]))[full], y=middle[full], name=name, mode="lines+markers",
                line={"width": 1.2, "color": COLOURS[index % len(COLOURS)]}, marker={"size": 7},
                error_y={"type": "data", "array": spread[full], "thickness": 1.2, "width": 3},
                hovertemplate="%{y:.2f} meV/atom<extra>" + name + "</extra>",
            )
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": STOPPED, "width": 1})
    figure.update_xaxes(title_text=f"E label / n above {zero:.3f} eV/atom (meV/atom)")
    figure.update_yaxes(title_text="residual, mean ± std<br>meV/atom")
    return styled(figure, 320).update_layout(hovermode="closest")


def _straight(slope: float, intercept: float, end: float, colour: str, dash: str) -> go.Scatter:
    return go.Scatter(
        x=[0, end], y=[intercept, intercept + slope * end], mode="lines", hoverinfo="skip", showlegend=False,
        line={"width": 1.5, "color": colour, "dash": dash},
    )  # fmt: skip
