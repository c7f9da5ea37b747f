"""All replicas at one step, seen at once: which of them are worth a close look (`mlipkit.md.look`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mlipkit.md.figures import COLUMNS
from mlipkit.md.look import NEAR, Array, Look
from mlipkit.md.state import MDState

_COLUMN = {name: place for place, name in enumerate(COLUMNS)}
_SKIN = 1.0  # Å; structure checks come every tenth step, a list lasts for several of them


def new_look(state: MDState, index: int) -> Look:
    """A look at one replica, with what does not change from step to step."""
    arrays = state.replica(index)
    target = state.thermostat.get("temperature")
    return Look(
        arrays["numbers"].copy(),
        arrays["masses"].copy(),
        arrays["pbc"].copy(),
        dof=float(state.dof[index]),
        target=None if target is None else float(target[index]),
    )


def look_at(state: MDState, index: int, row: np.ndarray) -> Look:
    """One replica at the present step, as checks see it."""
    looks = Looks([new_look(state, index)])
    arrays = state.replica(index)
    stacked = np.stack([arrays["positions"], arrays["velocities"], arrays["forces"]])
    looks.fill(row[None], lambda: (stacked, arrays["cell"][None]))
    return looks.close(0)


class Looks:
    """All replicas at one step, flat: atoms numbered through, one row of figures each.

    Attributes:
        each: the `Look` of each replica; only those given by `close` show the present step.
        rows: [S,columns], as `mlipkit.md.figures`.
        system, radii: replica and covalent radius (Å) of each atom [N].
        n_atoms, dof, target: [S]; the target temperature is NaN without a thermostat.
        cache: whatever a check keeps as long as the replicas stay the same.
    """

    def __init__(self, each: Sequence[Look]) -> None:
        self.each = list(each)
        self.n_atoms = np.array([look.n_atoms for look in self.each])
        self.offsets = np.concatenate([[0], np.cumsum(self.n_atoms)])
        self.system = np.repeat(np.arange(len(self.each)), self.n_atoms)
        self.radii = np.concatenate([look.radii for look in self.each])
        self.dof = np.array([look.dof for look in self.each])
        self.target = np.array([np.nan if look.target is None else look.target for look in self.each])
        self.rows: Array = np.empty((len(self.each), len(COLUMNS)))
        self.step, self.time = 0, 0.0
        self.cache: dict[str, Any] = {}
        self._near: Any = None
        self._pairs: tuple[Array, Array, Array] | None = None

    def fill(self, rows: Array, arrays: Callable[[], tuple[Array, Array]]) -> None:
        """Show the next step.

        Args:
            arrays: gives positions, velocities and forces [3,N,3] and cells [S,3,3] when they are asked for.
        """
        self.rows, self._fetch = rows, arrays
        self.step, self.time = int(rows[0, 0]), float(rows[0, 1])
        self._arrays: tuple[Array, Array] | None = None
        self._pairs = None

    @property
    def temperature(self) -> Array:
        return self.rows[:, _COLUMN["temperature"]]

    @property
    def potential_energy(self) -> Array:
        return self.rows[:, _COLUMN["potential_energy"]]

    @property
    def conserved_energy(self) -> Array:
        return self.rows[:, _COLUMN["conserved_energy"]]

    @property
    def max_force(self) -> Array:
        return self.rows[:, _COLUMN["max_force"]]

    @property
    def arrays(self) -> tuple[Array, Array]:
        """Positions, velocities and forces [3,N,3], cells [S,3,3]."""
        if self._arrays is None:
            self._arrays = self._fetch()
        return self._arrays

    def atoms(self, index: int) -> slice:
        """Atoms of a replica."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def close(self, index: int) -> Look:
        """One replica at this step."""
        look, row, span = self.each[index], self.rows[index].tolist(), self.atoms(index)
        (positions, velocities, forces), cells = self.arrays
        look.step, look.time = self.step, self.time
        look.temperature, look.potential_energy = row[_COLUMN["temperature"]], row[_COLUMN["potential_energy"]]
        look.conserved_energy, look.max_force = row[_COLUMN["conserved_energy"]], row[_COLUMN["max_force"]]
        look.positions, look.velocities, look.forces = positions[span], velocities[span], forces[span]
        look.cell = cells[index]
        return look

    def pairs(self) -> tuple[Array, Array, Array]:
        """Directed pairs [2,E], distances [E] and sums of covalent radii [E] of all replicas: at least those that
        `Look.pairs` gives for each, and some beyond."""
        if self._pairs is None:
            from mlipkit.data.skin_lists import SkinLists

            (positions, _, _), cells = self.arrays
            if self._near is None:
                reach = NEAR * 2 * float(self.radii.max())
                pbc = np.stack([look.pbc for look in self.each])
                self._near = SkinLists(reach, _SKIN, self.n_atoms.tolist(), pbc, lenient=True, coincident=True)
            self._near.update(torch.from_numpy(positions), torch.from_numpy(cells))
            edges = self._near.edge_index.numpy()
            first, second = edges
            vectors = positions[first] - positions[second] + self._near.shift_vectors.numpy()
            distances = np.sqrt(np.einsum("ek,ek->e", vectors, vectors))
            self._pairs = edges, distances, self.radii[first] + self.radii[second]
        return self._pairs

    def select(self, replicas: Sequence[int]) -> Looks:
        """Looks at some of the replicas."""
        part = Looks([self.each[index] for index in replicas])
        if self._near is not None:
            self._near.select(replicas)
            part._near = self._near
        return part
