"""The steps between PaiNN's linear maps: compiled loops against the plain formulas, derivatives of three orders."""

from __future__ import annotations

import pytest
import torch
from op_checks import with_1_and_3_threads

from mlipkit.ops import gating, native, use_version

N, D = 4, 3
SHAPES = {
    "scaled": [(N, 3, D), (N, D)],
    "norms": [(N, 3, 2 * D), (N, D)],
    "gate": [(N, D), (N, 3, D), (N, 3, 2 * D), (N, 3 * D)],
    "silu": [(N, D)],
}
STEPS = sorted(SHAPES)
pytestmark = pytest.mark.skipif(native.kernels() is None, reason="needs numba")


def step(name: str, *values):
    result = gating.norms(*values, 1e-3) if name == "norms" else getattr(gating, name)(*values)
    return result if isinstance(result, tuple) else (result,)


def arguments(name: str, dtype=torch.float64, spread: bool = False):
    """Random tensors; with `spread` rows lie apart in memory, as those of a split do."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for shape in SHAPES[name]:
        values = torch.randn(*shape[:-1], 2 * shape[-1], generator=generator, dtype=dtype)
        made.append(values[..., : shape[-1]] if spread else values[..., : shape[-1]].clone())
    return [value.requires_grad_() for value in made]


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_equals_the_formula(name, spread):
    values = arguments(name, spread=spread)
    found = step(name, *values)
    with use_version("reference"):
        expected = step(name, *values)
    for a, b in zip(found, expected, strict=True):
        assert type(a.grad_fn) is not type(b.grad_fn)
        assert torch.allclose(a, b, atol=1e-14)


@pytest.mark.parametrize("name", STEPS)
def test_derivatives(name):
    values = arguments(name)
    assert torch.autograd.gradcheck(lambda *v: step(name, *v), values)
    assert torch.autograd.gradgradcheck(lambda *v: step(name, *v), values)


@pytest.mark.parametrize("name", STEPS)
def test_third_derivatives(name):
    def slopes(*values):
        total = sum((result * torch.sin(result)).sum() for result in step(name, *values))
        return torch.autograd.grad(total, values, create_graph=True)

    assert torch.autograd.gradgradcheck(slopes, arguments(name))


@pytest.mark.parametrize("name", STEPS)
def test_float32_and_every_number_of_threads(name):
    values = arguments(name)
    narrow = [value.detach().float().requires_grad_() for value in values]
    expected = step(name, *values)
    seen = with_1_and_3_threads(lambda: step(name, *narrow))
    for a, b, c in zip(*seen, expected, strict=True):
        assert torch.equal(a, b)
        assert torch.allclose(a.double(), c, rtol=1e-5, atol=1e-6)
