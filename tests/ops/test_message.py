"""Every version of the neighbour sum against a loop and against each other, with derivatives of both orders."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import suites
import torch
from op_checks import results_and_slopes, trained_with, with_1_and_3_threads

from mlipkit.data import graph_of
from mlipkit.errors import ModelError
from mlipkit.ops import Edges, gather, message, native, segment_sum, use_version
from mlipkit.ops.message import VERSIONS

D, K = 3, 2


def problem(kind: str, order: str = "sorted", n: int = 5, e: int = 11):
    """Edges (one atom has none) and the arguments of `message` for SchNet, the first PaiNN layer or a later one.

    order: of the receivers, "sorted" or "any"; "mirrored" edges stand for both directions.
    """
    generator = torch.Generator().manual_seed(7)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sender = torch.randint(0, n, (e,), generator=generator)
    receiver = torch.randint(0, n - 1, (e,), generator=generator)
    if order == "mirrored":
        sender = sender % (n - 1)
    if order == "sorted":
        receiver = receiver.sort().values
    width = {"filters": D, "scalar": D, "first": 2 * D, "later": 3 * D}[kind]
    arguments = {"x": normal(n, D if kind in ("filters", "scalar") else 2 * D)}
    arguments["basis"] = normal(e, width if kind == "filters" else K)
    if kind != "filters":
        arguments["weight"] = normal(K, width)
    if kind in ("first", "later"):
        arguments["unit"] = normal(e, 3)
    if kind == "later":
        arguments["vector"] = normal(n, 3, D)
    return Edges(torch.stack([sender, receiver]), n, mirrored=order == "mirrored"), arguments


def by_hand(edges: Edges, x, basis, weight=None, unit=None, vector=None):
    """The equations of the module as a loop over edges."""
    if edges.mirrored:
        basis, unit = torch.cat([basis, basis]), None if unit is None else torch.cat([unit, -unit])
        ends = torch.stack([edges.sender, edges.receiver])
        edges = Edges(torch.cat([ends, ends.flip(0)], dim=1), edges.n_atoms)
    filters = basis if weight is None else basis @ weight
    width = D
    scalar = torch.zeros(edges.n_atoms, width, dtype=x.dtype)
    moved = torch.zeros(edges.n_atoms, 3, width, dtype=x.dtype)
    for edge, (j, i) in enumerate(zip(edges.sender.tolist(), edges.receiver.tolist(), strict=True)):
        w = filters[edge]
        if unit is None:
            scalar[i] += x[j] * w
            continue
        w_along, w_scalar = w[-2 * width : -width], w[-width:]
        scalar[i] += x[j, width:] * w_scalar
        moved[i] += unit[edge][:, None] * (x[j, :width] * w_along)
        if vector is not None:
            moved[i] += vector[j] * w[:width]
    return scalar if unit is None else (scalar, moved)


def parts(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("order", ["sorted", "any", "mirrored"])
@pytest.mark.parametrize("kind", ["filters", "scalar", "first", "later"])
@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_equals_the_loop(version, kind, order):
    edges, arguments = problem(kind, order)
    with use_version(version):
        found = message(edges, **arguments)
    for a, b in zip(parts(found), parts(by_hand(edges, **arguments)), strict=True):
        assert torch.allclose(a, b, atol=1e-14)


@pytest.mark.parametrize("order", ["any", "mirrored"])
@pytest.mark.parametrize("kind", ["filters", "scalar", "first", "later"])
@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_derivatives(version, kind, order):
    """gradcheck and gradgradcheck in every floating argument."""
    edges, arguments = problem(kind, order, n=4, e=6)
    names, values = list(arguments), [value.requires_grad_() for value in arguments.values()]

    def run(*values):
        edges.tables.clear()
        with use_version(version):
            return message(edges, **dict(zip(names, values, strict=True)))

    assert torch.autograd.gradcheck(run, values)
    assert torch.autograd.gradgradcheck(run, values)


@pytest.mark.parametrize("kind", ["filters", "scalar", "first", "later"])
@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_no_edges(version, kind):
    edges, arguments = problem(kind, e=0)
    arguments = {name: value.requires_grad_() for name, value in arguments.items()}
    with use_version(version):
        result = parts(message(edges, **arguments))
    assert all(not bool(value.any()) for value in result)
    sum(value.sum() for value in result).backward()
    assert not bool(arguments["x"].grad.any())


@pytest.mark.parametrize("version", sorted(VERSIONS))
@pytest.mark.parametrize("encoder", ["painn", "schnet"])
def test_models_agree_in_training(version, encoder):
    """Energy, forces, stress and the gradients of a force loss are those of the reference."""
    potential = suites.small_potential(encoder, torch.float64)
    graph = graph_of(suites.skewed_crystal(), potential.cutoff, torch.float64)
    seen = [trained_with(name, potential, graph) for name in ("reference", version)]
    for a, b in zip(*seen, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["scalar", "first", "later"])
@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_third_derivatives(version, kind):
    """Training through an adaptation step differentiates forces twice more."""
    edges, arguments = problem(kind, "mirrored", n=3, e=3)
    names, values = list(arguments), [value.requires_grad_() for value in arguments.values()]

    def slopes(*values):
        edges.tables.clear()
        with use_version(version):
            results = parts(message(edges, **dict(zip(names, values, strict=True))))
        total = sum((result * torch.sin(result)).sum() for result in results)
        return torch.autograd.grad(total, values, create_graph=True)

    assert torch.autograd.gradgradcheck(slopes, values)


@pytest.mark.skipif(native.kernels() is None, reason="needs numba")
@pytest.mark.parametrize("order", ["any", "mirrored"])
@pytest.mark.parametrize("kind", ["scalar", "first", "later"])
def test_threads_change_nothing(kind, order, monkeypatch):
    """The sum and its slopes to the last bit, and float32 to its rounding."""
    monkeypatch.setattr(sys.modules[__name__], "D", 40)
    edges, arguments = problem(kind, order, e=50)
    with use_version("reference"):
        exact = parts(message(edges, **arguments))
    values = [value.float().requires_grad_() for value in arguments.values()]

    def run():
        return results_and_slopes(parts(message(edges, **dict(zip(arguments, values, strict=True)))), values)

    seen = with_1_and_3_threads(run)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    for found, expected in zip(seen[0], exact, strict=False):
        assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_an_edge_to_no_atom_is_refused():
    edges = Edges(torch.tensor([[0, 1], [1, 5]]), 3)
    with pytest.raises((IndexError, RuntimeError)):
        message(edges, torch.randn(3, D), torch.randn(2, D))
    with pytest.raises((ModelError, RuntimeError)):
        message(Edges(torch.tensor([[0, 1], [1, 2]]), 3), torch.randn(3, D), torch.randn(1, D))


def test_choice_by_neighbours(monkeypatch):
    from mlipkit.ops import contracted

    ran = []
    for name, version in list(VERSIONS.items()):

        def run(*arguments, name=name, version=version):
            ran.append(name)
            return version.run(*arguments)

        monkeypatch.setitem(VERSIONS, name, replace(version, run=run))
    few, arguments = problem("first")
    if native.kernels() is not None:
        message(few, **arguments)
        assert ran.pop() == "fused"
    monkeypatch.setattr(native, "kernels", lambda: None)
    message(few, **arguments)
    monkeypatch.setattr(contracted, "SMALLEST", 5)
    message(few, **arguments)
    with use_version("reference"):
        message(few, **arguments)
    filters = problem("filters")
    message(filters[0], **filters[1])
    assert ran == ["reference", "contracted", "reference", "reference"]


def test_functional_transforms_use_the_reference(monkeypatch):
    from mlipkit.ops import contracted

    monkeypatch.setattr(contracted, "SMALLEST", 0)
    edges, arguments = problem("first")

    def total(x):
        scalar, moved = message(edges, **{**arguments, "x": x})
        return scalar.sum() + moved.square().sum()

    x = arguments["x"]
    found = torch.func.grad(total)(x)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(leaf), leaf)
    assert torch.allclose(found, expected, atol=1e-14)
    assert torch.func.vmap(total)(torch.stack([x, x])).shape == (2,)


def test_unknown_version():
    with pytest.raises(ModelError, match="known: contracted, fused, reference"), use_version("fast"):
        pass


def test_segment_sum_and_gather():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    index = torch.tensor([2, 0, 2])
    assert segment_sum(values, index, 4).tolist() == [[3, 4], [0, 0], [6, 8], [0, 0]]
    assert gather(values, index).tolist() == values[index].tolist()
    assert segment_sum(values[:, 0], index, 3).dtype is torch.float32
