"""NumPy archives of MD17, rMD17, sGDML and their relatives.

======================  ==========================================================
array                   names that are understood
======================  ==========================================================
positions [F,n,3]       R, coords, positions, pos, coordinates
atomic numbers [n]      z, nuclear_charges, numbers, Z, atomic_numbers, charges
energy [F] or [F,1]     E, energies, energy, total_energy
forces [F,n,3]          F, forces, force
cell [3,3] or [F,3,3]   lattice (sGDML: columns are the cell vectors), cell (rows)
======================  ==========================================================

Units: declared by ``e_unit`` and ``r_unit`` (sGDML), else recognised from all-electron total energies, else given by
the caller; never guessed. Sources: http://www.sgdml.org, Chmiela et al., Sci. Adv. 3, e1603015 (2017).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlipkit.data.plausibility import ENERGY_UNITS, LENGTH_UNITS, all_electron_unit, unit_named
from mlipkit.data.reading import Block, FileReport, Index, label_of, open_bytes, pick
from mlipkit.data.resolve import Keys
from mlipkit.errors import DataError, LabelError, nearest

NAMES: dict[str, tuple[str, ...]] = {
    "positions": ("R", "coords", "positions", "pos", "coordinates"),
    "numbers": ("z", "nuclear_charges", "numbers", "Z", "atomic_numbers", "charges"),
    "energy": ("E", "energies", "energy", "total_energy"),
    "forces": ("F", "forces", "force"),
    "cell": ("lattice", "cell"),
}
_ROWS_PER_BLOCK = 1 << 16


def blocks(
    path: Path, index: Index, keys: Keys | None, units: Mapping[str, str] | None, report: FileReport
) -> Iterator[Block]:
    """Frames of an archive.

    Args:
        units: ``{"energy": "kcal/mol", "length": "Å"}`` overrides what the file declares; forces are energy/length.

    Raises:
        DataError: no positions or numbers (the message lists the arrays), shapes that disagree, pickled content,
            a damaged archive, units that cannot be known.
        LabelError: a named key is not there.
    """
    arrays = _load(path)
    name = label_of(path)

    def find(what: str, needed: bool = False) -> tuple[str, np.ndarray] | None:
        if keys and what in keys:
            key = keys[what]
            if key is None:
                return None
            if key not in arrays:
                raise LabelError(
                    f"key '{key}' named for {what} is not in the archive", where=(name, key), hint=nearest(key, arrays)
                )
            return key, arrays[key]
        for key in NAMES[what]:
            if key in arrays:
                return key, arrays[key]
        if needed:
            raise DataError(
                f"the archive has no {what}",
                where=name,
                expected=f"an array named {' or '.join(NAMES[what])}",
                found=", ".join(sorted(arrays)) or "nothing",
            )
        return None

    position_key, positions = find("positions", needed=True)  # type: ignore[misc]
    number_key, numbers = find("numbers", needed=True)  # type: ignore[misc]
    if positions.ndim == 2:
        positions = positions[None]
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise DataError("wrong shape", where=(name, position_key), expected="(frames, atoms, 3)", found=positions.shape)
    n_frames, n_atoms = len(positions), positions.shape[1]
    if numbers.shape not in ((n_atoms,), (n_frames, n_atoms)):
        raise DataError(
            "atomic numbers and positions disagree",
            where=(name, number_key),
            expected=f"({n_atoms},) as in {position_key} {positions.shape}",
            found=numbers.shape,
        )
    labels: dict[str, tuple[str, np.ndarray]] = {}
    for label, shape in (("energy", (n_frames,)), ("forces", positions.shape)):
        hit = find(label)
        if hit is None:
            continue
        key, values = hit
        if label == "energy" and values.size == n_frames:
            values = values.reshape(n_frames)
        if label == "forces" and values.ndim == 2:
            values = values[None]
        if values.shape != shape:
            raise LabelError(
                f"{label} and positions disagree",
                where=(name, key),
                expected=f"{shape} as in {position_key} {positions.shape}",
                found=values.shape,
            )
        labels[label] = (key, values)
    for key, values in ((position_key, positions), (number_key, numbers), *labels.values()):
        if values.dtype.kind not in "fiu":
            raise DataError("not numbers", where=(name, key), found=f"dtype {values.dtype}")

    energy_unit, length_unit = _units(arrays, numbers, labels.get("energy"), units, name, report, bool(labels))
    energy_factor, length_factor = ENERGY_UNITS[energy_unit], LENGTH_UNITS[length_unit]
    factors = {"energy": energy_factor, "forces": energy_factor / length_factor}
    cell = _cell(find("cell"), n_frames, length_factor, name)
    chosen = pick(n_frames, index, name)
    names = set(arrays) - {position_key, number_key}
    for start in range(0, len(chosen), _ROWS_PER_BLOCK):
        part = chosen[start : start + _ROWS_PER_BLOCK]
        rows = slice(part.start, part.stop if part.stop >= 0 else None, part.step)
        yield Block(
            numbers=numbers if numbers.ndim == 1 else numbers[rows],
            positions=_scaled(positions[rows], length_factor),
            cell=None if cell is None else (cell if cell.ndim == 2 else cell[rows]),
            pbc=cell is not None,
            values={label: _scaled(values[rows], factors[label]) for label, (_, values) in labels.items()},
            origins={label: f"npz['{key}']" for label, (key, _) in labels.items()},
            names=names,
            frames=part,
        )


def _scaled(values: np.ndarray, factor: float) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    return values if factor == 1.0 else values * factor


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with open_bytes(path) as stream:
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError("a single array is no data set", where=label_of(path), expected="an .npz archive")
            return {key: _array(archive, key, path) for key in archive.files}
    except (zipfile.BadZipFile, EOFError, zlib.error, ValueError, OSError) as error:
        raise DataError("the archive is damaged or cut short", where=label_of(path), found=error) from None


def _array(archive: Any, key: str, path: Path) -> np.ndarray:
    try:
        return archive[key]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise DataError(
            "an array of Python objects is never unpickled",
            where=(label_of(path), key),
            hint="Save it again as numbers: np.savez(file, R=..., z=..., E=..., F=...)",
        ) from None


def _units(
    arrays: Mapping[str, np.ndarray],
    numbers: np.ndarray,
    energy: tuple[str, np.ndarray] | None,
    given: Mapping[str, str] | None,
    name: str,
    report: FileReport,
    needed: bool,
) -> tuple[str, str]:
    """(energy unit, length unit), from the caller, the file, or the size of the energies, in this order."""
    found: dict[str, str] = {}
    for what, key in (("energy", "e_unit"), ("length", "r_unit")):
        text = (given or {}).get(what)
        origin = "the caller"
        if text is None and key in arrays:
            text, origin = _text(arrays[key]), f"'{key}' of the file"
        if text is None:
            continue
        unit = unit_named(text, what, (name, key))
        found[what] = unit
        report.notes.append(f"{what} in {unit}, says {origin}")
    if "length" not in found:
        found["length"] = "Å"
        report.notes.append("the file declares no length unit: read as Å, as MD17 and rMD17 are")
    if "energy" not in found:
        if not needed:
            found["energy"] = "eV"
            return found["energy"], found["length"]
        unit = None
        if energy is not None:
            first = numbers if numbers.ndim == 1 else numbers[0]
            unit = all_electron_unit(first, float(np.asarray(energy[1], dtype=np.float64)[0]))
        if unit is None:
            raise DataError(
                "the unit of energy is not declared and cannot be recognised",
                where=(name, "e_unit"),
                hint="Pass units={'energy': 'eV'} (or kcal/mol, hartree, ...; forces are then energy per length)",
            )
        found["energy"] = unit
        report.notes.append(f"energy and forces read as {unit}: the energies are all-electron totals of that size")
    return found["energy"], found["length"]


def _text(value: Any) -> str:
    item = np.asarray(value).reshape(-1)[0]
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)


def _cell(hit: tuple[str, np.ndarray] | None, n_frames: int, factor: float, name: str) -> np.ndarray | None:
    if hit is None:
        return None
    key, cell = hit
    if cell.shape not in ((3, 3), (n_frames, 3, 3)) or cell.dtype.kind not in "fiu":
        raise DataError("wrong shape", where=(name, key), expected=f"(3, 3) or ({n_frames}, 3, 3)", found=cell.shape)
    cell = np.asarray(cell, dtype=np.float64) * factor
    return cell.swapaxes(-1, -2) if key == "lattice" else cell
