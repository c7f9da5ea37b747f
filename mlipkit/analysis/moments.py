"""Second moments of rows too many to hold: sums over chunks, from which the leading components follow.

Let A = Σ (x-μ)(x-μ)ᵀ over all rows x. One pass over the rows gives μ, tr A and Y = A V for a block V [p,b] of
orthonormal directions, and

    T = Vᵀ Y                  its eigenvalues are the Ritz values
    A ≈ Y T⁻¹ Yᵀ              Nyström: exact where V spans the leading components, else below A

Both values of a component lie below the true one, the Nyström value between the Ritz value and the truth. Moments of
disjoint sets of rows add, so one pass also gives the components of all sets that leave one part out.

Sources: A. Gittens, M. W. Mahoney, J. Mach. Learn. Res. 17, 3977 (2016); N. Halko, P.-G. Martinsson, J. A. Tropp, SIAM
Rev. 53, 217 (2011).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlipkit.data.columns import Array

_NOTHING = 1e-12
"""Eigenvalues below this fraction of the largest are rounding."""


def squares(X: Array) -> Array:
    """|x|² of rows [n,p], float64 [n]."""
    return np.einsum("ij,ij->i", X, X).astype(np.float64)


class Basis:
    """Directions and a provisional centre, shared by moments that are to be added.

    Args:
        centre: float32 [p], near the mean, so that float32 products lose nothing.
        directions: float32 [p,b], orthonormal.
    """

    def __init__(self, centre: Array, directions: Array) -> None:
        self.centre = np.ascontiguousarray(centre, np.float32)
        self.directions = np.asfortranarray(directions, np.float32)


@dataclass
class Moments:
    """Sums over n rows, float64: Σ (x-c) [p], Σ |x-c|², Σ (x-c)(x-c)ᵀV [p,b]."""

    basis: Basis
    n: int
    first: Array
    square: float
    product: Array

    @classmethod
    def empty(cls, basis: Basis) -> Moments:
        p, b = basis.directions.shape
        return cls(basis, 0, np.zeros(p), 0.0, np.zeros((p, b)))

    def add(self, shifted: Array, projected: Array, squares: Array) -> None:
        """Add rows x - c, float32 [m,p], with their products with V [m,b] and their |x - c|² [m]."""
        self.n += len(shifted)
        self.first += np.ones(len(shifted), np.float32) @ shifted
        self.square += float(squares.sum(dtype=np.float64))
        self.product += shifted.T @ projected

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.basis, self.n + other.n, self.first + other.first, self.square + other.square,
            self.product + other.product,
        )  # fmt: skip

    def __sub__(self, other: Moments) -> Moments:
        return Moments(
            self.basis, self.n - other.n, self.first - other.first, self.square - other.square,
            self.product - other.product,
        )  # fmt: skip

    def components(self) -> Components:
        """The leading components that these moments tell."""
        directions = self.basis.directions.astype(np.float64)
        offset = self.first / max(self.n, 1)
        product = self.product - self.n * np.outer(offset, offset @ directions)
        total = max(self.square - self.n * float(offset @ offset), 0.0)
        inner = directions.T @ product
        values, vectors = np.linalg.eigh(0.5 * (inner + inner.T))
        kept = values > _NOTHING * max(values[-1], np.finfo(float).tiny)
        if not kept.any():
            return Components(self.n, self.basis.centre + offset, total, np.zeros(0), product[:, :0])
        values, vectors = values[kept], vectors[:, kept]
        # Y T^(-1/2) has the Nyström components as its left singular vectors.
        root = (product @ vectors) / np.sqrt(values)
        gram = root.T @ root
        sizes, turned = np.linalg.eigh(gram)
        sizes, turned = sizes[::-1], turned[:, ::-1]
        good = sizes > _NOTHING * sizes[0]
        axes = (root @ turned[:, good]) / np.sqrt(sizes[good])
        axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        return Components(self.n, self.basis.centre + offset, total, sizes[good], axes)


@dataclass(frozen=True)
class Components:
    """What moments tell of n rows.

    Attributes:
        mean: [p].
        total: Σ |x-μ|².
        values: Nyström eigenvalues of A, descending [r].
        vectors: orthonormal directions [p,r] that belong to `values`; the largest loading of each is positive.
    """

    n: int
    mean: Array
    total: float
    values: Array
    vectors: Array


def start(sample: Array, b: int, rng: np.random.Generator) -> Basis:
    """A basis from some rows [m,p]: their mean and leading components, filled up with random directions."""
    centre = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows = sample - centre
    p = rows.shape[1]
    b = min(b, p)
    values, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
    known = np.flatnonzero(values > 1e-6 * max(values[-1], np.finfo(float).tiny))[::-1][:b]
    leading = rows.T @ (vectors[:, known] / np.sqrt(values[known])).astype(np.float32)
    if len(known) < b:
        leading = np.concatenate([leading, rng.standard_normal((p, b - len(known)), np.float32)], axis=1)
    return Basis(centre, np.linalg.qr(leading.astype(np.float64))[0])
