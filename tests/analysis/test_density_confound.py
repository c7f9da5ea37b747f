"""The density answers: a planted share is found, pairs agree in density, no pair is said so."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.analysis.coverage import Points
from mlipkit.analysis.density import densities
from mlipkit.analysis.density_confound import density_share, match, matched_by_density
from mlipkit.analysis.shift import analyse_shift
from mlipkit.analysis.soap import Soap
from mlipkit.data import FrameSet


def points(means: np.ndarray, rng: np.random.Generator, n: int = 6) -> Points:
    """Frames of n atoms around these scores."""
    z = np.repeat(means, n, axis=0) + 0.001 * rng.standard_normal((len(means) * n, means.shape[1]))
    return Points.of(z, np.ones(len(z), int), np.arange(len(means) + 1) * n)


def planted(share: float, rng: np.random.Generator, n: int = 40) -> tuple[Points, Points, np.ndarray, np.ndarray]:
    """Two sets apart along one axis, of which density explains `share`."""
    a, b = 1.0 + 0.05 * rng.standard_normal(n), 1.3 + 0.05 * rng.standard_normal(n)
    slope = share / (a.mean() - b.mean())
    sides = []
    for density, own in ((a, 1 - share), (b, 0.0)):
        x = own + slope * (density - b.mean()) + 0.01 * rng.standard_normal(n)
        sides.append(points(np.stack([x, np.zeros(n)], axis=1), rng))
    return *sides, a, b


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_planted_share_is_found(share: float):
    a, b, x, y = planted(share, np.random.default_rng(3))
    found = density_share(a, b, x, y)
    assert found is not None
    assert found.share == pytest.approx(share, abs=0.06)
    assert found.low - 0.01 <= share <= found.high + 0.01
    assert found.high - found.low < 0.3
    assert found.shift == pytest.approx(1.0, abs=0.05)


def test_without_density_there_is_no_answer():
    rng = np.random.default_rng(0)
    a, b, x, _ = planted(0.5, rng)
    assert density_share(a, b, x, np.full(40, np.nan)) is None
    assert density_share(a, b, np.ones(40), np.ones(40)) is None
    assert density_share(a, b, np.where(np.arange(40) < 2, x, np.nan), x) is None


def test_as_many_frames_are_paired_as_can_be():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 1, 30), rng.uniform(0.5, 1.5, 25)
    i, j = match(a, b, 0.02)
    assert np.abs(a[i] - b[j]).max() <= 0.02
    assert len(set(i)) == len(i)
    assert len(set(j)) == len(j)
    from scipy.optimize import linear_sum_assignment

    cost = np.abs(a[:, None] - b) > 0.02
    rows, columns = linear_sum_assignment(cost)
    assert len(i) == int((~cost[rows, columns]).sum())
    assert len(match(np.array([np.nan, 1.0]), np.array([1.0, np.nan]), 0.1)[0]) == 1
    assert len(match(a, b + 10, 0.02)[0]) == 0


def liquid(edge: float, spread: float, rng: np.random.Generator, n: int = 14) -> FrameSet:
    edges = edge + spread * rng.uniform(-1, 1, n)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3) / 2
    positions = np.array([grid * one + 0.2 * rng.standard_normal((8, 3)) for one in edges])
    return FrameSet.from_arrays(
        [18] * 8, positions, cell=np.eye(3) * edges[:, None, None], pbc=[True] * 3, source="argon"
    )


def test_frames_of_equal_density_are_compared_again():
    rng = np.random.default_rng(5)
    a, b = liquid(7.4, 0.25, rng), liquid(7.5, 0.25, rng)
    descriptor = Soap.of(a, n_max=3, l_max=2)
    found = analyse_shift({"a": a, "b": b}, descriptor=descriptor)
    matched = found.matched["a", "b"]
    assert matched is not None
    assert matched.coverage is not None
    assert matched.explained is not None
    assert 4 <= matched.n <= 14
    assert matched.coverage.n_frames == matched.n
    assert matched.density[0] == pytest.approx(matched.density[1], abs=matched.tolerance)
    assert set(matched.uids[0]) <= set(a.uids)
    assert set(matched.uids[1]) <= set(b.uids)
    assert set(matched.unmatched) == set(matched.same_axes) == {"only_a", "only_b", "jaccard", "beyond_b", "beyond_a"}
    assert any(f"{matched.n} pairs of frames remain" in text for text in found.sentences())


def test_no_common_density_is_said_plainly():
    rng = np.random.default_rng(6)
    a, b = liquid(7.0, 0.05, rng), liquid(8.0, 0.05, rng)
    descriptor = Soap.of(a, n_max=3, l_max=2)
    found = analyse_shift({"a": a, "b": b}, descriptor=descriptor)
    assert found.matched["a", "b"].n == 0  # type: ignore[union-attr]
    assert any(text.startswith("No frame of a has the density of a frame of b") for text in found.sentences())
    scores = found.scores["a"], found.scores["b"]
    few = matched_by_density(a[:2], a[2:4], scores, descriptor, 5, tolerance=1.0)
    assert few.n == 2
    assert few.coverage is None
    assert densities(a).mean() > densities(b).mean()
