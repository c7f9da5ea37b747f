"""ViSNet's steps over edges: compiled loops against the plain formulas, derivatives of three orders."""

from __future__ import annotations

import math

import pytest
import suites
import torch
from op_checks import results_and_slopes, trained_with, with_1_and_3_threads

from mlipkit.data import graph_of
from mlipkit.ops import native, use_version
from mlipkit.ops.attend import Arcs, attend
from mlipkit.ops.vectors import carry, mixed, rejected

N, D, HEADS = 4, 2, 2
pytestmark = pytest.mark.skipif(native.kernels() is None, reason="needs numba")


def arcs(kind: str) -> Arcs:
    """Edges one by one, pairs for both directions, pairs and loops; the last atom has no neighbours."""
    ends = torch.tensor([[0, 1, 2, 0, 1], [1, 2, 0, 1, 1]])
    made = Arcs(ends, N, mirrored=kind != "edges")
    return made.with_loops() if kind == "loops" else made


KINDS = ["edges", "pairs", "loops"]


def problem(name: str, kind: str, dtype=torch.float64):
    """The operation as a function of tensors, and these."""
    generator, there = torch.Generator().manual_seed(3), arcs(kind)
    edges = len(there.sender)
    rows = edges - there.pairs

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    if name == "attend":
        return (lambda *t: attend(there, *t, HEADS)), [normal(N, 3 * D), normal(rows, 2 * D), normal(edges)]
    components = 8 if name.endswith("8") else 3
    if name.startswith("mixed"):
        return mixed, [normal(N, components, 3 * D), normal(N, 3 * D)]
    y = normal(edges, components)
    if name.startswith("rejected"):
        run = lambda *t: rejected(there, *t)  # noqa: E731
        return run, [normal(rows, D), normal(rows, D), normal(N, components, 2 * D), y]
    if name.startswith("first"):
        return (lambda *t: carry(there, None, *t)), [normal(edges, D), y, normal(edges)]
    return (lambda *t: carry(there, *t)), [normal(N, components, D), normal(edges, 2 * D), y, normal(edges)]


def outputs(result):
    return result if isinstance(result, tuple) else (result,)


STEPS = ["attend", "first_3", "carry_3", "carry_8", "rejected_3", "rejected_8", "mixed_3", "mixed_8"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STEPS)
def test_equals_the_formula(name, kind):
    run, given = problem(name, kind)
    found = outputs(run(*given))
    with use_version("reference"):
        expected = outputs(run(*given))
    for a, b in zip(found, expected, strict=True):
        assert type(a.grad_fn) is not type(b.grad_fn)
        assert torch.allclose(a, b, atol=1e-13)


@pytest.mark.parametrize("version", ["fused", "reference"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STEPS)
def test_derivatives(name, kind, version):
    run, given = problem(name, kind)
    with use_version(version):
        assert torch.autograd.gradcheck(run, given)
        assert torch.autograd.gradgradcheck(run, given)


@pytest.mark.parametrize("name", STEPS)
def test_third_derivatives(name):
    run, given = problem(name, "pairs")

    def slopes(*given):
        total = sum((result * torch.sin(result)).sum() for result in outputs(run(*given)))
        return torch.autograd.grad(total, given, create_graph=True)

    assert torch.autograd.gradgradcheck(slopes, given)


@pytest.mark.parametrize("name", STEPS)
def test_float32_and_every_number_of_threads(name):
    run, given = problem(name, "loops")
    narrow = [value.detach().float().requires_grad_() for value in given]
    expected = outputs(run(*given))
    seen = with_1_and_3_threads(lambda: results_and_slopes(outputs(run(*narrow)), narrow))
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(seen[0], expected, strict=False):
        assert torch.allclose(a.double(), b, rtol=1e-5, atol=1e-5)


def test_no_edges():
    run_on = Arcs(torch.zeros((2, 0), dtype=torch.int64), N, mirrored=True)
    qkv = torch.randn(N, 3 * D, requires_grad=True)
    m, total = attend(run_on, qkv, torch.zeros(0, 2 * D), torch.zeros(0), HEADS)
    assert m.shape == (0, D)
    assert not bool(total.any())
    total.sum().backward()
    assert not bool(qkv.grad.any())


def test_nothing_beyond_the_cutoff():
    """Where the cutoff function is zero so are sums, and all slopes but its own, of both orders."""
    there = arcs("pairs")
    edges = len(there.sender)
    cutoff = torch.zeros(edges, dtype=torch.float64, requires_grad=True)
    run, (qkv, h, _) = problem("attend", "pairs")
    carried, (v, z, y, _) = problem("carry_3", "pairs")
    m, total = run(qkv, h, cutoff)
    moved = carried(v, z, y, cutoff)
    assert not any(bool(t.any()) for t in (m, total, moved))
    given = (qkv, h, v, z, y)
    loss = (total + 1).square().sum() + (m - 1).square().sum() + (moved + 2).square().sum()
    slopes = torch.autograd.grad(loss, given, create_graph=True)
    assert not any(bool(s.any()) for s in slopes)
    second = torch.autograd.grad(sum(((s + 1) ** 2).sum() for s in slopes), given)
    assert not any(bool(s.any()) for s in second)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("options", [{}, {"lmax": 2, "head": "gated"}, {"self_loops": True}], ids=str)
def test_models_agree_in_training(options, dtype, bound):
    """Energy, forces, stress and the gradients of a force loss are those of the plain formulas."""
    potential = suites.small_potential("visnet", dtype, **options)
    graph = graph_of(suites.skewed_crystal(), potential.cutoff, dtype)
    seen = [trained_with(version, potential, graph) for version in ("reference", "fused")]
    assert len(seen[0]) == len(seen[1])
    for a, b in zip(*seen, strict=True):
        assert float((a - b).detach().abs().max()) <= bound * max(1.0, float(a.detach().abs().max()))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 3e-7), (torch.float64, 1e-15)])
def test_sigmoid(dtype, bound):
    x = torch.linspace(-70, 70, 10001, dtype=torch.float64).to(dtype)
    sigmoid = native.kernels("silu_kernels").sigmoid  # type: ignore[union-attr]
    found = torch.tensor([float(sigmoid(number)) for number in x.numpy()], dtype=torch.float64)
    exact = torch.sigmoid(x.double())
    assert float(((found - exact) / exact).abs().max()) < bound
    assert math.isnan(sigmoid(x.new_tensor([math.nan]).numpy()[0]))
    assert sigmoid(x.new_tensor([math.inf]).numpy()[0]) == 1


@pytest.mark.parametrize("name", STEPS)
def test_functional_transforms_use_the_formula(name):
    run, given = problem(name, "pairs")

    def total(first):
        return sum(result.square().sum() for result in outputs(run(first, *given[1:])))

    (expected,) = torch.autograd.grad(total(given[0]), given[:1])
    found = torch.func.grad(total)(given[0].detach())
    assert torch.allclose(found, expected, atol=1e-12)
