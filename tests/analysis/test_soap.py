"""SOAP: invariances, equal numbers from both engines, and structures it must refuse."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from mlipkit.analysis import descriptors
from mlipkit.analysis.soap import COMPRESSIONS, Soap
from mlipkit.data import FrameSet, samples
from mlipkit.errors import DataError, ModelError

ENGINES = [
    pytest.param("compiled", marks=pytest.mark.skipif(not importlib.util.find_spec("numba"), reason="needs numba")),
    pytest.param("dscribe", marks=pytest.mark.skipif(not importlib.util.find_spec("dscribe"), reason="needs dscribe")),
]
SMALL = {"n_max": 4, "l_max": 3}


def slab(seed: int = 0, n: int = 12) -> FrameSet:
    """A skewed cell, periodic along two axes, without a vector along the third."""
    rng = np.random.default_rng(seed)
    cell = np.array([[6.0, 0.0, 0.0], [1.5, 5.0, 0.0], [0.0, 0.0, 0.0]])
    positions = rng.random((1, n, 3)) @ np.array([[6.0, 0.0, 0.0], [1.5, 5.0, 0.0], [0.0, 0.0, 4.0]])
    return FrameSet.from_arrays(rng.choice([1, 6, 8], n), positions, cell=cell, pbc=[True, True, False])


def sets() -> dict[str, FrameSet]:
    return {"ethanol": samples.load("ethanol_300K")[:2], "water": samples.load("water_liquid")[:1], "slab": slab()}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", ["ethanol", "water", "slab"])
def test_both_engines_give_the_same_numbers(name: str, compression):
    pytest.importorskip("numba")
    pytest.importorskip("dscribe")
    frames = sets()[name]
    ours = Soap.of(frames, compression=compression, engine="compiled")
    theirs = Soap.of(frames, compression=compression, engine="dscribe")
    a, b = ours(frames), theirs(frames)
    assert a.shape == b.shape == (int(frames.offsets[-1]), ours.size)
    assert np.abs(b).max() > 1.0
    np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())
    assert ours.hash == theirs.hash


@pytest.mark.parametrize(
    "options", [{}, {"n_max": 3, "l_max": 0}, {"n_max": 5, "l_max": 8, "r_cut": 4.0, "sigma": 0.5}]
)
def test_both_engines_agree_for_other_sizes(options: dict):
    pytest.importorskip("numba")
    pytest.importorskip("dscribe")
    frames = slab(1)
    a, b = (Soap.of(frames, engine=engine, **options)(frames) for engine in ("compiled", "dscribe"))
    np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max())


@pytest.mark.parametrize("engine", ENGINES)
def test_rotation_translation_permutation_and_unwrapped_atoms_change_nothing(engine):
    frames = slab(2)
    soap = Soap.of(frames, engine=engine, **SMALL)
    expected, rng = soap(frames), np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    order = rng.permutation(12)
    positions = frames.positions + rng.integers(-3, 4, (12, 3)) @ frames.cell[0] + [0.3, -0.2, 5.0]
    moved = FrameSet.from_arrays(
        frames.numbers[order], (positions @ rotation.T)[order], 12, cell=frames.cell @ rotation.T, pbc=frames.pbc
    )
    np.testing.assert_allclose(soap(moved), expected[order], atol=1e-5 * np.abs(expected).max())
    stretched = FrameSet.from_arrays(frames.numbers, 1.01 * frames.positions, 12, cell=frames.cell, pbc=frames.pbc)
    assert np.abs(soap(stretched) - expected).max() > 1e-3


@pytest.mark.parametrize("n_species", [1, 2, 7])
def test_length_follows_the_formula(n_species: int):
    soap = Soap([1, 3, 6, 7, 8, 17, 27][:n_species])
    assert soap.size == (n_species * 8) * (n_species * 8 + 1) // 2 * 7
    assert n_species < 7 or soap.size == 11_172


def test_species_are_sorted_hashed_and_taken_as_a_union():
    a = Soap(["O", "H"], n_jobs=2)
    assert a.species == (1, 8)
    assert a.hash == Soap([8, 1, 1]).hash == Soap.from_facts(a.facts()).hash
    assert a.hash != Soap([1, 6, 8]).hash
    assert a.hash != Soap([1, 8], sigma=0.4).hash
    assert Soap.of(samples.load("ethanol_300K"), samples.load("water_liquid")).species == (1, 6, 8)


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_and_chunks_change_nothing(engine):
    frames = samples.load("ethanol_300K")[:7]
    soap = Soap.of(frames, engine=engine, **SMALL)
    expected = soap(frames)
    np.testing.assert_array_equal(Soap.of(frames, engine=engine, n_jobs=2, **SMALL)(frames), expected)
    seen = [
        (first, last, X.copy())
        for first, last, X in descriptors.blocks(soap, frames, max_bytes=4 * soap.size * 9 * 2 + 5)
    ]
    assert [(first, last) for first, last, _ in seen] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    np.testing.assert_array_equal(np.concatenate([X for _, _, X in seen]), expected)


def test_a_frame_larger_than_a_chunk_is_a_chunk_of_its_own():
    frames = samples.load("ethanol_300K")[:3]
    assert descriptors.chunks(frames, 100, max_bytes=1) == [(0, 1), (1, 2), (2, 3)]
    assert descriptors.chunks(frames, 100) == [(0, 3)]


def test_rows_are_kept_or_made_again_alike():
    frames = samples.load("ethanol_300K")[:5]
    soap = Soap.of(frames, **SMALL)
    kept = descriptors.Rows(soap, frames)
    made = descriptors.Rows(soap, frames, max_bytes=4 * soap.size * 9, keep_bytes=0)
    for rows in (kept, made):
        for _ in range(2):
            pieces = []
            for first, last, X in rows:
                assert len(X) == 9 * (last - first)
                pieces.append(X.copy())
                X += 1.0  # a reader may change what it is given
            np.testing.assert_array_equal(np.concatenate(pieces), soap(frames))
    index, X = made.sample(10, seed=1)
    assert len(index) == 18
    np.testing.assert_array_equal(X, soap(frames)[index])


def test_an_unknown_element_is_named_with_both_lists():
    frames = samples.load("water_liquid")[:2].concat(samples.load("ethanol_300K")[:1])
    with pytest.raises(DataError, match=r"frame 2: element C unknown.*expected only H O"):
        Soap([1, 8])(frames)
    with pytest.raises(DataError, match="element C unknown"):
        next(descriptors.blocks(Soap([1, 8]), frames))


def test_another_species_list_is_refused_with_both_named():
    with pytest.raises(ModelError, match=r"another species list.*expected H O; found H C O"):
        descriptors.check_same(Soap([1, 8]).facts(), Soap([1, 6, 8]))
    with pytest.raises(ModelError, match=r"expected r_cut 5.0; found r_cut 4.0"):
        descriptors.check_same(Soap([1, 8]).facts(), Soap([1, 8], r_cut=4.0))
    descriptors.check_same(Soap([1, 8]).facts(), Soap([8, 1], n_jobs=2))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"species": []}, "at least one species"),
        ({"species": ["Xx"]}, "no such element"),
        ({"species": [1], "r_cut": 0.5}, "r_cut > 1"),
        ({"species": [1], "compression": "mu3"}, "mu2"),
        ({"species": [1], "engine": "fast"}, "auto, compiled or dscribe"),
    ],
)
def test_settings_that_make_no_descriptor_are_refused(options: dict, named: str):
    with pytest.raises(DataError, match=named):
        Soap(**options)


@pytest.mark.parametrize("options", [{"n_max": 2.5}, {"r_cut": "5"}, {"r_cut": float("inf")}, {"sigma": float("nan")}])
def test_settings_that_are_no_numbers_are_refused(options: dict):
    with pytest.raises(DataError, match="settings make no SOAP"):
        Soap([1, 8], **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", [{"n_max": 16}, {"n_max": 12, "l_max": 3, "r_cut": 1.5}, {"l_max": 20}])
def test_radial_functions_too_alike_for_a_basis_are_refused(options: dict, engine):
    with pytest.raises(DataError, match=r"n_max: \d+ radial functions of degree \d+ .* too alike"):
        Soap([1, 8], engine=engine, **options)


@pytest.mark.parametrize(
    "cell", [np.eye(3) * 2.2, [[3.0, 0, 0], [8.0, 2.5, 0], [7.0, 6.0, 3.0]], [[0, 4.0, 0], [4.0, 0, 0], [0, 1.0, 5.0]]]
)
@pytest.mark.parametrize("options", [{"r_cut": 1.2, "sigma": 0.1}, {"r_cut": 4.0, "sigma": 1.5}, {"sigma": 0.02}])
def test_both_engines_agree_in_small_skewed_and_left_handed_cells(cell, options: dict):
    pytest.importorskip("numba")
    pytest.importorskip("dscribe")
    cell = np.array(cell, float)
    positions = (3 * np.random.default_rng(0).random((1, 3, 3)) - 1) @ cell
    frames = FrameSet.from_arrays([1, 6, 8], positions, cell=cell, pbc=[True] * 3)
    a, b = (Soap.of(frames, engine=engine, **SMALL, **options)(frames) for engine in ("compiled", "dscribe"))
    np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())
