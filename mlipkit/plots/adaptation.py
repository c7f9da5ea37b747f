"""Pictures of test-time adaptation: losses of its tasks, a simulation that adapts, errors of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mlipkit.plots.runs import COLOURS, FAILURE, LOGARITHMIC, MILLI, STOPPED, styled

TASKS = {"loss_noise": "noise level", "loss_types": "hidden types", "loss_pseudo_forces": "hidden forces"}
"""Column of a series -> name of the task on screen, in the order of their colours."""
TASK_COLOURS = (COLOURS[0], COLOURS[2], COLOURS[3])
TOGETHER = "all tasks"
CONTROL, CURE, PART = "control", "cure", "part"
LOOKS = {CONTROL: (STOPPED, "square"), CURE: (COLOURS[1], "circle"), PART: (COLOURS[0], "diamond")}
"""What an arm is for -> colour and sign."""


def task_losses(tasks: Sequence[str] = tuple(TASKS)) -> go.Figure:
    """Losses of the self-supervised tasks over the optimiser steps, still without points, for a live view to fill.

    Traces: the loss of each task in each step, its mean over each epoch, and the share of noise levels recognised.

    Args:
        tasks: columns that the training has.
    """
    recognised = "loss_noise" in tasks
    figure = make_subplots(
        rows=1 + recognised, cols=1, shared_xaxes=True, vertical_spacing=0.07,
        row_heights=[0.65, 0.35] if recognised else [1.0],
    )  # fmt: skip
    chosen = [(TASKS[name], colour) for name, colour in zip(TASKS, TASK_COLOURS, strict=True) if name in tasks]
    for name, colour in chosen:
        line = {"color": colour, "width": 1}
        figure.add_trace(go.Scatter(x=[], y=[], name=name, mode="lines", line=line, opacity=0.35, showlegend=False,
                                    hoverinfo="skip"), row=1, col=1)  # fmt: skip
    for name, colour in chosen:
        line = {"color": colour, "width": 2}
        figure.add_trace(go.Scatter(x=[], y=[], name=name, mode="lines", line=line), row=1, col=1)
    if recognised:
        line = {"color": TASK_COLOURS[0], "width": 2}
        figure.add_trace(go.Scatter(x=[], y=[], name="recognised", mode="lines", line=line, showlegend=False),
                         row=2, col=1)  # fmt: skip
        figure.update_yaxes(title_text="noise levels<br>recognised", rangemode="tozero", tickformat=".0%", row=2, col=1)
    figure.update_yaxes(title_text="self-supervised<br>loss", **LOGARITHMIC, row=1, col=1)
    figure.update_xaxes(title_text="optimiser step", row=1 + recognised, col=1)
    return styled(figure, 320 if recognised else 240)


def adaptation_strip(tasks: Sequence[str] = tuple(TASKS)) -> go.Figure:
    """Self-supervised loss, gradient and weights of a simulation over its time, still without points.

    Traces: the weighted sum, the loss of each task, moments of adaptation, gradient, weight change, drift.

    Args:
        tasks: columns that the simulation has.
    """
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.46, 0.22, 0.32])

    def add(row: int, name: str, colour: str, width: float = 1.5, **look: Any) -> None:
        # Where only some steps adapt, only these have a loss.
        figure.add_trace(
            go.Scatter(x=[], y=[], name=name, mode="lines", connectgaps=True, line={"color": colour, "width": width},
                       **look),
            row=row, col=1,
        )  # fmt: skip

    add(1, TOGETHER, COLOURS[1], 2)
    for name, colour in zip(TASKS, TASK_COLOURS, strict=True):
        if name in tasks:
            add(1, TASKS[name], colour, 1)
    figure.add_trace(
        go.Scatter(x=[], y=[], name="adapted here", mode="markers",
                   marker={"symbol": "triangle-down", "size": 8, "color": FAILURE}),
        row=1, col=1,
    )  # fmt: skip
    add(2, "gradient", STOPPED, showlegend=False)
    add(3, "weight change", COLOURS[4])
    add(3, "drift", COLOURS[5])
    figure.update_yaxes(title_text="self-supervised<br>loss", row=1, col=1, **LOGARITHMIC)
    figure.update_yaxes(title_text="gradient<br>norm", rangemode="tozero", nticks=3, row=2, col=1)
    figure.update_yaxes(title_text="weights<br>norm", row=3, col=1, **LOGARITHMIC)
    figure.update_xaxes(title_text="time (ps)", row=3, col=1)
    return styled(figure, 400)


def threshold_line(threshold: float | None) -> list[dict[str, Any]]:
    """Shapes of `adaptation_strip`: the loss above which a simulation adapts; none without one."""
    if threshold is None or not 0 < threshold < np.inf:
        return []
    line = {"color": FAILURE, "width": 1.5, "dash": "dash"}
    return [{"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": threshold, "y1": threshold,
             "line": line}]  # fmt: skip


@dataclass(frozen=True)
class ArmError:
    """Error of an arm beside that of the baseline.

    Attributes:
        name: on screen. kind: `CONTROL`, `CURE` or `PART` (of the cure: one task alone, or one left out).
        ratio, lower, upper: error over the baseline's, with its interval.
    """

    name: str
    kind: str
    ratio: float
    lower: float
    upper: float


def arm_ratios(arms: Sequence[ArmError], title: str = "error / error of the baseline") -> go.Figure:
    """Ratios of errors with their intervals, one line for each arm; at 1 nothing is gained.

    Args:
        arms: from top to bottom.
    """
    figure = go.Figure()
    names = {CONTROL: "control", CURE: "what is asked about", PART: "parts of it"}
    for kind, (colour, symbol) in LOOKS.items():
        mine = [one for one in arms if one.kind == kind]
        if not mine:
            continue
        ratio = np.array([one.ratio for one in mine])
        figure.add_trace(
            go.Scatter(
                x=ratio, y=[one.name for one in mine], mode="markers", name=names[kind],
                marker={"color": colour, "symbol": symbol, "size": 10},
                error_x={
                    "type": "data", "symmetric": False, "array": np.array([one.upper for one in mine]) - ratio,
                    "arrayminus": ratio - np.array([one.lower for one in mine]), "thickness": 2, "width": 5,
                    "color": colour,
                },
                customdata=[[one.lower, one.upper] for one in mine],
                hovertemplate="%{y}: %{x:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})<extra></extra>",
            )
        )  # fmt: skip
    styled(figure, 110 + 28 * max(3, len(arms)))
    figure.update_layout(
        hovermode="closest",
        shapes=[{"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1,
                 "line": {"color": STOPPED, "width": 1.5, "dash": "dot"}}],
    )  # fmt: skip
    figure.update_xaxes(title_text=title)
    figure.update_yaxes(categoryorder="array", categoryarray=[one.name for one in reversed(arms)])
    return figure


@dataclass(frozen=True)
class Scan:
    """Errors over the adaptation step.

    Attributes:
        name: of the frames. seed: of the training. chosen: the step that these frames chose, None for others.
        rates: [R] steps. errors: [R] eV/Å or eV/atom. off: without adaptation.
    """

    name: str
    seed: int
    rates: ArrayLike
    errors: ArrayLike
    off: float
    chosen: float | None = None


def rate_scan(scans: Sequence[Scan], unit: str = "meV/Å") -> go.Figure:
    """Error over the adaptation step as a multiple of that without adaptation; a star where the step was chosen.

    Args:
        scans: frames that chose the step solid, others dotted. unit: of a thousandth of the errors.
    """
    figure, seen = go.Figure(), dict[str, str]()
    for one in scans:
        rates, errors = np.asarray(one.rates, float), np.asarray(one.errors, float)
        new = one.name not in seen
        colour = seen.setdefault(one.name, COLOURS[len(seen) % len(COLOURS)])
        dash = "solid" if one.chosen is not None else "dot"
        figure.add_trace(
            go.Scatter(
                x=rates, y=errors / one.off, name=one.name, legendgroup=one.name, showlegend=new, mode="lines+markers",
                line={"color": colour, "width": 1.8, "dash": dash}, marker={"size": 5},
                customdata=MILLI * errors,
                hovertemplate=f"{one.name}, seed {one.seed}, step %{{x:.3g}}: %{{y:.4f}} of adaptation off, "
                f"%{{customdata:.4g}} {unit}<extra></extra>",
            )
        )  # fmt: skip
        at = np.flatnonzero(rates == one.chosen) if one.chosen is not None else []
        if len(at):
            figure.add_trace(
                go.Scatter(
                    x=rates[at], y=errors[at] / one.off, mode="markers", legendgroup="chosen", name="chosen",
                    showlegend="chosen" not in seen, hoverinfo="skip",
                    marker={"symbol": "star", "size": 14, "color": FAILURE},
                )
            )  # fmt: skip
            seen.setdefault("chosen", FAILURE)
    styled(figure, 320)
    figure.update_xaxes(title_text="adaptation step", type="log", exponentformat="power", dtick=1)
    figure.update_yaxes(title_text="error / error<br>without adaptation")
    line = {"color": STOPPED, "width": 1.2, "dash": "dash"}
    return figure.update_layout(
        hovermode="closest",
        shapes=[{"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": line}],
    )


def arms_training(curves: Sequence[tuple[str, int, ArrayLike, ArrayLike]]) -> go.Figure:
    """Validation force errors of several trainings over their steps.

    Args:
        curves: (arm, seed, [n] steps, [n] eV/Å); arms share a colour.
    """
    figure, colours = go.Figure(), dict[str, str]()
    for arm, seed, steps, errors in curves:
        new = arm not in colours
        colour = colours.setdefault(arm, COLOURS[len(colours) % len(COLOURS)])
        figure.add_trace(
            go.Scatter(
                x=np.asarray(steps, float), y=MILLI * np.asarray(errors, float), name=arm, legendgroup=arm,
                showlegend=new, mode="lines", line={"color": colour, "width": 1.6},
                hovertemplate=f"{arm}, seed {seed}: %{{y:.4g}} meV/Å<extra></extra>",
            )
        )  # fmt: skip
    figure.update_yaxes(title_text="force MAE<br>meV/Å", **LOGARITHMIC)
    figure.update_xaxes(title_text="optimiser step")
    return styled(figure, 300).update_layout(hovermode="closest")
