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
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii

from mlipkit.analysis.bond_states import LIFETIME, BondHistory, BondLimits, bond_history, bonds_of_frame
from mlipkit.analysis.species import formula, molecules, species, species_of_frames
from mlipkit.strategies.ipip.mechanism import checkpoints, known
from mlipkit.strategies.ipip.species_record import RunSpecies

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
    """Changes of the tracked clusters along one run that last: of bonds that last, to clusters that do; in order.

    Kinds: "split" (more clusters), "joined" (fewer), "ring opened" (a bond of the tracked element with itself or its
    bridge is gone, no atom is), "insertion" (atoms came in), "loss" (atoms left), "exchange" (both or neither).

    Args:
        frames: one run in order of time, or its history (which knows its own lifetime).
        lifetime: fs that a change must last.
    """
    history = frames if isinstance(frames, BondHistory) else bond_history(frames, limits(frames.elements), lifetime)
    spacing = float(np.median(np.diff(history.time)))
    states: list[tuple[float, tuple[str, ...], int]] = []
    for frame in history.change_frames().tolist():
        bonds = history.at(frame)
        tracked = _clusters(history.numbers, bonds, track).tracked
        state = float(history.time[frame]), tracked, _rings(history.numbers, bonds, track)
        if not states or states[-1][1:] != state[1:]:
            states.append(state)
    ends = [*(state[0] for state in states[1:]), float(history.time[-1]) + spacing]
    found, before = [], states[0]
    for state, end in zip(states[1:], ends[1:], strict=True):
        # Of bonds that last, one may form while another breaks: what is there in between need not last.
        if end - state[0] < history.lifetime * (1 - 1e-9) or state[1:] == before[1:]:
            continue
        kind = _kind(before[1], state[1], state[2] - before[2])
        found.append(Change(state[0], before[1], state[1], kind))
        before = state
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


def species_of_run(frames: FrameSet, track: str, lifetime: float = LIFETIME) -> RunSpecies:
    """All species of one run in every frame (with hysteresis), and what lasts of the changes of the tracked clusters.

    Args:
        frames: one run in order of time; of a single frame there are species and no changes, of none nothing.
        track: element, "": none, and no changes.
    """
    if not len(frames):
        return RunSpecies(np.zeros(0), (), np.zeros((0, 0), int), {}, {})
    totals = dict(Counter(np.asarray(frames.frame(0)["numbers"]).tolist()))
    if len(frames) < 2:
        found, bonds = species_of_frames(frames, limits(frames.elements, single=True)), {}
        return RunSpecies(np.asarray(frames.time, float), found.formulas, found.counts, bonds, totals)
    history = bond_history(frames, limits(frames.elements), 0.0)
    found = species(history)
    pairs = {tuple(sorted(pair, reverse=True)) for pair in history.numbers[history.pairs].tolist()}
    bonds = {f"{chemical_symbols[a]}-{chemical_symbols[b]}": history.count((a, b)) for a, b in sorted(pairs)}
    changes = passed = None
    long = float(history.time[-1] - history.time[0] + np.median(np.diff(history.time)))
    if track and long >= lifetime:
        lasting = history.lasting(lifetime)
        changes = [
            {"time": one.time, "before": list(one.before), "after": list(one.after), "kind": one.kind}
            for one in pathway(lasting, track)
        ]
        passed = checkpoints(lasting) if known(history.numbers, track) else None
    return RunSpecies(history.time, found.formulas, found.counts, bonds, totals, changes, passed)
