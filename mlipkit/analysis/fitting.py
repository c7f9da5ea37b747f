"""Leading components of rows that are never all in memory: passes over chunks until they stand still.

Rows belong to classes (one for all, or one per element) and to runs. Moments are kept by class and run, so that fits
that leave one run out cost no pass of their own. Each pass starts from the components that the one before has found,
scores the rows with these and tells by how much they would move: the last pass is the scoring. Two are enough where the
leading components carry most of the variance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mlipkit.analysis.descriptors import Rows
from mlipkit.analysis.moments import Basis, Components, Moments, squares, start
from mlipkit.data.columns import Array
from mlipkit.errors import DataError

TOLERANCE: Final = 1e-4
"""Largest relative move of a component's variance at which a fit ends."""
_DIRECTIONS: Final = 32
_SAMPLE: Final = 768
_MOST_PASSES: Final = 30

Seen = Callable[[int, int, Array, Array, Array, Array], None]


class Passes:
    """Passes over rows float32 [m,p] that come in chunks.

    Args:
        blocks: gives the same chunks at every iteration: rows, or tuples that end in rows.
        seed: of the starting directions.
        classes: int [N]; None: one class, 0.
        runs: int [N]; None: one run, 0.

    Attributes:
        n: number of rows N.
        moments: of the last pass, by class and run.
        bases: directions of the last pass, by class.
    """

    def __init__(
        self, blocks: Iterable[Any], seed: int = 0, classes: Array | None = None, runs: Array | None = None
    ) -> None:
        self._blocks, self._rng = blocks, np.random.default_rng(seed)
        index, sample = self._draw(seed)
        self.classes = np.zeros(self.n, np.int64) if classes is None else np.asarray(classes, np.int64)
        self.runs = np.zeros(self.n, np.int64) if runs is None else np.asarray(runs, np.int64)
        if not len(self.classes) == len(self.runs) == self.n:
            raise DataError("classes or runs do not fit the rows", expected=self.n, found=len(self.classes))
        if self.n < 2:
            raise DataError("a PCA needs at least two atoms", found=self.n)
        self._sample = {int(c): sample[self.classes[index] == c][:_SAMPLE] for c in np.unique(self.classes)}
        self._p = sample.shape[1]
        self.moments: dict[tuple[int, int], Moments] = {}
        self.bases: dict[int, Basis] = {}

    def _draw(self, seed: int) -> tuple[Array, Array]:
        """Some rows to start from, and their indices."""
        if isinstance(self._blocks, Rows):
            self.n = int(self._blocks.frames.offsets[-1])
            return self._blocks.sample(_SAMPLE, seed)
        rows, found, self.n = [np.zeros((0, 1), np.float32)], [np.zeros(0, np.int64)], 0
        for X in self._chunks():
            if len(rows[0]) and X.shape[1] != rows[0].shape[1]:
                raise DataError("chunks of different width", expected=rows[0].shape[1], found=X.shape[1])
            few = np.sort(self._rng.permutation(len(X))[:_SAMPLE])
            rows, found = [*(r for r in rows if len(r)), X[few]], [*found, few + self.n]
            self.n += len(X)
            if sum(map(len, rows)) > 2 * _SAMPLE:
                keep = self._rng.permutation(sum(map(len, rows)))[:_SAMPLE]
                rows, found = [np.concatenate(rows)[keep]], [np.concatenate(found)[keep]]
        return np.concatenate(found), np.concatenate(rows)

    def _chunks(self) -> Iterator[Array]:
        """Chunks that may be overwritten: those of `Rows` as they are, others copied."""
        for block in self._blocks:
            X = block[-1] if isinstance(block, tuple) else block
            yield X if isinstance(self._blocks, Rows) else np.array(X, np.float32)

    def begin(self, k: int) -> dict[int, Components]:
        """The first pass, for `k` components or a few more."""
        for c, sample in self._sample.items():
            rows = sample if len(sample) else np.zeros((1, self._p), np.float32)
            self.bases[c] = start(rows, min(max(_DIRECTIONS, 2 * k + 16), self.n), self._rng)
        return self.sweep()

    def sweep(self, seen: Seen | None = None) -> dict[int, Components]:
        """One pass: moments of all classes and runs, and the components of each class.

        Args:
            seen: called for every stretch of rows of one class and run with class, run, indices of the rows [m], rows
                x - c [m,p], their products with the directions [m,b] and |x - c|² [m].

        Raises:
            DataError: rows that are not finite.
        """
        self.moments, first = {}, 0
        for X in self._chunks():
            index, first = np.arange(first, first + len(X)), first + len(X)
            for c, basis in self.bases.items():
                mine = index[self.classes[index] == c]
                if not len(mine):
                    continue
                rows = X if len(mine) == len(X) else X[mine - index[0]]
                rows -= basis.centre
                projected, sizes = rows @ basis.directions, squares(rows)
                if not np.isfinite(sizes).all():
                    bad = int(mine[~np.isfinite(sizes)][0])
                    raise DataError("descriptor rows are not finite", where=f"atom {bad}")
                for run, at in _stretches(self.runs[mine]):
                    moments = self.moments.setdefault((c, run), Moments.empty(basis))
                    moments.add(rows[at], projected[at], sizes[at])
                    if seen is not None:
                        seen(c, run, mine[at], rows[at], projected[at], sizes[at])
        return {c: self.total(c).components() for c in self.bases}

    def total(self, c: int) -> Moments:
        """Moments of a class over all runs."""
        out = Moments.empty(self.bases[c])
        for (name, _), moments in self.moments.items():
            out = out + moments if name == c else out
        return out

    def left_out(self) -> dict[tuple[int, int], Components]:
        """Components of each class without one run, by class and run."""
        totals = {c: self.total(c) for c in self.bases}
        return {(c, run): (totals[c] - part).components() for (c, run), part in self.moments.items()}

    def restart(self, found: Mapping[int, Components]) -> None:
        """Directions for the next pass: the components found, filled up at random to as many as before."""
        for c, components in found.items():
            b = self.bases[c].directions.shape[1]
            vectors = components.vectors[:, :b]
            if vectors.shape[1] < b:
                fresh = self._rng.standard_normal((len(vectors), b - vectors.shape[1]))
                vectors = np.linalg.qr(np.concatenate([vectors, fresh], axis=1))[0]
            self.bases[c] = Basis(components.mean, vectors)


@dataclass
class Fitted:
    """What `fit` gives.

    Attributes:
        components: of each class.
        k: how many of them are wanted, by class.
        z: scores of all rows [N,k]. q: their Q [N].
        q_out, t2_out: Q and T² [N] under the fit that leaves the own run out; of one run only, those of the fit.
        whole: classes of which a run was scored by the whole fit, as the other runs hold no more rows than components.
    """

    components: dict[int, Components]
    k: dict[int, int]
    z: Array
    q: Array
    q_out: Array
    t2_out: Array
    whole: tuple[int, ...] = ()


def fit(passes: Passes, components: int | float) -> Fitted:
    """Fit `components` axes (below 1: as many as explain that fraction of the variance) and score the rows with them.

    Raises:
        DataError: no number of components, or rows that are not finite.
    """
    known = isinstance(components, int | float | np.number) and np.isfinite(components)
    fraction = known and 0 < components < 1
    if not known or (not fraction and (components < 1 or components != int(components))):
        raise DataError(
            "no number of components", where="components", expected="1, 2, ... or a fraction", found=repr(components)
        )
    # No more components than rows: a very large number costs no more than all of them.
    most = 64 if fraction else min(int(components), passes.n)
    found = passes.begin(most)
    while fraction and any(_enough(one, components) > most and len(one.values) >= most for one in found.values()):
        most *= 2
        found = passes.begin(most)
    alone = len(np.unique(passes.runs)) == 1
    for _ in range(_MOST_PASSES):
        k = {c: _enough(one, components) if fraction else most for c, one in found.items()}
        left_out = {} if alone else passes.left_out()
        passes.restart(found)
        out = _Scorer(passes, found, left_out, k)
        moved = passes.sweep(out.see)
        if all(_stands(found[c], moved[c], k[c]) for c in found):
            break
        found = moved
    fitted = out.fitted
    fitted.z = fitted.z[:, : max(min(k[c], len(one.values)) for c, one in fitted.components.items())]
    return fitted


class _Scorer:
    """Writes the scores of the rows that a pass sees."""

    def __init__(
        self,
        passes: Passes,
        found: dict[int, Components],
        left_out: dict[tuple[int, int], Components],
        k: dict[int, int],
    ) -> None:
        n = passes.n
        z = np.zeros((n, max(k.values())), np.float32)
        self.fitted = Fitted(found, k, z, np.empty(n), np.empty(n), np.empty(n))
        # Where the other runs hold too little of a class, it is scored by the whole fit, and named.
        self.fitted.whole = tuple(sorted({c for (c, _), one in left_out.items() if one.n <= k[c]}))
        self._others = {
            (c, run): _Plane.of(one, passes.bases[c], k[c]) for (c, run), one in left_out.items() if one.n > k[c]
        }

    def see(self, c: int, run: int, index: Array, rows: Array, projected: Array, sizes: Array) -> None:
        fitted, found = self.fitted, self.fitted.components[c]
        # The pass starts from what was found: its first directions are the axes, its centre is the mean.
        z = projected[:, : min(fitted.k[c], len(found.values))].astype(np.float64)
        q = np.maximum(sizes - np.einsum("nk,nk->n", z, z), 0.0)
        fitted.z[index, : z.shape[1]], fitted.q[index] = z, q
        variance = found.values[: z.shape[1]] / max(found.n - 1, 1)
        other = self._others.get((c, run))
        if other is not None:
            (z, q), variance = other.apply(rows, sizes), other.variance
        fitted.q_out[index] = q
        fitted.t2_out[index] = np.einsum("nk,nk->n", z, z / np.where(variance > 0, variance, np.inf))


@dataclass
class _Plane:
    """A fit as seen from a basis: its axes and the offset of its mean, for one matrix product."""

    both: Array
    offset2: float
    shift: Array
    variance: Array

    @classmethod
    def of(cls, components: Components, basis: Basis, k: int) -> _Plane:
        axes = components.vectors[:, :k]
        delta = components.mean - basis.centre
        both = np.asfortranarray(np.concatenate([axes, delta[:, None]], axis=1), np.float32)
        return cls(both, float(delta @ delta), delta @ axes, components.values[:k] / max(components.n - 1, 1))

    def apply(self, rows: Array, sizes: Array) -> tuple[Array, Array]:
        """z [m,k] and Q [m] of rows x - c [m,p] with |x - c|² [m]."""
        product = (rows @ self.both).astype(np.float64)
        z = product[:, :-1] - self.shift
        distance2 = sizes - 2.0 * product[:, -1] + self.offset2
        return z, np.maximum(distance2 - np.einsum("ij,ij->i", z, z), 0.0)


def _stands(before: Components, after: Components, k: int) -> bool:
    """Whether another pass moved no variance by more than `TOLERANCE`, of 0.1 % of the total at least."""
    a, b = (np.pad(one.values[:k], (0, max(0, k - len(one.values)))) for one in (before, after))
    return bool((np.abs(a - b) <= TOLERANCE * np.maximum(b, 1e-3 * after.total)).all())


def _enough(components: Components, fraction: float) -> int:
    """How many components explain `fraction` of the variance; one more than there are when they do not."""
    share = np.cumsum(components.values) / max(components.total, np.finfo(float).tiny)
    return int(np.searchsorted(share, fraction * (1 - 1e-9))) + 1


def _stretches(labels: Array) -> list[tuple[int, slice]]:
    """Stretches of equal labels: label and place."""
    ends = [*np.flatnonzero(np.diff(labels)) + 1, len(labels)]
    return [(int(labels[a]), slice(int(a), int(b))) for a, b in zip([0, *ends], ends, strict=False)]
