"""What every reader shares: opening files by content, indices, and the report of what was read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from mlipkit.errors import DataError

Index = int | slice

BROKEN_STREAM = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
"""What the standard library raises inside a truncated or damaged compressed file (bz2: `EOFError` or `OSError`)."""

_OPENERS: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)


@dataclass
class FileReport:
    """What one file held besides the frames.

    Attributes:
        path: the file or folder.
        format: name of the format, as found by content.
        frames: number of frames read.
        time_step: fs between consecutive frames, None when unknown.
        settings: what the program printed about itself (functional, cut-off, smearing, ...).
        unconverged: indices (in the file) of frames whose electronic structure did not converge.
        notes: one sentence each: what was taken from the file or concluded from its content.
        warnings: one sentence each: what was left out or looks wrong.
    """

    path: str
    format: str = ""
    frames: int = 0
    time_step: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    unconverged: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class ReadReport:
    """What a call of `mlipkit.data.read` did: coverage of the labels, and one `FileReport` per file.

    Attributes:
        coverage: one line, label by label: on how many frames, and from which key.
        files: per file.
        other_energy: float64 [F], eV: the extrapolated energy of frames whose force-consistent `free_energy` was
            taken (NaN elsewhere); None when no frame has both.
    """

    coverage: str = ""
    files: list[FileReport] = field(default_factory=list)
    other_energy: np.ndarray | None = None

    def notes(self) -> list[str]:
        """Every warning and note, with its file in front."""
        return [f"{file.path}: {text}" for file in self.files for text in (*file.warnings, *file.notes)]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "coverage": self.coverage,
            "files": [
                {
                    "path": f.path,
                    "format": f.format,
                    "frames": f.frames,
                    "time_step_fs": f.time_step,
                    "settings": dict(f.settings),
                    "unconverged": list(f.unconverged),
                    "notes": list(f.notes),
                    "warnings": list(f.warnings),
                }
                for f in self.files
            ],
            "other_energy": None if self.other_energy is None else self.other_energy.tolist(),
        }


@dataclass
class Block:
    """Consecutive frames of equal size as flat arrays: what array formats (npz, npy) yield.

    `numbers` is [n] or [F,n]; `positions` [F,n,3]; the labels are in mlipkit's units. `origins` says where each label
    came from; `frames` are the numbers of the frames in the file.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray | None = None
    pbc: bool = False
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    frames: Sequence[int] = ()


def label_of(path: Path) -> str:
    """Short name of a file for messages and as a source: its folder and its name."""
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def head(path: Path, size: int = 4096) -> bytes:
    """First bytes of a file, decompressed.

    Raises:
        DataError: the compressed stream breaks before the first byte.
    """
    try:
        with open_bytes(path) as stream:
            return stream.read(size)
    except BROKEN_STREAM as error:
        raise DataError("the compressed file is damaged or cut short", where=label_of(path), found=error) from None


def open_bytes(path: Path) -> IO[bytes]:
    """Open a plain, gzip, bzip2 or xz file for reading; which one is decided by its first bytes, not by its name."""
    with path.open("rb") as stream:
        magic = stream.read(6)
    for start, opener in _OPENERS:
        if magic.startswith(start):
            return opener(path, "rb")
    return path.open("rb")


def open_text(path: Path) -> io.TextIOWrapper:
    """`open_bytes` as UTF-8 text."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8")  # type: ignore[arg-type]


def parse_index(text: str | int | slice | None, where: str = "") -> Index:
    """An index as Python would write it between brackets: ``":"``, ``"-1"``, ``":100"``, ``"10:50:2"``.

    Raises:
        DataError: it is none of these.
    """
    if text is None:
        return slice(None)
    if isinstance(text, slice):
        return _filled(text, where)
    if isinstance(text, int):
        return text
    parts = text.strip().split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
        if len(parts) == 1 and numbers[0] is not None:
            return numbers[0]
        if 2 <= len(parts) <= 3:
            if len(parts) == 3 and numbers[2] == 0:
                raise ValueError
            return _filled(slice(*numbers), where)
    except ValueError:
        pass
    raise DataError(
        f"'{text}' is no index", where=where, expected="a number or start:stop:step, for example '-1' or ':100'"
    )


def _filled(index: slice, where: str) -> slice:
    """The slice itself, unless it selects nothing from however many frames: 5:2, -1:-3, 4:4."""
    start, stop, step = index.start, index.stop, index.step or 1
    if start is None:
        start = 0 if step > 0 else -1
    if stop is not None and (start < 0) == (stop < 0) and (stop - start) * step <= 0:
        raise DataError(
            "the index selects no frame, however many there are", where=where,
            expected="a stop behind the start" if step > 0 else "a stop before the start", found=shown(index),
        )  # fmt: skip
    return index


def shown(index: Index) -> str:
    """An index as it is written: ``5:``, ``::2``, ``-1``."""
    if isinstance(index, int):
        return str(index)
    parts = ["" if part is None else str(part) for part in (index.start, index.stop, index.step)]
    return ":".join(parts if index.step is not None else parts[:2])


def split_index(path: str) -> tuple[str, str | None]:
    """``name@index`` -> (name, index); a file that exists under the whole name keeps its ``@``."""
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    if "@" not in name or Path(path).exists():
        return path, None
    start, _, index = path.rpartition("@")
    return start, index


def pick(count: int, index: Index, where: str) -> range:
    """Frame numbers that `index` selects out of `count`.

    Raises:
        DataError: it selects none.
    """
    if isinstance(index, int):
        position = index + count if index < 0 else index
        if not 0 <= position < count:
            raise DataError(
                f"there is no frame {index}", where=where, expected=f"-{count} to {count - 1}", found=f"{count} frames"
            )
        return range(position, position + 1)
    chosen = range(count)[index]
    if not chosen:
        raise DataError(
            "the index selects no frame",
            where=where,
            expected=f"something within 0 to {count}" if count else "a file with frames",
            found=f"{shown(index)} of {count} frames",
        )
    return chosen
