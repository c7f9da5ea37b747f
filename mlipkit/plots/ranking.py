"""Pictures of how well a score tells bad from good: ROC curves, score against error, warnings and their price."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from mlipkit.errors import DataError
from mlipkit.plots.parity import cloud
from mlipkit.plots.runs import COLOURS, STOPPED, styled


def roc_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], areas: Mapping[str, tuple[float, float, float]] | None = None
) -> go.Figure:
    """Receiver operating characteristics; the diagonal is guessing.

    Args:
        curves: score -> (false-positive share [K], true-positive share [K]).
        areas: score -> (AUC, low, high), in the legend.
    """
    figure = go.Figure()
    for index, (name, (false, true)) in enumerate(curves.items()):
        label = name
        if areas and name in areas:
            value, low, high = areas[name]
            label += f": {value:.2f} [{low:.2f}, {high:.2f}]"
        figure.add_trace(
            go.Scatter(
                x=np.asarray(false), y=np.asarray(true), name=label, mode="lines",
                line={"width": 2, "color": COLOURS[index % len(COLOURS)]},
                hovertemplate="flags %{y:.0%} of the bad, %{x:.0%} of the good<extra>" + name + "</extra>",
            )
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(x=[0, 1], y=[0, 1], mode="lines", showlegend=False, hoverinfo="skip",
                   line={"dash": "dot", "color": STOPPED})
    )  # fmt: skip
    figure.update_xaxes(title_text="good ones flagged", range=[-0.01, 1.01], tickformat=".0%", constrain="domain")
    figure.update_yaxes(title_text="bad ones flagged", range=[-0.01, 1.01], tickformat=".0%", scaleanchor="x")
    styled(figure, 420)
    # An entry with figures is long: one below the other.
    legend = {"orientation": "v", "x": 0, "y": 1.02, "yanchor": "bottom"}
    if areas:
        legend["title"] = {"text": "AUC"}
    return figure.update_layout(
        hovermode="closest", legend=legend, margin_t=40 + 20 * len(curves), height=400 + 20 * len(curves)
    )


def score_against_error(
    score: ArrayLike,
    error: ArrayLike,
    *,
    score_title: str,
    error_title: str,
    limit: float | None = None,
    title: str = "",
) -> go.Figure:
    """A score against the true error, both logarithmic, as points or, when they are many, as counts in bins.

    Args:
        score, error: [n], positive; others are left out, and the axis says how many.
        limit: of the score, a dashed line.
        title: one line, for example the rank correlation with its interval.
    """
    x, y = np.asarray(score, dtype=float), np.asarray(error, dtype=float)
    if x.shape != y.shape:
        raise DataError("one error per score", where="score_against_error", expected=x.shape, found=y.shape)
    there = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    if not there.all():
        score_title += f" ({(~there).sum()} of {len(there)} not shown: not positive)"
    x, y = np.log10(x[there]), np.log10(y[there])
    ends = [(float(v.min()), float(v.max())) if len(v) else (0.0, 1.0) for v in (x, y)]
    # On a linear axis of logarithms, since bins of a heatmap have no width on a logarithmic one.
    figure = go.Figure(cloud(x, y, ends[0], ends[1]))
    figure.update_traces(hoverinfo="skip", hovertemplate=None)
    if limit is not None and limit > 0:
        figure.add_vline(x=np.log10(limit), line={"dash": "dash", "color": STOPPED})
    for update, (low, high), text in (
        (figure.update_xaxes, ends[0], score_title),
        (figure.update_yaxes, ends[1], error_title),
    ):
        ticks = [k + d for k in np.arange(np.floor(low), np.ceil(high) + 1) for d in np.log10([1, 2, 5])]
        some = [tick for tick in ticks if low - 0.05 <= tick <= high + 0.05]
        pad = 0.03 * (high - low)
        update(
            title_text=text, tickmode="array", tickvals=some, ticktext=[f"{10**tick:.3g}" for tick in some],
            range=[low - pad, high + pad],
        )  # fmt: skip
    styled(figure, 380)
    if title:
        figure.update_layout(title={"text": title, "font": {"size": 13}, "x": 0, "xref": "paper"})
    return figure.update_layout(hovermode="closest")


def warning_tradeoff(curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]]) -> go.Figure:
    """Share of failures that were warned of against false alarms per ps, as the limit falls.

    Args:
        curves: score -> (false alarms per ps [L], share [L], limit [L]).
    """
    figure = go.Figure()
    for index, (name, (rate, share, limit)) in enumerate(curves.items()):
        figure.add_trace(
            go.Scatter(
                x=np.asarray(rate), y=np.asarray(share), customdata=np.asarray(limit), name=name, mode="lines+markers",
                line={"width": 1.8, "color": COLOURS[index % len(COLOURS)]}, marker={"size": 5},
                hovertemplate="limit %{customdata:.3g}: %{y:.0%} warned, %{x:.3g} alarms/ps<extra>" + name + "</extra>",
            )
        )  # fmt: skip
    figure.update_xaxes(title_text="false alarms per ps", rangemode="tozero")
    figure.update_yaxes(title_text="failures warned of", tickformat=".0%", range=[-0.02, 1.04])
    return styled(figure, 340).update_layout(hovermode="closest")


def lead_times(leads_ps: Mapping[str, ArrayLike]) -> go.Figure:
    """How long before each failure the first warning came, one column per score; runs without one are counted.

    Args:
        leads_ps: score -> [runs], NaN where no warning came.
    """
    figure = go.Figure()
    ticks = []
    for index, (name, values) in enumerate(leads_ps.items()):
        lead = np.asarray(values, dtype=float)
        some = np.sort(lead[np.isfinite(lead)])
        colour = COLOURS[index % len(COLOURS)]
        x = index + (np.linspace(-0.2, 0.2, len(some)) if len(some) > 1 else np.zeros(len(some)))
        figure.add_trace(
            go.Scatter(x=x, y=some, mode="markers", showlegend=False,
                       marker={"size": 7, "opacity": 0.65, "color": colour},
                       hovertemplate="%{y:.3g} ps<extra>" + name + "</extra>")
        )  # fmt: skip
        if len(some):
            figure.add_trace(
                go.Scatter(x=[index - 0.32, index + 0.32], y=[float(np.median(some))] * 2, mode="lines",
                           showlegend=False, hoverinfo="skip", line={"width": 3, "color": colour})
            )  # fmt: skip
        ticks.append(f"{name}<br>{len(some)} of {len(lead)} warned")
    figure.update_xaxes(
        tickmode="array",
        tickvals=list(range(len(ticks))),
        ticktext=ticks,
        showgrid=False,
        range=[-0.6, len(ticks) - 0.4],
    )
    figure.update_yaxes(title_text="lead of the warning (ps)", rangemode="tozero")
    return styled(figure, 320).update_layout(hovermode="closest")
