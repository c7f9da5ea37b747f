"""Neighbour lists against a brute force that shares no code with them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from mlipkit.data import FrameSet, NeighbourCache, neighbour_list
from mlipkit.errors import DataError

PBC = list(itertools.product([False, True], repeat=3))


def brute_force(positions, cell, pbc, cutoff) -> dict[tuple[int, ...], np.ndarray]:
    """(j, i, shift) -> R_j - R_i + shift @ cell for all images with 0 < d < cutoff, loop by loop."""
    periodic = [k for k in range(3) if pbc[k]]
    counts = [0, 0, 0]
    if periodic:
        # Heights of the cell along each periodic axis bound the images; positions may lie anywhere.
        heights = 1 / np.linalg.norm(np.linalg.pinv(cell[periodic]), axis=0)
        spread = np.linalg.norm(np.ptp(positions, axis=0)) if len(positions) else 0.0
        for axis, height in zip(periodic, heights, strict=True):
            counts[axis] = int(np.ceil((cutoff + spread) / height)) + 1
    found = {}
    images = itertools.product(*(range(-n, n + 1) for n in counts))
    for shift in images:
        offset = np.array(shift) @ cell
        vectors = positions[None] - positions[:, None] + offset
        distances = np.linalg.norm(vectors, axis=2)
        for i, j in np.argwhere((distances > 0) & (distances < cutoff)):
            found[(int(j), int(i), *shift)] = vectors[i, j]
    return found


def assert_equal_to_brute_force(positions, cell, pbc, cutoff) -> int:
    edge_index, shift, vectors = neighbour_list(positions, cell, pbc, cutoff)
    expected = brute_force(positions, cell, pbc, cutoff)
    keys = [(int(j), int(i), *s) for (j, i), s in zip(edge_index.T, shift.tolist(), strict=True)]
    assert len(set(keys)) == len(keys), "an edge occurs twice"
    distances = np.linalg.norm(vectors, axis=1)
    # A pair within rounding of the cutoff may fall on either side.
    close = {key for key, vector in expected.items() if abs(np.linalg.norm(vector) - cutoff) < 1e-9}
    assert set(keys) - close == set(expected) - close
    for key, vector in zip(keys, vectors, strict=True):
        np.testing.assert_allclose(vector, expected[key], atol=1e-9)
    assert (distances < cutoff).all()
    receiver = edge_index[1]
    assert (np.diff(receiver) >= 0).all()
    assert not shift[:, [not p for p in pbc]].any()
    assert edge_index.dtype == shift.dtype == np.int64
    return len(keys)


@pytest.mark.parametrize("pbc", PBC)
def test_equals_brute_force_in_skewed_and_tiny_cells(pbc):
    rng = np.random.default_rng(sum(2**k for k in range(3) if pbc[k]))
    total = 0
    for _ in range(12):
        n_atoms = int(rng.integers(1, 7))
        # Cells from far below the cutoff to twice its size, strongly skewed, left- or right-handed.
        cell = np.diag(rng.uniform(1.2, 8.0, 3)) + rng.uniform(-1, 1, (3, 3)) * rng.uniform(0, 2.5)
        if abs(np.linalg.det(cell)) < 2.0:
            continue
        positions = rng.uniform(-2, 3, (n_atoms, 3)) @ cell
        total += assert_equal_to_brute_force(positions, cell, pbc, float(rng.uniform(1.5, 4.5)))
    assert total > 0


@pytest.mark.parametrize("pbc", PBC)
def test_zero_cell_vectors_along_open_axes(pbc):
    rng = np.random.default_rng(7)
    cell = np.where(np.array(pbc)[:, None], np.array([[3.0, 0, 0], [1.0, 3.5, 0], [-1, 0.5, 2.5]]), 0.0)
    assert assert_equal_to_brute_force(rng.uniform(-4, 4, (6, 3)), cell, pbc, 4.0) > 0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_atoms=st.integers(1, 8),
    size=st.floats(0.8, 10.0),
    skew=st.floats(0.0, 1.5),
    cutoff=st.floats(0.5, 4.0),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_equals_brute_force(seed, n_atoms, size, skew, cutoff, pbc):
    rng = np.random.default_rng(seed)
    cell = size * (np.eye(3) + skew * np.tril(rng.uniform(-1, 1, (3, 3)), -1))
    assert_equal_to_brute_force(rng.uniform(-1, 2, (n_atoms, 3)) @ cell, cell, pbc, cutoff)


def test_one_atom_sees_its_own_images():
    edge_index, shift, vectors = neighbour_list(np.zeros((1, 3)), np.eye(3) * 2.0, [True] * 3, 2.5)
    assert edge_index.shape == (2, 6)
    assert set(map(tuple, shift.tolist())) == {(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, -1), (0, -1, 0), (-1, 0, 0)}
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 2.0)


def test_no_image_limit_and_no_neighbour_limit():
    edge_index, shift, _ = neighbour_list(np.zeros((1, 3)), np.eye(3) * 1.0, [True, False, False], 20.5)
    assert edge_index.shape[1] == 40
    assert shift[:, 0].max() == 20
    copper = bulk("Cu")
    assert assert_equal_to_brute_force(copper.positions, copper.cell.array, copper.pbc, 9.0) > 200


def test_atoms_far_outside_the_cell_and_far_apart():
    cell = np.eye(3) * 5.0
    positions = np.array([[0.0, 0, 0], [1.0, 0, 0]])
    near = neighbour_list(positions, cell, [True] * 3, 3.0)
    positions[1] += [500.0, -1000.0, 5.0]
    far = neighbour_list(positions, cell, [True] * 3, 3.0)
    np.testing.assert_allclose(np.sort(near[2], axis=0), np.sort(far[2], axis=0), atol=1e-9)
    assert far[1].max() == 200
    exploded = np.array([[0.0, 0, 0], [1e9, 1e9, 1e9], [1e9 + 1, 1e9, 1e9]])
    assert neighbour_list(exploded, np.zeros((3, 3)), [False] * 3, 5.0)[0].tolist() == [[2, 1], [1, 2]]


def test_coincident_atoms_have_no_edge():
    edge_index, _, _ = neighbour_list(np.zeros((2, 3)), np.zeros((3, 3)), [False] * 3, 5.0)
    assert edge_index.shape == (2, 0)


@pytest.mark.parametrize("pbc", [False, True])
def test_coincident_atoms_are_found_on_request_and_no_atom_is_its_own_neighbour(pbc):
    positions = np.array([[1.0, 1, 1], [1.0, 1, 1], [2.0, 1, 1], [1.0 + 6.0 * pbc, 1, 1]])
    edge_index, _, vectors = neighbour_list(positions, np.eye(3) * 6, [pbc] * 3, 0.5, coincident=True)
    assert edge_index.T.tolist() == [[1, 0], [3, 0], [0, 1], [3, 1], [0, 3], [1, 3]]
    assert not vectors.any()


def test_the_order_does_not_depend_on_history():
    rng = np.random.default_rng(0)
    positions, cell = rng.uniform(0, 6, (20, 3)), np.eye(3) * 6.0
    first = neighbour_list(positions, cell, [True] * 3, 4.0)
    neighbour_list(rng.uniform(0, 30, (500, 3)), cell, [False] * 3, 4.0)
    second = neighbour_list(positions, cell, [True] * 3, 4.0)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cutoff": 0.0}, "cutoff is not a length"),
        ({"cutoff": np.nan}, "cutoff is not a length"),
        ({"positions": np.full((2, 3), np.nan)}, "not finite"),
        ({"positions": np.zeros(3)}, "wrong shapes"),
        ({"cell": np.zeros((3, 3))}, "a periodic axis has no cell vector"),
    ],
)
def test_errors(change, message):
    arguments = {"positions": np.eye(3), "cell": np.eye(3) * 4, "pbc": [True, False, False], "cutoff": 2.0} | change
    with pytest.raises(DataError, match=message):
        neighbour_list(**arguments)


def rattled(n_frames: int) -> FrameSet:
    frames = []
    for seed in range(n_frames):
        atoms = bulk("NaCl", "rocksalt", a=5.6) if seed % 2 else molecule("CH3CH2OH")
        atoms.rattle(0.1, seed=seed)
        frames.append(atoms)
    return FrameSet.from_atoms(frames)


def test_cache_gives_the_lists_and_computes_each_once(monkeypatch):
    from mlipkit.data import neighbours

    frames = rattled(12)
    cache = NeighbourCache(frames, 4.0)
    calls = []
    real, search = neighbours.neighbour_list, neighbours._search
    monkeypatch.setattr(neighbours, "_search", lambda *a: calls.append(1) or search(*a))
    for _ in range(2):
        for i in [3, 0, 11, 7, 3]:
            edges, shift = cache.get(i)
            frame = frames.frame(i)
            expected = real(frame["positions"], frame["cell"], frame["pbc"], 4.0)
            assert np.array_equal(edges, expected[0])
            assert np.array_equal(shift, expected[1])
            assert edges.dtype == np.int32
    assert len(calls) == 4 + 10, "four lists of the cache, ten to compare with"
    assert len(cache) == 4


def test_cache_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(NeighbourCache, "BLOCK", 500)
    frames = rattled(40)
    cache = NeighbourCache(frames, 4.0, max_bytes=15_000)
    lists = [tuple(map(np.array, cache.get(i))) for i in range(40)]
    assert 0 < len(cache) < 40
    assert cache.nbytes <= 15_000
    for i in range(40):
        assert all(np.array_equal(a, b) for a, b in zip(cache.get(i), lists[i], strict=True))


def test_cache_holds_lists_longer_than_a_block_and_wide_shifts(monkeypatch):
    monkeypatch.setattr(NeighbourCache, "BLOCK", 10)
    positions = np.array([[0.0, 0, 0], [1 + 5.0 * 40_000, 0, 0]])
    frames = FrameSet.from_arrays([1, 1], positions, 2, cell=np.eye(3) * 5, pbc=[True] * 3)
    cache = NeighbourCache(frames, 4.0)
    for _ in range(2):
        edges, shift = cache.get(0)
        assert edges.shape[1] == 2
        assert np.abs(shift).max() == 40_000
    frames = rattled(2)
    cache = NeighbourCache(frames, 6.0)
    assert cache.get(1)[0].shape[1] > 10
    assert len(cache) == 1
