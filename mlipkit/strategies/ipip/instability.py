"""When a simulation is unstable, as checks of the MD engine, and which frames break a hard limit.

A run is unstable at the first step with a number that is not finite, a force above the cap, a temperature above three
times the target on average over 50 fs, a pair nearer than 0.6 times the sum of covalent radii (H-H 0.4 Å), or, where
bonds are not meant to break, a bond of the start stretched beyond 1.6 times its length for 20 fs; with
`Instability.look_every` the last three are looked at less often. A proton that has gone from one such atom to another
(N, O, S, halogens) has broken nothing. A run that reaches its last step is stable. The rules are ours: the paper
(arXiv 2507.20118) speaks of instabilities, its code has none.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from mlipkit.md import Check, Finding, Look
from mlipkit.md.structure_checks import BOND, BrokenBondsCheck
from mlipkit.strategies.ipip.settings import Instability

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.md.looks import Looks

OTHERS = ("energy_drift", "temperature", "broken_bonds", "lone_atoms", "density")
"""Checks of the engine that say nothing of instability as it is meant here."""
CAP_QUANTILE, CAP_FACTOR = 0.999, 10.0
_PROTIC = np.isin(np.arange(119), [7, 8, 9, 16, 17, 34, 35, 53])


@dataclass
class MeanTemperatureCheck(Check):
    """Temperature averaged over a window, as a multiple of the thermostat's.

    Attributes:
        fail: multiple. window: fs.
    """

    name: ClassVar = "mean_temperature"
    unit: ClassVar = "K"
    kept: ClassVar = ("times", "values")

    fail: float | None = 3.0
    every: int = 5
    window: float = 50.0

    times: deque[float] = field(default_factory=deque, init=False, repr=False)
    values: deque[float] = field(default_factory=deque, init=False, repr=False)

    def begin(self, start: Look) -> None:
        self.times, self.values = deque([start.time]), deque([start.temperature])

    def look(self, now: Look) -> Finding | None:
        mean = self._mean(now.time, now.temperature)
        if now.target is None or math.isnan(mean):
            return None
        return self.above(mean, f"temperature averaged over {self.window:g} fs too high", factor=now.target)

    @classmethod
    def screen(cls, checks: Sequence[MeanTemperatureCheck], looks: Looks) -> NDArray[np.bool_]:  # type: ignore[override]
        limits = (checks[0].lowest * np.nan_to_num(looks.target, nan=math.inf)).tolist()
        return np.array([
            check._mean(looks.time, value) > limit
            for check, value, limit in zip(checks, looks.temperature.tolist(), limits, strict=True)
        ], bool)  # fmt: skip

    def _mean(self, time: float, value: float) -> float:
        """Of the window that ends at `time`; NaN before it is full. Asked twice it says the same."""
        times, values = self.times, self.values
        while times and times[-1] >= time:
            times.pop()
            values.pop()
        times.append(time)
        values.append(value)
        while len(times) > 1 and times[1] <= time - self.window:
            times.popleft()
            values.popleft()
        return sum(values) / len(values) if times[0] <= time - self.window else math.nan

    def recall(self, memory: dict[str, np.ndarray]) -> None:
        self.times, self.values = deque(memory["times"].tolist()), deque(memory["values"].tolist())


@dataclass
class StretchedBondsCheck(BrokenBondsCheck):
    """Length of the bonds that the start has, as a multiple of their length there, for a while.

    Attributes:
        fail: multiple. during: fs.
        proton_transfer: whether hydrogens of N, O, S and halogens may go to another such atom.
    """

    name: ClassVar = "stretched_bonds"
    unit: ClassVar = "Å"
    kept: ClassVar = ("bonds", "shifts", "lengths", "since")

    warn: float | None = None
    fail: float | None = 1.6
    every: int = 5
    during: float = 20.0
    proton_transfer: bool = True

    lengths: np.ndarray = field(default_factory=lambda: np.empty(0), init=False, repr=False)
    since: np.ndarray = field(default_factory=lambda: np.empty(0), init=False, repr=False)

    def begin(self, start: Look) -> None:
        super().begin(start)
        self.lengths = self._lengths(start)
        self.since = np.full(len(self.lengths), math.inf)

    def look(self, now: Look) -> Finding | None:
        if not len(self.lengths) or self.fail is None:
            return None
        lengths = self._lengths(now)
        long = lengths > self.fail * self.lengths
        if self.proton_transfer and long.any():
            long &= ~self._handed_over(now)
        self.since = np.where(long, np.minimum(self.since, now.time), math.inf)
        lasting = np.flatnonzero(now.time - self.since >= self.during)
        if not len(lasting):
            return None
        worst = int(lasting[np.argmax(lengths[lasting] / self.lengths[lasting])])
        atoms = (int(self.bonds[0][worst]), int(self.bonds[1][worst]))
        return Finding("failed", f"bond {now.names(atoms)} is stretched", float(lengths[worst]),
                       float(self.fail * self.lengths[worst]), self.unit, atoms)  # fmt: skip

    def _handed_over(self, now: Look) -> NDArray[np.bool_]:
        """Of each bond, whether it was that of a proton that another protic atom holds now."""
        (giver, taker), distances, radii = now.pairs()
        near = (distances < BOND * radii) & (now.numbers[giver] == 1) & _PROTIC[now.numbers[taker]]
        held = np.zeros(now.n_atoms, bool)
        held[giver[near]] = True
        first, second = self.bonds
        one, other = now.numbers[first], now.numbers[second]
        return (held[first] & (one == 1) & _PROTIC[other]) | (held[second] & (other == 1) & _PROTIC[one])

    @classmethod
    def screen(cls, checks: Sequence[Check], looks: Looks) -> NDArray[np.bool_]:
        return np.ones(len(checks), bool)

    def _lengths(self, now: Look) -> np.ndarray:
        first, second = self.bonds
        vectors = now.positions[first] - now.positions[second] + self.shifts @ now.cell
        return np.linalg.norm(vectors, axis=1)


def checks(limits: Instability, force_cap: float) -> dict[str, Any]:
    """Limits as `mlipkit.md.simulate` takes them."""
    found: dict[str, Any] = dict.fromkeys(OTHERS, False)
    found["max_force"] = {"warn": None, "fail": force_cap}
    found["overlap"] = {"warn": None, "fail": limits.overlap, "least": limits.closest,
                        "every": limits.look_every}  # fmt: skip
    if limits.hot is not None:
        hot = MeanTemperatureCheck(fail=limits.hot, window=limits.hot_fs, every=limits.look_every)
        found[hot.name] = hot
    if limits.stretch is not None:
        stretched = StretchedBondsCheck(
            fail=limits.stretch, during=limits.stretch_fs, every=limits.look_every,
            proton_transfer=limits.proton_transfer,
        )  # fmt: skip
        found[stretched.name] = stretched
    return found


def force_cap(frames: FrameSet) -> float:
    """Ten times the 99.9th percentile of the forces on atoms, eV/Å."""
    return CAP_FACTOR * float(np.quantile(np.linalg.norm(frames.forces, axis=1), CAP_QUANTILE))


def largest_forces(frames: FrameSet) -> np.ndarray:
    """eV/Å [F]; NaN where a force is missing or not finite."""
    if not len(frames):
        return np.zeros(0)
    return np.maximum.reduceat(np.linalg.norm(frames.forces, axis=1), frames.offsets[:-1])


def too_close(frames: FrameSet, limits: Instability) -> np.ndarray:
    """bool [F]: frames with a pair nearer than the limits allow."""
    from mlipkit.data.neighbours import neighbour_list

    found = np.zeros(len(frames), bool)
    for index in range(len(frames)):
        one = frames.frame(index)
        radii = covalent_radii[one["numbers"]]
        reach = max(limits.overlap * 2 * float(radii.max()), limits.closest)
        (first, second), _, vectors = neighbour_list(one["positions"], one["cell"], one["pbc"], reach, coincident=True)
        least = np.maximum(limits.overlap * (radii[first] + radii[second]), limits.closest)
        found[index] = bool((np.linalg.norm(vectors, axis=1) < least).any())
    return found
