"""Pictures of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from mlipkit.plots.runs import COLOURS, styled

DEPTH_EV = 8.0
"""Around the minimum of the curves: walls reach hundreds of eV and would hide all else."""


def bond_scan_figure(scans: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Energy of pairs of atoms over their distance, untouched dashed and fine-tuned drawn through.

    Args:
        scans: mappings with ``pair``, ``distances`` [D] Å, ``before`` and ``after`` [D] eV relative to the largest.
    """
    figure = go.Figure()
    lowest = 0.0
    for number, scan in enumerate(scans):
        colour = COLOURS[number % len(COLOURS)]
        lowest = min(lowest, min(scan["before"]), min(scan["after"]))
        for name, dash in (("before", "dash"), ("after", "solid")):
            figure.add_scatter(
                x=scan["distances"], y=scan[name], mode="lines", line={"color": colour, "dash": dash},
                name=f"{scan['pair']} {name}", legendgroup=scan["pair"],
            )  # fmt: skip
    figure.update_xaxes(title_text="distance (Å)")
    figure.update_yaxes(title_text="energy (eV)", range=[max(lowest, -4 * DEPTH_EV) * 1.1 - 0.2, DEPTH_EV])
    return styled(figure, 360)
