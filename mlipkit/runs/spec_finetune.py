"""Specification of fine-tuning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from mlipkit.runs.part import Part, refuse_idle, several
from mlipkit.runs.spec_train import FittingSpec, LossSpec, OptimiserSpec


class FinetuneLossSpec(LossSpec):
    """What fine-tuning makes small."""

    kind: Literal["universal", "l1", "l2", "huber"] = Field(  # type: ignore[assignment]
        default="universal",
        description="penalty of one residual; universal: Huber whose bound falls with the size of the force",
    )
    stress: float | None = Field(  # type: ignore[assignment]
        default=None, ge=0, description="weight of the stress term; empty: 10 if the frames have stress, else 0"
    )

    @model_validator(mode="after")
    def _every_option_acts(self):
        return refuse_idle(self, "kind", {"huber_delta": ("huber",), "energy_unit": ("l1", "l2", "huber")})


class FinetuneOptimiserSpec(OptimiserSpec):
    """AdamW with the rate and the patience of fine-tuning, also where only other options are named."""

    learning_rate: float = Field(default=1e-4, gt=0, description="largest learning rate")
    patience: int | None = Field(
        default=40, ge=1, description="training ends after so many epochs without improvement; empty: never"
    )


class RecipeSpec(Part):
    """Which weights move, how the energy zero is found, what keeps the old knowledge."""

    train: Literal["all", "last_layer", "lora"] = Field(
        default="all", description="weights that move: all, the energy head, or low-rank additions (so3lr)"
    )
    frozen: list[str] = Field(
        default=[], description="patterns of blocks that stay as they are, such as *embedding* (all only)"
    )
    lora_rank: int = Field(default=4, ge=1, description="lora: rank of the additions")
    shifts: Literal["fit", "isolated", "keep"] = Field(
        default="fit",
        description="energy zero: a constant per element fitted on residuals, isolated atoms, the old one",
    )
    mix: Literal["none", "loss10", "tool_shuffle", "tool_dup10"] = Field(
        default="none",
        description="replay of the old potential's own labels: none; each step one new and one old batch; one shuffle; "
        "one shuffle with copies of the new frames",
    )
    weight: float = Field(default=10.0, gt=0, description="loss10: weight of the new batch beside the old one")
    replay_batch: int = Field(default=4, ge=1, description="loss10: old frames per step")

    steps_per_epoch: int = Field(default=200, ge=1, description="loss10: steps between two looks at the validation")

    _several = field_validator("frozen", mode="before")(several)

    @model_validator(mode="after")
    def _every_option_acts(self):
        refuse_idle(self, "train", {"frozen": ("all",), "lora_rank": ("lora",)})
        return refuse_idle(self, "mix", dict.fromkeys(("weight", "replay_batch", "steps_per_epoch"), ("loss10",)))


GENERAL = "general"
"""Retention frames that are made here: small molecules and crystals."""


class FinetuneSpec(FittingSpec):
    """Fine-tune a universal or a trained potential on labelled frames."""

    kind: Literal["finetune"] = "finetune"
    potential: str = Field(
        default="universal:so3lr",
        description="what to start from: universal:so3lr, a .safetensors file, a training run",
    )
    recipe: RecipeSpec = RecipeSpec()
    replay: str | None = Field(
        default=None, description="general frames that are mixed in with the old potential's labels"
    )
    retention: str | None = Field(
        default=GENERAL,
        description="general frames held out, whose distance from the old labels stands in every epoch; 'general' are "
        "small molecules and crystals made here; empty: none",
    )
    isolated: str | None = Field(default=None, description="isolated atoms with energies, for shifts: isolated")
    loss: FinetuneLossSpec = FinetuneLossSpec()
    optimiser: FinetuneOptimiserSpec = FinetuneOptimiserSpec()
    batch_size: int = Field(default=4, ge=1, description="frames per step")
    max_epochs: int = Field(default=250, ge=0, description="passes over the training frames at most")

    PLACES: ClassVar = ("potential", "data", "validation", "test", "replay", "retention", "isolated")

    def places(self) -> Iterator[tuple[str, str]]:
        return ((field, text) for field, text in super().places() if (field, text) != ("retention", GENERAL))

    @property
    def default_name(self) -> str:
        return "finetune_" + re.sub(
            r"[^A-Za-z0-9._-]", "_", self.potential.rpartition("/")[2].partition(":")[2] or "run"
        )

    @model_validator(mode="after")
    def _parts_fit(self):
        if (self.recipe.mix == "none") != (self.replay is None):
            raise ValueError("recipe.mix and replay go together: one says how, the other which frames")
        if (self.recipe.shifts == "isolated") != (self.isolated is not None):
            raise ValueError("recipe.shifts: isolated and the field isolated go together")
        return self
