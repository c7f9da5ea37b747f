"""The property suite over every registered encoder, and proof that its checks fire."""

from __future__ import annotations

import pytest
import suites
import torch

from mlipkit.models import ENCODERS, painn, schnet
from mlipkit.ops import use_version

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def encoder(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=sorted(DTYPES))
def potential(request, encoder):
    return suites.small_potential(encoder, DTYPES[request.param])


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


@pytest.mark.parametrize("name", ["batch", "permutation", "rotation", "forces", "stress", "isolated"])
def test_pooled_head(name, encoder):
    suites.PROPERTIES[name](suites.small_potential(encoder, torch.float64, head="pooled"))


@pytest.mark.parametrize("name", ["images", "fragments"])
def test_pooled_head_is_not_extensive(name, encoder):
    with pytest.raises(AssertionError, match="differs"):
        suites.PROPERTIES[name](suites.small_potential(encoder, torch.float64, head="pooled"))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_painn_with_vector_bias_fails_rotation(dtype):
    biased = suites.small_potential("painn", dtype, vector_bias=True)
    suites.check_translation(biased)
    with pytest.raises(AssertionError, match="differs"):
        suites.check_rotation(biased)


def test_plain_norm_fails_isolated(monkeypatch):
    monkeypatch.setattr(painn, "NORM_EPS", 0.0)
    with pytest.raises(AssertionError):
        suites.check_isolated(suites.small_potential("painn", torch.float64))


@pytest.mark.parametrize("name", ["cutoff_smooth", "no_jumps", "beyond_cutoff_nothing"])
@pytest.mark.parametrize("module", [schnet, painn], ids=["schnet", "painn"])
def test_hard_cutoff_fails(name, module, monkeypatch):
    monkeypatch.setattr(module, "cosine_cutoff", lambda d, rc: torch.ones_like(d))
    model = suites.small_potential(module.__name__.rpartition(".")[2], torch.float64)
    with pytest.raises(AssertionError):
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
