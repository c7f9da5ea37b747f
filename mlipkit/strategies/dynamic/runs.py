"""AIMD runs in order of time as the ground of roll-outs: consecutive frames, unwrapped once, with velocities.

Sub-sequences are slices of what lies here: nothing is copied per start point.
"""

from __future__ import annotations

import dataclasses
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
LEAP = 1.5
"""A step so many times as long as those before and behind it, in their direction: a frame was left out there. Whole
trajectories of molecules, surfaces and liquids at 0.5 to 2 fs stay below 1.1."""
ALONG = 0.7
"""Least cosine between such a step and its neighbours."""
SCALE = 1.5
"""Velocities so many times as large as differences of positions, or as small, are in other units."""

EVERY_FRAME = "Roll-outs need every frame of a run, at the time step of its simulation"


@dataclass(frozen=True, eq=False)
class AIMDRuns:
    """Frames of several runs, one run after the other, each in order of time.

    Attributes:
        frames: labelled, with unwrapped positions and, where they came from a file, velocities in Å/fs.
        starts: first frame of each run, and the number of frames at the end [T+1].
        timestep: of each run, fs [T].
        by_difference: velocities are central differences, made when they are asked for.
        said: how the velocities were found, in one sentence.
        part: what the runs are for ("validation"), for errors.
    """

    frames: FrameSet
    starts: np.ndarray
    timestep: np.ndarray
    by_difference: bool
    said: str = ""
    part: str = ""

    def __len__(self) -> int:
        return len(self.timestep)

    @property
    def run_of(self) -> np.ndarray:
        """Run of each frame, int [F]."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @property
    def longest(self) -> int:
        """Most structures of a roll-out for which there is a start point; 0 where runs are too short for any."""
        return max(0, int(np.diff(self.starts).max()) - 2 - int(self.by_difference))

    def start_points(self, n_structures: int) -> np.ndarray:
        """Frames from which that many structures and one more follow in the same run, int64.

        Without velocities of their own the first frame of a run is none.
        """
        first = self.starts[:-1] + int(self.by_difference)
        last = self.starts[1:] - n_structures - 1
        points = [np.arange(a, b, dtype=np.int64) for a, b in zip(first, last, strict=True) if b > a]
        if not points:
            least = n_structures + 2 + int(self.by_difference)
            raise DataError(
                f"no run is long enough for roll-outs of {n_structures} structures", where=self.part or "start points",
                expected=f"at least {least} frames in a run", found=f"at most {int(np.diff(self.starts).max())}",
                hint="Roll out fewer structures, or use longer runs",
            )  # fmt: skip
        return np.concatenate(points)

    def at_an_end(self, frames: np.ndarray) -> np.ndarray:
        """Which frames are the first or the last of their run, bool [F]."""
        return np.isin(frames, np.concatenate([self.starts[:-1], self.starts[1:] - 1]))

    def velocities(self, frame: int) -> np.ndarray:
        """Å/fs [n,3] at a frame.

        Raises:
            DataError: the first or the last frame of a run, where velocities are differences.
        """
        if not self.by_difference:
            return self.frames.frame(frame)["velocities"]
        if self.at_an_end(np.array([frame]))[0]:
            raise DataError(
                "velocities are differences of positions, and a neighbour is missing",
                where=(self.part, f"frame {frame}"), hint="Start from a frame in the middle of the run",
            )  # fmt: skip
        a, b = (self.frames.frame(frame + side)["positions"] for side in (-1, 1))
        return (b - a) / (2.0 * self.timestep[self.run_of[frame]])


def aimd_runs(frames: FrameSet, velocities: Velocities = "auto", part: str = "") -> AIMDRuns:
    """Bring the frames of AIMD runs in order, unwrap them and see to their velocities.

    Args:
        frames: with `trajectory` and `time`.
        velocities: "file": those of the frames, in Å/fs; "lattice": the file holds displacements per step in fractions
            of the cell vectors; "difference": (R(t+Δt) - R(t-Δt)) / 2Δt; "auto": of the file where it has them.
        part: what the runs are for ("validation"), named in errors.

    Raises:
        DataError: no frame; frames that belong to no run or are not equally spaced in time, that do not follow each
            other, and velocities that do not belong to the positions (with the correlation that was measured).
    """
    if not len(frames):
        raise DataError("no frame", where=part or "dynamic training")
    parts, numbers, starts, timestep = [], [], [0], []
    for number, run in runs(frames):
        where = (part, f"run {number}")
        if number < 0:
            raise DataError(
                "frames that belong to no run", where=part or "dynamic training", found=f"{len(run)} frames",
                hint="Give runs and times: frames.with_table(trajectory=..., time=...)",
            )  # fmt: skip
        spacing = equal_spacing(one_run(run, ": ".join(filter(None, where))))
        if spacing is None:
            raise DataError("frames are not equally spaced in time", where=where, hint="Use every frame of the run")
        parts.append(run)
        numbers.append(number)
        starts.append(starts[-1] + len(run))
        timestep.append(spacing)
    ordered = FrameSet.concat(parts) if len(parts) > 1 else parts[0]
    bounds = np.array(starts)
    positions = _unwrapped(ordered, bounds)
    for number, (a, b) in zip(numbers, itertools.pairwise(starts), strict=True):
        path = positions[ordered.offsets[a] : ordered.offsets[b]].reshape(b - a, -1, 3)
        _check_consecutive(path, (part, f"run {number}"))
    given = ordered.velocities
    if velocities in ("file", "lattice") and given is None:
        raise DataError("no velocities", where=part or "dynamic training", hint="Take velocities='difference'")
    if velocities == "difference" or given is None:
        said = "velocities: central differences of the positions"
        return AIMDRuns(_with(ordered, positions, None), bounds, np.array(timestep), True, said, part)
    _check_known(np.asarray(given), ordered, bounds, numbers, part)
    made = _with(ordered, positions, _file_velocities(ordered, velocities, bounds, timestep))
    found = AIMDRuns(made, bounds, np.array(timestep), False, "", part)
    return dataclasses.replace(found, said=_check_velocities(found))


def velocity_agreement(found: AIMDRuns, most: int = 200) -> tuple[float, float]:
    """Correlation of the velocities with central differences of the positions, and how many times as large they are
    (slope of a line through zero), over at most so many frames; NaN where either has none but zeros."""
    middle = np.concatenate([np.arange(a + 1, b - 1) for a, b in itertools.pairwise(found.starts)])
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
    one, other = np.concatenate(ours), np.concatenate(theirs)
    if not (one.any() and other.any()):
        return float("nan"), float("nan")
    return float(np.corrcoef(one, other)[0, 1]), float(one @ other / (one @ one))


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


def _check_consecutive(path: np.ndarray, where: tuple[str, str]) -> None:
    """Refuse positions [F,n,3] of which some were left out: between neighbours atoms go on where they were going."""
    if len(path) < 3:
        raise DataError(
            "a run of fewer than three frames", where=where, found=len(path),
            hint="Leave it out, or take more of its frames (split, n_train)",
        )  # fmt: skip
    steps = np.diff(path, axis=0)
    sizes = np.linalg.norm(steps, axis=2).max(axis=1)
    farthest = int(sizes.argmax())
    if sizes[farthest] > LARGEST_STEP:
        raise DataError(
            "frames do not follow each other", where=(*where, f"frame {farthest + 1}"),
            expected=f"no step above {LARGEST_STEP:g} Å", found=f"{sizes[farthest]:.2f} Å", hint=EVERY_FRAME,
        )  # fmt: skip
    flat = steps.reshape(len(steps), -1)
    length = np.linalg.norm(flat, axis=1)
    along = (flat[1:] * flat[:-1]).sum(axis=1)
    correlation = float(along.sum() / max(length[1:] @ length[1:] * (length[:-1] @ length[:-1]), 1e-300) ** 0.5)
    if correlation < 0.5:
        raise DataError(
            "frames do not follow each other", where=where,
            expected="steps that correlate with the ones before by more than 0.5", found=f"{correlation:.2f}",
            hint=EVERY_FRAME,
        )  # fmt: skip
    cosine = along / np.maximum(length[1:] * length[:-1], 1e-300)
    beside = np.maximum(length[:-2], length[2:])
    leaps = (length[1:-1] > LEAP * beside) & (np.minimum(cosine[:-1], cosine[1:]) > ALONG)
    if leaps.any():
        at = int(leaps.argmax())
        raise DataError(
            "a frame was left out", where=(*where, f"between frames {at + 1} and {at + 2}"),
            expected="a step about as long as its neighbours", found=f"{length[at + 1] / beside[at]:.2f} times as long",
            hint="Make two runs of it: frames.with_table(trajectory=...)",
        )  # fmt: skip


def _check_known(given: np.ndarray, frames: FrameSet, starts: np.ndarray, numbers: list[int], part: str) -> None:
    """Refuse velocities [N,3] that are missing or no numbers."""
    missing = np.flatnonzero(~np.isfinite(given).all(axis=1))
    if not len(missing):
        return
    frame = int(np.searchsorted(frames.offsets, missing[0], side="right")) - 1
    run = int(np.searchsorted(starts, frame, side="right")) - 1
    raise DataError(
        "velocities are missing or no numbers", where=(part, f"run {numbers[run]}", f"frame {frame - starts[run]}"),
        hint="Take velocities='difference'",
    )  # fmt: skip


def _check_velocities(found: AIMDRuns) -> str:
    """How well the velocities belong to the positions, in one sentence; refuses them where they do not."""
    correlation, scale = velocity_agreement(found)
    if not correlation > CORRELATED:
        raise DataError(
            "velocities do not belong to the positions", where=found.part or "dynamic training",
            expected=f"a correlation with central differences above {CORRELATED}", found=f"{correlation:.3f}",
            hint="Velocities of half steps, frames that were left out: take velocities='difference' or 'lattice'",
        )  # fmt: skip
    if not 1 / SCALE < scale < SCALE:
        raise DataError(
            "velocities are not in Å/fs, or the times of the frames not in fs", where=found.part or "dynamic training",
            expected="velocities as large as central differences", found=f"{scale:.3g} times as large",
            hint="Convert them (ASE's are 10.18 times as large), or take velocities='difference'",
        )  # fmt: skip
    return f"velocities: of the file, correlation {correlation:.4f} with central differences"


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
