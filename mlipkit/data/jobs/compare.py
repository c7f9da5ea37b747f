"""Whether an output is that of the structure that was exported, and whether its settings are those of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from mlipkit.data.jobs.vasp_input import Settings

CORE = {"vasp": ("functional", "cutoff (eV)", "k-points"), "cp2k": ("functional", "cutoff (hartree)", "k-points")}
"""An output that does not say these cannot be told to fit."""
SAME_NUMBER = 1e-4
PRINTED = {"cutoff (eV)": 0.06, "cutoff (hartree)": 0.06, "relative cutoff (hartree)": 0.06, "SIGMA (eV)": 0.0051}
"""Relative difference below which numbers are equal; absolute one of those that outputs print with few decimals."""


def structure_fault(
    frame: Mapping[str, Any], order: np.ndarray, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray,
    tolerance: float, cell_rounding: float = 0.0,
) -> str:  # fmt: skip
    """Why an output is not that of a frame; "" when it is. Atoms may lie in any image of the cell.

    Args:
        frame: as `FrameSet.frame` gives it.
        order: [n]: atom k of the output is atom ``order[k]`` of the frame.
        numbers, positions (Å), cell (Å): of the output.
        tolerance: Å, of a position and of a component of a cell vector.
        cell_rounding: Å, what the cell lost in print.
    """
    expected = np.asarray(frame["numbers"])[order]
    if not np.array_equal(expected, numbers):
        if Counter(expected.tolist()) == Counter(np.asarray(numbers).tolist()):
            return f"elements in another order: expected {_run(expected)}, found {_run(numbers)}"
        return f"other atoms: expected {_formula(expected)}, found {_formula(numbers)}"
    stretch = float(np.abs(cell - frame["cell"]).max())
    if not stretch <= tolerance + cell_rounding:
        return f"another cell: a component differs by {stretch:.3g} Å"
    shift = np.asarray(positions) - np.asarray(frame["positions"])[order]
    images = np.linalg.solve(np.asarray(frame["cell"]).T, shift.T).T
    shift = shift - np.round(images) @ np.asarray(frame["cell"])
    distance = np.sqrt((shift**2).sum(1))
    worst = int(np.argmax(distance))
    if not distance[worst] <= tolerance:
        atom = int(order[worst])
        symbol = chemical_symbols[int(frame["numbers"][atom])]
        return f"another structure: atom {atom} ({symbol}) is {distance[worst]:.3g} Å from where it was exported"
    return ""


def _formula(numbers: np.ndarray) -> str:
    return Formula.from_list([chemical_symbols[int(z)] for z in numbers]).format("hill") if len(numbers) else "none"


def _run(numbers: np.ndarray) -> str:
    """``O2 H4``: runs of elements as they stand, four at most."""
    runs: list[list[Any]] = []
    for z in numbers:
        if runs and runs[-1][0] == z:
            runs[-1][1] += 1
        else:
            runs.append([z, 1])
    shown = [f"{chemical_symbols[int(z)]}{count if count > 1 else ''}" for z, count in runs[:4]]
    return " ".join([*shown, "..."] if len(runs) > 4 else shown)


def same(name: str, one: float | str, other: float | str) -> bool:
    """Whether two values of a setting are equal but for what printing costs."""
    if name == "IVDW" and "on" in (one, other):
        # The output holds an energy of dispersion, and does not say of which kind.
        return one != 0.0 and other != 0.0
    if isinstance(one, str) or isinstance(other, str):
        return str(one).upper() == str(other).upper()
    return abs(one - other) <= max(PRINTED.get(name, 0.0), SAME_NUMBER * max(1.0, abs(one), abs(other)))


def differences(found: Settings, expected: Settings) -> list[str]:
    """One text for each setting that differs; what either does not say is passed over."""
    return [
        f"{name}: expected {_shown(value)}, found {_shown(found[name])}"
        for name, value in expected.items()
        if name in found and not same(name, value, found[name])
    ]


def unsaid(found: Settings, code: str) -> list[str]:
    """Settings without which an output cannot be judged, and that it does not hold."""
    return [name for name in CORE[code] if name not in found]


def expected_settings(stated: Settings, all_found: Iterable[Settings]) -> Settings:
    """What all outputs shall agree on: what the inputs state, and of the rest what most of those that obey them have.

    Of two values that are equally frequent the one that comes first counts.
    """
    obeying = [found for found in all_found if not differences(found, stated)]
    expected = dict(stated)
    for name in dict.fromkeys(name for found in obeying for name in found):
        if name not in stated:
            expected[name] = _most_frequent([found[name] for found in obeying if name in found], name)
    return expected


def _most_frequent(values: Sequence[float | str], name: str) -> float | str:
    counts = [sum(same(name, one, other) for other in values) for one in values]
    return values[int(np.argmax(counts))]


def _shown(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float | int) else value
