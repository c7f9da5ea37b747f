"""FIRE, the fast inertial relaxation engine, for many structures at once, with cells that may relax too.

Per structure and step, with force F on all its variables, velocity v and time step Δt (unit masses):

    if F·v > 0:  v ← (1 − α) v + α |v| F/|F|,  after N_min such steps in a row  Δt ← min(f_inc Δt, Δt_max), α ← f_α α
    else:        v ← 0,  Δt ← f_dec Δt,  α ← α_start
    v ← v + Δt F,  x ← x + Δt v  (shortened to a length of 0.2 Å over all variables)

Bitzek, Koskinen, Gähler, Moseler, Gumbsch, Phys. Rev. Lett. 97, 170201 (2006); parameters, order of operations and
shortening as in `ase.optimize.FIRE`, so that steps agree one by one.

The cell is `A = A₀ exp(L/n)ᵀ` with the start's cell A₀, n atoms and the variable L [3,3]; atoms keep their places X in
the undeformed frame, `R = X exp(L/n)ᵀ` (`ase.filters.FrechetCellFilter`). With F = exp(L/n), virial W = −V (σ + P):

    force on X = f F,   force on L = D exp(L/n)ᵀ[W F⁻ᵀ] / n

where D exp(M)ᵀ[G] is the adjoint of the derivative of the exponential, a corner of the exponential of a 6x6 matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mlipkit.md.state import MDState

DT, DT_MAX, MAX_STEP, N_MIN = 0.1, 1.0, 0.2, 5
F_INC, F_DEC, ALPHA, F_ALPHA = 1.1, 0.5, 0.1, 0.99


@dataclass(eq=False)
class Fire:
    """Variables of a relaxation beside the structures: float64, S structures, N atoms.

    | field | shape | |
    |---|---|---|
    | places | [N,3] | atoms in the undeformed frame, Å |
    | velocities, cell_velocities | [N,3], [S,3,3] | of `places` and `strain` |
    | strain | [S,3,3] | L; zero at fixed cell |
    | start_cell | [S,3,3] | A₀, Å |
    | dt, alpha, downhill | [S] | Δt, α, steps in a row with F·v > 0 |
    | begun | [S] | 0 before the first step |
    """

    places: Tensor
    velocities: Tensor
    strain: Tensor
    cell_velocities: Tensor
    start_cell: Tensor
    dt: Tensor
    alpha: Tensor
    downhill: Tensor
    begun: Tensor

    PER_ATOM = ("places", "velocities")

    @classmethod
    def start(cls, state: MDState) -> Fire:
        """A relaxation that begins at the positions and cells of `state`."""
        one = torch.ones_like(state.dof)
        return cls(
            places=state.positions.clone(), velocities=torch.zeros_like(state.positions),
            strain=torch.zeros_like(state.cell), cell_velocities=torch.zeros_like(state.cell),
            start_cell=state.cell.clone(), dt=DT * one, alpha=ALPHA * one, downhill=0 * one, begun=0 * one,
        )  # fmt: skip

    def select(self, structures: list[int], atoms: Tensor) -> Fire:
        """Some of the structures, whose atoms are numbers `atoms`."""
        chosen = torch.as_tensor(structures, device=self.dt.device)
        return Fire(**{
            field.name: getattr(self, field.name)[atoms if field.name in self.PER_ATOM else chosen]
            for field in fields(self)
        })  # fmt: skip


def cell_forces(state: MDState, fire: Fire, pressure: float, hydrostatic: bool) -> tuple[Tensor, Tensor]:
    """Force on the strain variable, eV [S,3,3], and the stress that is to vanish, eV/Å³ [S,3,3].

    Args:
        pressure: eV/Å³.
        hydrostatic: only the size of the cell may change.
    """
    assert state.stress is not None
    n, identity = state.n_atoms.to(torch.float64)[:, None, None], torch.eye(3, dtype=torch.float64).to(state.cell)
    volume = torch.linalg.det(state.cell).abs()[:, None, None]
    virial = -volume * (state.stress + pressure * identity)
    if hydrostatic:
        virial = virial.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * identity
    log = fire.strain / n
    gradient = virial @ torch.linalg.inv(torch.linalg.matrix_exp(log).mT)
    corner = torch.zeros(len(log), 6, 6, dtype=log.dtype, device=log.device)
    corner[:, :3, :3] = corner[:, 3:, 3:] = log.mT
    corner[:, :3, 3:] = gradient
    return torch.linalg.matrix_exp(corner)[:, :3, 3:] / n, -virial / volume


def fire_step(state: MDState, fire: Fire, on_strain: Tensor | None) -> None:
    """One step from the forces that `state` holds; positions and cells of the state change, in place.

    Args:
        on_strain: from `cell_forces`; None keeps the cells.
    """
    deformation = torch.linalg.matrix_exp(fire.strain / state.n_atoms[:, None, None])
    on_places = state.forces
    if on_strain is not None:
        on_places = torch.einsum("na,nab->nb", state.forces, deformation[state.system])

    def dot(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        """Sum over all variables of each structure, [S]."""
        total = state.per_system((a * b).sum(1))
        return total if on_strain is None else total + (c * d).sum((1, 2))

    strain_force = fire.strain * 0 if on_strain is None else on_strain
    v, w = fire.velocities, fire.cell_velocities
    power = dot(on_places, v, strain_force, w)
    force = dot(on_places, on_places, strain_force, strain_force).sqrt()
    speed = dot(v, v, w, w).sqrt()
    begun, good = fire.begun > 0, power > 0
    # Velocities that are zero stay so under mixing, so the first step needs no case of its own there.
    keep = torch.where(good, 1 - fire.alpha, 0.0)
    turn = torch.where(good, fire.alpha * speed / force.clamp(min=1e-300), 0.0)
    v = state.per_atom(keep) * v + state.per_atom(turn) * on_places
    w = keep[:, None, None] * w + turn[:, None, None] * strain_force
    longer = good & (fire.downhill > N_MIN)
    dt = torch.where(longer, (fire.dt * F_INC).clamp(max=DT_MAX), fire.dt)
    alpha = torch.where(longer, fire.alpha * F_ALPHA, fire.alpha)
    uphill = begun & ~good
    fire.dt = torch.where(uphill, fire.dt * F_DEC, dt)
    fire.alpha = torch.where(uphill, torch.full_like(alpha, ALPHA), alpha)
    fire.downhill = torch.where(good, fire.downhill + 1, 0.0)
    fire.begun = torch.ones_like(fire.begun)
    v = v + state.per_atom(fire.dt) * on_places
    w = w + fire.dt[:, None, None] * strain_force
    length = fire.dt * dot(v, v, w, w).sqrt()
    scale = fire.dt * torch.where(length > MAX_STEP, MAX_STEP / length.clamp(min=1e-300), 1.0)
    fire.velocities, fire.cell_velocities = v, w
    fire.places = fire.places + state.per_atom(scale) * v
    if on_strain is None:
        state.positions = fire.places
        return
    fire.strain = fire.strain + scale[:, None, None] * w
    deformation = torch.linalg.matrix_exp(fire.strain / state.n_atoms[:, None, None])
    state.positions = torch.einsum("na,nba->nb", fire.places, deformation[state.system])
    state.cell = fire.start_cell @ deformation.mT
