"""The picture of a training while it runs: loss and errors of one training on one axis of steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mlipkit.plots.runs import COLOURS, LOGARITHMIC, MILLI, STOPPED, styled

TRAINING_LOSS, EPOCH_LOSS, VALIDATION_LOSS, FORCES, ENERGY = range(5)
"""Numbers of the traces of `training_progress`."""


def training_progress(
    step: ArrayLike = (),
    loss: ArrayLike = (),
    evaluated: Mapping[str, ArrayLike] | None = None,
    best_step: float | None = None,
) -> go.Figure:
    """Training and validation loss, force error and energy error over the steps, one above the other, logarithmic.

    Args:
        step, loss: [n] steps and the loss of each (no unit: a weighted sum).
        evaluated: columns [m] of the evaluations: step, train_loss (mean over the epoch), objective (validation loss),
            forces_mae in eV/Å and energy_mae in eV/atom, both shown in meV.
        best_step: step of the best evaluation, marked by a line.
    """
    columns = {name: np.asarray(values, dtype=float) for name, values in (evaluated or {}).items()}
    at = columns.get("step", np.empty(0))
    none = np.full(len(at), np.nan)
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.4, 0.3, 0.3])

    def add(row: int, x: np.ndarray, y: np.ndarray, name: str, colour: str, **look: object) -> None:
        trace = go.Scatter(x=x, y=y, name=name, line={"color": colour, "width": 1.8}, **look)
        figure.add_trace(trace, row=row, col=1)

    add(1, np.asarray(step, dtype=float), np.asarray(loss, dtype=float), "training, each step", COLOURS[5],
        mode="lines", opacity=0.6)  # fmt: skip
    add(1, at, columns.get("train_loss", none), "training, mean of epoch", COLOURS[0], mode="lines")
    add(1, at, columns.get("objective", none), "validation", COLOURS[1], mode="lines+markers", marker={"size": 5})
    for row, name in ((2, "forces_mae"), (3, "energy_mae")):
        add(row, at, columns.get(name, none) * MILLI, "validation", COLOURS[1], mode="lines+markers",
            marker={"size": 5}, showlegend=False)  # fmt: skip
    for row, title in enumerate(("loss", "force MAE<br>meV/Å", "energy MAE<br>meV/atom"), start=1):
        figure.update_yaxes(title_text=title, **LOGARITHMIC, row=row, col=1)
    figure.update_xaxes(title_text="optimiser step", row=3, col=1)
    figure.update_layout(shapes=best_line(best_step))
    return styled(figure, 480)


def retention_progress() -> go.Figure:
    """Distance from the old labels of general frames over the steps of a fine-tuning: forces above, energies below."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    for row, title in enumerate(("forces<br>meV/Å", "energy<br>meV/atom"), start=1):
        figure.add_trace(
            go.Scatter(x=[], y=[], name="from the old labels of general frames", showlegend=row == 1,
                       mode="lines+markers", line={"color": COLOURS[3], "width": 1.8}, marker={"size": 5}),
            row=row, col=1,
        )  # fmt: skip
        figure.update_yaxes(title_text=title, rangemode="tozero", row=row, col=1)
    figure.update_xaxes(title_text="optimiser step", row=2, col=1)
    return styled(figure, 280)


def best_line(best_step: float | None) -> list[dict]:
    """Shapes that mark the best evaluation; none without one."""
    if best_step is None:
        return []
    line = {"color": STOPPED, "width": 1.5, "dash": "dot"}
    return [{"type": "line", "x0": best_step, "x1": best_step, "y0": 0, "y1": 1, "yref": "paper", "line": line}]
