"""Pictures of a data set from plain arrays: composition, distributions of labels and distances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from mlipkit.plots.runs import COLOURS, FAILURE, styled

TITLES = {
    "energy": "energy per atom beyond the atomic energies, relative to the median",
    "force": "force on an atom",
    "distance": "closest pair of a frame / sum of covalent radii",
    "density": "density",
}


def composition(atoms: Mapping[str, int]) -> go.Figure:
    """Atoms of each element.

    Args:
        atoms: symbol -> number of atoms in all frames.
    """
    bars = go.Bar(x=list(atoms), y=list(atoms.values()), marker={"color": COLOURS[0]})
    figure = go.Figure(bars)
    figure.update_xaxes(title_text="element")
    figure.update_yaxes(title_text="atoms in all frames")
    return styled(figure, 280)


def distribution(
    edges: ArrayLike, counts: ArrayLike, title: str, unit: str, *, limit: float | None = None, log: bool = False
) -> go.Figure:
    """A histogram that was counted before; the first and last bar also hold what lies beyond.

    Args:
        edges: [n+1] in `unit`; counts: [n].
        title: what is counted; unit: of the horizontal axis, "" for a pure number.
        limit: a dashed line, for example below which atoms overlap.
        log: logarithmic counts, so that rare values are seen.
    """
    borders = np.asarray(edges, dtype=float)
    bars = go.Bar(
        x=0.5 * (borders[1:] + borders[:-1]), y=np.asarray(counts), width=np.diff(borders), marker={"color": COLOURS[0]}
    )
    figure = go.Figure(bars)
    figure.update_layout(bargap=0)
    figure.update_xaxes(title_text=f"{title}, {unit}" if unit else title)
    figure.update_yaxes(title_text="count", type="log" if log else "linear")
    if limit is not None:
        figure.add_vline(x=limit, line={"dash": "dash", "color": FAILURE})
    return styled(figure, 280)


def report_figures(elements: Mapping[str, int], histograms: Mapping[str, Mapping[str, Any]]) -> dict[str, go.Figure]:
    """All pictures of a data report.

    Args:
        elements: symbol -> atoms.
        histograms: name (energy, force, distance, density) -> ``edges`` [n+1], ``counts`` [n], ``unit``.
    """
    figures = {"composition": composition(elements)}
    for name, one in histograms.items():
        figures[name] = distribution(
            one["edges"],
            one["counts"],
            TITLES.get(name, name),
            one["unit"],
            limit=0.6 if name == "distance" else None,
            log=name == "force",
        )
    return figures
