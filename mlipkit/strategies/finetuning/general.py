"""General frames: small molecules and crystals of ordinary elements, rattled; what a universal potential should know.

They need no label: what counts is how far a fine-tuned potential has gone from what the untouched one said of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from mlipkit.errors import DataError

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

MOLECULES: Final = (
    "H2O", "CH4", "NH3", "CH3OH", "CH3CH2OH", "C6H6", "CO2", "HCOOH", "CH3COOH", "CH3CN", "H2CO", "N2", "SO2", "CH3SH",
    "HCl", "CH3Cl", "PH3",
)  # fmt: skip
CRYSTALS: Final = (
    ("NaCl", "rocksalt", 5.64), ("LiF", "rocksalt", 4.03), ("MgO", "rocksalt", 4.21), ("CoO", "rocksalt", 4.26),
    ("Si", "diamond", 5.43), ("C", "diamond", 3.57), ("Cu", "fcc", 3.61), ("Al", "fcc", 4.05), ("Fe", "bcc", 2.87),
    ("ZnS", "zincblende", 5.41), ("CsCl", "cesiumchloride", 4.12), ("TiN", "rocksalt", 4.24),
)  # fmt: skip
RATTLE: Final = 0.06
"""Å, standard deviation of every coordinate: forces of a few eV/Å."""


def general_frames(elements: Iterable[int], seed: int = 0, most: int = 24) -> FrameSet:
    """Rattled molecules and crystals (2 to 9 atoms) whose elements all are among these.

    Args:
        elements: atomic numbers, usually `potential.elements`.
        seed: of the displacements.
        most: frames at most, molecules and crystals in turn.

    Raises:
        DataError: nothing can be made of these elements.
    """
    from ase.build import bulk, molecule

    from mlipkit.data import FrameSet

    known, rng = set(elements), np.random.default_rng(seed)
    parts: tuple[list, list] = ([], [])
    for name in MOLECULES:
        parts[0].append((name, molecule(name)))
    for name, kind, a in CRYSTALS:
        parts[1].append((name, bulk(name, kind, a=a, cubic=True)))
    usable = [[(name, atoms) for name, atoms in part if set(atoms.numbers.tolist()) <= known] for part in parts]
    turns = [part[i] for i in range(max(map(len, usable))) for part in usable if i < len(part)][:most]
    if not turns:
        raise DataError("no general frame can be made of these elements", where="retention", found=sorted(known))
    frames = []
    for name, atoms in turns:
        atoms.positions += rng.normal(0, RATTLE, atoms.positions.shape)
        atoms.info["tag"] = name
        frames.append(atoms)
    return FrameSet.from_atoms(frames, source="general frames")
