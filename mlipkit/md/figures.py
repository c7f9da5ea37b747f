"""The figures of every step: one row per replica."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlipkit import units
from mlipkit.md.state import MDState

Array = NDArray[np.float64]
COLUMNS = {
    "step": "",
    "time_fs": "fs",
    "temperature": "K",
    "potential_energy": "eV",
    "kinetic_energy": "eV",
    "total_energy": "eV",
    "conserved_energy": "eV",
    "max_force": "eV/Å",
    "mean_force": "eV/Å",
}
STRESS_COLUMNS = {"pressure": "GPa", "density": "g/cm³"}


def columns_of(state: MDState) -> dict[str, str]:
    """Name -> unit of what `rows_of` gives for this state."""
    return {**COLUMNS, **(STRESS_COLUMNS if state.stress is not None else {})}


def rows_of(state: MDState) -> Tensor | Array:
    """One row per replica [S, columns]: those of `COLUMNS`, with stress also `STRESS_COLUMNS`.

    They stay on the device of the state. From a CPU they come as an array, as are the sums that are left once atoms
    have been summed up: on so few numbers NumPy takes a third of torch's time.
    """
    norms = state.force_norms()
    parts = [state.energy, state.kinetic_energy(), state.heat, state.dof]
    parts += [state.max_force(norms), state.mean_force(norms)]
    if state.stress is not None:
        volume = torch.linalg.det(state.cell).abs()
        volume = torch.where(volume > 0, volume, torch.nan)
        parts += [volume, state.stress.diagonal(dim1=1, dim2=2).mean(1), state.per_system(state.masses)]
    if state.energy.device.type == "cpu":
        return np.array(_columns(state, *(part.numpy() for part in parts))).T
    return torch.stack(_columns(state, *parts), 1)


def _columns(
    state: MDState, energy, kinetic, heat, dof, max_force, mean_force, volume=None, tension=None, mass=None
) -> list:
    """The columns [S] from arrays or tensors [S]: eV, eV/Å, Å³, eV/Å³, u."""
    total, zero = energy + kinetic, 0 * dof
    columns = [
        zero + state.step,
        zero + state.time,
        kinetic * (2 / units.BOLTZMANN) / dof,
        energy,
        kinetic,
        total,
        total - heat,
        max_force,
        mean_force,
    ]
    if volume is not None:
        columns += [(2 * kinetic / (3 * volume) - tension) / units.GPA, mass / volume * units.AMU_PER_A3]
    return columns


def figures(state: MDState) -> Array:
    """`rows_of` on the host."""
    return on_host(rows_of(state))


def on_host(values: Tensor | Array) -> Array:
    return values.cpu().numpy() if isinstance(values, Tensor) else values
