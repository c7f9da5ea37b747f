"""Near pairs of atoms, frame by frame: each unordered pair once, through every image, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii

from mlipkit.data.frameset import FrameSet
from mlipkit.data.neighbours import neighbour_list
from mlipkit.errors import DataError, nearest

RADII: Final = np.where(np.isfinite(covalent_radii), covalent_radii, 1.5)
"""Covalent radii by atomic number, Å (Cordero et al., Dalton Trans., 2832, 2008)."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Near pairs of one frame.

    Attributes:
        first, second: int64 [P] atoms, first <= second (equal: an atom and an image of itself).
        distance: [P] Å.
        frame: number of the frame.
        numbers: int [n] elements of the frame.
    """

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray
    frame: int
    numbers: np.ndarray


def near_pairs(frames: FrameSet, cutoff: float, elements: tuple[int, ...] = ()) -> Iterator[Pairs]:
    """Unordered pairs within `cutoff` Å of every frame, one frame at a time.

    Args:
        elements: only atoms of these take part; all when empty.
    """
    for index in range(len(frames)):
        frame = frames.frame(index)
        yield pairs_of(frame, cutoff, elements, index)


def pairs_of(frame: dict[str, Any], cutoff: float, elements: tuple[int, ...] = (), index: int = 0) -> Pairs:
    """Unordered pairs of one frame (`FrameSet.frame`)."""
    numbers, positions = frame["numbers"], frame["positions"]
    rows = np.flatnonzero(np.isin(numbers, elements)) if elements else None
    edges, shift, vectors = neighbour_list(
        positions if rows is None else positions[rows], frame["cell"], frame["pbc"], cutoff, coincident=True
    )
    second, first = edges
    once = first < second
    own = np.flatnonzero(first == second)
    if len(own):
        # Of an atom's image and the opposite image, that whose first shift that is not zero points forward.
        sign = np.sign(shift[own])
        once[own] = sign @ np.array([9, 3, 1]) > 0
    first, second, vectors = first[once], second[once], vectors[once]
    distance = np.sqrt(np.einsum("pk,pk->p", vectors, vectors))
    if rows is not None:
        first, second = rows[first], rows[second]
    return Pairs(first, second, distance, index, numbers)


def element_pair(pair: str | tuple[str | int, str | int]) -> tuple[int, int]:
    """Atomic numbers of "O-H" or of two symbols or numbers, in the order given.

    Raises:
        DataError: not two elements.
    """
    parts = pair.replace("–", "-").split("-") if isinstance(pair, str) else list(pair)
    if len(parts) != 2:
        raise DataError("not a pair of elements", expected='"O-H"', found=repr(pair))
    return element(parts[0]), element(parts[1])


def element(name: str | int) -> int:
    """Atomic number of a symbol or number.

    Raises:
        DataError: no such element.
    """
    if isinstance(name, str):
        if name.strip() not in atomic_numbers or name.strip() == "X":
            raise DataError(f"no element '{name}'", hint=nearest(name, chemical_symbols[1:]))
        return atomic_numbers[name.strip()]
    if not 0 < int(name) < len(chemical_symbols):
        raise DataError("no element", found=name)
    return int(name)


def pair_name(pair: tuple[int, int]) -> str:
    """ "O-H"."""
    return f"{chemical_symbols[pair[0]]}-{chemical_symbols[pair[1]]}"


def same_pair(first: np.ndarray, second: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """bool [P]: elements `first` and `second` are the pair, in either order."""
    a, b = pair
    return ((first == a) & (second == b)) | ((first == b) & (second == a))
