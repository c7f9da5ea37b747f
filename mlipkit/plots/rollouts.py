"""Pictures of roll-outs: errors of a dynamic training while it runs, and one roll-out beside AIMD on one time axis.

Roll-out steps count structures, the start included, as the specification does: 1 is a single frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mlipkit.plots.runs import COLOURS, LOGARITHMIC, MILLI, STOPPED, styled

MEAN, FARTHEST, OWN, EQUAL = range(4)
"""Numbers of the traces of `beside_aimd`."""
ABOVE_MARKS: dict[str, Any] = {"legend": {"y": 1.09}, "margin": {"t": 56}}
"""Layout of a picture that has marks of stages above its axes."""


def rollout_progress(elements: Sequence[str] = ()) -> go.Figure:
    """Error of validation roll-outs over the optimiser steps, still without points, for a live view to fill.

    Traces: the sum over elements, the share of each element, and the sum on the starts alone (equal frames).
    """
    figure = go.Figure()
    marked: dict[str, Any] = {"mode": "lines+markers", "marker": {"size": 5}}
    figure.add_trace(go.Scatter(x=[], y=[], name="sum over elements", line={"color": COLOURS[1], "width": 2}, **marked))
    for number, symbol in enumerate(elements):
        colour = (COLOURS[0], *COLOURS[2:])[number % (len(COLOURS) - 1)]
        figure.add_trace(go.Scatter(x=[], y=[], name=symbol, line={"color": colour, "width": 1.4}, mode="lines"))
    figure.add_trace(
        go.Scatter(x=[], y=[], name="sum, first step alone", mode="lines",
                   line={"color": STOPPED, "width": 1.4, "dash": "dot"})
    )  # fmt: skip
    figure.update_yaxes(title_text="error per atom type<br>and step, meV/Å", **LOGARITHMIC)
    figure.update_xaxes(title_text="optimiser step")
    return styled(figure, 300).update_layout(ABOVE_MARKS)


def stage_marks(begins: ArrayLike, lengths: ArrayLike) -> dict[str, list[dict[str, Any]]]:
    """Shapes and annotations where stages of a curriculum begin; the legend makes room for them (`ABOVE_MARKS`).

    Args:
        begins: [K] place on the x axis. lengths: [K] roll-out steps of each stage.
    """
    x, n = np.asarray(begins, float), np.asarray(lengths, int)
    line = {"color": STOPPED, "width": 1, "dash": "dash"}
    shapes = [
        {"type": "line", "xref": "x", "x0": place, "x1": place, "yref": "paper", "y0": 0, "y1": 1, "line": line}
        for place in x[1:].tolist()
    ]
    annotations = [
        {
            "xref": "x", "x": place, "yref": "paper", "y": 1, "xanchor": "left", "yanchor": "bottom",
            "showarrow": False, "text": f"{'roll-out steps: ' if number == 0 else ''}{length}", "font": {"size": 11},
            "xshift": -2,
            "hovertext": f"stage {number + 1}: roll-outs of {length} step{'s' * (length != 1)}",
        }
        for number, (place, length) in enumerate(zip(x.tolist(), n.tolist(), strict=True))
    ]  # fmt: skip
    return {"shapes": shapes, "annotations": annotations}


def error_by_rollout_steps(
    curves: Mapping[str, ArrayLike], timestep: float, trained: Mapping[str, int] | None = None
) -> go.Figure:
    """Force error in each step of roll-outs.

    Args:
        curves: name -> [S] eV/Å, a sum over elements; None or NaN where a roll-out was lost.
        timestep: fs between two steps.
        trained: name -> roll-out steps that it was trained with, marked by a dot on its curve.
    """
    figure, longest = go.Figure(), 1
    for number, (name, values) in enumerate(curves.items()):
        y = np.array([np.nan if value is None else value for value in values], float) * MILLI  # type: ignore
        colour, longest = COLOURS[number % len(COLOURS)], max(longest, len(y))
        figure.add_trace(
            go.Scatter(
                x=np.arange(1, len(y) + 1), y=y, name=name, mode="lines", line={"color": colour, "width": 1.8},
                legendgroup=name,
            )
        )  # fmt: skip
        at = (trained or {}).get(name)
        if at is not None and 1 <= at <= len(y):
            figure.add_trace(
                go.Scatter(x=[at], y=[y[at - 1]], mode="markers", marker={"size": 9, "color": colour}, legendgroup=name,
                           showlegend=False, hovertemplate=f"trained with {at} steps<extra></extra>")
            )  # fmt: skip
    figure.update_xaxes(title_text=f"roll-out step, {timestep:g} fs each", range=[0.5, longest + 0.5])
    figure.update_yaxes(title_text="force error, sum over<br>elements, meV/Å", rangemode="tozero")
    return styled(figure, 300)


def beside_aimd(
    time: ArrayLike = (), apart: ArrayLike = (), farthest: ArrayLike = (), error: ArrayLike = (),
    on_reference: ArrayLike | None = None,
) -> go.Figure:  # fmt: skip
    """One roll-out beside the AIMD run that it started from: distances above, force errors below, one time axis.

    Args:
        time: [S] fs.
        apart, farthest: [S] Å, distance from AIMD: mean over atoms, and of the farthest atom.
        error: [S] eV/Å on the roll-out's own path, a sum over elements.
        on_reference: [S] eV/Å on the positions of AIMD.
    """
    x = np.asarray(time, float)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)

    def add(row: int, y: ArrayLike, name: str, colour: str, dash: str = "solid") -> None:
        shown = np.asarray(y, float)
        shown = np.where(np.isfinite(shown), shown, np.nan)
        line = {"color": colour, "width": 1.8, "dash": dash}
        figure.add_trace(go.Scatter(x=x[: len(shown)], y=shown, name=name, mode="lines", line=line), row=row, col=1)

    add(1, apart, "mean over atoms", COLOURS[0])
    add(1, farthest, "farthest atom", COLOURS[5])
    add(2, np.asarray(error, float) * MILLI, "forces along the roll-out", COLOURS[1])
    equal = np.full(len(x), np.nan) if on_reference is None else np.asarray(on_reference, float)
    add(2, equal * MILLI, "forces on AIMD's positions", STOPPED, "dot")
    figure.update_yaxes(title_text="distance<br>from AIMD, Å", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="force error, sum<br>over elements, meV/Å", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="time, fs", row=2, col=1)
    return styled(figure, 400)
