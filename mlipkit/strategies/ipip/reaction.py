"""Clusters of a reactive system: connected parts of the bond graph, metals included, and how they change in time.

A pair is bonded in a single frame when it is nearer than 1.25 times the sum of covalent radii (minimum image); along a
run it becomes bonded below 1.2 and stays so until 1.4 times that sum, and a change counts when it lasts 1 ps
(`mlipkit.analysis.bond_states`). Atoms are never lost: the formulas of all clusters add up to the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii

from mlipkit.analysis.bond_states import LIFETIME, BondHistory, BondLimits, bond_history, bonds_of_frame
from mlipkit.analysis.species import formula, molecules

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

SINGLE, FORM, BROKEN = 1.25, 1.2, 1.4


@dataclass(frozen=True)
class Clusters:
    """Connected parts of one frame.

    Attributes:
        formulas: of all clusters, sorted. tracked: of those that hold the tracked element.
        bonds: "Mo-O" -> how many.
        balanced: the clusters hold every atom once.
    """

    formulas: tuple[str, ...]
    tracked: tuple[str, ...]
    bonds: Mapping[str, int]
    balanced: bool


def limits(elements: Sequence[int], single: bool = False) -> dict[str | tuple[int, int], BondLimits]:
    """Limits of all pairs, metals included: with hysteresis, or the one of a single frame."""
    found: dict[str | tuple[int, int], BondLimits] = {}
    for a, b in combinations_with_replacement(sorted(elements), 2):
        radii = float(covalent_radii[a] + covalent_radii[b])
        found[a, b] = BondLimits(SINGLE * radii, SINGLE * radii) if single else BondLimits(FORM * radii, BROKEN * radii)
    return found


def clusters(frames: FrameSet, index: int, track: str = "") -> Clusters:
    """Clusters of a single frame.

    Args:
        track: element whose clusters are named apart, such as "Mo".
    """
    bonds = bonds_of_frame(frames, index, limits(frames.elements, single=True))
    return _clusters(np.asarray(frames.frame(index)["numbers"]), bonds, track)


def _clusters(numbers: np.ndarray, bonds: np.ndarray, track: str) -> Clusters:
    labels = molecules(len(numbers), bonds)
    parts = [numbers[labels == k] for k in range(int(labels.max()) + 1)]
    wanted = atomic_numbers[track] if track else 0
    counted = Counter(int(z) for part in parts for z in part)
    return Clusters(
        tuple(sorted(formula(part) for part in parts)),
        tuple(sorted(formula(part) for part in parts if wanted in part)), bond_counts(numbers, bonds),
        counted == Counter(numbers.tolist()),
    )  # fmt: skip


def bond_counts(numbers: np.ndarray, bonds: np.ndarray) -> dict[str, int]:
    """Bonds by pair of elements: ``{"Mo-O": 9}``; the heavier element first."""
    pairs = (sorted((int(numbers[a]), int(numbers[b])), reverse=True) for a, b in bonds.tolist())
    return dict(sorted(Counter("-".join(chemical_symbols[z] for z in pair) for pair in pairs).items()))


@dataclass(frozen=True)
class Change:
    """A moment at which the tracked clusters change: time in fs, what was before and after, and its kind in words."""

    time: float
    before: tuple[str, ...]
    after: tuple[str, ...]
    kind: str


def pathway(frames: FrameSet | BondHistory, track: str, lifetime: float = LIFETIME) -> list[Change]:
    """Changes of the tracked clusters along one run that last, in order of time.

    Kinds: "split" (more clusters), "joined" (fewer), "ring opened" (a bond of the tracked element with itself or its
    bridge is gone, no atom is), "insertion" (atoms came in), "loss" (atoms left), "exchange" (both or neither).

    Args:
        frames: one run in order of time, or its history.
        lifetime: fs that a change must last.
    """
    history = frames if isinstance(frames, BondHistory) else bond_history(frames, limits(frames.elements), lifetime)
    found: list[Change] = []
    before: Clusters | None = None
    rings = -1
    for frame in history.change_frames().tolist():
        bonds = history.at(frame)
        now = _clusters(history.numbers, bonds, track)
        n_rings = _rings(history.numbers, bonds, track)
        if before is not None and (now.tracked != before.tracked or n_rings != rings):
            kind = _kind(before.tracked, now.tracked, n_rings - rings)
            found.append(Change(float(history.time[frame]), before.tracked, now.tracked, kind))
        before, rings = now, n_rings
    return found


def _rings(numbers: np.ndarray, bonds: np.ndarray, track: str) -> int:
    """Independent rings of the clusters with the tracked element: bonds - atoms + clusters."""
    labels = molecules(len(numbers), bonds)
    mine = np.unique(labels[numbers == atomic_numbers[track]])
    atoms = np.isin(labels, mine)
    inside = int(atoms[bonds[:, 0]].sum()) if len(bonds) else 0
    return inside - int(atoms.sum()) + len(mine)


def _kind(before: tuple[str, ...], after: tuple[str, ...], rings: int) -> str:
    if len(after) != len(before):
        return "split" if len(after) > len(before) else "joined"
    if after == before:
        return "ring opened" if rings < 0 else "ring closed"
    sizes = [sum(_atoms(text) for text in side) for side in (before, after)]
    return "insertion" if sizes[1] > sizes[0] else "loss" if sizes[1] < sizes[0] else "exchange"


def _atoms(text: str) -> int:
    """Atoms of a formula."""
    from ase.formula import Formula

    return len(Formula(text))


def reaction_table(frames: FrameSet, track: str) -> list[dict[str, Any]]:
    """A row per frame: time_fs, clusters (formulas of the tracked ones), number, bonds, balanced."""
    rows = []
    for index in range(len(frames)):
        one = clusters(frames, index, track)
        rows.append({"time_fs": float(frames.time[index]), "clusters": list(one.tracked), "number": len(one.tracked),
                     "bonds": dict(one.bonds), "balanced": one.balanced})  # fmt: skip
    return rows
