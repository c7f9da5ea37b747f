"""Simulations that watch the training space: what a specification may ask for, and a run that does it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

import mlipkit as mk
from mlipkit.analysis import OODModel
from mlipkit.data import samples
from mlipkit.errors import DataError, SpecError
from mlipkit.md.outside_check import HARVEST
from mlipkit.runs.building_outside import FIT_ON, MODEL, outside_check, training_frames
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.spec_md import OutsideSpec


def md(**options):
    return mk.MDSpec(potential="sample:ethanol_50", start="sample:ethanol_300K@0", device="cpu", **options)


def test_it_is_off_by_default_and_every_option_acts():
    assert not md().outside.fit_on
    with pytest.raises(SpecError, match="every: has no effect without fit_on"):
        md(outside={"every": 5})
    with pytest.raises(SpecError, match="most has no effect with then 'warn'"):
        md(outside={"fit_on": "sample:ethanol_300K", "most": 5})


def test_what_it_is_fitted_on_is_a_place_of_the_run(tmp_path):
    spec = md(outside={"fit_on": "nowhere.xyz"})
    assert ("outside.fit_on", "nowhere.xyz") in list(spec.places())
    with pytest.raises(SpecError, match=r"outside\.fit_on.*no such file"):
        mk.launch(spec, root=tmp_path)


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Path:
    """The space of fifty cold frames, as a file."""
    path = tmp_path_factory.mktemp("space") / "space.safetensors"
    frames = samples.load("ethanol_300K")[::20]
    return OODModel.fit(frames).save(path)


def test_a_cold_run_is_inside_a_hot_one_is_not_and_its_frames_are_kept(tmp_path, space):
    def run(name, temperature):
        outside = {"fit_on": str(space), "then": "keep", "most": 4, "apart": 20.0, "factor": 2.0}
        spec = md(name=name, temperature=temperature, steps=400, outside=outside)
        return mk.launch(spec, root=tmp_path).wait()

    hot = run("hot", 2000.0)
    kept = read(hot.folder / HARVEST, ":")
    assert 1 <= len(kept) <= 4
    assert np.diff([frame.info["time_fs"] for frame in kept]).min(initial=20.0) >= 20.0
    said = [event.verdict for event in hot.events() if hasattr(event, "verdict")]
    assert any(verdict.check == "outside" and "SOAP Q" in verdict.sentence for verdict in said)
    assert OODModel.load(hot.folder / MODEL).facts["frames"] == 50
    cold = run("cold", 50.0)
    assert not (cold.folder / HARVEST).exists()
    assert cold.verdict is not None
    assert cold.verdict.outcome == "ok"


def test_a_run_ends_where_it_is_told_to_fail(tmp_path, space):
    spec = md(temperature=2000.0, steps=400, outside={"fit_on": str(space), "then": "fail", "every": 10})
    run = mk.launch(spec, root=tmp_path).wait()
    assert run.state == "failed"
    assert run.verdict is not None
    assert run.verdict.check == "outside"


def check(spec, tmp_path, atoms, said=None):
    sink = [].append if said is None else said.append
    return outside_check(spec, [("start", atoms)], RunFolder(tmp_path), tmp_path, sink)


def test_it_is_fitted_once_and_on_no_more_frames_than_help(tmp_path):
    said: list = []
    atoms = samples.load("ethanol_300K")[0]
    spec = OutsideSpec(fit_on="sample:ethanol_300K")
    check(spec, tmp_path, atoms, said)
    assert f"{FIT_ON} frames of sample:ethanol_300K" in said[0].text
    before = (tmp_path / MODEL).stat().st_mtime_ns
    check(spec, tmp_path, atoms, said)
    assert len(said) == 1
    assert (tmp_path / MODEL).stat().st_mtime_ns == before


def test_a_start_that_cannot_be_scored_is_refused_by_name(tmp_path, space):
    atoms = samples.load("water_liquid")[0]
    atoms.symbols[0] = "Na"
    with pytest.raises(DataError, match=r"outside.*start.*Na"):
        check(OutsideSpec(fit_on=str(space)), tmp_path, atoms)


def test_of_a_training_run_only_what_it_trained_on_is_inside(tmp_path):
    spec = mk.TrainSpec(
        data="sample:ethanol_300K@:40", model={"features": 8, "layers": 1}, max_steps=2, max_epochs=1, device="cpu",
        split={"by": "random", "validation": 0.25, "test": 0.25},
    )  # fmt: skip
    run = mk.launch(spec, root=tmp_path).wait()
    frames = training_frames(str(run.folder), tmp_path)
    uids = json.loads((run.folder / "split.json").read_text())["uids"]["train"]
    assert [f"{int(uid):016x}" for uid in frames.uids] == uids
    assert len(frames) == 20


def test_training_frames_are_read_as_the_training_read_them(tmp_path):
    frames = samples.load("ethanol_300K")[:20]
    mk.write(tmp_path / "train.extxyz", frames)
    positions = np.stack([atoms.positions for atoms in frames])
    forces = np.stack([atoms.get_forces() for atoms in frames])
    np.savez(tmp_path / "validation.npz", R=positions, z=frames[0].numbers, F=forces, E=np.zeros(20))
    # Units that only the validation file asks for.
    spec = mk.TrainSpec(
        data=str(tmp_path / "train.extxyz"), validation=str(tmp_path / "validation.npz"), units={"energy": "eV"},
        model={"features": 8, "layers": 1}, max_steps=2, max_epochs=1, device="cpu", split={"test": 0},
    )  # fmt: skip
    run = mk.launch(spec, root=tmp_path).wait()
    assert run.state == "completed", run.reason
    assert len(training_frames(str(run.folder), tmp_path)) == 20
    with pytest.raises(SpecError, match="all that it trained on"):
        training_frames(f"{run.folder}@:5", tmp_path)


def test_a_run_that_is_resumed_scores_with_the_same_space(tmp_path, space):
    outside = {"fit_on": str(space), "then": "keep", "most": 4, "apart": 20.0}
    hot = {"temperature": 2000.0, "replicas": 2, "checkpoint_every": 50, "outside": outside}
    whole = mk.launch(md(name="whole", steps=300, **hot), root=tmp_path).wait()
    parts = mk.launch(md(name="parts", steps=130, **hot), root=tmp_path).wait()
    parts.change(steps=300)
    parts = parts.resume().wait()
    assert parts.state == whole.state
    kept = []
    for run in (whole, parts):
        files = run.folder.glob(f"replica_*/{HARVEST}")
        kept.append({path.parent.name: [frame.info for frame in read(path, ":")] for path in files})
    assert kept[0]
    assert kept[0] == kept[1]
