"""Conformations by rotated torsions, for fractional denoising: molecules turn around bonds that are in no ring."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from ase.data import covalent_radii
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

BOND = 1.25
"""Bonded: nearer than this many times the sum of covalent radii."""


def rotatable(numbers: np.ndarray, positions: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Bonds (i, j) outside rings with atoms beyond both ends, and the atoms of j's side, which is the smaller one.

    Orders of bonds are not known: double ones count as well.
    """
    radii = covalent_radii[numbers]
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    bonded = (distance < BOND * (radii[:, None] + radii[None])) & ~np.eye(len(numbers), dtype=bool)
    found = []
    for i, j in np.argwhere(np.triu(bonded)).tolist():
        if bonded[i].sum() < 2 or bonded[j].sum() < 2:
            continue
        cut = bonded.copy()
        cut[i, j] = cut[j, i] = False
        labels = connected_components(coo_matrix(cut), directed=False)[1]
        if labels[i] == labels[j]:
            continue
        sides = [np.flatnonzero(labels == labels[end]) for end in (i, j)]
        here, there = (i, j) if len(sides[1]) <= len(sides[0]) else (j, i)
        found.append((here, there, sides[0] if there == i else sides[1]))
    return found


def rotated(numbers: np.ndarray, positions: np.ndarray, width: float, rng: np.random.Generator) -> np.ndarray:
    """Positions [n,3] after a turn around every rotatable bond, by normal angles of standard deviation `width`, rad."""
    moved = positions.copy()
    for i, j, side in rotatable(numbers, positions):
        axis = moved[j] - moved[i]
        axis /= np.linalg.norm(axis)
        angle = rng.normal(0.0, width)
        arm = moved[side] - moved[j]
        along = arm @ axis
        moved[side] = moved[j] + (
            arm * np.cos(angle) + np.cross(axis, arm) * np.sin(angle) + np.outer(along, axis) * (1 - np.cos(angle))
        )
    return moved


def conformations(frames: FrameSet, copies: int, width: float, seed: int) -> FrameSet:
    """`copies` of each frame with turned torsions; periodic frames stay as they are. Labels stay, and mean nothing."""
    from mlipkit.data import FrameSet as Frames

    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(len(frames)), copies)
    base = frames.select(rows)
    positions, offsets = np.array(base.positions), base.offsets.tolist()
    for k, (a, b) in enumerate(pairwise(offsets)):
        if not base.pbc[k].any():
            positions[a:b] = rotated(np.asarray(base.numbers[a:b]), positions[a:b], width, rng)
    return Frames.from_arrays(
        base.numbers, positions, n_atoms=base.n_atoms, cell=base.cell, pbc=base.pbc, forces=base.forces,
        source="turned torsions",
    )  # fmt: skip
