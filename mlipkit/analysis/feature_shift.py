"""How far a test set's features lie from the training set's: MMD, Fréchet distance, and what a classifier can tell.

    MMD² = mean k(x, x') + mean k(y, y') - 2 mean k(x, y) ,    k(x, y) = exp(-|x - y|² / 2σ²)
    d_F² = |μ_x - μ_y|² + Tr(Σ_x + Σ_y - 2 (Σ_x Σ_y)^½)

==========  ==========================================================================
symbol      meaning
==========  ==========================================================================
``x, y``    standardised scores (`embedding.standardised`) of training and test set, along axes of other training rows
``σ``       median distance over all pairs of both sets
``μ, Σ``    mean and covariance of the first ten components
AUC         area under the ROC of a logistic classifier that tells test from training, five folds: 0.5 cannot tell
==========  ==========================================================================

Scale and axes come from half of the training groups, the other half is compared. Rows that set the axes fill them, new
rows do not: with as many axes as rows, the training set itself would look shifted (25 of 40 null studies of 60 rows
with 128 features then had p <= 0.05).

Atoms of one frame, and frames of one run, are alike. They form a *group*: a classifier never trains on one part of a
group and is tested on another, the permutation test moves whole groups between the sets, and means of k leave out pairs
of one group (for groups of one row that is the unbiased MMD²).

Sources: A. Gretton et al., J. Mach. Learn. Res. 13, 723 (2012); D. C. Dowson, B. V. Landau, J. Multivar. Anal. 12, 450
(1982); D. Lopez-Paz, M. Oquab, ICLR 2017 (classifier two-sample test).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mlipkit.analysis.embedding import standardised
from mlipkit.errors import DataError, require

MAX_ROWS = 2000
"""Rows of each set that enter the kernel; larger sets are thinned, every group alike."""


@dataclass(frozen=True)
class FeatureShift:
    """Three measures of the same shift; all grow with it.

    Attributes:
        mmd2: squared maximum mean discrepancy, no unit (about 0 without a shift, at most 2).
        mmd2_lower, mmd2_upper: 95 % bootstrap interval over groups.
        mmd_p: permutation p-value of "no shift".
        bandwidth: σ, units of the standardised scores.
        frechet: Fréchet distance d_F² of the Gaussians, units of the standardised scores squared.
        auc: mean over folds; auc_std: standard deviation over folds.
        n_train, n_test: rows that were compared; groups_train, groups_test: frames or runs they come from.
        groups_axes: training groups that set scale and axes, and are not compared.
    """

    mmd2: float
    mmd2_lower: float
    mmd2_upper: float
    mmd_p: float
    bandwidth: float
    frechet: float
    auc: float
    auc_std: float
    n_train: int
    n_test: int
    groups_train: int
    groups_test: int
    groups_axes: int


def feature_shift(
    train: ArrayLike, test: ArrayLike, *, train_groups: ArrayLike | None = None, test_groups: ArrayLike | None = None,
    components: int = 50, n_permutations: int = 500, folds: int = 5, seed: int = 0,
) -> FeatureShift:  # fmt: skip
    """Measure the shift between two sets of features.

    Args:
        train, test: [n, p], [m, p]; rows are structures (mean over atoms) or atoms.
        train_groups, test_groups: [n], [m] frame or run of each row; every row its own when omitted.
        components: principal axes of the standardised training half that are kept.
        n_permutations: of groups for the p-value, and draws of the interval.
        folds: of the classifier.

    Raises:
        DataError: fewer than four groups in the training set or two in the test set, different widths, not finite.
    """
    if components < 1 or n_permutations < 1:
        raise DataError(
            "a shift needs at least one component and one permutation", where="feature_shift",
            found=f"{components} and {n_permutations}",
        )  # fmt: skip
    groups = [_groups(rows, given) for rows, given in ((train, train_groups), (test, test_groups))]
    counts = [len(np.unique(one)) for one in groups]
    if counts[0] < 4 or counts[1] < 2:
        raise DataError(
            "too few groups to measure a shift", where="feature_shift",
            expected="4 of training (half of them set the axes), 2 of test", found=f"{counts[0]} and {counts[1]}",
        )  # fmt: skip
    rng = np.random.default_rng(seed)
    for_axes = np.isin(groups[0], rng.permutation(counts[0])[: counts[0] // 2])
    rows = np.asarray(train, dtype=float)
    _, x, y = standardised(rows[for_axes], rows[~for_axes], test, components=components)
    groups[0] = groups[0][~for_axes]
    keep = [_thinned(one, rng) for one in groups]
    kernel, pairs, bandwidth, n_first = _between_groups(x[keep[0]], y[keep[1]], groups[0][keep[0]], groups[1][keep[1]])
    is_test = np.arange(len(kernel)) >= n_first
    value = float(_mmd2(kernel, pairs, is_test[None].astype(float), ~is_test[None])[0])
    shuffled = np.stack([rng.permutation(is_test) for _ in range(n_permutations)])
    null = _mmd2(kernel, pairs, shuffled.astype(float), ~shuffled)
    low, high = np.quantile(_redrawn(kernel, pairs, is_test, n_permutations, rng), [0.025, 0.975])
    auc, spread = classifier_auc(x, y, groups[0], groups[1], folds=folds, seed=seed)
    return FeatureShift(
        mmd2=value, mmd2_lower=float(low), mmd2_upper=float(high),
        mmd_p=float((1 + np.sum(null >= value)) / (1 + n_permutations)), bandwidth=bandwidth,
        frechet=frechet_distance(x[:, :10], y[:, :10]), auc=auc, auc_std=spread, n_train=len(x), n_test=len(y),
        groups_train=len(np.unique(groups[0])), groups_test=counts[1], groups_axes=counts[0] // 2,
    )  # fmt: skip


def feature_shifts(
    sets: Mapping[str, tuple[ArrayLike, ArrayLike]], *, train_groups: ArrayLike | None = None,
    test_groups: ArrayLike | None = None, seed: int = 0,
) -> dict[str, FeatureShift]:  # fmt: skip
    """The same structures seen by several models, such as before and after adaptation: each measured on its own axes.

    Args:
        sets: name ("baseline", "before adaptation", "after adaptation") -> features of training and test structures,
            [n, p] and [m, p] in one order of structures.
    """
    return {
        name: feature_shift(train, test, train_groups=train_groups, test_groups=test_groups, seed=seed)
        for name, (train, test) in sets.items()
    }


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Fréchet distance of the Gaussians with the moments of two samples [n, k], [m, k]."""
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    first, second = (np.atleast_2d(np.cov(one, rowvar=False)) for one in (a, b))
    values, vectors = np.linalg.eigh(first)
    half = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # The eigenvalues of Σ_x Σ_y, from a symmetric matrix: also where a covariance is singular.
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(half @ second @ half), 0.0)).sum()
    gap = float(np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2))
    return max(0.0, gap + float(np.trace(first) + np.trace(second) - 2 * roots))


def classifier_auc(
    x: ArrayLike, y: ArrayLike, x_groups: ArrayLike, y_groups: ArrayLike, *, folds: int = 5, seed: int = 0
) -> tuple[float, float]:
    """Cross-validated AUC (mean, standard deviation over folds) of a logistic classifier, whole groups in each fold."""
    linear = require("sklearn.linear_model", "analysis", "a classifier between sets")
    chosen = require("sklearn.model_selection", "analysis", "a classifier between sets")
    metrics = require("sklearn.metrics", "analysis", "a classifier between sets")
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    table, target = np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)])
    first = np.unique(np.asarray(x_groups), return_inverse=True)[1]
    second = np.unique(np.asarray(y_groups), return_inverse=True)[1]
    together = np.concatenate([first, second + first.max() + 1])
    size = min(folds, len(np.unique(first)), len(np.unique(second)))
    splitter = chosen.StratifiedGroupKFold(n_splits=size, shuffle=True, random_state=seed)
    scores = []
    for learn, judge in splitter.split(table, target, together):
        if len(np.unique(target[judge])) < 2 or len(np.unique(target[learn])) < 2:
            continue
        spread = table[learn].std(axis=0)
        scale = np.where(spread > 0, spread, 1.0)
        with warnings.catch_warnings():
            # Sets that can be told apart perfectly have no finite optimum; the penalty stops it where it matters not.
            warnings.simplefilter("ignore")
            model = linear.LogisticRegression(C=0.1, max_iter=300).fit(table[learn] / scale, target[learn])
        scores.append(metrics.roc_auc_score(target[judge], model.decision_function(table[judge] / scale)))
    if not scores:
        raise DataError("no fold holds both sets", where="classifier_auc", hint="More groups, or fewer folds")
    return float(np.mean(scores)), float(np.std(scores))


def _groups(rows: ArrayLike, given: ArrayLike | None) -> np.ndarray:
    n = len(np.asarray(rows))
    labels = np.arange(n) if given is None else np.unique(np.asarray(given), return_inverse=True)[1].reshape(-1)
    if len(labels) != n:
        raise DataError("one group per row", where="feature_shift", expected=n, found=len(labels))
    return labels


def _thinned(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows that are kept: every group loses the same share, none is lost while there is room."""
    if len(groups) <= MAX_ROWS:
        return np.arange(len(groups))
    order = rng.permutation(len(groups))
    seen = np.argsort(groups[order], kind="stable")
    sorted_groups = groups[order][seen]
    starts = np.searchsorted(sorted_groups, sorted_groups)
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order[seen]] = np.arange(len(groups)) - starts
    return np.sort(np.lexsort((rng.random(len(groups)), rank))[:MAX_ROWS])


def _between_groups(
    x: np.ndarray, y: np.ndarray, x_groups: np.ndarray, y_groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Sums of k over pairs of groups [g, g], pairs counted [g, g], σ, and how many groups are of the first set."""
    first = np.unique(x_groups, return_inverse=True)[1].reshape(-1)
    second = np.unique(y_groups, return_inverse=True)[1].reshape(-1) + first.max() + 1
    of_row, table = np.concatenate([first, second]), np.concatenate([x, y])
    squared = np.sum(table**2, axis=1)
    distance2 = np.maximum(squared[:, None] + squared[None, :] - 2 * table @ table.T, 0.0)
    bandwidth = float(np.sqrt(np.median(distance2[np.triu_indices(len(table), 1)])))
    member = np.zeros((int(of_row.max()) + 1, len(table)))
    member[of_row, np.arange(len(table))] = 1.0
    kernel = member @ np.exp(-distance2 / (2 * max(bandwidth, 1e-12) ** 2)) @ member.T
    size = member.sum(axis=1)
    pairs = np.outer(size, size)
    np.fill_diagonal(kernel, 0.0)
    np.fill_diagonal(pairs, 0.0)
    return kernel, pairs, bandwidth, int(first.max()) + 1


def _mmd2(kernel: np.ndarray, pairs: np.ndarray, second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """MMD² [B] for weights of the groups in each set, both [B, g]."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)

    def mean(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.sum((u @ kernel) * v, axis=1) / np.maximum(np.sum((u @ pairs) * v, axis=1), 1e-300)

    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


def _redrawn(
    kernel: np.ndarray, pairs: np.ndarray, is_test: np.ndarray, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """MMD² of bootstrap draws of groups within each set."""
    weights = np.zeros((n_draws, len(is_test)))
    for side in (False, True):
        own = np.flatnonzero(is_test == side)
        picked = rng.integers(len(own), size=(n_draws, len(own)))
        np.add.at(weights, (np.arange(n_draws)[:, None], own[picked]), 1.0)
    return _mmd2(kernel, pairs, weights * is_test, weights * ~is_test)
