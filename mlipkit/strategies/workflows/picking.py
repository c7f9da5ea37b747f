"""Which frames: rows of a trajectory, nested draws of labelled frames, frames that are displaced on purpose."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from mlipkit import units
from mlipkit.errors import SpecError


def pick_rows(
    n_rows: int, *, equilibration: float = 0.5, count: int | None = 11, spacing: int | None = None
) -> list[int]:
    """Rows of a trajectory whose frames are labelled, evenly spaced after the equilibration.

    A trajectory of 2001 rows with the defaults gives rows 1000, 1100, ..., 2000: eleven, both ends included. With
    `spacing` alone all rows on that grid are taken; with both, the first `count` of them. What fails later (a label,
    the user's approval) is dropped and never replaced by another row.

    Args:
        n_rows: rows of the trajectory, the start included.
        equilibration: share of the time that is left out at the beginning.
        count: number of rows.
        spacing: rows between two picks.

    Raises:
        SpecError: not so many rows after the equilibration.
    """
    if not 0 <= equilibration < 1:
        raise SpecError("out of range", where="equilibration", expected="a share, 0 <= share < 1", found=equilibration)
    if count is None and spacing is None:
        raise SpecError("needs a count or a spacing", where="pick_rows")
    first, last = round(equilibration * (n_rows - 1)), n_rows - 1
    if spacing is None and count is not None:
        spacing = (last - first) // max(count - 1, 1)
        # What does not divide evenly is left out at the beginning: the last row is the one the next run starts from.
        first = last - (count - 1) * spacing
    assert spacing is not None
    if (spacing < 1 and count != 1) or (count is not None and first + (count - 1) * spacing > last):
        raise SpecError(
            "fewer rows than frames wanted", where="pick_rows", found=f"{last - first + 1} rows after equilibration",
            expected=f"{count} frames" + (f" every {spacing} rows" if spacing > 0 else ""),
            hint="Store frames more often (stride), run longer, or label fewer",
        )  # fmt: skip
    if count is None:
        return list(range(first, last + 1, spacing))
    return [first + k * spacing for k in range(count)]


def nested_draw(n: int, size: int, seed: int) -> list[int]:
    """The first `size` of one permutation of n frames: draws of one seed lie in each other, whatever their size."""
    if size > n:
        raise SpecError("more frames than there are", where="nested_draw", expected=f"at most {n}", found=size)
    return np.random.default_rng(seed).permutation(n)[:size].tolist()


def rattled(atoms: Atoms, amount: float, seed: int) -> Atoms:
    """A copy with normal displacements of standard deviation `amount`, Å, along each axis."""
    moved = atoms.copy()
    moved.positions += np.random.default_rng(seed).normal(0.0, amount, moved.positions.shape)
    return moved


def strained(atoms: Atoms, amount: float, seed: int) -> Atoms:
    """A copy under a random symmetric strain whose components are uniform in ±`amount`; atoms follow the cell.

    A structure without a full cell is rattled with as many Å instead: there is nothing to strain.
    """
    if not atoms.pbc.all():
        return rattled(atoms, amount, seed)
    draw = np.random.default_rng(seed).uniform(-amount, amount, (3, 3))
    moved = atoms.copy()
    moved.set_cell(moved.cell.array @ (np.eye(3) + 0.5 * (draw + draw.T)), scale_atoms=True)
    return moved


def density(atoms: Atoms) -> float | None:
    """g/cm³; None unless all three axes are periodic."""
    if not atoms.pbc.all():
        return None
    return float(atoms.get_masses().sum() / atoms.get_volume() * units.AMU_PER_A3)
