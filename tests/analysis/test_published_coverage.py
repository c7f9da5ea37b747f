"""Coverage, growth and trend of the published sets of arXiv 2603.10159 in the plane of their joint PCA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlipkit.analysis.coverage import Points, coverage, select_frames
from mlipkit.analysis.descriptors import Rows
from mlipkit.analysis.feature_shift import feature_shift
from mlipkit.analysis.growth import growth
from mlipkit.analysis.pca import fit_and_project
from mlipkit.analysis.soap import Soap
from mlipkit.data import FrameSet, read


@pytest.fixture(scope="module")
def sets(shared_data: Path) -> tuple[Points, Points, list[str]]:
    """Scores of the naive and the iterative set (100 frames, five components), and who sampled the iterative one."""
    folder = shared_data / "chclca_bias"
    naive, rounds = (read(folder / name) for name in ("naive_50.extxyz", "periodic_50.extxyz"))
    frames = FrameSet.concat([naive, rounds])
    _, z, _ = fit_and_project(Rows(Soap.of(frames), frames), 5)
    joint = Points.of(z, frames.numbers, frames.offsets)
    # Who drove each frame: ten of U, then 11, 10, 9 and 10 of FT1 to FT4, in the order of the file.
    sampled_by = np.repeat(["U", "FT1", "FT2", "FT3", "FT4"], [10, 11, 10, 9, 10]).tolist()
    return select_frames(joint, range(50)), select_frames(joint, range(50, 100)), sampled_by


@pytest.mark.full
def test_neither_set_holds_the_other(sets) -> None:
    naive, rounds, _ = sets
    found = coverage(naive, rounds)
    assert found.widths == (0.05, 0.1, 0.2)
    assert [one.value[-1] for one in found.only_a] == pytest.approx([0.514, 0.371, 0.293], abs=0.01)
    assert [one.value[-1] for one in found.only_b] == pytest.approx([0.464, 0.277, 0.176], abs=0.01)
    assert [one.value[-1] for one in found.jaccard] == pytest.approx([0.342, 0.507, 0.615], abs=0.01)
    assert found.beyond_b.value[-1] == pytest.approx(0.0545, abs=0.003)
    assert found.beyond_a.value[-1] == pytest.approx(0.1004, abs=0.003)
    assert found.beyond_a.lower[-1] > 0.05, "more than the hundredth that a set leaves out of itself"


@pytest.mark.full
def test_each_round_adds_less(sets) -> None:
    _, rounds, sampled_by = sets
    found = growth(rounds, sampled_by)
    assert found.iterations == ("U", "FT1", "FT2", "FT3", "FT4")
    assert found.new[:, -1] == pytest.approx([1105, 630, 236, 133, 90], rel=0.02)
    assert (np.diff(found.new[:, -1]) < 0).all()


@pytest.mark.full
def test_frames_of_the_two_sets_can_be_told_apart(sets) -> None:
    means = []
    for points in sets[:2]:
        size = np.diff(points.offsets)[:, None]
        means.append(np.add.reduceat(points.projections, points.offsets[:-1], axis=0) / size)
    found = feature_shift(*means)
    assert found.mmd_p < 0.01
    assert 0.75 < found.auc < 0.95, "ten frames are the same"
