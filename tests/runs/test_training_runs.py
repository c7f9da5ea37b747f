"""Training as a run: from data to potential to MD, its report, its estimate; and the same on Dask."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mlipkit.data import FrameSet, samples, write
from mlipkit.errors import DataError, LabelError, RunError, SpecError
from mlipkit.md import CHECKS, ENSEMBLES
from mlipkit.runs import MDSpec, TrainSpec, build, estimate, launch, process
from mlipkit.runs.executors import worker_environment
from mlipkit.runs.limits import CHECK_LIMITS
from mlipkit.runs.limits import CHECKS as spec_checks
from mlipkit.runs.spec import ENSEMBLE_OPTIONS
from mlipkit.training import TrainSettings
from mlipkit.units import KCAL_PER_MOL

SMALL = {
    "data": "cu.xyz",
    "model": {"features": 8, "layers": 1},
    "split": {"validation": 0.2, "test": 5, "by": "block"},
    "batch_size": 4,
}


def test_specification_and_core_have_the_same_settings():
    for name, ensemble in ENSEMBLES.items():
        assert set(ENSEMBLE_OPTIONS[name]) <= set(ensemble.options), name
    assert set(ENSEMBLE_OPTIONS) == set(ENSEMBLES)
    assert set(spec_checks) == set(CHECKS) == set(CHECK_LIMITS)
    for name, check in CHECKS.items():
        fields = {field.name for field in dataclasses.fields(check) if field.init}
        assert set(CHECK_LIMITS[name]) == fields - ({"warn", "fail"} if name == "finite" else set()), name
    settings = build.settings_of(TrainSpec(data="x"))
    assert settings == TrainSettings(max_epochs=200, device="auto")


def test_split_follows_the_specification(frames: Path, work: Path):
    parts = build.split_frames(TrainSpec(**SMALL), work)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [27, 8, 5]
    few = build.split_frames(TrainSpec(**SMALL, n_train=6), work)
    assert len(few.train) == 6
    assert np.array_equal(few.validation.uids, parts.validation.uids)
    assert set(few.train.uids) <= set(parts.train.uids)
    with pytest.raises(SpecError, match=r"n_train.*at most 27"):
        build.split_frames(TrainSpec(**SMALL, n_train=100), work)
    apart = build.split_frames(TrainSpec(**{**SMALL, "validation": "cu.xyz@:3"}), work)
    assert len(apart.validation) == 3
    assert "cu.xyz@:3" in apart.how


def test_seed_decides_the_weights(frames: Path, work: Path):
    train = build.split_frames(TrainSpec(**SMALL), work).train

    def weights(**fields) -> np.ndarray:
        spec = TrainSpec(**{**SMALL, **fields})
        return np.concatenate([p.detach().numpy().ravel() for p in build.build_potential(spec, train).parameters()])

    assert np.array_equal(weights(), weights())
    assert not np.array_equal(weights(), weights(seed=1))
    assert np.array_equal(weights(seed=1), weights(model={**SMALL["model"], "seed": 1}))


def test_start_structure_and_factories(frames: Path, work: Path):
    last = build.start_structure(MDSpec(start="cu.xyz@-1"), work)
    first = build.start_structure(MDSpec(start="cu.xyz"), work)
    assert not np.allclose(first.positions, last.positions)
    assert len(build.start_structure(MDSpec(start="calc.py:cluster"), work)) == 6
    with pytest.raises(SpecError, match="no frames"):
        build.read_frames("calc.py:emt", work)


@pytest.mark.full
def test_train_then_md_then_report(frames: Path, work: Path):
    train = launch(TrainSpec(**SMALL, max_epochs=3))
    md = launch(MDSpec(potential=train, start="cu.xyz", steps=20, stride=5))  # type: ignore[arg-type]
    assert md.wait(120).state in ("completed", "failed")
    assert train.state == "completed"
    assert train.reason == "all 3 epochs done"
    metrics = train.metrics()
    assert {"train", "validation", "test"} <= set(metrics)
    assert metrics["test"]["forces_mae"] > 0
    assert train.facts()["frames"] == {"train": 27, "validation": 8, "test": 5}
    record = json.loads((train.folder / "split.json").read_text())
    assert len(record["uids"]["train"]) == 27
    page = train.report().read_text()
    for part in ("Training", "Validation errors", "Parity, forces", "meV/Å", "Please cite", "PaiNN", "launch("):
        assert part in page
    assert page.count("<script>") == 2  # plotly.js is there once
    assert not re.search(r"<(script|img|link)[^>]+(src|href)=", page)
    assert "Simulation" in md.report(work / "md.html").read_text()


@pytest.mark.full
def test_killed_training_resumes_to_the_same_weights(frames: Path, work: Path):
    spec = TrainSpec(**SMALL, max_epochs=30)
    whole = launch(spec, folder=work / "whole").wait(120)
    killed = launch(spec, folder=work / "killed")
    end = time.monotonic() + 60
    while "training" not in killed.series_names() or len(killed.series("training")) < 30:
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(killed.files.read("pid.json")["pid"], signal.SIGKILL)
    while killed.state != "lost":
        assert time.monotonic() < end
        time.sleep(0.02)
    assert killed.resume().wait(120).state == whole.state == "completed"
    best = [load_file(run.files.checkpoints / "best.safetensors") for run in (whole, killed)]
    assert best[0].keys() == best[1].keys()
    assert all(np.array_equal(best[0][name], best[1][name], equal_nan=True) for name in best[0])
    assert whole.metrics() == killed.metrics()
    # Torch's global generator too, which belongs to code that a user brings along.
    last = [load_file(run.files.checkpoints / "last.safetensors")["training.random.0/cpu"] for run in (whole, killed)]
    assert np.array_equal(*last)


@pytest.mark.full
def test_estimate_measures_and_starts_nothing(frames: Path, work: Path):
    found = estimate(MDSpec(potential="calc.py:slow", start="calc.py:cluster", steps=2000, stride=10))
    # Every step sleeps 4 ms.
    assert 8 < found.seconds - found.setup_s < 100
    assert found.peak_bytes > 1e8
    assert 2000 * 64 < found.disk_bytes < 2e6
    assert "2000 steps" in found.sentence
    training = estimate(TrainSpec(**SMALL, max_epochs=5))
    assert training.steps == 35
    assert not (work / "runs").exists()
    with pytest.raises(RunError, match="expected an ASE calculator"):
        estimate(MDSpec(potential="calc.py:nothing", start="calc.py:cluster"))
    with pytest.raises(SpecError, match="no such file"):
        estimate(MDSpec(potential="calc.py:emt", start="nowhere.xyz"))


def test_worker_environment_limits_threads():
    environment = worker_environment(3)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["MALLOC_MMAP_MAX_"] == "0"
    assert environment["MALLOC_TRIM_THRESHOLD_"] == "-1"


@pytest.mark.full
def test_dask_runs_the_same_worker(work: Path):
    distributed = pytest.importorskip("distributed")
    from mlipkit.runs import DaskExecutor

    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(work)
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        spec = MDSpec(potential="calc.py:emt", start="calc.py:cluster", steps=10, temperature=100)
        run = launch(spec, executor=DaskExecutor(client))
        assert run.state in ("queued", "running")
        assert run.wait(120).state == "completed"
        assert run.files.read("pid.json")["pid"] != process.describe()["pid"]


def test_labels_on_some_frames_need_consent(tmp_path):
    frames = samples.load("ethanol_300K")[:20]
    energies = np.array(frames.energy)
    energies[5:] = np.nan
    path = tmp_path / "partial.extxyz"
    write(path, frames.with_labels(energy=energies))
    with pytest.raises(LabelError, match="energy"):
        build.split_frames(TrainSpec(data=str(path)), tmp_path)
    parts = build.split_frames(TrainSpec(data=str(path), allow_partial=True), tmp_path)
    assert sum(part.has("energy").sum() for part in (parts.train, parts.validation, parts.test)) == 5
    # A start structure is a structure, whatever its labels.
    assert len(build.start_structure(MDSpec(start=f"{path}@-1"), tmp_path)) == 9


def test_labels_on_some_files_need_consent_as_well(tmp_path):
    frames = samples.load("ethanol_300K")[:20]
    write(tmp_path / "whole.extxyz", frames[:10])
    write(tmp_path / "energies.extxyz", frames[10:].with_labels(forces=np.nan))
    write(tmp_path / "atom.extxyz", FrameSet.from_arrays([1], [[[0.0, 0.0, 0.0]]], energy=[-10.0]))
    places = ["whole.extxyz", "atom.extxyz", "energies.extxyz"]
    with pytest.raises(LabelError, match=r"forces is on 10 of 20 frames.*in energies\.extxyz.*allow_partial"):
        build.read_frames(places, tmp_path)
    assert len(build.read_frames(places, tmp_path, allow_partial=True)) == 21
    assert len(build.read_frames(places[:2], tmp_path)) == 11
    assert not build.read_frames(places, tmp_path, keys={"forces": None}).has("forces").any()


def test_units_of_a_file_that_declares_none(tmp_path):
    frames = samples.load("ethanol_300K")[:20]
    shape = (20, 9, 3)
    np.savez(
        tmp_path / "bare.npz", R=frames.positions.reshape(shape), z=frames.numbers[:9],
        E=np.asarray(frames.energy) / KCAL_PER_MOL, F=frames.forces.reshape(shape) / KCAL_PER_MOL,
    )  # fmt: skip
    with pytest.raises(DataError, match="unit of energy"):
        build.split_frames(TrainSpec(data="bare.npz"), tmp_path)
    parts = build.split_frames(TrainSpec(data="bare.npz", units={"energy": "kcal/mol"}), tmp_path)
    assert np.mean(parts.train.energy) == pytest.approx(np.mean(frames.energy), abs=1)


def test_options_of_reading_that_act_nowhere_are_refused(frames: Path, work: Path):
    with pytest.raises(SpecError, match=r"sample:ethanol_300K@:3: keys: no effect here: a sample has"):
        build.read_frames("sample:ethanol_300K@:3", work, keys={"forces": "F"})
    with pytest.raises(SpecError, match=r"units: no effect here: the units of extxyz files are known"):
        build.read_frames(str(frames), work, units={"energy": "kcal/mol"})
    with pytest.raises(SpecError, match=r"units: no effect here \(and at the 1 other places\): a sample"):
        build.read_frames(["sample:ethanol_300K@:3", str(frames)], work, units={"energy": "kcal/mol"})
    with pytest.raises(SpecError, match="keys: no effect here: a factory"):
        build.read_frames("calc.py:cluster", work, keys={"energy": "E"})
    # Among several places it is enough that one takes the option, a validation file included.
    mixed = build.read_frames(["sample:ethanol_300K@:3", str(frames)], work, keys={"stress": None})
    assert len(mixed) == 43
    spec = TrainSpec(data="sample:ethanol_300K", validation=str(frames), keys={"forces": "forces"})
    assert len(build.split_frames(spec, work).validation) == 40
    with pytest.raises(SpecError, match="keys: no effect"):
        build.split_frames(spec.changed(validation=None), work)
    for place, reason in ((str(frames), "extxyz files do not tell"), ("calc.py:cluster", "a factory")):
        with pytest.raises(SpecError, match=f"unconverged: no effect here: {reason}"):
            build.read_frames(place, work, unconverged="drop")
    assert len(build.read_frames(str(frames), work, unconverged="keep")) == 40
