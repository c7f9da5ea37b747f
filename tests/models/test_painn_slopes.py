"""Forces by PaiNN's layers run backwards by hand are those of autograd, and the hand is only used where it may be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import suites
import torch

from mlipkit.data import graph_of
from mlipkit.models import painn_slopes
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


@pytest.mark.parametrize("options", [{}, {"readout": True, "vector_bias": True}, {"layers": 1}])
@pytest.mark.parametrize("make", ["ethanol", "skewed_crystal", "lone_atom"])
def test_equals_autograd(make, options, calls):
    potential = suites.small_potential("painn", torch.float64, **options)
    graph = graph_of(getattr(suites, make)(), potential.cutoff, torch.float64)
    found = potential(graph, stress=True, features=True)
    assert calls
    del calls[:]
    expected = potential(graph, stress=True, features=True, create_graph=True)
    assert not calls
    for name in ("energy", "forces", "stress", "features", "energies"):
        a, b = getattr(found, name), getattr(expected, name)
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12, equal_nan=True), name


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
