"""t-SNE maps side by side with the numbers that may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mlipkit.errors import DataError
from mlipkit.plots.cells import CELLS, POINTS
from mlipkit.plots.runs import COLOURS, styled


@dataclass(frozen=True, eq=False)
class Panel:
    """One feature set.

    Attributes:
        points: [n, 2] map.
        groups: [n] set of each point ("training", "test").
        measures: what stands under the title, such as ``{"MMD²": "0.14 (p = 0.002)", "AUC": "0.84"}``.
    """

    points: np.ndarray
    groups: Sequence[str] | np.ndarray
    measures: Mapping[str, str]


def measures_of(mmd2: float, mmd_p: float, frechet: float, auc: float) -> dict[str, str]:
    """The three companions of a map as short text."""
    return {"MMD²": f"{mmd2:.3g} (p = {mmd_p:.2g})", "Fréchet": f"{frechet:.3g}", "AUC": f"{auc:.2f}"}


def embedding_maps(panels: Mapping[str, Panel]) -> go.Figure:
    """t-SNE maps of several feature sets, each with its measures; axes carry no numbers, as they mean nothing.

    Args:
        panels: name ("baseline", "before adaptation", "after adaptation") -> its map.

    Raises:
        DataError: no panel, or groups that do not fit the points.
    """
    if not panels:
        raise DataError("nothing to draw", where="embedding_maps")
    titles = [
        "<br>".join([f"<b>{name}</b>", *(f"{key} {value}" for key, value in panel.measures.items())])
        for name, panel in panels.items()
    ]
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=titles, horizontal_spacing=0.03)
    order = list(dict.fromkeys(str(one) for panel in panels.values() for one in np.unique(np.asarray(panel.groups))))
    for column, panel in enumerate(panels.values(), start=1):
        points, groups = np.asarray(panel.points, dtype=float), np.asarray(panel.groups).astype(str)
        if points.ndim != 2 or points.shape[1] != 2 or len(groups) != len(points):
            raise DataError("one group per point [n, 2]", where="embedding_maps", found=(points.shape, len(groups)))
        for number, name in enumerate(order):
            mine = points[groups == name]
            if len(points) > POINTS:
                mine = _one_per_cell(mine)
            look = {"size": 5, "opacity": 0.65, "color": COLOURS[number % len(COLOURS)]}
            figure.add_trace(
                go.Scatter(x=mine[:, 0], y=mine[:, 1], mode="markers", marker=look, name=name, legendgroup=name,
                           showlegend=column == 1, hoverinfo="skip"),
                row=1, col=column,
            )  # fmt: skip
    styled(figure, 430)
    figure.update_xaxes(showticklabels=False, showgrid=False, title_text="")
    figure.update_yaxes(showticklabels=False, showgrid=False)
    figure.update_annotations(font_size=12)
    figure.add_annotation(
        text="t-SNE: which points are neighbours can be read,<br>distances and axes cannot; compare the numbers",
        align="left",
        xref="paper", yref="paper", x=0, y=-0.06, xanchor="left", yanchor="top", showarrow=False, font={"size": 11},
    )  # fmt: skip
    figure.update_layout(
        hovermode="closest", margin={"t": 90, "l": 20}, legend={"y": -0.17, "yanchor": "top", "itemsizing": "constant"}
    )
    return figure


def _one_per_cell(points: np.ndarray) -> np.ndarray:
    """A point of each occupied cell, so that a map of many points stays small."""
    spread = np.ptp(points, axis=0) if len(points) else np.ones(2)
    cells = np.floor((points - points.min(axis=0, initial=np.inf)) / np.where(spread > 0, spread, 1) * CELLS)
    return points[np.sort(np.unique(cells, axis=0, return_index=True)[1])]
