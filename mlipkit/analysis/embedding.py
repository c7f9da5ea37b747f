"""t-SNE of scores or features by openTSNE, repeatable from a seed.

A map to look at and no measure: distances between clouds, their sizes, and two maps of different fits cannot be
compared (M. Wattenberg, F. Viégas, I. Johnson, Distill 2016). Print `mlipkit.analysis.feature_shift` beside it.

Source: L. van der Maaten, G. Hinton, J. Mach. Learn. Res. 9, 2579 (2008); P. G. Poličar, M. Stražar, B. Zupan,
J. Stat. Softw. 109, 3 (2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mlipkit.errors import DataError, require

MAX_POINTS = 20_000
PERPLEXITY = 30.0


@dataclass(frozen=True, eq=False)
class Embedding:
    """A map: points [n, 2], the perplexity and seed that made it, and the divergence (KL) that is left."""

    points: np.ndarray
    perplexity: float
    seed: int
    iterations: int
    divergence: float


def largest_perplexity(n: int) -> float:
    """Three neighbours per unit of perplexity must exist among n points."""
    return (n - 1) / 3


def tsne(
    features: ArrayLike, *, perplexity: float | None = None, iterations: int = 1000, seed: int = 0, n_jobs: int = 1
) -> Embedding:
    """Map points to the plane.

    Args:
        features: [n, p], such as PCA scores; wide features go through `standardised` first.
        perplexity: about how many neighbours count; 30, or what n allows, when omitted.
        iterations: the first quarter with early exaggeration.
        seed: of the optimiser; PCA start. The same seed gives the same map with n_jobs=1.

    Raises:
        DataError: perplexity too large for n, fewer than 8 points or more than `MAX_POINTS`, a single column, points
            that are all the same or not finite.
    """
    x = np.asarray(features, dtype=float)
    n = len(x)
    if x.ndim != 2 or not 8 <= n <= MAX_POINTS or x.shape[1] < 2:
        raise DataError("t-SNE takes a table of points", where="tsne",
                        expected=f"8 to {MAX_POINTS} rows, 2 columns or more",
                        found=x.shape, hint="Draw frames first; a map of more points is not read better")  # fmt: skip
    if not np.isfinite(x).all():
        raise DataError("features are not finite", where="tsne")
    if (x == x[0]).all():
        raise DataError("all points are the same", where="tsne", found=f"{n} rows")
    if iterations < 4:
        raise DataError("too few iterations", where="tsne", expected="at least 4", found=iterations)
    largest = largest_perplexity(n)
    if perplexity is not None and not 1 <= perplexity <= largest:
        raise DataError("perplexity does not fit the number of points", where="tsne",
                        expected=f"1 to {largest:.4g} for {n} points", found=perplexity)  # fmt: skip
    chosen = min(PERPLEXITY, largest) if perplexity is None else float(perplexity)
    package = require("openTSNE", "analysis", "a t-SNE map")
    early = iterations // 4
    fitted = package.TSNE(
        perplexity=chosen, early_exaggeration_iter=early, n_iter=iterations - early, initialization="pca",
        random_state=seed, n_jobs=n_jobs, neighbors="exact" if n <= 5000 else "annoy",
        negative_gradient_method="bh" if n <= 5000 else "fft",
    ).fit(x)  # fmt: skip
    return Embedding(np.asarray(fitted), chosen, seed, iterations, float(fitted.kl_divergence))


def standardised(fit_on: ArrayLike, *others: ArrayLike, components: int = 50) -> list[np.ndarray]:
    """Features of several sets, made comparable by the first alone: its mean, standard deviation and principal axes.

    Args:
        fit_on: [n, p]; others: [m, p].
        components: kept, at most.

    Returns:
        Scores [n, k], then [m, k] of each other set. Columns that do not vary in `fit_on` are only centred.

    Raises:
        DataError: different widths, fewer than two rows, not finite.
    """
    sets = [np.asarray(one, dtype=float) for one in (fit_on, *others)]
    if any(one.ndim != 2 or one.shape[1] != sets[0].shape[1] for one in sets) or len(sets[0]) < 2:
        raise DataError("features of equal width are compared", where="standardised", found=[one.shape for one in sets])
    if not all(np.isfinite(one).all() for one in sets):
        raise DataError("features are not finite", where="standardised")
    mean, spread = sets[0].mean(axis=0), sets[0].std(axis=0)
    scale = np.where(spread > 1e-12 * max(float(spread.max()), 1e-300), spread, 1.0)
    centred = [(one - mean) / scale for one in sets]
    _, _, axes = np.linalg.svd(centred[0], full_matrices=False)
    return [one @ axes[:components].T for one in centred]
