"""Constant energy: velocity Verlet and nothing else."""

from __future__ import annotations

from mlipkit.md.forces import ForceFunction, advance
from mlipkit.md.state import MDState
from mlipkit.md.velocities import count_dof
from mlipkit.md.verlet import drift, kick


def nve_init(state: MDState, *, dof: int | None = None) -> None:
    """Prepare a state, in place.

    Args:
        dof: degrees of freedom that carry kinetic energy; None counts them (`velocities.count_dof`).
    """
    set_dof(state, dof)


def nve_step(state: MDState, forces: ForceFunction, timestep: float) -> None:
    """One step of `timestep` fs, in place (equations in `mlipkit.md.verlet`)."""
    verlet(state, forces, timestep)


def set_dof(state: MDState, dof: int | None) -> None:
    """Degrees of freedom of an ensemble that conserves momentum, unless told otherwise."""
    state.dof = count_dof(state) if dof is None else state.dof.new_full((state.n_systems,), float(dof))


def verlet(state: MDState, forces: ForceFunction, timestep: float) -> None:
    """Kick, drift, new forces, kick."""
    velocities = kick(state.velocities, state.forces, state.masses, 0.5 * timestep)
    state.positions = drift(state.positions, velocities, timestep)
    advance(state, forces, timestep)
    state.velocities = kick(velocities, state.forces, state.masses, 0.5 * timestep)
