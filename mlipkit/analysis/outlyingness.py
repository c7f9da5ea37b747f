"""How far an atom lies from the atoms that a PCA was fitted on: beside its plane, within it, and from the nearest one.

    Q  = |x - x̂|²                       squared distance to the plane (squared prediction error)
    T² = Σ_k z_k² / λ_k                  distance within the plane in units of its spread (Hotelling)
    φ  = Q / Q_lim + T² / T²_lim         combined index
    d  = min_j |z - z_j|                 over fit-on atoms j of the same element

An atom far away within the plane has a small Q: T² or d shows it. With one PCA per element T² is the squared
Mahalanobis distance to the mean of the atom's own element, within the axes.

Sources: J. E. Jackson, G. S. Mudholkar, Technometrics 21, 341 (1979) for Q; H. Hotelling (1947) for T²; H. H. Yue,
S. J. Qin, Ind. Eng. Chem. Res. 40, 4403 (2001) for the combined index.
"""

from __future__ import annotations

import numpy as np

from mlipkit.analysis.pca import PCA
from mlipkit.data.columns import Array


def q_residual(pca: PCA, X: Array) -> Array:
    """Q [n] of rows [n,p]: the elementwise square of what the components leave over."""
    return pca.residual(X)


def hotelling_t2(z: Array, variance: Array) -> Array:
    """T² [n] of scores [n,k] with variances λ [k]; components without variance do not count."""
    spread = np.asarray(variance) > 0
    return np.einsum("nk,nk->n", z[:, spread], z[:, spread] / variance[spread])


def combined_index(q: Array, t2: Array, q_limit: Array, t2_limit: Array) -> Array:
    """φ [n]; limits [n] or single numbers. Infinite where there is no limit."""
    with np.errstate(divide="ignore", invalid="ignore"):
        index = np.asarray(q / q_limit + t2 / t2_limit, np.float64)
    return np.where(np.isnan(index), np.inf, index)


class NearestNeighbours:
    """Distances to the nearest atom of the same element in score space.

    Args:
        numbers: int [M], elements of the fit-on atoms.
        z: [M,k], their scores.
        most: atoms kept per element; a seeded draw of more.
    """

    def __init__(self, numbers: Array, z: Array, most: int = 20_000, seed: int = 0) -> None:
        from scipy.spatial import cKDTree  # type: ignore[reportAttributeAccessIssue]

        rng = np.random.default_rng(seed)
        kept = []
        for element in np.unique(numbers).tolist():
            rows = np.flatnonzero(numbers == element)
            kept.append(rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False)))
        chosen = np.concatenate(kept) if kept else np.zeros(0, np.int64)
        self.numbers = np.asarray(numbers, np.int16)[chosen]
        self.z = np.asarray(z, np.float32)[chosen]
        self._trees = {int(e): cKDTree(self.z[self.numbers == e]) for e in np.unique(self.numbers)}

    def distance(self, numbers: Array, z: Array, n_jobs: int = 1) -> Array:
        """d [n] for atoms of these elements [n] with scores [n,k]; infinite for an element that has no fit-on atom."""
        out = np.full(len(numbers), np.inf)
        for element in np.unique(numbers).tolist():
            tree = self._trees.get(int(element))
            if tree is not None:
                rows = np.flatnonzero(numbers == element)
                out[rows] = tree.query(z[rows], workers=n_jobs)[0]
        return out
