"""Sizes and equations of the encoders, term by term against methods and hand computation."""

from __future__ import annotations

import math
import re

import pytest
import suites
import torch

from mlipkit.data import graph_of
from mlipkit.errors import ModelError
from mlipkit.models import EGNN, ENCODERS, PaiNN, Potential, SchNet, ViSNet, build_encoder
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


@pytest.mark.parametrize(
    ("elements", "norm", "expected"),
    [((1, 6, 46), "layer", 513_281), ((1, 6), "layer", 513_153), ((1, 6, 7, 8), "layer", 513_409),
     ((1, 6, 46), "none", 510_209)],
)  # fmt: skip
def test_egnn_parameter_counts(elements, norm, expected):
    encoder = EGNN(features=128, elements=elements, norm=norm)
    potential = Potential(encoder, atomic_energies=dict.fromkeys(elements, 0.0), head="pooled_features")
    assert count(potential) == expected
    if norm == "layer":
        assert (count(encoder.layers[0].message), count(encoder.layers[0].update)) == (115_456, 49_920)
    assert encoder.layers[0].frequencies.shape == (256,)
    assert not torch.equal(encoder.layers[0].frequencies, encoder.layers[1].frequencies)
    assert abs(float(encoder.layers[0].frequencies.std()) - 4 / math.sqrt(2)) < 0.4


@pytest.mark.parametrize("lmax", [1, 2])
def test_visnet_parameter_count(lmax):
    """1,687,398 by hand; our two embedding tables have 119 rows instead of 100, and no table of atomic energies."""
    encoder = ViSNet(features=128, layers=6, lmax=lmax)
    head = suites.small_potential("visnet", torch.float32, features=128, lmax=lmax, head="gated").head
    assert count(encoder) + count(head) == 1_687_398 + 2 * 19 * 128 - 100


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


def test_egnn_equations():
    for envelope in (True, False):
        encoder = suites.small_potential("egnn", torch.float64, envelope=envelope).encoder
        graph = graph_of(suites.skewed_crystal(), encoder.cutoff, torch.float64)
        sender, receiver, d, _, fc = _dense(encoder, graph)
        columns = torch.tensor([[z == e for e in (1, 6, 8)] for z in graph.numbers.tolist()], dtype=torch.float64)
        h = encoder.embedding(columns)
        for layer in encoder.layers:
            phase = d[:, None] * layer.frequencies
            gamma = torch.cat([torch.sin(phase), torch.cos(phase)], 1)
            m = layer.message(torch.cat([h[receiver], h[sender], gamma], 1)) * (fc[:, None] if envelope else 1)
            total = torch.zeros_like(h)
            for e in range(len(d)):
                total[receiver[e]] += m[e]
            h = h + layer.update(torch.cat([h, total], 1))
        found = encoder(graph.numbers, graph.edge_index, graph.edge_vectors())
        assert found.vector is None
        assert torch.allclose(found.scalar, h, atol=1e-12)


def test_egnn_elements():
    encoder = EGNN(features=8, elements=(8, 1, 1))
    assert encoder.elements == (1, 8)
    with pytest.raises(ModelError, match="elements that the encoder cannot tell apart; found C"):
        Potential(encoder, atomic_energies=dict.fromkeys((1, 6, 8), 0.0))
    with pytest.raises(ModelError, match=r"egnn: no usable element; expected atomic numbers 1\.\.118; found \[0\]"):
        EGNN(elements=[0])
    with pytest.raises(ModelError, match=r"unknown norm 'batch'.*known: layer, none"):
        EGNN(norm="batch")
    assert EGNN(features=4).embedding.in_features == 118


def test_visnet_options():
    with pytest.raises(ModelError, match="heads do not divide the features; expected a divisor of 12; found 8"):
        ViSNet(features=12)
    with pytest.raises(ModelError, match="no such lmax; expected 1 or 2; found 3"):
        ViSNet(lmax=3)


@pytest.mark.parametrize("encoder", ["schnet", "egnn"])
def test_gated_head_needs_vectors(encoder):
    with pytest.raises(ModelError, match=r"energy head 'gated' takes vector features, which (SchNet|EGNN) has not"):
        suites.small_potential(encoder, torch.float32, head="gated")


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_start_weights(name):
    first, second, other = (build_encoder(name, seed=seed) for seed in (1, 1, 2))
    state = torch.random.get_rng_state()
    build_encoder(name, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    for (key, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        start = {"bias": 0.0, "weight": 1.0}[key.rpartition(".")[2]]
        if key.endswith("bias") or a.ndim == 1:
            assert bool((a == start).all()), key
            continue
        assert not torch.equal(a, c), key
        if not ("embedding" in key and name != "egnn"):
            # Several maps in one have each their own start.
            shape = (a.shape[1], a.shape[1]) if re.search(r"query_key_value|edge\.|vector", key) else a.shape
            assert float(a.detach().abs().max()) <= math.sqrt(6 / sum(shape)), key
    for (key, a), b, c in zip(first.named_buffers(), second.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b), key
        assert ("frequencies" in key) != torch.equal(a, c), key
    assert build_encoder(name, **first.options()).options() == first.options()


def test_unknown_names():
    with pytest.raises(ModelError, match=r"unknown encoder 'pain'.*did you mean 'painn'"):
        build_encoder("pain")
    with pytest.raises(ModelError, match=r"unknown option 'n_layers'.*layers"):
        build_encoder("schnet", n_layers=3)


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        *((name, {option: 0}) for name in ENCODERS for option in ("features", "layers")),
        ("painn", {"n_radial": 0}), ("schnet", {"n_radial": 1}), ("schnet", {"n_filters": -1}),
        ("visnet", {"heads": 0}), ("egnn", {"n_fourier": 0}),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(encoder, options):
    (name,) = options
    with pytest.raises(ModelError, match=f"encoder: {encoder}: {name}: too small; expected at least [12]"):
        build_encoder(encoder, **options)


@pytest.mark.parametrize("elements", [["H"], [None], ["6.5"]])
def test_egnn_elements_are_atomic_numbers(elements):
    with pytest.raises(ModelError, match="egnn: no usable element; expected atomic numbers"):
        build_encoder("egnn", elements=elements)
