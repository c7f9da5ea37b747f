"""PCA in passes over chunks against the direct decomposition, and what Q must be."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.analysis.descriptors import Rows
from mlipkit.analysis.outlyingness import NearestNeighbours, combined_index, hotelling_t2, q_residual
from mlipkit.analysis.pca import PCA, fit_pca, fit_per_element
from mlipkit.analysis.soap import Soap
from mlipkit.data import samples
from mlipkit.errors import DataError, ModelError


def table(n: int = 1500, p: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = 4.0 * 0.9 ** np.arange(p)
    return (rng.normal(size=(n, p)) * spread @ np.linalg.qr(rng.normal(size=(p, p)))[0] + 2.0).astype(np.float32)


def direct(X: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    centred = X - X.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred / (len(X) - 1))
    return values[::-1][:k], axes.T[::-1][:k], values


@pytest.mark.parametrize("p", [60, 700])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_chunks_give_the_direct_decomposition(p: int, k: int):
    X = table(900, p) if p == 60 else np.concatenate([table(900, 60), 1e-2 * table(900, p - 60, 1)], axis=1)
    values, axes, every = direct(X, k)
    pca = fit_pca([X[:100], X[100:650], X[650:]], k)
    assert pca.n_samples == 900
    np.testing.assert_allclose(pca.variance, values, rtol=1e-5)
    np.testing.assert_allclose(pca.total_variance, every.sum(), rtol=1e-5)
    np.testing.assert_allclose(np.abs((pca.components * axes).sum(axis=1)), 1.0, atol=1e-3)
    np.testing.assert_allclose(pca.mean, X.mean(axis=0, dtype=np.float64), atol=1e-5)
    largest = np.abs(pca.components).argmax(axis=1)
    assert (pca.components[np.arange(k), largest] > 0).all()


def test_a_seed_repeats_and_chunks_do_not_matter():
    X = table()
    a, b = fit_pca([X], 4, seed=3), fit_pca([X], 4, seed=3)
    np.testing.assert_array_equal(a.components, b.components)
    c = fit_pca(np.array_split(X, 7), 4, seed=9)
    np.testing.assert_allclose(a.components, c.components, atol=2e-4)


def test_all_components_leave_nothing_over():
    X = table(300, 30)
    pca = fit_pca([X], 30)
    assert pca.explained.sum() == pytest.approx(1.0, abs=1e-6)
    assert (pca.residual(X) <= 1e-8 * (X**2).sum(axis=1)).all()


def test_q_is_positive_falls_with_k_and_has_the_mean_of_the_variance_left_over():
    X, before = table(), None
    for k in (1, 2, 5, 10, 40):
        pca = fit_pca([X], k)
        q = q_residual(pca, X)
        assert (q >= 0).all()
        left = (pca.total_variance - pca.variance.sum()) * (len(X) - 1) / len(X)
        assert q.mean() == pytest.approx(left, rel=1e-4)
        assert before is None or (q <= before * (1 + 1e-5)).all()
        before = q


def test_the_printed_formula_gives_minus_q():
    """Equation 6 of arXiv 2603.10159 reads (X - X̂)(X̂ - X); as an elementwise product that is -Q."""
    X = table(50)
    pca = fit_pca([X], 5)
    estimate = pca.transform(X) @ pca.components + pca.mean
    printed = ((X - estimate) * (estimate - X)).sum(axis=1)
    np.testing.assert_allclose(printed, -pca.residual(X), rtol=1e-4)


def test_q_ignores_moves_within_the_plane_and_counts_moves_out_of_it():
    X = table()
    pca = fit_pca([X], 5)
    x, rng = X[:10], np.random.default_rng(1)
    within = x + 3.7 * pca.components[2]
    np.testing.assert_allclose(pca.residual(within), pca.residual(x), rtol=1e-4)
    np.testing.assert_allclose(pca.transform(within)[:, 2], pca.transform(x)[:, 2] + 3.7, rtol=1e-5)
    # Orthogonal to the plane and to what each row already has outside of it.
    a = 2.5
    for row in x:
        rest = row - pca.mean - pca.transform(row[None])[0] @ pca.components
        basis = np.linalg.qr(np.stack([*pca.components, rest, rng.normal(size=60)]).T)[0]
        moved = (row + a * basis[:, -1]).astype(np.float32)[None]
        assert pca.residual(moved)[0] == pytest.approx(pca.residual(row[None])[0] + a**2, rel=1e-4)


def test_one_reading_gives_the_same_scores_and_q():
    X = table()
    pca = fit_pca([X], 5)
    z, q = pca.project(X.copy())
    np.testing.assert_allclose(z, pca.transform(X), atol=1e-4)
    np.testing.assert_allclose(q, pca.residual(X), rtol=1e-5)


def test_q_is_right_to_float32_where_the_plane_holds_nearly_everything():
    """The difference of |x-μ|² and |z|² had lost three digits here, in another way on each kind of processor."""
    X = table() * np.where(np.arange(60) < 5, 1.0, 1e-3).astype(np.float32)
    pca = fit_pca([X], 5)
    mean, axes = np.float64(pca.mean), np.float64(pca.components)
    left = X - mean - (X - mean) @ axes.T @ axes
    expected = (left**2).sum(axis=1)
    assert expected.mean() < 1e-4 * ((X - mean) ** 2).sum(axis=1).mean()
    for found in (pca.residual(X), pca.project(X.copy())[1]):
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_t2_sees_the_outlier_within_the_plane_that_q_misses():
    X = table()
    pca = fit_pca([X], 5)
    q, t2 = pca.residual(X), hotelling_t2(pca.transform(X), pca.variance)
    assert t2.mean() == pytest.approx(5 * (len(X) - 1) / len(X), rel=1e-3)
    q_limit, t2_limit = q.mean() + 2 * q.std(), t2.mean() + 2 * t2.std()
    far = X[q < q.mean()][:1] + 8 * np.sqrt(pca.variance[0]) * pca.components[0]
    far_q, far_t2 = pca.residual(far), hotelling_t2(pca.transform(far), pca.variance)
    assert far_q[0] < q_limit
    assert far_t2[0] > 2 * t2_limit
    assert combined_index(far_q, far_t2, q_limit, t2_limit)[0] > 2.0
    assert NearestNeighbours(np.ones(len(X)), pca.transform(X)).distance(np.ones(1), pca.transform(far))[0] > 1.0


def test_nearest_neighbours_keep_to_their_element():
    z = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    near = NearestNeighbours(np.array([1, 1, 8]), z)
    np.testing.assert_allclose(near.distance(np.array([1, 8, 6]), np.zeros((3, 2))), [0.0, 1.0, np.inf])
    many = NearestNeighbours(np.ones(500), np.random.default_rng(0).normal(size=(500, 2)), most=100)
    assert len(many.z) == 100


def test_a_fraction_gives_as_many_components_as_it_takes():
    X = table()
    pca, every = fit_pca([X], 0.9), direct(X, 60)[2][::-1]
    enough = int(np.searchsorted(np.cumsum(every) / every.sum(), 0.9)) + 1
    assert pca.k == enough
    wide = np.random.default_rng(0).normal(size=(400, 300)).astype(np.float32)
    assert fit_pca([wide], 0.95).k > 64


def test_per_element_axes_are_those_of_the_element_alone():
    X, numbers = table(), np.random.default_rng(2).choice([1, 6, 8], 1500)
    X[numbers == 6] *= 2.0
    fitted = fit_per_element(np.array_split(X, 4), numbers, 3)
    assert set(fitted) == {1, 6, 8}
    for z, pca in fitted.items():
        alone = fit_pca([X[numbers == z]], 3)
        assert pca.element == z
        assert pca.n_samples == (numbers == z).sum()
        np.testing.assert_allclose(pca.variance, alone.variance, rtol=1e-4)
        np.testing.assert_allclose(pca.components, alone.components, atol=5e-3)


def test_round_trip_keeps_every_bit_and_the_species_hash(tmp_path):
    frames = samples.load("ethanol_300K")[:10]
    soap = Soap.of(frames, n_max=3, l_max=2)
    pca = fit_pca(Rows(soap, frames), 3)
    again = PCA.load(pca.save(tmp_path / "deep" / "pca.safetensors"))
    for name in ("mean", "components", "variance"):
        np.testing.assert_array_equal(getattr(again, name), getattr(pca, name))
    assert (again.total_variance, again.n_samples, again.element) == (pca.total_variance, 90, None)
    assert again.hash == soap.hash == pca.hash
    again.check(soap)
    with pytest.raises(ModelError, match=r"expected H C O; found H C N O"):
        again.check(Soap([1, 6, 7, 8], n_max=3, l_max=2))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["pca.safetensors"]


def test_files_that_hold_no_pca_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        PCA.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(ModelError, match="cannot be read"):
        PCA.load(tmp_path / "text.safetensors")
    with pytest.raises(ModelError, match="another kind of file"):
        PCA.load(samples.potential_path("ethanol_50"))


def test_rows_that_make_no_plane_are_refused():
    with pytest.raises(DataError, match="at least two atoms"):
        fit_pca([np.zeros((1, 4), np.float32)])
    with pytest.raises(DataError, match="not finite"):
        fit_pca([table(50), np.full((1, 60), np.nan, np.float32)], 2)
    with pytest.raises(DataError, match="number of components"):
        fit_pca([table(50)], 0)
    with pytest.raises(DataError, match="do not fit the fit"):
        fit_pca([table(50)], 2).residual(np.zeros((2, 3), np.float32))


def test_identical_rows_have_no_variance():
    pca = fit_pca([np.ones((20, 8), np.float32)], 3)
    assert pca.total_variance == 0.0
    np.testing.assert_array_equal(pca.residual(np.ones((2, 8), np.float32)), 0.0)
    assert pca.explained.sum() == 0.0


def test_chunks_of_different_width_are_refused():
    with pytest.raises(DataError, match="chunks of different width; expected 4; found 3"):
        fit_pca([np.ones((5, 4), np.float32), np.ones((5, 3), np.float32)], 2)


def test_a_very_large_k_costs_no_more_than_all_components():
    X = np.random.default_rng(0).normal(size=(12, 4000)).astype(np.float32)
    found = fit_pca([X], 10**9)
    assert found.k == 11
    assert found.residual(X).max() < 1e-8 * (X**2).sum(axis=1).max()
