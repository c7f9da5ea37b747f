"""What an output says, whichever program wrote it, and which files of a folder are outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mlipkit.data.jobs.vasp_input import Settings
from mlipkit.data.reading import BROKEN_STREAM, open_bytes

State = Literal["done", "missing", "unconverged", "failed"]

PACKED = ("", ".gz", ".bz2", ".xz")
VASP_OUTPUTS = ("vasprun.xml", "OUTCAR")
CP2K_MARKS = (b"PROGRAM STARTED AT", b"CP2K|")
MOST_SEARCHED = 1 << 16


@dataclass
class Output:
    """One calculation as its output tells it; arrays in the order of the input.

    Attributes:
        files: names of what was read.
        state: "done": a converged first ionic step of a calculation that came to its end.
        reason: why it is in another state.
        program: name and version.
        numbers: [n]; positions: [n,3], Å; cell: [3,3], Å.
        energy: eV, to which the forces belong; energy_zero: eV, extrapolated to no smearing (NaN when not said).
        forces: [n,3], eV/Å, raw; stress: [3,3], eV/Å³, tension positive, or None.
        settings: what decides whether it may stand beside others.
        cell_rounding: Å, half of the last printed digit of the cell.
        seconds: wall time.
        notes: one sentence each.
    """

    files: tuple[str, ...] = ()
    state: State = "missing"
    reason: str = ""
    program: str = ""
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    positions: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    cell: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))
    energy: float = float("nan")
    energy_zero: float = float("nan")
    forces: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    stress: np.ndarray | None = None
    settings: Settings = field(default_factory=dict)
    cell_rounding: float = 0.0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def vasp_outputs(folder: Path) -> dict[str, Path]:
    """ "vasprun.xml" and "OUTCAR" of a folder, packed or not."""
    found: dict[str, Path] = {}
    for name in VASP_OUTPUTS:
        for packed in PACKED:
            path = folder / f"{name}{packed}"
            if path.is_file() and path.stat().st_size:
                found.setdefault(name, path)
    return found


def cp2k_outputs(folder: Path) -> list[Path]:
    """Logs of CP2K in a folder, known by what they hold; the newest first."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix not in (".inp", ".json", ".wfn", ".restart") and _is_cp2k(path):
            found.append(path)
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def output_files(folder: Path) -> list[Path]:
    """All outputs of a folder."""
    return [*vasp_outputs(folder).values(), *cp2k_outputs(folder)]


def _is_cp2k(path: Path) -> bool:
    try:
        with open_bytes(path) as stream:
            start = stream.read(MOST_SEARCHED)
    except (OSError, *BROKEN_STREAM):
        return False
    return all(mark in start for mark in CP2K_MARKS)
