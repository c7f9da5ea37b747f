"""Wilson's interval of a share, and Newcombe's of a difference."""

from __future__ import annotations

import pytest

from mlipkit.analysis.proportions import difference, wilson
from mlipkit.errors import DataError


def test_the_interval_of_published_failures():
    # 13 of 100 and 0 of 100: closed form by hand.
    assert wilson(13, 100) == pytest.approx((0.07757, 0.20978), abs=1e-4)
    assert wilson(0, 100) == pytest.approx((0.0, 0.03699), abs=1e-4)
    assert wilson(100, 100)[1] == 1.0


def test_a_difference_that_holds_and_one_that_does_not():
    apart, low, high = difference((13, 100), (0, 100))
    assert apart == 0.13
    assert 0 < low < apart < high
    assert difference((3, 10), (2, 10))[1] < 0 < difference((3, 10), (2, 10))[2]
    # Newcombe 1998, method 10, example (a): 56/70 - 48/80.
    assert difference((56, 70), (48, 80)) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_no_trial_has_no_share():
    with pytest.raises(DataError, match="trials"):
        wilson(0, 0)
    with pytest.raises(DataError, match="trials"):
        wilson(3, 2)
