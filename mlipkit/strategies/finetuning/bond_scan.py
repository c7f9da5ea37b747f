"""Two atoms drawn apart, before and after: a wrong energy zero or a forgotten wall shows here, not in a test error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from mlipkit.errors import DataError

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential

FARTHEST: Final = 6.0
"""Å."""
NEAREST, WALL = 0.4, 0.6
"""Of the sum of covalent radii: from the one to the other every pair of atoms repels."""
WALL_POINTS, POINTS = 8, 56
BONDED: Final = 1.25
"""Of the sum of covalent radii: below it a pair counts as bonded."""


@dataclass(frozen=True, eq=False)
class BondScan:
    """Energy of one pair of atoms as it is drawn apart.

    Attributes:
        pair: symbols.
        distances: [D] Å, ascending.
        before, after: [D] eV, relative to the largest distance.
        warning: what a user should look at; "" when the wall is there before and after, or missing in both.
    """

    pair: tuple[str, str]
    distances: np.ndarray
    before: np.ndarray
    after: np.ndarray
    warning: str

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "pair": "-".join(self.pair), "distances": self.distances.tolist(), "before": self.before.tolist(),
            "after": self.after.tolist(), "warning": self.warning,
        }  # fmt: skip


def bonded_pairs(frames: FrameSet, most: int = 6) -> list[tuple[int, int]]:
    """The pairs of elements (lower number first) that are bonded most often in the first and the last frame."""
    from ase.neighborlist import neighbor_list

    if not len(frames):
        raise DataError("no frame to look for bonds in", where="bonded_pairs")
    found: dict[tuple[int, int], int] = {}
    for index in sorted({0, len(frames) - 1}):
        atoms = frames[index]
        radii = BONDED * covalent_radii[atoms.numbers]
        for i, j in zip(*neighbor_list("ij", atoms, radii.tolist()), strict=True):
            if i < j:
                low, high = sorted((int(atoms.numbers[i]), int(atoms.numbers[j])))
                found[low, high] = found.get((low, high), 0) + 1
    return sorted(found, key=lambda pair: -found[pair])[:most]


def scan(potential: BasePotential, pair: tuple[int, int], distances: Sequence[float] | np.ndarray) -> np.ndarray:
    """Energy [D] in eV of two atoms alone, relative to the largest distance."""
    from mlipkit.data import FrameSet
    from mlipkit.models import predict

    frames = FrameSet.from_atoms([Atoms(list(pair), [[0, 0, 0], [d, 0, 0]]) for d in distances])
    energy = np.asarray(predict(potential, frames, forces=False).energy)
    return energy - energy[int(np.argmax(distances))]


def bond_scans(before: BasePotential, after: BasePotential, pairs: Sequence[tuple[int, int]]) -> list[BondScan]:
    """Scan each pair with both potentials and say where a wall was lost."""
    found = []
    for pair in pairs:
        # Of the radii, not in Å: the walls of hydrogen stand where other atoms never come.
        radii = covalent_radii[pair[0]] + covalent_radii[pair[1]]
        wall = np.linspace(NEAREST * radii, WALL * radii, WALL_POINTS)
        distances = np.concatenate([wall, np.linspace(wall[-1], FARTHEST, POINTS - WALL_POINTS + 1)[1:]])
        energies = [scan(potential, pair, distances) for potential in (before, after)]
        symbols = (chemical_symbols[pair[0]], chemical_symbols[pair[1]])
        had, has = (bool((np.diff(energy[:WALL_POINTS]) < 0).all()) for energy in energies)
        warning = ""
        if had and not has:
            warning = (
                f"{'-'.join(symbols)}: below {wall[-1]:.2f} Å the fine-tuned potential is not "
                "repulsive throughout, as the untouched one was; in a simulation, atoms may collapse there"
            )
        found.append(BondScan(symbols, distances, energies[0], energies[1], warning))
    return found
