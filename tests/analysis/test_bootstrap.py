"""Hierarchical bootstrap: what is drawn together, unbiased variances, and intervals that hold."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.analysis.bootstrap import Design, Level, bootstrap, weighted_mean
from mlipkit.errors import DataError


def test_nested_draws_keep_sizes_and_families() -> None:
    """Two seeds of two trajectories of three frames: totals hold on every level, and one trajectory may come twice."""
    seed, trajectory = np.repeat([0, 1], 6), np.repeat([0, 1, 2, 3], 3)
    design = Design([seed, trajectory, np.arange(12)])
    weights = design.weights(500, np.random.default_rng(0))
    assert (weights.sum(axis=1) == 12).all()
    per_seed = weights.reshape(500, 2, 6).sum(axis=2)
    assert set(np.unique(per_seed)) == {0, 6, 12}, "a seed comes whole"
    assert set(np.unique(weights.reshape(500, 4, 3).sum(axis=2)) % 3) == {0}, "a trajectory brings three frames"
    assert weights.max() > 2
    assert weights.mean(axis=0) == pytest.approx(np.ones(12), abs=0.3)


def test_labels_may_repeat_between_parents() -> None:
    """Trajectory 0 of seed 0 is not trajectory 0 of seed 1."""
    seed, trajectory = np.repeat([0, 1], 4), np.tile([0, 0, 1, 1], 2)
    parts = Design([seed, trajectory, np.arange(8)]).components()
    assert [(part.groups, part.parents) for part in parts] == [(2, 1), (4, 2), (8, 4)]


def test_crossed_factors_draw_a_frame_for_every_seed() -> None:
    seed, frame = np.repeat([0, 1, 2], 4), np.tile([0, 1, 2, 3], 3)
    weights = Design([seed], [frame]).weights(200, np.random.default_rng(1)).reshape(200, 3, 4)
    assert weights.sum(axis=(1, 2)) == pytest.approx(12)
    for one in weights:
        assert np.linalg.matrix_rank(one) == 1, "seeds times frames"


def test_strata_are_never_drawn_but_keep_their_sizes() -> None:
    arm, row = np.repeat([0, 1], [3, 5]), np.arange(8)
    weights = Design([Level(arm, drawn=False), row]).weights(300, np.random.default_rng(2))
    assert (weights[:, :3].sum(axis=1) == 3).all()
    assert (weights[:, 3:].sum(axis=1) == 5).all()


@pytest.mark.parametrize("method", ["percentile", "bca", "t"])
def test_mean_of_many_rows_meets_the_textbook(method: str) -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, 400)
    found = bootstrap(weighted_mean(values), Design([np.arange(400)]), method=method, n_draws=4000)
    half = 1.966 * values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std(ddof=1) / 20, rel=0.05)
    assert [found.lower, found.upper] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.02)
    assert found.half_width == pytest.approx(half, rel=0.06)
    assert bootstrap(weighted_mean(values), Design([np.arange(400)]), method=method, n_draws=200, seed=7).lower == (
        bootstrap(weighted_mean(values), Design([np.arange(400)]), method=method, n_draws=200, seed=7).lower
    ), "the seed decides"


def test_three_rows_get_students_t() -> None:
    values = np.array([1.0, 2.0, 4.0])
    found = bootstrap(weighted_mean(values), Design([np.arange(3)]), n_draws=20_000)
    assert found.half_width == pytest.approx(4.303 * values.std(ddof=1) / np.sqrt(3), rel=0.02)
    narrow = bootstrap(weighted_mean(values), Design([np.arange(3)]), method="percentile", n_draws=20_000)
    assert narrow.half_width < 0.5 * found.half_width


def test_bca_leans_the_right_way() -> None:
    """Mean of a skewed sample: both ends move towards the long tail (Efron 1987)."""
    values = np.random.default_rng(5).exponential(1.0, 40)
    design = Design([np.arange(40)])
    plain = bootstrap(weighted_mean(values), design, method="percentile", n_draws=8000)
    bent = bootstrap(weighted_mean(values), design, method="bca", n_draws=8000)
    assert bent.lower > plain.lower
    assert bent.upper > plain.upper


def test_several_figures_at_once() -> None:
    values = np.random.default_rng(6).normal([0, 1, 2], 1.0, (60, 3))
    for method in ("percentile", "bca", "t"):
        found = bootstrap(weighted_mean(values), Design([np.arange(60)]), method=method, n_draws=300)
        assert found.value.shape == found.lower.shape == found.upper.shape == (3,)
        assert (found.lower < found.value).all()
        assert (found.value < found.upper).all()


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(DataError, match="one label per row"):
        Design([np.arange(3), np.arange(4)])
    with pytest.raises(DataError, match="nothing to draw"):
        bootstrap(weighted_mean([1.0]), Design([np.arange(1)]))
    with pytest.raises(DataError, match="not finite"):
        bootstrap(weighted_mean([np.nan, 1.0]), Design([np.arange(2)]))


@pytest.mark.full
def test_nested_interval_holds_where_percentiles_do_not() -> None:
    """Four groups of ten: about one in twenty t intervals may miss; far more percentile ones do."""
    rng, missed = np.random.default_rng(8), {"t": 0, "percentile": 0}
    design = Design([np.repeat(np.arange(4), 10), np.arange(40)])
    for trial in range(400):
        values = np.repeat(rng.normal(size=4), 10) + rng.normal(size=40)
        for method in missed:
            found = bootstrap(weighted_mean(values), design, method=method, n_draws=200, seed=trial)
            missed[method] += not found.lower <= 0 <= found.upper
    assert missed["t"] <= 20 + 3 * np.sqrt(20)
    assert missed["percentile"] > 2 * 20


def test_a_misspelt_method_is_not_another_method() -> None:
    with pytest.raises(DataError, match=r"method: no such choice.*bca, percentile, t"):
        bootstrap(weighted_mean([1.0, 2.0, 3.0]), Design([[0, 1, 2]]), method="BCA")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="n_draws"):
        bootstrap(weighted_mean([1.0, 2.0, 3.0]), Design([[0, 1, 2]]), n_draws=1)
