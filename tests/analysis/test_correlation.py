"""Correlation time of series whose memory is known."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.analysis.correlation import correlation_time, decorrelated_rows


def remembering(memory: float, rows: int = 40_000, seed: int = 0) -> np.ndarray:
    """First-order autoregression: ρ(t) = memory^t."""
    kicks = np.random.default_rng(seed).normal(size=rows)
    for i in range(1, rows):
        kicks[i] += memory * kicks[i - 1]
    return kicks


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, 0.97])
def test_the_correlation_time_is_that_of_the_law(memory):
    assert correlation_time(remembering(memory)) == pytest.approx((1 + memory) / (1 - memory), rel=0.2)


def test_a_drift_is_no_memory():
    values = remembering(0.5)
    assert correlation_time(values + np.linspace(0, 50, len(values))) == pytest.approx(
        correlation_time(values), rel=0.1
    )


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0], [5.0] * 20, np.arange(20.0), [np.nan] * 20])
def test_what_has_no_spread_counts_row_by_row(values):
    assert correlation_time(values) == 1.0


def test_rows_are_counted_back_from_the_last():
    assert decorrelated_rows(20, 3.2, 4) == [7, 11, 15, 19]
    assert decorrelated_rows(5, 1.0, 10) == [0, 1, 2, 3, 4]
    assert decorrelated_rows(5, 100.0, 10) == [4]
    assert decorrelated_rows(0, 1.0, 10) == []
