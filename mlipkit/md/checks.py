"""What a check is, and the checks of numbers: finite, temperature, largest force, energy drift.

A check looks at one replica and says nothing, warns, or fails. Cheap ones look at every step, those of the structure
(`mlipkit.md.structure_checks`) at every tenth and at every stored frame. `look` is the rule; `screen` says of all
replicas at once which of them need it. Default limits follow the collapse rule of
test-time-adaptation MD (largest force 50 eV/Å, five times the target temperature for 100 fs, pairs below 0.5 Å, lone
atoms for 100 fs) and add warnings before them.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mlipkit import units
from mlipkit.md.look import Array, Look

if TYPE_CHECKING:
    from mlipkit.md.looks import Looks

_HUGE = 1e9


@dataclass(frozen=True)
class Finding:
    """What a check has to say: `what` is a clause naming the atoms; value and limit are in `unit` ("": no figures)."""

    outcome: Literal["warning", "failed"]
    what: str
    value: float
    limit: float
    unit: str
    atoms: tuple[int, ...] = ()


@dataclass
class Check:
    """Base of all checks: limits are fields, what it remembers is named in `kept` and goes into checkpoints.

    `warn` or `fail` None: it never does. `every`: steps between two looks.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    kept: ClassVar[tuple[str, ...]] = ()

    warn: float | None = None
    fail: float | None = None
    every: int = 1

    def attach(self, folder: Path) -> None:
        """Take note of the replica's folder, before anything else: for checks that keep something there."""

    def begin(self, start: Look) -> None:
        """Remember what later looks are compared with. `start` is the first frame, with its forces."""

    def look(self, now: Look) -> Finding | None:
        raise NotImplementedError

    @classmethod
    def screen(cls, checks: Sequence[Check], looks: Looks) -> NDArray[np.bool_]:
        """Which replicas `look` must see at this step, bool [S].

        Of the others it would find nothing; what it would remember of them is up to this method. All, unless a check
        knows better.

        Args:
            checks: this check of each replica; limits are the same in all.
        """
        return np.ones(len(checks), bool)

    @classmethod
    def bounds(cls, checks: Sequence[Check], looks: Looks) -> Mapping[str, Array | float]:
        """Figures by name, and the size of each ([S] or one) up to which `screen` passes over a replica.

        A check has them when it depends on figures alone; they hold until any `look` has been called.
        """
        return {}

    @property
    def lowest(self) -> float:
        """The lower one of the limits, infinity when there is none."""
        return min((limit for limit in (self.warn, self.fail) if limit is not None), default=math.inf)

    def memory(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(getattr(self, name)) for name in self.kept}

    def recall(self, memory: dict[str, np.ndarray]) -> None:
        for name in self.kept:
            value = memory[name]
            setattr(self, name, value.item() if value.ndim == 0 else value)

    def above(self, value: float, what: str, atoms: tuple[int, ...] = (), factor: float = 1.0) -> Finding | None:
        """The finding when `value` exceeds `fail` or else `warn` (times `factor`)."""
        if self.fail is not None and value > self.fail * factor:
            return Finding("failed", what, value, self.fail * factor, self.unit, atoms)
        if self.warn is not None and value > self.warn * factor:
            return Finding("warning", what, value, self.warn * factor, self.unit, atoms)
        return None


@dataclass
class FiniteCheck(Check):
    """Energy, forces and temperature are numbers."""

    name: ClassVar = "finite"
    unit: ClassVar = ""

    def look(self, now: Look) -> Finding | None:
        if math.isfinite(now.max_force) and math.isfinite(now.potential_energy) and math.isfinite(now.temperature):
            return None
        rows = ~np.isfinite(now.forces).all(axis=1) | ~np.isfinite(now.positions).all(axis=1)
        atoms = tuple(np.flatnonzero(rows).tolist())
        if atoms:
            what = f"no finite force on {now.names(atoms)}"
        elif math.isfinite(now.potential_energy):
            what = "temperature is not a finite number"
        else:
            what = "energy is not a finite number"
        return Finding("failed", what, 0.0, 0.0, self.unit, atoms)

    @classmethod
    def screen(cls, checks: Sequence[Check], looks: Looks) -> NDArray[np.bool_]:
        return ~np.isfinite(looks.max_force + looks.potential_energy + looks.temperature)

    @classmethod
    def bounds(cls, checks: Sequence[Check], looks: Looks) -> Mapping[str, Array | float]:
        # Of a sum of three that is finite too.
        return dict.fromkeys(("max_force", "potential_energy", "temperature"), sys.float_info.max / 3)


@dataclass
class TemperatureCheck(Check):
    """Temperature against the thermostat's (without one: the start's), as a multiple.

    Fails above `fail` times for `during` fs, and at once above `jump` times; warns above `warn` times. With few degrees
    of freedom n the temperature fluctuates by sqrt(2/n): multiples below 1 + 6 sqrt(2/n) are raised to that.
    """

    name: ClassVar = "temperature"
    unit: ClassVar = "K"
    kept: ClassVar = ("reference", "hot_since")

    warn: float | None = 3.0
    fail: float | None = 5.0
    during: float = 100.0
    jump: float = 20.0

    reference: float = field(default=math.nan, init=False, repr=False)
    hot_since: float = field(default=math.nan, init=False, repr=False)

    COLDEST: ClassVar = 50.0
    """K; multiples are taken of at least this, as a relaxing start warms up from anything."""

    def begin(self, start: Look) -> None:
        self.reference = max(start.temperature, start.target or 0.0, 2 * self.COLDEST if start.target is None else 0.0)

    def look(self, now: Look) -> Finding | None:
        reference = max(self.reference if now.target is None else now.target, self.COLDEST)
        least = (1 + 6 * math.sqrt(2 / now.dof)) * reference
        kelvin = now.temperature
        if self.fail is not None:
            limit = max(self.jump * reference, least)
            if kelvin > limit:
                return self._finding("failed", now, limit)
            limit = max(self.fail * reference, least)
            if not kelvin > limit:
                self.hot_since = math.nan
            elif math.isnan(self.hot_since):
                self.hot_since = now.time
            if now.time - self.hot_since >= self.during:
                return self._finding("failed", now, limit, f" for {now.time - self.hot_since:.0f} fs")
        if self.warn is not None:
            limit = max(self.warn * reference, least)
            if kelvin > limit:
                return self._finding("warning", now, limit)
        return None

    @classmethod
    def screen(cls, checks: Sequence[TemperatureCheck], looks: Looks) -> NDArray[np.bool_]:  # type: ignore[override]
        limit = cls.bounds(checks, looks)["temperature"]
        return (looks.temperature > limit) | np.isneginf(limit)

    @classmethod
    def bounds(cls, checks: Sequence[TemperatureCheck], looks: Looks) -> Mapping[str, Array | float]:  # type: ignore[override]
        limit = looks.cache.get(cls.name)
        if limit is None:
            given = checks[0]
            own = np.array([check.reference for check in checks])
            reference = np.maximum(np.where(np.isnan(looks.target), own, looks.target), cls.COLDEST)
            least = min(given.lowest, math.inf if given.fail is None else given.jump)
            limit = np.maximum(least, 1 + 6 * np.sqrt(2 / looks.dof)) * reference
            looks.cache[cls.name] = limit
        # One that is hot is looked at until it is not, whatever its temperature.
        hot = [not math.isnan(check.hot_since) for check in checks]
        return {"temperature": np.where(hot, -math.inf, limit)}

    def _finding(self, outcome: Literal["warning", "failed"], now: Look, limit: float, long: str = "") -> Finding:
        hottest = int(np.argmax(now.masses * (now.velocities**2).sum(1)))
        what = f"temperature{long} too high, hottest atom {now.names([hottest])}"
        return Finding(outcome, what, now.temperature, limit, self.unit, (hottest,))


@dataclass
class MaxForceCheck(Check):
    """Largest norm of a force on an atom, eV/Å."""

    name: ClassVar = "max_force"
    unit: ClassVar = "eV/Å"

    warn: float | None = 30.0
    fail: float | None = 50.0

    def look(self, now: Look) -> Finding | None:
        if self.above(now.max_force, "") is None:
            return None
        atom = int(np.argmax(np.linalg.norm(now.forces, axis=1)))
        return self.above(now.max_force, f"force on {now.names([atom])} too large", (atom,))

    @classmethod
    def screen(cls, checks: Sequence[Check], looks: Looks) -> NDArray[np.bool_]:
        return looks.max_force > checks[0].lowest

    @classmethod
    def bounds(cls, checks: Sequence[Check], looks: Looks) -> Mapping[str, Array | float]:
        return {"max_force": checks[0].lowest}


@dataclass
class EnergyDriftCheck(Check):
    """Change of the conserved energy within `window` fs, eV per atom.

    Conserved is E_pot + E_kin less what the thermostat has given, so that the check means the same in every ensemble.
    """

    name: ClassVar = "energy_drift"
    unit: ClassVar = "eV/atom"
    kept: ClassVar = ("times", "energies")

    warn: float | None = 0.01
    fail: float | None = 0.1
    every: int = 10
    window: float = 1000.0

    times: deque[float] = field(default_factory=deque, init=False, repr=False)
    energies: deque[float] = field(default_factory=deque, init=False, repr=False)

    def begin(self, start: Look) -> None:
        self.times, self.energies = deque([start.time]), deque([start.conserved_energy])

    def look(self, now: Look) -> Finding | None:
        if not math.isfinite(now.conserved_energy):
            return None
        change = self._change(now.time, now.conserved_energy) / now.n_atoms
        return self.above(change, f"conserved energy changed in {now.time - self.times[0]:.0f} fs")

    @classmethod
    def screen(cls, checks: Sequence[EnergyDriftCheck], looks: Looks) -> NDArray[np.bool_]:  # type: ignore[override]
        limits = (checks[0].lowest * looks.n_atoms).tolist()
        return np.array([
            math.isfinite(energy) and check._change(looks.time, energy) > limit
            for check, energy, limit in zip(checks, looks.conserved_energy.tolist(), limits, strict=True)
        ], bool)  # fmt: skip

    def _change(self, time: float, energy: float) -> float:
        """Change against the oldest energy in the window, which then ends at `time`. Asked twice it says the same."""
        times, energies = self.times, self.energies
        while times and times[-1] >= time:
            times.pop()
            energies.pop()
        while times and times[0] < time - self.window:
            times.popleft()
            energies.popleft()
        times.append(time)
        energies.append(energy)
        return abs(energy - energies[0])

    def recall(self, memory: dict[str, np.ndarray]) -> None:
        self.times, self.energies = deque(memory["times"].tolist()), deque(memory["energies"].tolist())


def density(now: Look) -> float:
    """g/cm³, or NaN where not all axes are periodic."""
    if not now.pbc.all():
        return math.nan
    volume = abs(float(np.linalg.det(now.cell)))
    return float(now.masses.sum()) / volume * units.AMU_PER_A3 if volume > 0 else _HUGE
