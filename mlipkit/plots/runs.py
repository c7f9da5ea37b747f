"""Pictures of runs from plain arrays: training curves, validation errors, MD on one time axis, parity.

Every function is pure and gives a plotly Figure with transparent background and units on every axis, for notebook,
report and test alike. Callers decimate; a curve of more than some thousand points is theirs to thin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mlipkit.errors import DataError

# Okabe and Ito: told apart by colour-blind readers, on light and dark ground.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WARNING, FAILURE, STOPPED = "#C08000", "#D62728", "#7f7f7f"
MILLI = 1000.0
# With more ticks plotly labels every digit between two powers of ten.
LOGARITHMIC: dict[str, Any] = {"type": "log", "exponentformat": "power", "nticks": 3}


@dataclass(frozen=True)
class Mark:
    """A moment on the time axis of a simulation: first warning, failure, user's stop."""

    time_ps: float
    kind: Literal["warning", "failure", "stopped"]
    text: str


def training_curves(
    step: ArrayLike, losses: Mapping[str, ArrayLike], learning_rate: ArrayLike | None = None, *, x_title: str = "step"
) -> go.Figure:
    """Loss and its parts over the steps, logarithmic; the learning rate below when given.

    Args:
        step: [n] step or epoch numbers.
        losses: name -> [n] values (no unit: weighted sums).
        learning_rate: [n].
    """
    rows = 1 if learning_rate is None else 2
    heights = [1.0] if rows == 1 else [0.75, 0.25]
    figure = make_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=heights)
    for index, (name, values) in enumerate(losses.items()):
        figure.add_trace(_line(step, values, name, index), row=1, col=1)
    if learning_rate is not None:
        trace = _line(step, learning_rate, "learning rate", len(losses))
        figure.add_trace(trace.update(showlegend=False), row=2, col=1)
        figure.update_yaxes(title_text="learning rate", **LOGARITHMIC, row=2, col=1)
    figure.update_yaxes(title_text="loss", **LOGARITHMIC, row=1, col=1)
    figure.update_xaxes(title_text=x_title, row=rows, col=1)
    return styled(figure, 380)


def validation_errors(
    epoch: ArrayLike, errors: Mapping[str, Mapping[str, ArrayLike]], best_epoch: float | None = None
) -> go.Figure:
    """Energy and force errors per split over the epochs, logarithmic, one above the other.

    Args:
        epoch: [n]; 0 is the potential before the first step.
        errors: split -> {"energy_mae": [n] eV/atom, "forces_mae": [n] eV/Å}, shown in meV.
        best_epoch: marked by a line.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    titles = {"energy_mae": "energy MAE<br>meV/atom", "forces_mae": "force MAE<br>meV/Å"}
    for index, (split, figures) in enumerate(errors.items()):
        for row, key in enumerate(titles, start=1):
            if key in figures:
                values = np.asarray(figures[key], dtype=float) * MILLI
                trace = _line(epoch, values, split, index).update(mode="lines+markers", legendgroup=split)
                figure.add_trace(trace.update(showlegend=row == 2), row=row, col=1)
    for row, title in enumerate(titles.values(), start=1):
        figure.update_yaxes(title_text=title, **LOGARITHMIC, row=row, col=1)
    if best_epoch is not None:
        figure.add_vline(x=best_epoch, line={"dash": "dot", "color": STOPPED})
    figure.update_xaxes(title_text="epoch", row=2, col=1)
    return styled(figure, 420)


def md_curves(
    time_ps: ArrayLike,
    *,
    temperature: ArrayLike | None = None,
    energies: Mapping[str, ArrayLike] | None = None,
    max_force: ArrayLike | None = None,
    target_temperature: float | None = None,
    marks: Sequence[Mark] = (),
) -> go.Figure:
    """Temperature, energies and largest force of a simulation on one time axis, with the verdict marked.

    Args:
        time_ps: [n] simulated time.
        temperature: [n] K.
        energies: name -> [n] eV; each is shown relative to its first finite value.
        max_force: [n] eV/Å, logarithmic.
        target_temperature: K, a dotted line.
        marks: moments drawn through all rows.
    """
    panels: list[tuple[str, dict[str, np.ndarray], bool]] = []
    if temperature is not None:
        panels.append(("temperature<br>K", {"temperature": np.asarray(temperature, dtype=float)}, False))
    if energies:
        panels.append(("energy change<br>eV", {name: _from_first(values) for name, values in energies.items()}, False))
    if max_force is not None:
        panels.append(("largest force<br>eV/Å", {"largest force": np.asarray(max_force, dtype=float)}, True))
    if not panels:
        raise DataError("nothing to draw", where="md_curves", expected="temperature, energies or max_force")
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    colour = 0
    for row, (title, curves, logarithmic) in enumerate(panels, start=1):
        for name, values in curves.items():
            trace = _line(time_ps, values, name, colour).update(showlegend=len(curves) > 1)
            figure.add_trace(trace, row=row, col=1)
            colour += 1
        figure.update_yaxes(title_text=title, **(LOGARITHMIC if logarithmic else {}), row=row, col=1)
    target = target_temperature if temperature is not None else None
    figure.update_layout(mark_layout(marks, target))
    figure.update_xaxes(title_text="time (ps)", row=len(panels), col=1)
    return styled(figure, 180 * len(panels) + 60)


def mark_layout(marks: Sequence[Mark] = (), target_temperature: float | None = None) -> dict[str, list[dict[str, Any]]]:
    """Shapes and annotations of `md_curves` as plain data: lines through all rows, signs above, the target (K)."""
    colours = {"warning": WARNING, "failure": FAILURE, "stopped": STOPPED}
    signs = {"warning": "▼", "failure": "✖", "stopped": "■"}
    shapes: list[dict[str, Any]] = []
    if target_temperature:
        shapes.append({
            "type": "line", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": target_temperature,
            "y1": target_temperature, "line": {"dash": "dot", "color": STOPPED, "width": 1},
        })  # fmt: skip
    shapes += [
        {
            "type": "line", "xref": "x", "x0": mark.time_ps, "x1": mark.time_ps, "yref": "paper", "y0": 0, "y1": 1,
            "line": {"color": colours[mark.kind], "width": 1.5, "dash": "dash"},
        }
        for mark in marks
    ]  # fmt: skip
    annotations = [
        {
            "xref": "x", "x": mark.time_ps, "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False,
            "text": signs[mark.kind], "hovertext": mark.text, "font": {"color": colours[mark.kind], "size": 16},
        }
        for mark in marks
    ]  # fmt: skip
    return {"shapes": shapes, "annotations": annotations}


def parity(
    reference: ArrayLike, predicted: ArrayLike, *, quantity: str, unit: str, label: str = "", most: int | None = None
) -> go.Figure:
    """Predicted against reference values with the diagonal; MAE and RMSE in the title.

    Args:
        reference, predicted: [n], pairs with a missing reference are left out.
        quantity, unit: words on the axes.
        label: name of the set, in the title.
        most: points drawn at most, evenly taken; the errors in the title count all.
    """
    x, y = np.ravel(np.asarray(reference, dtype=float)), np.ravel(np.asarray(predicted, dtype=float))
    if x.shape != y.shape:
        raise DataError("reference and prediction differ in size", expected=x.shape, found=y.shape)
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    few = slice(None, None, -(-len(x) // most) if most and len(x) else None)
    marker = {"size": 4, "opacity": 0.5, "color": COLOURS[0]}
    figure = go.Figure(go.Scatter(x=x[few], y=y[few], mode="markers", marker=marker, showlegend=False))
    title = f"{quantity}{f', {label}' if label else ''}"
    if len(x):
        ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
        figure.add_trace(
            go.Scatter(x=ends, y=ends, mode="lines", line={"color": STOPPED, "dash": "dot"}, showlegend=False)
        )
        error = y - x
        mae, rmse = np.abs(error).mean() * MILLI, np.sqrt((error**2).mean()) * MILLI
        title += f": MAE {mae:.3g}, RMSE {rmse:.3g} m{unit} (n = {len(x)})"
    figure.update_xaxes(title_text=f"reference {unit}")
    figure.update_yaxes(title_text=f"predicted {unit}")
    figure.update_layout(title={"text": title, "font": {"size": 14}})
    return styled(figure, 420)


def styled(figure: go.Figure, height: int) -> go.Figure:
    """The look all pictures share; transparent, so that it lies on a light or a dark page."""
    grid = "rgba(128,128,128,0.25)"
    figure.update_layout(
        template="none", height=height, autosize=True, hovermode="x unified", colorway=list(COLOURS),
        margin={"l": 80, "r": 20, "t": 40, "b": 50}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}, font={"size": 12},
    )  # fmt: skip
    figure.update_xaxes(gridcolor=grid, zeroline=False, automargin=True)
    figure.update_xaxes(title_standoff=6, selector=lambda axis: bool(axis.title.text))
    figure.update_yaxes(gridcolor=grid, zeroline=False, automargin=True, title_standoff=8)
    return figure


def _line(x: ArrayLike, y: ArrayLike, name: str, index: int) -> go.Scatter:
    return go.Scatter(
        x=np.asarray(x), y=np.asarray(y, dtype=float), name=name, mode="lines",
        line={"width": 1.5, "color": COLOURS[index % len(COLOURS)]},
    )  # fmt: skip


def _from_first(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    finite = array[np.isfinite(array)]
    return array - finite[0] if len(finite) else array
