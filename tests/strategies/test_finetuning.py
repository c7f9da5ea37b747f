"""Fine-tuning: the reference step, the choice of weights, replay, and what is said of the result."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from emt_sets import clusters, crystals, make_potential

from mlipkit.data import FrameSet
from mlipkit.data.graph import collate
from mlipkit.data.neighbours import NeighbourCache
from mlipkit.errors import DataError, LabelError, ModelError, RunError, SpecError
from mlipkit.events import Message
from mlipkit.models import AtomicShifts, SumPotential, ZBLRepulsion, blocks, load, predict, save, with_shifts
from mlipkit.strategies.finetuning import (
    FinetuneRecipe,
    Replay,
    UniversalLoss,
    bond_scans,
    bonded_pairs,
    choose_weights,
    copies,
    energy_shifts,
    finetune,
    general_frames,
    moved,
    own_labels,
    pool,
)
from mlipkit.strategies.finetuning.replay import shared
from mlipkit.training import EnergyForcesStress, FrameSource, StepState, TrainSettings, train

SETTINGS = TrainSettings(batch_size=4, max_epochs=3, learning_rate=3e-3, precision="float64", patience=None)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory):
    """A potential that knows cold clusters of five, in float64."""
    frames = clusters(24, seed=0, amplitude=0.08)
    potential = make_potential(frames, features=8).double()
    train(potential, frames[:20], frames[20:], replace(SETTINGS, max_epochs=20, learning_rate=1e-2),
          folder=tmp_path_factory.mktemp("taught"))  # fmt: skip
    return potential


@pytest.fixture(scope="module")
def hot() -> FrameSet:
    return clusters(20, seed=5, amplitude=0.25)


def batch_of(frames: FrameSet, cutoff: float, rows=None):
    rows = np.arange(len(frames)) if rows is None else np.asarray(rows)
    return collate(frames, rows, NeighbourCache(frames, cutoff), torch.float64)


def state_of(potential) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in potential.state_dict().items()}


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) or (first[name].isnan() & second[name].isnan()).any()
               for name in first)  # fmt: skip


# ---- the reference step


def test_shifts_recover_known_offsets_from_two_compositions(taught):
    frames = clusters(12, seed=3, sizes=(5, 4))
    true = {29: 1.25, 79: -0.75}
    labelled = moved(predict(taught, frames), true)
    found = energy_shifts(taught, labelled)
    assert found.values == pytest.approx(true, abs=1e-6)
    assert (found.rank, found.warning) == (2, "")
    assert found.spread == pytest.approx(0, abs=1e-5)


def test_one_composition_moves_whole_frames_and_says_so(taught):
    frames = clusters(6, seed=3)
    labelled = moved(predict(taught, frames), {29: 1.0, 79: 0.5})
    found = energy_shifts(taught, labelled)
    assert found.rank == 1
    assert "1 independent composition for 2 elements" in found.warning
    assert 3 * found.values[29] + 2 * found.values[79] == pytest.approx(4.0, abs=1e-6)
    shifted = predict(with_shifts(taught, found.values), frames)
    np.testing.assert_allclose(shifted.energy, labelled.energy, atol=1e-6)
    np.testing.assert_allclose(shifted.forces, labelled.forces, atol=1e-12)


def test_shifts_are_fitted_on_residuals_not_on_energies(taught, hot):
    """Least squares of the energies themselves would take part of what the potential knows."""
    mixed = clusters(20, seed=5, amplitude=0.25, sizes=(5, 4))
    found = energy_shifts(taught, mixed)
    left = np.asarray(mixed.energy) - np.asarray(predict(with_shifts(taught, found.values), mixed).energy)
    counts = np.array([[(mixed[i].numbers == z).sum() for z in (29, 79)] for i in range(len(mixed))])
    np.testing.assert_allclose(counts.T @ left, 0, atol=1e-4)


def test_labels_of_another_unit_are_refused(taught, hot):
    wild = hot.with_labels(energy=np.asarray(hot.energy) * np.linspace(1, 400, len(hot)))
    with pytest.raises(DataError, match="eV/atom left"):
        energy_shifts(taught, wild)
    with pytest.raises(LabelError, match="no frame has an energy"):
        energy_shifts(taught, hot.with_labels(energy=np.nan))


def test_isolated_atoms_give_the_difference_to_the_potential(taught):
    alone = predict(taught, FrameSet.from_atoms([Atoms("Cu"), Atoms("Au")]), forces=False).energy
    labelled = moved(predict(taught, clusters(4, seed=1)), {29: 0.3, 79: 0.1})
    found = energy_shifts(taught, labelled, {29: alone[0] + 0.3, 79: alone[1] + 0.1})
    assert found.values == pytest.approx({29: 0.3, 79: 0.1})
    with pytest.raises(DataError, match="no isolated atom of Au"):
        energy_shifts(taught, labelled, {29: 1.0})


def test_shifted_sums_are_saved_and_loaded(taught, tmp_path: Path):
    """What is not an own potential becomes a sum with a constant per element; shifting twice adds up."""
    wall = SumPotential([taught, ZBLRepulsion([29, 79]).double()])
    frames = clusters(3, seed=8)
    once = with_shifts(wall, {29: 1.0})
    twice = with_shifts(once, {29: 0.5, 79: -1.0})
    assert sum(isinstance(part, AtomicShifts) for part in twice.parts) == 1
    expected = np.asarray(predict(wall, frames).energy) + 3 * 1.5 - 2
    np.testing.assert_allclose(predict(twice, frames).energy, expected, rtol=0, atol=1e-9)
    again = load(save(twice, tmp_path / "moved.safetensors"))
    np.testing.assert_array_equal(predict(again, frames).energy, predict(twice, frames).energy)
    np.testing.assert_allclose(predict(twice.float(), frames).energy, expected, atol=1e-3)
    with pytest.raises(ModelError, match="unknown to this potential: H"):
        with_shifts(taught, {1: 1.0})


# ---- heads that differ in their atomic energies are labels that are moved


def test_a_second_head_is_moved_labels(taught, hot):
    shifts = {29: 0.7, 79: -0.2}
    loss, values = EnergyForcesStress({"energy": 1.0, "forces": 10.0}), []
    for frames, potential in ((hot, taught), (moved(hot, shifts), with_shifts(taught, shifts))):
        graph, targets = batch_of(frames, potential.cutoff)
        prediction = potential(graph, create_graph=True)
        value, _ = loss(StepState(potential), graph, targets, prediction)
        values.append(float(value.detach()))
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    equal = with_shifts(taught, {29: 0.0, 79: 0.0})
    np.testing.assert_array_equal(predict(equal, hot).energy, predict(taught, hot).energy)


# ---- loss


def test_universal_loss_by_hand():
    """One atom of 150 eV/Å, off by 0.02 and 0.001; δ = 0.01 becomes 0.007 there."""
    frame = Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]])
    frames = FrameSet.from_atoms([frame]).with_labels(energy=[1.0], forces=np.array([[150.0, 0, 0], [1.0, 0, 0]]))
    graph, targets = batch_of(frames, 3.0)
    from mlipkit.models import Prediction

    off = torch.tensor([[0.02, 0.0, 0.0], [0.001, 0.0, 0.0]], dtype=torch.float64)
    prediction = Prediction(torch.tensor([1.04], dtype=torch.float64), targets.forces + off, None, None, torch.zeros(2))
    value, _ = UniversalLoss({"energy": 1.0, "forces": 10.0})(StepState(None), graph, targets, prediction)  # type: ignore[arg-type]
    energy = 0.01 * (0.02 - 0.005)
    forces = (0.007 * (0.02 - 0.0035) + 0.5 * 0.001**2) / 6
    assert float(value) == pytest.approx(energy + 10 * forces, rel=1e-9)


def test_a_weight_in_the_file_leaves_the_universal_loss_unchanged(taught, tmp_path: Path):
    from ase.io import write

    from mlipkit.data import read

    values = []
    for weight in (1.0, 10.0):
        images = list(clusters(4, seed=2))
        for atoms in images:
            atoms.info["config_weight"] = weight
        write(tmp_path / "w.extxyz", images)
        frames = read(tmp_path / "w.extxyz")
        graph, targets = batch_of(frames, taught.cutoff)
        prediction = taught(graph, create_graph=True)
        value, _ = UniversalLoss({"energy": 1.0, "forces": 10.0})(StepState(taught), graph, targets, prediction)
        values.append(float(value.detach()))
    assert values[0] == values[1] > 0


# ---- replay


def test_copies_of_new_frames():
    assert copies(40, 30_000) == 76
    assert copies(40, 400) == 1  # a tenth: no copies
    assert copies(40, 399) == 1
    assert copies(40, 401) == 2
    new, old = clusters(4, seed=0), clusters(100, seed=1)
    assert len(pool(new, old, "tool_shuffle")) == 104
    assert len(pool(new, old, "tool_dup10")) == 4 * 3 + 100


def test_loss10_shares_the_gradient_ten_to_one(taught, hot):
    """On two equal batches the new one's gradient is ten times the old one's."""
    source = FrameSource(hot, taught.cutoff, torch.float64)
    new, old = shared(UniversalLoss({"energy": 1.0, "forces": 10.0}), 10)
    state = StepState(taught, seed=3)
    drawn = torch.randint(len(source), (4,), generator=state.generator("replay")).numpy()
    batch = source.batch(drawn)
    weights = [p for p in taught.parameters() if p.requires_grad]

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        slopes = torch.autograd.grad(loss, weights, allow_unused=True)
        return torch.cat([slope.flatten() for slope in slopes if slope is not None])

    first, _ = new(state, batch.graph, batch.targets, taught(batch.graph, create_graph=True))
    second, figures = Replay(source, old, 4)(state, batch.graph, batch.targets, None)
    ours, theirs = gradient(first), gradient(second)
    torch.testing.assert_close(ours, 10 * theirs, rtol=1e-9, atol=1e-14)
    assert ours.abs().sum() > 0
    assert {"replay_loss_energy", "replay_forces_mae"} <= set(figures)


def test_replay_keeps_what_plain_fine_tuning_forgets(taught, hot, tmp_path: Path):
    cold = clusters(16, seed=11, amplitude=0.05)
    kept = {}
    for mix in ("none", "loss10", "tool_dup10"):
        found = finetune(
            taught, hot[:8], hot[8:12], replace(SETTINGS, max_epochs=6, learning_rate=1e-2),
            FinetuneRecipe(mix=mix, **({"weight": 1.0, "steps_per_epoch": 2} if mix == "loss10" else {})),
            folder=tmp_path / mix,
            replay=None if mix == "none" else cold[:10], retention=cold[10:],
        )  # fmt: skip
        from mlipkit.data.series import Series

        kept[mix] = float(Series(tmp_path / mix / "series" / "validation").read()["retention_forces_mae"][-1])
        assert found.result.metrics
    assert kept["loss10"] < kept["none"]
    assert kept["tool_dup10"] < kept["none"]


def test_own_labels_are_the_old_potentials_on_the_new_zero(taught):
    frames = crystals(2, seed=0)
    labels = own_labels(taught, frames, {29: 0.5})
    predicted = predict(taught, frames, stress=True)
    np.testing.assert_allclose(labels.energy, np.asarray(predicted.energy) + 0.5 * frames.n_atoms)
    np.testing.assert_array_equal(labels.stress, predicted.stress)


@pytest.mark.parametrize(
    ("recipe", "more", "match"),
    [
        (FinetuneRecipe(mix="loss10"), {}, "needs replay frames"),
        (FinetuneRecipe(), {"replay": clusters(2, seed=0)}, "no effect without a mix"),
        (FinetuneRecipe(shifts="isolated"), {}, "are missing"),
        (FinetuneRecipe(), {"isolated": {29: 1.0}}, "no effect"),
        (FinetuneRecipe(frozen=("encodr*",)), {}, "fits no block"),
        (FinetuneRecipe(frozen=("*",)), {}, "every block is frozen"),
        (FinetuneRecipe(train="lora"), {}, "low-rank"),
    ],
)
def test_an_option_that_cannot_act_is_an_error(taught, hot, tmp_path: Path, recipe, more, match):
    with pytest.raises((SpecError, ModelError), match=match):
        finetune(taught, hot[:8], hot[8:12], SETTINGS, recipe, folder=tmp_path, **more)


def test_wrong_recipes_are_refused():
    with pytest.raises(DataError, match="no such choice"):
        FinetuneRecipe(mix="loss11")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="frozen"):
        FinetuneRecipe(train="last_layer", frozen=("encoder*",))


# ---- which weights move


@pytest.mark.parametrize("recipe", [FinetuneRecipe(train="last_layer"), FinetuneRecipe(frozen=("encoder*",))])
def test_frozen_blocks_stay_bit_for_bit(taught, hot, tmp_path: Path, recipe):
    before = state_of(taught)
    found = finetune(taught, hot[:8], hot[8:12], SETTINGS, recipe, folder=tmp_path)
    after = load(found.result.last).state_dict()
    moved_ones = {name for name, value in before.items() if not torch.equal(value, after[name]) and "known" not in name}
    assert any(name.startswith("head.") for name in moved_ones)
    assert not any(name.startswith("encoder.") for name in moved_ones)
    assert same(before, taught.state_dict())  # the caller's potential is left as it is


def test_blocks_of_own_potentials(taught):
    found = blocks(taught)
    assert {"encoder.embedding", "encoder.messages.0", "encoder.updates.0", "head"} <= set(found)
    assert sum(len(one) for one in found.values()) == len(list(taught.named_parameters()))


# ---- the whole


def test_zero_epochs_return_the_model_exactly(taught, hot, tmp_path: Path):
    found = finetune(taught, hot[:8], hot[8:12], replace(SETTINGS, max_epochs=0), folder=tmp_path)
    assert same(taught.state_dict(), found.potential.state_dict())
    np.testing.assert_array_equal(predict(found.potential, hot).energy, predict(taught, hot).energy)
    np.testing.assert_array_equal(predict(load(tmp_path), hot).forces, predict(taught, hot).forces)
    assert not found.worse_than_start
    assert found.sentence.startswith("Zero epochs")


def test_better_than_the_start_and_said_with_the_offset_beside_it(taught, hot, tmp_path: Path):
    heard: list[str] = []
    found = finetune(
        taught, hot[:12], hot[12:16], replace(SETTINGS, max_epochs=15, learning_rate=1e-2), folder=tmp_path,
        test=hot[16:], retention=clusters(3, seed=30, amplitude=0.05),
        sink=lambda event: heard.append(event.text) if isinstance(event, Message) else None,
    )  # fmt: skip
    assert (found.chosen, found.worse_than_start) == ("fine-tuned", False)
    before, after = found.metrics["untouched"]["validation"], found.metrics["best"]["validation"]
    assert after["forces_mae"] < before["forces_mae"]
    assert set(found.metrics["untouched"]) == {"validation", "test"}
    assert "the offset alone gives" in found.sentence
    assert [text.split(":")[0] for text in heard if text.startswith(("untouched", "offset"))] == ["untouched", "offset"]
    np.testing.assert_array_equal(predict(load(tmp_path), hot).energy, predict(found.potential, hot).energy)
    scans = json.loads((tmp_path / "bond_scan.json").read_text())
    assert {one["pair"] for one in scans} <= {"Cu-Cu", "Cu-Au", "Au-Au"}
    assert scans


def test_worse_than_the_start_is_said_and_the_start_is_returned(taught, tmp_path: Path):
    """Labels that the potential meets already, and steps much too long."""
    frames = predict(taught, clusters(12, seed=40))
    found = finetune(taught, frames[:8], frames[8:], replace(SETTINGS, learning_rate=0.3), folder=tmp_path)
    assert found.worse_than_start
    assert found.chosen == "untouched"
    assert found.best_epoch == 0
    assert "Worse than the start" in found.sentence
    np.testing.assert_array_equal(predict(load(tmp_path), frames).energy, predict(taught, frames).energy)


def test_a_resumed_fine_tuning_is_the_one_that_never_stopped(taught, hot, tmp_path: Path):
    options = {"replay": clusters(8, seed=3), "retention": clusters(2, seed=4)}
    recipe = FinetuneRecipe(mix="loss10", replay_batch=2, steps_per_epoch=2)
    whole = finetune(taught, hot[:8], hot[8:12], SETTINGS, recipe, folder=tmp_path / "whole", **options)
    steps = iter(["run"] * 3 + ["stop"] * 100)
    finetune(taught, hot[:8], hot[8:12], SETTINGS, recipe, folder=tmp_path / "cut", **options,
             control=lambda: next(steps))  # fmt: skip
    again = finetune(taught, hot[:8], hot[8:12], SETTINGS, recipe, folder=tmp_path / "cut", **options)
    assert same(load(whole.result.last).state_dict(), load(again.result.last).state_dict())
    assert again.sentence == whole.sentence
    with pytest.raises(RunError, match="replay frames: not what this fine-tuning began with"):
        finetune(taught, hot[:8], hot[8:12], SETTINGS, recipe, folder=tmp_path / "cut", replay=clusters(8, seed=99))


# ---- bond scans, general frames


def test_a_lost_wall_is_found(taught):
    class Hole(AtomicShifts):
        def evaluate(self, graph, positions, cell):
            energies, _ = super().evaluate(graph, positions, cell)
            d = (positions[::2] - positions[1::2]).norm(dim=1)
            return energies - torch.exp(-d).double().repeat_interleave(2) * 1e4, None

    wall = ZBLRepulsion([29, 79]).double()
    hole = SumPotential([ZBLRepulsion([29, 79]).double(), Hole({29: 0.0, 79: 0.0})])
    warned = bond_scans(wall, hole, [(29, 79)])
    assert "not repulsive" in warned[0].warning
    assert warned[0].pair == ("Cu", "Au")
    assert not bond_scans(wall, copy.deepcopy(wall), [(29, 29)])[0].warning
    assert bonded_pairs(clusters(2, seed=0))[0] == (29, 79)


def test_general_frames_stay_within_the_elements():
    frames = general_frames([1, 6, 8])
    assert set(frames.elements) <= {1, 6, 8}
    assert len(frames) > 5
    assert general_frames([1, 6, 8]).hash == frames.hash
    assert general_frames([1, 6, 8], seed=1).hash != frames.hash
    with pytest.raises(DataError, match="no general frame"):
        general_frames([2])


def test_weights_may_be_chosen_twice(taught):
    potential = copy.deepcopy(taught)
    choose_weights(potential, FinetuneRecipe(train="last_layer"))
    assert {name.split(".")[0] for name, p in potential.named_parameters() if p.requires_grad} == {"head"}
