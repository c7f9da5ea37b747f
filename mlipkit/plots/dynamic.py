"""Pictures of dynamic training: errors of roll-outs over epochs with marks of the curriculum, and along roll-outs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from mlipkit.plots.runs import _line, styled

MILLI = 1000.0


def curriculum_figure(epoch: ArrayLike, mepa: ArrayLike, n_structures: ArrayLike, stage: ArrayLike) -> go.Figure:
    """Validation error of roll-outs [E], eV/Å, over epochs [E]; a mark where roll-outs become longer.

    Args:
        n_structures, stage: S and number of the stage [E].
    """
    x, y = np.asarray(epoch, float), np.asarray(mepa, float) * MILLI
    lengths, stages = np.asarray(n_structures, float), np.asarray(stage, float)
    figure = go.Figure(_line(x, np.where(np.isfinite(y), y, np.nan), "validation roll-outs", 0))
    for row in np.flatnonzero(np.diff(stages) > 0):
        figure.add_vline(
            x=float(x[row]), line={"dash": "dot", "width": 1},
            annotation={"text": f"{int(lengths[row + 1])} structures", "textangle": -90, "yanchor": "top"},
        )  # fmt: skip
    figure.update_xaxes(title_text="epoch")
    figure.update_yaxes(title_text="error per atom type and step, meV/Å", type="log")
    return styled(figure, 340)


def rollout_error_figure(time: ArrayLike, curves: Mapping[str, ArrayLike]) -> go.Figure:
    """Force error along roll-outs: eV/Å of each step (a sum over elements) over time [S] in fs."""
    x = np.asarray(time, float)
    figure = go.Figure()
    for number, (name, values) in enumerate(curves.items()):
        y = np.array([np.nan if value is None else value for value in values], float) * MILLI  # type: ignore
        figure.add_trace(_line(x[: len(y)], y, name, number))
    figure.update_xaxes(title_text="time, fs")
    figure.update_yaxes(title_text="force error, sum over elements, meV/Å", rangemode="tozero")
    return styled(figure, 340)


def rollout_path_figure(time: ArrayLike, apart: Mapping[str, ArrayLike]) -> go.Figure:
    """Mean distance of atoms from the reference: Å of each step over time [S] in fs."""
    x = np.asarray(time, float)
    figure = go.Figure()
    for number, (name, values) in enumerate(apart.items()):
        figure.add_trace(_line(x, np.asarray(values, float), name, number))
    figure.update_xaxes(title_text="time, fs")
    figure.update_yaxes(title_text="mean distance, Å", rangemode="tozero")
    return styled(figure, 300)
