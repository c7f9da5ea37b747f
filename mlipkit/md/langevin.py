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
from torch import Tensor

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
    keep, width = _friction(state, timestep)
    before = kick(state.velocities, state.forces, state.masses, 0.5 * timestep)
    positions = drift(state.positions, before, 0.5 * timestep)
    velocities = before * keep + state.normal() * width
    state.heat = state.heat + state.kinetic_energy(torch.addcmul(velocities * velocities, before, before, value=-1))
    state.positions = drift(positions, velocities, 0.5 * timestep)
    advance(state, forces, timestep)
    state.velocities = kick(velocities, state.forces, state.masses, 0.5 * timestep)


def _friction(state: MDState, timestep: float) -> tuple[Tensor, Tensor]:
    """e^(−γΔt) and the width of the noise in Å/fs, one column each for [N,3]."""
    friction, temperature = state.thermostat["friction"], state.thermostat["temperature"]

    def make() -> tuple[Tensor, Tensor]:
        keep = torch.exp(friction * -timestep)
        width = torch.sqrt((1 - keep * keep) * temperature * (units.BOLTZMANN * units.FORCE_TO_ACCELERATION))
        return state.per_atom(keep), state.per_atom(width) / torch.sqrt(state.masses).unsqueeze(1)

    return state.derived(f"langevin {timestep}", (friction, temperature, state.masses), make)
