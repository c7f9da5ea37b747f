"""Specifications: round trips, and errors that name the field and the nearest right one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms

from mlipkit.errors import SpecError
from mlipkit.runs import MDSpec, ModelSpec, TrainSpec, load_spec, parse_spec
from mlipkit.runs.places import absolute, factory_of, load_factory, run_of, split_place

TRAIN = TrainSpec(data=["a.xyz", "sample:ethanol_300K@:100"], model=ModelSpec(features=32), keys={"forces": "f"})
MD = MDSpec(start="a.xyz@-1", time_ps=1.0, checks={"max_force": 40.0, "overlap": False}, temperature=600)


LIMITS = MDSpec(checks={"lone_atoms": {"warn": 0}, "max_force": {"warn": None}, "finite": True, "overlap": None})
IGNORING = TrainSpec(data="a.xyz", keys={"stress": None})
SHORT = MDSpec(time_ps=1e-8, checks={"max_force": {"warn": float("inf")}})


@pytest.mark.parametrize("spec", [TRAIN, MD, MDSpec(), IGNORING, SHORT, LIMITS])
def test_yaml_round_trip(spec, tmp_path: Path):
    path = tmp_path / "spec.yaml"
    path.write_text(spec.to_yaml())
    assert load_spec(path) == spec
    assert load_spec(path).to_yaml() == spec.to_yaml()


@pytest.mark.parametrize("spec", [TRAIN, MD])
def test_shown_code_builds_the_same_specification(spec):
    import mlipkit as mk

    line = next(line for line in spec.code().splitlines() if "launch" in line)
    expression = line.partition("launch(")[2].removesuffix(")")
    assert eval(expression, {"mk": mk}) == spec


WRONG = [
    (lambda: MDSpec(temperatur=300), ["MDSpec", "temperatur", "did you mean 'temperature'"]),
    (lambda: TrainSpec(dta="x"), ["dta", "did you mean 'data'"]),
    (lambda: TrainSpec(data="x", model={"encodr": "painn"}), ["model: encodr", "did you mean 'encoder'"]),
    (lambda: TrainSpec(data="x", model={"encoder": "pain"}), ["model: encoder", "'pain'", "did you mean 'painn'"]),
    (lambda: ModelSpec(layer=2), ["ModelSpec: layer", "did you mean 'layers'"]),
    (lambda: TrainSpec(), ["TrainSpec: data", "needed"]),
    (lambda: MDSpec(temperature="hot"), ["temperature", "'hot'"]),
    (lambda: MDSpec(timestep=-1), ["timestep", "-1"]),
    (lambda: MDSpec(time_ps=1, steps=10), ["2000 steps", "not 10"]),
    (lambda: MDSpec(temperature=float("inf")), ["temperature", "finite"]),
    (lambda: MDSpec(time_ps=float("inf")), ["time_ps", "finite"]),
    (lambda: TrainSpec(data="x", optimiser={"learning_rate": float("nan")}), ["optimiser: learning_rate", "nan"]),
    (lambda: TrainSpec(data="x", split={"validation": 2.5}), ["split", "2.5", "whole number of frames"]),
    (lambda: MDSpec(name="a/b"), ["name", "folder"]),
    (lambda: MDSpec(ensemble="nve", friction=0.1), ["friction has no effect", "langevin"]),
    (lambda: MDSpec(checks={"max_forc": 3}), ["unknown check", "did you mean 'max_force'"]),
    (lambda: MDSpec(checks={"max_force": "abc"}), ["max_force", "a number above 0", "'abc'"]),
    (lambda: MDSpec(checks={"max_force": -3}), ["max_force", "a number above 0", "-3"]),
    (lambda: MDSpec(checks={"max_force": float("nan")}), ["max_force", "a number above 0", "nan"]),
    (lambda: MDSpec(checks={"max_force": [3]}), ["max_force", "limits by name", "[3]"]),
    (lambda: MDSpec(checks={"finite": 3}), ["finite", "true or false"]),
    (lambda: MDSpec(checks={"temperature": {"fails": 3}}), ["temperature", "did you mean 'fail'"]),
    (lambda: MDSpec(checks={"temperature": {"fail": 0}}), ["temperature: fail", "above 0", "found 0"]),
    (lambda: MDSpec(checks={"temperature": {"during": None}}), ["temperature: during", "None"]),
    (lambda: MDSpec(checks={"overlap": {"every": 1.5}}), ["overlap: every", "1.5"]),
    (lambda: TrainSpec(data="x", keys={"frces": "F"}), ["keys", "'frces' is no label", "did you mean 'forces'"]),
    (lambda: TrainSpec(data="x", units={"forces": "eV"}), ["units", "'forces'", "energy, length"]),
    (lambda: TrainSpec(data="x", device="mps"), ["device", "float64", "cpu"]),
    (lambda: MDSpec(ensemble="bussi", temperature=0), ["temperature: bussi", "above 0 K", "langevin"]),
    (lambda: MDSpec(ensemble="nve", replicas=3, keep_velocities=True), ["replicas: nve", "all would be the same"]),
    (lambda: MDSpec(ensemble="nve", temperature=[300, 500], keep_velocities=True), ["temperature: has no effect"]),
    (lambda: MDSpec(ensemble="npt", temperature=0, keep_velocities=True), ["temperature: npt", "above 0 K"]),
    (lambda: MDSpec(device="gpu"), ["device", "'gpu'"]),
    (lambda: TrainSpec(data="x", loss={"huber_delta": 1}), ["loss", "huber_delta has no effect"]),
    (lambda: TrainSpec(data="x", optimiser={"schedule": "cosine", "schedule_epochs": 3}), ["schedule_epochs", "step"]),
    (lambda: ModelSpec(lmax=2), ["lmax has no effect with encoder 'painn'", "only with visnet"]),
    (lambda: ModelSpec(encoder="egnn", n_radial=9), ["n_radial has no effect with encoder 'egnn'", "painn, schnet"]),
    (lambda: ModelSpec(envelope=False), ["envelope has no effect with encoder 'painn'", "visnet, egnn"]),
    (lambda: ModelSpec(encoder="egnn", head="gated"), ["head: gated takes vectors", "painn and visnet"]),
    (lambda: ModelSpec(encoder="visnet", features=20), ["heads: 8 do not divide 20 features"]),
    (lambda: parse_spec({"kind": "dm"}), ["kind", "did you mean 'md'"]),
    (lambda: parse_spec({"kind": "md", "version": 2}), ["version 1", "update mlipkit"]),
    (lambda: parse_spec({"kind": "md", "stride": 0}, "job.yaml"), ["job.yaml: stride"]),
    (lambda: parse_spec(["md"]), ["mapping"]),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "parts"), WRONG, ids=[" ".join(parts)[:40] for _, parts in WRONG])
def test_wrong_fields_are_named(make, parts: list[str]):
    with pytest.raises(SpecError) as caught:
        make()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    "make",
    [
        lambda: MDSpec(start=Atoms("H")),
        lambda: MDSpec(potential=object()),
        lambda: MDSpec(checks={"max_force": lambda: 3}),
        lambda: TrainSpec(data=[Atoms("H")]),
    ],
)
def test_live_objects_are_refused_with_advice(make):
    with pytest.raises(SpecError, match=r"live Python object.*file\.py:make.*package\.module:make"):
        make()


def test_numpy_numbers_and_paths_are_plain(tmp_path: Path):
    spec = MDSpec(temperature=np.float64(300), steps=np.int64(5), start=tmp_path / "a.xyz")
    assert yaml.safe_load(spec.to_yaml())["steps"] == 5
    assert spec.start == str(tmp_path / "a.xyz")


def test_steps_follow_time_or_the_other_way_round():
    spec = MDSpec(time_ps=1.0, timestep=0.5)
    assert spec.steps == 2000
    assert spec.changed(steps=10).time_ps is None
    assert spec.changed(timestep=1.0).steps == 1000
    assert TRAIN.changed(**{"model.features": 8}).model.features == 8
    with pytest.raises(SpecError, match="modell"):
        TRAIN.changed(**{"modell.features": 8})


def test_load_spec_names_the_file(tmp_path: Path):
    with pytest.raises(SpecError, match=r"missing\.yaml"):
        load_spec(tmp_path / "missing.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("kind: [md")
    with pytest.raises(SpecError, match=r"bad\.yaml.*not YAML"):
        load_spec(path)


def test_places(tmp_path: Path):
    assert split_place("a.xyz@-1") == ("a.xyz", "-1")
    assert split_place("a.xyz@:10:2") == ("a.xyz", ":10:2")
    assert split_place("me@home.xyz") == ("me@home.xyz", "")
    assert factory_of("sample:ethanol_1000") is None
    assert factory_of("my lab/calc.py:make") == ("my lab/calc.py", "make")
    assert factory_of("a (copy), ✓/calc.py:make") == ("a (copy), ✓/calc.py", "make")
    assert factory_of("pkg.module:make") == ("pkg.module", "make")
    assert absolute("sample:x", tmp_path) is None
    assert absolute("data/a.xyz@3", tmp_path) == tmp_path / "data" / "a.xyz"
    assert run_of("train", tmp_path) is None
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "spec.yaml").write_text("")
    assert run_of("train@-1", tmp_path) == tmp_path / "train"


def test_factories(tmp_path: Path):
    (tmp_path / "calc.py").write_text("def make():\n    return 42\n")
    assert load_factory("calc.py:make", tmp_path)() == 42
    assert load_factory("pathlib:Path").__name__ == "Path"
    for text, part in [
        ("calc.py:mak", "did you mean 'make'"),
        ("none.py:make", "no such file"),
        ("nopkg.x:f", "nopkg"),
    ]:
        with pytest.raises(SpecError, match=part):
            load_factory(text, tmp_path)


def test_opening_runs_loads_no_torch():
    code = "import sys, mlipkit.runs as r; r.open, r.launch, r.TrainSpec, r.Run; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("fields", [{"start": []}, {"temperature": []}])
def test_empty_lists(fields):
    (name,) = fields
    with pytest.raises(SpecError, match=f"^MDSpec: {name}: empty; expected at least one$"):
        MDSpec(**fields)
