"""The last steps of all replicas, kept in memory at every step and written for one when something goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlipkit.md.trajectory import TrajectoryWriter

MAX_BYTES = 256 << 20
WHOLE = slice(None)


class Ring:
    """Memory for the last steps: positions, velocities, forces [N,3], cells [S,3,3] and a row of figures [S,columns].

    It lies where the state lies, so that keeping a step never waits for a GPU.

    Args:
        n_atoms: atoms of all replicas together.
        columns: names of the figures in a row; `step`, `time_fs` and `potential_energy` are among them.
        size: number of steps; fewer for systems so large that they would take more than 256 MiB.
        n_systems: number of replicas S.
    """

    def __init__(
        self,
        n_atoms: int,
        columns: Sequence[str],
        size: int = 200,
        n_systems: int = 1,
        device: torch.device | str = "cpu",
        least: int = 1,
    ) -> None:
        self.columns = tuple(columns)
        self.size = max(least, min(size, MAX_BYTES // (3 * 24 * n_atoms)))
        self._arrays = torch.empty((self.size, 3, n_atoms, 3), dtype=torch.float64, device=device)
        self._cells = torch.empty((self.size, n_systems, 3, 3), dtype=torch.float64, device=device)
        self._rows = torch.empty((self.size, n_systems, len(self.columns)), dtype=torch.float64, device=device)
        self._n = 0

    def __len__(self) -> int:
        return min(self._n, self.size)

    def append(self, rows, positions, velocities, forces, cells) -> None:
        """Keep copies of one step: rows [S,columns] (or [columns]), arrays [N,3], cells [S,3,3] (or [3,3])."""
        at = self._n % self.size
        self._rows[at] = torch.as_tensor(rows)
        arrays = self._arrays[at]
        for place, values in zip(arrays, (positions, velocities, forces), strict=True):
            place.copy_(torch.as_tensor(values))
        self._cells[at] = torch.as_tensor(cells)
        self._n += 1

    def rows(self, n_steps: int) -> np.ndarray:
        """Rows of the latest steps [n_steps,S,columns] on the host, oldest first. A copy."""
        if n_steps == 1:
            at = (self._n - 1) % self.size
            return self._rows[at : at + 1].cpu().numpy().copy()
        return self._rows[self._order()[-n_steps:]].cpu().numpy()

    def arrays(self, back: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions, velocities and forces [3,N,3] and cells [S,3,3] of `back` steps ago, on the host.

        Where the ring lies there too these are views that hold until `size` more steps have been kept.
        """
        at = (self._n - 1 - back) % self.size
        return self._arrays[at].cpu().numpy(), self._cells[at].cpu().numpy()

    def write(
        self, path: Path, numbers: np.ndarray, masses: np.ndarray, pbc: np.ndarray,
        system: int = 0, atoms: slice = WHOLE, skip: int = 0,
    ) -> None:  # fmt: skip
        """Write the steps kept of one replica as a trajectory that ASE reads, every column of figures in `info`.

        Args:
            system, atoms: which replica, and its atoms.
            skip: so many of the latest steps are left out.
        """
        writer = TrajectoryWriter(path, numbers, masses, pbc)
        energy = self.columns.index("potential_energy")
        kept = self.memory(system, atoms)
        for row, (positions, velocities, forces), cell in list(
            zip(kept["rows"], kept["arrays"], kept["cells"], strict=True)
        )[: len(self) - skip]:
            info = dict(zip(self.columns, row.tolist(), strict=True))
            info["step"] = int(info["step"])
            writer.append(positions, velocities, cell, energy=row[energy], forces=forces, info=info)
        writer.close()

    def memory(self, system: int = 0, atoms: slice = WHOLE) -> dict[str, np.ndarray]:
        """Arrays [k,3,n,3], cells [k,3,3] and rows [k,columns] of one replica, oldest first. Copies."""
        order = self._order()
        kept = {
            "arrays": self._arrays[:, :, atoms][order],
            "cells": self._cells[order, system],
            "rows": self._rows[order, system],
        }
        return {name: values.cpu().numpy() for name, values in kept.items()}

    def recall(self, *memories: dict[str, np.ndarray]) -> None:
        """Take over what `memory` gave of every replica, in order."""
        self._n = 0
        # Rings of another time may have been of different length.
        length = min(len(memory["rows"]) for memory in memories)
        for k in range(-length, 0):
            arrays = np.concatenate([memory["arrays"][k] for memory in memories], axis=1)
            rows, cells = (np.stack([memory[name][k] for memory in memories]) for name in ("rows", "cells"))
            self.append(rows, arrays[0], arrays[1], arrays[2], cells)

    def select(self, systems: Sequence[int], atoms: Tensor) -> None:
        """Go on with some of the replicas, whose atoms are numbers `atoms`."""
        chosen = torch.as_tensor(list(systems), device=self._rows.device)
        self._arrays = self._arrays[:, :, atoms]
        self._cells, self._rows = self._cells[:, chosen], self._rows[:, chosen]

    def _order(self) -> list[int]:
        return [k % self.size for k in range(self._n - len(self), self._n)]
