"""Pictures of how many simulations last: survival curves with intervals and numbers at risk, and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.colors import hex_to_rgb

from mlipkit.plots.runs import COLOURS, styled

PER_CURVE = 4
"""Traces of each curve: upper end of the interval, lower end with the filled band, estimate, censored simulations."""
HEIGHT, LINE = 250, 19
N_TICKS = 5


@dataclass(frozen=True, eq=False)
class Curve:
    """A survival curve as steps, from time 0 to the longest time that anything was followed.

    Attributes:
        time_ps: [k] where the curve steps, the first 0, the last the longest time.
        survival, lower, upper: [k] share that holds from each time on, and its interval.
        censored_ps: [c] where simulations were ended while they held, before the longest time.
        ended_ps: [n] where each simulation failed or was ended.
        n_failed: how many failed.
    """

    time_ps: np.ndarray
    survival: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    censored_ps: np.ndarray
    ended_ps: np.ndarray
    n_failed: int

    @classmethod
    def empty(cls) -> Curve:
        """Of a group in which nothing has begun."""
        none = np.empty(0)
        return cls(np.zeros(1), np.ones(1), np.zeros(1), np.ones(1), none, none, 0)

    def at(self, time_ps: ArrayLike) -> np.ndarray:
        """The estimate at times [m]."""
        index = np.searchsorted(self.time_ps, np.asarray(time_ps), side="right") - 1
        return self.survival[np.clip(index, 0, len(self.survival) - 1)]


def survival_curves(curves: Mapping[str, Curve], *, confidence: float = 0.95, end_ps: float | None = None) -> go.Figure:
    """Share of the simulations that still hold over simulated time, one curve per group, with numbers at risk below.

    Args:
        curves: group (a temperature, a start) -> its curve.
        confidence: of the bands, for the axis title.
        end_ps: right end of the time axis; the longest time when omitted.
    """
    figure = go.Figure()
    for number, name in enumerate(curves):
        figure.add_traces(_traces(name, number, len(curves) > 1))
    for trace, (x, y) in points_of(curves).items():
        figure.data[trace].update(x=x, y=y)
    figure.update_yaxes(
        title_text=f"still holding<br>({confidence:.0%} interval)", range=[-0.02, 1.04], tickformat=".0%", nticks=6
    )
    figure.update_xaxes(title_text="time (ps)", rangemode="tozero")
    styled(figure, height(len(curves)))
    figure.update_layout(hovermode="closest", margin_b=50 + LINE * (len(curves) + 1))
    figure.update_layout(at_risk_layout(curves, end_ps))
    return figure


def points_of(curves: Mapping[str, Curve]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Trace number of `survival_curves` -> its points, for feeding a figure that is on screen."""
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for number, curve in enumerate(curves.values()):
        parts = [(curve.time_ps, curve.upper), (curve.time_ps, curve.lower), (curve.time_ps, curve.survival)]
        parts.append((curve.censored_ps, curve.at(curve.censored_ps)))
        found |= {number * PER_CURVE + offset: part for offset, part in enumerate(parts)}
    return found


def at_risk_layout(curves: Mapping[str, Curve], end_ps: float | None = None) -> dict[str, Any]:
    """The time axis and, below it, how many simulations were at risk at each of its ticks, as plain data."""
    longest = max((float(curve.time_ps[-1]) for curve in curves.values()), default=0.0)
    end = max(end_ps or longest, 1e-9)
    ticks = _ticks(end)
    drawn = HEIGHT - 90
    notes = [_note("at risk", x=0, y=-(42 + LINE * 0.2) / drawn, xref="paper", anchor="right", shift=-8)]
    for number, curve in enumerate(curves.values()):
        colour = COLOURS[number % len(COLOURS)]
        y = -(42 + LINE * (number + (0.2 if len(curves) == 1 else 1.1))) / drawn
        counts = (curve.ended_ps[None, :] >= ticks[:, None] - 1e-9).sum(axis=1)
        if len(curves) > 1:
            notes.append(_note("■", x=0, y=y, xref="paper", anchor="right", shift=-8, colour=colour))
        notes += [
            _note(str(int(count)), x=float(tick), y=y)
            for tick, count in zip(ticks, counts, strict=True)
            if tick <= curve.time_ps[-1] + 1e-9
        ]
    axis = {"range": [-0.01 * end, 1.02 * end], "tickmode": "array", "tickvals": ticks.tolist()}
    return {"annotations": notes, "xaxis": {**axis, "title": {"text": "time (ps)", "standoff": 4}}}


def failure_reasons(reasons: Mapping[str, Mapping[str, int]]) -> go.Figure:
    """What failed and how often, as bars.

    Args:
        reasons: group -> reason -> number of simulations; groups in the order of `survival_curves`, so that colours
            agree.
    """
    totals: dict[str, int] = {}
    for counted in reasons.values():
        for reason, number in counted.items():
            totals[reason] = totals.get(reason, 0) + number
    order = sorted(totals, key=lambda reason: (totals[reason], reason))
    figure = go.Figure()
    for number, (name, counted) in enumerate(reasons.items()):
        values = [counted.get(reason, 0) for reason in order]
        figure.add_trace(
            go.Bar(
                x=values, y=order, orientation="h", name=name, marker={"color": COLOURS[number % len(COLOURS)]},
                text=[str(value) if value else "" for value in values], textposition="auto", textangle=0,
                constraintext="none",
                hovertemplate="%{y}: %{x}<extra>" + name + "</extra>",
            )
        )  # fmt: skip
    figure.update_xaxes(title_text="simulations", rangemode="tozero", tickformat="d", nticks=4)
    figure.update_yaxes(type="category", ticks="outside", ticklen=5, tickcolor="rgba(0,0,0,0)")
    styled(figure, max(130, 80 + 26 * len(order)))
    figure.update_layout(
        barmode="stack", bargap=0.35, hovermode="closest", showlegend=len(reasons) > 1, legend_traceorder="normal"
    )
    return figure


def height(groups: int) -> int:
    """Height of `survival_curves` in px."""
    return HEIGHT + LINE * (groups + 1)


def _traces(name: str, number: int, legend: bool) -> Sequence[go.Scatter]:
    colour = COLOURS[number % len(COLOURS)]
    red, green, blue = hex_to_rgb(colour)
    band = {
        "mode": "lines", "line": {"width": 0, "shape": "hv", "color": colour}, "hoverinfo": "skip", "showlegend": False,
        "legendgroup": name,
    }  # fmt: skip
    return [
        go.Scatter(**band),
        go.Scatter(**band, fill="tonexty", fillcolor=f"rgba({red},{green},{blue},0.18)"),
        go.Scatter(
            mode="lines", line={"width": 2.2, "shape": "hv", "color": colour}, name=name, legendgroup=name,
            showlegend=legend, hovertemplate="%{y:.0%} at %{x:.3g} ps<extra>" + name + "</extra>",
        ),
        go.Scatter(
            mode="markers", marker={"symbol": "line-ns-open", "size": 9, "color": colour}, legendgroup=name,
            showlegend=False, hovertemplate="ended at %{x:.3g} ps while it held<extra>" + name + "</extra>",
        ),
    ]  # fmt: skip


def _note(
    text: str, *, x: float, y: float, xref: str = "x", anchor: str = "center", shift: int = 0, colour: str | None = None
) -> dict[str, Any]:
    font = {"size": 12} if colour is None else {"size": 12, "color": colour}
    return {
        "text": text, "x": x, "xref": xref, "y": y, "yref": "paper", "xanchor": anchor, "yanchor": "top",
        "xshift": shift, "showarrow": False, "font": font,
    }  # fmt: skip


def _ticks(end: float) -> np.ndarray:
    """Round times from 0 to `end`."""
    rough = end / N_TICKS
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return np.round(np.arange(0, end * 1.0001, step), 12)
