"""What is kept of one replica: trajectory, series, the last steps, and what the checks say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlipkit import units
from mlipkit.data.series import SeriesWriter
from mlipkit.events import Verdict
from mlipkit.md.checks import Check, Look
from mlipkit.md.judging import Judge
from mlipkit.md.ring import Ring
from mlipkit.md.state import MDState
from mlipkit.md.trajectory import TrajectoryWriter

COLUMNS = {
    "step": "",
    "time_fs": "fs",
    "temperature": "K",
    "potential_energy": "eV",
    "kinetic_energy": "eV",
    "total_energy": "eV",
    "conserved_energy": "eV",
    "max_force": "eV/Å",
}
STRESS_COLUMNS = {"pressure": "GPa", "density": "g/cm³"}
_RING_IN_CHECKPOINT = 32 << 20


def figures(state: MDState) -> np.ndarray:
    """One row per replica [S, columns]: those of `COLUMNS`, and with stress those of `STRESS_COLUMNS`."""
    kinetic = state.kinetic_energy()
    total = state.energy + kinetic
    rows = [
        torch.full_like(kinetic, state.step),
        torch.full_like(kinetic, state.time),
        state.temperature(kinetic),
        state.energy,
        kinetic,
        total,
        total - state.heat,
        state.max_force(),
    ]
    if state.stress is not None:
        volume = torch.linalg.det(state.cell).abs()
        volume = torch.where(volume > 0, volume, torch.nan)
        ideal = 2 * kinetic / (3 * volume)
        rows.append((ideal - state.stress.diagonal(dim1=1, dim2=2).mean(1)) / units.GPA)
        rows.append(state.per_system(state.masses) / volume * units.AMU_PER_A3)
    return torch.stack(rows, 1).cpu().numpy()


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


def fill_look(look: Look, state: MDState, index: int, row: Sequence[float]) -> Look:
    """Fill a look with the present step; `row` holds its `figures`."""
    start, stop = state.offsets[index], state.offsets[index + 1]
    look.step, look.time = state.step, state.time
    look.temperature, look.potential_energy = row[2], row[3]
    look.conserved_energy, look.max_force = row[6], row[7]
    look.positions = state.positions[start:stop].cpu().numpy()
    look.velocities = state.velocities[start:stop].cpu().numpy()
    look.forces = state.forces[start:stop].cpu().numpy()
    look.cell = state.cell[index].cpu().numpy()
    return look


def look_at(state: MDState, index: int, row: np.ndarray) -> Look:
    """One replica at the present step, as checks see it."""
    return fill_look(new_look(state, index), state, index, row.tolist())


class Recorder:
    """Files, memory and judge of one replica.

    Args:
        folder: gets ``trajectory.traj``, ``series/md`` and, when something goes wrong, ``last_steps.traj``.
        state, index: the replica is number `index` of this state.
        replica: its number in words; None when it is the only one.
        stride: steps between stored frames.
        kept: (frames, rows) of a checkpoint to go on from; None begins anew.
    """

    def __init__(
        self,
        folder: Path,
        state: MDState,
        index: int,
        checks: list[Check],
        *,
        replica: int | None,
        stride: int,
        ring_steps: int,
        kept: tuple[int, int] | None = None,
    ) -> None:
        self.folder, self.stride = folder, stride
        self.replica = replica
        columns = {**COLUMNS, **(STRESS_COLUMNS if state.stress is not None else {})}
        arrays = state.replica(index)
        self.numbers, self.masses, self.pbc = (arrays[name].copy() for name in ("numbers", "masses", "pbc"))
        frames, rows = kept or (None, None)
        self.trajectory = TrajectoryWriter(folder / "trajectory.traj", self.numbers, self.masses, self.pbc, keep=frames)
        self.series = SeriesWriter(folder / "series" / "md", columns, resume_rows=rows)
        self.ring = Ring(len(self.numbers), list(columns), ring_steps)
        self.judge = Judge(checks, replica)
        self.look = new_look(state, index)
        (folder / "last_steps.traj").unlink(missing_ok=True)

    def begin(self, state: MDState, index: int, row: np.ndarray) -> list[Verdict]:
        """Record the start and show it to the checks."""
        self._keep(state, index, row)
        return self.judge.begin(self.look)

    def step(self, state: MDState, index: int, row: np.ndarray) -> list[Verdict]:
        """Record one step; new verdicts, a failure last."""
        stored = self._keep(state, index, row)
        return self.judge.look(self.look, stored)

    def _keep(self, state: MDState, index: int, row: np.ndarray) -> bool:
        look = fill_look(self.look, state, index, row.tolist())
        self.series.append(row)
        self.ring.append(row, look.positions, look.velocities, look.forces, look.cell)
        stored = state.step % self.stride == 0
        if stored:
            self.trajectory.append(
                look.positions,
                look.velocities,
                look.cell,
                energy=look.potential_energy,
                forces=look.forces,
                stress=None if state.stress is None else _finite(state.stress[index]),
                info={"step": state.step, "time_fs": state.time},
            )
        return stored

    def write_last_steps(self) -> Path:
        """Write the ring; returns the file."""
        path = self.folder / "last_steps.traj"
        self.ring.write(path, self.numbers, self.masses, self.pbc)
        return path

    def flush(self, durable: bool = False) -> None:
        """Bring series (and, for a checkpoint, everything down to the disk) into the files."""
        self.series.flush(sync=durable)
        if durable:
            self.trajectory.flush()

    def close(self) -> None:
        self.series.close()
        self.trajectory.close()

    def memory(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint needs of this replica: a JSON record and tensors."""
        record, arrays = self.judge.memory()
        record.update(frames=self.trajectory.n_frames, rows=self.series.n_rows)
        named = {f"checks.{name}": value for name, value in arrays.items()}
        ring = self.ring.memory()
        if sum(array.nbytes for array in ring.values()) <= _RING_IN_CHECKPOINT:
            named.update({f"ring.{name}": value for name, value in ring.items()})
        return record, {name: torch.from_numpy(np.array(value)) for name, value in named.items()}

    def recall(
        self, record: Mapping[str, Any], tensors: Mapping[str, Tensor], state: MDState, index: int, row: np.ndarray
    ) -> None:
        """Take over what `memory` gave, for the restored state."""
        parts = {
            part: {name.removeprefix(part): t.numpy() for name, t in tensors.items() if name.startswith(part)}
            for part in ("checks.", "ring.")
        }
        if parts["ring."]:
            self.ring.recall(parts["ring."])
        self.judge.recall(record, parts["checks."], fill_look(self.look, state, index, row.tolist()))


def _finite(stress: Tensor) -> np.ndarray | None:
    """NaN stress (not all axes periodic) is no stress."""
    return stress.cpu().numpy() if bool(torch.isfinite(stress).all()) else None
