"""Every universal potential learns: all weights, the energy head, low-rank additions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mlipkit.data import Series, samples
from mlipkit.errors import ModelError
from mlipkit.models import UNIVERSAL, blocks, load, predict, trainable_blocks
from mlipkit.strategies.finetuning import FinetuneRecipe, choose_weights, finetune, general_frames
from mlipkit.training import TrainSettings

TWENTY = TrainSettings(batch_size=2, max_steps=20, max_epochs=20, learning_rate=3e-4, ema_decay=None)
CASES = [("so3lr", "all"), ("so3lr", "last_layer"), ("so3lr", "lora"), ("chgnet", "all"), ("chgnet", "last_layer"),
         ("sevennet-0", "all"), ("sevennet-0", "last_layer")]  # fmt: skip


def universal(name: str):
    pytest.importorskip(UNIVERSAL[name].MODULE)
    return load(f"universal:{name}")


@pytest.mark.full
@pytest.mark.parametrize(("name", "weights"), CASES)
def test_twenty_steps_lower_the_loss(name: str, weights: str, tmp_path: Path):
    potential, frames = universal(name), samples.load("ethanol_300K")
    precision = str(potential.dtype).removeprefix("torch.")
    rate = 2e-3 if weights == "last_layer" else TWENTY.learning_rate
    settings = replace(TWENTY, precision=precision, learning_rate=rate)  # type: ignore[arg-type]
    found = finetune(potential, frames[:2], frames[:2], settings, FinetuneRecipe(train=weights), folder=tmp_path)
    objective = Series(tmp_path / "series" / "validation").read()["objective"]
    share = 0.95 if weights == "last_layer" else 0.8
    assert objective[-1] < share * objective[0], "the same frames are trained and validated: the loss must fall"
    assert found.chosen == "fine-tuned"
    again = load(tmp_path)
    np.testing.assert_array_equal(predict(again, frames[:2]).forces, predict(found.potential, frames[:2]).forces)


def test_low_rank_additions_change_nothing_before_training(tmp_path: Path):
    potential, frames = universal("so3lr"), samples.load("ethanol_300K")[:2]
    before = predict(potential, frames)
    generator = torch.random.get_rng_state()
    choose_weights(potential, FinetuneRecipe(train="lora", lora_rank=2))
    assert torch.equal(generator, torch.random.get_rng_state())
    np.testing.assert_array_equal(predict(potential, frames).forces, before.forces)
    free = {name for name, p in potential.named_parameters() if p.requires_grad}
    assert free
    assert all("lora_" in name for name in free)


def test_low_rank_additions_are_trained_further_not_doubled():
    potential, frames = universal("so3lr"), samples.load("ethanol_300K")[:1]
    choose_weights(potential, FinetuneRecipe(train="lora", lora_rank=2))
    with torch.no_grad():
        for name, parameter in potential.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    before = predict(potential, frames)
    choose_weights(potential, FinetuneRecipe(train="lora", lora_rank=2))
    np.testing.assert_array_equal(predict(potential, frames).forces, before.forces)
    with pytest.raises(ModelError, match=r"expected rank 2; found rank 3\. lora_rank=2 trains them further"):
        choose_weights(potential, FinetuneRecipe(train="lora", lora_rank=3))


def test_blocks_can_be_frozen_by_pattern():
    potential = universal("chgnet")
    assert {"atom_embedding", "atom_conv_layers.0", "bond_conv_layers.1", "mlp"} <= set(blocks(potential))
    choose_weights(potential, FinetuneRecipe(frozen=("*embedding*", "atom_conv_layers.0")))
    counts = trainable_blocks(potential)
    assert counts["atom_conv_layers.0"]["trainable"] == counts["atom_embedding"]["trainable"] == 0
    assert counts["atom_conv_layers.1"]["frozen"] == 0
    assert counts["composition_model"] == {"trainable": 0, "frozen": 94}, "fixed by its package"


def test_layers_of_sevennet_are_blocks():
    assert {f"layer_{number}" for number in range(5)} <= set(blocks(universal("sevennet-0")))


def test_zero_epochs_return_a_universal_potential_exactly(tmp_path: Path):
    potential, frames = universal("so3lr"), general_frames([1, 6, 8], most=3)
    labelled = predict(potential, frames)
    finetune(potential, labelled, labelled, replace(TWENTY, max_epochs=0, max_steps=None, precision="float64"),
             folder=tmp_path)  # fmt: skip
    np.testing.assert_array_equal(predict(load(tmp_path), frames).energy, labelled.energy)
