"""Principal components of descriptor rows: one set of axes over atoms of all elements, or one per element.

With rows x of n atoms, mean μ and the k leading eigenvectors W of the covariance, centred and not scaled,

    z = Wᵀ (x - μ)        x̂ = W z + μ        Q = Σ_j (x_j - x̂_j)²        λ_k = var z_k

Each axis points where its loading of largest magnitude is positive. Scores of different fits must not share axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlipkit.analysis.descriptors import Descriptor, Rows, check_same, facts_hash
from mlipkit.analysis.fitting import Passes, fit
from mlipkit.analysis.moments import Components
from mlipkit.analysis.storing import load_arrays, save_arrays
from mlipkit.data.columns import Array
from mlipkit.errors import DataError

FORMAT = "mlipkit.pca/1"
CACHED = 1 << 16
"""Numbers of a block of rows: a quarter of a MiB."""


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
        for rows in self._cached(len(X)):
            out[rows] = self._split(self._shifted(X[rows]))[1]
        return out

    def project(self, X: Array) -> tuple[Array, Array]:
        """Scores z [n,k] and Q [n] in one reading; overwrites float32 rows X [n,p]."""
        z, q = np.empty((len(X), self.k)), np.empty(len(X))
        for rows in self._cached(len(X)):
            block = X[rows]
            block -= self.mean
            z[rows], q[rows] = self._split(block)
        return z, q

    def _split(self, rows: Array) -> tuple[Array, Array]:
        """z and Q of rows less the mean, which become what is left of them: `|x-μ|² - |z|²` would be a small difference
        of large numbers, whose rounding is another on every machine."""
        z = rows @ self.components.T
        rows -= z @ self.components
        return z, np.einsum("ij,ij->i", rows, rows)

    def _cached(self, n: int) -> Iterator[slice]:
        """Ranges of n rows that stay in a core's cache while they are read and written several times."""
        step = max(1, CACHED // len(self.mean))
        return (slice(first, first + step) for first in range(0, n, step))

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


def fit_pca(blocks: Iterable[Any], k: int | float = 5, seed: int = 0, *, facts: Mapping[str, Any] | None = None) -> PCA:
    """Fit the leading components in a few passes over chunks of rows.

    Args:
        blocks: something that gives the same chunks at every iteration: rows float32 [m,p], or (first frame, last
            frame, rows) as `mlipkit.analysis.descriptors.Rows` gives them, whose rows are never all in memory.
        k: number of components, or (below 1) fraction of the variance that they must explain.
        seed: of the starting directions.
        facts: `Descriptor.facts()`; those of `Rows` are known.

    Raises:
        DataError: fewer than two rows, or rows that are not finite.
    """
    return fit_and_project(blocks, k, seed, facts=facts)[0]


def fit_and_project(
    blocks: Iterable[Any], k: int | float = 5, seed: int = 0, *, facts: Mapping[str, Any] | None = None
) -> tuple[PCA, Array, Array]:
    """`fit_pca` with the scores z [N,k] and Q [N] of the very rows, which its last pass makes anyway."""
    fitted = fit(Passes(blocks, seed), k)
    return pca_of(fitted.components[0], fitted.k[0], _facts(blocks, facts)), fitted.z, fitted.q


def fit_per_element(
    blocks: Iterable[Any], numbers: Array, k: int | float = 5, seed: int = 0, *, facts: Mapping[str, Any] | None = None
) -> dict[int, PCA]:
    """One PCA for the atoms of each element, in the same passes.

    Args:
        numbers: int [N], atomic number of every row in order. The rest as in `fit_pca`.
    """
    fitted = fit(Passes(blocks, seed, classes=numbers), k)
    facts = _facts(blocks, facts)
    return {z: pca_of(one, fitted.k[z], facts, z) for z, one in fitted.components.items()}


def _facts(blocks: Any, facts: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if facts is None and isinstance(blocks, Rows):
        return blocks.descriptor.facts()
    return facts or {}


def pca_of(components: Components, k: int, facts: Mapping[str, Any], element: int | None = None) -> PCA:
    """The first `k` components as a PCA."""
    if components.n < 2:
        raise DataError(
            "a PCA needs at least two atoms", where=f"element {chemical_symbols[element]}" if element else (),
            found=components.n, hint="Use one PCA for all elements (per_element=False), or add frames" if element else
            None,
        )  # fmt: skip
    return PCA(
        components.mean.astype(np.float32),
        np.ascontiguousarray(components.vectors[:, :k].T, np.float32),
        components.values[:k] / (components.n - 1),
        components.total / (components.n - 1),
        components.n,
        dict(facts),
        element,
    )
