"""Species of one simulation over time: clusters of the element that is followed, everything else, changes that last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mlipkit.errors import DataError
from mlipkit.plots.runs import COLOURS, FAILURE, STOPPED, styled
from mlipkit.plots.trajectories import subscripted

MOST = 6
"""Curves of a panel; what is rarer is added up."""
PANEL = 190
OTHERS = "others"


def species_graph(
    time_ps: ArrayLike, counts: Mapping[str, ArrayLike], tracked: Sequence[str] = (), *, element: str = "",
    events: Sequence[tuple[float, str, str]] = (), end_ps: float | None = None, failed: bool = False,
) -> go.Figure:  # fmt: skip
    """How many of each species there are in every stored frame, as steps.

    Args:
        time_ps: [T]. counts: formula -> int [T].
        tracked: formulas that have a panel of their own above the others; `element`: what they have in common.
        events: (ps, its kind, what became what) of changes that last: lines through the panels.
        end_ps: end of the simulation; `failed`: it ended by a failure, which is marked.

    Raises:
        DataError: no frame.
    """
    time = np.asarray(time_ps, dtype=float)
    if not len(time) or not counts:
        raise DataError("no species to draw", where="species_graph")
    mine = {name: np.asarray(counts[name]) for name in tracked if name in counts}
    rest = {name: np.asarray(values) for name, values in counts.items() if name not in mine}
    panels = [(f"clusters<br>with {element}", mine), ("other<br>molecules" if mine else "molecules", rest)]
    panels = [(title, some) for title, some in panels if some]
    n = len(panels)
    figure = make_subplots(rows=n, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    drawn = 0
    for row, (title, some) in enumerate(panels, start=1):
        kept = _fewer(some)
        if some is mine and (np.sum([*some.values()], axis=0) == 1).all():
            _one_cluster(figure, time, kept, row)
            drawn = 1
        else:
            drawn = _counts(figure, time, kept, drawn, row)
        figure.update_yaxes(title_text=title, row=row, col=1)
    _mark(figure, n, events)
    end = float(time[-1]) if end_ps is None else end_ps
    if failed:
        figure.add_vline(x=end, line={"color": FAILURE, "width": 2})
    styled(figure, PANEL * n + 90)
    figure.update_xaxes(range=[float(time[0]), max(end, float(time[-1])) or 1.0])
    figure.update_xaxes(title_text="time (ps)", row=n, col=1)
    figure.update_layout(legend={"yref": "container", "yanchor": "top", "y": 1}, margin_t=70)
    return figure


def _counts(figure: go.Figure, time: np.ndarray, some: Mapping[str, np.ndarray], drawn: int, row: int) -> int:
    """A step curve of each, in colours after those that are drawn; how many are drawn then."""
    for name, values in some.items():
        tone = STOPPED if name == OTHERS else COLOURS[drawn % len(COLOURS)]
        dash = "solid" if drawn < len(COLOURS) or name == OTHERS else "dash"
        drawn += name != OTHERS
        figure.add_trace(
            go.Scatter(
                x=time, y=values, name=subscripted(name), mode="lines" if len(time) > 1 else "markers",
                legendgroup=f"{row} {name}", line={"width": 1.8, "shape": "hv", "color": tone, "dash": dash},
                hovertemplate="%{y} " + subscripted(name) + "<extra></extra>",
            ), row=row, col=1,
        )  # fmt: skip
    most = max(int(values.max()) for values in some.values())
    figure.update_yaxes(range=[-0.06 * max(most, 1), 1.08 * max(most, 1)], tickformat="d",
                        nticks=5 if most > 4 else most + 1, row=row, col=1)  # fmt: skip
    return drawn


def _one_cluster(figure: go.Figure, time: np.ndarray, some: Mapping[str, np.ndarray], row: int) -> None:
    """A bar wherever the only cluster is this one: counts of one and none would cross each other at every change."""
    ends = np.append(time[1:], time[-1])
    for level, (name, values) in enumerate(some.items()):
        there = values > 0
        first = np.flatnonzero(there & ~np.append(False, there[:-1]))
        last = np.flatnonzero(there & ~np.append(there[1:], False))
        x = [edge for i, j in zip(first, last, strict=True) for edge in (time[i], ends[j], None)]
        figure.add_trace(
            go.Scatter(
                x=x, y=[None if edge is None else level for edge in x], name=subscripted(name), showlegend=False,
                mode="lines" if len(time) > 1 else "markers",
                line={"width": 9, "color": STOPPED if name == OTHERS else COLOURS[0]},
                hovertemplate=subscripted(name) + "<extra></extra>",
            ), row=row, col=1,
        )  # fmt: skip
    figure.update_yaxes(tickvals=list(range(len(some))), ticktext=[subscripted(name) for name in some],
                        range=[len(some) - 0.4, -0.6], showgrid=False, row=row, col=1)  # fmt: skip


def _fewer(some: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The most frequent ones, and the sum of the others."""
    order = sorted(some, key=lambda name: (-int(some[name].sum()), name))
    kept = {name: some[name] for name in order[:MOST]}
    if len(order) > MOST:
        kept[OTHERS] = np.sum([some[name] for name in order[MOST:]], axis=0)
    return kept


def _mark(figure: go.Figure, n: int, events: Sequence[tuple[float, str, str]]) -> None:
    """A line where a change begins, its kind above the panels; what became what under the pointer."""
    if not events:
        return
    for time, _, _ in events:
        figure.add_vline(x=time, line={"color": STOPPED, "width": 1, "dash": "dot"})
    figure.add_trace(
        go.Scatter(
            x=[time for time, _, _ in events], y=[1.0] * len(events), yaxis="y", name="changes that last",
            mode="markers", marker={"symbol": "triangle-down", "size": 9, "color": STOPPED}, cliponaxis=False,
            customdata=[[kind, text] for _, kind, text in events],
            hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>",
        ), row=1, col=1,
    )  # fmt: skip
    top = figure.layout.yaxis.range[1]  # type: ignore[attr-defined]
    figure.data[-1].y = [top] * len(events)
