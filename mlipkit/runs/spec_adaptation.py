"""Specification of adaptation in simulations; what is recorded of it stands in `mlipkit.runs.spec_taip`."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from mlipkit.runs.part import Part, refuse_idle


class AdaptationSpec(Part):
    """Adaptation while a simulation goes on: which steps adapt, and what is kept of it."""

    strategy: Literal["none", "nonsaving", "save_every", "save_every_k", "threshold"] = Field(
        default="none",
        description="none: trained weights; nonsaving: each step from the trained weights (recommended by the paper); "
        "save_every: each step from the last; save_every_k: every k-th step; threshold: where the loss is larger",
    )
    rate: float = Field(default=1e-5, ge=0, allow_inf_nan=False, description="adaptation step")
    optimiser: Literal["adam_fresh", "sgd", "adam_kept"] = Field(
        default="adam_fresh", description="a new Adam for every step, plain gradient, or one Adam all along"
    )
    hold: int = Field(
        default=1,
        ge=1,
        description="nonsaving: steps for which adapted weights are used; 1 adapts at each step as published, more is "
        "cheaper and another method",
    )
    every: int = Field(default=100, ge=1, description="save_every_k: steps between two adaptations")
    threshold: float | None = Field(
        default=None,
        description="threshold: self-supervised loss above which to adapt; empty: its 99th percentile over "
        "the potential's validation frames",
    )
    direction: Literal["gradient", "random"] = Field(
        default="gradient", description="random: the control, a step of equal length with random signs"
    )
    seed: int = Field(default=0, ge=0, description="random seed of noise and hidden atoms")

    @model_validator(mode="after")
    def _every_option_acts(self):
        acting = ("nonsaving", "save_every", "save_every_k", "threshold")
        fields = dict.fromkeys(("rate", "optimiser", "direction", "seed"), acting)
        refuse_idle(
            self,
            "strategy",
            {**fields, "hold": ("nonsaving",), "every": ("save_every_k",), "threshold": ("threshold",)},
        )
        if self.threshold is not None and math.isnan(self.threshold):
            raise ValueError("threshold: expected a number; found nan, above which no loss is")
        if self.strategy == "nonsaving" and self.optimiser == "adam_kept":
            raise ValueError("optimiser: moments that are kept go with weights that are kept, not with nonsaving")
        return self
