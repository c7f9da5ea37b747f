"""What descriptors of atoms have in common, and their rows in chunks, so that no table of all atoms is ever held."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from ase.data import chemical_symbols

from mlipkit.data.columns import Array
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, ModelError

CHUNK_BYTES: Final = 64 << 20
"""Rows made at a time."""
KEEP_BYTES: Final = 192 << 20
"""Tables up to this size are kept between passes; larger ones are made again, which is faster than a disk."""


@runtime_checkable
class Descriptor(Protocol):
    """One row of numbers per atom, the same for every rotation, translation and order of the atoms."""

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers it knows, ascending; () = any."""
        ...

    @property
    def size(self) -> int:
        """Numbers per atom p."""
        ...

    @property
    def hash(self) -> str:
        """Of `facts()`: equal when rows may be compared."""
        ...

    def facts(self) -> dict[str, Any]:
        """All that decides the rows, JSON-ready."""
        ...

    def fill(self, frames: FrameSet, out: Array) -> None:
        """Write the rows of all atoms into `out` float32 [N,p]."""
        ...

    def fill_one(self, out: Array, numbers: Array, positions: Array, cell: Array, pbc: Array) -> None:
        """Write the rows of one structure into `out` float32 [n,p]; positions and cell in Å."""
        ...

    def __call__(self, frames: FrameSet) -> Array:
        """Rows of all atoms, float32 [N,p]."""
        ...


def facts_hash(facts: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def symbols(numbers: Any) -> str:
    """Atomic numbers as text: "H C O"."""
    return " ".join(chemical_symbols[int(z)] for z in numbers) or "none"


def check_species(descriptor: Descriptor, frames: FrameSet) -> None:
    """Refuse frames with elements that a descriptor does not know.

    Raises:
        DataError: names the first such frame and both lists.
    """
    known = descriptor.species
    strange = sorted(set(frames.elements) - set(known)) if known else []
    if strange:
        row = int(np.flatnonzero(np.isin(frames.numbers, strange))[0])
        frame = int(np.searchsorted(frames.offsets, row, side="right")) - 1
        raise DataError(
            f"element {symbols(strange)} unknown to the descriptor",
            where=(frames.sources[int(frames.source_codes[frame])], f"frame {frame}"),
            expected=f"only {symbols(known)}",
            hint="Make the descriptor for the union of all sets, for example Soap.of(a, b), and fit again",
        )


def check_same(fitted: Mapping[str, Any], descriptor: Descriptor, where: str = "descriptor") -> None:
    """Refuse a descriptor whose columns mean something else than those of a fit.

    Args:
        fitted: `facts()` at the time of the fit.

    Raises:
        ModelError: names both lists of species, or the settings that differ.
    """
    facts = descriptor.facts()
    if facts_hash(fitted) == descriptor.hash:
        return
    theirs, ours = fitted.get("species"), facts.get("species")
    if theirs != ours and theirs is not None and ours is not None:
        raise ModelError(
            "the descriptor has another species list than the one that was fitted",
            where=where, expected=symbols(theirs), found=symbols(ours),
            hint="Columns would mean different things: fit again with one list for all sets",
        )  # fmt: skip
    differ = sorted(name for name in {*fitted, *facts} if fitted.get(name) != facts.get(name))
    raise ModelError(
        "another descriptor than the one that was fitted", where=where,
        expected=", ".join(f"{name} {fitted.get(name)}" for name in differ),
        found=", ".join(f"{name} {facts.get(name)}" for name in differ),
    )  # fmt: skip


def chunks(frames: FrameSet, size: int, max_bytes: int = CHUNK_BYTES) -> list[tuple[int, int]]:
    """Ranges of frames whose float32 rows of `size` numbers fit into `max_bytes`, one frame at least."""
    rows, offsets = max(1, max_bytes // (4 * size)), frames.offsets
    ranges, first = [], 0
    while first < len(frames):
        last = int(np.searchsorted(offsets, offsets[first] + rows, side="right")) - 1
        last = max(last, first + 1)
        ranges.append((first, last))
        first = last
    return ranges


def blocks(descriptor: Descriptor, frames: FrameSet, max_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, int, Array]]:
    """The rows of all atoms, some frames at a time.

    Args:
        descriptor: gives the rows.
        frames: F frames.
        max_bytes: of one block, unless a single frame is larger.

    Yields:
        First frame, last frame (exclusive) and rows float32 [atoms of these frames, p]. The rows lie in one buffer that
        the next block overwrites: copy what is to last. The reader may change them.

    Raises:
        DataError: an element that the descriptor does not know.
    """
    check_species(descriptor, frames)
    ranges, offsets = chunks(frames, descriptor.size, max_bytes), frames.offsets
    most = max((int(offsets[last] - offsets[first]) for first, last in ranges), default=0)
    buffer = np.empty((most, descriptor.size), np.float32)
    for first, last in ranges:
        out = buffer[: int(offsets[last] - offsets[first])]
        descriptor.fill(frames[first:last], out)
        yield first, last, out


class Rows:
    """The rows of a set for several passes: ``for first, last, X in rows``, as `blocks` gives them.

    Tables up to `keep_bytes` are made once and kept; larger ones are made again in every pass, in one chunk of memory.

    Args:
        descriptor: gives the rows.
        frames: F frames with N atoms together.
        max_bytes: of a chunk. keep_bytes: of a table that is kept.
    """

    def __init__(
        self, descriptor: Descriptor, frames: FrameSet, max_bytes: int = CHUNK_BYTES, keep_bytes: int = KEEP_BYTES
    ) -> None:
        check_species(descriptor, frames)
        self.descriptor, self.frames = descriptor, frames
        self._max_bytes = max_bytes
        keep = 4 * int(frames.offsets[-1]) * descriptor.size <= keep_bytes
        self._kept: list[tuple[int, int, Array]] | None = [] if keep else None

    def __iter__(self) -> Iterator[tuple[int, int, Array]]:
        if self._kept is None:
            yield from blocks(self.descriptor, self.frames, self._max_bytes)
            return
        if not self._kept:
            self._kept = [(a, b, X.copy()) for a, b, X in blocks(self.descriptor, self.frames, self._max_bytes)]
        for first, last, X in self._kept:
            yield first, last, X.copy()

    def sample(self, n_rows: int, seed: int = 0) -> tuple[Array, Array]:
        """Rows of whole frames drawn at random until `n_rows` are reached: their indices [m] and the rows [m,p]."""
        order = np.random.default_rng(seed).permutation(len(self.frames))
        enough = int(np.searchsorted(np.cumsum(self.frames.n_atoms[order]), n_rows)) + 1
        chosen = np.sort(order[:enough])
        offsets = self.frames.offsets.tolist()
        rows = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in chosen.tolist()])
        return rows, self.descriptor(self.frames[chosen])
