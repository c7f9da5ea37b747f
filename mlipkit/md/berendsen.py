"""Berendsen's weak coupling: quick to equilibrate, but it samples no known ensemble.

Before each Verlet step all velocities of a replica are multiplied by

    λ = sqrt(1 + Δt/τ (T₀/T − 1)),   0.9 ≤ λ ≤ 1.1

| symbol | variable | unit |
|---|---|---|
| T₀ | thermostat["temperature"] | K |
| τ | thermostat["relaxation_time"] | fs |
| T | `state.temperature()` | K |

Berendsen, Postma, van Gunsteren, DiNola, Haak, J. Chem. Phys. 81, 3684 (1984). Same order of operations and bounds of λ
as `ase.md.nvtberendsen.NVTBerendsen`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlipkit.md.forces import ForceFunction
from mlipkit.md.nve import set_dof, verlet
from mlipkit.md.state import MDState
from mlipkit.md.velocities import per_replica


def berendsen_init(
    state: MDState,
    *,
    temperature: float | Sequence[float] = 300.0,
    relaxation_time: float | Sequence[float] = 100.0,
    dof: int | None = None,
) -> None:
    """Prepare a state, in place: target temperature in K, relaxation time τ in fs (one number, or one per replica)."""
    set_dof(state, dof)
    state.thermostat = {
        "temperature": per_replica(state, temperature, "temperature"),
        "relaxation_time": per_replica(state, relaxation_time, "relaxation_time"),
    }


def berendsen_step(state: MDState, forces: ForceFunction, timestep: float) -> None:
    """One step of `timestep` fs, in place."""
    thermostat = state.thermostat
    kinetic = state.kinetic_energy()
    # A replica at rest cannot be scaled to a temperature; the bound of λ keeps the factor finite.
    ratio = thermostat["temperature"] / state.temperature(kinetic).clamp(min=1e-12)
    scale = torch.sqrt((1 + (ratio - 1) * (timestep / thermostat["relaxation_time"])).clamp(min=0)).clamp(0.9, 1.1)
    state.velocities = state.velocities * state.per_atom(scale)
    state.heat = state.heat + (scale**2 - 1) * kinetic
    verlet(state, forces, timestep)
