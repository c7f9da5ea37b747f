"""A shift between sets: words, figures, and the sets that it must refuse or excuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_numbers

from mlipkit.analysis.shift import Shift, _evenly, analyse_shift
from mlipkit.analysis.soap import Soap
from mlipkit.data import FrameSet, read, samples
from mlipkit.errors import DataError

SMALL = {"n_max": 3, "l_max": 2}


def soap(*sets: FrameSet) -> Soap:
    return Soap.of(*sets, **SMALL)


@pytest.fixture(scope="module")
def cold() -> FrameSet:
    frames = samples.load("ethanol_300K")[:24]
    return frames.with_table(trajectory=np.repeat(np.arange(4), 6), time=np.tile(np.arange(6) * 10.0, 4))


@pytest.fixture(scope="module")
def hot() -> FrameSet:
    frames = samples.load("ethanol_600K")[:16]
    return frames.with_table(trajectory=0, time=np.arange(16) * 10.0)


@pytest.fixture(scope="module")
def apart(cold: FrameSet, hot: FrameSet) -> Shift:
    return analyse_shift({"cold": cold, "hot": hot}, "cold", descriptor=soap(cold, hot))


@pytest.fixture(scope="module")
def together(cold: FrameSet, hot: FrameSet) -> Shift:
    return analyse_shift({"cold": cold, "hot": hot}, descriptor=soap(cold, hot))


def box(rng: np.random.Generator, edge: float, n: int = 12, source: str = "box") -> FrameSet:
    """Periodic frames of argon-like atoms at a density of their own each."""
    edges = edge * (1 + 0.02 * rng.standard_normal(n))
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3) / 2
    positions = [grid * one + 0.15 * rng.standard_normal((8, 3)) for one in edges]
    cell = np.eye(3) * edges[:, None, None]
    return FrameSet.from_arrays([18] * 8, np.array(positions), cell=cell, pbc=[True] * 3, source=source)


def test_what_is_hot_lies_outside_what_is_cold(apart: Shift):
    assert apart.fitted_on == ("cold",)
    assert not apart.joint
    assert apart.flagged_atoms("hot") > 2 * apart.flagged_atoms("cold")
    first = apart.sentences()[0]
    assert first.startswith("hot: ")
    assert "outside the training space of cold (SOAP Q)" in first
    rows = {(row.set, row.element): row for row in apart.elements}
    scores = apart.scores["hot"]
    for z in (1, 6, 8):
        mine = scores.numbers == z
        row = rows["hot", z]
        assert row.q_mean == pytest.approx(scores.q[mine].mean())
        assert row.t2_quantiles[2] == pytest.approx(np.median(scores.t2[mine]))
        assert row.q_limit == rows["cold", z].q_limit
        assert row.flagged == pytest.approx(scores.flags[mine].mean())
        assert row.q_mean > rows["cold", z].q_mean


def test_a_joint_fit_speaks_of_coverage_first(together: Shift):
    assert together.joint
    first = together.sentences()[0]
    assert first.startswith("hot leaves out ")
    middle = together.coverage["cold", "hot"]
    assert f"{100 * middle.only_a[1].value[-1]:.0f}" in first
    assert "explain" in " ".join(together.sentences())


def test_json_holds_every_figure_and_no_nan(apart: Shift):
    data = json.loads(json.dumps(apart.to_json(), allow_nan=False))
    assert data["schema"] == "mlipkit-shift-1"
    assert data["fit"]["on"] == ["cold"]
    assert data["fit"]["explained_percent"]["all"] == pytest.approx(list(100 * apart.model.pca.explained))
    assert data["sets"]["hot"]["flagged_atoms"] == apart.flagged_atoms("hot")
    assert data["sets"]["hot"]["density"]["density_g_cm3"] is None
    assert {(row["set"], row["element"]) for row in data["elements"]} == {
        (name, symbol) for name in ("cold", "hot") for symbol in ("H", "C", "O")
    }
    assert data["coverage"][0]["only_a"]["0.1"]["all"]["low"] <= data["coverage"][0]["only_a"]["0.1"]["all"]["value"]
    assert data["limits"]["all"]["q"]["elements"]["H"]["limit"] > 0
    assert data["sentences"] == apart.sentences()


def test_the_same_set_twice_is_said_so_first(cold: FrameSet):
    found = analyse_shift({"a": cold, "b": cold}, descriptor=soap(cold))
    assert found.sentences()[0] == "a and b hold the same 24 structures."
    assert found.coverage["a", "b"].only_a[1].value[-1] == 0
    assert found.shared["a", "b"] == 24


def test_structures_in_both_sets_are_counted(cold: FrameSet):
    found = analyse_shift({"a": cold[:16], "b": cold[12:]}, descriptor=soap(cold))
    assert found.shared["a", "b"] == 4
    assert any(text.startswith("4 structures are in both a and b") for text in found.sentences())


def test_isolated_atoms_are_left_out_with_a_word(cold: FrameSet, hot: FrameSet):
    alone = FrameSet.from_arrays([1, 6], np.zeros((2, 3)), [1, 1], source="atoms.xyz")
    found = analyse_shift({"cold": FrameSet.concat([cold, alone]), "hot": hot}, "cold", descriptor=soap(cold, hot))
    assert found.left_out["cold"].n == 2
    assert found.left_out["cold"].sources == ("atoms.xyz",)
    assert len(found.sets["cold"]) == 24
    assert found.sentences()[-1].startswith("Left out of cold: 2 frames of a single atom (atoms.xyz)")
    found = analyse_shift({"cold": cold, "atoms": alone, "hot": hot}, descriptor=soap(cold, hot))
    assert set(found.sets) == {"cold", "hot"}
    assert found.to_json()["sets_left_out"]["atoms"]["frames"] == 2
    with pytest.raises(DataError, match="fit_on: atoms: only frames of a single atom"):
        analyse_shift({"cold": cold, "atoms": alone}, "atoms", descriptor=soap(cold))


def test_an_element_that_the_fit_on_set_lacks_is_outside_and_named(cold: FrameSet, hot: FrameSet):
    numbers = np.where(np.arange(len(hot.numbers)) % 9 == 0, 9, hot.numbers)
    strange = FrameSet.from_arrays(numbers, hot.positions, hot.n_atoms, source="strange")
    found = analyse_shift({"cold": cold, "strange": strange}, "cold", descriptor=soap(cold, strange))
    assert found.unknown("strange") == (9,)
    assert "16 of them are F, which cold lacks" in found.sentences()[0]
    assert found.scores["strange"].flags[strange.numbers == 9].all()
    json.dumps(found.to_json(), allow_nan=False)


def test_each_element_may_have_axes_of_its_own(cold: FrameSet, hot: FrameSet):
    found = analyse_shift(
        {"cold": cold, "hot": hot}, "cold", descriptor=soap(cold, hot), per_element=True, components=3
    )
    assert set(found.explained) == {1, 6, 8}
    assert found.to_json()["fit"]["explained_percent"].keys() == {"H", "C", "O"}
    assert any("Axes of each element explain" in text for text in found.sentences())


def test_limits_along_the_trajectory_are_those_of_each_set(cold: FrameSet, hot: FrameSet):
    found = analyse_shift({"cold": cold, "hot": hot}, "cold", descriptor=soap(cold, hot), rule="trajectory")
    limits = found.to_json()["limits"]
    assert set(limits) == {"cold", "hot"}
    assert limits["hot"]["q"]["elements"]["O"]["mean"] == pytest.approx(
        found.scores["hot"].q[found.sets["hot"].numbers == 8].mean()
    )


def test_a_set_of_one_frame_is_scored_but_not_compared(cold: FrameSet, hot: FrameSet):
    found = analyse_shift({"cold": cold, "one": hot[:1]}, "cold", descriptor=soap(cold, hot))
    assert found.uncompared == (("cold", "one"),)
    assert not found.coverage
    assert "Not compared" in " ".join(found.sentences())
    with pytest.raises(DataError, match="at least two frames"):
        analyse_shift({"cold": cold, "one": hot[:1]}, "one", descriptor=soap(cold, hot))


def test_boundaries_that_differ_are_the_first_word(cold: FrameSet):
    rng = np.random.default_rng(0)
    argon = box(rng, 7.5)
    cluster = FrameSet.from_arrays(argon.numbers, argon.positions, argon.n_atoms, source="cluster")
    found = analyse_shift({"bulk": argon, "cluster": cluster}, descriptor=soap(argon))
    assert found.boundaries == {"bulk": "periodic", "cluster": "not periodic"}
    assert found.sentences()[0].startswith("The sets differ in their boundaries")
    bare = FrameSet.from_arrays(argon.numbers, argon.positions, argon.n_atoms, cell=argon.cell, source="bare.xyz")
    with pytest.raises(DataError, match="bare: frame 0: pbc: a cell without periodic flags"):
        analyse_shift({"bulk": argon, "bare": bare}, descriptor=soap(argon))


@pytest.mark.parametrize(
    ("sets", "fit_on", "said"),
    [
        ({}, None, "no set of frames"),
        ({"a": "none"}, None, "a: no frames"),
        ({"a": "alone"}, None, "a: only frames of a single atom"),
        ({"cold": "cold"}, "cld", "did you mean 'cold'"),
        ({"cold": "cold"}, [], "no set to fit on"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused_in_one_line(sets, fit_on, said, cold: FrameSet):
    known = {"none": cold[:0], "cold": cold, "alone": FrameSet.from_arrays([1], np.zeros((1, 3)), [1])}
    with pytest.raises(DataError, match=said):
        analyse_shift({name: known[kind] for name, kind in sets.items()}, fit_on, descriptor=soap(cold))


def test_many_frames_are_thinned_evenly_for_the_fit_and_it_is_said(cold: FrameSet, hot: FrameSet):
    found = analyse_shift({"cold": cold, "hot": hot}, descriptor=soap(cold, hot), fit_frames=20)
    assert found.fit_frames == (20, 40)
    assert "20 of 40 frames, evenly taken" in " ".join(found.sentences())
    assert [len(part) for part in _evenly([cold[:3], cold, hot], 23)] == [3, 10, 10]
    assert [len(part) for part in _evenly([cold, hot], 300)] == [24, 16]


def test_a_single_axis_is_a_line_of_bins(cold: FrameSet, hot: FrameSet):
    found = analyse_shift({"cold": cold, "hot": hot}, descriptor=soap(cold, hot), components=1)
    assert len(found.explained[0]) == 1
    assert 0 <= found.coverage["cold", "hot"].only_a[1].value[-1] <= 1


@pytest.mark.full
def test_the_published_sets(shared_data: Path):
    """Explained variance and the mean Q of one set on the axes of the other, to the published digits."""
    folder = shared_data / "chclca_bias"
    sets = {name: read(folder / f"{name}.extxyz") for name in ("naive_50", "periodic_50")}
    found = analyse_shift(sets, matched=False)
    assert found.explained[0] == pytest.approx([23.00, 18.82, 11.64, 8.59, 6.86], abs=0.02)
    assert found.shared["naive_50", "periodic_50"] == 10
    share = found.density_shares["naive_50", "periodic_50"]
    assert share is not None
    assert share.n_frames == (40, 40)
    across = analyse_shift(sets, "naive_50", matched=False)
    rows = {row.element: row for row in across.elements if row.set == "periodic_50"}
    expected = {"H": 9.73, "C": 10.43, "O": 9.18, "N": 22.27, "Cl": 36.24, "Li": 36.78, "Co": 73.88}
    for symbol, value in expected.items():
        assert rows[atomic_numbers[symbol]].q_mean == pytest.approx(value, rel=0.01), symbol
