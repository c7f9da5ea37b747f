"""Survival curves against a hand-worked case, a textbook case, and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from mlipkit.analysis.survival import clopper_pearson, kaplan_meier, log_rank, stratified_log_rank
from mlipkit.errors import DataError

# E. J. Freireich et al., Blood 21, 699 (1963): weeks of remission of leukaemia; the case of D. R. Cox, D. Oakes,
# Analysis of Survival Data (1984), and of the manuals of statistics packages, whose numbers these are.
TREATED = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
RELAPSED = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def test_by_hand() -> None:
    """Five simulations: failures at 2 and 4, one ended at 3, two held to 5. S(2) = 4/5, S(4) = 4/5 · 2/3."""
    found = kaplan_meier([2, 3, 4, 5, 5], [True, False, True, False, False], reasons=["bond", "", "bond", "", ""])
    assert found.times.tolist() == [2, 4]
    assert found.at_risk.tolist() == [5, 3]
    assert found.failures.tolist() == [1, 1]
    assert found.survival == pytest.approx([4 / 5, 8 / 15])
    assert found.interval == "log-log"
    # Greenwood: σ² = 1/(5·4), then + 1/(3·2).
    half = 1.959964 * np.sqrt(1 / 20 + 1 / 6) / abs(np.log(8 / 15))
    assert found.lower[1] == pytest.approx((8 / 15) ** np.exp(half), rel=1e-6)
    assert found.upper[1] == pytest.approx((8 / 15) ** np.exp(-half), rel=1e-6)
    assert found.median == np.inf
    assert (found.n, found.n_failed, found.longest) == (5, 2, 5)
    assert found.reasons == {"bond": 2}
    assert found.at(1.9)[0] == 1
    assert found.at(2)[0] == found.at(3.99)[0] == pytest.approx(0.8)
    assert np.isnan(found.at(5.1)).all(), "nothing is known beyond the longest simulation"
    assert found.number_at_risk([0, 2, 2.5, 3, 5, 6]).tolist() == [5, 5, 4, 4, 2, 0]


def test_log_rank_of_two_arms_and_of_several_pairs() -> None:
    """Published: χ² = 16.79. Of equal pairs deviations and variances add up; of opposite ones nothing is left."""
    treated, placebo = kaplan_meier(TREATED, RELAPSED), kaplan_meier(PLACEBO, [True] * len(PLACEBO))
    assert log_rank(treated, placebo) == pytest.approx(chi2.sf(16.793, 1), rel=1e-3)
    assert log_rank(placebo, treated) == pytest.approx(log_rank(treated, placebo))
    assert stratified_log_rank([(treated, placebo)] * 2) == pytest.approx(chi2.sf(2 * 16.793, 1), rel=2e-3)
    assert stratified_log_rank([(treated, placebo), (placebo, treated)]) == pytest.approx(1.0)
    held = kaplan_meier([5, 5], [False, False])
    assert stratified_log_rank([(held, held)]) == stratified_log_rank([]) == 1.0


def test_freireich_treated_arm() -> None:
    """Published estimates, numbers at risk, log-log intervals and median."""
    found = kaplan_meier(TREATED, RELAPSED)
    assert found.times.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert found.at_risk.tolist() == [21, 17, 15, 12, 11, 7, 6]
    assert found.survival.round(3).tolist() == [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    assert found.interval == "log-log"
    assert found.lower.round(3).tolist() == [0.620, 0.563, 0.503, 0.432, 0.368, 0.268, 0.188]
    assert found.upper.round(3).tolist() == [0.952, 0.923, 0.889, 0.849, 0.805, 0.747, 0.680]
    assert found.median == 23
    assert found.median_interval == (13, np.inf)


def test_freireich_placebo_arm() -> None:
    """Nobody is censored: the estimate is the share that is left, and the interval is exact."""
    found = kaplan_meier(PLACEBO, np.ones(21))
    assert found.interval == "exact"
    assert found.survival * 21 == pytest.approx([19, 17, 16, 14, 12, 8, 6, 4, 3, 2, 1, 0])
    assert found.median == 8
    assert kaplan_meier(PLACEBO, np.ones(21), interval="log-log").median_interval == (4, 11)
    assert found.at(1000) == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 21)))


def test_exact_interval() -> None:
    """Clopper and Pearson: 0 of n and n of n by formula, 8 of 10 from their tables."""
    low, high = clopper_pearson([0, 20, 8], [20, 20, 10])
    assert (low[0], high[1]) == (0, 1)
    assert high[0] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert low[1] == pytest.approx(0.025 ** (1 / 20))
    assert (round(float(low[2]), 4), round(float(high[2]), 4)) == (0.4439, 0.9748)


def test_all_hold_and_all_fail() -> None:
    held = kaplan_meier([5000.0] * 20, [False] * 20)
    assert held.at(5000) == (1.0, pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert (held.median, held.median_interval) == (np.inf, (np.inf, np.inf))
    gone = kaplan_meier([1.0, 2.0, 2.0, 3.0], [True] * 4)
    assert gone.at(3)[0] == 0
    assert gone.median == 2
    late = kaplan_meier([1.0, 2.0, 3.0], [False, True, True])
    assert late.interval == "log-log"
    assert late.lower[-1] == 0
    assert late.upper[-1] == pytest.approx(0.975), "one was at risk"
    assert np.isfinite([late.lower, late.upper]).all()


@pytest.mark.parametrize("censored", [False, True])
def test_coverage(censored: bool) -> None:
    """Of simulated sets of 20 exponential lives the 95 % interval holds the truth about as often as it says."""
    random, inside, sets, life, at = np.random.default_rng(0), 0, 2000, 1000.0, 700.0
    for _ in range(sets):
        lives = random.exponential(life, 20)
        ends = random.uniform(300, 3000, 20) if censored else np.full(20, 2000.0)
        found = kaplan_meier(np.minimum(lives, ends), lives <= ends)
        estimate, low, high = found.at(at)
        inside += low <= np.exp(-at / life) <= high or np.isnan(estimate)
        assert censored or found.interval == "exact"
    # The exact interval may only be too wide; binomial error of the count itself: 3 σ = 1.5 %.
    assert (0.93 if censored else 0.95 - 0.015) <= inside / sets <= 0.99


def test_median_interval_covers() -> None:
    random, inside = np.random.default_rng(1), 0
    for _ in range(1000):
        found = kaplan_meier(random.exponential(1.0, 25), np.ones(25))
        low, high = found.median_interval
        inside += low <= np.log(2) <= high
    assert inside / 1000 >= 0.95 - 0.02


@pytest.mark.parametrize(
    ("times", "failed", "options", "reason"),
    [
        ([], [], {}, "one time and one outcome"),
        ([1, 2], [True], {}, "one time and one outcome"),
        ([1, -2], [True, True], {}, "negative or not finite; found -2"),
        ([1, np.nan], [True, True], {}, "not finite"),
        ([1, 2], [True, True], {"reasons": ["x"]}, "one reason per simulation"),
        ([1, 2], [False, True], {"interval": "exact"}, "censored before the last failure"),
        ([1], [True], {"confidence": 95}, "between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_refused(times: list, failed: list, options: dict, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        kaplan_meier(times, failed, **options)
