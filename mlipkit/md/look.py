"""`Look`: one replica at one step, as checks see it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

Array = NDArray[np.float64]
NEAR = 1.5
"""Atoms are near when their distance is below this many times the sum of their covalent radii."""


@dataclass(eq=False)
class Look:
    """One replica at one step, as checks see it. The same object is filled anew at every step.

    Units: eV, Å, fs, K, eV/Å. `target` is the thermostat's temperature or None; arrays are [n], [n,3], [3,3].
    """

    numbers: NDArray[np.int64]
    masses: Array
    pbc: NDArray[np.bool_]
    dof: float
    step: int = 0
    time: float = 0.0
    target: float | None = None
    temperature: float = math.nan
    potential_energy: float = math.nan
    conserved_energy: float = math.nan
    max_force: float = math.nan
    positions: Array = field(default_factory=lambda: np.empty((0, 3)))
    velocities: Array = field(default_factory=lambda: np.empty((0, 3)))
    forces: Array = field(default_factory=lambda: np.empty((0, 3)))
    cell: Array = field(default_factory=lambda: np.zeros((3, 3)))
    _pairs_of: int = -1

    @property
    def n_atoms(self) -> int:
        return len(self.numbers)

    @cached_property
    def radii(self) -> Array:
        """Covalent radii [n], Å."""
        return covalent_radii[self.numbers]

    def names(self, atoms) -> str:
        """Symbols and indices: ``C1-H7``; at most four."""
        names = [f"{chemical_symbols[self.numbers[atom]]}{atom}" for atom in atoms]
        return "-".join(names) if len(names) <= 4 else f"{', '.join(names[:4])} and {len(names) - 4} more"

    def pairs(self) -> tuple[NDArray[np.int64], Array, Array]:
        """Directed pairs [2,E] up to 1.5 times the largest sum of covalent radii, distances [E], sums of radii [E]."""
        if self._pairs_of != self.step:
            from mlipkit.data.neighbours import neighbour_list

            reach = NEAR * 2 * float(self.radii.max())
            edges, _, vectors = neighbour_list(self.positions, self.cell, self.pbc, reach, coincident=True)
            self._pairs = edges, np.linalg.norm(vectors, axis=1), self.radii[edges[0]] + self.radii[edges[1]]
            self._pairs_of = self.step
        return self._pairs
