"""Checkpoints of a claimed mechanism: how Mo3O9 in sulfur becomes MoS6 (arXiv 2507.20118), and when a run passes them.

The ring is found as a block of the bond graph (atoms that no single atom parts from each other) with at least three of
the metal; contacts of the metal with itself are no bonds of it, as the metal atoms of an oxide ring are near each other
anyway. Two bridges between neighbours are rings of their own, and a chain of such is no ring.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
from ase.data import atomic_numbers

from mlipkit.analysis.bond_states import BondHistory
from mlipkit.analysis.species import formula, molecules

METAL: Final = "Mo"
INSERTED, OPENED, SPLIT, FINAL, LEFT = CHECKPOINTS = (
    "S2 in the ring", "ring open", "one Mo in each cluster", "MoS6 or MoS7", "SO or SxO has left",
)  # fmt: skip
RING: Final = 3
"""Metal atoms of a ring, at least."""


def known(numbers: np.ndarray, track: str) -> bool:
    """Whether the mechanism speaks of this system: Mo is followed, and there are three of it, O and S."""
    counted = Counter(np.asarray(numbers).tolist())
    return track == METAL and counted[42] >= RING and bool(counted[8]) and bool(counted[16])


def checkpoints(history: BondHistory) -> dict[str, float | None]:
    """Checkpoint -> fs of the first frame in which it is passed, None: not in this run."""
    found: dict[str, float | None] = dict.fromkeys(CHECKPOINTS)
    numbers, n_metal = history.numbers, int((history.numbers == atomic_numbers[METAL]).sum())
    for frame in history.change_frames().tolist():
        bonds = history.at(frame)
        parts = molecules(len(numbers), bonds)
        metal = np.unique(parts[numbers == atomic_numbers[METAL]])
        formulas = {int(part): formula(numbers[parts == part]) for part in np.unique(parts)}
        ring = ring_of(numbers, bonds, METAL)
        sulfur = [(a, b) for a, b in bonds.tolist() if a in ring and b in ring and numbers[a] == numbers[b] == 16]
        passed = {
            INSERTED: bool(sulfur), OPENED: len(metal) == 1 and not ring, SPLIT: len(metal) == n_metal,
            FINAL: any(formulas[int(part)] in ("MoS6", "MoS7") for part in metal),
            LEFT: any(_sulfur_oxide(numbers[parts == part]) for part in formulas if part not in metal),
        }  # fmt: skip
        for name, there in passed.items():
            if there and found[name] is None:
                found[name] = float(history.time[frame])
    return found


def _sulfur_oxide(numbers: np.ndarray) -> bool:
    counted = Counter(numbers.tolist())
    return counted[8] == 1 and counted[16] >= 1 and len(counted) == 2


def ring_of(numbers: np.ndarray, bonds: np.ndarray, metal: str) -> set[int]:
    """Atoms of the blocks with at least three of the metal, contacts of the metal with itself left out; or none.

    Args:
        numbers: int [n]. bonds: int [B, 2].
    """
    mine = numbers == atomic_numbers[metal]
    bonds = bonds[~(mine[bonds[:, 0]] & mine[bonds[:, 1]])]
    return set().union(*(block for block in blocks(len(numbers), bonds) if mine[list(block)].sum() >= RING))


def blocks(n: int, bonds: np.ndarray) -> list[set[int]]:
    """Blocks of a graph of `n` atoms (biconnected parts; a bond in no ring is one of two atoms).

    Source: Hopcroft and Tarjan, doi 10.1145/362248.362272, without recursion.
    """
    near: list[list[int]] = [[] for _ in range(n)]
    for a, b in bonds.tolist():
        near[a].append(b)
        near[b].append(a)
    depth, low, found = [-1] * n, [0] * n, []
    for root in range(n):
        if depth[root] >= 0:
            continue
        depth[root] = low[root] = 0
        path, edges = [(root, -1, iter(near[root]))], []
        while path:
            atom, parent, others = path[-1]
            for other in others:
                if depth[other] < 0:
                    depth[other] = low[other] = depth[atom] + 1
                    edges.append((atom, other))
                    path.append((other, atom, iter(near[other])))
                    break
                if other != parent and depth[other] < depth[atom]:
                    edges.append((atom, other))
                    low[atom] = min(low[atom], depth[other])
            else:
                path.pop()
                if not path:
                    continue
                low[parent] = min(low[parent], low[atom])
                if low[atom] >= depth[parent]:
                    block: set[int] = set()
                    while (edge := edges.pop()) != (parent, atom):
                        block |= set(edge)
                    found.append(block | {parent, atom})
    return found
