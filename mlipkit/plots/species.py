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
        for name, values in _fewer(some).items():
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
        figure.update_yaxes(title_text=title, range=[-0.06 * max(most, 1), 1.08 * max(most, 1)], tickformat="d",
                            nticks=5 if most > 4 else most + 1, row=row, col=1)  # fmt: skip
    _mark(figure, n, events)
    end = float(time[-1]) if end_ps is None else end_ps
    if failed:
        figure.add_vline(x=end, line={"color": FAILURE, "width": 2})
    styled(figure, PANEL * n + 90)
    figure.update_xaxes(range=[float(time[0]), max(end, float(time[-1])) or 1.0])
    figure.update_xaxes(title_text="time (ps)", row=n, col=1)
    figure.update_layout(legend={"yref": "container", "yanchor": "top", "y": 1}, margin_t=70)
    return figure


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
