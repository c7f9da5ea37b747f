"""One roll-out beside its AIMD run: equal to the batched evaluation, and to a reference that the potential made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mlipkit as mk
from mlipkit.data import FrameSet, samples
from mlipkit.errors import DataError
from mlipkit.models import BasePotential
from mlipkit.plots.rollouts import beside_aimd, error_by_rollout_steps, stage_marks
from mlipkit.strategies.dynamic import aimd_runs, nve_rollouts
from mlipkit.strategies.dynamic.beside import Beside, roll_beside


class Springs(BasePotential):
    """Every atom on a spring to the origin; force beyond `breaks` Å is no number."""

    cutoff = 3.0  # type: ignore[assignment]

    def __init__(self, k: float = 20.0, breaks: float = np.inf) -> None:
        super().__init__([1, 6, 8])
        self.k = torch.nn.Parameter(torch.tensor(k, dtype=torch.float64))
        self.breaks = breaks

    def evaluate(self, graph, positions, cell):
        broken = bool((positions.abs() > self.breaks).any())
        return (0.5 * self.k * (positions * positions).sum(1)) * (torch.nan if broken else 1.0), None


@pytest.fixture(scope="module")
def ethanol() -> FrameSet:
    return samples.load("ethanol_nve")


@pytest.fixture(scope="module")
def potential() -> BasePotential:
    return mk.load("sample:ethanol_1000")


@pytest.fixture(scope="module")
def found(potential: BasePotential, ethanol: FrameSet) -> Beside:
    return roll_beside(potential, ethanol, 812, 60)


def test_it_is_the_roll_out_that_evaluations_make(found: Beside, potential: BasePotential, ethanol: FrameSet) -> None:
    run = aimd_runs(ethanol.select(np.arange(802, 1203)))
    many = nve_rollouts(potential, run, [10], 60)
    assert found.mepa() == pytest.approx(many.mepa()[0], rel=1e-6)
    assert found.equal_frames() == pytest.approx(many.equal_frames()[0], rel=1e-6)
    np.testing.assert_allclose(found.distance.max(axis=1), many.apart[0, :, 1], atol=1e-7)
    assert found.divergence_time(0.05) == many.divergence_time(0.05)[0]
    assert found.elements == ["H", "C", "O"]
    np.testing.assert_array_equal(found.time, 0.5 * np.arange(60))
    # Frames of both are the same moments of the same run.
    np.testing.assert_array_equal(found.predicted.time, found.reference.time)
    np.testing.assert_allclose(found.predicted.frame(0)["positions"], ethanol.frame(812)["positions"], atol=1e-7)
    assert found.distance[0].max() == 0.0
    assert found.distance[-1].max() > 0.0


def test_a_reference_made_by_the_potential_is_met_exactly(found: Beside, potential: BasePotential) -> None:
    again = roll_beside(potential, found.predicted, 5, 40)
    assert len(again) == 40
    assert again.distance.max() < 1e-6
    assert again.mepa() < 1e-4
    assert again.divergence_time() == np.inf


def test_frames_without_velocities_take_differences(ethanol: FrameSet, potential: BasePotential) -> None:
    bare = ethanol.select(np.arange(50))
    bare = FrameSet.from_arrays(
        bare.numbers, bare.positions, bare.n_atoms, trajectory=bare.trajectory, time=bare.time
    )  # fmt: skip
    one = roll_beside(potential, bare, 4, 20)
    assert np.isnan(one.error).all()
    assert "differences" in one.said
    told = roll_beside(potential, ethanol, 4, 20)
    # Differences over 1 fs are a little less than the velocities of stretching hydrogens.
    assert 0 < np.abs(one.distance - told.distance).max() < 0.02
    with pytest.raises(DataError, match="differences of positions"):
        roll_beside(potential, bare, 0, 20)


def test_starts_that_cannot_be_are_refused(ethanol: FrameSet, potential: BasePotential) -> None:
    with pytest.raises(DataError, match="no such frame"):
        roll_beside(potential, ethanol, len(ethanol))
    with pytest.raises(DataError, match="no frame behind the start"):
        roll_beside(potential, ethanol, 400)
    assert len(roll_beside(potential, ethanol, 390, 200)) == 11


def test_a_roll_out_that_is_lost_ends_there() -> None:
    time = np.arange(80) * 0.5
    x = np.zeros((80, 1, 3))
    x[:, 0, 0] = 0.1 + 0.001 * np.arange(80)
    frames = FrameSet.from_arrays([8], x, forces=np.zeros_like(x), trajectory=0, time=time)
    whole = roll_beside(Springs(0.0), frames, 1, 60)
    assert (len(whole), whole.lost) == (60, False)
    short = roll_beside(Springs(0.0, breaks=0.1255), frames, 1, 60)
    assert short.lost
    assert len(short) == 25
    assert short.predicted.positions.max() == pytest.approx(0.125)


def test_pictures_have_what_was_found(found: Beside) -> None:
    figure = beside_aimd(
        found.time, found.distance.mean(1), found.distance.max(1), found.error.sum(1), found.on_reference.sum(1)
    )
    assert [trace.name for trace in figure.data][2:] == ["forces along the roll-out", "forces on AIMD's positions"]
    np.testing.assert_allclose(figure.data[2].y, 1000 * found.error.sum(1))
    assert figure.layout.xaxis2.title.text == "time, fs"
    drawn = error_by_rollout_steps({"stage 1": [0.1, None, 0.3]}, 0.5, {"stage 1": 3})
    assert list(drawn.data[0].x) == [1, 2, 3]
    assert list(drawn.data[1].y) == [300.0]
    marks = stage_marks([0, 40], [1, 8])
    assert [one["text"] for one in marks["annotations"]] == ["roll-out steps: 1", "8"]
    assert [one["x0"] for one in marks["shapes"]] == [40.0]
