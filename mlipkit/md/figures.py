"""The figures of every step: one row per replica."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mlipkit import units
from mlipkit.md.state import MDState

COLUMNS = {
    "step": "",
    "time_fs": "fs",
    "temperature": "K",
    "potential_energy": "eV",
    "kinetic_energy": "eV",
    "total_energy": "eV",
    "conserved_energy": "eV",
    "max_force": "eV/Å",
}
STRESS_COLUMNS = {"pressure": "GPa", "density": "g/cm³"}


def columns_of(state: MDState) -> dict[str, str]:
    """Name -> unit of what `rows_of` gives for this state."""
    return {**COLUMNS, **(STRESS_COLUMNS if state.stress is not None else {})}


def rows_of(state: MDState) -> Tensor:
    """One row per replica [S, columns] on the state's device: those of `COLUMNS`, with stress also `STRESS_COLUMNS`."""
    kinetic = state.kinetic_energy()
    total = state.energy + kinetic
    rows = [
        torch.full_like(kinetic, state.step),
        torch.full_like(kinetic, state.time),
        state.temperature(kinetic),
        state.energy,
        kinetic,
        total,
        total - state.heat,
        state.max_force(),
    ]
    if state.stress is not None:
        volume = torch.linalg.det(state.cell).abs()
        volume = torch.where(volume > 0, volume, torch.nan)
        ideal = 2 * kinetic / (3 * volume)
        rows.append((ideal - state.stress.diagonal(dim1=1, dim2=2).mean(1)) / units.GPA)
        rows.append(state.per_system(state.masses) / volume * units.AMU_PER_A3)
    return torch.stack(rows, 1)


def figures(state: MDState) -> np.ndarray:
    """`rows_of` on the host."""
    return rows_of(state).cpu().numpy()
