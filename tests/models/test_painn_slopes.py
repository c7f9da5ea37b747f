"""Forces by PaiNN's layers run backwards by hand are those of autograd, and the hand is only used where it may be."""

from __future__ import annotations

import copy
import gc
import pickle
from dataclasses import replace

import pytest
import suites
import torch

from mlipkit.data import graph_of
from mlipkit.models import painn_slopes
from mlipkit.models.bases import bessel, cosine_cutoff, polar
from mlipkit.ops import native, use_version

pytestmark = pytest.mark.skipif(native.kernels() is None, reason="needs numba")


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    seen = []
    forwards = painn_slopes.Layers.forward

    def counted(ctx, *given):
        seen.append(1)
        return forwards(ctx, *given)

    monkeypatch.setattr(painn_slopes.Layers, "forward", staticmethod(counted))
    return seen


def agree(potential, graph, atol: float = 1e-12) -> None:
    expected = potential(graph, stress=True, features=True, create_graph=True)
    found = potential(graph, stress=True, features=True)
    for name in ("energy", "forces", "stress", "features", "energies"):
        a, b = getattr(found, name), getattr(expected, name)
        assert torch.allclose(a, b, rtol=atol, atol=atol, equal_nan=True), name
        assert not a.requires_grad


@pytest.mark.parametrize(
    "options", [{}, {"readout": True, "vector_bias": True}, {"layers": 1}, {"head": "gated"}, {"n_radial": 1}]
)
@pytest.mark.parametrize("make", ["ethanol", "skewed_crystal", "lone_atom"])
def test_equals_autograd(make, options, calls):
    potential = suites.small_potential("painn", torch.float64, **options)
    graph = graph_of(getattr(suites, make)(), potential.cutoff, torch.float64)
    agree(potential, graph)
    assert len(calls) == 1


def test_more_atoms_than_types(calls):
    """What the first layer makes of an atom is then made once per type."""
    atoms = suites.ethanol(1) + suites.ethanol(2)
    atoms.positions[9:, 2] += 4.0
    potential = suites.small_potential("painn", torch.float64)
    agree(potential, graph_of(atoms, potential.cutoff, torch.float64))
    assert calls


def test_edges_beyond_the_cutoff_count_nothing(calls):
    potential = suites.small_potential("painn", torch.float64)
    graph, more = (graph_of(suites.skewed_crystal(), potential.cutoff + skin, torch.float64) for skin in (0.0, 0.8))
    assert more.edge_index.shape[1] > graph.edge_index.shape[1]
    agree(potential, more)
    assert torch.allclose(potential(graph).forces, potential(more).forces, rtol=0, atol=1e-12)
    assert calls


def test_single_precision(calls):
    potential = suites.small_potential("painn", torch.float32)
    agree(potential, graph_of(suites.skewed_crystal(), potential.cutoff), atol=2e-5)
    agree(potential, graph_of(suites.ethanol(), potential.cutoff, torch.float64), atol=2e-5)
    assert calls


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_edges_are_those_of_the_plain_functions(dtype, atol):
    """Lengths from none to beyond the cutoff; below 1e-4 Å a length is a constant."""
    cutoff, n_radial = 5.0, 20
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unit = torch.nn.functional.normalize(torch.randn(9, 3, dtype=torch.float64), dim=1)
    lengths = torch.tensor([0.0, 1e-5, 2e-4, 0.1, 1.0, 3.3, 4.9999, 5.0, 7.0], dtype=torch.float64)
    vectors = (unit * lengths.unsqueeze(1)).to(dtype)
    ray, basis, slope = painn_slopes._radial(vectors, n_radial, cutoff)
    d, unit = polar(vectors)
    d.requires_grad_()

    def plain(d):
        envelope = cosine_cutoff(d, cutoff).unsqueeze(-1)
        return torch.cat([bessel(d, cutoff, n_radial) * envelope, envelope], dim=-1)

    expected = plain(d)
    assert torch.allclose(ray[:, :3], unit, atol=atol)
    assert torch.allclose(basis, expected, rtol=atol, atol=atol)
    columns = [torch.autograd.grad(column.sum(), d, retain_graph=True)[0] for column in expected.unbind(1)]
    # Close to nothing the plain slope is a difference of two numbers of size k / d that the type cannot hold.
    far = d > (1e-3 if dtype == torch.float64 else 0.5)
    assert torch.allclose(slope[far], torch.stack(columns, dim=1)[far], rtol=20 * atol, atol=200 * atol)
    assert ray[:, 4].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert not basis[-1].any()
    assert not slope[-1].any()


def test_atoms_on_one_point(calls):
    potential = suites.small_potential("painn", torch.float64)
    atoms = suites.ethanol()
    atoms.positions[3] = atoms.positions[4]
    atoms.positions[5] = atoms.positions[6] + 2e-5
    agree(potential, graph_of(atoms, potential.cutoff, torch.float64), atol=1e-9)
    assert calls


def test_weights_are_those_of_the_moment(calls):
    """Whatever changed them: nothing of an earlier call is kept."""
    potential = suites.small_potential("painn", torch.float64)
    graph = graph_of(suites.ethanol(), potential.cutoff, torch.float64)
    other = suites.small_potential("painn", torch.float64, seed=5)
    seen = [potential(graph).energy]

    def changed(potential, graph=graph, atol=1e-12):
        agree(potential, graph, atol)
        seen.append(potential(graph).energy)
        assert all(abs(float(seen[-1] - energy)) > 1e-9 for energy in seen[:-1])

    optimizer = torch.optim.Adam(potential.parameters(), lr=1e-2)
    potential(graph, create_graph=True).forces.square().sum().backward()
    optimizer.step()
    changed(potential)
    with torch.no_grad():
        potential.encoder.messages[1].filter.bias.add_(0.1)
    changed(potential)
    potential.encoder.updates[0].uv.weight.data *= 1.1
    changed(potential)
    potential.encoder.embedding.weight.data = potential.encoder.embedding.weight.data * 1.1
    changed(potential)
    twin = copy.deepcopy(potential)
    twin.encoder.updates[1].mix[2].bias.data += 0.1
    changed(twin)
    again = pickle.loads(pickle.dumps(twin))
    assert torch.equal(again(graph).energy, twin(graph).energy)
    potential.load_state_dict(other.state_dict())
    changed(potential)
    assert torch.equal(potential(graph).energy, other(graph).energy)
    potential.float()
    agree(potential, graph, 2e-5)
    potential.double().encoder.messages[0].mix_in = copy.deepcopy(other.encoder.messages[1].mix_in)
    changed(potential)


def test_nothing_outlives_a_prediction():
    """No circle of results and what made them, which would wait for the garbage collector."""
    potential = suites.small_potential("painn", torch.float32)
    graph = graph_of(suites.ethanol(), potential.cutoff)
    potential(graph)
    gc.collect()

    def alive() -> int:
        """By `type`, as `isinstance` asks a weak proxy of somebody else's for its class, and the dead ones raise."""
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    gc.disable()
    try:
        before = alive()
        potential(graph)
        assert alive() == before
    finally:
        gc.enable()


def test_a_list_that_is_not_closed_under_exchange(calls):
    """Half of an edge pair missing: edges count one by one."""
    potential = suites.small_potential("painn", torch.float64)
    graph = graph_of(suites.ethanol(), potential.cutoff, torch.float64)
    graph = replace(graph, edge_index=graph.edge_index[:, 1:], shift=graph.shift[1:])
    assert graph.pairs is None
    found = potential(graph)
    with use_version("reference"):
        expected = potential(graph)
    assert len(calls) == 1
    assert torch.allclose(found.forces, expected.forces, atol=1e-12)


def test_replaced_layers_are_called(calls):
    """A layer that somebody wrapped (an adapter of fine-tuning) is not read past."""
    potential = suites.small_potential("painn", torch.float64)

    class Twice(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    old = potential.encoder.updates[0].uv
    new = Twice(old.in_features, old.out_features, bias=False).double()
    new.load_state_dict(old.state_dict())
    potential.encoder.updates[0].uv = new
    graph = graph_of(suites.ethanol(), potential.cutoff, torch.float64)
    found, expected = potential(graph), potential(graph, create_graph=True)
    assert not calls
    assert torch.allclose(found.forces, expected.forces, atol=1e-12)


def test_hooked_layers_are_called(calls):
    potential = suites.small_potential("painn", torch.float64)
    graph = graph_of(suites.ethanol(), potential.cutoff, torch.float64)
    before = potential(graph).energy
    del calls[:]
    potential.encoder.messages[0].mix_in.register_forward_hook(lambda layer, given, out: 2 * out)
    agree(potential, graph)
    assert not calls
    assert abs(float(potential(graph).energy - before)) > 1e-6
