"""Skin lists of many structures against fresh lists of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from mlipkit.data import SkinLists, neighbour_list
from mlipkit.errors import DataError


def systems():
    ice = molecule("H2O", cell=[[3.1, 0, 0], [1.4, 3.3, 0], [0.2, 0.5, 3.6]], pbc=True)
    return [ice, molecule("CH3CH2OH"), bulk("C", "diamond", a=3.6, cubic=True), molecule("CO")]


def tensors(images):
    positions = torch.tensor(np.concatenate([image.positions for image in images]))
    return positions, torch.tensor(np.array([image.cell.array for image in images]))


def made(images, cutoff=3.0, skin=0.5, **options):
    return SkinLists(cutoff, skin, [len(i) for i in images], np.array([i.pbc for i in images]), **options)


def pairs_within(lists, positions, cutoff):
    """Sender, receiver and shift of the pairs that are within the cutoff now."""
    first, second = lists.edge_index
    vectors = positions[first] - positions[second] + lists.shift_vectors
    near = (vectors.norm(dim=1) < cutoff).numpy()
    return sorted(map(tuple, torch.cat([lists.edge_index.T, lists.shift], 1).numpy()[near].tolist()))


def fresh(images, positions, cells, cutoff):
    found, start = [], 0
    for image, cell in zip(images, cells.numpy(), strict=True):
        edges, shift, _ = neighbour_list(positions[start : start + len(image)].numpy(), cell, image.pbc, cutoff)
        found += np.concatenate([edges.T + start, shift], 1).tolist()
        start += len(image)
    return sorted(map(tuple, found))


def test_no_pair_is_missing_along_a_path_and_few_lists_are_rebuilt():
    images, rng = systems(), torch.Generator().manual_seed(0)
    positions, cells = tensors(images)
    lists, rebuilt = made(images), []
    for step in range(40):
        before = lists.n_rebuilds
        # One structure moves much faster than the others.
        speed = torch.full((len(positions), 1), 0.01, dtype=torch.float64)
        speed[3:12] = 0.06
        positions = positions + speed * torch.randn(positions.shape, generator=rng, dtype=torch.float64)
        assert lists.update(positions, cells) == (lists.n_rebuilds > before)
        rebuilt.append(lists.n_rebuilds - before)
        assert pairs_within(lists, positions, 3.0) == fresh(images, positions, cells, 3.0)
        order = lists.edge_index[1]
        assert (order[1:] >= order[:-1]).all()
        if step == 20:
            cells = cells * 1.02
    assert rebuilt[0] == 4
    assert rebuilt[21] >= 2  # the periodic ones, for their new cells
    assert sum(rebuilt) < 30
    assert 1 in rebuilt


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
def test_no_pair_is_missing_in_a_skewed_cell_with_any_periodic_axes(pbc):
    rng = np.random.default_rng(3)
    cell = np.array([[6.0, 0, 0], [1.5, 5.5, 0], [0.5, -0.5, 6.5]])
    images = [Atoms("Ar16", rng.uniform(0, 1, (16, 3)) @ cell, cell=cell, pbc=pbc)]
    positions, cells = tensors(images)
    lists, rebuilds = made(images, skin=0.6), 0
    for step in range(150):
        positions = positions + torch.from_numpy(rng.normal(scale=0.03, size=positions.shape))
        if step == 60:
            cells = cells * 1.01
        rebuilds += lists.update(positions, cells)
        assert pairs_within(lists, positions, 3.0) == fresh(images, positions, cells, 3.0)
    assert rebuilds == lists.n_rebuilds
    assert 3 < rebuilds < 75


def test_a_list_is_rebuilt_exactly_when_it_must_be():
    images = [Atoms("Ar2", [[0.0, 0, 0], [1, 0, 0]], cell=np.eye(3) * 10, pbc=True)]
    positions, cells = tensors(images)
    lists = made(images)
    assert lists.reference(0) is None
    assert lists.update(positions, cells)
    assert not lists.update(positions, cells)
    assert not lists.update(positions + torch.tensor([[0, 0, 0], [0.249, 0, 0]]), cells)
    moved = positions + torch.tensor([[0, 0, 0], [0.251, 0, 0]])
    assert lists.update(moved, cells)
    assert lists.update(moved, cells * 1.0000001)


def test_one_moves_and_one_is_rebuilt():
    images = systems()
    positions, cells = tensors(images)
    lists = made(images)
    assert lists.update(positions, cells)
    assert not lists.update(positions + 0.1, cells)
    positions = positions.clone()
    positions[-1, 0] += 0.3
    assert lists.update(positions, cells)
    assert lists.n_rebuilds == 5
    changed = cells.clone()
    assert not lists.update(positions, changed)  # another tensor, the same numbers
    changed[0] *= 1.01
    assert lists.update(positions, changed)  # changed in place
    assert lists.n_rebuilds == 6


def test_some_go_on_and_a_checkpoint_gives_the_same_lists():
    images = systems()
    positions, cells = tensors(images)
    lists = made(images)
    lists.update(positions, cells)
    moved = positions + 0.1
    again = made(images)
    for index in range(4):
        again.restore(index, *lists.reference(index))  # type: ignore[misc]
    again.update(moved, cells)
    assert again.n_rebuilds == 4
    assert torch.equal(again.edge_index, lists.edge_index)
    assert torch.equal(again.shift, lists.shift)
    lists.select([2, 1])
    keep = torch.cat([torch.arange(12, 20), torch.arange(3, 12)])
    assert lists.update(moved[keep], cells[[2, 1]])
    assert lists.n_rebuilds == 4
    part = [images[2], images[1]]
    assert pairs_within(lists, moved[keep], 3.0) == fresh(part, moved[keep], cells[[2, 1]], 3.0)


def test_broken_positions_are_an_error_or_stop_only_their_own_list():
    images = systems()
    positions, cells = tensors(images)
    broken = positions.clone()
    broken[4] = torch.nan
    with pytest.raises(DataError, match="not finite"):
        made(images).update(broken, cells)
    lists = made(images, lenient=True)
    lists.update(positions, cells)
    n_edges = lists.edge_index.shape[1]
    lists.update(broken, cells)
    assert lists.edge_index.shape[1] == n_edges
    born = made(images, lenient=True)
    born.update(broken, cells)
    assert not ((born.edge_index >= 3) & (born.edge_index < 12)).any()
    with pytest.raises(DataError, match="skin is not a length"):
        made(images, skin=-1.0)
