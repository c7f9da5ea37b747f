"""Molecules as connected parts: formulas, counts over time, lives."""

from __future__ import annotations

import numpy as np
import pytest
from trajectory_toys import proton_run, water_box

from mlipkit.analysis.bond_states import bond_history
from mlipkit.analysis.species import formula, molecules, species, species_of_frames
from mlipkit.data import read, samples


def test_formulas_are_those_a_chemist_writes():
    usual = {
        "C6H8O7": [6] * 6 + [1] * 8 + [8] * 7, "H2O": [1, 8, 1], "HCl": [17, 1], "NH3": [7, 1, 1, 1], "CO2": [8, 6, 8],
        "OH": [8, 1], "HNO3": [7, 8, 8, 8, 1], "H2SO4": [16, 8, 8, 8, 8, 1, 1], "LiCl": [17, 3], "HCl2": [17, 17, 1],
        "C5H14NO": [6] * 5 + [1] * 14 + [7, 8], "O2": [8, 8], "H3O": [1, 1, 1, 8],
    }  # fmt: skip
    for text, numbers in usual.items():
        assert formula(numbers) == text


def test_molecules_are_numbered_by_their_first_atom():
    assert molecules(6, np.array([[0, 3], [3, 5], [1, 2]])).tolist() == [0, 1, 1, 0, 2, 0]
    assert molecules(3, np.empty((0, 2), int)).tolist() == [0, 1, 2]


def test_counts_and_lives_of_a_toy_reaction():
    found = species(bond_history(proton_run([0.97] * 6 + [1.6] * 4 + [0.97] * 6)))
    assert found.count("HCl").tolist() == [0] * 6 + [1] * 4 + [0] * 6
    assert found.count("CHO").tolist() == [1] * 6 + [0] * 4 + [1] * 6
    assert found.lifetimes["HCl"].tolist() == [2000.0]
    assert found.ended["HCl"].tolist() == [True]
    assert found.lifetimes["CHO"].tolist() == [3000.0, 3000.0]
    assert found.ended["CHO"].tolist() == [True, False]
    assert found.count("H2O").tolist() == [0] * 16
    assert found.counts.sum(axis=1).tolist() == [2] * 16
    rows = {row["species"]: row for row in found.table()}
    assert rows["HCl"]["median_life_fs"] == 2000.0
    assert rows["CHO"]["still_there"] == 1


def test_separate_frames():
    found = species_of_frames(water_box(27, frames=3))
    assert found.formulas == ("H2O",)
    assert found.counts.tolist() == [[27]] * 3


@pytest.mark.parametrize(("name", "expected"), [("ethanol_600K", {"C2H6O": 1}), ("ice_ih", {"H2O": 32})])
def test_packaged_samples(name: str, expected: dict[str, int]):
    found = species_of_frames(samples.load(name)[:60])
    assert {text: int(found.count(text).min()) for text in found.formulas} == expected


def test_published_liquid_is_choline_and_citric_acid(shared_data):
    found = species_of_frames(read(shared_data / "chclca_bias/naive_50.extxyz"))
    assert set(found.formulas[:5]) == {"Cl", "C6H8O7", "C5H14NO", "Co", "Li"}
    whole = np.flatnonzero((found.count("C6H8O7") == 6) & (found.count("C5H14NO") == 3))
    assert len(whole) > 10, "in most frames all six citric acids and three cholines are whole"
    assert found.count("HCl").mean() == pytest.approx(0.22)


def test_liquid_water_is_water(shared_data):
    found = species_of_frames(read(shared_data / "liquid_water_64/data_0.extxyz.gz"))
    assert found.formulas[0] == "H2O"
    assert (found.count("H2O") == 64).mean() > 0.95
