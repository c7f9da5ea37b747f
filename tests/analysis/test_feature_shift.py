"""t-SNE and its companions: repeatable maps, known distances, no shift where there is none, groups kept together."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from mlipkit.analysis.embedding import largest_perplexity, standardised, tsne
from mlipkit.analysis.feature_shift import classifier_auc, feature_shift, feature_shifts, frechet_distance
from mlipkit.errors import DataError

pytest.importorskip("sklearn")


def two_clouds(gap: float, n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 6)), rng.normal(size=(n, 6))
    y[:, 0] += gap
    return x, y


def test_a_map_keeps_clouds_apart_and_repeats() -> None:
    pytest.importorskip("openTSNE")
    x, y = two_clouds(12.0, 40)
    table = np.concatenate([x, y])
    first, second = tsne(table, iterations=300, seed=3), tsne(table, iterations=300, seed=3)
    assert np.array_equal(first.points, second.points)
    assert first.perplexity == pytest.approx(largest_perplexity(80))
    gap = np.linalg.norm(first.points[:40].mean(axis=0) - first.points[40:].mean(axis=0))
    assert gap > 2 * first.points[:40].std(axis=0).max()
    assert first.divergence > 0


def test_perplexity_must_fit_the_number_of_points() -> None:
    with pytest.raises(DataError, match=r"perplexity.*1 to 9\.667 for 30 points.*found 30"):
        tsne(np.random.default_rng(0).normal(size=(30, 3)), perplexity=30)
    with pytest.raises(DataError, match="8 to 20000 rows"):
        tsne(np.zeros((4, 3)))
    with pytest.raises(DataError, match="not finite"):
        tsne(np.full((20, 3), np.nan))


def test_only_the_fit_on_set_sets_the_scale() -> None:
    x, y = two_clouds(3.0)
    x[:, 5] = y[:, 5] = 2.0
    a, b = standardised(x, y)
    assert a.mean(axis=0) == pytest.approx(0, abs=1e-12)
    assert (a**2).sum() == pytest.approx(x.shape[0] * 5), "standard deviation one, but for the constant column"
    assert np.array_equal(a, standardised(x, 100 * y)[0])
    assert np.linalg.norm(b.mean(axis=0)) == pytest.approx(3.0 / x[:, 0].std(), rel=0.2)


def test_frechet_distance_by_hand() -> None:
    """Standard deviations 1 and 2 in one dimension, means 3 apart: 3² + (1 - 2)²."""
    x = np.random.default_rng(1).normal(size=4000)
    x = ((x - x.mean()) / x.std(ddof=1))[:, None]
    assert frechet_distance(x, 2 * x + 3) == pytest.approx(10.0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8)


def test_a_shift_is_seen_by_all_three() -> None:
    x, y = two_clouds(2.0)
    found = feature_shift(x, y, n_permutations=200)
    assert found.mmd_p < 0.01
    assert found.mmd2_lower > 0
    assert found.auc > 0.85
    assert found.frechet == pytest.approx(4.0, abs=2.0)
    nearer = feature_shift(x, two_clouds(0.7, seed=0)[1], n_permutations=200)
    assert (nearer.mmd2, nearer.frechet, nearer.auc) < (found.mmd2, found.frechet, found.auc)


def test_no_shift_no_claim_with_more_features_than_rows() -> None:
    """Axes fill with the rows that set them: compared with themselves, training rows would always look shifted."""
    found = []
    for seed in range(24):
        x, y = np.random.default_rng(seed).normal(size=(2, 60, 128))
        found.append(feature_shift(x, y, n_permutations=99, folds=3))
    assert sum(one.mmd_p <= 0.05 for one in found) <= 5, "1.2 of 24 by chance"
    assert np.mean([one.mmd2 for one in found]) == pytest.approx(0, abs=0.002)
    assert np.mean([one.auc for one in found]) == pytest.approx(0.5, abs=0.05)
    assert (found[0].n_train, found[0].groups_axes, found[0].n_test) == (30, 30, 60)


@pytest.mark.full
def test_no_shift_no_claim() -> None:
    found = [feature_shift(*two_clouds(0.0, 30, seed), n_permutations=99, folds=3) for seed in range(80)]
    claims = sum(one.mmd_p <= 0.05 for one in found)
    assert claims <= 80 * 0.05 + 3 * np.sqrt(80 * 0.05)
    assert np.mean([one.mmd2 for one in found]) == pytest.approx(0, abs=0.005), "unbiased"
    assert np.mean([one.auc for one in found]) == pytest.approx(0.5, abs=0.05)


def test_atoms_of_a_frame_are_not_witnesses_each() -> None:
    """Frames of 20 nearly equal atoms, no shift between the sets: by rows all looks certain, by frames nothing is."""
    groups, by_row, by_frame = np.repeat(np.arange(8), 20), [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, y = (np.repeat(rng.normal(size=(8, 12)), 20, axis=0) + 0.05 * rng.normal(size=(160, 12)) for _ in range(2))
        by_row.append(feature_shift(x, y, n_permutations=99))
        by_frame.append(feature_shift(x, y, train_groups=groups, test_groups=groups, n_permutations=99))
    assert all(one.mmd_p == 0.01 for one in by_row)
    assert min(one.auc for one in by_row) > 0.9
    assert np.median([one.mmd_p for one in by_frame]) > 0.1
    assert np.mean([one.auc for one in by_frame]) < 0.75
    assert (by_frame[0].groups_axes, by_frame[0].groups_train, by_frame[0].n_train) == (4, 4, 80)


def test_no_group_straddles_a_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn import model_selection

    seen = []

    class Watched(model_selection.StratifiedGroupKFold):
        def split(self, X, y, groups):
            for learn, judge in super().split(X, y, groups):
                seen.append(set(groups[learn]) & set(groups[judge]))
                yield learn, judge

    monkeypatch.setattr(model_selection, "StratifiedGroupKFold", Watched)
    x, y = two_clouds(1.0)
    classifier_auc(x, y, np.repeat(np.arange(12), 5), np.repeat(np.arange(12), 5))
    assert seen == [set()] * 5, "equal labels in the two sets are different groups, too"


def test_before_and_after_adaptation() -> None:
    """Adaptation halves the gap: all measures of the second feature set are smaller."""
    x, far = two_clouds(3.0, seed=6)
    near = far - np.eye(6)[0] * 1.5
    found = feature_shifts({"before": (x, far), "after": (x, near)})
    assert list(found) == ["before", "after"]
    for name in ("mmd2", "frechet", "auc"):
        assert getattr(found["after"], name) < getattr(found["before"], name)


def test_large_sets_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("mlipkit.analysis.feature_shift")
    monkeypatch.setattr(module, "MAX_ROWS", 40)
    groups = np.repeat(np.arange(10), 20)
    kept = module._thinned(groups, np.random.default_rng(0))
    assert np.bincount(groups[kept]).tolist() == [4] * 10


def test_sets_that_cannot_be_compared() -> None:
    with pytest.raises(DataError, match=r"4 of training.*found 1 and 5"):
        feature_shift(np.zeros((5, 2)), np.zeros((5, 2)), train_groups=np.zeros(5))
    with pytest.raises(DataError, match="equal width"):
        feature_shift(np.zeros((5, 2)), np.zeros((5, 3)))
    with pytest.raises(DataError, match="one group per row"):
        feature_shift(np.zeros((5, 2)), np.zeros((5, 2)), train_groups=[0, 1])


def test_maps_of_nothing_are_refused() -> None:
    points = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(DataError, match="all points are the same"):
        tsne(np.ones((20, 3)))
    with pytest.raises(DataError, match="2 columns"):
        tsne(points[:, :1])
    with pytest.raises(DataError, match="iterations"):
        tsne(points, iterations=0)
    with pytest.raises(DataError, match="at least one component"):
        feature_shift(points, points, components=0)


def test_frechet_distance_of_a_singular_covariance(recwarn: pytest.WarningsRecorder) -> None:
    """Two flat clouds, one turned by a right angle: Tr(Σ_x) + Tr(Σ_y), nothing in common."""
    x = np.random.default_rng(2).normal(size=(50, 1))
    x = (x - x.mean()) / x.std(ddof=1)
    assert frechet_distance(x * [1.0, 0.0], x * [0.0, 1.0]) == pytest.approx(2.0)
    assert not recwarn.list
