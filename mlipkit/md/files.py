"""What is on the disk of one structure on its way: its trajectory and its series."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlipkit.data.series import SeriesWriter
from mlipkit.md.state import MDState
from mlipkit.md.trajectory import TrajectoryWriter


class Files:
    """Trajectory and series of one structure.

    Args:
        folder: gets ``trajectory.traj`` and ``series/`` `name`.
        columns: of the series, with their units.
        index: of the structure in `state`.
        kept: (frames, rows) in a checkpoint to go on from; None begins anew.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        columns: Mapping[str, str],
        state: MDState,
        index: int,
        kept: tuple[int, int] | None,
    ) -> None:
        self.folder = folder
        arrays = state.replica(index)
        self.numbers, self.masses, self.pbc = (arrays[key].copy() for key in ("numbers", "masses", "pbc"))
        frames, rows = kept or (None, None)
        self.trajectory = TrajectoryWriter(folder / "trajectory.traj", self.numbers, self.masses, self.pbc, keep=frames)
        self.series = SeriesWriter(folder / "series" / name, columns, resume_rows=rows)

    def close(self) -> None:
        self.series.close()
        self.trajectory.close()
