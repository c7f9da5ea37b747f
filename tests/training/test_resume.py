"""Interrupted and resumed equals never interrupted, bit for bit."""

import numpy as np
import pytest
import torch
from emt_sets import clusters, make_potential
from safetensors.torch import load_file

from mlipkit.data import Series
from mlipkit.errors import RunError
from mlipkit.events import Evaluated, Message, Started
from mlipkit.training import TrainSettings, train

TRAIN, VALIDATION = clusters(13, seed=1, sizes=(5, 4)), clusters(5, seed=2)
SETTINGS = {"batch_size": 3, "max_epochs": 4, "learning_rate": 3e-3, "warmup_steps": 3}


class Killed(Exception):
    pass


def run(folder, settings, control=lambda: "run", seed=0, frames=TRAIN, sink=lambda event: None, **model):
    # Other random numbers before each resumption: it must not depend on them.
    torch.manual_seed(int(np.random.default_rng().integers(1 << 30)) if folder.is_dir() else 0)
    potential = make_potential(TRAIN, seed=seed, **model)
    return train(potential, frames, VALIDATION, TrainSettings(**settings), folder=folder, control=control, sink=sink)


def killing(at):
    calls = iter(range(10**6))

    def control():
        if next(calls) == at:
            raise Killed
        return "run"

    return control


def same(a, b):
    left, right = (load_file(folder / "checkpoints" / "last.safetensors") for folder in (a, b))
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(torch.nan_to_num(value), torch.nan_to_num(right[name])), name
    left, right = (load_file(folder / "checkpoints" / "best.safetensors") for folder in (a, b))
    for name, value in left.items():
        assert torch.equal(torch.nan_to_num(value), torch.nan_to_num(right[name])), name
    for name in ("training", "validation"):
        left, right = (Series(folder / "series" / name).read() for folder in (a, b))
        for column, values in left.items():
            if column not in ("seconds", "data_wait"):
                np.testing.assert_array_equal(values, right[column], err_msg=column)
    assert (a / "metrics.json").read_bytes() == (b / "metrics.json").read_bytes()


CASES = {
    "average": {},
    "no average": {"ema_decay": None},
    "plateau": {"schedule": "plateau", "schedule_patience": 1, "learning_rate": 0.3},
    "cosine": {"schedule": "cosine"},
    "max_steps": {"max_steps": 14},
    "early stopping": {"patience": 2, "learning_rate": 0.3, "max_epochs": 9},
    "partial epochs": {"points_per_epoch": 7},
}


@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_steps_and_resumed_is_bit_identical(tmp_path, case):
    settings = {**SETTINGS, **CASES[case]}
    whole = run(tmp_path / "whole", settings)
    rng, kills = np.random.default_rng(sum(map(ord, case))), 0
    checkpoints = {**settings, "checkpoint_steps": 2}
    for _ in range(40):
        try:
            result = run(tmp_path / "pieces", checkpoints, killing(int(rng.integers(1, 9))))
            break
        except Killed:
            kills += 1
    assert kills >= 2
    assert (result.step, result.best_step, result.ending) == (whole.step, whole.best_step, whole.ending)
    # metrics.json and cards hold no interval of checkpoints; everything else is compared whole.
    same(tmp_path / "whole", tmp_path / "pieces")


def test_stopped_and_resumed_has_the_same_last_weights(tmp_path):
    run(tmp_path / "whole", SETTINGS)
    calls = iter(range(100))
    stopped = run(tmp_path / "pieces", SETTINGS, lambda: "stop" if next(calls) == 7 else "run")
    assert (stopped.state, stopped.step) == ("stopped", 7)
    log = []
    run(tmp_path / "pieces", SETTINGS, sink=log.append)
    assert next(e for e in log if isinstance(e, Started)).resumed_at == 7
    left, right = (load_file(tmp_path / n / "checkpoints" / "last.safetensors") for n in ("whole", "pieces"))
    assert all(torch.equal(torch.nan_to_num(v), torch.nan_to_num(right[k])) for k, v in left.items())


def test_a_longer_limit_continues_a_finished_training(tmp_path):
    run(tmp_path / "whole", {**SETTINGS, "schedule": "constant"})
    run(tmp_path / "pieces", {**SETTINGS, "schedule": "constant", "max_epochs": 2})
    run(tmp_path / "pieces", {**SETTINGS, "schedule": "constant"})
    same(tmp_path / "whole", tmp_path / "pieces")


def test_calling_a_finished_training_again_makes_no_step(tmp_path):
    first = run(tmp_path, SETTINGS)
    series = (tmp_path / "series" / "training" / "rows.f64").read_bytes()
    log = []
    again = run(tmp_path, SETTINGS, sink=log.append)
    assert again.metrics == first.metrics
    assert again.step == first.step
    assert not [event for event in log if isinstance(event, Evaluated)]
    assert (tmp_path / "series" / "training" / "rows.f64").read_bytes() == series


def test_global_random_numbers_are_resumed(tmp_path):
    """Dropout and the like draw from torch's global generator."""
    from mlipkit.training import EnergyForcesStress

    class Dropped(EnergyForcesStress):
        def __call__(self, state, graph, targets, prediction):
            loss, figures = super().__call__(state, graph, targets, prediction)
            return loss * (0.5 + torch.rand(())), figures

    def go(folder, control=lambda: "run", seed=5):
        settings = TrainSettings(**SETTINGS, checkpoint_steps=3)
        torch.manual_seed(seed)
        terms = (Dropped({"forces": 1.0}),)
        train(make_potential(TRAIN), TRAIN, VALIDATION, settings, folder=folder, control=control, terms=terms)

    go(tmp_path / "whole")
    with pytest.raises(Killed):
        go(tmp_path / "pieces", killing(8))
    go(tmp_path / "pieces", seed=6)
    same(tmp_path / "whole", tmp_path / "pieces")


def test_other_data_or_another_architecture_is_refused(tmp_path):
    run(tmp_path, {**SETTINGS, "max_epochs": 1})
    with pytest.raises(RunError, match="training data"):
        run(tmp_path, SETTINGS, frames=TRAIN[:12])
    with pytest.raises(RunError, match="encoder"):
        run(tmp_path, SETTINGS, features=12)
    with pytest.raises(RunError, match="ema_decay"):
        run(tmp_path, {**SETTINGS, "ema_decay": None})
    with pytest.raises(RunError, match="objective terms"):
        run(tmp_path, {**SETTINGS, "energy_weight": 0.0})
    with pytest.raises(RunError, match="dtype"):
        run(tmp_path, {**SETTINGS, "precision": "float64"})


def test_other_settings_are_said(tmp_path):
    run(tmp_path, {**SETTINGS, "max_epochs": 1})
    log = []
    run(tmp_path, {**SETTINGS, "learning_rate": 1e-4, "max_epochs": 2}, sink=log.append)
    text = next(event.text for event in log if isinstance(event, Message))
    assert "learning_rate 0.003 -> 0.0001" in text
    assert "max_epochs" not in text
    rates = Series(tmp_path / "series" / "training").read("learning_rate")["learning_rate"]
    assert rates[-1] == 1e-4


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    run(tmp_path, {**SETTINGS, "max_epochs": 1})
    path = tmp_path / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RunError, match="not a readable training checkpoint") as error:
        run(tmp_path, SETTINGS)
    assert "\n" not in str(error.value)


def test_halves_of_files_are_swept_up(tmp_path):
    run(tmp_path, {**SETTINGS, "max_epochs": 1})
    stray = tmp_path / "checkpoints" / ".last.safetensors.abcd"
    stray.write_bytes(b"half")
    run(tmp_path, SETTINGS)
    assert not stray.exists()


def test_the_loss_of_another_seed_differs(tmp_path):
    """Guards the comparisons above: they can fail."""
    run(tmp_path / "a", SETTINGS)
    run(tmp_path / "b", {**SETTINGS, "shuffle_seed": 1})
    with pytest.raises(AssertionError):
        same(tmp_path / "a", tmp_path / "b")
