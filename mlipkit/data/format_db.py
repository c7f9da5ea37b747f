"""ASE data bases (SQLite, JSON), and those of SchNetPack: labels in ``key_value_pairs`` and ``data`` are found too.

SchNetPack states units in the metadata (``_property_unit_dict``, ``_distance_unit``); they are converted. ASE's own
results are in eV and Å.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlipkit.data.plausibility import ENERGY_UNITS, LENGTH_UNITS, unit_named
from mlipkit.data.reading import FileReport, Index, label_of, pick
from mlipkit.data.resolve import RawFrame, raw_frame
from mlipkit.errors import DataError


def frames(
    path: Path, index: Index, units: Mapping[str, str] | None, report: FileReport
) -> Iterator[tuple[int, RawFrame]]:
    """Numbered rows of a data base, in order of their ids.

    Args:
        units: ``{"energy": ..., "length": ...}`` overrides what the metadata say of ``data`` and ``key_value_pairs``.

    Raises:
        DataError: no data base, or units that nobody knows.
    """
    from ase.db import connect

    name = label_of(path)
    number = 0
    try:
        opened: Any = connect(str(path))
        with opened as base:
            chosen = pick(base.count(), index, name)
            factors = _factors(base.metadata or {}, units, name, report)
            forward = chosen if chosen.step > 0 else chosen[::-1]
            rows = base.select(offset=forward.start, limit=forward.stop - forward.start, include_data=True)
            for number, row in enumerate(rows, start=forward.start):
                if number in chosen:
                    yield number, _frame(row, factors)
    except DataError:
        raise
    except Exception as error:  # ASE's back ends raise many kinds
        raise DataError(
            "cannot read this data base", where=(name, f"frame {number}"), found=f"{type(error).__name__}: {error}"
        ) from error


def _factors(
    metadata: Mapping[str, Any], units: Mapping[str, str] | None, name: str, report: FileReport
) -> dict[str, float]:
    """Property -> factor to mlipkit's units; ``""`` for the positions."""
    stated = dict(metadata.get("_property_unit_dict") or {})
    length = (units or {}).get("length") or metadata.get("_distance_unit") or "Å"
    length_factor = LENGTH_UNITS[unit_named(str(length), "length", (name, "_distance_unit"))]
    factors = {"": length_factor}
    given = (units or {}).get("energy")
    for key, text in stated.items():
        factors[key] = _factor(str(text), name, key)
    if given:
        energy = ENERGY_UNITS[unit_named(given, "energy", (name, "energy"))]
        factors |= {"energy": energy, "forces": energy / length_factor}
    shown = {**stated, **({"energy": given} if given else {})}
    if shown or length != "Å":
        units_text = ", ".join(f"{key} in {text}" for key, text in shown.items())
        report.notes.append(f"units as stated: positions in {length}" + (f", {units_text}" if units_text else ""))
    return factors


def _factor(text: str, name: str, key: str) -> float:
    """``kcal/mol/Ang`` -> eV/Å; a property that is neither an energy nor a force keeps its numbers."""
    whole = text.strip()
    if not whole:
        return 1.0
    energy, slash, length = whole.rpartition("/")
    for first, second in ((whole, ""), (energy, length) if slash else (whole, "")):
        try:
            factor = ENERGY_UNITS[unit_named(first, "energy", (name, key))]
            return factor / LENGTH_UNITS[unit_named(second, "length", (name, key))] if second else factor
        except DataError:
            continue
    return 1.0


def _frame(row: Any, factors: Mapping[str, float]) -> RawFrame:
    atoms = row.toatoms()
    raw = raw_frame(atoms)
    info: dict[str, Any] = dict(row.key_value_pairs)
    arrays = dict(raw.arrays)
    for key, value in dict(row.get("data") or {}).items():
        array = np.asarray(value)
        per_atom = array.ndim >= 1 and len(array) == len(atoms) and array.ndim > 1
        (arrays if per_atom else info)[key] = value
    for place in (info, arrays):
        for key, factor in factors.items():
            if factor != 1.0 and key in place:
                place[key] = np.asarray(place[key], dtype=np.float64) * factor
    length = factors[""]
    return RawFrame(
        numbers=raw.numbers,
        positions=raw.positions * length if length != 1.0 else raw.positions,
        cell=raw.cell * length if length != 1.0 else raw.cell,
        pbc=raw.pbc,
        results=raw.results,
        info=info,
        arrays=arrays,
        masses=raw.masses,
    )
