"""Sizes and equations of the encoders, term by term against methods and hand computation."""

from __future__ import annotations

import math

import pytest
import suites
import torch

from mlipkit.data import graph_of
from mlipkit.errors import ModelError
from mlipkit.models import ENCODERS, PaiNN, SchNet, build_encoder
from mlipkit.models.bases import bessel, cosine_cutoff, gaussians, polar, shifted_softplus


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("layers", "biased", "expected"),
    [(3, True, 583_936), (3, False, 583_168), (6, True, 1_152_640), (6, False, 1_151_104)],
)
def test_painn_parameter_counts(layers, biased, expected):
    encoder = PaiNN(features=128, layers=layers, cutoff=6.0, vector_bias=biased)
    assert count(encoder) == expected
    assert count(encoder.messages[0]) == 74_112
    assert count(encoder.updates[0]) == (115_456 if biased else 115_200)
    assert count(PaiNN(features=128, layers=layers, readout=True, vector_bias=biased)) == expected + 33_024


def test_head_parameter_counts():
    counts = {
        head: count(suites.small_potential("painn", torch.float32, features=128, head=head).head)
        for head in ("per_atom", "per_atom_wide", "pooled")
    }
    assert counts == {"per_atom": 8_321, "per_atom_wide": 16_641, "pooled": 33_024 + 16_641}


def test_schnet_parameter_count():
    per_layer = (50 * 128 + 128) + (128 * 128 + 128) + 128 * 128 + 2 * (128 * 128 + 128)
    assert count(SchNet(features=128, layers=3, cutoff=6.0)) == 119 * 128 + 3 * per_layer


def test_bases():
    d = torch.linspace(0.5, 6.5, 25, dtype=torch.float64)
    k = torch.arange(1, 6, dtype=torch.float64)
    assert torch.allclose(bessel(d, 6.0, 5), torch.sin(k * math.pi * d[:, None] / 6) / d[:, None], atol=1e-15)
    mu = torch.linspace(0, 6, 5, dtype=torch.float64)
    assert torch.allclose(gaussians(d, 6.0, 5), torch.exp(-((d[:, None] - mu) ** 2) / (2 * 1.5**2)), atol=1e-15)
    inside = d < 6.0
    expected = torch.where(inside, 0.5 * (torch.cos(math.pi * d / 6) + 1), 0.0)
    assert torch.allclose(cosine_cutoff(d, 6.0), expected, atol=1e-15)
    assert torch.equal(cosine_cutoff(d[~inside], 6.0), torch.zeros_like(d[~inside]))
    a = torch.linspace(-40, 40, 9, dtype=torch.float64)
    assert torch.allclose(shifted_softplus(a), torch.log(0.5 * torch.exp(a) + 0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_polar_at_zero_length(dtype):
    r = torch.zeros(2, 3, dtype=dtype)
    r[1, 1] = 2.0
    r.requires_grad_()
    d, u = polar(r)
    assert d[1] == 2
    assert torch.equal(u[0], torch.zeros(3, dtype=dtype))
    (slope,) = torch.autograd.grad(d.sum(), r, create_graph=True)
    (second,) = torch.autograd.grad((slope * u).sum(), r)
    assert bool(second.isfinite().all())


def _dense(encoder, graph):
    """(sender, receiver, d, u, fc) of each edge, for equations written as loops."""
    r = graph.edge_vectors()
    d = r.norm(dim=-1)
    fc = torch.where(d < encoder.cutoff, 0.5 * (torch.cos(math.pi * d / encoder.cutoff) + 1), 0.0)
    return graph.edge_index[0], graph.edge_index[1], d, r / d[:, None], fc


def test_schnet_equations():
    encoder = suites.small_potential("schnet", torch.float64).encoder
    graph = graph_of(suites.skewed_crystal(), encoder.cutoff, torch.float64)
    sender, receiver, d, _, fc = _dense(encoder, graph)
    mu = torch.linspace(0, encoder.cutoff, encoder.n_radial, dtype=torch.float64)
    g = torch.exp(-((d[:, None] - mu) ** 2) / (2 * float(mu[1]) ** 2))
    x = encoder.embedding.weight[graph.numbers]
    for layer in encoder.layers:
        w = layer.filter_out(shifted_softplus(layer.filter_in(g))) * fc[:, None]
        m = torch.zeros_like(x)
        for e in range(len(d)):
            m[receiver[e]] += (x[sender[e]] @ layer.project.weight.T) * w[e]
        x = x + layer.update(m)
    found = encoder(graph.numbers, graph.edge_index, graph.edge_vectors())
    assert found.vector is None
    assert torch.allclose(found.scalar, x, atol=1e-12)


def test_painn_equations():
    encoder = suites.small_potential("painn", torch.float64, layers=3).encoder
    graph = graph_of(suites.skewed_crystal(), encoder.cutoff, torch.float64)
    sender, receiver, d, u, fc = _dense(encoder, graph)
    k = torch.arange(1, encoder.n_radial + 1, dtype=torch.float64)
    phi = torch.sin(k * math.pi * d[:, None] / encoder.cutoff) / d[:, None]
    silu, width = torch.nn.functional.silu, encoder.width
    s = encoder.embedding.weight[graph.numbers]
    v = torch.zeros(len(s), 3, width, dtype=torch.float64)
    for block, update in zip(encoder.messages, encoder.updates, strict=True):
        a = block.mix_out(silu(block.mix_in(s)))
        w = block.filter(phi) * fc[:, None]
        ds, dv = torch.zeros_like(s), torch.zeros_like(v)
        for e in range(len(d)):
            j, i = sender[e], receiver[e]
            q_vv, q_vs, q_ss = (a[j] * w[e]).split(width)
            ds[i] += q_ss
            dv[i] += q_vv * v[j] + q_vs * u[e][:, None]
        s, v = s + ds, v + dv
        uv, vv = v @ update.uv.weight[:width].T, v @ update.uv.weight[width:].T
        norm = torch.sqrt((vv**2).sum(1) + 1e-8)
        a_vv, a_sv, a_ss = update.mix(torch.cat([norm, s], 1)).split(width, 1)
        s, v = s + a_ss + a_sv * (uv * vv).sum(1), v + a_vv[:, None] * uv
    found = encoder(graph.numbers, graph.edge_index, graph.edge_vectors())
    assert torch.allclose(found.scalar, s, atol=1e-12)
    assert torch.allclose(found.vector, v, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_start_weights(name):
    first, second, other = (build_encoder(name, seed=seed) for seed in (1, 1, 2))
    state = torch.random.get_rng_state()
    build_encoder(name, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    for (key, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert key.endswith("bias") != (not torch.equal(a, c))
        if key.endswith("bias"):
            assert not a.any()
        elif "embedding" not in key:
            assert float(a.detach().abs().max()) <= math.sqrt(6 / sum(a.shape))
    assert build_encoder(name, **first.options()).options() == first.options()


def test_unknown_names():
    with pytest.raises(ModelError, match=r"unknown encoder 'pain'.*did you mean 'painn'"):
        build_encoder("pain")
    with pytest.raises(ModelError, match=r"unknown option 'n_layers'.*layers"):
        build_encoder("schnet", n_layers=3)
