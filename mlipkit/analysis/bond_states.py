"""The covalent graph of a run: which atoms are bonded when, with hysteresis and a minimum lifetime.

A pair becomes bonded when it comes nearer than `form` and stays so until it is further apart than `broken`; in
between it keeps the state that it had. A pair that begins in between was bonded if it then comes nearer than `form`,
and was not if it then goes beyond `broken`. A change counts when the new state lasts at least `lifetime` (1 ps): a
run of k frames lasts from its first frame to the first frame after it, so that one frame of 0.5 ps is a flicker and
two are a change. A last run that is too short is undecided and does not count.

Default limits (Å): O-H 1.15 and 1.45, Cl-H 1.5 and 1.8, C-H 1.25 and 1.5, H-H 0.9 and 1.2; other pairs of non-metals
1.2 and 1.4 times the sum of covalent radii. Metals bind nobody by default: their neighbours are coordination
(`mlipkit.analysis.coordination`), not covalent bonds.

Memory holds the bonds of one frame and every change, not every frame.

Source: hysteresis, lifetimes and limits are ours, after the events that arXiv 2603.10159 finds by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from mlipkit.analysis.pairs import RADII, element_pair, pairs_of, same_pair
from mlipkit.analysis.time_order import one_run
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError

LIFETIME: Final = 1000.0
"""fs."""
NON_METALS: Final = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 52, 53)


@dataclass(frozen=True)
class BondLimits:
    """Å: a bond forms below `form` and breaks above `broken`."""

    form: float
    broken: float


PUBLISHED: Final = {
    (1, 8): BondLimits(1.15, 1.45),
    (1, 17): BondLimits(1.50, 1.80),
    (1, 6): BondLimits(1.25, 1.50),
    (1, 1): BondLimits(0.90, 1.20),
}


def limits_of(elements: tuple[int, ...], given: Mapping[str | tuple[int, int], BondLimits] | None = None) -> dict:
    """(lower, higher atomic number) -> limits of every pair of these elements that may be bonded.

    Args:
        given: "O-H" or two numbers -> limits that replace the defaults; also for metals.

    Raises:
        DataError: limits in the wrong order.
    """
    own = {}
    for pair, limits in (given or {}).items():
        if not 0 < limits.form <= limits.broken:
            raise DataError("limits of a bond", where=str(pair), expected="0 < form <= broken", found=limits)
        a, b = sorted(element_pair(pair))
        own[a, b] = limits
    found = {}
    for index, a in enumerate(sorted(elements)):
        for b in sorted(elements)[index:]:
            if (a, b) in own:
                found[a, b] = own[a, b]
            elif a in NON_METALS and b in NON_METALS:
                radii = float(RADII[a] + RADII[b])
                found[a, b] = PUBLISHED.get((a, b), BondLimits(1.2 * radii, 1.4 * radii))
    return found


@dataclass(frozen=True, eq=False)
class BondHistory:
    """Bonds of one run.

    Attributes:
        numbers: int [n] elements.
        time: fs [T].
        pairs: int [K, 2] atoms, first < second; a pair that breaks and forms again has one row for each time.
        start: int [K] first frame in which it is bonded; end: int [K] first frame in which it is not (T: bonded to the
            last frame).
        lifetime: fs, what a change had to last.
        flickers: changes that were too short to count.
    """

    numbers: np.ndarray
    time: np.ndarray
    pairs: np.ndarray
    start: np.ndarray
    end: np.ndarray
    lifetime: float
    flickers: int

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.time)

    def at(self, frame: int) -> np.ndarray:
        """int [B, 2] pairs that are bonded in a frame."""
        return self.pairs[(self.start <= frame) & (frame < self.end)]

    def count(self, pair: str | tuple[str | int, str | int]) -> np.ndarray:
        """int [T] bonds of a pair of elements in every frame ("H-Cl": how many HCl)."""
        a, b = element_pair(pair)
        mine = same_pair(self.numbers[self.pairs[:, 0]], self.numbers[self.pairs[:, 1]], (a, b))
        steps = np.zeros(self.n_frames + 1, np.int64)
        np.add.at(steps, self.start[mine], 1)
        np.add.at(steps, self.end[mine], -1)
        return np.cumsum(steps[:-1])

    def change_frames(self) -> np.ndarray:
        """int [C+1] frame 0 and every frame in which a bond forms or breaks, ascending."""
        return np.unique(np.concatenate([[0], self.start, self.end[self.end < self.n_frames]]))

    def lasting(self, lifetime: float) -> BondHistory:
        """Of a history that counts every change (lifetime 0), that of those that last `lifetime` fs.

        Raises:
            DataError: the run is shorter than `lifetime`.
        """
        _long_enough(self.time, lifetime)
        n = len(self.numbers)
        keys = self.pairs[:, 0] * n + self.pairs[:, 1]
        begun, gone = self.start > 0, self.end < self.n_frames
        changed, frames = np.concatenate([keys[begun], keys[gone]]), np.concatenate([self.start[begun], self.end[gone]])
        changes = [(changed[frames == frame], frame) for frame in np.unique(frames).tolist()]
        keys, start, end, flickers = _lasting(keys[self.start == 0], changes, self.time, lifetime)
        return BondHistory(self.numbers, self.time, np.stack([keys // n, keys % n], 1), start, end, lifetime, flickers)


def bond_history(
    frames: FrameSet,
    limits: Mapping[str | tuple[int, int], BondLimits] | None = None,
    lifetime: float = LIFETIME,
) -> BondHistory:
    """Bonds of one run over time.

    Args:
        limits: "O-H" -> limits that replace the defaults.
        lifetime: fs that a new state must last; 0 counts every change.

    Raises:
        DataError: frames are not one run in order of time, the run is shorter than `lifetime`, or atoms change their
            order.
    """
    time = one_run(frames, "bond_history")
    _long_enough(time, lifetime)
    table = _Table(limits_of(frames.elements, limits))
    n = int(frames.n_atoms[0])
    bonded = assumed = np.empty(0, np.int64)
    changes: list[tuple[np.ndarray, int]] = []
    unborn: list[np.ndarray] = []
    for frame in range(len(frames)):
        keys, distance, form, _ = table.candidates(frames.frame(frame), n)
        near = keys[distance < form]
        if frame == 0:
            bonded, assumed = keys, np.setdiff1d(keys, near, assume_unique=True)
            first = bonded
            continue
        # Candidates are within `broken`: who was bonded and still is one stays, who is near joins.
        now = np.union1d(np.intersect1d(bonded, keys, assume_unique=True), near)
        if len(assumed):
            assumed = np.setdiff1d(assumed, near, assume_unique=True)
            gone = np.setdiff1d(assumed, now, assume_unique=True)
            if len(gone):
                # It left without ever having been near: it was no bond in the frames before either.
                unborn.append(gone)
                assumed = np.setdiff1d(assumed, gone, assume_unique=True)
                bonded = np.setdiff1d(bonded, gone, assume_unique=True)
        changed = np.setxor1d(bonded, now, assume_unique=True)
        _same_order(bonded, now, frame)
        if len(changed):
            changes.append((changed, frame))
        bonded = now
    first = np.setdiff1d(first, np.concatenate(unborn) if unborn else np.empty(0, np.int64))
    keys, starts, ends, flickers = _lasting(first, changes, time, lifetime)
    pairs = np.stack([keys // n, keys % n], axis=1)
    return BondHistory(np.asarray(frames.numbers[:n]), time, pairs, starts, ends, lifetime, flickers)


def bonds_of_frame(
    frames: FrameSet, index: int, limits: Mapping[str | tuple[int, int], BondLimits] | None = None
) -> np.ndarray:
    """int [B, 2] pairs bonded in a single frame, without a history: nearer than the middle of the two limits."""
    table = _Table(limits_of(frames.elements, limits))
    n = int(frames.n_atoms[index])
    keys, distance, form, broken = table.candidates(frames.frame(index), n)
    keys = keys[distance < 0.5 * (form + broken)]
    return np.stack([keys // n, keys % n], axis=1)


def _long_enough(time: np.ndarray, lifetime: float) -> None:
    long = float(time[-1] - time[0] + np.median(np.diff(time)))
    if long < lifetime:
        raise DataError(
            "the run is shorter than what a change must last, so none could count", where="bond_history",
            expected=f"at least {lifetime:g} fs", found=f"{long:g} fs", hint="Give a shorter lifetime=.",
        )  # fmt: skip


def _same_order(before: np.ndarray, now: np.ndarray, frame: int) -> None:
    """Refuses frames whose atoms are in another order: most bonds are gone, and as many others are there instead."""
    kept = len(np.intersect1d(before, now, assume_unique=True))
    if len(before) >= 8 and kept < 0.5 * len(before) and abs(len(now) - len(before)) < 0.2 * len(before):
        raise DataError(
            "atoms seem to be in another order than in the frame before", where=("bond_history", f"frame {frame}"),
            expected="most bonds between the same atoms", found=f"{kept} of {len(before)}",
            hint="Species need no order: species_of_frames(frames).",
        )  # fmt: skip


class _Table:
    """Limits as arrays by pair of atomic numbers."""

    def __init__(self, limits: Mapping[tuple[int, int], BondLimits]) -> None:
        self.form, self.broken = np.zeros((120, 120)), np.zeros((120, 120))
        for (a, b), one in limits.items():
            self.form[a, b] = self.form[b, a] = one.form
            self.broken[a, b] = self.broken[b, a] = one.broken
        self.cutoff = float(self.broken.max())
        self.elements = tuple(sorted({z for pair in limits for z in pair}))

    def candidates(self, frame: dict, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(keys first·n + second, ascending; distance; form; broken) of the pairs nearer than `broken`."""
        if self.cutoff == 0:
            return np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0)
        near = pairs_of(frame, self.cutoff, self.elements)
        a, b = near.numbers[near.first], near.numbers[near.second]
        broken = self.broken[a, b]
        keep = (near.distance < broken) & (near.first != near.second)
        keys = near.first[keep] * n + near.second[keep]
        # In small cells two atoms may meet through several images; the nearest decides.
        order = np.lexsort((near.distance[keep], keys))
        keys, rows = np.unique(keys[order], return_index=True)
        rows = np.flatnonzero(keep)[order[rows]]
        return keys, near.distance[rows], self.form[a[rows], b[rows]], broken[rows]


def _lasting(
    first: np.ndarray, changes: list[tuple[np.ndarray, int]], time: np.ndarray, lifetime: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(keys, start, end) of the bonds that remain without the changes that do not last, and how many those were."""
    n_frames = len(time)
    toggles: dict[int, list[int]] = {}
    for keys, frame in changes:
        for key in keys.tolist():
            toggles.setdefault(key, []).append(frame)
    there = set(first.tolist())
    rows = [(key, 0, n_frames) for key in there if key not in toggles]
    # The run after the last frame ends one typical spacing later.
    closed = np.append(time, time[-1] + np.median(np.diff(time)))
    flickers = 0
    for key, frames in toggles.items():
        state, begun = key in there, 0
        for index, frame in enumerate(frames):
            new = (key in there) ^ (index % 2 == 0)
            if new == state:
                continue
            end = frames[index + 1] if index + 1 < len(frames) else n_frames
            if closed[end] - closed[frame] < lifetime * (1 - 1e-9):
                flickers += 1
                continue
            if state:
                rows.append((key, begun, frame))
            state, begun = new, frame
        if state:
            rows.append((key, begun, n_frames))
    table = np.array(sorted(rows), np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2], flickers
