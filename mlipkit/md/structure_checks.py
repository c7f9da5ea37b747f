"""Checks of the structure: overlaps, broken bonds of the start topology, lone atoms, density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlipkit.md.checks import Check, Finding, density
from mlipkit.md.look import NEAR, Array, Look

if TYPE_CHECKING:
    from mlipkit.md.looks import Looks

BOND = 1.25
"""Two non-metal atoms are bonded when closer than this many times the sum of their covalent radii."""
# H, B-F, Si-Cl, Ge-Br, Te, I: bonds between these have a topology worth keeping; contacts of metals come and go.
_NON_METALS = np.isin(np.arange(119), [1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 32, 33, 34, 35, 52, 53])


@dataclass
class OverlapCheck(Check):
    """Distance of a pair as a share of the sum of covalent radii; below 0.5 Å it always fails.

    Attributes:
        warn, fail: share below which it warns or fails.
        least: Å, below which it always fails.
    """

    name: ClassVar = "overlap"
    unit: ClassVar = "Å"

    warn: float | None = 0.65
    fail: float | None = 0.5
    every: int = 10
    least: float = 0.5

    def look(self, now: Look) -> Finding | None:
        edges, distances, radii = now.pairs()
        if not len(distances):
            return None
        for outcome, share, least in (("failed", self.fail, self.least), ("warning", self.warn, 0.0)):
            if share is None:
                continue
            limits = np.maximum(share * radii, least)
            worst = int(np.argmin(distances / limits))
            if distances[worst] < limits[worst]:
                atoms = tuple(sorted(edges[:, worst].tolist()))
                what = f"{now.names(atoms)} overlap"
                return Finding(outcome, what, float(distances[worst]), float(limits[worst]), self.unit, atoms)  # type: ignore[arg-type]
        return None

    @classmethod
    def screen(cls, checks: Sequence[OverlapCheck], looks: Looks) -> NDArray[np.bool_]:  # type: ignore[override]
        given, (edges, distances, radii) = checks[0], looks.pairs()
        bad = np.zeros(len(distances), bool)
        for share, least in ((given.fail, given.least), (given.warn, 0.0)):
            if share is not None:
                bad |= distances < np.maximum(share * radii, least)
        return _holding(looks, edges[0][bad])


@dataclass
class BrokenBondsCheck(Check):
    """Length of the bonds between non-metals that the start has, as a multiple of the sum of covalent radii.

    Chemistry that breaks bonds for good reason (dissociation on a surface, proton transfer)
    fires it too: switch it off then.
    """

    name: ClassVar = "broken_bonds"
    unit: ClassVar = "Å"
    kept: ClassVar = ("bonds", "shifts")

    warn: float | None = 1.5
    fail: float | None = 2.0
    every: int = 10

    bonds: np.ndarray = field(default_factory=lambda: np.empty((2, 0), np.int64), init=False, repr=False)
    shifts: np.ndarray = field(default_factory=lambda: np.empty((0, 3), np.int64), init=False, repr=False)

    def begin(self, start: Look) -> None:
        from mlipkit.data.neighbours import neighbour_list

        reach = BOND * 2 * float(start.radii.max())
        (first, second), shift, vectors = neighbour_list(start.positions, start.cell, start.pbc, reach)
        near = np.linalg.norm(vectors, axis=1) < BOND * (start.radii[first] + start.radii[second])
        near &= _NON_METALS[start.numbers[first]] & _NON_METALS[start.numbers[second]] & (first < second)
        self.bonds, self.shifts = np.stack([first[near], second[near]]), shift[near]

    def look(self, now: Look) -> Finding | None:
        first, second = self.bonds
        if not len(first):
            return None
        # Positions are never wrapped, so the start's images stay the right ones however far atoms travel.
        vectors = now.positions[first] - now.positions[second] + self.shifts @ now.cell
        lengths = np.sqrt(np.einsum("ek,ek->e", vectors, vectors))
        radii = now.radii[first] + now.radii[second]
        worst = int(np.argmax(lengths / radii))
        atoms = (int(first[worst]), int(second[worst]))
        return self.above(float(lengths[worst]), f"bond {now.names(atoms)} is stretched", atoms, float(radii[worst]))

    @classmethod
    def screen(cls, checks: Sequence[BrokenBondsCheck], looks: Looks) -> NDArray[np.bool_]:  # type: ignore[override]
        flat = looks.cache.get(cls.name)
        if flat is None:
            first, second = np.concatenate(
                [check.bonds + start for check, start in zip(checks, looks.offsets, strict=False)], axis=1
            )
            shifts = np.concatenate([check.shifts for check in checks])
            flat = looks.cache[cls.name] = first, second, shifts, looks.radii[first] + looks.radii[second]
        first, second, shifts, radii = flat
        (positions, _, _), cells = looks.arrays
        vectors = positions[first] - positions[second]
        if shifts.any():
            vectors += np.einsum("ek,ekl->el", shifts, cells[looks.system[first]])
        lengths = np.sqrt(np.einsum("ek,ek->e", vectors, vectors))
        # A hair's breadth below the limit, as the sums of `look` may round the other way.
        return _holding(looks, first[lengths > (1 - 1e-12) * checks[0].lowest * radii])


@dataclass
class LoneAtomsCheck(Check):
    """Atoms that had a neighbour within 1.5 times the sum of covalent radii at the start and have had none for a while.

    Attributes:
        warn, fail: fs without a neighbour.
    """

    name: ClassVar = "lone_atoms"
    unit: ClassVar = "fs"
    kept: ClassVar = ("last_near",)

    warn: float | None = 0.0
    fail: float | None = 100.0
    every: int = 10

    last_near: Array = field(default_factory=lambda: np.empty(0), init=False, repr=False)
    all_near: float = field(default=-math.inf, init=False, repr=False)

    def begin(self, start: Look) -> None:
        # Infinity: lone from the start, never an offence.
        self.last_near = np.where(_has_neighbour(start), start.time, math.inf)

    def look(self, now: Look) -> Finding | None:
        self._catch_up()
        self.last_near[_has_neighbour(now) & (self.last_near < now.time)] = now.time
        alone = now.time - self.last_near
        longest = float(alone.max())
        if longest <= 0:
            return None
        atoms = tuple(np.flatnonzero(alone == longest).tolist())
        return self.above(longest, f"{now.names(atoms)} without a neighbour", atoms)

    @classmethod
    def screen(cls, checks: Sequence[LoneAtomsCheck], looks: Looks) -> NDArray[np.bool_]:  # type: ignore[override]
        watched = looks.cache.get(cls.name)
        if watched is None:
            watched = looks.cache[cls.name] = np.concatenate([np.isfinite(check.last_near) for check in checks])
        edges, distances, radii = looks.pairs()
        lone = watched.copy()
        lone[edges[1][distances < NEAR * radii]] = False
        loud = _holding(looks, np.flatnonzero(lone))
        for check, lonely in zip(checks, loud.tolist(), strict=True):
            if not lonely:
                check.all_near = looks.time
        return loud

    def memory(self) -> dict[str, np.ndarray]:
        self._catch_up()
        return super().memory()

    def _catch_up(self) -> None:
        """Write down when `screen` last saw all atoms with a neighbour."""
        self.last_near[self.last_near < self.all_near] = self.all_near


def _holding(looks: Looks, atoms: np.ndarray) -> NDArray[np.bool_]:
    """Which replicas hold any of these atoms."""
    found = np.zeros(len(looks.each), bool)
    found[looks.system[atoms]] = True
    return found


def _has_neighbour(now: Look) -> np.ndarray:
    edges, distances, radii = now.pairs()
    near = np.zeros(now.n_atoms, bool)
    near[edges[1][distances < NEAR * radii]] = True
    return near


@dataclass
class DensityCheck(Check):
    """Change of the density of a periodic system against the start, as a share of it."""

    name: ClassVar = "density"
    unit: ClassVar = "g/cm³"
    kept: ClassVar = ("start",)

    warn: float | None = 0.2
    fail: float | None = 0.5
    every: int = 10

    start: float = field(default=math.nan, init=False, repr=False)

    def begin(self, start: Look) -> None:
        self.start = density(start)

    def look(self, now: Look) -> Finding | None:
        if math.isnan(self.start):
            return None
        value = density(now)
        for outcome, share in (("failed", self.fail), ("warning", self.warn)):
            if share is not None and abs(value - self.start) > share * self.start:
                limit = self.start * (1 + share if value > self.start else 1 - share)
                return Finding(outcome, "density left its range", value, limit, self.unit)  # type: ignore[arg-type]
        return None

    @classmethod
    def screen(cls, checks: Sequence[DensityCheck], looks: Looks) -> NDArray[np.bool_]:  # type: ignore[override]
        start = looks.cache.get(cls.name)
        if start is None:
            start = looks.cache[cls.name] = np.array([check.start for check in checks])
        # Without three periodic axes the start is NaN, and there is nothing to look at.
        return ~np.isnan(start)
