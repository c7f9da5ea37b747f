"""Fine-tuning where something is amiss: sets, stops, resuming with other things, ends inside an epoch, counts."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from emt_sets import clusters, make_potential

from mlipkit.data import FrameSet
from mlipkit.errors import DataError, ModelError, RunError, SpecError
from mlipkit.events import Control, Request
from mlipkit.models import CalculatorPotential, Committee, ZBLRepulsion, load, predict, trainable_blocks
from mlipkit.strategies.finetuning import FinetuneRecipe, bond_scans, finetune, own_labels
from mlipkit.training import TrainSettings, train

SETTINGS = TrainSettings(batch_size=4, max_epochs=2, learning_rate=3e-3, precision="float64", ema_decay=None)
HOT = clusters(20, seed=5, amplitude=0.25)
NEW, HELD = HOT[:8], HOT[8:12]
SILVER = FrameSet.from_atoms([Atoms("Ag2", [[0, 0, 0], [2.5, 0, 0]])])
OLD = clusters(6, seed=3, amplitude=0.05)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory):
    frames = clusters(24, seed=0, amplitude=0.08)
    potential = make_potential(frames).double()
    train(potential, frames[:20], frames[20:], replace(SETTINGS, max_epochs=4), folder=tmp_path_factory.mktemp("t"))
    return potential


def stop_after(steps: int) -> Control:
    asked = count()
    return lambda: "run" if next(asked) < steps else "stop"


@pytest.mark.parametrize(
    ("sets", "match"),
    [
        ({"frames": HOT[:0]}, "training frames: no frame"),
        ({"validation": HOT[:0]}, "validation frames: no frame"),
        ({"retention": HOT[:0]}, "retention frames: no frame"),
        ({"retention": SILVER}, "retention frames: element unknown to this potential: Ag"),
        ({"test": SILVER}, "test frames: element unknown"),
        ({"replay": SILVER, "recipe": FinetuneRecipe(mix="loss10")}, "replay frames: element unknown"),
        ({"retention": HOT[6:10]}, "held-out frames are among the training frames"),
        ({"retention": OLD[:2], "replay": OLD, "recipe": FinetuneRecipe(mix="loss10")}, "among the replay frames"),
        ({"settings": replace(SETTINGS, energy_weight=0, forces_weight=0)}, "every weight is 0"),
        ({"settings": replace(SETTINGS, energy_unit="total")}, "energy_unit: has no effect with loss='universal'"),
        ({"settings": replace(SETTINGS, monitor="retention_forces_mae"), "retention": OLD}, "no validation figure"),
        ({"potential": CalculatorPotential(EMT(), [29, 79])}, "nothing to train"),
    ],
)
def test_what_is_amiss_is_named_before_any_step(taught, tmp_path: Path, sets, match):
    given = {"potential": taught, "frames": NEW, "validation": HELD, "settings": SETTINGS, "folder": tmp_path, **sets}
    with pytest.raises((DataError, ModelError, SpecError), match=match):
        finetune(**given)
    assert not (tmp_path / "checkpoints").exists()


def test_training_without_frames_or_weights_is_refused(taught, tmp_path: Path):
    with pytest.raises(DataError, match="training frames: no frame"):
        train(copy.deepcopy(taught), HOT[:0], HELD, SETTINGS, folder=tmp_path)
    with pytest.raises(SpecError, match="every weight is 0"):
        train(copy.deepcopy(taught), NEW, HELD, replace(SETTINGS, energy_weight=0, forces_weight=0), folder=tmp_path)


def test_recipes_refuse_options_that_cannot_act():
    for options in ({"weight": 3.0}, {"replay_batch": 8}, {"steps_per_epoch": 9}, {"lora_rank": 8}):
        with pytest.raises(SpecError, match="has no effect with"):
            FinetuneRecipe(**options)  # type: ignore[arg-type]


# ---- ends


def test_an_end_inside_the_first_epoch_may_be_the_best(taught, tmp_path: Path):
    found = finetune(taught, HOT[:12], HELD, replace(SETTINGS, max_steps=2, learning_rate=1e-3), folder=tmp_path)
    assert 0 < found.result.best_step <= 2 < 3, "three steps would be the whole epoch"
    assert (found.chosen, found.best_epoch, found.worse_than_start) == ("fine-tuned", 1, False)
    assert found.sentence.startswith("Best step 2 of 2 on validation")


def test_a_stop_says_so_and_gives_the_best_there_is(taught, tmp_path: Path):
    """After the best epoch the training gets worse; what is said belongs to the potential that is returned."""
    settings = replace(SETTINGS, max_epochs=9, learning_rate=0.02)
    found = finetune(taught, NEW, HELD, settings, folder=tmp_path, control=stop_after(15))
    assert found.result.state == "stopped"
    assert found.sentence.startswith("Stopped; best epoch")
    figures = found.metrics["best"]["validation"]
    error = np.abs(np.asarray(predict(found.potential, HELD).forces) - np.asarray(HELD.forces)).mean()
    assert figures["forces_mae"] == pytest.approx(error, rel=1e-6)
    np.testing.assert_array_equal(predict(load(found.best), HELD).energy, predict(found.potential, HELD).energy)


def test_a_stop_before_the_first_step_is_no_verdict(taught, tmp_path: Path):
    found = finetune(taught, NEW, HELD, SETTINGS, folder=tmp_path, control=stop_after(0))
    assert found.sentence == "Stopped before the first step: nothing was trained."
    assert not found.worse_than_start
    assert found.best.is_file()


def test_figures_beside_an_untouched_potential_are_its_own(taught, tmp_path: Path):
    labelled = predict(taught, clusters(12, seed=40))
    found = finetune(taught, labelled[:8], labelled[8:], replace(SETTINGS, learning_rate=0.3), folder=tmp_path)
    assert found.chosen == "untouched"
    assert set(found.metrics["best"]) == {"validation"}


@pytest.mark.parametrize(
    ("n", "recipe", "expected"),
    [
        (10, FinetuneRecipe(), 20),  # 4 + 4 + 2 in each of two epochs
        (3, FinetuneRecipe(), 6),
        (3, FinetuneRecipe(mix="loss10", steps_per_epoch=3, replay_batch=5), 2 * 3 * (4 + 5)),
        (6, FinetuneRecipe(mix="tool_shuffle"), 2 * 12),
    ],
)
def test_frame_gradients_are_counted(taught, tmp_path: Path, n: int, recipe: FinetuneRecipe, expected: int):
    replay = None if recipe.mix == "none" else OLD
    found = finetune(taught, HOT[:n], HOT[12:16], SETTINGS, recipe, folder=tmp_path, replay=replay)
    assert found.frame_gradients == expected


# ---- going on


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ({"max_epochs": 0}, {}, "zero epochs: not what"),
        ({}, {"retention": OLD[:2]}, "retention frames: not what .* expected none"),
        ({"retention": OLD[:2]}, {}, "retention frames: not what .* found none"),
        ({"test": HOT[12:14]}, {}, "test frames: not what"),
        ({"isolated": {29: 3.1, 79: 3.2}}, {"isolated": {29: 3.0, 79: 3.2}}, "isolated atoms: not what"),
    ],
)
def test_going_on_with_something_else_is_refused(taught, tmp_path: Path, before, after, match):
    alone = predict(taught, FrameSet.from_atoms([Atoms("Cu"), Atoms("Au")]), forces=False).energy

    def start(max_epochs: int = 2, isolated=None, **more):
        recipe = FinetuneRecipe(shifts="fit" if isolated is None else "isolated")
        if isolated is not None:
            isolated = {z: float(e) + isolated[z] - 3 for z, e in zip((29, 79), alone, strict=True)}
        settings = replace(SETTINGS, max_epochs=max_epochs)
        return finetune(taught, NEW, HELD, settings, recipe, folder=tmp_path, isolated=isolated,
                        control=stop_after(2), **more)  # fmt: skip

    start(**before)
    with pytest.raises(RunError, match=match):
        start(**after)


def test_folders_of_before_these_facts_were_kept_go_on(taught, tmp_path: Path):
    finetune(taught, NEW, HELD, SETTINGS, folder=tmp_path, control=stop_after(2))
    record = json.loads((tmp_path / "finetune.json").read_text())
    for name in ("test frames", "retention frames", "isolated atoms", "zero epochs"):
        del record["identity"][name]
    (tmp_path / "finetune.json").write_text(json.dumps(record))
    assert finetune(taught, NEW, HELD, SETTINGS, folder=tmp_path).result.state == "completed"
    (tmp_path / "finetune.json").write_text('{"identi')
    with pytest.raises(RunError, match="not readable"):
        finetune(taught, NEW, HELD, SETTINGS, folder=tmp_path)


def test_more_epochs_make_a_new_bond_scan(taught, tmp_path: Path):
    finetune(taught, NEW, HELD, replace(SETTINGS, max_epochs=1), folder=tmp_path)
    before = (tmp_path / "bond_scan.json").read_text()
    found = finetune(taught, NEW, HELD, replace(SETTINGS, max_epochs=6), folder=tmp_path)
    assert found.best_epoch > 1
    assert (tmp_path / "bond_scan.json").read_text() != before


def test_a_crash_after_a_stop_leaves_the_best_not_what_was_chosen_then(taught, tmp_path: Path):
    finetune(taught, NEW, HELD, replace(SETTINGS, max_epochs=5), folder=tmp_path, control=stop_after(2))

    class Crash(Exception): ...

    def crash_after(steps: int) -> Control:
        asked = count()

        def control() -> Request:
            if next(asked) == steps:
                raise Crash
            return "run"

        return control

    with pytest.raises(Crash):
        finetune(taught, NEW, HELD, replace(SETTINGS, max_epochs=5), folder=tmp_path, control=crash_after(5))
    assert not (tmp_path / "checkpoints" / "chosen.safetensors").exists()
    assert load(tmp_path).state_dict().keys() == taught.state_dict().keys()


# ---- weights


def test_what_was_frozen_is_free_again_in_the_result(taught, tmp_path: Path):
    found = finetune(taught, NEW, HELD, SETTINGS, FinetuneRecipe(train="last_layer"), folder=tmp_path)
    assert trainable_blocks(found.potential) == trainable_blocks(taught)


def test_patterns_are_those_of_the_potential_that_was_given(taught, tmp_path: Path):
    """It becomes a part of a sum with its shifts; its blocks keep the names that `blocks` tells before."""
    committee = Committee([taught, copy.deepcopy(taught)])
    recipe = FinetuneRecipe(frozen=("potentials.0.*",))
    found = finetune(committee, NEW, HELD, SETTINGS, recipe, folder=tmp_path)
    assert found.chosen == "fine-tuned"
    first, second = found.potential.parts[0].members  # type: ignore[attr-defined]
    for name, before in taught.named_parameters():
        assert torch.equal(first.get_parameter(name), before)
    free = dict(second.named_parameters())
    assert any(not torch.equal(free[name], before) for name, before in taught.named_parameters())


# ---- labels of the old potential, walls


def test_general_frames_without_a_finite_label_are_refused(taught):
    class Blind(type(taught)):
        def evaluate(self, graph, positions, cell):
            energies, features = super().evaluate(graph, positions, cell)
            return torch.where(graph.system[:, None].squeeze(-1) == 1, torch.nan, energies), features

    blind = copy.deepcopy(taught)
    blind.__class__ = Blind
    with pytest.raises(DataError, match="no finite energy and forces"):
        own_labels(blind, OLD[:3], {})


def test_walls_of_hydrogen_are_looked_at():
    """The wall of O-H stands below 0.6 Å."""
    wall = ZBLRepulsion([1, 8]).double()

    class Hole(ZBLRepulsion):
        def evaluate(self, graph, positions, cell):
            energies, features = super().evaluate(graph, positions, cell)
            d = (positions[::2] - positions[1::2]).norm(dim=1).repeat_interleave(2)
            return torch.where(d < 0.55, energies - 1e4 * (0.55 - d), energies), features

    hole = Hole([1, 8]).double()
    for pair in ((1, 8), (1, 1)):
        assert "not repulsive" in bond_scans(wall, hole, [pair])[0].warning
        assert not bond_scans(wall, wall, [pair])[0].warning
