"""Densities in g/cm³, per set and run; the published confound."""

from __future__ import annotations

import numpy as np
import pytest
from trajectory_toys import water_box

from mlipkit.analysis.density import densities, summarise_density, volumes
from mlipkit.data import FrameSet, read, samples
from mlipkit.errors import DataError


def test_density_of_known_boxes():
    frames = water_box(27, edge=12.0)
    assert densities(frames) == pytest.approx([27 * 18.015 / 6.02214076e23 / (12e-8) ** 3], rel=1e-4)
    assert volumes(frames) == pytest.approx([1728])


def test_molecules_have_none_and_are_counted():
    mixed = FrameSet.concat([water_box(8, frames=2), samples.load("ethanol_300K")[:3]])
    assert np.isnan(densities(mixed)).tolist() == [False, False, True, True, True]
    (row,) = summarise_density(mixed).table()
    assert (row["frames"], row["without_density"]) == (5, 3)
    assert row["std_g_cm3"] == pytest.approx(0, abs=1e-12)


def test_groups_per_set_and_run():
    ice, water = samples.load("ice_ih"), samples.load("water_liquid")
    found = summarise_density({"ice": ice, "water": water}, runs=True)
    assert found.sets.count("ice") == len(np.unique(ice.trajectory))
    assert found.n_frames.sum() == len(ice) + len(water)
    named = summarise_density({"ice": ice}, runs={"ice": ["a"] * 40 + ["b"] * 60})
    assert (named.runs, named.n_frames.tolist()) == (("a", "b"), [40, 60])
    with pytest.raises(DataError, match="one name of a run per frame"):
        summarise_density({"ice": ice}, runs={"ice": ["a"]})
    with pytest.raises(DataError, match="without frames"):
        summarise_density({"none": ice[:0]})


def test_published_confound(shared_data):
    """Sets of the fine-tuning study differ in density before anything else (g/cm³)."""
    folder = shared_data / "chclca_bias"
    sets = {name: read(folder / f"{name}.extxyz") for name in ("naive_50", "periodic_50")}
    whole = summarise_density(sets)
    assert whole.volume == pytest.approx([2364, 2949], abs=7)
    runs = summarise_density(sets, runs=True)
    naive, periodic = (runs.mean[np.array(runs.sets) == name] for name in sets)
    assert (naive.min(), naive.max()) == pytest.approx((1.13, 1.28), abs=0.005)
    assert periodic[1:] == pytest.approx([0.90, 0.91, 0.99, 0.96], abs=0.005)
