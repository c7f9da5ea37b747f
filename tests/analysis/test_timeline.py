"""Trend of the distance to the fit-on set: planted drifts, none, and frames that are alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from shift_sets import cloud

from mlipkit.analysis.coverage import Points
from mlipkit.analysis.timeline import inefficiency, nearest_distance, timeline, trend
from mlipkit.errors import DataError


def test_distance_by_hand() -> None:
    """The nearest atom of the same element counts, however close another element is."""
    fit_on = Points.of([[0.0, 0], [1, 0], [5, 0]], [1, 1, 8], [0, 3])
    points = Points.of([[0.4, 0], [4.9, 0], [5, 3], [0, 2]], [1, 1, 8, 1], [0, 2, 4])
    assert nearest_distance(points, fit_on) == pytest.approx([0.4, 3.9, 3, 2])
    found = timeline(points, [0.0, 1.0], fit_on)
    assert found.distance == pytest.approx([np.median([0.4, 3.9]), 2.5])
    assert found.by_element[1] == pytest.approx([2.15, 2])
    assert np.isnan(found.by_element[8][0])


def test_a_drift_is_found_and_its_absence_too() -> None:
    fit_on, still = cloud(20), cloud(60, seed=1)
    frame = np.repeat(np.arange(60), 12)
    drifting = Points.of(still.projections + 0.05 * frame[:, None], still.numbers, still.offsets)
    found = timeline(drifting, np.arange(60.0), fit_on)
    assert found.trend.lower > 0.7
    assert found.trend_by_element[8].lower > 0.5
    none = timeline(still, np.arange(60.0), fit_on)
    assert none.trend.lower < 0 < none.trend.upper


def test_rho_is_spearmans() -> None:
    y = np.random.default_rng(2).normal(size=50) + np.arange(50) / 30
    assert trend(np.arange(50), y).rho == pytest.approx(spearmanr(np.arange(50), y).statistic)


def test_inefficiency_of_a_first_order_process() -> None:
    """g = (1 + a) / (1 - a)."""
    rng, values = np.random.default_rng(3), np.zeros(20_000)
    for i in range(1, len(values)):
        values[i] = 0.8 * values[i - 1] + rng.normal()
    assert inefficiency(values) == pytest.approx(9.0, rel=0.15)
    assert inefficiency(rng.normal(size=5000)) == pytest.approx(1.0, abs=0.15)


@pytest.mark.full
@pytest.mark.parametrize("memory", [0.0, 0.6])
def test_no_trend_is_claimed_where_frames_are_merely_alike(memory: float) -> None:
    rng, claims = np.random.default_rng(4), 0
    for _ in range(400):
        noise = rng.normal(size=150)
        for i in range(1, 150):
            noise[i] += memory * noise[i - 1]
        found = trend(np.arange(150), noise)
        claims += not found.lower <= 0 <= found.upper
    assert claims <= 400 * 0.08 + 3 * np.sqrt(32)


def test_too_little_to_say() -> None:
    assert np.isnan(trend([0, 1, 2], [1, 2, 3]).rho)
    assert np.isnan(trend(np.arange(9), np.ones(9)).rho)
    assert trend(np.arange(9), np.arange(9)).rho == pytest.approx(1)
    with pytest.raises(DataError, match="one time per frame"):
        timeline(cloud(3), [0, 2], cloud(3))
    with pytest.raises(DataError, match="does not hold"):
        nearest_distance(Points.of([[0.0, 0]], [17], [0, 1]), cloud(2))


@pytest.mark.parametrize("times", [[0.0, 2.0, 1.0], [0.0, np.nan, 1.0], [0.0, 1.0, 1.0]])
def test_the_frame_out_of_order_is_named(times: list) -> None:
    with pytest.raises(DataError, match=r"timeline: frame [12]: times do not ascend"):
        timeline(cloud(3), times, cloud(4))
