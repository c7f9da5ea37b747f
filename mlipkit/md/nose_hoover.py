"""Nosé-Hoover chain: the canonical ensemble from deterministic, time-reversible equations.

Half a step of the chain, velocity Verlet, half a step of the chain. The chain of M thermostats (η_j, p_j) obeys

    dη_j/dt = p_j/Q_j,   dp_j/dt = G_j − p_j p_{j+1}/Q_{j+1},   v ← v exp(−p_1/Q_1 dt)
    G_1 = 2K − n k_B T,   G_j = p_{j−1}²/Q_{j−1} − k_B T,   Q_1 = n k_B T τ²,   Q_j = k_B T τ²

integrated by Suzuki-Yoshida factors of fourth order.

| symbol | variable | unit |
|---|---|---|
| η_j, p_j | thermostat["chain_position"], ["chain_momentum"] [S,M] | 1, eV fs |
| T, τ | thermostat["temperature"], ["relaxation_time"] | K, fs |
| K, n | kinetic energy, state.dof | eV, 1 |

Martyna, Klein, Tuckerman, J. Chem. Phys. 97, 2635 (1992); Tuckerman et al., J. Phys. A 39, 5629 (2006); the splitting
of `ase.md.nose_hoover_chain.NoseHooverChainNVT`. The chain is a handful of numbers per replica: floats for one, arrays
for several, tensors where a device would have to be waited for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from mlipkit import units
from mlipkit.errors import DataError
from mlipkit.md.forces import ForceFunction
from mlipkit.md.nve import set_dof, verlet
from mlipkit.md.state import MDState
from mlipkit.md.velocities import per_replica

_OUTER = 1 / (2 - 2 ** (1 / 3))
_SUZUKI_YOSHIDA = (_OUTER, 1 - 2 * _OUTER, _OUTER)


def nose_hoover_init(
    state: MDState,
    *,
    temperature: float | Sequence[float] = 300.0,
    relaxation_time: float | Sequence[float] = 100.0,
    chain: int = 3,
    dof: int | None = None,
) -> None:
    """Prepare a state, in place: temperature in K, relaxation time τ in fs (one number, or one per replica), M = chain.

    Raises:
        DataError: temperature zero (no thermostat mass) or an empty chain.
    """
    set_dof(state, dof)
    target = per_replica(state, temperature, "temperature")
    if bool((target <= 0).any()) or chain < 1:
        raise DataError("a Nosé-Hoover chain needs a temperature above 0 K and at least one link", where="nose_hoover")
    state.thermostat = {
        "temperature": target,
        "relaxation_time": per_replica(state, relaxation_time, "relaxation_time"),
        "chain_position": torch.zeros(state.n_systems, chain, dtype=torch.float64, device=target.device),
        "chain_momentum": torch.zeros(state.n_systems, chain, dtype=torch.float64, device=target.device),
    }


def nose_hoover_step(state: MDState, forces: ForceFunction, timestep: float) -> None:
    """One step of `timestep` fs, in place."""
    _half_chain(state, 0.5 * timestep)
    verlet(state, forces, timestep)
    _half_chain(state, 0.5 * timestep)


def _half_chain(state: MDState, time: float) -> None:
    thermostat, kinetic = state.thermostat, state.kinetic_energy()
    inputs = 2 * kinetic, state.dof, thermostat["temperature"], thermostat["relaxation_time"]
    if state.n_systems == 1 and kinetic.device.type == "cpu":
        # Plain floats: many times less overhead than one-element arrays.
        position, momentum = thermostat["chain_position"][0].tolist(), thermostat["chain_momentum"][0].tolist()
        energy, dof, temperature, tau = (value.item() for value in inputs)
        scale = _chain(position, momentum, energy, dof, temperature, tau, time, _exp)
        columns = [position], [momentum]
    elif kinetic.device.type != "cpu":
        # A handful of tiny kernels more, but nothing that waits for the device.
        position, momentum = (list(thermostat[name].unbind(1)) for name in ("chain_position", "chain_momentum"))
        energy, dof, temperature, tau = inputs
        scale = _chain(position, momentum, energy, dof, temperature, tau, time, torch.exp)
        columns = torch.stack(position, 1), torch.stack(momentum, 1)
    else:
        position, momentum = (list(thermostat[name].cpu().numpy().T) for name in ("chain_position", "chain_momentum"))
        energy, dof, temperature, tau = (value.cpu().numpy() for value in inputs)
        with np.errstate(over="ignore", invalid="ignore"):  # an explosion, which is for the checks to name
            scale = _chain(position, momentum, energy, dof, temperature, tau, time, np.exp)
        columns = np.stack(position, 1), np.stack(momentum, 1)
    for name, values in zip(("chain_position", "chain_momentum"), columns, strict=True):
        thermostat[name] = torch.as_tensor(values, dtype=torch.float64, device=kinetic.device)
    factor = torch.as_tensor(scale, dtype=torch.float64, device=kinetic.device).reshape(-1)
    state.velocities = state.velocities * state.per_atom(factor)
    state.heat = state.heat + (factor**2 - 1) * kinetic


def _exp(x: float) -> float:
    """As NumPy's: infinite where `math.exp` raises, so that an explosion is left to the checks."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _chain(position: list, momentum: list, twice_kinetic, dof, temperature, tau, time: float, exp: Callable):
    """Advance the chain by `time` fs, in place; returns the factor of the velocities.

    Every quantity is a float, or an array over replicas with `exp` to match.
    """
    last = len(momentum) - 1
    thermal = units.BOLTZMANN * temperature
    mass = [thermal * tau * tau * (dof if j == 0 else 1) for j in range(last + 1)]
    scale = 1.0

    def push(j: int, step: float) -> None:
        friction = exp(-0.25 * step * momentum[j + 1] / mass[j + 1]) if j < last else 1.0
        if j == 0:
            drive = twice_kinetic * scale * scale - dof * thermal
        else:
            drive = momentum[j - 1] * momentum[j - 1] / mass[j - 1] - thermal
        momentum[j] = (momentum[j] * friction + 0.5 * step * drive) * friction

    for weight in _SUZUKI_YOSHIDA:
        step = weight * time
        for j in range(last, -1, -1):
            push(j, step)
        for j in range(last + 1):
            position[j] = position[j] + step * momentum[j] / mass[j]
        scale = scale * exp(-step * momentum[0] / mass[0])
        for j in range(last + 1):
            push(j, step)
    return scale
