"""Several processes, and processes that die."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from emt_sets import clusters, make_potential
from safetensors.torch import load_file

from mlipkit.data import Series
from mlipkit.errors import SpecError
from mlipkit.models import load
from mlipkit.training import TrainSettings, train
from mlipkit.training.checkpoint import read_header

CHILD = Path(__file__).with_name("train_child.py")


def start(folder, **settings):
    environment = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "LOCAL_RANK", "RANK")}
    environment |= {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(CHILD), str(folder), json.dumps(settings)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process, timeout=180):
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, out
    return out


def weights(folder, name="last"):
    return {k: torch.nan_to_num(v) for k, v in load_file(folder / "checkpoints" / f"{name}.safetensors").items()}


def test_started_more_often_than_asked_for_is_refused(tmp_path, monkeypatch):
    frames = clusters(3, seed=0)
    for variable in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "4")
            with pytest.raises(SpecError, match=r"4 processes.*num_processes"):
                train(make_potential(frames), frames, frames, TrainSettings(), folder=tmp_path)


@pytest.mark.full
def test_two_processes_equal_one_with_twice_the_batch(tmp_path):
    """Unequal structures and missing labels: averaging the processes' means would be wrong here."""
    common = {
        "max_epochs": 3, "precision": "float64", "loss": "l1", "learning_rate": 3e-3, "checkpoint_steps": 2,
        "patience": 3, "clip_norm": 0.5,
    }  # fmt: skip
    one = start(tmp_path / "one", batch_size=4, **common)
    two = start(tmp_path / "two", batch_size=2, num_processes=2, **common)
    finish(one), finish(two)
    left, right = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in left.items():
        if "random" not in name:
            torch.testing.assert_close(value, right[name], rtol=1e-7, atol=1e-9, msg=name)
    assert {name for name in right if "random" in name} == {"training.random.0/cpu", "training.random.1/cpu"}
    for name in ("training", "validation"):
        series = [Series(tmp_path / folder / "series" / name).read() for folder in ("one", "two")]
        for column in set(series[0]) - {"seconds", "data_wait"}:
            np.testing.assert_allclose(series[0][column], series[1][column], rtol=1e-6, err_msg=column)
    tables = [json.loads((tmp_path / folder / "metrics.json").read_text())["metrics"] for folder in ("one", "two")]
    for split, figures in tables[0].items():
        assert figures == pytest.approx(tables[1][split], rel=1e-6)


def kill_when(process, series, rows, delay):
    """Kill -9 the process a moment after the series has so many rows; False when it ended before."""
    while process.poll() is None:
        if series.is_file() and series.stat().st_size >= rows:
            time.sleep(delay)
            process.kill()
            process.wait()
            return True
        time.sleep(0.002)
    return False


@pytest.mark.full
def test_killed_at_random_moments_ends_as_if_never_killed(tmp_path):
    settings = {"batch_size": 3, "max_epochs": 20, "checkpoint_steps": 5, "learning_rate": 3e-3}
    whole, folder = tmp_path / "whole", tmp_path / "pieces"
    finish(start(whole, **settings))
    size = (whole / "series" / "training" / "rows.f64").stat().st_size
    row = size // 120
    rng, steps = np.random.default_rng(0), []
    for kill in range(4):
        rows = (10 + 25 * kill + int(rng.integers(12))) * row
        process = start(folder, **settings)
        assert kill_when(process, folder / "series" / "training" / "rows.f64", rows, float(rng.uniform(0, 0.05)))
        load(folder)
        steps.append(read_header(folder / "checkpoints" / "last.safetensors")["record"]["position"]["step"])
        Series(folder / "series" / "training").read()
    assert steps == sorted(steps)
    assert 0 < steps[0] < steps[-1] < 120
    finish(start(folder, **settings))
    for name in ("last", "best"):
        left, right = weights(whole, name), weights(folder, name)
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert torch.equal(value, right[key]), (name, key)
    losses = [Series(path / "series" / "training").read("loss")["loss"] for path in (whole, folder)]
    np.testing.assert_array_equal(*losses)
    assert not list((folder / "checkpoints").glob(".*"))
