"""The check of where the atoms are: inside or outside the space of the training structures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mlipkit.errors import SpecError
from mlipkit.md.checks import Check, Finding
from mlipkit.md.look import Array, Look
from mlipkit.md.trajectory import TrajectoryWriter, truncate

HARVEST = "outside.traj"
"""Frames that were kept because atoms had left the training space."""


class Scorer(Protocol):
    """How far each atom is from the training structures, and from where on that counts as outside."""

    quantity: str

    def score(
        self, numbers: NDArray[np.int64], positions: Array, cell: Array, pbc: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Score [n] and limit [n] of each atom."""
        ...


@dataclass
class OutsideCheck(Check):
    """The largest score of an atom as a multiple of its limit; it counts when the same atom is above twice in a row.

    Args:
        scorer: see `Scorer`.
        warn, fail: multiples of the limit.
        keep: number of frames to keep in the replica's folder (`HARVEST`) of those that are outside; 0: none.
        apart: fs between two kept frames at least; neighbours in time say the same.
    """

    name: ClassVar = "outside"
    unit: ClassVar = ""
    kept: ClassVar = ("before", "n_harvested", "harvested_at")

    warn: float | None = 1.0
    fail: float | None = None
    every: int = 20
    scorer: Scorer | None = None
    keep: int = 0
    apart: float = 50.0

    before: np.ndarray = field(default_factory=lambda: np.empty(0), init=False, repr=False)
    n_harvested: int = field(default=0, init=False, repr=False)
    harvested_at: float = field(default=-np.inf, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.scorer is None:
            raise SpecError("needs a scorer", where=("checks", self.name))
        self._folder: Path | None = None

    def attach(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, start: Look) -> None:
        self.before = np.zeros(start.n_atoms)
        self._forget()

    def recall(self, memory: dict[str, np.ndarray]) -> None:
        super().recall(memory)
        self._forget()

    def _forget(self) -> None:
        """Frames that were kept after the checkpoint belong to steps that are yet to come, perhaps differently."""
        if self._folder is None:
            return
        if self.n_harvested:
            truncate(self._folder / HARVEST, self.n_harvested)
        else:
            (self._folder / HARVEST).unlink(missing_ok=True)

    def look(self, now: Look) -> Finding | None:
        assert self.scorer is not None
        if not np.isfinite(now.positions).all():
            return None  # what `finite` is for
        scores, limits = self.scorer.score(now.numbers, now.positions, now.cell, now.pbc)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(scores > 0, scores / limits, 0.0)
        share[np.isnan(limits)] = np.inf  # an element that training never saw
        lasting, self.before = np.minimum(share, self.before), share
        worst = int(np.argmax(lasting))
        finding = self.above(float(lasting[worst]), "")
        if finding is None:
            return None
        if now.time - self.harvested_at >= self.apart and self.n_harvested < self.keep:
            self._harvest(now, scores)
        above = np.flatnonzero(lasting > finding.limit)
        atoms = tuple(above[np.argsort(-lasting[above], kind="stable")].tolist())
        what = (
            f"{now.names(atoms)} outside training space ({self.scorer.quantity} of "
            f"{now.names(atoms[:1])} {scores[worst]:.3g}, limit {limits[worst] * finding.limit:.3g})"
        )
        return Finding(
            finding.outcome, what, float(scores[worst]), float(limits[worst] * finding.limit), self.unit, atoms
        )

    def _harvest(self, now: Look, scores: Array) -> None:
        assert self._folder is not None, "a check that keeps frames was not told where"
        # Opened for each: they are rare, and simulations may be many.
        file = TrajectoryWriter(self._folder / HARVEST, now.numbers, now.masses, now.pbc, keep=self.n_harvested or None)
        file.append(
            now.positions, now.velocities, now.cell, energy=now.potential_energy, forces=now.forces,
            info={"step": now.step, "time_fs": now.time, "largest_score": float(scores.max())},
        )  # fmt: skip
        file.flush()  # a checkpoint will count it
        file.close()
        self.n_harvested, self.harvested_at = self.n_harvested + 1, now.time
