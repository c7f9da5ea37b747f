"""Coordination numbers along a run: smooth count, hard count, and when the number of neighbours changes.

    CN_i = Σ_j s(d_ij),      s(d) = (1 - (d/d0)^n) / (1 - (d/d0)^m),      n = 12, m = 24

s is near 1 well inside d0, n/m at d0 and falls off behind, so that an atom at the edge does not make the number jump.
The default d0 of 3 Å is for Cl around Co, whose first shell lies at 2.2 to 2.6 Å; choose the first minimum of the
radial distribution for others. The hard count takes every neighbour nearer than d0.

The number of neighbours "is" k when the median over 20 ps, rounded, is k: thermal motion does not move it.

Source: arXiv 2603.10159, its data: CoCl3 -> CoCl4; the switching function is that of collective variables in PLUMED
(Bonomi et al., Comput. Phys. Commun. 180, 1961, 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from ase.data import chemical_symbols
from scipy.ndimage import median_filter

from mlipkit.analysis.pairs import element, near_pairs, pair_name, same_pair
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError

WINDOW: Final = 20_000.0
"""fs of the rolling median."""
_NOTHING = 1e-5


@dataclass(frozen=True)
class CoordinationChange:
    """The rounded median of one atom goes from one number to another: `time` in fs, `frame` of the set."""

    atom: int
    frame: int
    time: float
    trajectory: int
    before: int
    after: int

    def text(self, centre: str = "", neighbour: str = "") -> str:
        """ "Co1: 3 -> 4 Cl at 6000.0 ps"."""
        return f"{centre}{self.atom}: {self.before} -> {self.after} {neighbour} at {self.time / 1000:.1f} ps"


@dataclass(frozen=True, eq=False)
class Coordination:
    """Coordination numbers of all atoms of one element.

    Attributes:
        centre, neighbour: atomic numbers.
        d0: Å; n, m: exponents.
        atom, frame: int [K] which atom (number within its frame, from 0) in which frame.
        smooth: [K]; hard: int [K].
        time: fs [F], trajectory: int [F] of all frames.
    """

    centre: int
    neighbour: int
    d0: float
    n: int
    m: int
    atom: np.ndarray
    frame: np.ndarray
    smooth: np.ndarray
    hard: np.ndarray
    time: np.ndarray
    trajectory: np.ndarray

    def mean(self) -> tuple[float, float]:
        """Smooth and hard number over all atoms and frames."""
        return float(self.smooth.mean()), float(self.hard.mean())

    def series(self, atom: int, trajectory: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(rows into `frame`, `smooth`, `hard`; times in fs; smooth numbers) of one atom of one run, in time order.

        Raises:
            DataError: the atom is none of the centres, or there are several runs and none is named.
        """
        rows = np.flatnonzero(self.atom == atom)
        found = np.unique(self.trajectory[self.frame[rows]])
        if trajectory is None and len(found) > 1:
            raise DataError("several trajectories", where="coordination", found=found.tolist(), hint="Name one.")
        if trajectory is not None:
            rows = rows[self.trajectory[self.frame[rows]] == trajectory]
        if not len(rows):
            raise DataError(
                f"atom {atom} is no {chemical_symbols[self.centre]}", where="coordination",
                expected=f"one of {np.unique(self.atom).tolist()[:10]}",
            )  # fmt: skip
        rows = rows[np.argsort(self.time[self.frame[rows]], kind="stable")]
        return rows, self.time[self.frame[rows]], self.smooth[rows]

    def changes(self, window: float = WINDOW) -> tuple[CoordinationChange, ...]:
        """When the rounded rolling median changes, for every atom of every run, in order of time.

        Frames without a time, or of no trajectory, have no order and no changes.
        """
        found = []
        for trajectory in np.unique(self.trajectory):
            time = self.time[self.trajectory == trajectory]
            if not np.isfinite(time).all() or (trajectory < 0 and (np.diff(time) <= 0).any()):
                continue
            mine = (self.trajectory == trajectory)[self.frame]
            for atom in np.unique(self.atom[mine]):
                rows, time, smooth = self.series(int(atom), int(trajectory))
                number = rounded_median(time, smooth, window)
                for at in np.flatnonzero(np.diff(number)) + 1:
                    found.append(
                        CoordinationChange(
                            int(atom), int(self.frame[rows[at]]), float(time[at]), int(trajectory),
                            int(number[at - 1]), int(number[at]),
                        )
                    )  # fmt: skip
        return tuple(sorted(found, key=lambda change: (change.trajectory, change.time, change.atom)))


def switching(distance: np.ndarray, d0: float, n: int = 12, m: int = 24) -> np.ndarray:
    """s(d) of the module's formula; n/m at d0."""
    x = np.asarray(distance, dtype=float) / d0
    if m == 2 * n:
        return 1.0 / (1.0 + x**n)
    near = np.abs(x - 1) < 1e-6
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(near, n / m, (1 - x**n) / (1 - x**m))


def coordination(
    frames: FrameSet,
    centre: str | int = "Co",
    neighbour: str | int = "Cl",
    d0: float = 3.0,
    *,
    n: int = 12,
    m: int = 24,
) -> Coordination:
    """Number of neighbours of one element around every atom of another, in all frames.

    Args:
        d0: Å; n, m: exponents, n < m.

    Raises:
        DataError: an element that is not there, exponents or d0 that make no switching function.
    """
    a, b = element(centre), element(neighbour)
    if not (0 < n < m and d0 > 0):
        raise DataError("no switching function", where="coordination", expected="0 < n < m, d0 > 0", found=(n, m, d0))
    for z in (a, b):
        if z not in frames.elements:
            raise DataError(f"no {chemical_symbols[z]} in the set", where=("coordination", pair_name((a, b))))
    cutoff = d0 * _NOTHING ** (-1.0 / (m - n))
    atoms, smooth, hard = [], [], []
    for near in near_pairs(frames, cutoff, (a,) if a == b else (a, b)):
        keep = same_pair(near.numbers[near.first], near.numbers[near.second], (a, b))
        first, second, distance = near.first[keep], near.second[keep], near.distance[keep]
        if a == b:
            middle, distance = np.concatenate([first, second]), np.tile(distance, 2)
        else:
            middle = np.where(near.numbers[first] == a, first, second)
        size = len(near.numbers)
        centres = np.flatnonzero(near.numbers == a)
        atoms.append(centres)
        smooth.append(np.bincount(middle, switching(distance, d0, n, m), minlength=size)[centres])
        hard.append(np.bincount(middle[distance < d0], minlength=size)[centres])
    counts = [len(part) for part in atoms]
    return Coordination(
        a, b, float(d0), n, m, np.concatenate(atoms), np.repeat(np.arange(len(frames)), counts),
        np.concatenate(smooth), np.concatenate(hard), np.asarray(frames.time), np.asarray(frames.trajectory),
    )  # fmt: skip


def rolling_median(time: np.ndarray, values: np.ndarray, window: float = WINDOW) -> np.ndarray:
    """Median of the values [T] within half a window of each time, fs; at the ends of what is there.

    Times ascend and need not be equally spaced. At least the value itself enters.
    """
    half = window / 2 * (1 + 1e-9)
    first, last = np.searchsorted(time, time - half, side="left"), np.searchsorted(time, time + half, side="right")
    width = int((last - first).max())
    rows = np.arange(len(time))
    # Where as many samples lie before as behind, one filter does them all.
    middle = (last - first == width) & (rows - first == width // 2) & (width % 2 == 1)
    result = np.where(middle, median_filter(np.asarray(values, dtype=float), size=width, mode="nearest"), 0.0)
    for at in rows[~middle]:
        result[at] = np.median(values[first[at] : last[at]])
    return result


def rounded_median(time: np.ndarray, values: np.ndarray, window: float = WINDOW) -> np.ndarray:
    """Rolling median as whole numbers, int [T]."""
    return np.floor(rolling_median(time, values, window) + 0.5).astype(np.int64)
