"""How far atoms lie from a fit-on set, flat over all frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from mlipkit.analysis.thresholds import Limits
from mlipkit.data.columns import Array
from mlipkit.errors import DataError, nearest

MEASURES: Final = ("q", "t2", "combined", "nearest")


@dataclass(frozen=True, eq=False)
class Scores:
    """How far each atom of F frames with N atoms lies from the fit-on set.

    Attributes:
        offsets: int64 [F+1], first atom of each frame.
        uids: uint64 [F].
        numbers: int16 [N].
        projections: z [N,k], float32; axes of one fit (with `per_element` each element has its own).
        q: squared distance to the plane [N]. t2: Hotelling's T² [N]. combined: φ [N].
        nearest: distance in score space to the nearest fit-on atom of the same element [N].
        flags: bool [N], Q above the element's limit for two consecutive samples of a trajectory; for a frame of no
            trajectory the one sample decides.
        limits: measure -> limits per element.
    """

    offsets: Array
    uids: Array
    numbers: Array
    projections: Array
    q: Array
    t2: Array
    combined: Array
    nearest: Array
    flags: Array
    limits: Mapping[str, Limits]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def limit(self) -> Array:
        """Limit of Q of each atom's element [N]; NaN for an element that the fit-on set lacks."""
        return self.limits["q"].of(self.numbers)

    @property
    def ratio(self) -> Array:
        """Q over its limit [N]; infinite for an element that the fit-on set lacks."""
        return ratio_to(self.q, self.limit)

    def above(self, name: str = "q") -> Array:
        """bool [N], a measure above its limit, each sample by itself."""
        return self.limits[_measure(name)].above(self.numbers, getattr(self, name))

    def per_frame(self, name: str = "q", how: Literal["mean", "max"] = "mean") -> Array:
        """A measure, "ratio" or "flags" over the atoms of each frame [F].

        Raises:
            DataError: no such measure.
        """
        values = np.asarray(getattr(self, _measure(name, "ratio", "flags")), np.float64)
        if not len(self):
            return np.zeros(0)
        if how == "max":
            return np.maximum.reduceat(values, self.offsets[:-1])
        if how != "mean":
            raise DataError("no such summary", where="how", expected="mean or max", found=how)
        return np.add.reduceat(values, self.offsets[:-1]) / np.diff(self.offsets)

    def part(self, first: int, last: int) -> Scores:
        """The frames `first` to `last` (exclusive)."""
        rows = slice(int(self.offsets[first]), int(self.offsets[last]))
        per_atom = ("numbers", "projections", "q", "t2", "combined", "nearest", "flags")
        offsets = self.offsets[first : last + 1] - self.offsets[first]
        return replace(
            self, offsets=offsets, uids=self.uids[first:last], **{name: getattr(self, name)[rows] for name in per_atom}
        )


def ratio_to(values: Array, limit: Array) -> Array:
    """Values [n] over their limits [n]: infinite without a limit, 0 where both are 0."""
    ratio = np.divide(values, limit, out=np.full(len(values), np.inf), where=~(np.isnan(limit) | (limit == 0)))
    return np.where((values == 0) & (limit == 0), 0.0, ratio)


def _measure(name: str, *more: str) -> str:
    if name not in (*MEASURES, *more):
        raise DataError("no such measure", where="name", found=name, hint=nearest(name, (*MEASURES, *more)))
    return name
