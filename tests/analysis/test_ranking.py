"""Ranking: against SciPy and brute force, coverage of intervals, warnings and false alarms by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import spearmanr

from mlipkit.analysis.ranking import (
    first_warning,
    rank_correlation,
    roc,
    warning_tradeoff,
    warnings_before_failure,
)
from mlipkit.errors import DataError


def test_correlation_is_spearmans_also_with_ties():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 10, 200).astype(float)
    y = x + rng.normal(0, 4, 200)
    found = rank_correlation(x, y)
    assert found.value == pytest.approx(spearmanr(x, y)[0])
    assert found.low < found.value < found.high
    assert (found.n, found.groups) == (200, 200)


def test_area_is_the_chance_that_bad_scores_higher():
    rng = np.random.default_rng(1)
    score, error = rng.integers(0, 8, 120).astype(float), rng.random(120)
    found = roc(score, error, limit=0.7)
    bad, good = score[error > 0.7], score[error <= 0.7]
    pairs = (bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean()
    assert found.auc.value == pytest.approx(pairs)
    assert trapezoid(found.true_positive, found.false_positive) == pytest.approx(pairs)
    assert (found.false_positive[0], found.true_positive[-1]) == (0, 1)
    assert (found.n_bad, found.n_good) == (len(bad), len(good))
    assert roc(error, error > 0.5).auc.value == 1
    assert roc(-error, error, limit=0.5).auc.value == 0


def test_atoms_of_a_frame_are_no_independent_draws():
    """Score and error share a frame's chance: resampling atoms pretends to know, frames do not."""
    rng = np.random.default_rng(2)
    frame = np.repeat(np.arange(20), 50)
    shared, noise = rng.normal(size=20)[frame], rng.normal(size=20)[frame]
    score, error = shared + 0.1 * rng.normal(size=1000), noise + 0.1 * rng.normal(size=1000)
    by_atom, by_frame = rank_correlation(score, error), rank_correlation(score, error, frame)
    assert by_frame.groups == 20
    assert by_frame.high - by_frame.low > 3 * (by_atom.high - by_atom.low)
    assert by_frame.low < 0 < by_frame.high


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(60):
        level = rng.normal(size=30)
        frame = np.repeat(np.arange(30), 10)
        score, bad = level[frame] + rng.normal(size=300), rng.random(300) < 0.3
        score = score + bad  # AUC of N(1, 2) over N(0, 2): Φ(1/2)
        found = roc(score, bad, frame, replicas=200).auc
        inside.append(found.low < 0.6915 < found.high)
    assert np.mean(inside) > 0.83


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(DataError, match="one score, one error"):
        rank_correlation([1.0, 2, 3], [1.0, 2])
    with pytest.raises(DataError, match="not finite"):
        rank_correlation([1.0, 2, np.nan], [1.0, 2, 3])
    with pytest.raises(DataError, match="all items are of one kind"):
        roc([1.0, 2, 3], [False] * 3)
    with pytest.raises(DataError, match="without a limit"):
        roc([1.0, 2, 3], [0.1, 0.2, 0.3])


def test_a_warning_needs_consecutive_samples_and_comes_at_the_last_of_them():
    time = np.arange(8) * 10.0
    score = [0, 5, 0, 5, 5, 5, 0, 9]
    assert first_warning(time, score, 1.0) == 40.0
    assert first_warning(time, score, 1.0, consecutive=1) == 10.0
    assert first_warning(time, score, 1.0, consecutive=3) == 50.0
    assert np.isnan(first_warning(time, score, 10.0))


def test_lead_times_and_false_alarms_by_hand():
    time = np.arange(101) * 100.0  # 10 ps
    quiet, early, late, blind = (np.zeros(101) for _ in range(4))
    early[40:] = 2
    late[88:] = 2
    blind[:] = 0.5
    noisy = np.zeros(101)
    noisy[[10, 11, 50, 51, 52, 90]] = 2  # two warnings; one lone sample
    found = warnings_before_failure(
        [(time, early), (time, late), (time, blind), (time, quiet), (time, noisy)],
        [9000.0, 9000.0, 9000.0, None, np.nan],
        1.0,
    )
    assert found.lead[:2].tolist() == [9000 - 4100, 9000 - 8900]
    assert np.isnan(found.lead[2])
    assert found.warned[0] == pytest.approx(2 / 3)
    assert found.warned[1] < 2 / 3 < found.warned[2]
    assert found.median_lead.value == 2500
    assert found.false_alarms == 2
    assert found.stable_ps == 20
    assert found.per_ps[0] == pytest.approx(0.1)
    # Garwood's interval of a count of 2: 0.2422 to 7.2247
    assert found.per_ps[1:] == pytest.approx((0.2422 / 20, 7.2247 / 20), rel=1e-3)
    assert found.false_runs == 0.5


def test_a_warning_after_the_failure_is_none():
    time = np.arange(10) * 100.0
    score = np.where(time > 500, 5.0, 0.0)
    assert np.isnan(warnings_before_failure([(time, score)], [500.0], 1.0).lead).all()


def test_higher_limits_warn_less_and_alarm_less():
    rng = np.random.default_rng(4)
    time = np.arange(200) * 50.0
    runs, ends = [], []
    for index in range(10):
        score = rng.gamma(2, 0.5, 200)
        failing = index < 5
        if failing:
            score[120:] += np.linspace(0, 6, 80)
        runs.append((time, score))
        ends.append(time[-1] if failing else None)
    share, rate, lead = warning_tradeoff(runs, ends, [0.5, 1.5, 3.0, 5.0, 50.0])
    assert (np.diff(share) <= 0).all()
    assert (np.diff(rate)[1:] <= 0).all()
    assert (share[0], share[-1], rate[-1]) == (1, 0, 0)
    assert np.nanmax(lead) == lead[0]


def test_series_are_checked():
    with pytest.raises(DataError, match="one time of failure"):
        warnings_before_failure([], [], 1.0)
    with pytest.raises(DataError, match="run 0"):
        warnings_before_failure([([1.0, 0.5], [1, 2])], [None], 1.0)


@pytest.mark.parametrize(
    ("run", "options", "said"),
    [
        (([0, 1, 2, 3], [0, np.nan, 5, 5]), {}, "run 0: sample 1: a score is NaN"),
        (([0, np.nan, 2, 3], [0, 0, 5, 5]), {}, "times that grow"),
        (([0, 1, 2, 3], [0, 0, 5, 5]), {"consecutive": 0}, "found limit 1, 0 in a row"),
        (([0, 1, 2, 3], [0, 0, 5, 5]), {"limit": np.nan}, "found limit nan"),
    ],
)
def test_what_can_warn_of_nothing_is_refused(run, options: dict, said: str):
    options = {"limit": 1, **options}
    with pytest.raises(DataError, match=said):
        warnings_before_failure([run], [3], **options)
    with pytest.raises(DataError, match=said):
        first_warning(*run, **options)


def test_a_failure_before_the_first_sample_was_not_warned_of():
    found = warnings_before_failure([([10, 11], [5, 5])], [3.0], 1)
    assert np.isnan(found.lead).all()
    assert found.warned[0] == 0


def test_many_items_need_the_memory_of_one_draw():
    import tracemalloc

    rng = np.random.default_rng(0)
    score = rng.random(20_000)
    tracemalloc.start()
    rank_correlation(score, score + rng.random(20_000), replicas=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * score.nbytes, "100 draws at once would be 100 times"
