"""Hierarchical bootstrap: groups within groups (seeds, trajectories, frames) and groups across groups.

A `Design` says how the rows of a table came about. Within a *factor* levels are nested, outermost first: a group drawn
m times brings m · n draws among its n children. Factors are crossed (every seed saw the same frames): a row counts the
product of its factors' draws, so that a frame drawn twice is drawn twice for every seed.

Three intervals: ``percentile`` and ``bca`` read quantiles of the draws; with three to five groups on a level they are
too narrow, as resampling n groups loses the fraction 1/n of their variance and knows nothing of a t distribution
(measured in docs/analysis.md). ``t`` mends both. It draws each level ℓ alone and adds up

    v_ℓ = N_ℓ / ν_ℓ · Var*_ℓ ,    ν_ℓ = N_ℓ - P_ℓ ,    θ ± √V · Σ_ℓ (v_ℓ / V) t(ν_ℓ) ,    V = Σ_ℓ v_ℓ

==========  ==========================================================================
symbol      meaning
==========  ==========================================================================
``Var*_ℓ``  variance of the statistic over draws of level ℓ, the others held
``N_ℓ``     groups on level ℓ; ``P_ℓ`` groups on the level above (1 on top)
``t(ν)``    quantile of Student's t with ν degrees of freedom, 4.30 for three seeds at 95 %
==========  ==========================================================================

The mean of quantiles is W. G. Cochran's (Biometrics 20, 191, 1964): exact where one level dominates. Satterthwaite's
degrees of freedom, the usual choice, called 6.5 % of null studies with three seeds a difference at 95 %. Nested lower
levels count twice (a seed's mean holds the noise of its frames): the interval is wide rather than narrow.

Sources: B. Efron, J. Am. Stat. Assoc. 82, 171 (1987), BCa; A. C. Davison, D. V. Hinkley, Bootstrap Methods and their
Application, Cambridge (1997), section 3.8, nested data; A. B. Owen, Ann. Appl. Stat. 1, 386 (2007), crossed factors;
T. C. Hesterberg, Am. Stat. 69, 371 (2015), small samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit

from mlipkit.errors import DataError, check_choice

Method = Literal["percentile", "bca", "t"]
Statistic = Callable[[np.ndarray], np.ndarray]
"""Weights [B, n], how often each row counts -> values [B] or [B, m]."""

CHUNK = 4_000_000
"""Weights held at a time (rows times draws)."""


@dataclass(frozen=True, eq=False)
class Level:
    """Labels [n] of one level; a level that is not `drawn` only keeps apart what lies below it (strata)."""

    labels: ArrayLike
    drawn: bool = True


@dataclass(frozen=True, eq=False)
class _Groups:
    """A level resolved: group of each row [n], parent of each group [G], children of each parent (first, count)."""

    of_row: np.ndarray
    parent: np.ndarray
    first: np.ndarray
    count: np.ndarray
    drawn: bool
    stratum: np.ndarray
    """Of each parent: which group of the closest level above that is not drawn (0 without one)."""


@dataclass(frozen=True)
class Component:
    """A part of the variance: one drawn level, within one stratum."""

    factor: int
    level: int
    stratum: int
    groups: int
    parents: int


class Design:
    """How rows are grouped: crossed factors of nested levels.

    Args:
        factors: each a sequence of levels, outermost first; a level is an array of labels [n] or a `Level`.

    Raises:
        DataError: no level, or levels of different length.
    """

    def __init__(self, *factors: Sequence[ArrayLike | Level]) -> None:
        levels = [[one if isinstance(one, Level) else Level(one) for one in factor] for factor in factors]
        sizes = {len(np.asarray(one.labels)) for factor in levels for one in factor}
        if len(sizes) != 1 or 0 in sizes:
            raise DataError("each level needs one label per row", where="Design", found=f"lengths {sorted(sizes)}")
        self.n = sizes.pop()
        self.factors = tuple(tuple(_resolve(factor, self.n)) for factor in levels)

    def components(self) -> list[Component]:
        """Parts of the variance, outermost level first; levels whose groups are all alone are no part."""
        parts = []
        for f, factor in enumerate(self.factors):
            for number, groups in enumerate(factor):
                for stratum in np.unique(groups.stratum) if groups.drawn else ():
                    inside = groups.stratum == stratum
                    total, parents = int(groups.count[inside].sum()), int(inside.sum())
                    if total > parents:
                        parts.append(Component(f, number, int(stratum), total, parents))
        return parts

    def weights(self, n_draws: int, rng: np.random.Generator) -> np.ndarray:
        """How often each row counts when all levels are drawn: int [n_draws, n]."""
        total = np.ones((n_draws, self.n), dtype=np.int64)
        for factor in self.factors:
            above = np.ones((n_draws, 1), dtype=np.int64)
            for groups in factor:
                above = _draw(groups, above, rng) if groups.drawn else above[:, groups.parent]
            total *= above[:, factor[-1].of_row]
        return total

    def level_counts(self, part: Component, n_draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws of one component alone: how often each group counts [n_draws, G], and the group of each row [n]."""
        groups = self.factors[part.factor][part.level]
        active = groups.stratum == part.stratum
        counts = _draw(groups, np.broadcast_to(active.astype(np.int64), (n_draws, len(active))), rng)
        counts[:, ~active[groups.parent]] = 1
        return counts, groups.of_row

    def left_out(self) -> np.ndarray:
        """Jackknife weights [g, n]: each group of the outermost drawn level of each factor left out once."""
        rows = []
        for factor in self.factors:
            groups = next((one for one in factor if one.drawn), None)
            if groups is not None and len(groups.parent) > 1:
                rows.append(np.arange(len(groups.parent))[:, None] != groups.of_row[None, :])
        return np.concatenate(rows).astype(np.int64) if rows else np.ones((0, self.n), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Interval:
    """An estimate with its bootstrap interval; arrays [m], or floats for a single figure.

    Attributes:
        value, lower, upper: estimate and ends.
        standard_error: of the draws ("t": with the small-sample correction).
        confidence, method, n_draws: how.
    """

    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    standard_error: np.ndarray
    confidence: float
    method: Method
    n_draws: int

    @property
    def half_width(self) -> np.ndarray:
        """Half of the distance between the ends."""
        return (self.upper - self.lower) / 2


def bootstrap(
    statistic: Statistic, design: Design, *, method: Method = "t", n_draws: int = 2000, confidence: float = 0.95,
    seed: int = 0,
) -> Interval:  # fmt: skip
    """Estimate with an interval.

    Args:
        statistic: weights [B, n] -> [B] or [B, m]; draws for which it is NaN do not count.
        design: of the n rows.
        method: "t" holds its level with three groups, the others need some tens (see the module).
        n_draws: per level for "t".

    Raises:
        DataError: nothing can be drawn, or the statistic is NaN for the rows as they are.
    """
    if not 0 < confidence < 1:
        raise DataError("a confidence lies between 0 and 1", where="bootstrap", found=confidence)
    check_choice(method, get_args(Method), "method")
    if n_draws < 2:
        raise DataError("too few draws for an interval", where="n_draws", expected="at least 2", found=n_draws)
    parts = design.components()
    if not parts:
        raise DataError("nothing to draw", where="bootstrap", expected="a level with at least two groups")
    value = np.asarray(statistic(np.ones((1, design.n), dtype=np.int64)))[0]
    if not np.isfinite(value).all():
        raise DataError("the statistic is not finite for the data as they are", where="bootstrap", found=value)
    rng = np.random.default_rng(seed)
    if method == "t":
        variances = []
        for part in parts:
            draws = in_chunks(lambda size, p=part: _level_rows(design, p, size, rng), statistic, n_draws, design.n)
            variances.append(np.nanvar(draws, axis=0) * part.groups / (part.groups - part.parents))
        half = t_half_width(np.stack(variances), parts, confidence)
        error = np.sqrt(np.sum(variances, axis=0))
        return Interval(value, value - half, value + half, error, confidence, method, n_draws)
    draws = in_chunks(lambda size: design.weights(size, rng), statistic, n_draws, design.n)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "bca":
        tails = _bca_tails(tails, value, draws, np.asarray(statistic(design.left_out())))
    else:
        tails = np.broadcast_to(tails.reshape(2, *[1] * value.ndim), (2, *value.shape))
    if value.ndim:
        lower, upper = np.stack([np.nanquantile(draws[:, i], tails[:, i]) for i in range(len(value))], axis=1)
    else:
        lower, upper = np.nanquantile(draws, tails)
    return Interval(value, lower, upper, np.nanstd(draws, axis=0), confidence, method, n_draws)


def t_half_width(variances: np.ndarray, parts: Sequence[Component], confidence: float) -> np.ndarray:
    """Half-width [m] of the "t" interval from the corrected variances [levels, m] of the components."""
    freedom = np.array([part.groups - part.parents for part in parts], dtype=float)
    quantiles = stdtrit(freedom, 0.5 + confidence / 2)
    total = variances.sum(axis=0)
    return np.sqrt(total) * np.tensordot(quantiles, variances, axes=1) / np.where(total > 0, total, 1.0)


def weighted_mean(values: ArrayLike) -> Statistic:
    """Statistic: mean of values [n] or [n, m]."""
    table = np.asarray(values, dtype=float)

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1)
        return (weights @ table) / (total if table.ndim == 1 else total[:, None])

    return statistic


def in_chunks(weights: Callable[[int], np.ndarray], statistic: Statistic, n_draws: int, n_rows: int) -> np.ndarray:
    """Statistic of `n_draws` draws, never more than `CHUNK` weights at a time."""
    size = max(1, CHUNK // max(n_rows, 1))
    sizes = [min(size, n_draws - start) for start in range(0, n_draws, size)]
    return np.concatenate([np.asarray(statistic(weights(one))) for one in sizes])


def _level_rows(design: Design, part: Component, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    counts, of_row = design.level_counts(part, n_draws, rng)
    return counts[:, of_row]


def _resolve(factor: Sequence[Level], n: int) -> list[_Groups]:
    above, stratum_of_row, found = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), []
    for level in factor:
        labels = np.unique(np.asarray(level.labels), return_inverse=True)[1].reshape(-1)
        # Groups of one parent are numbered in a row, so that a draw among them is an offset.
        _, first_row, of_row = np.unique(above * (labels.max() + 1) + labels, return_index=True, return_inverse=True)
        of_row = of_row.reshape(-1)
        parent = above[first_row]
        count = np.bincount(parent)
        first = np.concatenate([[0], np.cumsum(count)[:-1]])
        of_parent = np.zeros(len(count), dtype=np.int64)
        of_parent[above] = stratum_of_row
        found.append(_Groups(of_row, parent, first, count, level.drawn, of_parent))
        if not level.drawn:
            stratum_of_row = labels
        above = of_row
    return found


def _draw(groups: _Groups, above: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multinomial draws of the children of parents that count `above` [B, P] times: int [B, G]."""
    n_draws, n_groups = len(above), len(groups.parent)
    times = (above * groups.count).reshape(-1)
    which = np.repeat(np.arange(times.size), times)
    row, parent = np.divmod(which, len(groups.count))
    picked = groups.first[parent] + (rng.random(len(which)) * groups.count[parent]).astype(np.int64)
    return np.bincount(row * n_groups + picked, minlength=n_draws * n_groups).reshape(n_draws, n_groups)


def _bca_tails(tails: np.ndarray, value: np.ndarray, draws: np.ndarray, jackknife: np.ndarray) -> np.ndarray:
    """Tail probabilities [2, ...] corrected for bias and acceleration."""
    below = (np.sum(draws < value, axis=0) + 0.5 * np.sum(draws == value, axis=0)) / len(draws)
    bias = ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    away = jackknife.mean(axis=0) - jackknife if len(jackknife) else np.zeros((1, *value.shape))
    spread = np.sum(away**2, axis=0) ** 1.5
    bend = np.divide(np.sum(away**3, axis=0), 6 * spread, out=np.zeros_like(spread), where=spread > 0)
    z = bias + ndtri(tails).reshape(2, *[1] * value.ndim)
    return ndtr(bias + z / (1 - bend * z))
