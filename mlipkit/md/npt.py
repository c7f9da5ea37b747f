"""Constant pressure by isotropic changes of volume: ASE's Martyna-Tobias-Klein integrator on an `MDState`.

The equations and their splitting are those of `ase.md.nose_hoover_chain.IsotropicMTKNPT` (J. Chem. Phys. 101, 4177,
1994). ASE keeps the chains and the volume variable in its integrator object; here they live in the state, and each step
builds that object afresh, so that a checkpoint of the state is a checkpoint of the simulation. One replica at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from mlipkit import units
from mlipkit.errors import DataError
from mlipkit.md.forces import ForceFunction, evaluate
from mlipkit.md.state import MDState, voigt
from mlipkit.md.velocities import per_replica

if TYPE_CHECKING:
    from ase.md.nose_hoover_chain import IsotropicMTKNPT

_CHAIN = 3


def npt_init(
    state: MDState,
    *,
    temperature: float = 300.0,
    pressure: float = 0.0,
    relaxation_time: float = 100.0,
    pressure_relaxation_time: float = 1000.0,
) -> None:
    """Prepare a state, in place: temperature in K, pressure in GPa, relaxation times in fs.

    Raises:
        DataError: more than one replica, an axis that is not periodic, or no temperature (no mass of the thermostat).
    """
    if state.n_systems != 1:
        raise DataError("constant pressure works on one replica at a time", where="npt", found=state.n_systems)
    if not bool(state.pbc.all()):
        raise DataError("constant pressure needs three periodic axes", where="npt", found=state.pbc[0].tolist())
    if temperature <= 0:
        raise DataError("constant pressure needs a temperature above 0 K", where="npt", found=temperature)
    # As in ASE: all 3N degrees of freedom.
    state.dof = 3.0 * state.n_atoms.to(torch.float64)
    settings = {
        "temperature": temperature,
        "pressure": pressure * units.GPA,
        "relaxation_time": relaxation_time,
        "pressure_relaxation_time": pressure_relaxation_time,
        "strain": 0.0,
        "strain_momentum": 0.0,
    }
    state.thermostat = {name: per_replica(state, value, name) for name, value in settings.items()}
    for name in ("chain_position", "chain_momentum", "barostat_position", "barostat_momentum"):
        state.thermostat[name] = state.dof.new_zeros(1, _CHAIN)
    state.thermostat["start_cell"] = state.cell.clone()


def npt_step(state: MDState, forces: ForceFunction, timestep: float) -> None:
    """One step of `timestep` fs, in place. The provider must give the stress.

    Raises:
        DataError: the provider gives no stress.
    """
    # ASE's integrators bring scipy's along: 40 MB that no other ensemble needs.
    from ase.md.nose_hoover_chain import IsotropicMTKNPT

    if state.stress is None:
        raise DataError("constant pressure needs the stress", where="npt", hint="Build the forces with stress=True.")
    thermostat = state.thermostat
    atoms = state.atoms()
    state.step += 1
    state.time += timestep
    atoms.calc = _StateCalculator(state, forces, atoms)
    dynamics = IsotropicMTKNPT(
        atoms,
        timestep=timestep / units.ASE_TIME,
        temperature_K=thermostat["temperature"].item(),
        pressure_au=thermostat["pressure"].item(),
        tdamp=thermostat["relaxation_time"].item() / units.ASE_TIME,
        pdamp=thermostat["pressure_relaxation_time"].item() / units.ASE_TIME,
        tchain=_CHAIN,
        pchain=_CHAIN,
    )
    chain, barostat = dynamics._thermostat, dynamics._barostat
    start_cell = thermostat["start_cell"][0].cpu().numpy()
    dynamics._cell0 = start_cell.copy()
    dynamics._volume0 = abs(float(np.linalg.det(start_cell)))
    dynamics._eps, dynamics._p_eps = thermostat["strain"].item(), thermostat["strain_momentum"].item()
    variables = {
        "chain_position": chain._eta,
        "chain_momentum": chain._p_eta,
        "barostat_position": barostat._xi,
        "barostat_momentum": barostat._p_xi,
    }
    for name, values in variables.items():
        values[:] = thermostat[name][0].cpu().numpy()
    before = _given(dynamics, atoms)
    dynamics.step()
    for name, values in variables.items():
        thermostat[name] = state.dof.new_tensor(values)[None]
    thermostat["strain"] = state.dof.new_tensor([dynamics._eps])
    thermostat["strain_momentum"] = state.dof.new_tensor([dynamics._p_eps])
    state.velocities = state.velocities.new_tensor(units.velocities_from_ase(atoms.get_velocities()))
    # Step by step: a pressure from the start, or a temperature changed on the way, gives nothing by being there.
    state.heat = state.heat + (_given(dynamics, atoms) - before)


def _given(dynamics: IsotropicMTKNPT, atoms: Atoms) -> float:
    """What bath and piston hold less than at zero, eV: ASE conserves E_pot + E_kin + everything of theirs."""
    return float(atoms.get_potential_energy() + atoms.get_kinetic_energy() - dynamics.get_conserved_energy())


class _StateCalculator(Calculator):
    """Gives ASE what the state holds, and moves the state to new positions when ASE asks for them."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - ASE's own declaration

    def __init__(self, state: MDState, forces: ForceFunction, atoms: Atoms) -> None:
        super().__init__()
        self._state, self._provider = state, forces
        self.atoms = atoms.copy()
        self._publish()

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        state = self._state
        state.positions = state.positions.new_tensor(self.atoms.positions)
        state.cell = state.cell.new_tensor(self.atoms.cell.array)[None]
        evaluate(state, self._provider)
        self._publish()

    def _publish(self) -> None:
        state = self._state
        if state.stress is None:
            raise DataError(
                "constant pressure needs the stress", where="npt", hint="Build the forces with stress=True."
            )
        energy = state.energy.item()
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": state.forces.cpu().numpy().copy(),
            "stress": voigt(state.stress[0].cpu().numpy()),
        }
