"""AIMD runs in order of time as the ground of roll-outs: consecutive frames, unwrapped once, with velocities.

Sub-sequences are slices of what lies here: nothing is copied per start point.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlipkit.analysis.time_order import equal_spacing, one_run, runs
from mlipkit.data import FrameSet
from mlipkit.errors import DataError

Velocities = Literal["auto", "file", "lattice", "difference"]
CORRELATED = 0.99
"""Least correlation of velocities from a file with central differences of the positions."""
LARGEST_STEP = 1.5
"""Å; atoms that move further between two frames do not belong to consecutive ones."""


@dataclass(frozen=True, eq=False)
class AIMDRuns:
    """Frames of several runs, one run after the other, each in order of time.

    Attributes:
        frames: labelled, with unwrapped positions and, where they came from a file, velocities in Å/fs.
        starts: first frame of each run, and the number of frames at the end [T+1].
        timestep: of each run, fs [T].
        by_difference: velocities are central differences, made when they are asked for.
        said: how the velocities were found, in one sentence.
    """

    frames: FrameSet
    starts: np.ndarray
    timestep: np.ndarray
    by_difference: bool
    said: str = ""

    def __len__(self) -> int:
        return len(self.timestep)

    @property
    def run_of(self) -> np.ndarray:
        """Run of each frame, int [F]."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def start_points(self, n_structures: int) -> np.ndarray:
        """Frames from which that many structures and one more follow in the same run, int64.

        Without velocities of their own the first frame of a run is none.
        """
        first = self.starts[:-1] + int(self.by_difference)
        last = self.starts[1:] - n_structures - 1
        points = [np.arange(a, b, dtype=np.int64) for a, b in zip(first, last, strict=True) if b > a]
        if not points:
            raise DataError(
                "no run is long enough", where="start points", expected=f"more than {n_structures + 1} frames in a run",
                found=f"at most {int(np.diff(self.starts).max())}", hint="Roll out fewer structures",
            )  # fmt: skip
        return np.concatenate(points)

    def velocities(self, frame: int) -> np.ndarray:
        """Å/fs [n,3] at a frame."""
        if not self.by_difference:
            return self.frames.frame(frame)["velocities"]
        a, b = (self.frames.frame(frame + side)["positions"] for side in (-1, 1))
        return (b - a) / (2.0 * self.timestep[self.run_of[frame]])


def aimd_runs(frames: FrameSet, velocities: Velocities = "auto") -> AIMDRuns:
    """Bring the frames of AIMD runs in order, unwrap them and see to their velocities.

    Args:
        frames: with `trajectory` and `time`.
        velocities: "file": those of the frames, in Å/fs; "lattice": the file holds displacements per step in fractions
            of the cell vectors; "difference": (R(t+Δt) - R(t-Δt)) / 2Δt; "auto": of the file where it has them.

    Raises:
        DataError: frames that belong to no run or are not equally spaced in time, that do not follow each other, and
            velocities that do not belong to the positions (with the correlation that was measured).
    """
    parts, starts, timestep = [], [0], []
    for number, run in runs(frames):
        where = f"run {number}"
        if number < 0:
            raise DataError(
                "frames that belong to no run", where="dynamic training", found=f"{len(run)} frames",
                hint="Give runs and times: frames.with_table(trajectory=..., time=...)",
            )  # fmt: skip
        spacing = equal_spacing(one_run(run, where))
        if spacing is None:
            raise DataError("frames are not equally spaced in time", where=where, hint="Use every frame of the run")
        parts.append(run)
        starts.append(starts[-1] + len(run))
        timestep.append(spacing)
    ordered = FrameSet.concat(parts) if len(parts) > 1 else parts[0]
    bounds = np.array(starts)
    positions = _unwrapped(ordered, bounds)
    _check_consecutive(ordered, positions, bounds)
    given = ordered.velocities
    if velocities in ("file", "lattice") and given is None:
        raise DataError("no velocities", where="dynamic training", hint="Take velocities='difference'")
    by_difference = velocities == "difference" or given is None
    made = _with(ordered, positions, None if by_difference else _file_velocities(ordered, velocities, bounds, timestep))
    found = AIMDRuns(made, bounds, np.array(timestep), by_difference)
    if by_difference:
        return AIMDRuns(made, bounds, found.timestep, True, "velocities: central differences of the positions")
    correlation = velocity_correlation(found)
    if not correlation > CORRELATED:
        raise DataError(
            "velocities do not belong to the positions", where="dynamic training",
            expected=f"a correlation with central differences above {CORRELATED}", found=f"{correlation:.3f}",
            hint="Other units, velocities of half steps or left-out frames: take velocities='difference' or 'lattice'",
        )  # fmt: skip
    said = f"velocities: of the file, correlation {correlation:.4f} with central differences"
    return AIMDRuns(made, bounds, found.timestep, False, said)


def velocity_correlation(found: AIMDRuns, most: int = 200) -> float:
    """Correlation of the velocities with central differences of the positions, over at most so many frames."""
    middle = np.concatenate([np.arange(a + 1, b - 1) for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)])
    if not len(middle):
        return float("nan")
    chosen = middle[np.unique(np.linspace(0, len(middle) - 1, most).astype(int))]
    run_of, offsets = found.run_of, found.frames.offsets
    x, velocities = found.frames.positions, found.frames.velocities
    assert velocities is not None
    ours, theirs = [], []
    for frame in chosen:
        n = offsets[frame + 1] - offsets[frame]
        before, after = (x[offsets[frame + side] : offsets[frame + side] + n] for side in (-1, 1))
        ours.append(np.asarray(after - before, float).ravel() / (2 * found.timestep[run_of[frame]]))
        theirs.append(np.asarray(velocities[offsets[frame] : offsets[frame + 1]], float).ravel())
    return float(np.corrcoef(np.concatenate(ours), np.concatenate(theirs))[0, 1])


def _unwrapped(frames: FrameSet, starts: np.ndarray) -> np.ndarray:
    """Positions [N,3] in which no atom jumps by a cell vector within a run; float64."""
    positions = np.array(frames.positions, float)
    for a, b in itertools.pairwise(starts):
        pbc = np.asarray(frames.pbc[a:b])
        if not pbc.any():
            continue
        n = int(frames.n_atoms[a])
        part = positions[frames.offsets[a] : frames.offsets[b]].reshape(b - a, n, 3)
        cells = np.asarray(frames.cell[a:b], float)
        cells = np.where(pbc[:, :, None], cells, np.eye(3))
        steps = np.einsum("fnk,fkl->fnl", np.diff(part, axis=0), np.linalg.inv(cells[1:]))
        images = np.where(pbc[1:, None, :], np.round(steps), 0.0)
        part[1:] -= np.einsum("fnk,fkl->fnl", np.cumsum(images, axis=0), cells[1:])
    return positions


def _check_consecutive(frames: FrameSet, positions: np.ndarray, starts: np.ndarray) -> None:
    """Refuse frames of which some were left out: only between neighbours atoms go on where they were going."""
    worst, where, far = 1.0, 0, 0.0
    for number, (a, b) in enumerate(itertools.pairwise(starts)):
        if b - a < 3:
            raise DataError("a run of fewer than three frames", where=f"run {number}", found=b - a)
        n = int(frames.n_atoms[a])
        part = positions[frames.offsets[a] : frames.offsets[b]].reshape(b - a, n, 3)
        steps = np.diff(part, axis=0)
        far = max(far, float(np.linalg.norm(steps, axis=2).max()))
        ahead, behind = steps[1:].ravel(), steps[:-1].ravel()
        correlation = float(ahead @ behind / max(np.sqrt((ahead @ ahead) * (behind @ behind)), 1e-300))
        if correlation < worst:
            worst, where = correlation, number
    if worst < 0.5 or far > LARGEST_STEP:
        raise DataError(
            "frames do not follow each other", where=f"run {where}",
            expected="steps that correlate with the ones before by more than 0.5",
            found=f"{worst:.2f}; largest step {far:.2f} Å",
            hint="Roll-outs need every frame of a run, at the time step of its simulation",
        )  # fmt: skip


def _file_velocities(frames: FrameSet, kind: Velocities, starts: np.ndarray, timestep: list[float]) -> np.ndarray:
    given = np.asarray(frames.velocities, float)
    if kind != "lattice":
        return given
    made = np.empty_like(given)
    for a, b, step in zip(starts[:-1], starts[1:], timestep, strict=True):
        rows = slice(frames.offsets[a], frames.offsets[b])
        part = given[rows].reshape(b - a, -1, 3)
        made[rows] = (np.einsum("fnk,fkl->fnl", part, np.asarray(frames.cell[a:b], float)) / step).reshape(-1, 3)
    return made


def _with(frames: FrameSet, positions: np.ndarray, velocities: np.ndarray | None) -> FrameSet:
    for array in (positions, velocities):
        if array is not None:
            array.flags.writeable = False
    sources = [frames.sources[int(code)] for code in frames.source_codes]
    return FrameSet.from_arrays(
        frames.numbers, positions, frames.n_atoms, cell=frames.cell, pbc=frames.pbc, velocities=velocities,
        energy=frames.energy, forces=frames.forces, stress=frames.stress, source=sources, trajectory=frames.trajectory,
        time=frames.time,
    )  # fmt: skip
