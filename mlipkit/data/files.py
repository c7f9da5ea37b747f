"""Files: which ones a path names, and what each holds, found by looking inside."""

from __future__ import annotations

import glob
import zipfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from mlipkit.data import format_ase, format_deepmd
from mlipkit.data.reading import Index, head, label_of, parse_index, split_index
from mlipkit.errors import DataError, nearest

PathLike = str | Path

_OWN = {"xyz": "extxyz", "extxyz": "extxyz", "vasp-out": "outcar", "outcar": "outcar", "vasp-xml": "vasprun"}
_OWN |= {name: name for name in ("vasprun", "npz", "deepmd", "frameset")}


def expand(path: PathLike | Sequence[PathLike], index: Index) -> list[tuple[Path, Index]]:
    """Files and folders with the index that applies to each.

    Args:
        path: a file, a folder, a glob pattern, or a list of these, each with an optional ``@index`` of its own.

    Raises:
        DataError: no such file.
    """
    if isinstance(path, (str, Path)):
        path = [path]
    files: list[tuple[Path, Index]] = []
    for one in path:
        text, own = split_index(str(one))
        part = index if own is None else parse_index(own, text)
        if Path(text).exists():
            files.append((Path(text), part))
        elif any(sign in text for sign in "*?["):
            matches = sorted(glob.glob(text, recursive=True))
            if not matches:
                raise DataError("no file matches the pattern", where=text)
            files.extend((Path(match), part) for match in matches)
        else:
            raise _missing(Path(text))
    if not files:
        raise DataError("no file named", expected="at least one path")
    return files


def detect(path: PathLike) -> str:
    """Name of the format of a file or folder, found by looking inside; the file name only decides what is left.

    Raises:
        DataError: empty, or unknown to mlipkit and ASE.
    """
    path = Path(path)
    if path.is_dir():
        return _detect_folder(path)
    if path.stat().st_size == 0:
        raise DataError("the file is empty", where=label_of(path))
    start = head(path)
    if start.startswith(b"\x93NUMPY") or (start.startswith(b"PK") and _is_npz(path)):
        return "npz"
    if b"<modeling>" in start:
        return "vasprun"
    if start.lstrip().startswith(b"vasp.") and b"executed on" in start:
        return "outcar"
    words = start.split(b"\n", 1)[0].split()
    if len(words) == 1 and words[0].lstrip(b"-").isdigit():
        return "extxyz"
    found = format_ase.detect(path)
    return _OWN.get(found, found)


def format_of(path: Path, asked: str | None) -> str:
    """Name of the format that was asked for, or, without one, of what lies there.

    Raises:
        DataError: unknown.
    """
    if asked is not None:
        own = _OWN.get(asked)
        if own:
            return own
        from ase.io.formats import ioformats

        if asked not in ioformats:
            raise DataError(f"unknown format '{asked}'", where=label_of(path), hint=_near_format(asked, ioformats))
        return asked
    return detect(path)


def _detect_folder(path: Path) -> str:
    if (path / "table.json").is_file():
        return "frameset"
    if format_deepmd.is_system(path):
        return "deepmd"
    inside = _listing(path)
    hint = "Name a file, or a pattern such as 'folder/*.extxyz'"
    raise DataError(
        "the folder holds no data set that can be read as a whole",
        where=str(path),
        expected="a FrameSet folder (table.json) or a DeePMD system (type.raw, set.000)",
        found=", ".join(inside[:8]) or "an empty folder",
        hint=hint if inside else None,
    )


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except zipfile.BadZipFile:
        return True  # cut short: the reader says so


def _near_format(asked: str, known: Iterable[str]) -> str:
    return _sentence(nearest(asked, [*known, *_OWN]).split(" known:")[0])


def _missing(path: Path) -> DataError:
    folder = path.parent
    if not folder.is_dir():
        return DataError("no such file", where=str(path), hint=f"There is no folder '{folder}' either")
    return DataError("no such file", where=str(path), hint=_sentence(nearest(path.name, _listing(folder))))


def _listing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in islice(folder.iterdir(), 500))[:20]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
