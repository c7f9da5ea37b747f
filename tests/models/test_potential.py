"""What `Potential` promises beyond the property suite."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import suites
import torch
from ase import Atoms

from mlipkit.data import FrameSet, graph_of
from mlipkit.errors import ModelError
from mlipkit.models import Potential, build_encoder, predict


@pytest.fixture
def potential():
    return suites.small_potential("painn", torch.float32)


def test_energy_is_finished_in_float64():
    """Large atomic energies do not round away the network's part."""
    encoder = build_encoder("painn", seed=0, features=8, layers=1)
    low = Potential(encoder, atomic_energies={8: 0.0})
    high = Potential(encoder, atomic_energies={8: -407.84007125944})
    high.head = low.head
    graph = graph_of(suites.lone_atom(), 5.0)
    difference = high(graph).energy - low(graph).energy
    assert abs(float(difference) + 407.84007125944) < 1e-11
    assert high(graph).energy.dtype is torch.float64


def test_dtype_changes_do_not_round_constants(potential):
    before = potential.atomic_energies.clone()
    changed = potential.double().float().to(torch.float64).half().float()
    assert changed.atomic_energies.dtype is torch.float64
    assert torch.equal(changed.atomic_energies[list(suites.ELEMENTS)], before[list(suites.ELEMENTS)])
    assert changed.scale.dtype is torch.float64
    assert float(changed.scale) == 0.7


def test_unknown_element(potential):
    with pytest.raises(ModelError, match=r"element unknown to this potential: Na, Cl; expected only H, C, O"):
        potential(graph_of(Atoms("NaClH", positions=np.eye(3)), 3.0))
    energies = potential.atomic_energies
    assert bool(energies.isfinite().sum() == 3)


@pytest.mark.parametrize("elements", [[], [0], [119]])
def test_impossible_elements(elements):
    with pytest.raises(ModelError, match="no usable element"):
        Potential(build_encoder("painn", features=4), atomic_energies={}, elements=elements)


def test_element_without_atomic_energy():
    with pytest.raises(ModelError, match="without an atomic energy; found O"):
        Potential(build_encoder("painn", features=4), atomic_energies={1: -0.5}, elements=[1, 8])


def test_unknown_head():
    with pytest.raises(ModelError, match="did you mean 'per_atom'"):
        Potential(build_encoder("painn", features=4), atomic_energies={1: 0.0}, head="per-atom")


def test_float64_positions_with_float32_weights(potential):
    """Edge vectors are made in the positions' precision: far from the origin nothing is lost."""
    near = graph_of(suites.ethanol(), potential.cutoff, torch.float64)
    far = replace(near, positions=near.positions + 5000.0)
    first, second = potential(near), potential(far)
    assert second.forces.dtype is torch.float64
    assert torch.allclose(first.forces, second.forces, atol=1e-5)
    lost = potential(replace(far, positions=far.positions.float()))
    assert not torch.allclose(first.forces.float(), lost.forces, atol=1e-5)


def test_inference_leaves_nothing_behind(potential):
    graph = graph_of(suites.ethanol(), potential.cutoff)
    result = potential(graph, stress=True, features=True)
    assert not graph.positions.requires_grad
    assert all(value is None or value.grad_fn is None for value in vars(result).values())
    assert all(p.grad is None and p.requires_grad for p in potential.parameters())
    with torch.no_grad():
        assert torch.equal(potential(graph).forces, result.forces)


def test_what_is_not_asked_for_is_not_there(potential):
    graph = graph_of(suites.skewed_crystal(), potential.cutoff)
    bare = potential(graph, forces=False)
    assert bare.forces is None
    assert bare.stress is None
    assert bare.features is None
    alone = potential(graph, forces=False, stress=True)
    assert alone.forces is None
    assert torch.equal(alone.stress, potential(graph, stress=True).stress)
    assert torch.allclose(bare.energies.sum(), bare.energy[0])


def test_training_reaches_all_weights(potential):
    """Energy, force and stress losses together give every parameter of encoder and head a gradient."""
    graph = graph_of(suites.skewed_crystal(), potential.cutoff)
    result = potential(graph, stress=True, create_graph=True)
    (result.energy.sum() + result.forces.square().sum() + result.stress.square().sum()).backward()
    for name, parameter in potential.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
    energy_only = potential(graph, forces=False, create_graph=True)
    assert energy_only.energy.requires_grad


def test_stress_gradient_with_a_molecule_in_the_batch():
    """A structure without a volume must not poison the gradient of the others."""
    potential = suites.small_potential("painn", torch.float64)
    frames = FrameSet.from_atoms([suites.ethanol(), suites.skewed_crystal()])
    from mlipkit.data import NeighbourCache, collate

    graph, _ = collate(frames, [0, 1], NeighbourCache(frames, potential.cutoff), torch.float64)
    result = potential(graph, stress=True, create_graph=True)
    result.stress[1].square().sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in potential.parameters())


def test_replaced_edges_and_positions(potential):
    graph = graph_of(suites.ethanol(), potential.cutoff)
    with torch.no_grad():
        moved = potential.encode(graph, positions=graph.positions + 0.1 * torch.randn(9, 3))
        fewer = potential.encode(replace(graph, edge_index=graph.edge_index[:, 5:], shift=graph.shift[5:]))
        plain = potential.encode(graph)
    assert not torch.allclose(moved.scalar, plain.scalar)
    assert not torch.allclose(fewer.scalar, plain.scalar)
    start = graph.positions.clone().requires_grad_()
    (slope,) = torch.autograd.grad(potential.encode(graph, positions=start).scalar.sum(), start)
    assert float(slope.abs().max()) > 0


def test_describe(potential):
    said = potential.describe()
    assert said["encoder"] == "painn"
    assert said["elements"] == ["H", "C", "O"]
    assert said["parameters"] == sum(p.numel() for p in potential.parameters())
    potential.encoder.requires_grad_(False)
    assert potential.describe()["trainable"] == sum(p.numel() for p in potential.head.parameters())
    assert list(potential.encoder_parameters()) == [name for name, _ in potential.encoder.named_parameters()]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_predict(potential, batch_size):
    atoms = [suites.ethanol(1), suites.lone_atom(), suites.skewed_crystal(), suites.slab(), suites.ethanol(2)]
    frames = FrameSet.from_atoms(atoms)
    found = predict(potential, frames, batch_size=batch_size, stress=True)
    for i, one in enumerate(atoms):
        single = potential(graph_of(one, potential.cutoff, torch.float64), stress=True)
        rows = slice(found.offsets[i], found.offsets[i + 1])
        assert abs(found.energy[i] - float(single.energy)) < 1e-4
        assert np.allclose(found.forces[rows], single.forces.numpy(), atol=1e-5)
        assert np.allclose(found.stress[i], single.stress[0].numpy(), atol=1e-5, equal_nan=True)
    bare = predict(potential, frames, forces=False)
    assert not bare.has("forces").any()
    assert np.allclose(bare.energy, found.energy)
    with pytest.raises(ModelError, match="Si"):
        predict(potential, FrameSet.from_atoms([Atoms("Si")]))
    assert len(predict(potential, frames[:0], stress=True)) == 0
