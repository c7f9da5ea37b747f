"""Repulsion, sums and committees: figures, domains, saving, and use in training and MD."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import suites
import torch
from ase import Atoms
from ase.build import molecule
from safetensors import safe_open

from mlipkit.data import graph_of
from mlipkit.errors import ModelError
from mlipkit.models import Committee, CommitteePrediction, SumPotential, ZBLRepulsion, io, load, save


def _pair(symbols: str, d: float, cutoff: float):
    return graph_of(Atoms(symbols, positions=[[0, 0, 0], [0, 0, d]]), cutoff, torch.float64)


@pytest.mark.parametrize(("symbols", "d"), [("O2", 0.3), ("CH", 0.25), ("PdH", 0.1)])
def test_zbl_is_the_universal_potential_below_the_switch(symbols, d):
    """E = 14.3996 eV Å Z1 Z2 / d φ(d/a), a = 0.46850 Å / (Z1^0.23 + Z2^0.23), written out."""
    graph = _pair(symbols, d, 3.0)
    first, second = graph.numbers.tolist()
    zbl = ZBLRepulsion([first, second]).double()
    x = d * (first**0.23 + second**0.23) / 0.46850
    phi = 0.18175 * np.exp(-3.1998 * x) + 0.50986 * np.exp(-0.94229 * x)
    phi += 0.28022 * np.exp(-0.4029 * x) + 0.02817 * np.exp(-0.20162 * x)
    expected = 14.399645 * first * second / d * phi
    found = zbl(graph)
    assert abs(float(found.energy) / expected - 1) < 2e-4
    assert torch.allclose(found.energies[0], found.energies[1])
    assert float(found.forces[1, 2]) > 0


@pytest.mark.parametrize("name", ["CH3CH2OH", "CO", "N2", "C2H2", "H2", "O2", "F2", "HCN", "H2O"])
def test_zbl_leaves_bonds_alone(name):
    atoms = molecule(name)
    for factor in (0.93, 1.0):
        squeezed = Atoms(atoms.symbols, atoms.positions * factor)
        zbl = ZBLRepulsion(sorted(set(atoms.numbers)))
        assert float(zbl(graph_of(squeezed, zbl.cutoff)).energy) == 0.0


def test_zbl_switch():
    """Monotonous, with continuous slope and curvature at both ends, and nothing beyond."""
    zbl = ZBLRepulsion([6, 8], inner=0.6, outer=1.4).double()
    assert zbl.cutoff == 1.4

    def force(d):
        return float(zbl(_pair("CO", d, 3.0)).forces[1, 2])

    energies = [float(zbl(_pair("CO", d, 3.0)).energy) for d in np.linspace(0.3, 1.5, 61)]
    assert all(a > b or a == b == 0 for a, b in pairwise(energies))
    for end in (0.6, 1.4):
        h = 1e-4
        below, at, above = force(end - h), force(end), force(end + h)
        assert abs(below - 2 * at + above) < 0.2 * h * max(1.0, abs(at))
    assert energies[-1] == 0.0
    assert force(1.4) == 0.0
    assert force(1.39) > 0


def test_zbl_wrong_radii():
    with pytest.raises(ModelError, match=r"inner and outer radius go together; found inner 1\.0, outer None"):
        ZBLRepulsion([6], inner=1.0)
    with pytest.raises(ModelError, match="ends before it begins; expected 0 <= inner < outer; found inner 2, outer 1"):
        ZBLRepulsion([6], inner=2.0, outer=1.0)


def test_sum_adds_up_with_several_cutoffs():
    net, zbl = suites.small_potential("painn", torch.float64), suites.small_zbl(torch.float64)
    both = SumPotential([net, zbl])
    assert both.cutoff == net.cutoff > zbl.cutoff
    atoms = suites.skewed_crystal()
    found = both(graph_of(atoms, both.cutoff, torch.float64), stress=True, features=True)
    parts = [part(graph_of(atoms, part.cutoff, torch.float64), stress=True, features=True) for part in (net, zbl)]
    assert float(parts[1].energy) > 0.1
    for name in ("energy", "forces", "stress", "energies"):
        expected = getattr(parts[0], name) + getattr(parts[1], name)
        assert torch.allclose(getattr(found, name), expected, atol=1e-11), name
    assert torch.equal(found.features, parts[0].features)
    assert SumPotential([both, zbl]).encoder_parameters().keys() == {
        f"potentials.0.potentials.0.{name}" for name in net.encoder_parameters()
    }


def test_committee_mean_and_spread():
    members = [suites.small_potential("painn", torch.float64, seed=seed) for seed in (1, 2, 3)]
    committee = Committee(members)
    graph = graph_of(suites.skewed_crystal(), committee.cutoff, torch.float64)
    found = committee(graph, stress=True, features=True)
    assert isinstance(found, CommitteePrediction)
    single = [member(graph, stress=True, features=True) for member in members]
    for name in ("energy", "forces", "stress", "energies"):
        assert torch.allclose(getattr(found, name), torch.stack([getattr(one, name) for one in single]).mean(0)), name
    forces = torch.stack([one.forces for one in single])
    expected = ((forces - forces.mean(0)) ** 2).sum((0, 2)).div(2).sqrt()
    assert torch.allclose(found.forces_spread, expected)
    assert found.forces_spread.shape == (4,)
    assert torch.allclose(found.energy_spread, torch.stack([one.energy for one in single]).std(0, correction=1))
    assert float(found.energy_spread) > 0
    assert found.features.shape == (4, 36)
    bare = committee(graph, forces=False)
    assert bare.forces is bare.forces_spread is bare.stress is bare.features is None
    alike = Committee([members[0], members[0]])(graph)
    assert float(alike.forces_spread.max()) == float(alike.energy_spread) == 0.0


def test_domain_is_what_all_know():
    first, second = ZBLRepulsion([1, 6, 8]), ZBLRepulsion([6, 8, 46])
    both = SumPotential([first, second])
    assert both.elements == (6, 8)
    with pytest.raises(ModelError, match="element unknown to this potential: H; expected only C, O"):
        both(graph_of(Atoms("CH", positions=np.eye(3)[:2]), 3.0))
    for kind in (SumPotential, Committee):
        with pytest.raises(ModelError, match=r"(sum|committee): no element that all know; found \{H\} \{C\}"):
            kind([ZBLRepulsion([1]), ZBLRepulsion([6])])
        with pytest.raises(ModelError, match=r"(sum|committee): 1: no potential; found Linear"):
            kind([first, torch.nn.Linear(1, 1)])
    with pytest.raises(ModelError, match="sum: no potential; expected at least one"):
        SumPotential([])
    with pytest.raises(ModelError, match="committee: too few members for a spread; expected at least 2; found 1"):
        Committee([first])


def test_nested_specification(tmp_path):
    inner = SumPotential([suites.small_potential("egnn", torch.float32), suites.small_zbl(torch.float32)])
    committee = Committee([inner, suites.small_potential("visnet", torch.float32, lmax=2, head="gated")])
    path = save(committee, tmp_path / "committee.safetensors")
    with safe_open(path, "pt") as file:
        spec = json.loads(file.metadata()["mlipkit"])
    assert [part["kind"] for part in spec["potentials"]] == ["sum", "potential"]
    assert [part["kind"] for part in spec["potentials"][0]["potentials"]] == ["potential", "zbl"]
    found = load(path)
    assert found.describe() == committee.describe()
    graph = graph_of(suites.skewed_crystal(), committee.cutoff)
    assert torch.equal(found(graph).forces, committee(graph).forces)


def test_members_of_several_dtypes(tmp_path):
    committee = Committee([suites.small_potential("schnet", dtype) for dtype in (torch.float32, torch.float64)])
    found = load(save(committee, tmp_path / "c.safetensors"))
    assert [member.dtype for member in found] == [torch.float32, torch.float64]
    graph = graph_of(suites.ethanol(), committee.cutoff, torch.float64)
    result = found(graph, features=True)
    assert result.features.dtype is torch.float64
    assert 0 < float(result.forces_spread.max()) < 1e-4


def test_unknown_kinds_are_refused(tmp_path):
    class Own(ZBLRepulsion):
        pass

    with pytest.raises(ModelError, match=r"Own cannot be saved\. Saved are: .*committee, .*potential, sum, .*zbl"):
        save(Own([1]), tmp_path / "own.safetensors")
    with pytest.raises(ModelError, match=r"unknown kind of potential 'zbI'.*did you mean 'zbl'"):
        io.build({"kind": "zbI"}, {})


def test_describe():
    said = SumPotential([suites.small_potential("painn", torch.float32), suites.small_zbl(torch.float32)]).describe()
    assert json.loads(json.dumps(said)) == said
    assert [part["kind"] for part in said["potentials"]] == ["potential", "zbl"]
    assert said["parameters"] == said["potentials"][0]["parameters"] > 0
    assert said["elements"] == ["H", "C", "O"]


def test_generators_of_potentials_and_empty_ones():
    assert len(SumPotential(ZBLRepulsion([z]) for z in (1, 1))) == 2
    assert len(Committee(ZBLRepulsion([1]) for _ in range(3))) == 3
    with pytest.raises(ModelError, match="sum: no potential; expected at least one"):
        SumPotential(iter([]))
    with pytest.raises(ModelError, match=r"too few members.*found 0"):
        Committee(iter([]))


def test_zbl_without_an_end_is_refused():
    with pytest.raises(ModelError, match="zbl: the switch never ends; expected a finite outer radius; found inf"):
        ZBLRepulsion([1], inner=0.5, outer=float("inf"))
