"""How dynamic training is done: plain values, the same in Python and in a specification."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from mlipkit.errors import SpecError, check_choice
from mlipkit.strategies.dynamic.losses import Kind, RolloutLoss, check_weights
from mlipkit.strategies.dynamic.rollout import RolloutSettings
from mlipkit.strategies.dynamic.runs import Velocities
from mlipkit.strategies.dynamic.source import APART, check_curriculum, check_equal_work, check_refresh

Heads = Literal["keep", "drop"]
Choose = Literal["best", "last"]
MANY = 8
"""Structures above which a roll-out keeps no intermediate results, unless it is said otherwise."""


@dataclass(frozen=True)
class DynamicRecipe:
    """Curriculum, roll-outs, loss, validation.

    Attributes:
        n_structures: S of each stage. All stages of 1 are the control of equal compute: single frames, with the same
            learning rates and as many force evaluations.
        rollout: how gradients and positions go from step to step.
        refresh: neighbour lists come from the reference every so many structures; None: from the start alone.
        loss: error of a step: "mepa", "mae" or "mse".
        first_weight, energy_weight, energy_weight_dyn: of `RolloutLoss`.
        velocities: as `aimd_runs`.
        evaluations_per_epoch: force evaluations of an epoch, the same in every stage to a hundredth, so that S must
            divide it that well; None: every start point once.
            With settings of converge "fixed" all arms of a comparison then do the same work.
        apart_limit: Å; roll-outs that end further from the reference on average are not made longer. None: no limit.
        validation_structures, validation_points: roll-outs of every validation.
        choose: the potential that is returned: of the stage that is best on validation, or of the last one.
        refit_energy: move the energy zero at the end by least squares on training frames.
        auxiliary_heads: self-supervised heads of the potential ride along, or are dropped.
        frozen: atoms that do not move, by index; all frames must have the same atoms.
    """

    n_structures: tuple[int, ...] = (1, 2, 4, 8)
    rollout: RolloutSettings = field(default_factory=lambda: RolloutSettings(recompute_above=MANY))
    refresh: int | None = 1
    loss: Kind = "mepa"
    first_weight: float = 50.0
    energy_weight: float = 1.0
    energy_weight_dyn: float = 0.0
    velocities: Velocities = "auto"
    evaluations_per_epoch: int | None = None
    apart_limit: float | None = APART
    validation_structures: int = 60
    validation_points: int = 64
    choose: Choose = "best"
    refit_energy: bool = True
    auxiliary_heads: Heads = "keep"
    frozen: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        kinds = (("loss", Kind), ("velocities", Velocities), ("choose", Choose), ("auxiliary_heads", Heads))
        for name, kind in kinds:
            check_choice(getattr(self, name), get_args(kind), name)
        check_curriculum(self.n_structures)
        for name in ("validation_structures", "validation_points", "evaluations_per_epoch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpecError("out of range", where=name, expected="at least 1", found=value)
        check_weights(self, "first_weight", "energy_weight", "energy_weight_dyn")
        if self.apart_limit is not None and not 0 < self.apart_limit < math.inf:
            raise SpecError(
                "out of range", where="apart_limit", expected="above 0 and finite, or None", found=self.apart_limit
            )
        check_refresh(self.refresh)
        check_equal_work(self.evaluations_per_epoch, self.n_structures)

    @property
    def term(self) -> RolloutLoss:
        """The objective term."""
        return RolloutLoss(self.loss, self.first_weight, self.energy_weight, self.energy_weight_dyn, self.rollout)

    @property
    def equal_compute_control(self) -> DynamicRecipe:
        """Single frames in as many stages: the same learning rates, the same number of force evaluations."""
        return replace(self, n_structures=(1,) * len(self.n_structures))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)
