"""How much new ground each iteration of sampling covers: newly occupied bins of score space.

Iterations count in their order, each by what it adds to the union of all before it, so that the union never shrinks and
iterative and naive arms are counted alike (analysis.md, section 3). Bins are those of `mlipkit.analysis.coverage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mlipkit.analysis.coverage import Projected, n_frames, occupied
from mlipkit.errors import DataError


@dataclass(frozen=True, eq=False)
class Growth:
    """Occupied bins over iterations T and elements E (last column: all elements).

    Attributes:
        iterations: names [T] in order.
        elements: atomic numbers [E].
        width: of the bins, units of the scores.
        frames: [T] frames of each iteration.
        new: [T, E+1] bins that no earlier iteration held.
        total: [T, E+1] bins of the union up to each.
        bins: [M, 3] atomic number, column, row of every occupied bin; born: [M] the iteration that found it.
    """

    iterations: tuple[str, ...]
    elements: np.ndarray
    width: float
    frames: np.ndarray
    new: np.ndarray
    total: np.ndarray
    bins: np.ndarray
    born: np.ndarray

    @property
    def per_frame(self) -> np.ndarray:
        """New bins per frame of the iteration [T, E+1]: iterations of unequal length compared."""
        return self.new / np.maximum(self.frames, 1)[:, None]


def growth(
    points: Projected, iteration: ArrayLike, *, order: Sequence | None = None, width: float = 0.1,
    components: tuple[int, int] = (0, 1),
) -> Growth:  # fmt: skip
    """Newly occupied bins per iteration.

    Args:
        points: atoms of all iterations, projected by one fit.
        iteration: [F] which iteration each frame belongs to.
        order: the iterations as they happened; first appearance when omitted.
        width, components: of the bins, as in `coverage`.

    Raises:
        DataError: not one iteration per frame, an iteration that the order does not name or names twice, a width that
            is not positive.
    """
    if not 0 < width < np.inf:
        raise DataError("bins need a width", where="width", expected="more than 0", found=width)
    labels = np.asarray(iteration)
    if labels.shape != (n_frames(points),):
        raise DataError("one iteration per frame", where="growth", expected=n_frames(points), found=labels.shape)
    names = list(dict.fromkeys(labels.tolist())) if order is None else list(order)
    if len(set(map(str, names))) < len(names):
        raise DataError("an iteration that is named twice", where="growth", found=names)
    unknown = sorted(set(map(str, labels.tolist())) - set(map(str, names)))
    if unknown:
        raise DataError("an iteration that the order does not name", where="growth", expected=names, found=unknown[0])
    place = {str(name): number for number, name in enumerate(names)}
    of_frame = np.array([place[str(label)] for label in labels.tolist()])

    table = occupied(points, width, components)
    bins, index = np.unique(table[:, 1:], axis=0, return_inverse=True)
    born = np.full(len(bins), len(names))
    np.minimum.at(born, index.reshape(-1), of_frame[table[:, 0]])
    elements = np.unique(points.numbers)
    of_element = np.column_stack([bins[:, 0][:, None] == elements, np.ones(len(bins), dtype=bool)])
    new = np.stack([of_element[born == number].sum(axis=0) for number in range(len(names))])
    frames = np.bincount(of_frame, minlength=len(names))
    return Growth(tuple(map(str, names)), elements, width, frames, new, np.cumsum(new, axis=0), bins, born)
