"""Mass density, frame by frame and as a summary per set and run: the first thing to look at when two sets differ.

A set that is less dense differs in every descriptor of surroundings, whatever else differs; in the published comparison
much of the shift between naive and iterative frames is such an expansion (arXiv 2603.10159, its data).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_masses

from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError
from mlipkit.units import AMU_PER_A3


@dataclass(frozen=True, eq=False)
class DensitySummary:
    """Density of each group of frames.

    Attributes:
        sets, runs: [G] names of set and run ("" where all frames of the set are one group).
        n_frames: int [G]; n_without: int [G] frames that have no density (not periodic along all axes).
        mean, std, low, high: g/cm³ [G], of the frames that have one; low and high are the extremes.
        volume: Å³ [G], mean.
    """

    sets: tuple[str, ...]
    runs: tuple[str, ...]
    n_frames: np.ndarray
    n_without: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    volume: np.ndarray

    def table(self) -> list[dict[str, object]]:
        """One row per group."""
        return [
            {
                "set": self.sets[g], "run": self.runs[g], "frames": int(self.n_frames[g]),
                "without_density": int(self.n_without[g]), "density_g_cm3": float(self.mean[g]),
                "std_g_cm3": float(self.std[g]), "lowest_g_cm3": float(self.low[g]),
                "highest_g_cm3": float(self.high[g]), "volume_A3": float(self.volume[g]),
            }
            for g in range(len(self.sets))
        ]  # fmt: skip


def volumes(frames: FrameSet) -> np.ndarray:
    """Å³ [F]; NaN where not all axes are periodic."""
    volume = np.abs(np.linalg.det(np.asarray(frames.cell)))
    return np.where(np.asarray(frames.pbc).all(axis=1), volume, np.nan)


def densities(frames: FrameSet) -> np.ndarray:
    """g/cm³ [F]; NaN where not all axes are periodic."""
    if not len(frames):
        return np.empty(0)
    mass = np.add.reduceat(atomic_masses[frames.numbers], frames.offsets[:-1])
    return mass / volumes(frames) * AMU_PER_A3


def summarise_density(
    sets: FrameSet | Mapping[str, FrameSet], runs: bool | Mapping[str, Sequence[str]] = False
) -> DensitySummary:
    """Density per set, or per set and run.

    Args:
        sets: name -> frames.
        runs: True: one group per trajectory. Or set -> name of the run of each of its frames.

    Raises:
        DataError: a set without frames, names that do not fit.
    """
    given = {"": sets} if isinstance(sets, FrameSet) else dict(sets)
    rows: list[tuple[str, str, np.ndarray, np.ndarray]] = []
    for name, frames in given.items():
        if not len(frames):
            raise DataError("a set without frames", where=("density", name))
        density, volume = densities(frames), volumes(frames)
        rows += [(name, run, density[mask], volume[mask]) for run, mask in _groups(name, frames, runs)]
    with np.errstate(invalid="ignore"):
        known = [density[np.isfinite(density)] for _, _, density, _ in rows]
    return DensitySummary(
        sets=tuple(row[0] for row in rows),
        runs=tuple(row[1] for row in rows),
        n_frames=np.array([len(row[2]) for row in rows]),
        n_without=np.array([len(row[2]) - len(some) for row, some in zip(rows, known, strict=True)]),
        mean=np.array([some.mean() if len(some) else np.nan for some in known]),
        std=np.array([some.std(ddof=1) if len(some) > 1 else np.nan for some in known]),
        low=np.array([some.min() if len(some) else np.nan for some in known]),
        high=np.array([some.max() if len(some) else np.nan for some in known]),
        volume=np.array(
            [volume[np.isfinite(volume)].mean() if np.isfinite(volume).any() else np.nan for *_, volume in rows]
        ),
    )


def _groups(name: str, frames: FrameSet, runs: bool | Mapping[str, Sequence[str]]) -> list[tuple[str, np.ndarray]]:
    """(run, mask [F]) in order of first appearance."""
    if isinstance(runs, Mapping):
        if name not in runs or len(runs[name]) != len(frames):
            raise DataError(
                "one name of a run per frame", where=("density", name), expected=len(frames),
                found=len(runs.get(name, ())),
            )  # fmt: skip
        names = np.array([str(run) for run in runs[name]])
        return [(run, names == run) for run in dict.fromkeys(names.tolist())]
    if not runs:
        return [("", np.ones(len(frames), bool))]
    numbers = np.asarray(frames.trajectory)
    return [("" if number < 0 else str(number), numbers == number) for number in dict.fromkeys(numbers.tolist())]
