"""Adapters of universal potentials: equal to the packages' own calculators, in batches, trainable, saved, refused."""

from __future__ import annotations

import copy
import json
import sys

import numpy as np
import pytest
import suites
import torch
from ase import Atoms
from universal_packages import PACKAGED, asked, crystal, loaded, package_calculator

from mlipkit.data import FrameSet, NeighbourCache, collate, graph_of, samples
from mlipkit.errors import MissingPackageError, ModelError
from mlipkit.md import MlipCalculator
from mlipkit.models import UNIVERSAL, CalculatorPotential, load, predict, save
from mlipkit.models.universal import MACE
from mlipkit.runs.places import UNIVERSAL_FILES, UNIVERSAL_PACKAGES
from mlipkit.runs.report import REFERENCES

# eV per atom, eV/Å, eV/Å³. SO3LR computes as its package does, to the last bits. The others compute in float32 there,
# positions included, here from float64 positions; measured differences are 8e-7, 8e-5 and 1e-7 at most.
TOLERANCE = {"so3lr": (1e-9, 1e-9, 1e-11), "sevennet-0": (2e-6, 1e-5, 1e-7), "chgnet": (2e-6, 2e-4, 1e-6)}


def liquid() -> Atoms:
    return samples.load("water_liquid")[0]


STRUCTURES = {
    "ethanol": suites.ethanol, "liquid": liquid, "small_cell": suites.skewed_crystal, "crystal": crystal
}  # fmt: skip


@pytest.fixture(scope="module", params=PACKAGED)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def potential(name):
    return loaded(name)


@pytest.fixture(scope="module")
def calculator(name, potential):
    return package_calculator(name)


@pytest.mark.full
@pytest.mark.parametrize("structure", STRUCTURES)
def test_equals_the_calculator_of_its_package(structure, name, potential, calculator):
    atoms = STRUCTURES[structure]()
    if not set(atoms.numbers.tolist()) <= set(potential.elements):
        pytest.skip("elements outside the domain")
    energy, forces, stress = asked(calculator, name, atoms)
    result = potential(graph_of(atoms, potential.cutoff, torch.float64), stress=True)
    per_atom, per_length, per_volume = TOLERANCE[name]
    assert np.abs(forces).max() > 0.05
    assert abs(result.energy.item() - energy) / len(atoms) < per_atom
    np.testing.assert_allclose(result.forces.numpy(), forces, atol=per_length, rtol=0)
    if stress is not None:
        np.testing.assert_allclose(result.stress[0].numpy(), stress, atol=per_volume, rtol=0)


@pytest.mark.full
def test_float64_adapters_of_float32_models_agree_with_them(name, potential):
    if torch.float32 not in potential.PRECISIONS:
        with pytest.raises(ModelError, match=r"float64 only.*0\.05 eV/Å"):
            copy.deepcopy(potential).float()
        return
    exact = copy.deepcopy(potential).double()
    graph = graph_of(crystal(), potential.cutoff, torch.float64)
    rough, fine = potential(graph, stress=True), exact(graph, stress=True)
    assert abs(rough.energy.item() - fine.energy.item()) < 1e-5 * 8
    assert float((rough.forces - fine.forces).abs().max()) < 1e-4
    assert float((rough.forces - fine.forces).abs().max()) > 0


@pytest.mark.full
def test_skin_lists_change_nothing(name, potential):
    exact = copy.deepcopy(potential).double()
    for make in (suites.ethanol, suites.skewed_crystal, suites.slab):
        near, far = (exact(graph_of(make(), exact.cutoff + skin, torch.float64), features=True) for skin in (0, 0.9))
        assert abs(near.energy.item() - far.energy.item()) < 1e-9 * abs(near.energy.item())
        assert float((near.forces - far.forces).abs().max()) < 1e-9
        assert float((near.features - far.features).abs().max()) < 1e-9


@pytest.mark.full
def test_predict_and_calculator_take_it(name, potential):
    frames = FrameSet.from_atoms([suites.ethanol(), suites.skewed_crystal(), suites.ethanol(3)])
    found = predict(potential, frames, stress=True)
    atoms = suites.skewed_crystal()
    atoms.calc = MlipCalculator(potential)
    assert found.energy[1] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    np.testing.assert_allclose(found[1].get_forces(), atoms.get_forces(), atol=1e-4)
    assert np.isfinite(found.stress[1]).all()


def test_a_loss_of_forces_reaches_the_weights(name, potential):
    graph = graph_of(suites.ethanol(), potential.cutoff, torch.float64)
    exact = copy.deepcopy(potential).double()
    weights = {key: value for key, value in exact.named_parameters() if value.requires_grad}

    def loss() -> torch.Tensor:
        return exact(graph, create_graph=True).forces.square().mean()

    slopes = dict(zip(weights, torch.autograd.grad(loss(), list(weights.values()), allow_unused=True), strict=True))
    key = max((key for key, slope in slopes.items() if slope is not None), key=lambda key: float(slopes[key].norm()))
    slope, step = slopes[key], 1e-5
    direction = slope / slope.norm()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weights[key] += sign * step * direction
        values.append(loss().item())
        with torch.no_grad():
            weights[key] -= sign * step * direction
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope.norm().item(), rel=1e-4)
    assert set(exact.encoder_parameters()) < set(dict(exact.named_parameters()))


def test_nothing_is_kept_between_calls(potential):
    graph = graph_of(suites.ethanol(), potential.cutoff, torch.float64)
    before = graph.positions.clone()
    potential(graph, forces=False)
    assert not graph.positions.requires_grad
    assert torch.equal(graph.positions, before)
    kept = [v for module in potential.modules() for v in vars(module).values() if isinstance(v, torch.Tensor)]
    assert not any(value.grad_fn is not None for value in kept)
    copy.deepcopy(potential)


def test_save_load(potential, tmp_path):
    with torch.no_grad():
        changed = copy.deepcopy(potential)
        next(iter(changed.encoder_parameters().values())).mul_(1.01)
    graph = graph_of(suites.ethanol(), potential.cutoff, torch.float64)
    again = load(save(changed, tmp_path / "changed.safetensors"))
    assert torch.equal(again(graph).forces, changed(graph).forces)
    assert not torch.equal(again(graph).forces, potential(graph).forces)
    assert again.describe() == changed.describe()


def test_describe(name, potential):
    facts = json.loads(json.dumps(potential.describe()))
    assert facts["name"] == f"universal:{name}"
    for key in ("title", "level_of_theory", "training_data", "licence", "citation", "trust", "version", "dtype"):
        assert facts[key], key
    assert facts["parameters"] > 1e5
    assert facts["cutoff"] == potential.cutoff
    assert len(facts["elements"]) == {"so3lr": 8}.get(name, 89)


def test_so3lr_says_that_charges_are_not_read():
    assert "taken as neutral and closed-shell" in UNIVERSAL["so3lr"].FACTS.note


def test_unknown_element(name, potential):
    strange = "Na" if name == "so3lr" else "Po"
    with pytest.raises(ModelError, match=f"unknown to this potential: {strange}"):
        potential(graph_of(Atoms(strange), potential.cutoff))


def test_both_materials_models_know_the_same_elements():
    assert loaded("chgnet").elements == loaded("sevennet-0").elements


def test_molecules_need_no_cell():
    chgnet = loaded("chgnet")
    alone = suites.ethanol()
    boxed = alone.copy()
    boxed.center(vacuum=10)
    boxed.pbc = True
    first, second = (chgnet(graph_of(atoms, chgnet.cutoff, torch.float64)) for atoms in (alone, boxed))
    assert first.energy.item() == pytest.approx(second.energy.item(), abs=1e-5)
    np.testing.assert_allclose(first.forces, second.forces, atol=1e-5)


def test_the_process_stays_as_it_was(name, capsys):
    before = torch._tensor_str.PRINT_OPTS.precision
    loaded(name)
    potential = load(f"universal:{name}")
    potential(graph_of(suites.ethanol(), potential.cutoff, torch.float64))
    assert torch._tensor_str.PRINT_OPTS.precision == before
    assert torch.get_default_dtype() is torch.float32
    assert capsys.readouterr().out == ""


def test_missing_package(name, monkeypatch):
    module = {"so3lr": "so3krates_torch.modules.models", "sevennet-0": "sevenn.util", "chgnet": "chgnet.model.model"}
    monkeypatch.setitem(sys.modules, module[name], None)
    with pytest.raises(MissingPackageError, match=r'universal:.*pip install "mlipkit\[universal\]"'):
        load(f"universal:{name}")


def test_missing_mace_names_an_environment_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mace.modules", None)
    (tmp_path / "my.model").write_text("weights")
    with pytest.raises(MissingPackageError, match="environment of its own") as error:
        load(f"universal:mace:{tmp_path / 'my.model'}")
    assert "mlipkit[" not in str(error.value)


def test_mace_keeps_its_path_absolute(monkeypatch, tmp_path):
    class ScaleShiftMACE(torch.nn.Linear):
        atomic_numbers = torch.tensor([1, 8])
        r_max = 4.0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MACE, "PACKAGE", "torch")
    potential = MACE(ScaleShiftMACE(1, 1), "my.model")
    assert potential.specification()["path"] == str(tmp_path.resolve() / "my.model")


def test_names():
    assert {name: cls.MODULE for name, cls in UNIVERSAL.items()} == UNIVERSAL_PACKAGES
    for source, message in (
        ("universal:so3l", "did you mean 'so3lr'"), ("universal:SO3LR", "did you mean 'so3lr'"),
        ("universal:mace", "a file is missing"),
        ("universal:so3lr:x.model", "takes no file"), ("universal:mace:none.model", "no such file"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=message):
            load(source)
    assert set(UNIVERSAL_FILES) == {"mace"}
    assert {f"universal:{name}": cls.FACTS.citation for name, cls in UNIVERSAL.items()}.items() <= REFERENCES.items()


def test_a_batch_in_which_one_structure_has_no_angle():
    """CHGNet leaves its bond layers out where a batch has no angles: that must not depend on who is in the batch."""
    chgnet = loaded("chgnet")
    pair, other = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.3]]), suites.ethanol()
    frames = FrameSet.from_atoms([pair, other])
    graph, _ = collate(frames, np.arange(2), NeighbourCache(frames, chgnet.cutoff), torch.float64)
    single = chgnet(graph_of(pair, chgnet.cutoff, torch.float64))
    batch = chgnet(graph)
    assert batch.energy[0].item() == pytest.approx(single.energy.item(), abs=1e-5)
    np.testing.assert_allclose(batch.forces[:2], single.forces, atol=1e-5)


def test_calculator_potential_is_exported():
    assert CalculatorPotential.kind == ""
