"""The MACE adapter, wherever mace-torch is installed (an environment of its own), on small random models."""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import suites
import torch
from ase.stress import voigt_6_to_full_3x3_stress
from universal_packages import default_dtype

from mlipkit.data import graph_of
from mlipkit.errors import ModelError
from mlipkit.models import load, save
from mlipkit.models.universal import MACE
from mlipkit.models.universal.base import UNSAFE_LOADING

if importlib.util.find_spec("mace") is None:
    pytest.skip("mace-torch is not installed (it needs an environment of its own)", allow_module_level=True)


def random_model(dtype: torch.dtype = torch.float64, layers: int = 2, heads: list[str] | None = None):
    MACE.require("mace.modules")
    from e3nn import o3
    from mace import modules

    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    count = len(heads or "1")
    with default_dtype(dtype):
        torch.manual_seed(0)
        return modules.ScaleShiftMACE(
            r_max=4.0, num_bessel=6, num_polynomial_cutoff=5, max_ell=2, interaction_cls=block,
            interaction_cls_first=block, num_interactions=layers, num_elements=3,
            hidden_irreps=o3.Irreps("16x0e + 16x1o"), MLP_irreps=o3.Irreps("8x0e"),
            atomic_energies=np.array([[-13.6, -1029.0, -2041.0]] * count)[0 if count == 1 else slice(None)],
            avg_num_neighbors=8.0, atomic_numbers=[1, 6, 8], correlation=2, gate=torch.nn.functional.silu,
            atomic_inter_scale=[1.3] * count if heads else 1.3, atomic_inter_shift=[0.2] * count if heads else 0.2,
            heads=heads,
        )  # fmt: skip


@pytest.fixture(scope="module", params=["float64", "float32", "one_layer"])
def file(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mace") / f"{request.param}.model"
    dtype = torch.float32 if request.param == "float32" else torch.float64
    torch.save(random_model(dtype, 1 if request.param == "one_layer" else 2), path)
    return path


@pytest.fixture(scope="module")
def potential(file):
    made = load(f"universal:mace:{file}")
    # The suite takes these off before it compares, so that they hide no error.
    energies = torch.zeros(119, dtype=torch.float64)
    energies[[1, 6, 8]] = torch.tensor([-13.6, -1029.0, -2041.0], dtype=torch.float64)
    made.register_buffer("atomic_energies", energies, persistent=False)
    return made


@pytest.mark.parametrize("make", suites.STRUCTURES.values(), ids=list(suites.STRUCTURES))
def test_equals_the_calculator_of_its_package(make, file, potential):
    from mace.calculators import MACECalculator

    with default_dtype(potential.dtype):
        calculator = MACECalculator(model_paths=str(file), device="cpu", default_dtype=str(potential.dtype)[6:])
        atoms = make()
        atoms.calc = calculator
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        features = calculator.get_descriptors(make(), num_layers=-1)
    result = potential(graph_of(make(), potential.cutoff, torch.float64), stress=True, features=True)
    exact = potential.dtype is torch.float64
    assert result.energy.item() == pytest.approx(energy, abs=(1e-9 if exact else 1e-4) * len(atoms))
    np.testing.assert_allclose(result.forces, forces, atol=1e-10 if exact else 1e-5)
    width = result.features.shape[1]
    np.testing.assert_allclose(result.features, features[:, -width:], atol=1e-10 if exact else 1e-5)
    if atoms.pbc.all():
        with default_dtype(potential.dtype):
            stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
        np.testing.assert_allclose(result.stress[0], stress, atol=1e-11 if exact else 1e-6)


@pytest.mark.parametrize("check", sorted(set(suites.PROPERTIES) - {"isolated", "beyond_cutoff_nothing", "mask"}))
def test_property(check, potential):
    suites.PROPERTIES[check](potential)


def test_saved_and_loaded(potential, tmp_path):
    changed = copy.deepcopy(potential)
    with torch.no_grad():
        next(iter(changed.encoder_parameters().values())).mul_(1.1)
    graph = graph_of(suites.ethanol(), potential.cutoff, torch.float64)
    again = load(save(changed, tmp_path / "changed.safetensors"))
    assert torch.equal(again(graph).forces, changed(graph).forces)
    assert not torch.equal(again(graph).energy, potential(graph).energy)
    assert again.describe() == changed.describe()


def test_heads(tmp_path):
    path = tmp_path / "heads.model"
    torch.save(random_model(heads=["pbe", "scan"]), path)
    with pytest.raises(ModelError, match=r"which head.*pbe, scan"):
        MACE.load(path)
    graph = graph_of(suites.ethanol(), 4.0, torch.float64)
    first, second = (MACE.load(path, head)(graph).energy.item() for head in ("pbe", "scan"))
    assert first != second


def test_not_a_model(tmp_path):
    path = tmp_path / "other.model"
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(ModelError, match="not a MACE energy model"):
        MACE.load(path)
    path.write_text("nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        MACE.load(path)


def test_later_loading_stays_safe(file):
    """mace-torch lets the whole process unpickle, and its children."""
    code = (
        "import os, mlipkit.models as models\n"
        f"models.load('universal:mace:{file}')\n"
        f"assert '{UNSAFE_LOADING}' not in os.environ"
    )
    # The package's calculator, used above, has set it here.
    environment = {name: value for name, value in os.environ.items() if name != UNSAFE_LOADING}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment)
