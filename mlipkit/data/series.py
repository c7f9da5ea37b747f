"""Append-only table of numbers on disk, for what comes every step: read by offset while it grows.

A folder holds ``series.json`` (columns, units), ``rows.f64`` (little-endian float64, row after row) and ``level1.f64``,
``level2.f64``, ...: minimum and maximum of every 64, 64², ... rows. Rows are written before the levels that summarise
them. A torn last row or level is not counted, so that a view never fails on a file that a process is writing or was
killed in.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from mlipkit.data.columns import Array
from mlipkit.errors import DataError, nearest

FACTOR: Final = 64
HEADER: Final = "series.json"
ROWS: Final = "rows.f64"
_DTYPE: Final = np.dtype("<f8")
_CHUNK_ROWS: Final = 1 << 16
_Result = TypeVar("_Result")


def _level_path(folder: Path, level: int) -> Path:
    return folder / (ROWS if level == 0 else f"level{level}.f64")


def _extremes(blocks: Array) -> Array:
    """[k,m,ncol] rows or [k,m,2,ncol] min/max pairs -> min/max [k,2,ncol] over m; NaN counts only when all are."""
    low, high = (blocks, blocks) if blocks.ndim == 3 else (blocks[:, :, 0], blocks[:, :, 1])
    return np.stack([np.fmin.reduce(low, axis=1), np.fmax.reduce(high, axis=1)], axis=1)


class _File:
    """One file of fixed-size records: rows [ncol] at level 0, [2,ncol] above."""

    def __init__(self, folder: Path, level: int, n_columns: int) -> None:
        self.path = _level_path(folder, level)
        self.shape = (n_columns,) if level == 0 else (2, n_columns)
        self.nbytes = 8 * int(np.prod(self.shape))

    def __len__(self) -> int:
        try:
            return os.stat(self.path).st_size // self.nbytes
        except FileNotFoundError:
            return 0

    def read(self, start: int, stop: int) -> Array:
        """Records [k,...]; fewer when the file has been cut meanwhile."""
        with self.path.open("rb") as stream:
            stream.seek(start * self.nbytes)
            data = stream.read((stop - start) * self.nbytes)
        whole = len(data) // self.nbytes
        return np.frombuffer(data, _DTYPE, whole * self.nbytes // 8).reshape(whole, *self.shape)

    def map(self, start: int, stop: int) -> Array:
        """Records as a memory map, for reading a few columns of many rows."""
        return np.memmap(self.path, _DTYPE, "r", start * self.nbytes, (stop - start, *self.shape))


class SeriesWriter:
    """Appends rows to a series.

    Args:
        folder: made when missing.
        columns: name -> unit, in order.
        resume_rows: None starts a new series, in place of one that is there; otherwise the series there is cut to so
            many rows (those of the checkpoint) and goes on.

    Raises:
        DataError: resuming a series that is not there, has other columns, or holds fewer rows.
    """

    FLUSH_ROWS: Final = 1024
    FLUSH_SECONDS: Final = 0.5

    def __init__(self, folder: str | Path, columns: Mapping[str, str], resume_rows: int | None = None) -> None:
        self.folder = Path(folder)
        self.columns = tuple(columns)
        if not self.columns:
            raise DataError("a series needs at least one column", where=str(folder))
        self._n_columns = len(self.columns)
        self._buffer = np.empty((self.FLUSH_ROWS, self._n_columns), _DTYPE)
        self._filled = 0
        self._flushed_at = time.monotonic()
        self._streams: list[Any] = []
        self._unsynced: set[int] = set()  # levels written to since they were last brought to the disk
        # Per level, the records below it that do not fill a block yet.
        self._tails: list[Array] = []
        if resume_rows is None:
            self._start_new(dict(columns))
            self._written = 0
        else:
            self._resume(dict(columns), int(resume_rows))
            self._written = int(resume_rows)

    @property
    def n_rows(self) -> int:
        """Rows appended so far, those in memory included."""
        return self._written + self._filled

    def append(self, rows: Array | Sequence[float]) -> None:
        """One row [ncol] or several [k,ncol]. Written to disk after 1024 rows or half a second, or by `flush`.

        Raises:
            DataError: the wrong number of columns.
        """
        block = np.asarray(rows, _DTYPE)
        if block.ndim == 1:
            block = block[None]
        if block.ndim != 2 or block.shape[1] != self._n_columns:
            raise DataError(
                "row of the wrong length",
                where=str(self.folder),
                expected=f"{self._n_columns} columns ({', '.join(self.columns)})",
                found=block.shape,
            )
        if self._filled + len(block) > len(self._buffer):
            self.flush()
        if len(block) > len(self._buffer):
            self._write(block)
            return
        self._buffer[self._filled : self._filled + len(block)] = block
        self._filled += len(block)
        if self._filled == len(self._buffer) or time.monotonic() - self._flushed_at > self.FLUSH_SECONDS:
            self.flush()

    def flush(self, sync: bool = False) -> None:
        """Hand all rows to the operating system; with `sync` also to the disk."""
        if self._filled:
            block, self._filled = self._buffer[: self._filled], 0
            self._write(block)
        self._flushed_at = time.monotonic()
        if sync:
            for level in sorted(self._unsynced):
                os.fsync(self._streams[level].fileno())
            self._unsynced = set()

    def close(self) -> None:
        self.flush()
        for stream in self._streams:
            stream.close()
        self._streams = []

    def __enter__(self) -> SeriesWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, block: Array) -> None:
        self._written += len(block)
        records = block
        for level in range(64):
            if level == len(self._streams):
                self._open_level(level)
            self._streams[level].write(np.ascontiguousarray(records, _DTYPE).data)
            self._unsynced.add(level)
            records = self._blocks_above(level, records)
            if not len(records):
                return

    def _blocks_above(self, level: int, records: Array) -> Array:
        """Blocks of the next level that `records` complete."""
        waiting = np.concatenate([self._tails[level], records])
        whole = len(waiting) // FACTOR
        self._tails[level] = waiting[whole * FACTOR :].copy()
        return _extremes(waiting[: whole * FACTOR].reshape(whole, FACTOR, *waiting.shape[1:]))

    def _open_level(self, level: int) -> None:
        file = _File(self.folder, level, self._n_columns)
        self._streams.append(file.path.open("ab", buffering=0))
        self._unsynced.add(level)
        self._tails.append(np.empty((0, *file.shape), _DTYPE))

    def _start_new(self, columns: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / HEADER).unlink(missing_ok=True)
        for path in [self.folder / ROWS, *self.folder.glob("level*.f64")]:
            path.unlink(missing_ok=True)
        header = {"format": "mlipkit-series", "version": 1, "columns": columns, "factor": FACTOR}
        part = self.folder / f".{HEADER}.{os.getpid()}.part"
        part.write_text(json.dumps(header, ensure_ascii=False), encoding="utf-8")
        self._open_level(0)
        os.replace(part, self.folder / HEADER)

    def _resume(self, columns: dict[str, str], n_rows: int) -> None:
        there = Series(self.folder)
        if there.columns != tuple(columns):
            raise DataError(
                "cannot resume a series with other columns",
                where=str(self.folder),
                expected=", ".join(columns),
                found=", ".join(there.columns),
            )
        if not 0 <= n_rows <= len(there):
            raise DataError(
                "cannot resume a series", where=str(self.folder), expected=f"at least {n_rows} rows", found=len(there)
            )
        # From the rows up: what a level lacks (the process died in between) is made again from the level below.
        below: _File | None = None
        level, n_records = 0, n_rows
        while True:
            file = _File(self.folder, level, self._n_columns)
            have = min(len(file), n_records)
            if file.path.exists():
                os.truncate(file.path, have * file.nbytes)
            self._open_level(level)
            if below is not None:
                step = max(1, _CHUNK_ROWS // FACTOR)
                for start in range(have, n_records, step):
                    stop = min(start + step, n_records)
                    children = below.read(start * FACTOR, stop * FACTOR)
                    self._streams[level].write(_extremes(children.reshape(stop - start, FACTOR, *below.shape)).data)
            n_above = n_records // FACTOR
            self._tails[level] = (
                file.read(n_above * FACTOR, n_records) if n_records else np.empty((0, *file.shape), _DTYPE)
            )
            if n_above == 0:
                break
            below, level, n_records = file, level + 1, n_above
        for path in self.folder.glob("level*.f64"):
            if path not in {_level_path(self.folder, one) for one in range(level + 1)}:
                path.unlink()


class Series:
    """Reads a series, also while it is being written; `len` and every read see the rows on disk at that moment.

    Raises:
        DataError: no series in the folder, or an unknown version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            header = json.loads((self.folder / HEADER).read_text(encoding="utf-8"))
            self.units: dict[str, str] = {str(name): str(unit) for name, unit in header["columns"].items()}
            known = header["format"] == "mlipkit-series" and header["version"] == 1 and header["factor"] == FACTOR
        except FileNotFoundError:
            raise DataError("holds no series (yet)", where=str(folder)) from None
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as problem:
            raise DataError(f"cannot be read ({problem!r})", where=(str(folder), HEADER)) from None
        if not known:
            raise DataError("unknown version of a series", where=(str(folder), HEADER), expected="version 1")
        self.columns: tuple[str, ...] = tuple(self.units)
        self._rows = _File(self.folder, 0, len(self.columns))

    def __len__(self) -> int:
        return len(self._rows)

    def read(
        self, columns: Sequence[str] | str | None = None, start: int = 0, stop: int | None = None
    ) -> dict[str, Array]:
        """Rows start..stop of some columns (all by default), float64 [n] each; negative numbers count from the end.

        Raises:
            DataError: no such column.
        """
        names = self._names(columns)
        return _while_it_changes(lambda: self._read(names, start, stop))

    def _read(self, names: list[str], start: int, stop: int | None) -> dict[str, Array]:
        start, stop = self._range(start, stop)
        if stop <= start:
            return {name: np.empty(0) for name in names}
        rows = self._rows.map(start, stop) if stop - start > _CHUNK_ROWS else self._rows.read(start, stop)
        return {name: np.array(rows[:, self.columns.index(name)], np.float64) for name in names}

    def overview(
        self,
        columns: Sequence[str] | str | None = None,
        max_points: int = 2000,
        start: int = 0,
        stop: int | None = None,
    ) -> dict[str, tuple[Array, Array]]:
        """Curves for a screen: name -> (row numbers int64 [m], values float64 [m]) with m <= max_points.

        All rows when they fit; otherwise the minimum and the maximum of equal ranges of rows, in turn, at the first
        and last row of their range, so that no spike is lost. Cost does not grow with the number of rows.

        Raises:
            DataError: no such column, or fewer than two points.
        """
        names = self._names(columns)
        if max_points < 2:
            raise DataError("an overview needs at least two points", found=max_points)
        return _while_it_changes(lambda: self._overview(names, max_points, start, stop))

    def _overview(
        self, names: list[str], max_points: int, start: int, stop: int | None
    ) -> dict[str, tuple[Array, Array]]:
        start, stop = self._range(start, stop)
        if stop - start <= max_points:
            rows = self._read(names, start, stop)
            return {name: (np.arange(start, start + len(values)), values) for name, values in rows.items()}
        edges, extremes = self._extremes_of_bins(start, stop, max_points // 2)
        x = np.stack([edges[:-1], edges[1:] - 1], axis=1).reshape(-1)
        which = [self.columns.index(name) for name in names]
        return {name: (x.copy(), extremes[:, :, k].reshape(-1)) for name, k in zip(names, which, strict=True)}

    def _extremes_of_bins(self, start: int, stop: int, n_bins: int) -> tuple[Array, Array]:
        """(edges int64 [m+1], min/max [m,2,ncol]) of m <= n_bins ranges of start..stop."""
        # Inner edges on multiples of whole blocks, so that a level answers for them.
        width = -(-(stop - start) // max(1, n_bins - 1))
        level = 0
        while FACTOR ** (level + 1) <= width and len(self._file(level + 1)):
            level += 1
        width = -(-width // FACTOR**level) * FACTOR**level
        inner = np.arange((start // width + 1) * width, stop, width)
        edges = np.concatenate([[start], inner, [stop]])
        if len(edges) > n_bins + 1:
            edges = np.concatenate([[start], inner[1:], [stop]])
        if len(edges) < 4:
            parts = [self._extent(int(a), int(b), level) for a, b in pairwise(edges)]
            return edges, np.stack(parts)
        first, last = int(edges[1]), int(edges[-2])
        block = FACTOR**level
        file = self._file(level)
        have = min(len(file) * block, last) // width * width
        middle: list[Array] = []
        if have > first:
            records = file.read(first // block, have // block)
            middle.append(_extremes(records.reshape((have - first) // width, width // block, *file.shape)))
        middle += [self._extent(a, a + width, level)[None] for a in range(max(have, first), last, width)]
        ends = [self._extent(start, first, level)[None], self._extent(last, stop, level)[None]]
        return edges, np.concatenate([ends[0], *middle, ends[1]])

    def _extent(self, start: int, stop: int, level: int) -> Array:
        """Min/max [2,ncol] of rows start..stop from the coarsest blocks inside, and finer ones at the ends."""
        block = FACTOR**level
        first = -(-start // block)
        last = min(stop // block, len(self._file(level)))
        if level and first >= last:
            return self._extent(start, stop, level - 1)
        parts = [_extremes(self._file(level).read(first, last)[None])[0]]
        if start < first * block:
            parts.append(self._extent(start, first * block, level - 1))
        if last * block < stop:
            parts.append(self._extent(last * block, stop, level - 1))
        return _extremes(np.stack(parts)[None])[0]

    def _file(self, level: int) -> _File:
        return _File(self.folder, level, len(self.columns))

    def _names(self, columns: Sequence[str] | str | None) -> list[str]:
        if columns is None:
            return list(self.columns)
        names = [columns] if isinstance(columns, str) else list(columns)
        for name in names:
            if name not in self.units:
                raise DataError(f"no column '{name}'", where=str(self.folder), hint=nearest(name, self.columns))
        return names

    def _range(self, start: int, stop: int | None) -> tuple[int, int]:
        first, last, _ = slice(start, stop).indices(len(self))
        return first, last


def _while_it_changes(read: Callable[[], _Result]) -> _Result:
    """Try again when a writer that resumes has cut the files between two looks at them."""
    for _ in range(3):
        try:
            return read()
        except (ValueError, FileNotFoundError):
            time.sleep(0.01)
    return read()


def series_names(folder: str | Path) -> list[str]:
    """Names of the series in the subfolders of `folder`."""
    return sorted(path.parent.name for path in Path(folder).glob(f"*/{HEADER}"))
