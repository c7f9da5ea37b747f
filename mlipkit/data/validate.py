"""What every frame must satisfy before it enters a `FrameSet`. Each error names the source and the frame in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlipkit.data.columns import CHUNK, KINDS, Array
from mlipkit.errors import DataError, LabelError

Where = Callable[[int], tuple[str, str]]

MIN_CELL_ANGLE_VOLUME = 1e-6
"""Smallest volume of the periodic cell vectors, each scaled to length one; below it they lie in one plane or line."""


def starts_of(n_atoms: Any, offsets: Any, total: int, where: Where) -> Array:
    """int64[F+1] first atom of each frame, from counts or offsets.

    Raises:
        DataError: neither or both given, a frame without atoms, or a sum that is not the number of positions.
    """
    if (n_atoms is None) == (offsets is None):
        raise DataError("give either n_atoms (one number, or one per frame) or offsets [F+1]")
    if offsets is not None:
        starts = np.array(offsets, np.int64)
        if starts.ndim != 1 or len(starts) == 0 or starts[0] != 0:
            raise DataError("offsets are wrong", expected="int [F+1] starting with 0", found=f"shape {starts.shape}")
        counts = np.diff(starts)
    elif np.ndim(n_atoms) == 0:
        size = int(n_atoms)
        if size < 1:
            raise DataError("a frame needs at least one atom", where=where(0), found=f"{size} atoms")
        if total % size:
            raise DataError(f"{total} atoms cannot be cut into frames of {size}", where=where(0)[0])
        counts = np.full(total // size, size, np.int64)
        starts = np.arange(0, total + 1, size, dtype=np.int64)
    else:
        counts = np.asarray(n_atoms, np.int64)
        starts = np.r_[0, np.cumsum(counts)].astype(np.int64)
    if (counts < 1).any():
        frame = int(np.flatnonzero(counts < 1)[0])
        raise DataError("a frame needs at least one atom", where=where(frame), found=f"{counts[frame]} atoms")
    if starts[-1] != total:
        raise DataError("frame sizes do not add up", where=where(0)[0], expected=f"{starts[-1]} positions", found=total)
    return starts


def column(name: str, values: Any, n_rows: int, where: Where) -> Array:
    """An array of the stored type and shape; read-only arrays of the right type are taken as they are, others copied.

    Raises:
        DataError: the wrong shape or not numbers (`LabelError` for labels).
    """
    kind = KINDS[name]
    error = LabelError if name in ("energy", "forces", "stress", "velocities") else DataError
    try:
        given = np.asarray(values)
        owned = given.dtype == np.dtype(kind.dtype) and not given.flags.writeable
        array = given if owned else given.astype(kind.dtype, copy=True)
    except (TypeError, ValueError) as problem:
        raise error(f"not numbers: {problem}", where=(where(0)[0], name)) from None
    if given.dtype.kind in "fiu" and array.dtype.kind in "iu" and not np.array_equal(array, given):
        raise error("not whole numbers in range", where=(where(0)[0], name))
    if name == "stress" and array.ndim == 2 and array.shape[1:] == (6,):
        array = full_stress(array)
    if array.ndim == 0 and name in ("time", "trajectory"):
        array = np.broadcast_to(array, (n_rows, *kind.row))
    if name in ("cell", "pbc") and array.shape == kind.row:
        array = np.broadcast_to(array, (n_rows, *kind.row))
    if name == "cell" and array.shape == (n_rows, 3):
        lengths, array = array, np.zeros((n_rows, 3, 3))
        array[:, [0, 1, 2], [0, 1, 2]] = lengths
    if name == "trajectory" and (array < -1).any():
        raise error("not a trajectory number", where=(where(0)[0], name), expected="-1 (none) or more")
    if array.shape != (n_rows, *kind.row):
        raise error("wrong shape", where=(where(0)[0], name), expected=(n_rows, *kind.row), found=np.shape(values))
    return array


def full_stress(voigt: Array) -> Array:
    """[F,6] in the order xx, yy, zz, yz, xz, xy -> [F,3,3]."""
    return voigt[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(-1, 3, 3)


def check_structures(numbers: Array, positions: Array, starts: Array, cell: Array, pbc: Array, where: Where) -> None:
    """Known elements, finite positions and cells, cell vectors that span the periodic axes.

    Raises:
        DataError: naming source, frame and, where it helps, the atom.
    """

    def place(atom: int) -> tuple[str, str, str]:
        frame = int(np.searchsorted(starts, atom, side="right")) - 1
        return (*where(frame), f"atom {atom - int(starts[frame])}")

    bad = (numbers < 1) | (numbers > 118)
    if bad.any():
        atom = int(np.argmax(bad))
        raise DataError(
            "no such element", where=place(atom), expected="atomic number 1 to 118", found=int(numbers[atom])
        )
    for first in range(0, len(positions), CHUNK):
        finite = np.isfinite(positions[first : first + CHUNK]).all(1)
        if not finite.all():
            atom = first + int(np.argmin(finite))
            raise DataError("position is not finite", where=place(atom), found=positions[atom].tolist())
    for first in range(0, len(cell), CHUNK):
        _check_cells(cell[first : first + CHUNK], pbc[first : first + CHUNK], first, where)


def _check_cells(cell: Array, pbc: Array, first: int, where: Where) -> None:
    finite = np.isfinite(cell).all((1, 2))
    if not finite.all():
        raise DataError("cell is not finite", where=where(first + int(np.argmin(finite))))
    periodic = np.flatnonzero(pbc.any(1))
    if not len(periodic):
        return
    cell, pbc = cell[periodic], pbc[periodic]
    lengths = np.linalg.norm(cell, axis=2)
    zero = pbc & (lengths == 0)
    if zero.any():
        row, axis = (int(x) for x in np.argwhere(zero)[0])
        raise DataError(
            f"the cell vector along the periodic axis {'abc'[axis]} is zero",
            where=where(first + int(periodic[row])),
            hint="Give the cell, or switch this axis of pbc off.",
        )
    # Volume spanned by the periodic vectors alone: the others count as orthonormal to them.
    unit = np.where(pbc[:, :, None], cell / np.where(lengths == 0, 1.0, lengths)[:, :, None], 0.0)
    gram = unit @ unit.transpose(0, 2, 1)
    gram[:, [0, 1, 2], [0, 1, 2]] = 1.0
    flat = np.linalg.det(gram) < MIN_CELL_ANGLE_VOLUME**2
    if flat.any():
        row = int(np.argmax(flat))
        raise DataError(
            "periodic cell vectors lie in one plane or line",
            where=where(first + int(periodic[row])),
            found=cell[row].tolist(),
        )


def check_label(name: str, values: Array, starts: Array, where: Where) -> None:
    """NaN means missing; infinite is an error.

    Raises:
        LabelError: naming source and frame.
    """
    for first in range(0, len(values), CHUNK):
        infinite = np.isinf(values[first : first + CHUNK])
        if infinite.any():
            row = first + int(np.argwhere(infinite)[0][0])
            frame = int(np.searchsorted(starts, row, side="right")) - 1 if KINDS[name].per_atom else row
            raise LabelError("is infinite", where=(*where(frame), name), hint="Use NaN for a missing label.")
