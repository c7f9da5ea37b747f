"""A folder of CP2K inputs as a template: the structure of a frame goes into the &SUBSYS of its input file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlipkit.data.jobs.vasp_input import Settings
from mlipkit.errors import DataError

SUBSYS = ("FORCE_EVAL", "SUBSYS")
REPLACED = ("CELL", "COORD", "VELOCITY")
TOPOLOGY = ("COORD_FILE_NAME", "COORDINATE", "COORD_FILE_FORMAT", "COORDINATE_FILE_NAME", "CONN_FILE_NAME",
            "NUMBER_OF_ATOMS", "MULTIPLE_UNIT_CELL")  # fmt: skip
RYDBERG_PER_HARTREE = 2.0


@dataclass(frozen=True)
class Line:
    """A line of an input: the sections that it is in (with its own for & lines), keyword and value in capitals."""

    text: str
    path: tuple[str, ...]
    keyword: str
    value: str


def parse(text: str) -> list[Line]:
    """Lines of a CP2K input with the sections that they are in.

    Raises:
        DataError: an &END that closes nothing, or a section that is never closed.
    """
    lines: list[Line] = []
    path: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        words = re.split(r"[!#]", raw, maxsplit=1)[0].split()
        keyword = words[0].upper() if words else ""
        value = " ".join(words[1:]).upper()
        if keyword.startswith("&END"):
            if not path:
                raise DataError("closes no section", where=f"line {number}", found=raw.strip())
            lines.append(Line(raw, tuple(path), "&END", value))
            path.pop()
        elif keyword.startswith("&"):
            path.append(keyword[1:])
            lines.append(Line(raw, tuple(path), keyword, value))
        else:
            lines.append(Line(raw, tuple(path), keyword, value))
    if path:
        raise DataError("a section is never closed", expected=f"&END {path[-1]}")
    return lines


class Cp2kTemplate:
    """One input file (``.inp``) and whatever else shall lie beside it. Atoms keep their order.

    Attributes:
        species: empty, as CP2K takes atoms in any order.
        settings: what the input asks for in so many words.
        warnings: one sentence each.

    Raises:
        DataError: no input or several, no &SUBSYS in it, one that prints no forces.
    """

    code = "cp2k"
    species: tuple[str, ...] = ()

    def __init__(self, files: dict[str, Path], species: tuple[str, ...] | None) -> None:
        inputs = [name for name in files if name.endswith(".inp")]
        if len(inputs) != 1:
            what = "the template has no input file" if not inputs else "the template has several input files"
            raise DataError(what, expected="one file .inp", found=", ".join(sorted(inputs or files)) or "nothing")
        if species is not None:
            raise DataError("has no effect: CP2K takes atoms in any order", where="species")
        self.files, self.name = files, inputs[0]
        try:
            self.lines = parse(files[self.name].read_text(encoding="utf-8"))
        except DataError as error:
            raise DataError(error.what, where=(self.name, *error.where), expected=error.expected,
                            found=error.found) from None  # fmt: skip
        if sum(line.keyword == "&SUBSYS" and line.path == SUBSYS for line in self.lines) != 1:
            raise DataError("has no &SUBSYS to put the structure in", where=self.name,
                            expected="one &SUBSYS within one &FORCE_EVAL, in this very file")  # fmt: skip
        self._check_prints()
        self.kinds = [line.value for line in self.lines if line.keyword == "&KIND" and line.path[:-1] == SUBSYS]
        self.settings, self.warnings = _settings(self.lines), self._warnings()

    def _check_prints(self) -> None:
        run = next((line.value for line in self.lines if line.keyword == "RUN_TYPE"), "ENERGY_FORCE")
        if run not in ("ENERGY_FORCE", "GRADIENT", "FORCE", "GEO_OPT", "CELL_OPT", "MD"):
            raise DataError("computes no forces", where=(self.name, "RUN_TYPE"), expected="ENERGY_FORCE", found=run)
        forces = [line for line in self.lines if line.path == ("FORCE_EVAL", "PRINT", "FORCES")]
        if not forces:
            raise DataError("prints no forces", where=self.name, expected="&PRINT &FORCES ON within &FORCE_EVAL")
        if any(line.keyword == "FILENAME" for line in forces):
            raise DataError("prints forces into another file, where they are not looked for",
                            where=(self.name, "&FORCES"), hint="Take the FILENAME out")  # fmt: skip
        level = next((line.value for line in self.lines if line.keyword == "PRINT_LEVEL"), "MEDIUM")
        if level in ("LOW", "SILENT"):
            raise DataError("does not print the positions by which a structure is checked",
                            where=(self.name, "PRINT_LEVEL"), expected="MEDIUM", found=level)  # fmt: skip

    def _warnings(self) -> list[str]:
        if any(line.path == ("FORCE_EVAL", "PRINT", "STRESS_TENSOR") for line in self.lines):
            return []
        return ["the input prints no stress"]

    def check(self, frame: dict[str, Any]) -> None:
        """Whether a frame can be computed with this input.

        Raises:
            DataError: no cell, or an element without a &KIND of its name.
        """
        if abs(float(np.linalg.det(frame["cell"]))) < 1e-6:
            raise DataError("no cell, and CP2K needs one", where="cell",
                            hint="Give molecules a box: box=15 (Å)")  # fmt: skip
        if "DEFAULT" in self.kinds:
            return
        for z in dict.fromkeys(int(z) for z in frame["numbers"]):
            if chemical_symbols[z].upper() not in self.kinds:
                raise DataError("an element is missing", where=self.name, expected=f"&KIND {chemical_symbols[z]}",
                                found=", ".join(f"&KIND {kind.capitalize()}" for kind in self.kinds) or "no &KIND",
                                hint="Kinds are found by the name of the element")  # fmt: skip

    def job(self, frame: dict[str, Any]) -> tuple[dict[str, bytes], np.ndarray]:
        """The input of a frame, and the order of its atoms, which is the frame's own."""
        kept: list[str] = []
        for line in self.lines:
            inside = line.path[2] if line.path[:2] == SUBSYS and len(line.path) > 2 else ""
            if inside in REPLACED or (inside == "TOPOLOGY" and line.keyword in TOPOLOGY):
                continue
            kept.append(line.text)
            if line.keyword == "&SUBSYS" and line.path == SUBSYS:
                kept += self._structure(frame)
        return {self.name: ("\n".join(kept) + "\n").encode()}, np.arange(len(frame["numbers"]))

    def _structure(self, frame: dict[str, Any]) -> list[str]:
        cell = (*SUBSYS, "CELL")
        asked = next((line.value for line in self.lines if line.path == cell and line.keyword == "PERIODIC"), None)
        axes = "".join(name for name, there in zip("XYZ", frame["pbc"], strict=True) if there)
        lines = ["    &CELL"]
        for name, row in zip("ABC", frame["cell"], strict=True):
            lines.append(f"      {name} [angstrom] " + " ".join(f"{value:.17g}" for value in row))
        lines += [f"      PERIODIC {asked or axes or 'NONE'}", "    &END CELL", "    &COORD", "      UNIT angstrom"]
        for z, row in zip(frame["numbers"], frame["positions"], strict=True):
            lines.append(f"      {chemical_symbols[int(z)]:<2s} " + " ".join(f"{value:.17g}" for value in row))
        return [*lines, "    &END COORD"]


def _settings(lines: list[Line]) -> Settings:
    """What the input states in so many words, in the units of the output (hartree)."""
    found: Settings = {}
    for line in lines:
        section = line.path[-1] if line.path else ""
        number = _number(line.value)
        if section == "MGRID" and line.keyword == "CUTOFF" and number is not None:
            found["cutoff (hartree)"] = number / RYDBERG_PER_HARTREE
        elif section == "MGRID" and line.keyword == "REL_CUTOFF" and number is not None:
            found["relative cutoff (hartree)"] = number / RYDBERG_PER_HARTREE
        elif line.path == ("FORCE_EVAL", "DFT") and line.keyword in ("CHARGE", "MULTIPLICITY") and number is not None:
            found[line.keyword.lower()] = number
        elif line.keyword == "&XC_FUNCTIONAL" and line.value == "PBE":
            found["functional"] = "PBE"
        elif section == "KPOINTS" and line.keyword == "SCHEME":
            words = line.value.split()
            found["k-points"] = "Γ" if words[0] == "GAMMA" else _scheme(words)
    return found


def _scheme(words: list[str]) -> str:
    return f"{words[0].lower()} {'×'.join(words[1:4])}"


def _number(text: str) -> float | None:
    """A value in CP2K's default unit (Ry for cutoffs); None for any other unit or a variable."""
    words = text.split()
    if words and words[0] in ("[RY]", "[RYDBERG]"):
        words = words[1:]
    try:
        return float(words[0]) if words else None
    except ValueError:
        return None
