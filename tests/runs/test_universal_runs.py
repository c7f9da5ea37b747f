"""Universal potentials named in a specification: refused where they cannot be, computed where they can."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import suites
import torch

import mlipkit as mk
from mlipkit.data import read
from mlipkit.errors import MissingPackageError, SpecError
from mlipkit.md import MlipCalculator
from mlipkit.md.forces import PotentialForces
from mlipkit.models import UNIVERSAL, SumPotential, UniversalPotential
from mlipkit.runs import places
from mlipkit.runs.building_forces import build_forces, say_precision
from mlipkit.runs.launching import check_places


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"potential": "universal:so3l"},
            "universal:so3l: unknown universal potential. did you mean 'so3lr'",
        ),
        ({"potential": "universal:so3lr@0"}, "a potential has no frames. Leave out @0"),
        ({"potential": "universal:so3lr:x.model"}, "takes no file; expected universal:so3lr"),
        ({"potential": "universal:mace"}, "a file is missing; expected universal:mace:FILE"),
        ({"potential": "universal:mace:none.model"}, "none.model: no such file"),
        ({"start": "universal:so3lr"}, "start: universal:so3lr: a potential, where frames are wanted"),
    ],
)
def test_what_cannot_be_is_refused(fields, message, tmp_path):
    with pytest.raises(SpecError) as error:
        check_places(mk.MDSpec(**fields), tmp_path)
    assert message in str(error.value)


def test_a_missing_package_is_refused_unless_another_python_computes(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "_is_installed", lambda package: False)
    (tmp_path / "my.model").write_text("weights")
    for potential, cure in (("universal:chgnet", r"mlipkit\[universal\]"), ("universal:mace:my.model", "field python")):
        with pytest.raises(MissingPackageError, match=cure):
            check_places(mk.MDSpec(potential=potential), tmp_path)
        check_places(mk.MDSpec(potential=potential, python="elsewhere"), tmp_path)
    inputs = check_places(mk.MDSpec(potential="universal:mace:my.model", python="elsewhere"), tmp_path)
    assert str(tmp_path / "my.model") in inputs
    assert places.run_of("universal:mace:my.model", tmp_path) is None


class Exact(UniversalPotential):
    NAME, PRECISIONS, FACTS = "exact", (torch.float64,), UNIVERSAL["so3lr"].FACTS


def test_a_potential_of_one_precision_keeps_it_inside_a_sum(monkeypatch, tmp_path):
    made = SumPotential([Exact(torch.nn.Linear(1, 1), [1, 6, 8]), suites.small_potential("schnet", torch.float32)])
    monkeypatch.setattr("mlipkit.models.load", lambda source: made)
    spec, said = mk.MDSpec(potential="sum.safetensors", dtype="float32"), []
    forces = build_forces(spec, tmp_path)
    assert isinstance(forces, PotentialForces)
    assert [part.dtype for part in made.parts] == [torch.float64, torch.float32]
    say_precision(spec, forces, said.append)
    assert [event.text for event in said] == ["sum.safetensors computes partly in float64, not in float32"]


@pytest.mark.full
def test_md_with_so3lr(tmp_path: Path):
    if importlib.util.find_spec("so3krates_torch") is None:
        pytest.skip("so3krates-torch is not installed")
    spec = mk.MDSpec(potential="universal:so3lr", start="sample:ethanol_300K@0", steps=20, stride=10, ensemble="nve")
    run = mk.launch(spec, root=tmp_path).wait()
    assert run.state == "completed", run.reason
    assert any("computes in float64, not in float32" in str(entry.event) for entry in run.entries())
    frames = read(str(tmp_path / "md_300K" / "trajectory.traj"))
    atoms = frames[-1]
    expected = atoms.get_forces()
    atoms.calc = MlipCalculator("universal:so3lr")
    np.testing.assert_allclose(atoms.get_forces(), expected, atol=1e-6)
    assert "Kabylda" in run.report().read_text()
