"""DeePMD folders: ``type.raw``, ``type_map.raw`` and one or more ``set.*`` with NumPy arrays.

================  ==========================  ============================================================
file              shape                       meaning
================  ==========================  ============================================================
type.raw          n integers                  kind of each atom, an index into the type map
type_map.raw      one element per line
nopbc             (may be empty)              there: no periodicity; not there: periodic along all axes
set.*/coord       [F, 3n]                     Å
set.*/box         [F, 9]                      Å, rows are the cell vectors
set.*/energy      [F]                         eV
set.*/force       [F, 3n]                     eV/Å
set.*/virial      [F, 9]                      eV; stress = -virial/volume
set.*/real_atom_types  [F, n]                 kinds per frame (mixed-type format); -1 pads
================  ==========================  ============================================================

Source: https://docs.deepmodeling.com/projects/deepmd/en/stable/data/system.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from mlipkit.data.reading import Block, FileReport, Index, label_of, pick
from mlipkit.data.resolve import Keys
from mlipkit.errors import DataError, LabelError, nearest

FILES = {"energy": "energy", "forces": "force", "stress": "virial"}


def is_system(folder: Path) -> bool:
    """Whether a folder looks like one DeePMD system."""
    return (folder / "type.raw").is_file() or any(folder.glob("set.*/coord.npy"))


def blocks(folder: Path, index: Index, keys: Keys | None, report: FileReport) -> Iterator[Block]:
    """Frames of one system, set by set in order of name.

    Raises:
        DataError: missing type.raw, type_map.raw or sets; a type without an element; arrays that disagree.
        LabelError: a label array of the wrong shape, or a named one that is not there.
    """
    name = label_of(folder)
    sets = sorted(path for path in folder.glob("set.*") if path.is_dir())
    if not sets:
        raise DataError("a DeePMD folder without data", where=name, expected="set.000 and so on")
    types = _types(folder)
    elements = _elements(folder, name)
    labels = {label: file for label, file in FILES.items() if not (keys and label in keys and keys[label] is None)}
    for label, key in (keys or {}).items():
        if key is not None and label in FILES:
            labels[label] = key.removesuffix(".npy")
    _check_named(sets, keys, name)
    counts = [len(_load(part / "coord.npy", name)) for part in sets]
    chosen = pick(sum(counts), index, name)
    periodic = not (folder / "nopbc").exists()
    first = 0
    for part, count in zip(sets, counts, strict=True):
        rows = np.array([frame - first for frame in chosen if first <= frame < first + count], dtype=np.int64)
        if len(rows):
            yield _block(part, rows, first, types, elements, periodic, labels, name)
        first += count


def _check_named(sets: list[Path], keys: Keys | None, name: str) -> None:
    there = {path.stem for part in sets for path in part.glob("*.npy")}
    for label, key in (keys or {}).items():
        if key is not None and key.removesuffix(".npy") not in there:
            raise LabelError(f"key '{key}' named for {label} is in no set", where=(name, key), hint=nearest(key, there))


def _block(
    part: Path,
    rows: np.ndarray,
    first: int,
    types: np.ndarray,
    elements: np.ndarray,
    periodic: bool,
    labels: dict[str, str],
    name: str,
) -> Block:
    place = f"{name}/{part.name}"
    n_atoms = len(types)

    def array(file: str, width: int, n_frames: int | None) -> np.ndarray | None:
        path = part / f"{file}.npy"
        if not path.is_file():
            return None
        values = _load(path, name)
        values = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
        if values.shape[1] != width or (n_frames is not None and len(values) != n_frames):
            raise (LabelError if file not in ("coord", "box") else DataError)(
                f"{file}.npy does not fit type.raw and coord.npy",
                where=(place, f"{file}.npy"),
                expected=f"({'frames' if n_frames is None else n_frames}, {width}) for {n_atoms} atoms",
                found=values.shape,
            )
        return np.asarray(values[rows], dtype=np.float64)

    n_frames = len(_load(part / "coord.npy", name))
    positions = array("coord", 3 * n_atoms, None)
    assert positions is not None
    box = array("box", 9, n_frames)
    if periodic and box is None:
        raise DataError(
            "periodic data without a cell", where=(place, "box.npy"), expected="box.npy, or an empty file 'nopbc'"
        )
    cell = None if box is None else box.reshape(-1, 3, 3)
    kinds = array("real_atom_types", n_atoms, n_frames)
    numbers = elements_of(types, elements, place) if kinds is None else elements_of(kinds.astype(int), elements, place)
    values: dict[str, np.ndarray] = {}
    origins: dict[str, str] = {}
    for label, file in labels.items():
        width = {"energy": 1, "forces": 3 * n_atoms, "stress": 9}[label]
        found = array(file, width, n_frames)
        if found is None:
            continue
        if label == "energy":
            found = found[:, 0]
        elif label == "forces":
            found = found.reshape(-1, n_atoms, 3)
        else:
            if cell is None:
                raise LabelError("a virial cannot become a stress without a cell", where=(place, f"{file}.npy"))
            volume = np.abs(np.linalg.det(cell))[:, None, None]
            found = -found.reshape(-1, 3, 3) / volume
        values[label] = found
        origins[label] = f"{file}.npy"
    return Block(
        numbers=numbers,
        positions=positions.reshape(-1, n_atoms, 3),
        cell=cell,
        pbc=periodic,
        values=values,
        origins=origins,
        names={path.stem for path in part.glob("*.npy")} - {"coord", "box"},
        frames=(rows + first).tolist(),
    )


def elements_of(types: np.ndarray, elements: np.ndarray, where: str) -> np.ndarray:
    """Atomic numbers of type indices.

    Raises:
        DataError: a type beyond the type map.
    """
    if len(types) and (types.min() < 0 or types.max() >= len(elements)):
        bad = int(types.max() if types.max() >= len(elements) else types.min())
        raise DataError(
            f"type {bad} has no element",
            where=(where, "type.raw"),
            expected=f"0 to {len(elements) - 1}, the lines of type_map.raw",
            found=bad,
        )
    return elements[types]


def _types(folder: Path) -> np.ndarray:
    path = folder / "type.raw"
    try:
        types = np.array([int(float(word)) for word in path.read_text().split()])
    except FileNotFoundError:
        raise DataError(
            "a DeePMD folder without type.raw", where=label_of(folder), expected="one type per atom"
        ) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError("types are not integers", where=(label_of(folder), "type.raw"), found=error) from None
    if not len(types):
        raise DataError("a frame without atoms", where=(label_of(folder), "type.raw"), expected="at least one type")
    return types


def _elements(folder: Path, name: str) -> np.ndarray:
    path = folder / "type_map.raw"
    if not path.is_file():
        raise DataError(
            "type_map.raw is missing, so nobody knows which elements the types are",
            where=name,
            expected="a file type_map.raw with one element symbol per type",
        )
    symbols = path.read_text().split()
    for symbol in symbols:
        if atomic_numbers.get(symbol, 0) < 1:
            raise DataError(f"unknown element '{symbol[:20]}'", where=(name, "type_map.raw"))
    return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int16)


def _load(path: Path, name: str) -> np.ndarray:
    place = f"{name}/{path.parent.name}"
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path.name} is missing", where=place) from None
    except (ValueError, EOFError, OSError) as error:
        raise DataError("not a readable .npy array", where=(place, path.name), found=error) from None
    if array.dtype.kind not in "fiu":
        raise DataError("not numbers", where=(place, path.name), found=f"dtype {array.dtype}")
    return array
