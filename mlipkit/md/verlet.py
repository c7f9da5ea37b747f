"""Velocity Verlet as pure functions of tensors, the same for MD and for losses on rolled-out trajectories.

Nothing here changes its arguments, draws random numbers or leaves the autograd graph: differentiate as often as needed.

    v(t+Δt/2) = v(t) + c F(t)/m Δt/2          kick
    x(t+Δt)   = x(t) + v(t+Δt/2) Δt           drift
    v(t+Δt)   = v(t+Δt/2) + c F(t+Δt)/m Δt/2  kick

with c = `units.FORCE_TO_ACCELERATION`. Swope, Andersen, Berens, Wilson, J. Chem. Phys. 76, 637 (1982).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mlipkit.units import FORCE_TO_ACCELERATION


def kick(velocities: Tensor, forces: Tensor, masses: Tensor, time: float) -> Tensor:
    """Velocities [..., N, 3] in Å/fs after forces [..., N, 3] in eV/Å acted on masses [N] in u for `time` fs."""
    return torch.addcdiv(velocities, forces, masses.unsqueeze(-1), value=time * FORCE_TO_ACCELERATION)


def drift(positions: Tensor, velocities: Tensor, time: float) -> Tensor:
    """Positions [..., N, 3] in Å after free flight for `time` fs."""
    return torch.add(positions, velocities, alpha=time)


def verlet_step(
    positions: Tensor,
    velocities: Tensor,
    forces: Tensor,
    masses: Tensor,
    timestep: float,
    force_function: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of velocity Verlet: (positions, velocities, forces) at t + `timestep`.

    Args:
        force_function: positions [..., N, 3] -> forces [..., N, 3] in eV/Å. Gradients pass when it lets them.
    """
    velocities = kick(velocities, forces, masses, 0.5 * timestep)
    positions = drift(positions, velocities, timestep)
    forces = force_function(positions)
    return positions, kick(velocities, forces, masses, 0.5 * timestep), forces
