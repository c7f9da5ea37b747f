"""Models as users meet them: specifications, training, resuming, MD and calculators, none of them a special case."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import suites
import torch

import mlipkit as mk
from mlipkit.data import FrameSet, graph_of
from mlipkit.md import CHECKS, MlipCalculator, simulate, state_from_atoms
from mlipkit.md.forces import PotentialForces
from mlipkit.models import ENCODERS, ENERGY_HEADS, Committee, SumPotential, ZBLRepulsion, load, predict, save
from mlipkit.runs import MDSpec, ModelSpec, TrainSpec, build
from mlipkit.runs.spec import ENCODER_OPTIONS, WITH_VECTORS
from mlipkit.training import TrainSettings, train

MODELS = {
    "egnn": {"encoder": "egnn", "features": 16, "layers": 2, "envelope": False, "head": "pooled_features"},
    "visnet": {"encoder": "visnet", "features": 16, "layers": 2, "heads": 4, "lmax": 2, "head": "gated"},
}


def test_specification_and_models_have_the_same_settings():
    assert set(ENCODER_OPTIONS) == set(ENCODERS)
    for name, cls in ENCODERS.items():
        own = {"features", "layers", "cutoff", *ENCODER_OPTIONS[name]}
        assert own <= set(inspect.signature(cls).parameters), name
        assert set(ModelSpec(encoder=name).encoder_options) == own - {"n_radial"}
        made = suites.small_potential(name, torch.float32).encoder
        assert (made(*_nothing()).vector is not None) == (name in WITH_VECTORS)
    assert set(ModelSpec.model_fields["head"].annotation.__args__) == set(ENERGY_HEADS)


def _nothing():
    return torch.ones(1, dtype=torch.int64), torch.zeros((2, 0), dtype=torch.int64), torch.zeros((0, 3))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_built_from_a_specification(name):
    frames = FrameSet.from_atoms([suites.ethanol(k) for k in range(3)])
    spec = TrainSpec(data="unused", model=MODELS[name], seed=5)
    potential = build.build_potential(spec, frames)
    said = potential.describe()
    for option, value in MODELS[name].items():
        assert {**said, **said["options"]}[option] == value
    assert said["elements"] == ["H", "C", "O"]
    assert said["options"].get("elements", [1, 6, 8]) == [1, 6, 8]
    again = build.build_potential(spec, frames)
    for (key, one), other in zip(potential.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num()), key


def _labelled(n: int) -> FrameSet:
    """Frames labelled by another model with the same atomic energies."""
    frames = FrameSet.from_atoms([suites.ethanol(k) for k in range(n)])
    return predict(suites.small_potential("schnet", torch.float64, seed=9), frames)


@pytest.mark.parametrize("kind", ["egnn", "visnet_lmax2_gated", "sum", "committee"])
def test_training_stopped_and_resumed_is_the_same(kind, tmp_path):
    """Bit for bit, by files alone."""
    frames = _labelled(12)

    def run(folder: Path, *stops: int):
        for steps in stops:
            potential = suites.MODELS[kind](torch.float32)
            settings = TrainSettings(batch_size=4, max_epochs=9, max_steps=steps, learning_rate=3e-3, device="cpu")
            train(potential, frames[:8], frames[8:], settings, folder=folder)
        return load(folder / "checkpoints" / "last.safetensors")

    whole, halves = run(tmp_path / "whole", 6), run(tmp_path / "halves", 3, 6)
    start = suites.MODELS[kind](torch.float32).state_dict()
    moved = [not torch.equal(value, start[name]) for name, value in whole.named_parameters()]
    assert sum(moved) > len(moved) // 2
    for (name, one), other in zip(whole.state_dict().items(), halves.state_dict().values(), strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num()), name


@pytest.mark.parametrize("kind", sorted(suites.MODELS))
def test_md_and_calculator(kind, tmp_path):
    """A loaded file drives MD and an ASE calculator, and NVE keeps its energy."""
    potential = load(save(suites.MODELS[kind](torch.float64), tmp_path / "p.safetensors"))
    atoms = suites.ethanol()
    state = state_from_atoms(atoms, seed=1)
    # The repulsion of the suite is so strong that the checks would end the run.
    checks = dict.fromkeys(CHECKS, False)
    simulate(state, PotentialForces(potential), "nve", steps=20, timestep=0.1, folder=tmp_path / "md", checks=checks)
    assert state.step == 20
    kinetic = float(state.kinetic_energy())
    assert kinetic > 1e-4
    begin = potential(graph_of(atoms, potential.cutoff, torch.float64))
    assert abs(float(state.energy) + kinetic - float(begin.energy)) < 1e-2 * kinetic
    atoms.calc = MlipCalculator(potential)
    assert np.allclose(atoms.get_forces(), begin.forces.numpy(), atol=1e-10)


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(MODELS))
def test_trained_and_simulated_as_runs(name, tmp_path, monkeypatch):
    """From the sample data to a potential, a committee with a repulsion, and MD with both."""
    monkeypatch.chdir(tmp_path)
    trained = mk.launch(
        TrainSpec(
            data="sample:ethanol_300K@:60", model=MODELS[name], batch_size=8, max_epochs=50, max_steps=6,
            optimiser={"learning_rate": 3e-3}, name="train",
        )
    )  # fmt: skip
    trained.wait()
    assert trained.state == "completed", trained
    potential = load(trained.folder)
    assert potential.describe()["encoder"] == name
    short = {"start": "sample:ethanol_300K@0", "temperature": 50, "timestep": 0.2, "steps": 20, "stride": 5}
    md = mk.launch(MDSpec(potential=str(trained.folder), checks={"energy_drift": False}, name="md", **short))
    md.wait()
    assert md.state == "completed", md
    assert len(md.trajectory()) == 5
    both = SumPotential([potential, ZBLRepulsion(potential.elements)])
    save(Committee([both, both]), tmp_path / "committee.safetensors")
    again = mk.launch(MDSpec(potential="committee.safetensors", checks={"energy_drift": False}, name="md2", **short))
    again.wait()
    assert again.state == "completed", again
    found, expected = again.trajectory(), md.trajectory()
    assert np.allclose(found[-1].positions, expected[-1].positions, atol=1e-3)
