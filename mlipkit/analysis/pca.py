"""Principal components of descriptor rows: one set of axes over atoms of all elements, or one per element.

With rows x of n atoms, mean μ and the k leading eigenvectors W of the covariance, centred and not scaled,

    z = Wᵀ (x - μ)        x̂ = W z + μ        Q = Σ_j (x_j - x̂_j)²        λ_k = var z_k

Each axis points where its loading of largest magnitude is positive. Scores of different fits must not share axes.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlipkit.analysis.descriptors import Descriptor, Rows, check_same, facts_hash
from mlipkit.analysis.moments import Basis, Components, Moments, start
from mlipkit.data.columns import Array
from mlipkit.errors import DataError, ModelError

FORMAT = "mlipkit.pca/1"
TOLERANCE = 1e-4
"""Largest relative move of a component's variance at which a fit ends."""
_DIRECTIONS, _SAMPLE, _MOST_PASSES = 32, 768, 30


@dataclass(frozen=True, eq=False)
class PCA:
    """Axes fitted on the rows of a set.

    Attributes:
        mean: float32 [p].
        components: float32 [k,p], orthonormal rows.
        variance: λ [k], descending, with n - 1 in the denominator.
        total_variance: of all p axes together.
        n_samples: rows n.
        facts: `Descriptor.facts()` of the rows; empty when unknown.
        element: atomic number when fitted on one element only.
    """

    mean: Array
    components: Array
    variance: Array
    total_variance: float
    n_samples: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    element: int | None = None

    @property
    def k(self) -> int:
        """Number of components."""
        return len(self.components)

    @property
    def explained(self) -> Array:
        """Fraction of the total variance along each component [k]."""
        return self.variance / self.total_variance if self.total_variance > 0 else np.zeros(self.k)

    @property
    def hash(self) -> str:
        """Of the descriptor; "" when unknown."""
        return facts_hash(self.facts) if self.facts else ""

    def check(self, descriptor: Descriptor) -> None:
        """Refuse a descriptor whose columns mean something else.

        Raises:
            ModelError: names both lists of species, or the settings that differ.
        """
        if self.facts:
            check_same(self.facts, descriptor)

    def transform(self, X: Array) -> Array:
        """Scores z [n,k] of rows [n,p]."""
        return (self._shifted(X) @ self.components.T).astype(np.float64)

    def residual(self, X: Array) -> Array:
        """Squared distance Q [n] of rows [n,p] from the plane of the components (elementwise square; eq. 6 of the
        published text lacks a sign)."""
        out = np.empty(len(X))
        for first in range(0, len(X), 512):
            rows = self._shifted(X[first : first + 512])
            rows -= (rows @ self.components.T) @ self.components
            out[first : first + 512] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        return out

    def project(self, X: Array) -> tuple[Array, Array]:
        """Scores z [n,k] and Q [n] in one reading, by `Q = |x-μ|² - |z|²`; overwrites float32 rows X [n,p].

        Rounding is a millionth of |x-μ|²; `residual` has less.
        """
        X -= self.mean
        z = (X @ self.components.T).astype(np.float64)
        return z, np.maximum(squares(X) - np.einsum("ij,ij->i", z, z), 0.0)

    def _shifted(self, X: Array) -> Array:
        if X.ndim != 2 or X.shape[1] != len(self.mean):
            raise DataError("rows do not fit the fit", expected=f"[n,{len(self.mean)}]", found=X.shape)
        return np.asarray(X, np.float32) - self.mean

    def arrays(self) -> dict[str, Array]:
        """What `save` stores, by name."""
        return {"mean": self.mean, "components": self.components, "variance": self.variance}

    def header(self) -> dict[str, Any]:
        """What `save` stores beside the arrays, JSON-ready."""
        return {
            "total_variance": self.total_variance,
            "n_samples": self.n_samples,
            "facts": dict(self.facts),
            "hash": self.hash,
            "element": self.element,
        }

    @classmethod
    def from_stored(cls, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> PCA:
        """The inverse of `arrays` and `header`."""
        named = {name: arrays[name] for name in ("mean", "components", "variance")}
        kept = {name: header[name] for name in ("total_variance", "n_samples", "facts", "element")}
        return cls(**named, **kept)

    def save(self, path: str | Path) -> Path:
        """Write one small file (safetensors; nothing unpickles)."""
        return save_arrays(path, FORMAT, self.arrays(), self.header())

    @classmethod
    def load(cls, path: str | Path) -> PCA:
        """Read what `save` wrote.

        Raises:
            ModelError: no such file, or another kind of file.
        """
        arrays, header = load_arrays(path, FORMAT)
        return cls.from_stored(arrays, header)


def fit_pca(
    blocks: Iterable[Any],
    k: int | float = 5,
    seed: int = 0,
    *,
    facts: Mapping[str, Any] | None = None,
    element: int | None = None,
) -> PCA:
    """Fit the leading components in a few passes over chunks of rows.

    Args:
        blocks: something that gives the same chunks at every iteration: rows float32 [m,p], or (first frame, last frame,
            rows) as `mlipkit.analysis.descriptors.Rows` gives them. Rows of `Rows` are never all in memory.
        k: number of components, or (below 1) fraction of the variance that they must explain.
        seed: of the starting directions.
        facts: `Descriptor.facts()`; those of `Rows` are known. element: kept with the result.

    Raises:
        DataError: fewer than two rows, or rows that are not finite.
    """
    known = getattr(blocks, "descriptor", None)
    facts = known.facts() if facts is None and known is not None else facts or {}
    rows = Grouped(blocks, seed)
    components, k = rows.solve(k)[0]
    return pca_of(components, k, facts, element)


def fit_per_element(
    blocks: Iterable[Any], numbers: Array, k: int | float = 5, seed: int = 0, *, facts: Mapping[str, Any] | None = None
) -> dict[int, PCA]:
    """One PCA for the atoms of each element, in the same passes.

    Args:
        numbers: int [N], atomic number of every row in order. The rest as in `fit_pca`.
    """
    known = getattr(blocks, "descriptor", None)
    facts = known.facts() if facts is None and known is not None else facts or {}
    numbers = np.asarray(numbers)
    rows = Grouped(blocks, seed, numbers)
    return {z: pca_of(components, n, facts, z) for z, (components, n) in rows.solve(k).items()}


def pca_of(components: Components, k: int, facts: Mapping[str, Any], element: int | None = None) -> PCA:
    """The first `k` components as a PCA."""
    if components.n < 2:
        raise DataError("a PCA needs at least two atoms", where=f"element {element}" if element else (),
                        found=components.n)  # fmt: skip
    return PCA(
        components.mean.astype(np.float32),
        np.ascontiguousarray(components.vectors[:, :k].T, np.float32),
        components.values[:k] / (components.n - 1),
        components.total / (components.n - 1),
        components.n,
        dict(facts),
        element,
    )


def squares(X: Array) -> Array:
    """|x|² of rows [n,p], float64 [n]."""
    return np.einsum("ij,ij->i", X, X).astype(np.float64)


class Grouped:
    """Passes over rows that belong to classes (elements, or one class for all) and to runs.

    Args:
        blocks: chunks, the same at every iteration.
        seed: of the starting directions.
        classes: int [N]; None: one class, 0.
        runs: int [N]; None: one run. Moments are kept by class and run, so that leaving a run out costs no pass.
    """

    def __init__(self, blocks: Iterable[Any], seed: int, classes: Array | None = None, runs: Array | None = None):
        self.blocks, self.classes, self.runs = blocks, classes, runs
        self._rng = np.random.default_rng(seed)
        self._sample = self._draw(seed)
        self.moments: dict[tuple[int, int], Moments] = {}
        self.bases: dict[int, Basis] = {}

    def _draw(self, seed: int) -> dict[int, Array]:
        """Some rows of each class, to start from."""
        if isinstance(self.blocks, Rows):
            index, rows = self.blocks.sample(_SAMPLE, seed)
            classes = np.zeros(len(index), np.int64) if self.classes is None else self.classes[index]
            rows = [rows]
        else:
            # A few rows of every chunk: without knowing how many will come, and never more than a chunk in memory.
            rows, found, first = [], [], 0
            for X in _chunks(self.blocks):
                few = np.sort(self._rng.permutation(len(X))[: max(1, _SAMPLE // 8)])
                rows.append(X[few].copy())
                found.append(few + first)
                first += len(X)
                if sum(map(len, rows)) > 4 * _SAMPLE:
                    keep = self._rng.permutation(sum(map(len, rows)))[: 2 * _SAMPLE]
                    rows, found = [np.concatenate(rows)[keep]], [np.concatenate(found)[keep]]
            index = np.concatenate(found) if found else np.zeros(0, np.int64)
            classes = np.zeros(len(index), np.int64) if self.classes is None else self.classes[index]
        X = np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)
        if len(X) < 2 and self.classes is None:
            raise DataError("a PCA needs at least two atoms", found=len(X))
        names = [0] if self.classes is None else np.unique(self.classes).tolist()
        return {int(c): X[classes == c][:_SAMPLE] for c in names}

    def begin(self, k: int) -> None:
        """Starting directions for `k` components."""
        p = next(iter(self._sample.values())).shape[1]
        for c, sample in self._sample.items():
            rows = sample if len(sample) else np.zeros((1, p), np.float32)
            self.bases[c] = start(rows, max(_DIRECTIONS, 2 * k + 16), self._rng)

    def sweep(self, seen: Any = None) -> dict[int, Components]:
        """One pass: moments of all classes and runs, and the components of each class.

        Args:
            seen: called with (class, index of rows [m], rows x - c [m,p], |x - c|² [m]) for every piece of a chunk.

        Raises:
            DataError: rows that are not finite.
        """
        self.moments = {}
        first = 0
        for X in _chunks(self.blocks):
            index = np.arange(first, first + len(X))
            first += len(X)
            for c in self.bases:
                mine = index if self.classes is None else index[self.classes[index] == c]
                if not len(mine):
                    continue
                basis = self.bases[c]
                rows = X if len(mine) == len(X) else X[mine - index[0]]
                rows -= basis.centre
                projected, sizes = rows @ basis.directions, squares(rows)
                if not np.isfinite(sizes).all():
                    raise DataError("descriptor rows are not finite", where=f"atom {int(mine[~np.isfinite(sizes)][0])}")
                runs = np.zeros(len(mine), np.int64) if self.runs is None else self.runs[mine]
                for run in np.unique(runs).tolist():
                    at = slice(None) if (runs == run).all() else np.flatnonzero(runs == run)
                    moments = self.moments.setdefault((c, run), Moments.empty(basis))
                    moments.add(rows[at], projected[at], sizes[at])
                if seen is not None:
                    seen(c, mine, rows, sizes)
        return {c: self.total(c).components() for c in self.bases}

    def total(self, c: int) -> Moments:
        """Moments of a class over all runs."""
        parts = [moments for (name, _), moments in self.moments.items() if name == c]
        out = Moments.empty(self.bases[c])
        for part in parts:
            out = out + part
        return out

    def restart(self, found: Mapping[int, Components]) -> None:
        """Directions for the next pass: the components found, filled up at random to as many as before."""
        for c, components in found.items():
            b = self.bases[c].directions.shape[1]
            vectors = components.vectors[:, :b]
            if vectors.shape[1] < b:
                fresh = self._rng.standard_normal((len(vectors), b - vectors.shape[1]))
                vectors = np.linalg.qr(np.concatenate([vectors, fresh], axis=1))[0]
            self.bases[c] = Basis(components.mean, vectors)

    def solve(self, k: int | float) -> dict[int, tuple[Components, int]]:
        """Passes until no variance moves by more than `TOLERANCE`; the components and how many are wanted."""
        wanted = 64 if isinstance(k, float) and k < 1 else int(k)
        if wanted < 1 or (isinstance(k, float) and not 0 < k < 1 and k != int(k)):
            raise DataError("no number of components", where="components", expected="1, 2, ... or a fraction", found=k)
        while True:
            self.begin(wanted)
            for _ in range(_MOST_PASSES):
                found = self.sweep()
                if all(one.moved(wanted) < TOLERANCE for one in found.values()):
                    break
                self.restart(found)
            if wanted == k:
                return {c: (one, wanted) for c, one in found.items()}
            counts = {c: enough(one, float(k)) for c, one in found.items()}
            full = all(len(one.values) < wanted or counts[c] <= wanted for c, one in found.items())
            if full:
                return {c: (one, counts[c]) for c, one in found.items()}
            wanted *= 2


def enough(components: Components, fraction: float) -> int:
    """How many components explain `fraction` of the variance; one more than there are when they do not."""
    share = np.cumsum(components.values) / max(components.total, np.finfo(float).tiny)
    return int(np.searchsorted(share, fraction * (1 - 1e-9))) + 1


def _chunks(blocks: Iterable[Any]) -> Iterable[Array]:
    """Chunks that may be overwritten: those of `Rows` as they are, others copied."""
    for block in blocks:
        X = block[-1] if isinstance(block, tuple) else block
        yield X if isinstance(blocks, Rows) else np.array(X, np.float32)


def save_arrays(path: str | Path, kind: str, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> Path:
    """One safetensors file with a JSON header, written whole or not at all."""
    from safetensors.numpy import save as to_bytes

    path = Path(path)
    content = to_bytes(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        metadata={"mlipkit": json.dumps({"kind": kind, **header})},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def load_arrays(path: str | Path, kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and header of a file that `save_arrays` wrote.

    Raises:
        ModelError: no such file, or another kind of file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ModelError("no such file", where=str(path))
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("mlipkit", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError, OSError) as error:
        raise ModelError(f"cannot be read ({error})", where=str(path), expected=kind) from error
    if not isinstance(header, dict) or header.get("kind") != kind:
        found = header.get("kind") if isinstance(header, dict) else None
        raise ModelError("another kind of file", where=str(path), expected=kind, found=found or "no header of mlipkit")
    return arrays, header
