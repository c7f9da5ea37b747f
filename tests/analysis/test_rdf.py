"""Radial distributions: exact counts for crystals, 1 for a gas, images in skewed and tiny cells, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from trajectory_toys import water_box

from mlipkit.analysis.rdf import rdf
from mlipkit.data import FrameSet, read, samples
from mlipkit.errors import DataError


def gas(n: int = 200, edge: float = 10.0, frames: int = 20, numbers=None, cell=None) -> FrameSet:
    rng = np.random.default_rng(0)
    cell = np.eye(3) * edge if cell is None else np.asarray(cell, float)
    numbers = np.full(n, 18) if numbers is None else numbers
    return FrameSet.from_arrays(numbers, rng.random((frames, n, 3)) @ cell, cell=cell, pbc=[True] * 3)


@pytest.mark.parametrize("cell", [np.eye(3) * 10, [[10, 0, 0], [6, 9, 0], [-3, 4, 8]]])
def test_ideal_gas_is_one_everywhere_and_with_the_right_error(cell):
    found = rdf(gas(cell=cell), r_max=8.0, bins=20)
    g = found.partial[18, 18]
    expected = 1 / np.sqrt(found.counts[18, 18])
    assert np.abs((g - 1) / expected).max() < 4, "Poisson noise around one, also beyond half the cell"
    assert np.allclose(found.total, g)
    assert 0.5 < np.median(found.error[18, 18] / expected) < 2
    assert found.coordination[18, 18][-1] == pytest.approx(
        200 / abs(np.linalg.det(cell)) * 4 / 3 * np.pi * 512, rel=0.02
    )


def test_crystal_shells_are_counted_exactly_in_a_primitive_cell():
    """One atom per cell: all neighbours are images of itself."""
    atoms = bulk("Al", "fcc", a=4.0)
    found = rdf(FrameSet.from_atoms([atoms]), r_max=5.0, bins=500)
    shells = {2.9: 12, 4.1: 18, 4.95: 42}
    for r, count in shells.items():
        assert found.coordination[13, 13][np.searchsorted(found.edges, r) - 1] == count


def test_total_and_partials_agree():
    frames = gas(60, numbers=np.repeat([8, 1, 1], 20))
    found = rdf(frames, r_max=6, bins=30)
    share = {8: 1 / 3, 1: 2 / 3}
    total = sum(share[a] * share[b] * (1 if a == b else 2) * g for (a, b), g in found.partial.items())
    assert np.allclose(found.total, total)
    assert set(found.partial) == {(1, 1), (1, 8), (8, 8)}


def test_order_of_a_pair_changes_the_coordination_and_not_g():
    frames = water_box(27)
    found = rdf(frames, ["O-H", "H-O"], r_max=1.2, bins=24)
    assert np.allclose(found.partial[8, 1], found.partial[1, 8])
    assert found.coordination[8, 1][-1] == 2
    assert found.coordination[1, 8][-1] == 1
    peak = found.peak("O-H")
    assert peak.r == pytest.approx(0.96, abs=0.05)
    assert found.total is None


def test_free_molecules_are_refused_with_a_way_out():
    frames = samples.load("ethanol_300K")[:50]
    with pytest.raises(DataError, match=r"not periodic along all axes.*normalise='none'"):
        rdf(frames)
    found = rdf(frames, ["C-C", "C-H"], r_max=4.0, bins=80, normalise="none")
    width = np.diff(found.edges)
    assert (found.partial[6, 6] @ width) == pytest.approx(1), "one other carbon within 4 Å"
    assert found.coordination[6, 1][np.searchsorted(found.edges, 1.4) - 1] == pytest.approx(2.5), "CH3 and CH2"
    assert found.peak("C-C").r == pytest.approx(1.52, abs=0.05)


def test_sets_of_changing_cell_are_weighted_by_what_is_there():
    small, large = gas(100, 8.0), gas(100, 12.0)
    both = rdf(FrameSet.concat([small, large]), r_max=5, bins=10)
    assert np.abs(both.partial[18, 18] - 1).max() < 0.1


def test_unknown_pairs_are_refused():
    with pytest.raises(DataError, match="no pair C-C"):
        rdf(water_box(8), ["C-C"])
    with pytest.raises(DataError, match="no pair H-H"):
        rdf(water_box(8), ["O-O"]).peak("H-H")


def test_liquid_water_first_shell(shared_data):
    """PBE0-TS water: the O-O peak lies near 2.75 Å (experiment 2.80 Å) with four to five neighbours behind it."""
    frames = read(shared_data / "liquid_water_64/data_0.extxyz.gz")
    found = rdf(frames, ["O-O", "O-H"], r_max=6.0)
    peak = found.peak("O-O")
    assert peak.r == pytest.approx(2.75, abs=0.02)
    assert 2 < peak.height < 4
    assert 3.8 < peak.coordination < 5.5
    assert found.coordination[8, 1][np.searchsorted(found.edges, 1.3) - 1] == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("options", [{"normalise": "densty"}, {"bins": 2.5}, {"r_max": np.inf}, {"block": 0.0}])
def test_options_that_mean_nothing_are_refused(options: dict):
    with pytest.raises(DataError):
        rdf(water_box(), **options)
