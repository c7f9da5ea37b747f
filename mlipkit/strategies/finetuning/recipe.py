"""How a potential is fine-tuned: plain values, the same in Python and in a specification."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from mlipkit.errors import SpecError, check_choice

Train = Literal["all", "last_layer", "lora"]
Shifts = Literal["fit", "isolated", "keep"]
Mix = Literal["none", "loss10", "tool_shuffle", "tool_dup10"]
Penalty = Literal["universal", "settings"]

ACTS = (
    ("frozen", "train", "all"), ("lora_rank", "train", "lora"), ("weight", "mix", "loss10"),
    ("replay_batch", "mix", "loss10"), ("steps_per_epoch", "mix", "loss10"),
)  # fmt: skip
"""An option, and the one choice with which it acts."""


@dataclass(frozen=True)
class FinetuneRecipe:
    """Which weights move, how the energy zero is found, what keeps the old knowledge.

    Attributes:
        train: all weights, the energy head alone ("last_layer"), or low-rank additions ("lora", where the package of
            the potential offers them).
        frozen: patterns of blocks that stay as they are (`mlipkit.models.blocks`), such as ``*embedding*``.
        lora_rank: rank of the additions.
        shifts: energy zero: one constant per element fitted on the residuals ("fit"), differences of isolated atoms
            ("isolated"), or the old one ("keep").
        mix: how frames with labels of the old potential are mixed in: not at all; each step one new and one old batch
            with weights `weight` : 1 ("loss10"); one shuffle of all ("tool_shuffle"); one shuffle with the new frames
            copied until they are a tenth of the old ones ("tool_dup10").
        weight: loss10: weight of the new batch beside that of the old one.
        replay_batch: loss10: old frames per step.
        steps_per_epoch: loss10: steps between two looks at the validation, however few the new frames are.
        loss: "universal" (Huber whose bound falls with the size of the force) or "settings" (as the training says).
    """

    train: Train = "all"
    frozen: tuple[str, ...] = ()
    lora_rank: int = 4
    shifts: Shifts = "fit"
    mix: Mix = "none"
    weight: float = 10.0
    replay_batch: int = 4
    steps_per_epoch: int = 200
    loss: Penalty = "universal"

    def __post_init__(self) -> None:
        for name, kind in (("train", Train), ("shifts", Shifts), ("mix", Mix), ("loss", Penalty)):
            check_choice(getattr(self, name), get_args(kind), name)
        for name, lowest in (("lora_rank", 1), ("replay_batch", 1), ("steps_per_epoch", 1)):
            if getattr(self, name) < lowest:
                raise SpecError("out of range", where=name, expected=f"at least {lowest}", found=getattr(self, name))
        if not 0 < self.weight < math.inf:
            raise SpecError("out of range", where="weight", expected="above 0 and finite", found=self.weight)
        if isinstance(self.frozen, str):
            raise SpecError("not a tuple of patterns", where="frozen", found=repr(self.frozen))
        for name, choice, acting in ACTS:
            value, chosen = getattr(self, name), getattr(self, choice)
            if chosen != acting and value != type(self).__dataclass_fields__[name].default:
                raise SpecError(f"has no effect with {choice}='{chosen}'", where=name, found=value)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)
