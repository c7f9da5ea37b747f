"""Limits per element above which an atom counts as outside, and which runs they were learned from.

`leave_one_run_out` (default): each run in turn is scored by a PCA fitted on the others; mean, standard deviation and
99th percentile of these scores do not depend on what is scored later. `trajectory`: mean and standard deviation along
the very trajectory under test, as published (arXiv 2603.10159); events then raise their own limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np

from mlipkit.data.columns import Array
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, nearest

Rule = Literal["leave_one_run_out", "trajectory"]
RULES: Final = ("leave_one_run_out", "trajectory")
MOST_RUNS: Final = 10
SIGMAS: Final = 2.0
"""Standard deviations above the mean at which the limit lies."""


@dataclass(frozen=True, eq=False)
class Limits:
    """What is ordinary for each element.

    Attributes:
        rule: "leave_one_run_out" or "trajectory".
        detail: one sentence on where the values come from.
        elements: int [E], ascending.
        count: atoms that the figures rest on [E].
        mean, std, p99: of the values [E].
    """

    rule: str
    detail: str
    elements: Array
    count: Array
    mean: Array
    std: Array
    p99: Array

    @property
    def limit(self) -> Array:
        """mean + 2 std [E]."""
        return self.mean + SIGMAS * self.std

    def of(self, numbers: Array) -> Array:
        """The limit of each atom [n]; NaN for an element without one."""
        return _lookup(self.elements, self.limit, numbers)

    def p99_of(self, numbers: Array) -> Array:
        """The 99th percentile of each atom's element [n]; NaN for an element without one."""
        return _lookup(self.elements, self.p99, numbers)

    def above(self, numbers: Array, values: Array) -> Array:
        """bool [n]: above the limit. An element without a limit was never seen, and is outside."""
        return ~(values <= self.of(numbers))

    def arrays(self) -> dict[str, Array]:
        return {name: getattr(self, name) for name in ("elements", "count", "mean", "std", "p99")}

    def to_json(self) -> dict[str, Any]:
        """Per element: count, mean, std, p99, limit."""
        names = ("count", "mean", "std", "p99", "limit")
        table = {
            int(z): {name: getattr(self, name)[row].item() for name in names} for row, z in enumerate(self.elements)
        }
        return {"rule": self.rule, "detail": self.detail, "elements": table}


def limits_of(values: Array, numbers: Array, rule: str, detail: str) -> Limits:
    """Limits from the values [n] of atoms [n]; values that are not finite do not count."""
    good = np.isfinite(values)
    values, numbers = values[good], numbers[good]
    elements = np.unique(numbers).astype(np.int16)
    groups = [values[numbers == z] for z in elements]
    return Limits(
        rule,
        detail,
        elements,
        np.array([len(g) for g in groups], np.int64),
        np.array([g.mean() for g in groups]),
        np.array([g.std() for g in groups]),
        np.array([np.percentile(g, 99) for g in groups]),
    )


def check_rule(rule: str) -> None:
    """Refuse a rule that does not exist."""
    if rule not in RULES:
        raise DataError("no such rule for limits", where="rule", found=rule, hint=nearest(str(rule), RULES))


@dataclass(frozen=True, eq=False)
class Runs:
    """Which run each frame belongs to: int64 [F] from 0, and one sentence on how they were told apart."""

    codes: Array
    detail: str

    @property
    def n(self) -> int:
        return int(self.codes.max()) + 1 if len(self.codes) else 0


def runs_of(frames: FrameSet, most: int = MOST_RUNS) -> Runs:
    """Tell the runs in a set apart: by trajectory, else by source.

    Runs that share a structure are one run: a frame left out would else have its twin in the fit. One run alone is cut
    into blocks of consecutive frames. More than `most` are dealt into that many groups of whole runs.

    Raises:
        DataError: fewer than two frames, or all of one structure.
    """
    if len(frames) < 2:
        raise DataError(
            "limits need at least two frames",
            found=len(frames),
            hint="rule='trajectory' takes them from what is scored",
        )
    if (frames.structure_hashes == frames.structure_hashes[0]).all():
        raise DataError(
            "all frames are the same structure, which has no spread to set limits by",
            found=f"{len(frames)} frames",
            hint="Add other structures; rule='trajectory' takes limits from what is scored",
        )  # fmt: skip
    trajectory, source = frames.trajectory.astype(np.int64), frames.source_codes.astype(np.int64)
    own = np.where(trajectory >= 0, len(frames.sources) + trajectory, source)
    codes = np.unique(own, return_inverse=True)[1].reshape(-1)
    told = "trajectory" if (trajectory >= 0).all() else "source" if (trajectory < 0).all() else "trajectory or source"
    before = int(codes.max()) + 1
    codes = _joined(codes, frames.structure_hashes)
    n = int(codes.max()) + 1
    shared = f", {before} before those that share structures were joined" if n < before else ""
    if n < 2:
        n = min(5, len(frames))
        codes = np.arange(len(frames)) * n // len(frames)
        return Runs(codes, f"one run only (told by {told}{shared}): {n} blocks of consecutive frames left out in turn")
    if n > most:
        return Runs(codes % most, f"{n} runs told by {told}{shared}, left out in {most} groups in turn")
    return Runs(codes, f"{n} runs told by {told}{shared}, left out in turn")


def _joined(codes: Array, structures: Array) -> Array:
    """Codes from 0 in which runs with a structure in common are one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = np.unique(structures, return_inverse=True)[1].reshape(-1)
    n_runs, n_names = int(codes.max()) + 1, int(names.max()) + 1
    links = coo_array((np.ones(len(codes)), (codes, n_runs + names)), shape=(n_runs + n_names,) * 2)
    label = connected_components(links, directed=False)[1][:n_runs]
    return np.unique(label, return_inverse=True)[1].reshape(-1)[codes]


def consecutive(flags: Array, n: int = 2) -> Array:
    """Keep flags that hold for at least `n` samples on end.

    Args:
        flags: bool [F] or [F,...], samples in order of time.

    Returns:
        bool, same shape: true for every sample of such a stretch.
    """
    flags = np.asarray(flags).astype(bool)
    if n <= 1 or not len(flags):
        return flags.copy()
    if len(flags) < n:
        return np.zeros_like(flags)
    windows: Array = np.logical_and.reduce([flags[shift : len(flags) - n + 1 + shift] for shift in range(n)])
    out = np.zeros_like(flags)
    for shift in range(n):
        out[shift : shift + len(windows)] |= windows
    return out


def consecutive_in(frames: FrameSet, flags: Array, n: int = 2) -> Array:
    """`consecutive` for each atom of each trajectory in a set.

    Frames of a trajectory are taken in order of time, where it is known, and follow each other as long as they hold the
    same atoms. A frame of no trajectory has no neighbours in time: its flags stay as they are.

    Args:
        flags: bool [N].
    """
    out, offsets, numbers = np.array(flags, bool), frames.offsets, frames.numbers
    for trajectory in np.unique(frames.trajectory[frames.trajectory >= 0]).tolist():
        rows = np.flatnonzero(frames.trajectory == trajectory)
        times = frames.time[rows]
        if np.isfinite(times).all():
            rows = rows[np.argsort(times, kind="stable")]
        atoms = [numbers[offsets[i] : offsets[i + 1]] for i in rows]
        changes = [i for i in range(1, len(rows)) if not np.array_equal(atoms[i - 1], atoms[i])]
        for first, last in pairwise([0, *changes, len(rows)]):
            index = offsets[rows[first:last]][:, None] + np.arange(len(atoms[first]))
            out[index] = consecutive(out[index], n)
    return out


def _lookup(elements: Array, values: Array, numbers: Array) -> Array:
    table = np.full(max(120, int(elements.max(initial=0)) + 1), np.nan)
    table[elements] = values
    return table[np.asarray(numbers, np.int64)]


def from_stored(arrays: Mapping[str, Array], rule: str, detail: str) -> Limits:
    """The inverse of `Limits.arrays`."""
    return Limits(rule, detail, *(arrays[name] for name in ("elements", "count", "mean", "std", "p99")))
