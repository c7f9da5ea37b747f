"""Every potential on every set: frames seen in training, frames that two sets share, frames of equal density."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.analysis.cross_evaluation import cross_evaluation, density_pairs, is_in
from mlipkit.analysis.density import densities
from mlipkit.analysis.residuals import Residuals, residuals
from mlipkit.data import FrameSet
from mlipkit.errors import DataError


def frames(n: int, seed: int, edge: float | np.ndarray = 6.0) -> FrameSet:
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * np.broadcast_to(edge, n)[:, None, None]
    return FrameSet.from_arrays([8, 1, 1], rng.uniform(0, 5, (n, 3, 3)), cell=cell, pbc=[True] * 3, energy=np.zeros(n))


def off_by(set_: FrameSet, e: float | np.ndarray) -> Residuals:
    return residuals(set_.with_labels(energy=set_.energy + 3 * np.broadcast_to(e, len(set_))), set_)


def test_frames_of_the_training_set_are_told_apart():
    a, b = frames(6, 0), frames(5, 1)
    fitted_on = a[:4]
    good_where_seen = np.where(np.arange(6) < 4, 0.0, 0.01)
    cells = cross_evaluation(
        {"untouched": {"a": off_by(a, 0.02), "b": off_by(b, 0.02)},
         "tuned": {"a": off_by(a, good_where_seen), "b": off_by(b, 0.01)}},
        {"tuned": fitted_on}, n_draws=50,
    )  # fmt: skip
    assert [(cell.model, cell.test_set, cell.n_seen) for cell in cells] == [
        ("untouched", "a", 0), ("untouched", "b", 0), ("tuned", "a", 4), ("tuned", "b", 0),
    ]  # fmt: skip
    tuned = cells[2]
    assert tuned.everything is not None
    assert tuned.unseen is not None
    assert tuned.everything["rmse_e"][0] == pytest.approx(np.sqrt(2 / 6) * 10)
    assert (tuned.unseen["n_frames"], tuned.unseen["rmse_e"][0]) == (2, pytest.approx(10))
    assert cells[3].unseen == cells[3].everything
    whole = cross_evaluation({"tuned": {"a": off_by(fitted_on, 0.0)}}, {"tuned": a}, n_draws=50)[0]
    assert (whole.n_seen, whole.unseen) == (4, None)
    assert whole.to_json()["unseen"] is None


def test_shared_frames_count_or_do_not():
    a = frames(6, 0)
    b = FrameSet.concat([a[:2], frames(4, 1)])
    assert is_in(b, a).tolist() == [True, True, False, False, False, False]
    found = {"u": {"a": off_by(a, np.where(is_in(a, b), 0.03, 0.01)), "b": off_by(b, 0.01)}}
    kept = cross_evaluation(found, {}, n_draws=50)[0].everything
    left = cross_evaluation(found, {}, leave_out=a.select(is_in(a, b)), n_draws=50)[0].everything
    assert kept is not None
    assert left is not None
    assert (kept["n_frames"], left["n_frames"]) == (6, 4)
    assert left["rmse_e"][0] == pytest.approx(10)
    assert kept["rmse_e"][0] > 15
    gone = cross_evaluation(found, {}, leave_out=a, n_draws=50)[0]
    assert (gone.everything, gone.unseen) == (None, None)


def test_seeds_of_one_model_make_one_cell():
    a = frames(6, 0)
    cell = cross_evaluation({"m": {"a": [off_by(a, 0.01), off_by(a, -0.01)]}}, {"m": a[:1]}, n_draws=50)[0]
    assert cell.everything is not None
    assert cell.everything["n_seeds"] == 2
    assert cell.everything["mean_e"][0] == pytest.approx(0, abs=1e-9)


def test_training_frames_of_nobody_are_refused():
    with pytest.raises(DataError, match="no residuals of tunde"):
        cross_evaluation({"tuned": {"a": off_by(frames(2, 0), 0.0)}}, {"tunde": frames(2, 0)})


def test_pairs_of_equal_density():
    a = frames(4, 0, np.array([6.0, 6.5, 7.0, 9.0]))
    b = FrameSet.concat([a[:1], frames(3, 1, np.array([6.01, 7.01, 8.0]))])
    i, j = density_pairs(a, b)
    assert (i.tolist(), j.tolist()) == ([2], [2]), "a frame of both sets says nothing, and takes nobody's partner"
    assert abs(densities(a)[i] - densities(b)[j]).max() < 0.01
    none = density_pairs(a, frames(2, 2, 20.0))
    assert [len(x) for x in none] == [0, 0]
