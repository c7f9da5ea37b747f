"""The property suite over every registered encoder, and proof that its checks fire."""

from __future__ import annotations

import pytest
import suites
import torch

from mlipkit.models import ENCODERS, POTENTIALS, Potential, egnn, heads, painn, schnet, visnet
from mlipkit.ops import use_version

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def encoder(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=sorted(DTYPES))
def dtype(request) -> torch.dtype:
    return DTYPES[request.param]


@pytest.fixture(scope="module", params=sorted(suites.MODELS))
def potential(request, dtype):
    return suites.MODELS[request.param](dtype)


def test_nothing_registered_is_left_out():
    made = [make(torch.float32) for make in suites.MODELS.values()]
    # Adapters of packages that may not be installed have tests of their own.
    homes = {cls: cls.__module__ for kind, cls in POTENTIALS.items() if not kind.startswith("universal:")}
    ours = {cls for cls, home in homes.items() if home.startswith("mlipkit.models.")}
    # A constant per element has no force of its own to look at; it stands in a sum.
    parts = {type(part) for potential in made for part in potential.modules()}
    assert parts >= ours
    encoders = {type(potential.encoder) for potential in made if isinstance(potential, Potential)}
    assert encoders == set(ENCODERS.values())


@pytest.mark.parametrize("name", sorted(suites.PROPERTIES))
def test_property(name, potential):
    suites.PROPERTIES[name](potential)


@pytest.mark.parametrize("name", ["batch", "forces", "stress", "isolated", "beyond_cutoff_nothing", "attached"])
def test_property_with_neighbours_contracted_first(name):
    with use_version("contracted"):
        suites.PROPERTIES[name](suites.small_potential("painn", torch.float64))


def test_save_load(potential, tmp_path):
    suites.check_save_load(potential, tmp_path)


def test_wide_head_is_extensive(encoder):
    suites.check_images(suites.small_potential(encoder, torch.float64, head="per_atom_wide"))


POOLED = pytest.mark.parametrize("head", ["pooled", "pooled_features"])
NOT_EXTENSIVE = {"images", "fragments"}


@POOLED
@pytest.mark.parametrize("name", ["batch", "permutation", "rotation", "forces", "stress", "isolated"])
def test_pooled_head(name, head, encoder):
    suites.PROPERTIES[name](suites.small_potential(encoder, torch.float64, head=head))


@POOLED
@pytest.mark.parametrize("name", sorted(NOT_EXTENSIVE))
def test_pooled_head_is_not_extensive(name, head, encoder):
    with pytest.raises(AssertionError, match="differs"):
        suites.PROPERTIES[name](suites.small_potential(encoder, torch.float64, head=head))


@pytest.mark.parametrize("name", ["batch", "permutation", "rotation", "forces", "stress", "isolated", "images", "mask"])
@pytest.mark.parametrize("encoder", ["painn", "visnet"])
def test_gated_head(name, encoder):
    suites.PROPERTIES[name](suites.small_potential(encoder, torch.float64, head="gated"))


SMOOTH = {"cutoff_smooth", "no_jumps"}


@pytest.mark.parametrize("name", sorted(set(suites.PROPERTIES) - SMOOTH - NOT_EXTENSIVE))
def test_published_egnn(name, dtype):
    """Without envelope and with the pooled head: all other properties hold."""
    suites.PROPERTIES[name](suites.small_potential("egnn", dtype, envelope=False, head="pooled_features", seed=6))


@pytest.mark.parametrize("name", sorted(set(suites.PROPERTIES) - SMOOTH))
def test_visnet_without_envelope(name):
    suites.PROPERTIES[name](suites.small_potential("visnet", torch.float64, envelope=False, head="gated"))


@pytest.mark.parametrize("name", sorted(SMOOTH))
@pytest.mark.parametrize(("encoder", "head"), [("egnn", "per_atom"), ("egnn", "pooled_features"), ("visnet", "gated")])
def test_no_envelope_is_not_smooth(name, encoder, head, dtype):
    with pytest.raises(AssertionError):
        suites.PROPERTIES[name](suites.small_potential(encoder, dtype, envelope=False, head=head))


def test_painn_with_vector_bias_fails_rotation(dtype):
    biased = suites.small_potential("painn", dtype, vector_bias=True)
    suites.check_translation(biased)
    with pytest.raises(AssertionError, match="differs"):
        suites.check_rotation(biased)


@pytest.mark.parametrize(("module", "head"), [(painn, "per_atom"), (heads, "gated")], ids=["painn", "gated"])
def test_plain_norm_fails_isolated(module, head, monkeypatch):
    monkeypatch.setattr(module, "NORM_EPS", 0.0)
    with pytest.raises(AssertionError):
        suites.check_isolated(suites.small_potential("painn", torch.float64, head=head))


@pytest.mark.parametrize("name", ["cutoff_smooth", "no_jumps", "beyond_cutoff_nothing"])
@pytest.mark.parametrize("module", [schnet, painn, egnn, visnet], ids=["schnet", "painn", "egnn", "visnet"])
def test_hard_cutoff_fails(name, module, monkeypatch):
    monkeypatch.setattr(module, "cosine_cutoff", lambda d, rc: torch.ones_like(d))
    model = suites.small_potential(module.__name__.rpartition(".")[2], torch.float64)
    # The compiled loop has the function inside; `test_painn_slopes` holds it to this one.
    with use_version("reference"), pytest.raises(AssertionError):
        suites.PROPERTIES[name](model)


def test_integer_distances_fail_forces(monkeypatch):
    """The published decoder cuts distances to integers before the basis."""
    plain = schnet.gaussians
    monkeypatch.setattr(schnet, "gaussians", lambda d, rc, n: plain(d.detach().floor(), rc, n))
    model = suites.small_potential("schnet", torch.float64)
    suites.check_forces(model)
    with pytest.raises(AssertionError, match="jumps"):
        suites.check_no_jumps(model)


def test_detached_distances_fail_forces(monkeypatch):
    plain = schnet.gaussians
    monkeypatch.setattr(schnet, "gaussians", lambda d, rc, n: plain(d.detach(), rc, n))
    with pytest.raises(AssertionError, match="differs"):
        suites.check_forces(suites.small_potential("schnet", torch.float64))
