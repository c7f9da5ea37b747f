"""Small systems with forces that are known exactly, for the tests of MD."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.cluster import Octahedron

from mlipkit.md import Forces, MDState, maxwell_boltzmann, state_from_atoms


class Springs:
    """Every pair of atoms of a replica is tied by a spring that rests at its start length; momentum is conserved."""

    def __init__(self, start: MDState, k: float = 3.0) -> None:
        self.k = k
        n = start.n_atoms.tolist()
        self.rest = torch.cdist(start.positions[: n[0]], start.positions[: n[0]])
        self.n_calls = 0

    def __call__(self, state: MDState) -> Forces:
        self.n_calls += 1
        positions = state.positions.view(state.n_systems, -1, 3)
        arms = positions[:, :, None] - positions[:, None]
        distances = arms.norm(dim=-1)
        stretch = distances - self.rest
        stretch.diagonal(dim1=1, dim2=2).zero_()
        inverse = 1 / distances.clamp(min=1e-9)
        forces = -self.k * ((stretch * inverse)[..., None] * arms).sum(2)
        return Forces(0.25 * self.k * (stretch**2).sum((1, 2)), forces.reshape(-1, 3))


class Harmonic:
    """Each atom on its own spring to the origin, isotropic with constant k (eV/Å²)."""

    def __init__(self, k: float = 1.0) -> None:
        self.k = k

    def __call__(self, state: MDState) -> Forces:
        return Forces(state.per_system(0.5 * self.k * (state.positions**2).sum(1)), -self.k * state.positions)


class FreeGas:
    """No forces at all."""

    def __call__(self, state: MDState) -> Forces:
        return Forces(torch.zeros_like(state.energy), torch.zeros_like(state.positions))


class FunctionCalculator(Calculator):
    """One of the above as an ASE calculator, so that ASE's integrators see the same forces."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def __init__(self, function, start: MDState) -> None:
        super().__init__()
        self.function, self.state = function, start.select([0])

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.state.positions = torch.tensor(self.atoms.positions)
        energy, forces, _ = self.function(self.state)
        self.results = {"energy": energy.item(), "free_energy": energy.item(), "forces": forces.numpy()}


def ethanol() -> Atoms:
    return molecule("CH3CH2OH")


def ethanol_state(replicas: int = 1, temperature: float = 300.0, seed: int = 5) -> MDState:
    state = state_from_atoms(ethanol(), seed=seed, replicas=replicas)
    maxwell_boltzmann(state, temperature, seed=seed + 1)
    return state


def palladium() -> Atoms:
    """A cluster of 19 atoms for ASE's EMT potential, slightly off its minimum."""
    atoms = Octahedron("Pd", 3)
    atoms.positions += 0.02 * np.random.default_rng(0).standard_normal(atoms.positions.shape)
    return atoms
