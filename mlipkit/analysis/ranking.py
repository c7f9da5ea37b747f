"""Does a score tell large errors from small ones, and does it warn before a run fails?

    ρ      Spearman's correlation of score and error: of their ranks, ties get the mean rank
    AUC    chance that a bad item (error above a limit) scores higher than a good one, ties count half; 0.5 is guessing
    lead   time of failure - time of the first warning of a run, fs

Items of one frame or run are no independent draws (197 atoms of a frame share its surroundings), so intervals come
from resampling whole groups. A warning is `consecutive` samples above the limit in a row and comes at the last of
these, when it is known. False alarms are counted where nothing failed: warnings per ps, with the exact interval of
Poisson counts.

Sources: T. Fawcett, Pattern Recognit. Lett. 27, 861 (2006), for the curve; F. Garwood, Biometrika 28, 437 (1936), for
the interval of counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2

from mlipkit.analysis.survival import clopper_pearson
from mlipkit.errors import DataError


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its bootstrap interval (NaN with fewer than two groups); `n` items in `groups` groups."""

    value: float
    low: float
    high: float
    n: int
    groups: int


@dataclass(frozen=True, eq=False)
class ROC:
    """Receiver operating characteristic of a score.

    Attributes:
        threshold: [K] descending, the first infinite; flagged is who scores at least that much.
        false_positive, true_positive: [K] shares of good and of bad items that are flagged.
        auc: area with its interval; n_bad, n_good: items.
        limit: error above which an item is bad, NaN when that was given as truth values.
    """

    threshold: np.ndarray
    false_positive: np.ndarray
    true_positive: np.ndarray
    auc: Estimate
    n_bad: int
    n_good: int
    limit: float


@dataclass(frozen=True, eq=False)
class Warnings:
    """How well a score with a limit warns of failures.

    Attributes:
        limit, consecutive: what a warning is.
        lead: fs [failed runs]; NaN where no warning came before the failure.
        warned: share of failing runs that were warned of, with its exact interval.
        median_lead: fs, of the warned runs, with a bootstrap interval over runs.
        false_alarms: warnings in runs that did not fail; per_ps: rate with its exact interval (low, high).
        stable_ps: simulated time of these runs.
        false_runs: share of runs that did not fail with a warning at all.
    """

    limit: float
    consecutive: int
    lead: np.ndarray
    warned: tuple[float, float, float]
    median_lead: Estimate
    false_alarms: int
    per_ps: tuple[float, float, float]
    stable_ps: float
    false_runs: float


def rank_correlation(
    score: ArrayLike, error: ArrayLike, groups: ArrayLike | None = None, *, replicas: int = 1000,
    confidence: float = 0.95, seed: int = 0,
) -> Estimate:  # fmt: skip
    """Spearman's ρ of score and true error [n], with an interval from resampling groups.

    Args:
        groups: frame or run of each item [n]; each item its own when None.

    Raises:
        DataError: fewer than three items, unequal lengths, values that are not finite.
    """
    x, y, group = _checked(score, error, groups)
    ranks_x, ranks_y = _Ranks(x), _Ranks(y)
    drawn = np.array([_pearson(ranks_x(w), ranks_y(w), w) for w in _draws(group, replicas, seed)])
    ones = np.ones(len(x))
    return _estimate(_pearson(ranks_x(ones), ranks_y(ones), ones), drawn, confidence, group)


def roc(
    score: ArrayLike, bad: ArrayLike, groups: ArrayLike | None = None, *, limit: float | None = None,
    replicas: int = 1000, confidence: float = 0.95, seed: int = 0,
) -> ROC:  # fmt: skip
    """ROC curve of a score and its area, with an interval from resampling groups.

    Args:
        score: [n]; high should mean bad.
        bad: truth [n]; or true errors [n], with `limit` above which an item is bad.
        groups: frame or run of each item [n].

    Raises:
        DataError: as `rank_correlation`; no bad item, or no good one.
    """
    truth = np.asarray(bad)
    if limit is None and truth.dtype.kind != "b":
        raise DataError("errors without a limit", where="roc", expected="truth values, or limit=...", found=truth.dtype)
    known = truth if limit is None else np.where(np.isfinite(truth.astype(float)), truth > limit, np.nan)
    x, y, group = _checked(score, known, groups)
    y = y > 0
    if not y.any() or y.all():
        raise DataError("all items are of one kind", where="roc", found=f"{y.sum()} bad of {len(y)}")
    values, inverse = np.unique(-x, return_inverse=True)
    flagged_bad = np.cumsum(np.bincount(inverse, y, minlength=len(values)))
    flagged_good = np.cumsum(np.bincount(inverse, ~y, minlength=len(values)))
    ranks = _Ranks(x)
    drawn = np.array([_auc(ranks, y, weights) for weights in _draws(group, replicas, seed)])
    return ROC(
        np.concatenate([[np.inf], -values]), np.concatenate([[0.0], flagged_good / (~y).sum()]),
        np.concatenate([[0.0], flagged_bad / y.sum()]),
        _estimate(_auc(ranks, y, np.ones(len(x))), drawn, confidence, group), int(y.sum()), int((~y).sum()),
        float("nan") if limit is None else float(limit),
    )  # fmt: skip


def first_warning(time: ArrayLike, score: ArrayLike, limit: float, consecutive: int = 2) -> float:
    """fs of the first warning of a run, NaN when there is none: `consecutive` scores above the limit in a row.

    Raises:
        DataError: times and scores of unequal length, times that do not grow, NaN, fewer than one in a row.
    """
    ((when, values),) = _series([(time, score)], [None])
    _check_warning(limit, consecutive)
    begun = _warnings(values, limit, consecutive)
    return float(when[begun[0]]) if len(begun) else float("nan")


def warnings_before_failure(
    runs: Sequence[tuple[ArrayLike, ArrayLike]],
    failed_at: Sequence[float | None],
    limit: float,
    *,
    consecutive: int = 2,
    replicas: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Warnings:
    """Lead times in runs that fail, false alarms per ps in runs that do not.

    Args:
        runs: (times in fs [T], scores [T]) of each run.
        failed_at: fs at which each run failed; None or NaN where it did not.
        limit: above which a score is suspicious.
        consecutive: samples in a row that make a warning.

    Raises:
        DataError: no run, unequal numbers, times and scores of unequal length, a score that is NaN.
    """
    series = _series(runs, failed_at)
    _check_warning(limit, consecutive)
    ends = np.array([np.nan if end is None else float(end) for end in failed_at])
    lead, alarms, quiet_ps, loud = [], 0, 0.0, []
    for (time, score), end in zip(series, ends.tolist(), strict=True):
        if np.isnan(end):
            found = _warnings(score, limit, consecutive)
            alarms += len(found)
            loud.append(len(found) > 0)
            quiet_ps += float(time[-1] - time[0]) / 1000
        else:
            before = time <= end
            begun = _warnings(score[before], limit, consecutive)
            lead.append(end - time[begun[0]] if len(begun) else np.nan)
    leads = np.array(lead)
    some = leads[np.isfinite(leads)]
    rng = np.random.default_rng(seed)
    drawn = np.median(rng.choice(some, (replicas, len(some))), axis=1) if len(some) > 1 else np.empty(0)
    median = float(np.median(some)) if len(some) else np.nan
    return Warnings(
        float(limit), consecutive, leads, _share(len(some), len(leads), confidence),
        _estimate(median, drawn, confidence, np.arange(len(some))), alarms, _rate(alarms, quiet_ps, confidence),
        quiet_ps,
        float(np.mean(loud)) if loud else float("nan"),
    )  # fmt: skip


def warning_tradeoff(
    runs: Sequence[tuple[ArrayLike, ArrayLike]], failed_at: Sequence[float | None], limits: ArrayLike,
    consecutive: int = 2,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """For limits [L]: share of failing runs warned of, false alarms per ps, median lead in fs; scores compare on these.

    A limit has no meaning across scores, but the share that is warned of at one rate of false alarms has.
    """
    found = [
        warnings_before_failure(runs, failed_at, float(limit), consecutive=consecutive, replicas=0)
        for limit in np.asarray(limits, dtype=float)
    ]
    columns = [(one.warned[0], one.per_ps[0], one.median_lead.value) for one in found]
    share, rate, lead = np.array(columns).reshape(-1, 3).T
    return share, rate, lead


class _Ranks:
    """Ranks of values under integer weights (an item of weight k counts k times), ties at their mean rank."""

    def __init__(self, values: np.ndarray) -> None:
        distinct, self.place = np.unique(values, return_inverse=True)
        self.size = len(distinct)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        each = np.bincount(self.place, weights, minlength=self.size)
        return (np.cumsum(each) - each + 0.5 * (each + 1))[self.place]


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    total = weights.sum()
    x, y = x - weights @ x / total, y - weights @ y / total
    size = np.sqrt((weights @ x**2) * (weights @ y**2))
    return float(weights @ (x * y) / size) if size > 0 else float("nan")


def _auc(ranks: _Ranks, bad: np.ndarray, weights: np.ndarray) -> float:
    """From the sum of ranks of the bad (Mann and Whitney)."""
    n_bad = weights[bad].sum()
    n_good = weights.sum() - n_bad
    if n_bad == 0 or n_good == 0:
        return float("nan")
    return float(((weights * ranks(weights))[bad].sum() - n_bad * (n_bad + 1) / 2) / (n_bad * n_good))


def _checked(score: ArrayLike, error: ArrayLike, groups: ArrayLike | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.asarray(score, dtype=float).ravel(), np.asarray(error, dtype=float).ravel()
    group = np.arange(len(x)) if groups is None else np.asarray(groups).ravel()
    if not len(x) == len(y) == len(group) or len(x) < 3:
        raise DataError(
            "one score, one error and one group per item, at least three items", where="ranking",
            found=f"{len(x)}, {len(y)}, {len(group)}",
        )  # fmt: skip
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("a score or error is not finite", where="ranking", hint="Leave these items out.")
    return x, y, np.unique(group, return_inverse=True)[1].reshape(-1)


def _draws(group: np.ndarray, replicas: int, seed: int) -> Iterator[np.ndarray]:
    """How often each item counts [n] when groups are drawn, `replicas` times, one at a time: items may be many."""
    n, rng = int(group.max()) + 1, np.random.default_rng(seed)
    for _ in range(replicas):
        yield rng.multinomial(n, np.full(n, 1 / n)).astype(float)[group]


def _estimate(value: float, drawn: np.ndarray, confidence: float, group: np.ndarray) -> Estimate:
    n = len(np.unique(group))
    known = drawn[np.isfinite(drawn)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail]) if n > 1 and len(known) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high), len(group), n)


def _warnings(score: np.ndarray, limit: float, consecutive: int) -> np.ndarray:
    """Samples at which a warning is raised: the `consecutive`-th in a row above the limit, once for each row."""
    above = np.concatenate([[0], (score > limit).astype(np.int64), [0]])
    start, end = np.flatnonzero(np.diff(above) == 1), np.flatnonzero(np.diff(above) == -1)
    return (start + consecutive - 1)[end - start >= consecutive]


def _series(
    runs: Sequence[tuple[ArrayLike, ArrayLike]], failed_at: Sequence[float | None]
) -> list[tuple[np.ndarray, np.ndarray]]:
    if not len(runs) or len(runs) != len(failed_at):
        raise DataError(
            "one time of failure (or None) per run", where="warnings", found=f"{len(runs)}, {len(failed_at)}"
        )
    series = [(np.asarray(time, dtype=float), np.asarray(score, dtype=float)) for time, score in runs]
    for index, (time, score) in enumerate(series):
        if time.shape != score.shape or not len(time) or not (np.diff(time) > 0).all():
            raise DataError("times that grow and one score for each", where=("warnings", f"run {index}"))
        if np.isnan(score).any():
            at = int(np.flatnonzero(np.isnan(score))[0])
            raise DataError(
                "a score is NaN, which warns of nothing", where=("warnings", f"run {index}", f"sample {at}")
            )
    return series


def _check_warning(limit: float, consecutive: int) -> None:
    if np.isnan(limit) or consecutive < 1:
        raise DataError(
            "no warning is made like this", expected="a limit, and one sample or more in a row",
            found=f"limit {limit}, {consecutive} in a row",
        )  # fmt: skip


def _share(k: int, n: int, confidence: float) -> tuple[float, float, float]:
    if n == 0:
        return float("nan"), float("nan"), float("nan")
    low, high = clopper_pearson([k], [n], confidence)
    return k / n, float(low[0]), float(high[0])


def _rate(count: int, time: float, confidence: float) -> tuple[float, float, float]:
    if time <= 0:
        return float("nan"), float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return count / time, float(low) / time, float(chi2.ppf(1 - tail, 2 * count + 2)) / 2 / time
