"""Pictures of a shift that are no maps: a measure by element and set with its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from mlipkit.plots.runs import COLOURS, STOPPED, styled


@dataclass(frozen=True)
class Spread:
    """A distribution in five quantiles (5, 25, 50, 75, 95 %) and its mean."""

    quantiles: tuple[float, float, float, float, float]
    mean: float


def spread_by_element(
    values: Mapping[str, Mapping[str, Spread]], *, limits: Mapping[str, float] | None = None,
    elements: Sequence[str] | None = None, title: str = "Q",
) -> go.Figure:  # fmt: skip
    """A measure of several sets side by side for each element: 5 to 95 % thin, 25 to 75 % thick, mean as a dot.

    Args:
        values: set -> element -> spread; logarithmic axis.
        limits: element -> limit, a dashed line.
        elements: in this order along the axis.
        title: of the axis.
    """
    order = list(elements or dict.fromkeys(element for one in values.values() for element in one))
    figure = go.Figure()
    width = min(0.22, 0.7 / max(1, len(values)))
    for index, (name, each) in enumerate(values.items()):
        colour = COLOURS[index % len(COLOURS)]
        shift = (index - (len(values) - 1) / 2) * width
        known = [element for element in order if element in each]
        x = [order.index(element) + shift for element in known]
        for low, high, line in ((0, 4, 1.5), (1, 3, 6)):
            bars = [(each[element].quantiles[low], each[element].quantiles[high]) for element in known]
            figure.add_trace(
                go.Scatter(
                    x=[place for one in x for place in (one, one, None)],
                    y=[value for ends in bars for value in (*ends, None)], mode="lines", hoverinfo="skip",
                    line={"width": line, "color": colour}, opacity=0.55, showlegend=False, legendgroup=name,
                )
            )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=x, y=[each[element].mean for element in known], mode="markers", name=name, legendgroup=name,
                marker={"size": 8, "color": colour}, text=known,
                customdata=[[*each[element].quantiles] for element in known],
                hovertemplate="%{text}: mean %{y:.3g}, median %{customdata[2]:.3g}, "
                "5 to 95 %% %{customdata[0]:.3g} to %{customdata[4]:.3g}<extra>".replace("%%", "%") + name + "</extra>",
            )
        )  # fmt: skip
    drawn = [(order.index(element), value) for element, value in (limits or {}).items() if element in order]
    if drawn:
        figure.add_trace(
            go.Scatter(
                x=[place for i, _ in drawn for place in (i - 0.42, i + 0.42, None)],
                y=[value for _, limit in drawn for value in (limit, limit, None)], mode="lines", name="limit",
                line={"width": 1.5, "color": STOPPED, "dash": "dash"},
                hovertemplate="limit %{y:.3g}<extra></extra>",
            )
        )  # fmt: skip
    styled(figure, 360)
    figure.update_xaxes(tickmode="array", tickvals=list(range(len(order))), ticktext=order, showgrid=False)
    ends = [value for each in values.values() for one in each.values() for value in one.quantiles]
    ticks = _ticks([value for value in (*ends, *(value for _, value in drawn)) if value > 0])
    figure.update_yaxes(
        title_text=title, type="log", tickmode="array", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks]
    )
    return figure.update_layout(hovermode="closest")


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 of each power of ten around the values; plotly writes "2" and "5" alone, which reads as 2 and 5."""
    if not values:
        return []
    low, high = np.log10(min(values)), np.log10(max(values))
    each = [float(f"{digit}e{power}") for power in range(int(low) - 2, int(high) + 2) for digit in (1, 2, 5)]
    return [tick for tick in each if low - 0.2 <= np.log10(tick) <= high + 0.2]
