"""Is this a structure to start from? Asked before the first step: a bad start is not the potential's fault."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mlipkit.events import Verdict
from mlipkit.md.forces import ForceFunction, evaluate
from mlipkit.md.judging import Judge, build_checks
from mlipkit.md.look import Look
from mlipkit.md.recorder import figures, look_at
from mlipkit.md.state import MDState


def preflight(state: MDState, forces: ForceFunction, checks: Mapping[str, Any] | None = None) -> list[Verdict]:
    """What speaks against a start: overlapping pairs, large forces, temperature, a cell shorter than the cutoff.

    The same checks look at a simulation's first frame before its first step; this asks them without starting one. The
    state gets its energy and forces.

    Args:
        checks: changes of limits, as in `mlipkit.md.build_checks`.

    Returns:
        Verdicts at step 0, each naming the atoms. A failed one keeps a simulation from starting.
    """
    if not state.evaluated:
        with torch.no_grad():
            evaluate(state, forces)
    rows, verdicts = figures(state), []
    for index in range(state.n_systems):
        look = look_at(state, index, rows[index])
        said = Judge(build_checks(checks), index if state.n_systems > 1 else None).begin(look)
        if warning := cell_warning(look, getattr(forces, "cutoff", None)):
            said.append(dataclasses.replace(warning, replica=index))
        verdicts += said
    return verdicts


def cell_warning(start: Look, cutoff: float | None) -> Verdict | None:
    """A warning when the cell is lower along a periodic axis than the potential reaches."""
    if cutoff is None or not start.pbc.any():
        return None
    height, axis = _smallest_height(start)
    if height >= cutoff:
        return None
    sentence = (
        f"Doubtful start structure: the cell is {height:.3g} Å high along axis {'abc'[axis]}, less than the cutoff of "
        f"{cutoff:.3g} Å, so atoms interact with their own images."
    )
    return Verdict("warning", check="cell", value=height, limit=cutoff, unit="Å", sentence=sentence)


def _smallest_height(start: Look) -> tuple[float, int]:
    """Smallest distance of opposite faces along the periodic axes, and its axis."""
    cell = np.array(start.cell, dtype=float)
    # Other axes get unit vectors perpendicular to the rest, so that a slab or a wire spans a volume too.
    given = [axis for axis in range(3) if start.pbc[axis]]
    spare = iter(np.linalg.svd(cell[given])[2][len(given) :])
    for axis in range(3):
        if not start.pbc[axis]:
            cell[axis] = next(spare)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    axis = min(given, key=lambda k: heights[k])
    return float(heights[axis]), axis
