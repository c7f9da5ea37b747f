"""The last steps of all replicas, kept in memory at every step and written for one when something goes wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlipkit.md.figures import on_host
from mlipkit.md.trajectory import TrajectoryWriter

MAX_BYTES = 256 << 20
WHOLE = slice(None)
_Step = tuple[Any, ...]  # rows, positions, velocities, forces, cells


class Ring:
    """The last steps: positions, velocities, forces [N,3], cells [S,3,3] and a row of figures [S,columns].

    It holds the tensors of each step themselves, where they lie: keeping a step copies nothing and never waits for a
    GPU. Whoever hands them over must not write to them any more.

    Args:
        n_atoms: atoms of all replicas together.
        columns: names of the figures in a row; `step`, `time_fs` and `potential_energy` are among them.
        size: number of steps; fewer for systems so large that they would take more than 256 MiB.
        n_systems: number of replicas S.
    """

    def __init__(
        self, n_atoms: int, columns: Sequence[str], size: int = 200, n_systems: int = 1, least: int = 1
    ) -> None:
        self.columns = tuple(columns)
        self.size = max(least, min(size, MAX_BYTES // (3 * 24 * n_atoms)))
        self._n_atoms, self._n_systems = n_atoms, n_systems
        self._kept: deque[_Step] = deque(maxlen=self.size)
        self._stacked: dict[str, np.ndarray] = {}  # of all replicas, while one after the other asks

    def __len__(self) -> int:
        return len(self._kept)

    def append(self, rows, positions, velocities, forces, cells) -> None:
        """Keep one step: rows [S,columns] (or [columns]), arrays [N,3], cells [S,3,3] (or [3,3])."""
        self._kept.append((rows, positions, velocities, forces, cells))
        self._stacked = {}

    def rows(self, n_steps: int) -> np.ndarray:
        """Rows of the latest steps [n_steps,S,columns] on the host, oldest first."""
        if n_steps == 1:
            return on_host(self._kept[-1][0])[None]
        return _stack([self._kept[k][0] for k in range(-n_steps, 0)])

    def arrays(self, back: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions, velocities and forces [3,N,3] and cells [S,3,3] of `back` steps ago, on the host."""
        _, *arrays, cells = self._kept[-1 - back]
        return np.array([on_host(values) for values in arrays]), on_host(cells)

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
        """Arrays [k,3,n,3], cells [k,3,3] and rows [k,columns] of one replica, oldest first."""
        if not self._stacked:
            k, n, s = len(self), self._n_atoms, self._n_systems
            self._stacked = {
                "arrays": _stack([values for step in self._kept for values in step[1:4]]).reshape(k, 3, n, 3),
                "cells": _stack([step[4] for step in self._kept]).reshape(k, s, 3, 3),
                "rows": _stack([step[0] for step in self._kept]).reshape(k, s, len(self.columns)),
            }
        arrays, cells, rows = self._stacked.values()
        return {"arrays": arrays[:, :, atoms], "cells": cells[:, system], "rows": rows[:, system]}

    def recall(self, *memories: dict[str, np.ndarray], device: str | torch.device = "cpu") -> None:
        """Take over what `memory` gave of every replica, in order; the steps to come lie on `device`."""
        self._kept.clear()
        # Rings of another time may have been of different length.
        length = min(len(memory["rows"]) for memory in memories)
        for k in range(-length, 0):
            arrays = np.concatenate([memory["arrays"][k] for memory in memories], axis=1)
            rows, cells = (np.stack([memory[name][k] for memory in memories]) for name in ("rows", "cells"))
            self.append(*(torch.as_tensor(values, device=device) for values in (rows, *arrays, cells)))

    def select(self, systems: Sequence[int], atoms: np.ndarray | Tensor) -> None:
        """Go on with some of the replicas, whose atoms are numbers `atoms`."""
        self._n_atoms, self._n_systems = len(atoms), len(systems)
        chosen, of = np.array(systems), np.asarray(atoms)
        which = (chosen, of, of, of, chosen)
        kept = [tuple(map(_some, step, which)) for step in self._kept]
        self._kept.clear()
        self._kept.extend(kept)
        self._stacked = {}


def _some(values: Tensor | np.ndarray, which: np.ndarray) -> Tensor | np.ndarray:
    return values[torch.from_numpy(which).to(values.device)] if isinstance(values, Tensor) else values[which]


def _stack(values: Sequence[Tensor | np.ndarray]) -> np.ndarray:
    """On the host, along a new first axis; a device is asked once."""
    tensors = [torch.as_tensor(value) for value in values]
    return torch.stack(tensors).cpu().numpy() if tensors else np.empty(0)
