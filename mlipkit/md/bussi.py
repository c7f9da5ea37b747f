"""Stochastic velocity rescaling: the canonical ensemble with one random number per replica and step in effect.

Before each Verlet step all velocities of a replica are multiplied by α,

    α² = e + (1 − e) K̄/(K n) (R₁² + Σ_{i=2..n} R_i²) + 2 R₁ sqrt(e (1 − e) K̄/(K n)),   e = exp(−Δt/τ)

| symbol | variable | unit |
|---|---|---|
| K, K̄ | kinetic energy now, and n k_B T/2 | eV |
| n | state.dof | |
| τ, T | thermostat["relaxation_time"], ["temperature"] | fs, K |
| R_i | n standard normal numbers | |

Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007), equation A7; as in `ase.md.bussi.Bussi`. The sum of
squares is drawn as it stands, from n normal numbers, which is exact and costs no more than one Langevin draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlipkit import units
from mlipkit.errors import DataError
from mlipkit.md.forces import ForceFunction
from mlipkit.md.nve import set_dof, verlet
from mlipkit.md.state import MDState
from mlipkit.md.velocities import per_replica


def bussi_init(
    state: MDState,
    *,
    temperature: float | Sequence[float] = 300.0,
    relaxation_time: float | Sequence[float] = 100.0,
    dof: int | None = None,
) -> None:
    """Prepare a state, in place: target temperature in K, relaxation time τ in fs (one number, or one per replica).

    Raises:
        DataError: a replica at rest, which no rescaling can warm.
    """
    set_dof(state, dof)
    target = per_replica(state, temperature, "temperature")
    resting = state.kinetic_energy() <= 0
    if bool(resting.any()):
        # At 0 K start velocities are zero however they are drawn.
        cold = bool((target[resting] == 0).any())
        raise DataError(
            "velocity rescaling needs moving atoms", where="bussi", found="atoms at rest" + (" at 0 K" if cold else ""),
            hint="Choose a temperature above 0 K, or langevin" if cold else "Draw start velocities first",
        )  # fmt: skip
    state.thermostat = {
        "temperature": target,
        "relaxation_time": per_replica(state, relaxation_time, "relaxation_time"),
    }


def bussi_step(state: MDState, forces: ForceFunction, timestep: float) -> None:
    """One step of `timestep` fs, in place."""
    thermostat = state.thermostat
    kinetic = state.kinetic_energy()
    first, squares = state.squares()
    keep = torch.exp(-timestep / thermostat["relaxation_time"])
    share = (1 - keep) * (0.5 * units.BOLTZMANN) * thermostat["temperature"] / kinetic
    square = keep + share * squares + 2 * first * torch.sqrt(keep * share)
    # α² is a perfect square plus a sum of squares, so only rounding can take it below zero.
    square = square.clamp(min=0)
    state.velocities = state.velocities * state.per_atom(torch.sqrt(square))
    state.heat = state.heat + (square - 1) * kinetic
    verlet(state, forces, timestep)
