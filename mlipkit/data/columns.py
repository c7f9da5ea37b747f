"""Stored arrays of a `FrameSet`: which frames a set shows, their hashes, and the content hash of a structure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from mlipkit.errors import DataError

Array = np.ndarray[Any, Any]

CHUNK: Final = 1 << 18
"""Rows handled at a time where temporaries would otherwise grow with the data."""


@dataclass(frozen=True)
class ColumnKind:
    """Type of one column: dtype, one row per atom or per frame, shape of a row, value of a missing row."""

    dtype: str
    per_atom: bool
    row: tuple[int, ...]
    missing: Any


KINDS: Final[dict[str, ColumnKind]] = {
    "numbers": ColumnKind("<i2", True, (), 0),
    "positions": ColumnKind("<f8", True, (3,), np.nan),
    "cell": ColumnKind("<f8", False, (3, 3), 0.0),
    "pbc": ColumnKind("|b1", False, (3,), False),
    "velocities": ColumnKind("<f8", True, (3,), np.nan),
    "energy": ColumnKind("<f8", False, (), np.nan),
    "forces": ColumnKind("<f8", True, (3,), np.nan),
    "stress": ColumnKind("<f8", False, (3, 3), np.nan),
    "uids": ColumnKind("<u8", False, (), 0),
    "structure_hashes": ColumnKind("<u8", False, (), 0),
    "source_codes": ColumnKind("<i4", False, (), 0),
    "trajectory": ColumnKind("<i4", False, (), -1),
    "time": ColumnKind("<f8", False, (), np.nan),
    "tag_codes": ColumnKind("<i4", False, (), 0),
}
LABEL_COLUMNS: Final = ("energy", "forces", "stress", "velocities")


class Layout:
    """Which frames of stored arrays a set shows: all of them, a contiguous range, or a list of rows.

    Args:
        starts: int64[B+1] first atom of each of the B stored frames, the total at the end.
        rows: None for all, a contiguous slice, or int64[F].
    """

    def __init__(self, starts: Array, rows: slice | Array | None = None) -> None:
        self.starts = starts
        self.rows = rows

    @cached_property
    def n_frames(self) -> int:
        if self.rows is None:
            return len(self.starts) - 1
        if isinstance(self.rows, slice):
            return self.rows.stop - self.rows.start
        return len(self.rows)

    @property
    def contiguous(self) -> bool:
        return self.rows is None or isinstance(self.rows, slice)

    def select(self, index: slice | Array) -> Layout:
        """The layout of `index` (a contiguous slice, or rows) among the frames shown here."""
        if self.rows is None:
            rows: slice | Array = index
        elif isinstance(self.rows, slice):
            first = self.rows.start
            rows = slice(index.start + first, index.stop + first) if isinstance(index, slice) else index + first
        else:
            rows = self.rows[index]
        return Layout(self.starts, rows)

    def stored_rows(self) -> Array:
        """int64[F] stored row of every frame shown."""
        if self.rows is None:
            return np.arange(len(self.starts) - 1)
        if isinstance(self.rows, slice):
            return np.arange(self.rows.start, self.rows.stop)
        return self.rows

    def atom_range(self, frame: int) -> tuple[int, int, int]:
        """(stored row, first atom, end) of one frame shown here."""
        if self.rows is None:
            row = frame
        elif isinstance(self.rows, slice):
            row = self.rows.start + frame
        else:
            row = int(self.rows[frame])
        return row, int(self.starts[row]), int(self.starts[row + 1])

    def n_atoms(self) -> Array:
        """int64[F]."""
        if self.contiguous:
            return np.diff(self.frames_slice(self.starts, extra=1))
        return self.starts[self.rows + 1] - self.starts[self.rows]  # type: ignore[operator]

    def frames_slice(self, stored: Array, extra: int = 0) -> Array:
        """View of a stored per-frame array for a contiguous layout."""
        if self.rows is None:
            return stored
        assert isinstance(self.rows, slice)
        return stored[self.rows.start : self.rows.stop + extra]

    def take(self, stored: Array, per_atom: bool) -> Array:
        """Rows of a stored array for the frames shown: a view when contiguous, otherwise gathered."""
        if not per_atom:
            return self.frames_slice(stored) if self.contiguous else stored[self.rows]
        if self.rows is None:
            return stored
        if isinstance(self.rows, slice):
            return stored[int(self.starts[self.rows.start]) : int(self.starts[self.rows.stop])]
        return stored[self.atom_rows]

    @cached_property
    def atom_rows(self) -> Array:
        """int64[N] stored row of every atom shown."""
        n_atoms = self.n_atoms()
        first = self.starts[self.stored_rows()]
        ends = np.cumsum(n_atoms)
        return np.repeat(first - (ends - n_atoms), n_atoms) + np.arange(ends[-1] if len(ends) else 0)

    def pieces(self, stored: Array, per_atom: bool) -> Iterator[Array]:
        """The rows of `take` in order, in contiguous pieces of bounded size (for hashing and writing)."""
        if self.contiguous:
            whole = self.take(stored, per_atom)
            for start in range(0, len(whole), CHUNK):
                yield np.ascontiguousarray(whole[start : start + CHUNK])
        else:
            for start in range(0, self.n_frames, CHUNK // 16):
                part = Layout(self.starts, self.rows[start : start + CHUNK // 16])  # type: ignore[index]
                yield np.ascontiguousarray(part.take(stored, per_atom))


@dataclass(frozen=True)
class Column:
    """A stored array and the layout that says which of its rows the set shows."""

    values: Array
    layout: Layout


def as_index(index: Any, n_frames: int) -> slice | Array:
    """A contiguous slice or int64 rows from a slice, a boolean mask or integers (negative ones count from the end).

    Raises:
        DataError: a mask of the wrong length, a row out of range, or something that is neither.
    """
    if isinstance(index, slice):
        start, stop, step = index.indices(n_frames)
        return slice(start, max(start, stop)) if step == 1 else np.arange(start, stop, step)
    rows = np.asarray(index)
    if rows.size == 0:
        return slice(0, 0)
    if rows.ndim != 1 or rows.dtype.kind not in "biu":
        raise DataError(
            "cannot select frames", expected="a slice, a mask [F] or integers", found=f"{rows.dtype} {rows.shape}"
        )
    if rows.dtype.kind == "b":
        if len(rows) != n_frames:
            raise DataError("mask of the wrong length", expected=f"{n_frames} frames", found=len(rows))
        rows = np.flatnonzero(rows)
    rows = rows.astype(np.int64)
    bad = (rows < -n_frames) | (rows >= n_frames)
    if bad.any():
        raise DataError("frame out of range", expected=f"below {n_frames}", found=int(rows[bad][0]))
    rows[rows < 0] += n_frames
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def codes_of(names: Any, n_frames: int, what: str) -> tuple[tuple[str, ...], Array]:
    """(distinct names in order of appearance, int32[F] codes) from one name or one per frame."""
    if names is None or isinstance(names, str):
        return ((names or "",), np.broadcast_to(np.int32(0), (n_frames,)))
    table: dict[str, int] = {}
    codes = np.fromiter((table.setdefault(str(name), len(table)) for name in names), np.int32)
    if len(codes) != n_frames:
        raise DataError(f"{what} of the wrong length", expected=f"one or {n_frames}", found=len(codes))
    return tuple(table), codes


def compact_codes(codes: Array, names: tuple[str, ...]) -> tuple[Array, tuple[str, ...]]:
    """The same coding with names in order of first appearance and none unused."""
    used, first = np.unique(codes, return_index=True)
    order = used[np.argsort(first)]
    new = np.zeros(len(names), np.int32)
    new[order] = np.arange(len(order), dtype=np.int32)
    return new[codes], tuple(names[int(code)] for code in order)


def array_hash(pieces: Iterator[Array], dtype: str, row: tuple[int, ...], extra: str = "") -> str:
    """Hex digest of an array given in pieces; `extra` is hashed with it."""
    digest = hashlib.blake2b(f"{dtype}{row}{extra}".encode(), digest_size=16)
    for piece in pieces:
        digest.update(piece.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def array_text(array: Array) -> str:
    """Hash of an index array as text, to be hashed with a column it belongs to."""
    return array_hash(iter([np.ascontiguousarray(array, "<i8")]), "<i8", ())


def frozen(array: Array) -> Array:
    """The same array, read-only."""
    array.flags.writeable = False
    return array


_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: Array) -> Array:
    """Finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014): a bijection of uint64 without visible structure."""
    x = x + _GOLDEN
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _bits(values: Array) -> Array:
    # -0.0 and 0.0 are the same coordinate.
    return (np.ascontiguousarray(values) + 0.0).view(np.uint64)


def structure_hashes(numbers: Array, positions: Array, starts: Array, cell: Array, pbc: Array) -> Array:
    """uint64[F] hash of what a structure is: elements and positions in order, pbc, cell rows along periodic axes.

    Labels, velocities and provenance do not enter: the same structure with other labels has the same hash.
    """
    n_frames = len(starts) - 1
    result = np.empty(n_frames, np.uint64)
    first = 0
    while first < n_frames:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + CHUNK, side="right")) - 1)
        last = min(last, first + CHUNK)
        a, b = int(starts[first]), int(starts[last])
        local = starts[first : last + 1] - a
        n_atoms = np.diff(local)
        place = np.arange(b - a) - np.repeat(local[:-1], n_atoms)
        bits = _bits(positions[a:b])
        atoms = _mix(place.astype(np.uint64) * np.uint64(128) + numbers[a:b].astype(np.uint64))
        for axis in range(3):
            atoms = _mix(bits[:, axis] ^ atoms)
        frame = _mix(np.add.reduceat(atoms, local[:-1]) + n_atoms.astype(np.uint64))
        periodic = pbc[first:last]
        frame = _mix(frame ^ (periodic @ np.array([1, 2, 4])).astype(np.uint64))
        with_cell = np.flatnonzero(periodic.any(1))
        vectors = np.where(periodic[with_cell, :, None], cell[first:last][with_cell], 0.0)
        for column in _bits(vectors).reshape(-1, 9).T:
            frame[with_cell] = _mix(frame[with_cell] ^ column)
        result[first:last] = frame
        first = last
    return result


def unique_ids(hashes: Array) -> Array:
    """uint64[F] hashes made unique: the k-th repetition of a value is mixed with k, the first one is kept."""
    ids = np.array(hashes, np.uint64)
    while True:
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        new_value = np.r_[True, ordered[1:] != ordered[:-1]] if len(ids) else np.zeros(0, bool)
        if new_value.all():
            return ids
        group_start = np.maximum.accumulate(np.where(new_value, np.arange(len(ids)), 0))
        repetition = (np.arange(len(ids)) - group_start).astype(np.uint64)
        again = repetition > 0
        ids[order[again]] = _mix(ordered[again] ^ _mix(repetition[again]))
