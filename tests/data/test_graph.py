"""Graphs and batches from flat arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from mlipkit.data import FrameSet, Graph, NeighbourCache, collate, graph_of, neighbour_list

CUTOFF = 4.0


@pytest.fixture(scope="module")
def frames() -> FrameSet:
    structures = []
    for seed in range(9):
        atoms = [molecule("CH3CH2OH"), bulk("NaCl", "rocksalt", a=5.6), molecule("H2O")][seed % 3]
        atoms.rattle(0.1, seed=seed)
        if seed == 2:
            atoms.set_cell([5, 6, 7])
            atoms.set_pbc([True, True, False])
        if seed != 4:
            rng = np.random.default_rng(seed)
            stress = rng.normal(size=6) if seed != 3 else None
            results = {"energy": float(seed), "forces": rng.normal(size=(len(atoms), 3)), "stress": stress}
            atoms.calc = SinglePointCalculator(atoms, **{k: v for k, v in results.items() if v is not None})
        atoms.info["source"] = f"s{seed % 2}"
        atoms.info["tag"] = f"t{seed % 3}"
        structures.append(atoms)
    return FrameSet.from_atoms(structures)


def test_a_batch_is_its_graphs_side_by_side(frames: FrameSet):
    chosen = [5, 2, 2, 0, 7]
    graph, targets = collate(frames, chosen, NeighbourCache(frames, CUTOFF), torch.float64)
    assert graph.n_systems == 5
    atom = edge = 0
    for k, i in enumerate(chosen):
        one = graph_of(frames.frame(i), CUTOFF, torch.float64)
        n_atoms, n_edges = len(one.numbers), one.edge_index.shape[1]
        atoms, edges = slice(atom, atom + n_atoms), slice(edge, edge + n_edges)
        assert torch.equal(graph.numbers[atoms], one.numbers)
        assert torch.equal(graph.positions[atoms], one.positions)
        assert torch.equal(graph.edge_index[:, edges] - atom, one.edge_index)
        assert torch.equal(graph.shift[edges], one.shift)
        assert torch.equal(graph.cell[k], one.cell[0])
        assert torch.equal(graph.pbc[k], one.pbc[0])
        assert (graph.system[atoms] == k).all()
        assert torch.equal(graph.edge_vectors()[edges], one.edge_vectors())
        part = frames.frame(i)
        assert torch.equal(targets.forces[atoms].isnan(), torch.tensor(np.isnan(part["forces"])))
        np.testing.assert_array_equal(targets.forces[atoms].numpy(), part["forces"])
        assert targets.source[k] == part_code(frames.sources, part["source"])
        assert targets.tag[k] == part_code(frames.tags, part["tag"])
        atom, edge = atom + n_atoms, edge + n_edges
    assert atom == len(graph.numbers)
    assert edge == graph.edge_index.shape[1]
    assert (graph.edge_index[1].diff() >= 0).all()
    np.testing.assert_array_equal(targets.energy.numpy(), frames.energy[chosen])


def part_code(names: tuple[str, ...], name: str) -> int:
    return names.index(name)


def test_stress_is_masked_unless_periodic_along_three_axes(frames: FrameSet):
    _, targets = collate(frames, range(9), NeighbourCache(frames, CUTOFF))
    for i in range(9):
        has = bool(targets.stress[i].isfinite().all())
        assert has == (bool(frames.pbc[i].all()) and bool(frames.has("stress")[i]))
    assert targets.stress[1].isfinite().all(), "a periodic frame keeps its stress"
    assert np.isfinite(frames.stress[2]).all(), "the set itself is not changed"


def test_edge_vectors_are_those_of_the_neighbour_list(frames: FrameSet):
    for i in range(3):
        frame = frames.frame(i)
        _, _, vectors = neighbour_list(frame["positions"], frame["cell"], frame["pbc"], CUTOFF)
        found = graph_of(frames[i], CUTOFF, torch.float64).edge_vectors()
        np.testing.assert_allclose(found.numpy(), vectors, atol=1e-12)


def test_edge_vectors_carry_gradients_of_positions_and_cell(frames: FrameSet):
    for chosen in ([1], [1, 4, 2]):
        graph, _ = collate(frames, chosen, NeighbourCache(frames, CUTOFF), torch.float64)
        positions = graph.positions.clone().requires_grad_()
        cell = graph.cell.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda r, a, g=graph: g.edge_vectors(r, a), (positions, cell))


def test_pairs_and_their_mirrors_are_the_list(frames: FrameSet):
    """One edge of each pair, together with its mirror of opposite shift and vector, is every edge once."""
    graph, _ = collate(frames, np.arange(len(frames)), NeighbourCache(frames, CUTOFF), torch.float64)
    pairs = graph.pairs
    assert pairs is not None
    (sender, receiver), shift = graph.edge_index[:, pairs], graph.shift[pairs]
    assert torch.equal(graph.pair_index, graph.edge_index[:, pairs])
    vectors = graph.edge_vectors(pairs=True)
    assert torch.equal(vectors, graph.edge_vectors()[pairs])

    def rows(sender, receiver, shift, vectors):
        columns = torch.cat([torch.stack([sender, receiver], 1).double(), shift.double(), vectors], dim=1)
        return sorted(map(tuple, (columns + 0.0).tolist()))

    both = [
        torch.cat(parts) for parts in ((sender, receiver), (receiver, sender), (shift, -shift), (vectors, -vectors))
    ]
    assert bool((shift != 0).any())
    assert bool((sender == receiver).any())
    assert rows(*both) == rows(*graph.edge_index, graph.shift, graph.edge_vectors())


def test_pairs_are_not_claimed_where_an_edge_stands_alone(frames: FrameSet):
    graph = graph_of(frames.frame(1), CUTOFF)
    few = replace(graph, edge_index=graph.edge_index[:, 1:], shift=graph.shift[1:])
    assert few.pairs is None
    turned = graph.shift.clone()
    turned[graph.shift.any(1).nonzero()[0]] += 1
    assert replace(graph, shift=turned).pairs is None
    onto_itself = torch.cat([graph.edge_index, torch.zeros(2, 1, dtype=torch.int64)], dim=1)
    assert replace(graph, edge_index=onto_itself, shift=torch.cat([graph.shift, graph.shift[:1] * 0])).pairs is None
    alone = graph_of(molecule("H"), CUTOFF)
    assert alone.pairs is not None
    assert alone.pairs.shape == (0,)


def test_dtypes(frames: FrameSet):
    graph, targets = collate(frames, [0, 1], NeighbourCache(frames, CUTOFF), torch.float32)
    assert graph.positions.dtype == graph.cell.dtype == targets.forces.dtype == torch.float32
    assert targets.energy.dtype == torch.float64
    wide, labels = graph.to(dtype=torch.float64), targets.to(dtype=torch.float32)
    assert wide.positions.dtype == torch.float64
    assert wide.edge_index.dtype == wide.shift.dtype == wide.numbers.dtype == torch.int64
    assert wide.pbc.dtype == torch.bool
    assert labels.energy.dtype == torch.float64, "energies are never rounded"
    assert labels.stress.dtype == torch.float32
    assert graph.to("cpu").positions.dtype == torch.float32
    assert graph.to("meta").positions.device.type == "meta"


def test_a_batch_is_writable_and_does_not_share_with_the_set(frames: FrameSet):
    graph, targets = collate(frames, [0], NeighbourCache(frames, CUTOFF), torch.float64)
    before = np.array(frames.positions)
    graph.positions.add_(1.0)
    graph.pbc.fill_(True)
    targets.forces.zero_()
    targets.energy.fill_(99.0)
    assert np.array_equal(frames.positions, before)
    assert not frames.pbc[0].any()
    assert frames.energy[0] == 0.0


def test_negative_and_array_indices(frames: FrameSet):
    cache = NeighbourCache(frames, CUTOFF)
    a, _ = collate(frames, [-1, 3], cache)
    b, _ = collate(frames, np.array([8, 3]), cache)
    assert torch.equal(a.edge_index, b.edge_index)
    assert torch.equal(a.positions, b.positions)


def test_pyg_round_trip(frames: FrameSet):
    pytest.importorskip("torch_geometric")
    graph, _ = collate(frames, [2, 1, 0], NeighbourCache(frames, CUTOFF))
    data = graph.to_pyg()
    assert data.num_nodes == len(graph.numbers)
    again = Graph.from_pyg(data)
    for name in ("numbers", "positions", "edge_index", "shift", "cell", "pbc", "system", "n_atoms"):
        assert torch.equal(getattr(again, name), getattr(graph, name)), name
    shuffled = data.clone()
    order = torch.randperm(data.edge_index.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled.edge_index, shuffled.shift = data.edge_index[:, order], data.shift[order]
    assert (Graph.from_pyg(shuffled).edge_index[1].diff() >= 0).all()


def test_from_pyg_of_a_bare_molecule():
    data_module = pytest.importorskip("torch_geometric.data")
    data = data_module.Data(z=torch.tensor([1, 8]), pos=torch.eye(3)[:2], edge_index=torch.tensor([[0, 1], [1, 0]]))
    graph = Graph.from_pyg(data)
    assert graph.n_systems == 1
    assert graph.n_atoms.tolist() == [2]
    assert graph.edge_index.tolist() == [[1, 0], [0, 1]]
    torch.testing.assert_close(graph.edge_vectors().norm(dim=1), torch.full((2,), 2.0**0.5))


def test_batches_by_size_hold_every_frame_once_and_few_atoms():
    from mlipkit.data.graph import ATOMS_PER_BATCH, batches_by_size

    sizes = np.random.default_rng(0).integers(1, 500, 100)
    sizes[7] = 5 * ATOMS_PER_BATCH
    batches = list(batches_by_size(sizes, 10))
    assert sorted(np.concatenate(batches).tolist()) == list(range(100))
    assert all(len(batch) <= 10 for batch in batches)
    assert all(sizes[batch].sum() <= ATOMS_PER_BATCH or len(batch) == 1 for batch in batches)
    assert [7] in [batch.tolist() for batch in batches]
    assert len(list(batches_by_size([9] * 128, 64))) == 2
    part = np.array([3, 50, 99])
    assert sorted(np.concatenate(list(batches_by_size(sizes, 2, part))).tolist()) == part.tolist()
