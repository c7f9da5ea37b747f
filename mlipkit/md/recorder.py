"""What is kept of the replicas: trajectories, series, the last steps, and what the checks say."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlipkit.md.checkpoint import part
from mlipkit.md.figures import columns_of, rows_of
from mlipkit.md.figures import figures as figures
from mlipkit.md.files import Files
from mlipkit.md.judging import Judge, build_checks
from mlipkit.md.looks import Looks, new_look
from mlipkit.md.looks import look_at as look_at
from mlipkit.md.panel import Panel, Said
from mlipkit.md.ring import Ring
from mlipkit.md.state import MDState

_RING_IN_CHECKPOINT = 32 << 20
_ROWS, _ROWS_S = 256, 0.4
"""Rows of all replicas that wait in memory, and for how long, before they go to the series."""
STEPS_ON_DEVICE = 10
"""Steps that a GPU does before the host looks at their figures: a failure is dated right and noticed so much later."""


class Recorder:
    """Files, memory and judges of all replicas.

    Args:
        folders: of each replica; gets ``trajectory.traj``, ``series/md`` and, when something goes wrong,
            ``last_steps.traj``.
        checks: changes of limits, as in `build_checks`.
        replicas: their numbers in words; None for the only one.
        stride: steps between stored frames.
        kept: (frames, rows) of each replica in a checkpoint to go on from; None begins anew.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        state: MDState,
        checks: Mapping[str, Any],
        *,
        replicas: Sequence[int | None],
        stride: int,
        ring_steps: int,
        kept: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        columns, n = columns_of(state), state.n_systems
        self.stride, self.columns = stride, list(columns)
        self.files = [Files(folders[i], "md", columns, state, i, kept[i] if kept else None) for i in range(n)]
        for folder in folders:
            (folder / "last_steps.traj").unlink(missing_ok=True)
        self.every = 1 if state.positions.device.type == "cpu" else STEPS_ON_DEVICE
        self.ring = Ring(len(state.numbers), self.columns, ring_steps, n, least=self.every)
        judges = [Judge(build_checks(checks), replica) for replica in replicas]
        for folder, judge in zip(folders, judges, strict=True):
            for check in judge.checks:
                check.attach(folder)
        self.panel = Panel(judges, Looks([new_look(state, index) for index in range(n)]))
        self._unread: list[Tensor | None] = []  # stress at each step whose figures have not been looked at
        self._rows, self._filled, self._since = np.empty((_ROWS, n, len(self.columns))), 0, time.monotonic()
        self._ended: dict[int, int] = {}  # replicas that failed -> rows of theirs in `_rows` that count

    def begin(self, state: MDState) -> Said:
        """Record the start and show it to the checks."""
        self._append(state)
        rows, stresses = self.ring.rows(1)[0], self._unread
        self._unread = []
        self._keep_rows(rows)
        self._store(rows, 0, stresses[0])
        self.panel.looks.fill(rows, lambda: self.ring.arrays(0))
        return self.panel.begin()

    def step(self, state: MDState, read: bool = False) -> Said:
        """Record one step. New verdicts come every step, on a GPU every tenth and when `read` asks for them."""
        self._append(state)
        return self.read() if read or len(self._unread) >= self.every else {}

    def read(self) -> Said:
        """Look at the steps that have not been looked at; all that was said, a failure last."""
        said: Said = {}
        unread, self._unread = self._unread, []
        for back, rows in zip(
            range(len(unread) - 1, -1, -1), self.ring.rows(len(unread)) if unread else (), strict=True
        ):
            stored = int(rows[0, 0]) % self.stride == 0
            self._keep_rows(rows)
            if stored:
                self._store(rows, back, unread[-1 - back])
            arrays = lambda back=back: self.ring.arrays(back)  # noqa: E731 - asked for by few checks at few steps
            for index, verdicts in self.panel.look(rows, arrays, stored, self._ended).items():
                said.setdefault(index, []).extend(verdicts)
                if self.panel.judges[index].failed:
                    self._ended[index] = self._filled
        return said

    def _append(self, state: MDState) -> None:
        # Forces and stress are a provider's, who may fill the same memory again.
        self.ring.append(rows_of(state), state.positions, state.velocities, state.forces.clone(), state.cell)
        stored = state.stress is not None and state.step % self.stride == 0
        self._unread.append(state.stress.clone() if stored else None)  # type: ignore[union-attr]

    def _keep_rows(self, rows: np.ndarray) -> None:
        if self._filled == _ROWS or time.monotonic() - self._since > _ROWS_S:
            self.flush()
        self._rows[self._filled] = rows
        self._filled += 1

    def _store(self, rows: np.ndarray, back: int, stress: Tensor | None) -> None:
        """A frame of every replica that goes on; NaN stress (not all axes periodic) is no stress."""
        (positions, velocities, forces), cells = self.ring.arrays(back)
        tensions = None if stress is None else stress.cpu().numpy()
        step, now = int(rows[0, 0]), float(rows[0, 1])
        energies = rows[:, self.columns.index("potential_energy")].tolist()
        for index, files in enumerate(self.files):
            if index in self._ended:
                continue
            span = self.panel.looks.atoms(index)
            tension = None if tensions is None else tensions[index]
            files.trajectory.append(
                positions[span],
                velocities[span],
                cells[index],
                energy=energies[index],
                forces=forces[span],
                stress=None if tension is None or not np.isfinite(tension).all() else tension,
                info={"step": step, "time_fs": now},
            )

    def write_last_steps(self, index: int) -> Path:
        """Write the ring of a replica, up to its failure; returns the file."""
        files, judge = self.files[index], self.panel.judges[index]
        path = files.folder / "last_steps.traj"
        later = self.panel.looks.step - judge.worst.step if judge.failed and judge.worst is not None else 0
        self.ring.write(path, files.numbers, files.masses, files.pbc, index, self.panel.looks.atoms(index), skip=later)
        return path

    def select(self, stay: Sequence[int]) -> None:
        """Go on with some of the replicas; the files of the others are closed."""
        self.flush()
        looks = self.panel.looks
        for index in set(range(len(self.files))) - set(stay):
            self.files[index].close()
        atoms = np.concatenate([np.arange(len(looks.system))[looks.atoms(index)] for index in stay])
        self.ring.select(stay, atoms)
        self.files, self.panel = [self.files[index] for index in stay], self.panel.select(stay)
        self.panel.looks.step, self.panel.looks.time = looks.step, looks.time
        self._rows, self._ended = np.empty((_ROWS, len(stay), len(self.columns))), {}

    def flush(self, durable: bool = False) -> None:
        """Bring series (and, for a checkpoint, everything down to the disk) into the files."""
        for index, files in enumerate(self.files):
            count = self._ended.get(index, self._filled)
            if count:
                files.series.append(self._rows[:count, index])
            files.series.flush(sync=durable)
            if durable:
                files.trajectory.flush()
        self._ended = dict.fromkeys(self._ended, 0)
        self._filled, self._since = 0, time.monotonic()

    def close(self) -> None:
        self.flush()
        for files in self.files:
            files.close()

    def memory(self, index: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint needs of a replica: a JSON record and tensors."""
        files = self.files[index]
        record, arrays = self.panel.judges[index].memory()
        record.update(frames=files.trajectory.n_frames, rows=files.series.n_rows)
        named = {f"checks.{name}": value for name, value in arrays.items()}
        ring = self.ring.memory(index, self.panel.looks.atoms(index))
        if sum(array.nbytes for array in ring.values()) <= _RING_IN_CHECKPOINT:
            named.update({f"ring.{name}": value for name, value in ring.items()})
        return record, {name: torch.from_numpy(np.array(value)) for name, value in named.items()}

    def recall(
        self, records: Sequence[Mapping[str, Any]], tensors: Sequence[Mapping[str, Tensor]], state: MDState
    ) -> None:
        """Take over what `memory` gave of each replica, for the restored state."""
        rings = [_arrays(mine, "ring.") for mine in tensors]
        if all(rings):
            self.ring.recall(*rings, device=state.positions.device)
        arrays = [getattr(state, name).cpu().numpy() for name in ("positions", "velocities", "forces", "cell")]
        stacked = np.stack(arrays[:3])
        self.panel.looks.fill(figures(state), lambda: (stacked, arrays[3]))
        for index, judge in enumerate(self.panel.judges):
            judge.recall(records[index], _arrays(tensors[index], "checks."), self.panel.looks.close(index))


def _arrays(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in part(tensors, prefix).items()}
