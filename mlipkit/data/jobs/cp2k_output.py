"""A log of CP2K as one calculation: labels of the first force evaluation, and what they were made with."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from mlipkit.data.jobs.outputs import Output, cp2k_outputs
from mlipkit.data.jobs.vasp_input import Settings
from mlipkit.data.reading import BROKEN_STREAM, open_text
from mlipkit.units import BOHR, GPA, HARTREE

STARTED, ENDED = "PROGRAM STARTED AT", "PROGRAM ENDED AT"
NOT_CONVERGED = ("SCF run NOT converged", "outer SCF loop FAILED to converge")
CONVERGED = ("SCF run converged", "outer SCF loop converged")
BAR = GPA * 1e-4
CELL_DIGIT = 0.5e-3

_ENERGY = re.compile(r"ENERGY\|\s*Total FORCE_EVAL.*energy\s*\[(?:a\.u\.|hartree)\]:?\s+(\S+)", re.IGNORECASE)
_ATOM = re.compile(r"^\s*\d+\s+\d+\s+([A-Z][a-z]?)\S*\s+(\d+)\s+(-?\d+\.\d+)\s+(-?\d+\.\d+)\s+(-?\d+\.\d+)\s")
_OLD_FORCE = re.compile(r"^\s*\d+\s+\d+\s+[A-Z]\S*\s+(-?\d+\.\d+)\s+(-?\d+\.\d+)\s+(-?\d+\.\d+)\s*$")
_NEW_FORCE = re.compile(r"^\s*FORCES\|\s+\d+\s+(\S+)\s+(\S+)\s+(\S+)\s+\S+\s*$")
_STRESS = re.compile(r"^\s*(?:STRESS\|)?\s+[XYZxyz]\s+(-?\d\S*)\s+(-?\d\S*)\s+(-?\d\S*)\s*$")
_VECTOR = re.compile(r"^\s*CELL\| Vector ([abc]) \[angstrom\]?:?\s+(-?\d\S*)\s+(-?\d\S*)\s+(-?\d\S*)\s+\|[abc]\|")


def read_cp2k(folder: Path) -> Output:
    """What the newest log of CP2K in a folder says; of runs that were appended to one file the last one counts.

    Never raises for what lies in the folder: the reason stands in the result.
    """
    found = cp2k_outputs(folder)
    if not found:
        return Output(reason="not started: no output of CP2K")
    path = found[0]
    notes = [f"{', '.join(other.name for other in found[1:])} not used: older"] if found[1:] else []
    try:
        with open_text(path) as stream:
            text = stream.read()
    except BROKEN_STREAM as error:
        return Output((path.name,), reason=f"not finished: {path.name} is damaged or cut short ({error})")
    except (OSError, UnicodeDecodeError) as error:
        return Output((path.name,), "failed", f"{path.name} cannot be read ({error})")
    output = parse(text[text.rfind(STARTED) :])
    return replace(output, files=(path.name,), notes=[*notes, *output.notes])


def parse(text: str) -> Output:
    """One run from the text of its log. CP2K's stress is pressure: its sign is turned."""
    try:
        return _parse(text)
    except (ValueError, IndexError, KeyError) as error:
        return Output(state="failed", reason=f"cannot be read: {type(error).__name__}: {error}")


def _parse(text: str) -> Output:
    lines = text.splitlines()
    version = re.search(r"CP2K version ([\w.]+)", text)
    output = Output(program=f"CP2K {version.group(1)}" if version else "CP2K", settings=_settings(lines))
    steps = [n for n, line in enumerate(lines) if _ENERGY.search(line)]
    # Of an optimisation the first step is the structure that was asked for.
    first = "\n".join(lines[: steps[0]]) if steps else text
    if any(words in first for words in NOT_CONVERGED):
        return replace(output, state="unconverged", reason="electrons not converged (SCF run NOT converged)")
    if ENDED not in text:
        aborted = re.search(r"\[ABORT\].*\n.*\\___/\s*(.*?)\s*\*", text)
        why = f"aborted: {aborted.group(1)}" if aborted else "the log ends before the calculation did"
        return replace(output, reason=f"not finished: {why}")
    if not steps:
        return replace(output, state="failed", reason="the log holds no energy")
    if not any(words in first for words in CONVERGED):
        return replace(output, state="unconverged", reason="the log does not say that the electrons converged")
    end = steps[1] if len(steps) > 1 else len(lines)
    numbers, positions = _atoms(lines[: steps[0]])
    forces = _forces(lines[steps[0] : end])
    if not len(forces):
        return replace(output, state="failed", reason="the log holds no forces")
    if not len(numbers):
        return replace(output, state="failed", reason="the log holds no positions (PRINT_LEVEL MEDIUM prints them)")
    notes = [f"{len(steps)} force evaluations: the first one is taken"] if len(steps) > 1 else []
    energy = float(_ENERGY.search(lines[steps[0]]).group(1)) * HARTREE  # type: ignore[union-attr]
    return replace(
        output, state="done", numbers=numbers, positions=positions, cell=_cell(lines), energy=energy, forces=forces,
        stress=_stress(lines[steps[0] : end]), cell_rounding=CELL_DIGIT, seconds=_seconds(text), notes=notes,
    )  # fmt: skip


def _atoms(lines: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and positions (Å) of the first table."""
    starts = [n for n, line in enumerate(lines) if "ATOMIC COORDINATES" in line and "QUICKSTEP" in line]
    numbers, positions = [], []
    unit = BOHR if starts and "BOHR" in lines[starts[0]].upper() else 1.0
    for line in lines[starts[0] + 1 :] if starts else ():
        if match := _ATOM.match(line):
            numbers.append(int(match.group(2)))
            positions.append([float(match.group(k)) * unit for k in (3, 4, 5)])
        elif numbers:
            break
    return np.array(numbers, int), np.array(positions, float).reshape(-1, 3)


def _forces(lines: list[str]) -> np.ndarray:
    """eV/Å [n,3] of the first table, of CP2K up to 2024 or of later ones."""
    for n, line in enumerate(lines):
        if "ATOMIC FORCES in" in line or "FORCES| Atomic forces" in line:
            pattern = _NEW_FORCE if "FORCES|" in line else _OLD_FORCE
            found: list[list[float]] = []
            for row in lines[n + 1 :]:
                if match := pattern.match(row):
                    found.append([float(word) for word in match.groups()])
                elif found:
                    break
            return np.array(found, float).reshape(-1, 3) * HARTREE / BOHR
    return np.zeros((0, 3))


def _stress(lines: list[str]) -> np.ndarray | None:
    for n, line in enumerate(lines):
        if unit := re.search(r"stress tensor \[(GPa|bar)\]", line, re.IGNORECASE):
            rows = [match.groups() for row in lines[n + 1 : n + 7] if (match := _STRESS.match(row))]
            if len(rows) >= 3:
                return -np.array(rows[:3], float) * (GPA if unit.group(1) == "GPa" else BAR)
            return None
    return None


def _cell(lines: list[str]) -> np.ndarray:
    """Å [3,3], printed with three decimals."""
    cell = np.zeros((3, 3))
    for line in lines:
        if match := _VECTOR.match(line):
            row = "abc".index(match.group(1))
            if not cell[row].any():
                cell[row] = [float(match.group(k)) for k in (2, 3, 4)]
    return cell


def _seconds(text: str) -> float:
    match = re.search(r"^ CP2K\s+1\s+1\.0\s+\S+\s+\S+\s+\S+\s+(\d+\.\d+)\s*$", text, re.MULTILINE)
    return float(match.group(1)) if match else 0.0


def _settings(lines: list[str]) -> Settings:
    """What CP2K prints of itself before it begins."""
    found: Settings = {}
    functional, dispersion, kind = [], [], ""
    for line in lines:
        if "SCF WAVEFUNCTION OPTIMIZATION" in line:
            break
        label, _, rest = line.strip().partition("|")
        words = rest.split()
        if label == "FUNCTIONAL" and words and words[0].endswith(":") and "=" not in words[0]:
            functional.append(words[0][:-1])
        elif label == "vdW POTENTIAL" and words:
            dispersion.append(" ".join(words))
        elif label == "QS":
            _quickstep(rest, words, found)
        elif label == "DFT" and words:
            _dft(rest, words, found)
        elif label == "DFT+U" and words:
            found["DFT+U"] = "T"
        elif label == "BRILLOUIN":
            _brillouin(rest, words, found)
        elif label == "POISSON" and words[:1] == ["Periodicity"]:
            found["Poisson periodicity"] = words[-1]
        elif match := re.match(r"\s*\d+\. Atomic kind:\s+(\S+)", line):
            kind = re.sub(r"\d.*", "", match.group(1)).capitalize()
        elif kind in atomic_numbers:
            _kind(line, kind, found)
    if functional:
        found["functional"] = "+".join(dict.fromkeys(functional))
    found["dispersion"] = _dispersion(dispersion)
    found.setdefault("k-points", "Γ")
    found.setdefault("DFT+U", "F")
    return found


def _quickstep(rest: str, words: list[str], found: Settings) -> None:
    for text, name in (("Method:", "method"), ("Density cutoff [a.u.]:", "cutoff (hartree)"),
                       ("Relative density cutoff [a.u.]:", "relative cutoff (hartree)")):  # fmt: skip
        if rest.strip().startswith(text):
            found[name] = words[-1] if name == "method" else float(words[-1])


def _dft(rest: str, words: list[str], found: Settings) -> None:
    if "Kohn-Sham" in rest:
        found["spin"] = words[-1]
    elif words[0] == "Charge":
        found["charge"] = float(words[-1])
    elif words[0] == "Multiplicity":
        found["multiplicity"] = float(words[-1])


def _brillouin(rest: str, words: list[str], found: Settings) -> None:
    if rest.strip().startswith("K-point scheme"):
        found["k-points"] = words[-1].lower()
    elif rest.strip().startswith("K-Point grid"):
        found["k-points"] = f"{found.get('k-points', '')} {'×'.join(words[-3:])}"
    elif "Gamma-point calculation" in rest:
        found["k-points"] = "Γ"


def _kind(line: str, kind: str, found: Settings) -> None:
    words = line.split()
    if line.strip().startswith("Orbital Basis Set") and len(words) > 3:
        found.setdefault(f"basis set of {kind}", words[-1].upper())
    elif re.match(r"\s*(GTH Potential|Potential) information for", line):
        found.setdefault(f"potential of {kind}", words[-1].upper())


def _dispersion(lines: list[str]) -> str:
    """One line of what the pair potential is."""
    if not lines:
        return "none"
    wanted = ("DFT-D", "Damping", "s6 ", "sr6", "s8 ", "Pair", "Cutoff Radius", "rVV10", "vdW-DF", "DRSLL", "a1", "a2")
    return ", ".join(line for line in lines if any(word in line for word in wanted)) or lines[0]
