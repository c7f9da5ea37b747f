"""Start velocities: Maxwell-Boltzmann with a seed, without total momentum, and without rotation for molecules.

Also the count of degrees of freedom that follows: an ensemble that conserves a vanishing momentum cannot put kinetic
energy there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlipkit import units
from mlipkit.errors import DataError
from mlipkit.md.state import MDState


def maxwell_boltzmann(
    state: MDState,
    temperature: float | Sequence[float],
    seed: int | Sequence[int] = 0,
    *,
    zero_momentum: bool = True,
    zero_rotation: bool = True,
    exact: bool = False,
) -> None:
    """Draw velocities at `temperature` (K; one number or one for each replica), in place.

    Args:
        seed: of each replica; one number n means n, n+1, n+2, ... Independent of the thermostat's seeds.
        zero_momentum: take away the motion of the centre of mass.
        zero_rotation: take away the rotation of replicas without periodic axes.
        exact: scale each replica so that its temperature is exactly the one asked for (with the degrees of freedom
            that remain), instead of a draw from the distribution.

    Raises:
        DataError: negative temperature or wrong number of temperatures or seeds.
    """
    target = per_replica(state, temperature, "temperature")
    if bool((target < 0).any()):
        raise DataError("negative temperature", where="velocities", found=target.tolist())
    seeds = [seed + index for index in range(state.n_systems)] if isinstance(seed, int) else list(seed)
    if len(seeds) != state.n_systems:
        raise DataError("one seed is needed for each replica", expected=state.n_systems, found=len(seeds))
    draws = [
        torch.randn(int(n), 3, generator=torch.Generator().manual_seed(value), dtype=torch.float64)
        for n, value in zip(state.n_atoms.tolist(), seeds, strict=True)
    ]
    width = torch.sqrt(
        units.BOLTZMANN * units.FORCE_TO_ACCELERATION * state.per_atom(target) / state.masses.unsqueeze(1)
    )
    state.velocities = torch.cat(draws).to(state.velocities.device) * width
    if zero_momentum:
        remove_momentum(state)
    if zero_rotation:
        remove_rotation(state)
    if exact:
        now = state.kinetic_energy() * 2 / units.BOLTZMANN / count_dof(state)
        scale = torch.sqrt(target / now.clamp(min=1e-300))
        state.velocities = state.velocities * state.per_atom(torch.where(target > 0, scale, torch.zeros_like(scale)))


def per_replica(state: MDState, value: float | Sequence[float] | Tensor, name: str) -> Tensor:
    """A setting as float64 [S]: one number for all, or one for each replica."""
    values = torch.as_tensor(value, dtype=torch.float64, device=state.energy.device).reshape(-1)
    if len(values) not in (1, state.n_systems):
        raise DataError(
            f"{name}: one value for all or one for each replica", expected=state.n_systems, found=len(values)
        )
    return values.expand(state.n_systems).clone()


def remove_momentum(state: MDState) -> None:
    """Subtract the velocity of the centre of mass of each replica, in place."""
    state.velocities = state.velocities - state.velocity_of_mass_centre()[state.system]


def remove_rotation(state: MDState) -> None:
    """Subtract the rigid rotation about the centre of mass of each replica without periodic axes, in place.

    Linear molecules have no inertia about their axis; the pseudo-inverse leaves that axis alone.
    """
    for _, atoms in _free_molecules(state):
        arm, spin, inertia = _rotation(state, atoms)
        omega = torch.linalg.pinv(inertia, rtol=1e-8, hermitian=True) @ spin
        state.velocities[atoms] -= torch.linalg.cross(omega.expand_as(arm), arm)


def count_dof(state: MDState) -> Tensor:
    """Degrees of freedom [S] of an ensemble that conserves momentum (and angular momentum without periodic axes).

    3N, less 3 where the total momentum is zero, less the number of rotations (3; 2 for linear molecules) where no axis
    is periodic and the angular momentum is zero too; at least 1. "Zero" is judged against the thermal velocities.
    """
    dof = 3.0 * state.n_atoms.to(torch.float64)
    total = state.per_system(state.masses)
    still = 0.5 * total * (state.velocity_of_mass_centre() ** 2).sum(1) / units.FORCE_TO_ACCELERATION
    kinetic = state.kinetic_energy()
    dof[still <= 1e-10 * kinetic] -= 3
    for index, atoms in _free_molecules(state):
        if len(range(*atoms.indices(len(state.numbers)))) < 2 or still[index] > 1e-10 * kinetic[index]:
            continue
        _, spin, inertia = _rotation(state, atoms)
        inverse = torch.linalg.pinv(inertia, rtol=1e-8, hermitian=True)
        if 0.5 * float(spin @ inverse @ spin) / units.FORCE_TO_ACCELERATION <= 1e-10 * float(kinetic[index]):
            dof[index] -= int(torch.linalg.matrix_rank(inertia, rtol=1e-8, hermitian=True))
    return dof.clamp(min=1)


def _free_molecules(state: MDState):
    for index in range(state.n_systems):
        if not bool(state.pbc[index].any()):
            yield index, slice(state.offsets[index], state.offsets[index + 1])


def _rotation(state: MDState, atoms: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Arms from the centre of mass [n,3], angular momentum [3] and inertia tensor [3,3] of one replica."""
    masses = state.masses[atoms].unsqueeze(1)
    arm = state.positions[atoms] - (masses * state.positions[atoms]).sum(0) / masses.sum()
    velocities = state.velocities[atoms] - (masses * state.velocities[atoms]).sum(0) / masses.sum()
    spin = (masses * torch.linalg.cross(arm, velocities)).sum(0)
    square = (masses * arm**2).sum()
    return arm, spin, square * torch.eye(3, dtype=arm.dtype, device=arm.device) - (masses * arm).T @ arm
