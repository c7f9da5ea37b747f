"""Molecular species: connected parts of the covalent graph as formulas, how many over time, and how long each lives.

A molecule is the set of atoms of one connected part; it lives from the frame in which exactly these atoms are connected
to the frame in which they no longer are. Ions have the formula of their atoms, without charge: Cl is a chloride or an
atom, the graph does not know. Metals bind nobody and are species of one atom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mlipkit.analysis.bond_states import NON_METALS, BondHistory, BondLimits, bonds_of_frame
from mlipkit.data.frameset import FrameSet

_BEFORE_HYDROGEN = (5, 7, 14, 15, 33)
_HALOGENS = (9, 17, 35, 53)
_USUAL = {"HO": "OH", "NHO2": "HNO2", "NHO3": "HNO3"}


@dataclass(frozen=True, eq=False)
class Species:
    """Molecules of a run, or of separate frames.

    Attributes:
        formulas: [S], the most frequent first.
        counts: int [T, S] molecules of each in every frame.
        time: fs [T].
        lifetimes: formula -> fs [L] of every molecule of it that was there; empty for separate frames.
        ended: formula -> bool [L]; False: it was still there in the last frame, and may live longer.
    """

    formulas: tuple[str, ...]
    counts: np.ndarray
    time: np.ndarray
    lifetimes: Mapping[str, np.ndarray]
    ended: Mapping[str, np.ndarray]

    def count(self, formula: str) -> np.ndarray:
        """int [T]; zeros for a formula that never occurs."""
        if formula not in self.formulas:
            return np.zeros(len(self.counts), np.int64)
        return self.counts[:, self.formulas.index(formula)]

    def table(self) -> list[dict[str, object]]:
        """One row per species: mean, least and most molecules in a frame, how many there were, median life in fs."""
        rows = []
        for index, formula in enumerate(self.formulas):
            counts, lives = self.counts[:, index], self.lifetimes.get(formula)
            rows.append({
                "species": formula, "mean": float(counts.mean()), "least": int(counts.min()), "most": int(counts.max()),
                "frames": int((counts > 0).sum()), "molecules": None if lives is None else len(lives),
                "median_life_fs": None if lives is None or not len(lives) else float(np.median(lives)),
                "still_there": None if lives is None else int((~self.ended[formula]).sum()),
            })  # fmt: skip
        return rows


def formula(numbers: Iterable[int]) -> str:
    """Formula as chemists write it: with carbon Hill's (C, H, then by alphabet), else H2O, HCl, NH3, LiCl."""
    counts = Counter(int(z) for z in numbers)
    carbon = 6 in counts
    order = sorted(counts, key=lambda z: (_place(z, carbon), chemical_symbols[z]))
    text = "".join(f"{chemical_symbols[z]}{counts[z] if counts[z] > 1 else ''}" for z in order)
    return _USUAL.get(text, text)


def _place(z: int, carbon: bool) -> int:
    if carbon:
        return {6: 0, 1: 1}.get(z, 2)
    if z not in NON_METALS:
        return 0
    return 1 if z in _BEFORE_HYDROGEN else 2 if z == 1 else 4 if z in _HALOGENS else 5 if z == 8 else 3


def molecules(n: int, bonds: np.ndarray) -> np.ndarray:
    """Number of the molecule that each atom belongs to, int [n], numbered by their first atom.

    Args:
        bonds: int [B, 2].
    """
    graph = coo_matrix((np.ones(len(bonds), bool), (bonds[:, 0], bonds[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def species(history: BondHistory) -> Species:
    """Species of one run (`bond_states.bond_history`)."""
    n, n_frames = len(history.numbers), history.n_frames
    closed = np.append(history.time, history.time[-1] + np.median(np.diff(history.time)))
    changes = history.change_frames()
    living: dict[tuple[int, ...], int] = {}
    found: list[tuple[str, int, int]] = []
    names: dict[tuple[int, ...], str] = {}
    for frame in changes.tolist():
        now = _parts(n, history.at(frame))
        for atoms in [atoms for atoms in living if atoms not in now]:
            found.append((names[atoms], living.pop(atoms), frame))
        for atoms in now:
            if atoms not in living:
                living[atoms] = frame
                names.setdefault(atoms, formula(history.numbers[list(atoms)]))
    found += [(names[atoms], begun, n_frames) for atoms, begun in living.items()]
    steps: dict[str, np.ndarray] = {}
    lives: dict[str, list[float]] = {}
    ended: dict[str, list[bool]] = {}
    for name, start, end in found:
        step = steps.setdefault(name, np.zeros(n_frames + 1, np.int64))
        step[start] += 1
        step[end] -= 1
        lives.setdefault(name, []).append(float(closed[end] - closed[start]))
        ended.setdefault(name, []).append(end < n_frames)
    counts = {name: np.cumsum(step[:-1]) for name, step in steps.items()}
    order = _by_frequency(counts)
    return Species(
        order, np.stack([counts[name] for name in order], axis=1), history.time,
        {name: np.array(lives[name]) for name in order}, {name: np.array(ended[name]) for name in order},
    )  # fmt: skip


def species_of_frames(frames: FrameSet, limits: Mapping[str | tuple[int, int], BondLimits] | None = None) -> Species:
    """Species of frames that need not follow each other: bonded is who is nearer than the middle of the limits."""
    counts: dict[str, np.ndarray] = {}
    for index in range(len(frames)):
        numbers = frames.frame(index)["numbers"]
        for atoms in _parts(len(numbers), bonds_of_frame(frames, index, limits)):
            counts.setdefault(formula(numbers[list(atoms)]), np.zeros(len(frames), np.int64))[index] += 1
    order = _by_frequency(counts)
    table = np.stack([counts[name] for name in order], axis=1) if order else np.zeros((len(frames), 0), np.int64)
    return Species(order, table, np.asarray(frames.time), {}, {})


def _parts(n: int, bonds: np.ndarray) -> set[tuple[int, ...]]:
    labels = molecules(n, bonds)
    order = np.argsort(labels, kind="stable")
    return {tuple(part.tolist()) for part in np.split(order, np.cumsum(np.bincount(labels))[:-1])}


def _by_frequency(counts: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return tuple(sorted(counts, key=lambda name: (-int(counts[name].sum()), name)))
