"""VASP inputs: what an INCAR, a KPOINTS and a POTCAR say, and the POSCAR of a frame, atoms grouped by element."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from mlipkit.errors import DataError

Settings = dict[str, float | str]
"""What decides whether labels may stand in one data set: name for people -> number or text."""

_DATASET_END = re.compile(r"^\s*End of Dataset\s*$", re.MULTILINE)
PER_SPECIES = ("LDAUL", "LDAUU", "LDAUJ", "ROPT", "QUAD_EFG")
"""Tags of an INCAR with one value for each dataset of the POTCAR."""


@dataclass(frozen=True)
class Dataset:
    """One dataset of a POTCAR: its element, its title, the functional it was made for, and its text."""

    symbol: str
    title: str
    functional: str
    text: str


def incar_tags(text: str) -> dict[str, str]:
    """Tags of an INCAR in capitals -> value; comments are gone, a repeated tag keeps its first value, as in VASP."""
    tags: dict[str, str] = {}
    text = re.sub(r"\\\s*\n", " ", text)
    for line in text.splitlines():
        for part in re.split(r"[#!]", line, maxsplit=1)[0].split(";"):
            name, sign, value = part.partition("=")
            if sign and name.strip():
                tags.setdefault(name.strip().upper(), value.strip())
    return tags


def element_of_title(title: str) -> str:
    """``PAW_PBE Ti_pv 07Sep2000`` -> ``Ti``; "" when there is no element in it."""
    for word in title.split()[:2][::-1]:
        symbol = re.split(r"[_.\d]", word)[0]
        if symbol in atomic_numbers and symbol != "X":
            return symbol
    return ""


def potcar_datasets(text: str) -> list[Dataset]:
    """Datasets of a POTCAR in order.

    Raises:
        DataError: one without a title or an element, or an element twice.
    """
    found: list[Dataset] = []
    for number, part in enumerate(_split(text), 1):
        title = _first(r"TITEL\s*=\s*(.+)", part) or part.strip().split("\n", 1)[0]
        symbol = element_of_title(title)
        if not symbol:
            raise DataError("names no element", where=("POTCAR", f"dataset {number}"), found=repr(title.strip()[:40]))
        found.append(Dataset(symbol, " ".join(title.split()), _first(r"LEXCH\s*=\s*(\w+)", part), part))
    symbols = [one.symbol for one in found]
    for symbol in symbols:
        if symbols.count(symbol) > 1:
            raise DataError("holds an element twice", where="POTCAR", found=" ".join(symbols),
                            hint="Atoms of one element cannot be told apart here: one dataset for each")  # fmt: skip
    if not found:
        raise DataError("holds no dataset", where="POTCAR", expected="datasets that end with 'End of Dataset'")
    return found


def _split(text: str) -> list[str]:
    parts, start = [], 0
    for match in _DATASET_END.finditer(text):
        end = text.find("\n", match.end())
        end = len(text) if end < 0 else end + 1
        parts.append(text[start:end])
        start = end
    if text[start:].strip():
        parts.append(text[start:])
    return parts


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match.group(1).strip() if match else ""


def mesh_words(mesh: Sequence[int], gamma: bool) -> str:
    """``2×2×2 with Γ``."""
    return f"{'×'.join(map(str, mesh))} {'with' if gamma else 'without'} Γ"


BY_LENGTH = "by length"
"""k-points of a KPOINTS file that gives a length: the mesh follows from the cell of each frame."""


def kpoints_words(text: str) -> str | None:
    """What a KPOINTS file asks for; None where it is a list."""
    lines = text.splitlines()
    try:
        if int(lines[1].split()[0]) != 0:
            return None
        kind = lines[2].strip()[:1].upper()
        if kind == "A":
            return BY_LENGTH
        if kind not in ("G", "M"):
            return None
        mesh = [int(float(word)) for word in lines[3].split()[:3]]
        shift = [float(word) for word in lines[4].split()[:3]] if len(lines) > 4 and lines[4].strip() else [0.0] * 3
    except (IndexError, ValueError):
        what = "a comment, 0, Gamma or Monkhorst-Pack, a mesh, a line each"
        raise DataError("cannot be read", where="KPOINTS", expected=what) from None
    centred = all(value == round(value) for value in shift)
    return mesh_words(mesh, centred and (kind == "G" or all(n % 2 for n in mesh)))


def input_settings(tags: Mapping[str, str], kpoints: str | None, datasets: Sequence[Dataset]) -> Settings:
    """Settings that the inputs state in so many words; what they leave to VASP has no entry."""
    found: Settings = {}
    numbers = {"ENCUT": "cutoff (eV)", "ISMEAR": "ISMEAR", "SIGMA": "SIGMA (eV)", "ISPIN": "ISPIN", "IVDW": "IVDW"}
    for tag, name in numbers.items():
        if tag in tags:
            found[name] = _number(tag, tags[tag])
    for tag, name in (("LHFCALC", "hybrid functional"), ("LDAU", "DFT+U"), ("LASPH", "LASPH"), ("LSORBIT", "LSORBIT")):
        if tag in tags:
            found[name] = flag(tags[tag])
    if "PREC" in tags:
        found["PREC"] = tags["PREC"][:1].lower()
    if "METAGGA" in tags:
        found["METAGGA"] = metagga(tags["METAGGA"])
    if "GGA" in tags:
        found["functional"] = tags["GGA"].upper()[:2]
    elif datasets and datasets[0].functional:
        found["functional"] = datasets[0].functional
    found |= {f"POTCAR of {one.symbol}": one.title for one in datasets}
    if kpoints is not None:
        words = kpoints_words(kpoints)
        if words is not None:
            found["k-points"] = words
    elif "KSPACING" in tags:
        found["k-points"] = spacing_words(_number("KSPACING", tags["KSPACING"]))
    return found


def spacing_words(spacing: float) -> str:
    """``KSPACING 0.3``: the mesh follows from the cell of each frame."""
    return f"KSPACING {spacing:g}"


def flag(text: str) -> str:
    """A logical of Fortran as "T" or "F"."""
    return "T" if text.strip().lstrip(".").upper().startswith("T") else "F"


def metagga(text: str) -> str:
    """A METAGGA as VASP prints it: at most five letters, "none" when there is none."""
    word = text.strip().upper()[:5]
    return "none" if word in ("", "F", "--", "NONE") else word


def _number(tag: str, text: str) -> float:
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        raise DataError("is no number", where=("INCAR", tag), found=repr(text)) from None


def count_values(text: str) -> int:
    """How many values a tag lists: ``4*0.6 2*-1 3`` are 7."""
    counts = [word.split("*", 1)[0] if "*" in word else "1" for word in text.split()]
    return sum(int(count) for count in counts if count.isdigit())


def atom_order(numbers: Any, species: Sequence[str]) -> np.ndarray:
    """int64 [n]: atom k of the POSCAR is atom ``order[k]`` of the frame; elements as in `species`, else as they were.

    Raises:
        DataError: an element that is not among them.
    """
    rank = {atomic_numbers[symbol]: place for place, symbol in enumerate(species)}
    missing = sorted({int(z) for z in np.asarray(numbers)} - set(rank))
    if missing:
        raise DataError(
            "an element is missing", where="POTCAR", expected=", ".join(chemical_symbols[z] for z in missing),
            found=", ".join(species), hint="Add its dataset to the POTCAR of the template",
        )  # fmt: skip
    return np.argsort([rank[int(z)] for z in np.asarray(numbers)], kind="stable")


def poscar(numbers: Any, positions: Any, cell: Any, order: np.ndarray, comment: str) -> str:
    """A POSCAR in Cartesian coordinates (Å) with as many digits as give the same float64 back."""
    symbols = [chemical_symbols[int(z)] for z in np.asarray(numbers)[order]]
    kinds = list(dict.fromkeys(symbols))
    lines = [comment, "1.0"]
    lines += ["  " + "  ".join(f"{value:22.17g}" for value in row) for row in np.asarray(cell, float)]
    lines += ["  " + " ".join(kinds), "  " + " ".join(str(symbols.count(kind)) for kind in kinds), "Cartesian"]
    lines += ["  " + "  ".join(f"{value:22.17g}" for value in row) for row in np.asarray(positions, float)[order]]
    return "\n".join(lines) + "\n"
