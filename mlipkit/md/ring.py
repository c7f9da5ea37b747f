"""The last steps of a replica, kept in memory at every step and written when something goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlipkit.md.trajectory import TrajectoryWriter

MAX_BYTES = 256 << 20


class Ring:
    """Memory for the last steps: positions, velocities, forces [n,3], cell [3,3] and the row of figures of each.

    Args:
        n_atoms: atoms of the replica.
        columns: names of the figures in a row; `step`, `time_fs` and `potential_energy` are among them.
        size: number of steps; fewer for systems so large that they would take more than 256 MiB.
    """

    def __init__(self, n_atoms: int, columns: Sequence[str], size: int = 200) -> None:
        self.columns = tuple(columns)
        self.size = max(1, min(size, MAX_BYTES // (3 * 24 * n_atoms)))
        self._arrays = np.empty((self.size, 3, n_atoms, 3))
        self._cells = np.empty((self.size, 3, 3))
        self._rows = np.full((self.size, len(self.columns)), np.nan)
        self._n = 0

    def __len__(self) -> int:
        return min(self._n, self.size)

    def append(self, row: np.ndarray, positions, velocities, forces, cell) -> None:
        """Keep copies of one step."""
        at = self._n % self.size
        self._rows[at] = row
        arrays = self._arrays[at]
        arrays[0], arrays[1], arrays[2] = positions, velocities, forces
        self._cells[at] = cell
        self._n += 1

    def write(self, path: Path, numbers: np.ndarray, masses: np.ndarray, pbc: np.ndarray) -> None:
        """Write all steps kept as a trajectory that ASE reads, every column of figures in `info`."""
        writer = TrajectoryWriter(path, numbers, masses, pbc)
        energy = self.columns.index("potential_energy")
        for at in self._order():
            info = dict(zip(self.columns, self._rows[at].tolist(), strict=True))
            info["step"] = int(info["step"])
            positions, velocities, forces = self._arrays[at]
            writer.append(
                positions, velocities, self._cells[at], energy=self._rows[at, energy], forces=forces, info=info
            )
        writer.close()

    def memory(self) -> dict[str, np.ndarray]:
        """Arrays of the steps kept, oldest first."""
        order = self._order()
        return {"arrays": self._arrays[order], "cells": self._cells[order], "rows": self._rows[order]}

    def recall(self, memory: dict[str, np.ndarray]) -> None:
        """Take over what `memory` gave."""
        self._n = 0
        for row, arrays, cell in zip(memory["rows"], memory["arrays"], memory["cells"], strict=True):
            self.append(row, arrays[0], arrays[1], arrays[2], cell)

    def _order(self) -> list[int]:
        return [k % self.size for k in range(self._n - len(self), self._n)]
