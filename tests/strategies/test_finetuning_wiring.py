"""Fine-tuning: which frames, weights and constants go into each part of it, and which candidate is returned."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from emt_sets import clusters, make_potential

from mlipkit.data.series import Series
from mlipkit.errors import DataError, RunError, SpecError
from mlipkit.events import Evaluated, Message
from mlipkit.models import predict
from mlipkit.strategies.finetuning import (
    FinetuneRecipe,
    UniversalLoss,
    bonded_pairs,
    copies,
    energy_shifts,
    finetune,
    moved,
    own_labels,
    pool,
)
from mlipkit.strategies.finetuning.finetune import _mixed
from mlipkit.strategies.finetuning.outcome import OFFSET, TUNED, UNTOUCHED, _sentence
from mlipkit.training import TrainSettings, train

SETTINGS = TrainSettings(batch_size=4, max_epochs=2, learning_rate=1e-3, precision="float64", ema_decay=None)
HOT = clusters(16, seed=5, amplitude=0.25)
NEW, HELD, TEST = HOT[:8], HOT[8:12], HOT[12:]
OLD = clusters(6, seed=3, amplitude=0.05)
AWAY = {29: 0.4, 79: 0.1}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory):
    frames = clusters(24, seed=0, amplitude=0.08)
    potential = make_potential(frames).double()
    train(potential, frames[:20], frames[20:], replace(SETTINGS, max_epochs=4, learning_rate=3e-3),
          folder=tmp_path_factory.mktemp("t"))  # fmt: skip
    return potential


# ---- values that cannot act


def test_weights_and_constants_that_are_no_numbers_are_refused(taught):
    for weight in (math.inf, math.nan, 0.0):
        with pytest.raises(SpecError, match="weight: out of range"):
            FinetuneRecipe(mix="loss10", weight=weight)
    with pytest.raises(DataError, match="isolated atoms: no finite energy of Cu"):
        energy_shifts(taught, NEW, {29: math.nan, 79: 1.0})


def test_numbers_and_sets_that_make_no_sense_are_named():
    with pytest.raises(DataError, match="n_replay: out of range"):
        copies(40, -3)
    with pytest.raises(DataError, match="bonded_pairs: no frame"):
        bonded_pairs(NEW[:0])
    for number in (150, 119, 0, -1):
        with pytest.raises(DataError, match=f"{number}: no such element"):
            moved(NEW, {number: 1.0})


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (NEW[2:6], "4 of 4 validation frames are among the training frames: the best epoch is then the one that has"),
        (HOT[6:10], "2 of 4 validation frames are among the training frames"),
    ],
)
def test_validation_frames_that_are_trained_on_are_told(taught, held, said, tmp_path: Path):
    heard: list = []
    finetune(taught, NEW, held, replace(SETTINGS, max_epochs=1), folder=tmp_path, sink=heard.append)
    assert any(isinstance(e, Message) and e.text.startswith(said) and e.level == "warning" for e in heard)


# ---- which candidate is returned


def test_test_frames_choose_nothing(taught, tmp_path: Path):
    far = moved(TEST, {29: 3.0, 79: 3.0})
    alone = finetune(taught, NEW, HELD, SETTINGS, folder=tmp_path / "a")
    beside = finetune(taught, NEW, HELD, SETTINGS, folder=tmp_path / "b", test=far)
    assert alone.result.best_objective == beside.result.best_objective
    assert (alone.chosen, alone.best_epoch) == (beside.chosen, beside.best_epoch)


def test_a_training_that_is_worse_than_the_untouched_potential_gives_it_back(taught, tmp_path: Path):
    settings = replace(SETTINGS, max_epochs=3)
    found = finetune(taught, moved(NEW, {29: 2.0, 79: 0.5}), HELD, settings, folder=tmp_path)
    assert found.result.best_step > 0, "it is better than the offset, from which it started"
    assert (found.chosen, found.worse_than_start) == (UNTOUCHED, True)


def test_the_offset_alone_is_returned_where_it_is_best(taught, tmp_path: Path):
    labelled = moved(predict(taught, HOT), AWAY)
    settings = replace(SETTINGS, max_epochs=1, learning_rate=0.3)
    found = finetune(taught, labelled[:8], labelled[8:12], settings, folder=tmp_path)
    assert found.chosen == OFFSET
    errors = {name: found.metrics[name]["validation"]["energy_mae"] for name in (UNTOUCHED, OFFSET)}
    assert errors[OFFSET] < 1e-6 < errors[UNTOUCHED]


def test_constants_are_fitted_on_training_frames_alone(taught, tmp_path: Path):
    own = predict(taught, HOT)
    other = moved(own[8:12], {29: 0.1, 79: 0.5})
    found = finetune(taught, moved(own[:8], AWAY), other, replace(SETTINGS, max_epochs=1), folder=tmp_path)
    # One composition, Cu3Au2: the sum is known, single elements are not.
    assert 3 * found.shifts.values[29] + 2 * found.shifts.values[79] == pytest.approx(3 * 0.4 + 2 * 0.1, abs=1e-6)


def test_where_the_offset_is_better_in_energies_nothing_was_learned_of_them():
    table = {
        name: {"validation": {"energy_mae": value, "forces_mae": value}}
        for name, value in ((UNTOUCHED, 10.0), (OFFSET, 1.0), ("best", 2.0))
    }
    result: Any = SimpleNamespace(step=4, epoch=2, best_step=2, best_epoch=1, state="completed")
    said = "nothing beyond it was learned about energies"
    assert said in _sentence(table, TUNED, result, SETTINGS)
    table["best"]["validation"]["energy_mae"] = 0.5
    assert said not in _sentence(table, TUNED, result, SETTINGS)


# ---- losses and replay


def test_new_and_old_batches_share_the_loss_as_the_recipe_says(taught):
    loss = UniversalLoss(weights={"energy": 0.0, "forces": 10.0})
    recipe = FinetuneRecipe(mix="loss10", weight=3.0, replay_batch=7)
    (new, old), frames = _mixed(loss, recipe, NEW, own_labels(taught, OLD, {}), taught, SETTINGS)
    assert (new.weights["forces"], old.loss.weights["forces"]) == (7.5, 2.5)
    assert (old.batch_size, len(frames)) == (7, len(NEW))


def test_old_frames_follow_the_new_ones_in_the_pool():
    for mix in ("tool_shuffle", "tool_dup10"):
        found = pool(NEW, OLD, mix)
        first = len(found) - len(OLD)
        assert [found.uid(first + i) for i in range(len(OLD))] == [OLD.uid(i) for i in range(len(OLD))]


def heard_in_one_step(potential, train_frames, held, folder: Path, recipe: FinetuneRecipe, **more) -> dict[str, Any]:
    """Figures of the first step, before any weight has moved, and of the validation after it."""
    heard: list = []
    settings = replace(SETTINGS, max_epochs=1, max_steps=1)
    finetune(potential, train_frames, held, settings, recipe, folder=folder, sink=heard.append, **more)
    (found,) = [event for event in heard if isinstance(event, Evaluated) and "train" in event.metrics]
    return dict(found.metrics["train"])


def test_labels_of_replay_frames_are_on_the_zero_of_the_new_ones(taught, tmp_path: Path):
    labelled = moved(predict(taught, HOT), AWAY)
    recipe = FinetuneRecipe(mix="loss10", steps_per_epoch=1)
    figures = heard_in_one_step(taught, labelled[:8], labelled[8:12], tmp_path, recipe, replay=OLD)
    assert figures["replay_energy_mae"] < 1e-6
    assert figures["energy_mae"] < 1e-6


def test_what_is_retained_is_measured_on_the_zero_of_the_new_labels(taught, tmp_path: Path):
    labelled = moved(predict(taught, HOT), AWAY)
    finetune(taught, labelled[:8], labelled[8:12], replace(SETTINGS, max_epochs=1), folder=tmp_path, retention=OLD)
    assert float(Series(tmp_path / "series" / "validation").read()["retention_energy_mae"][0]) < 1e-6


def test_the_loss_is_that_of_the_recipe(taught, tmp_path: Path):
    found = {
        loss: heard_in_one_step(taught, NEW, HELD, tmp_path / loss, FinetuneRecipe(loss=loss))
        for loss in ("universal", "settings")
    }
    assert found["universal"]["forces_mae"] == pytest.approx(found["settings"]["forces_mae"])
    assert found["universal"]["loss_forces"] != pytest.approx(found["settings"]["loss_forces"], rel=0.01)


def test_the_penalty_of_universal_has_the_bounds_of_large_forces(taught, tmp_path: Path):
    """Not the Huber loss of the settings, which is the same for small forces."""
    strong = NEW.with_labels(energy=NEW.energy, forces=400.0 * np.sign(np.asarray(NEW.forces)))
    given = heard_in_one_step(taught, strong, HELD, tmp_path / "universal", FinetuneRecipe())
    plain = replace(SETTINGS, loss="huber", huber_delta=UniversalLoss().huber_delta)
    heard: list = []
    finetune(taught, strong, HELD, replace(plain, max_epochs=1, max_steps=1), FinetuneRecipe(loss="settings"),
             folder=tmp_path / "plain", sink=heard.append)  # fmt: skip
    (found,) = [event for event in heard if isinstance(event, Evaluated) and "train" in event.metrics]
    assert given["loss_forces"] < 0.5 * found.metrics["train"]["loss_forces"]


# ---- going on


def test_going_on_with_other_weights_or_another_recipe_is_refused(taught, tmp_path: Path):
    settings = replace(SETTINGS, max_epochs=1)
    finetune(taught, NEW, HELD, settings, folder=tmp_path)
    other = copy.deepcopy(taught)
    with torch.no_grad():
        next(iter(other.parameters())).add_(1e-3)
    with pytest.raises(RunError, match="weights: not what this fine-tuning began with"):
        finetune(other, NEW, HELD, settings, folder=tmp_path)
    with pytest.raises(RunError, match="recipe: not what this fine-tuning began with"):
        finetune(taught, NEW, HELD, settings, FinetuneRecipe(shifts="keep"), folder=tmp_path)
