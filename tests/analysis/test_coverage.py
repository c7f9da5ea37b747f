"""Coverage and growth: identities, hand-counted bins, equal numbers of frames, intervals that hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from shift_sets import cloud

from mlipkit.analysis.coverage import Points, coverage, nearest_by_frame, occupied, select_frames
from mlipkit.analysis.growth import growth
from mlipkit.errors import DataError


def test_a_set_covers_itself_and_disjoint_sets_nothing() -> None:
    a = cloud(20)
    same = coverage(a, a, n_draws=50)
    for share in (*same.only_a, *same.only_b):
        assert share.value == pytest.approx(0)
    assert [one.value.tolist() for one in same.jaccard] == [[1, 1, 1]] * 3
    # The limit is the 99th percentile of distances between frames; within one set all atoms lie at distance 0.
    assert same.beyond_b.value == pytest.approx(0)
    away = coverage(a, cloud(20, centre=50.0, seed=1), n_draws=50)
    for share in (*away.only_a, *away.only_b, away.beyond_a, away.beyond_b):
        assert share.value == pytest.approx(1)
        assert share.lower == pytest.approx(1)
    assert [one.value.tolist() for one in away.jaccard] == [[0, 0, 0]] * 3


def test_bins_by_hand() -> None:
    """Hydrogen of A in bins 0, 1, 2 and of B in 1, 2, 3; oxygen of both in bin 0: elements never share a bin."""

    def line(at: list[float]) -> Points:
        scores = np.column_stack([[*at, 0.05], np.zeros(4), np.zeros(4)])
        two = np.concatenate([scores, scores])
        return Points.of(two, np.tile([1, 1, 1, 8], 2), [0, 4, 8])

    found = coverage(line([0.05, 0.15, 0.25]), line([0.15, 0.25, 0.35]), widths=[0.1], n_draws=20)
    assert found.elements.tolist() == [1, 8]
    assert found.only_a[0].value == pytest.approx([1 / 3, 0, 1 / 4])
    assert found.only_b[0].value == pytest.approx([1 / 3, 0, 1 / 4])
    assert found.jaccard[0].value == pytest.approx([2 / 4, 1, 3 / 5])
    coarse = coverage(line([0.05, 0.15, 0.25]), line([0.15, 0.25, 0.35]), widths=[1.0], n_draws=20)
    assert coarse.jaccard[0].value == pytest.approx(1)


def test_negative_scores_fall_to_the_left() -> None:
    points = Points.of([[-0.01, 0.01], [0.01, 0.01]], [1, 1], [0, 2])
    assert occupied(points, 0.1)[:, 2:].tolist() == [[-1, 0], [0, 0]]


def test_more_frames_are_not_more_coverage() -> None:
    """A holds four times the frames of B, both from one distribution: neither set may look larger."""
    found = coverage(cloud(80, seed=2), cloud(20, seed=3), n_draws=100)
    assert found.n_frames == 20
    for a, b in zip(found.only_a, found.only_b, strict=True):
        assert a.value == pytest.approx(b.value, abs=0.06)
    assert found.beyond_b.value[-1] < 0.04


def test_one_element_alone_outside() -> None:
    a, b = cloud(20, seed=4), cloud(20, seed=5)
    moved = a.projections + np.where(a.numbers == 8, 20.0, 0.0)[:, None]
    found = coverage(Points.of(moved, a.numbers, a.offsets), b, n_draws=30)
    hydrogen, oxygen, together = found.beyond_b.value
    assert hydrogen < 0.05
    assert oxygen == 1
    assert together == pytest.approx(hydrogen * 2 / 3 + 1 / 3)
    assert found.only_a[1].value[1] == 1


def test_an_element_that_only_one_set_holds() -> None:
    a, b = cloud(10, seed=6), cloud(10, seed=7)
    numbers = np.where(np.arange(len(a.numbers)) % 12 == 0, 17, a.numbers)
    found = coverage(Points.of(a.projections, numbers, a.offsets), b, n_draws=20)
    chlorine = found.elements.tolist().index(17)
    assert found.beyond_b.value[chlorine] == found.only_a[0].value[chlorine] == 1
    assert np.isnan(found.beyond_a.value[chlorine])


def test_the_own_frame_does_not_count_as_a_neighbour() -> None:
    """Pairs of atoms 0.01 apart within a frame, frames 1 apart: the limit is 1, not 0.01."""
    x = np.repeat(np.arange(6.0), 2) + np.tile([0, 0.01], 6)
    b = Points.of(np.column_stack([x, np.zeros(12)]), np.ones(12), np.arange(7) * 2)
    found = coverage(b, b, n_draws=10)
    assert found.limit_b == pytest.approx([0.99], abs=0.011)
    table = nearest_by_frame(b, b, [1])
    assert table.shape == (12, 6)
    assert table[0, 1] == pytest.approx(1.0)


def test_selecting_frames() -> None:
    points = cloud(5)
    chosen = select_frames(points, [3, 0])
    assert chosen.projections[:12] == pytest.approx(points.projections[36:48])
    assert chosen.offsets.tolist() == [0, 12, 24]


@pytest.mark.full
def test_the_interval_holds_what_new_frames_would_show() -> None:
    """Sets half a width apart, drawn anew 60 times: the mean over all sets lies in nearly all intervals."""
    found = [
        coverage(cloud(15, seed=2 * i), cloud(15, seed=2 * i + 1, centre=0.5), widths=[0.4], n_draws=100)
        for i in range(60)
    ]
    for name in ("only_a", "beyond_b"):
        shares = [one.only_a[0] if name == "only_a" else one.beyond_b for one in found]
        truth = np.mean([one.value[-1] for one in shares])
        held = np.mean([one.lower[-1] <= truth <= one.upper[-1] for one in shares])
        assert held >= 0.85, name


def test_sets_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(DataError, match="do not belong together"):
        Points.of(np.zeros((4, 2)), [1, 1, 1], [0, 4])
    with pytest.raises(DataError, match="at least two frames"):
        coverage(cloud(1), cloud(5))


def test_growth_counts_what_is_new() -> None:
    """Three iterations in one dimension: bins 0 and 1, then 1 and 2, then nothing new."""
    x = np.array([0.05, 0.15, 0.15, 0.25, 0.25, 0.05])
    points = Points.of(np.column_stack([x, np.zeros(6)]), np.ones(6), [0, 2, 4, 6])
    found = growth(points, ["U", "FT1", "FT2"])
    assert found.iterations == ("U", "FT1", "FT2")
    assert found.new[:, -1].tolist() == [2, 1, 0]
    assert found.total[:, -1].tolist() == [2, 3, 3]
    assert found.born.tolist() == [0, 0, 1]
    assert growth(points, ["U", "FT1", "FT2"], order=["FT2", "FT1", "U"]).new[:, -1].tolist() == [2, 1, 0]
    with pytest.raises(DataError, match="does not name"):
        growth(points, ["U", "FT1", "FT9"], order=["U", "FT1"])


def test_a_union_never_shrinks_and_elements_add_up() -> None:
    points = cloud(30, seed=8)
    found = growth(points, np.repeat(np.arange(6), 5))
    assert (np.diff(found.total, axis=0) >= 0).all()
    assert found.new[:, :-1].sum(axis=1) == pytest.approx(found.new[:, -1])
    assert found.total[-1, -1] == len(found.bins) == len(np.unique(occupied(points, 0.1)[:, 1:], axis=0))
    assert found.per_frame[0] == pytest.approx(found.new[0] / 5)
    last = growth(points, np.repeat(np.arange(6), 5), order=[5, 4, 3, 2, 1, 0])
    assert last.total[-1].tolist() == found.total[-1].tolist(), "the union does not know the order"


@pytest.mark.parametrize(
    ("options", "said"),
    [({"widths": (0.0,)}, "width"), ({"widths": (-0.1,)}, "width"), ({"components": (0, 5)}, "two of 0 to 2; found")],
)
def test_bins_that_do_not_exist_are_refused(options: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        coverage(cloud(3), cloud(4), **options)


def test_scores_that_are_not_finite_are_refused_whoever_gives_them() -> None:
    good = cloud(3)
    with pytest.raises(DataError, match="coverage: b: scores are not finite"):
        coverage(good, Points(np.nan * good.projections, good.numbers, good.offsets))


def test_an_iteration_named_twice_is_refused() -> None:
    with pytest.raises(DataError, match="named twice"):
        growth(cloud(3), ["a", "a", "b"], order=["a", "b", "a"])
    with pytest.raises(DataError, match="width"):
        growth(cloud(3), ["a", "a", "b"], width=0.0)
