"""A `FrameSet` on disk: one ``.npy`` file per column plus ``table.json``; readable by NumPy alone.

A column file carries its hash in its name and never changes; ``table.json`` names the files in use and is replaced in
one step. So an interrupted save leaves the former set whole (or, where there was none, columns that the next save takes
up), saving a set with new labels writes only those, and sets that are open keep reading the files they opened.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path
from typing import Any, Final

import numpy as np

from mlipkit.data import columns as col
from mlipkit.data.columns import KINDS, Array, Column, Layout, array_text
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError

TABLE: Final = "table.json"
FORMAT: Final = "mlipkit-frames"
VERSION: Final = 1
OURS: Final = re.compile(rf"({'|'.join(('offsets', *KINDS))})\.[0-9a-f]{{16}}\.npy|\..*\.part")
"""Names of files that an interrupted save leaves; a column has its name only when it is whole."""


def is_frames_folder(folder: str | Path) -> bool:
    """True when `folder` holds a saved FrameSet."""
    return (Path(folder) / TABLE).is_file()


def save_frames(frames: FrameSet, folder: str | Path) -> Path:
    """Write `frames` to `folder` (made when missing); an older set there is replaced.

    Raises:
        DataError: the folder holds something else.
    """
    folder = Path(folder)
    if folder.exists() and not is_frames_folder(folder) and not _holds_only_leftovers(folder):
        raise DataError("will not write frames over other files", where=str(folder), expected="a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    hashes = frames.hashes()
    sources, tags = frames.sources, frames.tags
    files: dict[str, str] = {}
    starts = np.ascontiguousarray(frames.offsets, "<i8")
    files["offsets"] = _write_column(folder, "offsets", array_text(starts), iter([starts]), starts.shape, "<i8")
    for name, stored in frames._columns.items():
        kind, layout = KINDS[name], stored.layout
        pieces = layout.pieces(stored.values, kind.per_atom)
        if name == "source_codes":
            codes, sources = col.compact_codes(frames.source_codes, frames.sources)
            pieces = iter([codes])
        elif name == "tag_codes":
            codes, tags = col.compact_codes(frames.tag_codes, frames.tags)
            pieces = iter([codes])
        n_rows = int(starts[-1]) if kind.per_atom else len(frames)
        files[name] = _write_column(folder, name, hashes[name], pieces, (n_rows, *kind.row), kind.dtype)
    table = {
        "format": FORMAT,
        "version": VERSION,
        "frames": len(frames),
        "atoms": int(starts[-1]),
        "hash": frames.hash,
        "columns": {name: {"file": files[name], "hash": hashes.get(name, "")} for name in files},
        "sources": list(sources),
        "tags": list(tags),
    }
    _replace_text(folder / TABLE, json.dumps(table, indent=1, ensure_ascii=False))
    # Left over: columns of the former set, and of saves that were interrupted.
    for path in [*folder.glob("*.npy"), *folder.glob(".*.part")]:
        if path.name not in files.values():
            path.unlink(missing_ok=True)
    return folder


def _holds_only_leftovers(folder: Path) -> bool:
    """True for an empty folder, and for one in which a save was killed before it could write its table."""
    return folder.is_dir() and all(path.is_file() and OURS.fullmatch(path.name) for path in folder.iterdir())


def open_frames(folder: str | Path, mmap: bool = True, verify: bool = False) -> FrameSet:
    """Open a saved set. With `mmap` (default) only the table is read; columns come from disk as they are touched.

    Args:
        verify: read the columns once and compare them with their hashes.

    Raises:
        DataError: no set there, an unknown format version, a column file that is missing or cut short, or, with
            `verify`, one with other content than was saved.
    """
    folder = Path(folder)
    try:
        table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("holds no saved frames", where=str(folder), expected=f"a folder with {TABLE}") from None
    except (ValueError, OSError) as problem:
        raise DataError(f"cannot be read: {problem}", where=(str(folder), TABLE)) from None
    if not isinstance(table, dict) or table.get("format") != FORMAT or table.get("version") != VERSION:
        found = f"{table.get('format')} {table.get('version')}" if isinstance(table, dict) else type(table).__name__
        raise DataError(
            "unknown format", where=(str(folder), TABLE), expected=f"{FORMAT} version {VERSION}", found=found
        )
    try:
        n_frames, n_atoms, entries = int(table["frames"]), int(table["atoms"]), dict(table["columns"])
        sources, tags = tuple(map(str, table["sources"])), tuple(map(str, table["tags"]))
        missing = {"offsets", "numbers", "positions", "cell", "pbc", "uids"} - set(entries)
        if missing:
            raise DataError("columns are missing", where=(str(folder), TABLE), found=f"no {', '.join(sorted(missing))}")
        starts = _read_column(folder, entries["offsets"]["file"], (n_frames + 1,), "<i8", mmap)
        layout = Layout(starts)
        columns = {}
        for name, kind in KINDS.items():
            if name in entries:
                shape = (n_atoms if kind.per_atom else n_frames, *kind.row)
                values = _read_column(folder, entries[name]["file"], shape, kind.dtype, mmap)
                columns[name] = Column(values, layout)
        frames = FrameSet(columns, sources, tags)
        told = {name: entries[name]["hash"] for name in columns}
        if verify and (changed := [name for name, value in frames.hashes().items() if value != told[name]]):
            raise DataError("is damaged", where=str(folder), found=f"other {', '.join(changed)} than were saved",
                            hint="Delete this folder and have it made again")  # fmt: skip
        frames._hashes.update(told)
    except (KeyError, TypeError, ValueError) as problem:
        raise DataError(f"is damaged ({problem!r})", where=(str(folder), TABLE)) from None
    return frames


def _write_column(folder: Path, name: str, digest: str, pieces: Any, shape: tuple[int, ...], dtype: str) -> str:
    file = f"{name}.{digest[:16]}.npy"
    if (folder / file).is_file():
        return file
    part = folder / f".{file}.{uuid.uuid4().hex}.part"
    try:
        with part.open("wb") as stream:
            np.lib.format.write_array_header_1_0(
                stream, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            )
            for piece in pieces:
                stream.write(np.ascontiguousarray(piece, dtype).data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, folder / file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return file


def _read_column(folder: Path, file: str, shape: tuple[int, ...], dtype: str, mmap: bool) -> Array:
    if Path(file).name != file:
        raise DataError("a column lies outside the folder", where=(str(folder), TABLE), found=file)
    # Memory-mapping an empty array is refused by the operating system.
    mode = "r" if mmap and np.prod(shape) else None
    try:
        array = np.load(folder / file, mmap_mode=mode, allow_pickle=False)
    except FileNotFoundError:
        raise DataError("column file is missing", where=(str(folder), file)) from None
    except (ValueError, OSError, EOFError) as problem:
        raise DataError(f"column file cannot be read ({problem})", where=(str(folder), file)) from None
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise DataError(
            "column file does not fit the table",
            where=(str(folder), file),
            expected=f"{dtype} {shape}",
            found=f"{array.dtype} {array.shape}",
        )
    return array


def _replace_text(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
