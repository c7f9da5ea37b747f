"""How long simulations last: the Kaplan-Meier estimate of survival, with intervals that hold for few replicas.

Of `n` simulations some fail, the others are ended while they still hold (censored). The estimate is

    S(t) = Π over failure times t_i <= t of (1 - d_i / r_i)

==========  ==========================================================================
symbol      meaning
==========  ==========================================================================
``t_i``     distinct failure times, fs
``d_i``     simulations that failed at ``t_i``
``r_i``     simulations at risk just before ``t_i``: neither failed nor censored
==========  ==========================================================================

Whoever is censored at a failure time was still at risk in it.

Sources: E. L. Kaplan, P. Meier, J. Am. Stat. Assoc. 53, 457 (1958); C. J. Clopper, E. S. Pearson, Biometrika 26, 404
(1934); J. D. Kalbfleisch, R. L. Prentice, The Statistical Analysis of Failure Time Data, Wiley (1980), for the log-log
interval with Greenwood's variance; F. J. Dorey, E. L. Korn, Stat. Med. 6, 679 (1987), for the ends at 0 and 1;
R. Brookmeyer, J. Crowley, Biometrics 38, 29 (1982), for the interval of the median. Two groups are compared by the
log-rank test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, erfc, ndtri

from mlipkit.errors import DataError

Interval = Literal["exact", "log-log"]


@dataclass(frozen=True, eq=False)
class Survival:
    """An estimated survival curve: a step function that begins at 1 and falls at each failure time.

    Attributes:
        times: distinct failure times [k], fs, ascending.
        at_risk: simulations at risk just before each [k].
        failures: simulations that failed at each [k].
        survival: estimate from each failure time on [k].
        lower, upper: ends of its pointwise interval [k].
        before: the same interval before the first failure, where the estimate is 1.
        ended: time at which each simulation failed or was censored [n], fs, in the order given.
        failed: whether it failed [n].
        interval: "exact" (Clopper-Pearson, nobody was censored before the last failure) or "log-log" (Greenwood).
        confidence: of the intervals.
        reasons: what failed -> how many, the most frequent first.
    """

    times: np.ndarray
    at_risk: np.ndarray
    failures: np.ndarray
    survival: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    before: tuple[float, float]
    ended: np.ndarray
    failed: np.ndarray
    interval: Interval
    confidence: float
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of simulations."""
        return len(self.ended)

    @property
    def n_failed(self) -> int:
        """Number of simulations that failed."""
        return int(self.failed.sum())

    @property
    def longest(self) -> float:
        """Longest time that any simulation was followed, fs; beyond it nothing is known."""
        return float(self.ended.max())

    def at(self, time: float) -> tuple[float, float, float]:
        """(estimate, lower, upper) at a time in fs; NaN beyond the longest time, unless all have failed by then."""
        if time > self.longest and not (self.n_failed and self.survival[-1] == 0):
            return np.nan, np.nan, np.nan
        index = int(np.searchsorted(self.times, time, side="right")) - 1
        if index < 0:
            return 1.0, *self.before
        return float(self.survival[index]), float(self.lower[index]), float(self.upper[index])

    def number_at_risk(self, times: ArrayLike) -> np.ndarray:
        """How many simulations neither failed nor were ended before each of the times [m] in fs."""
        return (self.ended[None, :] >= np.asarray(times, dtype=float)[:, None]).sum(axis=1)

    @property
    def median(self) -> float:
        """Time in fs by which half have failed; infinite when fewer than half failed while they were followed."""
        return self._first_below(self.survival)

    @property
    def median_interval(self) -> tuple[float, float]:
        """Interval of the median in fs: the times at which the interval of the curve contains one half."""
        return self._first_below(self.lower), self._first_below(self.upper)

    def _first_below(self, curve: np.ndarray) -> float:
        # Products of fractions such as 20/21 · 19/20 miss one half by rounding.
        below = np.flatnonzero(curve <= 0.5 + 1e-12)
        return float(self.times[below[0]]) if len(below) else np.inf


def kaplan_meier(
    times: ArrayLike,
    failed: ArrayLike,
    *,
    reasons: Sequence[str] = (),
    confidence: float = 0.95,
    interval: Interval | Literal["auto"] = "auto",
) -> Survival:
    """Estimate survival from simulations that failed and simulations that were ended while they held.

    While nobody is censored before the last failure (all were to run equally long), the number of survivors is binomial
    and the exact interval of Clopper and Pearson holds however few there are. Otherwise the log-log interval with
    Greenwood's variance is used, where it exists; at 1 and 0 it does not, and the exact interval for those at risk
    stands in. All intervals are pointwise.

    Args:
        times: fs at which each simulation failed or was ended [n].
        failed: True where it failed [n].
        reasons: what failed, one text per simulation ("" where nothing did), counted in the result.
        confidence: of the intervals.
        interval: "auto" as above, or one of the two.

    Raises:
        DataError: no simulation, unequal lengths, times that are negative or not finite, an exact interval asked for
            where somebody was censored before the last failure.
    """
    ended, lost = np.atleast_1d(np.asarray(times, dtype=float)), np.atleast_1d(np.asarray(failed, dtype=bool))
    if ended.ndim != 1 or ended.shape != lost.shape or len(ended) == 0:
        raise DataError("one time and one outcome per simulation are needed", where="kaplan_meier",
                        found=f"{ended.shape} times, {lost.shape} outcomes")  # fmt: skip
    if not np.isfinite(ended).all() or (ended < 0).any():
        raise DataError("a time that is negative or not finite", where="kaplan_meier",
                        found=ended[~(np.isfinite(ended) & (ended >= 0))][0])  # fmt: skip
    if len(reasons) not in (0, len(ended)):
        raise DataError("one reason per simulation", where="kaplan_meier", expected=len(ended), found=len(reasons))
    if not 0 < confidence < 1:
        raise DataError("a confidence lies between 0 and 1", where="kaplan_meier", found=confidence)
    early = bool(lost.any() and (ended[~lost] < ended[lost].max()).any())
    if interval == "exact" and early:
        raise DataError(
            "some were censored before the last failure", where="kaplan_meier", hint="Use interval='log-log'"
        )
    chosen: Interval = ("log-log" if early else "exact") if interval == "auto" else interval

    at, failures = np.unique(ended[lost], return_counts=True)
    at_risk = (ended[None, :] >= at[:, None]).sum(axis=1)
    survival = np.cumprod(1 - failures / at_risk)
    if chosen == "exact":
        left = len(ended) - np.cumsum(failures)
        survival = left / len(ended)
        lower, upper = clopper_pearson(left, np.full(len(left), len(ended)), confidence)
    else:
        lower, upper = _log_log(survival, at_risk, failures, confidence)
    low, high = clopper_pearson(np.array([len(ended)]), np.array([len(ended)]), confidence)
    counted = Counter(text for text, yes in zip(reasons, lost, strict=False) if yes)
    return Survival(
        times=at, at_risk=at_risk, failures=failures, survival=survival, lower=lower, upper=upper,
        before=(float(low[0]), float(high[0])), ended=ended, failed=lost, interval=chosen, confidence=confidence,
        reasons=dict(counted.most_common()),
    )  # fmt: skip


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Exact interval (lower [k], upper [k]) of a share from `successes` [k] in `trials` [k]."""
    k, n = np.asarray(successes, dtype=float), np.asarray(trials, dtype=float)
    tail = (1 - confidence) / 2
    with np.errstate(invalid="ignore"):
        lower = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, tail), 0.0)
        upper = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - tail), 1.0)
    return lower, upper


def _log_log(
    survival: np.ndarray, at_risk: np.ndarray, failures: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """exp(-exp(log(-log S) ± z σ / log S)) with σ² = Σ d / (r (r - d)); exact for those at risk where S is 0."""
    z = float(ndtri(0.5 + confidence / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.sqrt(np.cumsum(failures / (at_risk * (at_risk - failures))))
        centre, half = np.log(-np.log(survival)), z * deviation / np.abs(np.log(survival))
        lower, upper = np.exp(-np.exp(centre + half)), np.exp(-np.exp(centre - half))
    gone = survival <= 0
    lower[gone], upper[gone] = clopper_pearson(np.zeros(gone.sum()), at_risk[gone], confidence)
    return lower, upper


def restricted_mean(curve: Survival, until: float) -> float:
    """Mean time survived when the clock stops at `until` fs: the area below the curve, fs."""
    times = np.concatenate([[0.0], curve.times[curve.times < until], [until]])
    heights = np.concatenate([[1.0], curve.survival[curve.times < until]])
    return float(np.diff(times) @ heights)


def log_rank(one: Survival, other: Survival) -> float:
    """p-value of the hypothesis that two groups of simulations fail at the same rate at all times; 1 without failures.

    Source: N. Mantel, Cancer Chemother. Rep. 50, 163 (1966): hypergeometric variance, ties as they are.
    """
    return stratified_log_rank([(one, other)])


def stratified_log_rank(pairs: Iterable[Sequence[Survival]]) -> float:
    """`log_rank` of pairs of groups together: each is compared within itself, so that pairs may differ in hazard.

    Source: as `log_rank`; deviations from what is expected and variances are summed over the pairs.
    """
    deviation = variance = 0.0
    for one, other in pairs:
        for time in np.union1d(one.times, other.times):
            n1, n2 = (int((group.ended >= time).sum()) for group in (one, other))
            d1, d2 = (int(((group.ended == time) & group.failed).sum()) for group in (one, other))
            n, d = n1 + n2, d1 + d2
            deviation += d1 - d * n1 / n
            if n > 1:
                variance += d * (n1 / n) * (n2 / n) * (n - d) / (n - 1)
    if variance == 0:
        return 1.0
    return float(erfc(np.sqrt(deviation**2 / variance / 2)))
