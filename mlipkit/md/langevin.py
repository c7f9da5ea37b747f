"""Langevin dynamics, BAOAB splitting: the canonical ensemble with small configurational error.

    B  v ← v + c F/m Δt/2
    A  x ← x + v Δt/2
    O  v ← e^(−γΔt) v + sqrt((1 − e^(−2γΔt)) k_B T c/m) ξ
    A  x ← x + v Δt/2
    B  v ← v + c F/m Δt/2

| symbol | variable | unit |
|---|---|---|
| γ | thermostat["friction"] | 1/fs |
| T | thermostat["temperature"] | K |
| ξ | `state.normal()` | standard normal, one draw a step |
| c | `units.FORCE_TO_ACCELERATION` | Å u/(eV fs²) |

Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013); the scheme of `ase.md.langevinbaoab.LangevinBAOAB`. Friction
0.01/fs couples within about 100 fs. Momentum is not conserved: all 3N degrees of freedom are thermal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlipkit import units
from mlipkit.errors import DataError
from mlipkit.md.forces import ForceFunction, advance
from mlipkit.md.state import MDState
from mlipkit.md.velocities import per_replica
from mlipkit.md.verlet import drift, kick


def langevin_init(
    state: MDState,
    *,
    temperature: float | Sequence[float] = 300.0,
    friction: float | Sequence[float] = 0.01,
) -> None:
    """Prepare a state, in place: target temperature in K, friction γ in 1/fs (one number, or one per replica).

    Raises:
        DataError: a temperature or friction below zero or not finite.
    """
    thermostat = {
        "temperature": per_replica(state, temperature, "temperature"),
        "friction": per_replica(state, friction, "friction"),
    }
    for name, values in thermostat.items():
        if not bool((torch.isfinite(values) & (values >= 0)).all()):
            raise DataError(f"{name} below zero or not finite", where="langevin", expected="0 or more",
                            found=values.tolist())  # fmt: skip
    state.dof = 3.0 * state.n_atoms.to(torch.float64)
    state.thermostat = thermostat


def langevin_step(state: MDState, forces: ForceFunction, timestep: float) -> None:
    """One step of `timestep` fs, in place."""
    thermostat = state.thermostat
    velocities = kick(state.velocities, state.forces, state.masses, 0.5 * timestep)
    positions = drift(state.positions, velocities, 0.5 * timestep)

    before = state.per_system(units.kinetic_energy(state.masses, velocities))
    keep = torch.exp(thermostat["friction"] * -timestep)
    width = torch.sqrt((1 - keep * keep) * thermostat["temperature"] * (units.BOLTZMANN * units.FORCE_TO_ACCELERATION))
    noise = state.normal() * (state.per_atom(width) / torch.sqrt(state.masses).unsqueeze(1))
    velocities = velocities * state.per_atom(keep) + noise
    state.heat = state.heat + state.per_system(units.kinetic_energy(state.masses, velocities)) - before

    state.positions = drift(positions, velocities, 0.5 * timestep)
    advance(state, forces, timestep)
    state.velocities = kick(velocities, state.forces, state.masses, 0.5 * timestep)
