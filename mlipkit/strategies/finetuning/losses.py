"""The loss of the published recipe: Huber with a bound that falls with the size of the force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from mlipkit.training import EnergyForcesStress

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph, Targets
    from mlipkit.models import Prediction
    from mlipkit.training.objective import Figures, StepState

BOUNDS: Final = (100.0, 200.0, 300.0)
"""eV/Å: sizes of the labelled force at which the bound changes."""
SHARES: Final = (1.0, 0.7, 0.4, 0.1)
"""Of delta, for forces below and between the bounds and above the last."""


@dataclass(frozen=True)
class UniversalLoss:
    """``L = w_E <h(ΔE/n)> + w_F <h_c(ΔF)> + w_S <h(Δσ)>``, h the Huber penalty with bound δ.

    For a force component the bound is δ times 1, 0.7, 0.4, 0.1 where the labelled force on the atom is below 100, 200,
    300 eV/Å, and above. Means run over labelled frames, components and the nine entries of the stress. Nothing of a
    frame but its labels enters: a weight that a file gives to it has no effect (in the published tool neither).
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"energy": 1.0, "forces": 10.0, "stress": 10.0})
    delta: float = 0.01

    name = "labels"

    def __post_init__(self) -> None:
        _ = self._plain  # which refuses what cannot be

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.weights)

    @property
    def labels(self) -> Mapping[str, float]:
        return self.weights

    @property
    def figures(self) -> dict[str, str]:
        return self._plain.figures

    @property
    def _plain(self) -> EnergyForcesStress:
        return EnergyForcesStress(self.weights, "huber", "per_atom", self.delta)

    def scaled(self, factor: float) -> UniversalLoss:
        """The same with all weights times a factor."""
        return replace(self, weights={name: weight * factor for name, weight in self.weights.items()})

    def __call__(
        self, state: StepState, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Figures]:
        if "forces" not in self.weights:
            return self._plain(state, graph, targets, prediction)
        size = torch.nan_to_num(targets.forces).norm(dim=1, keepdim=True)
        level = sum((size >= bound).long() for bound in BOUNDS)
        assert isinstance(level, Tensor)
        shares = torch.tensor(SHARES, dtype=targets.forces.dtype, device=size.device)[level]
        # h_{cδ}(r) = c² h_δ(r/c): scaled residuals go through the one penalty there is.
        return _Scaled(self.weights, "huber", "per_atom", self.delta, shares=shares)(state, graph, targets, prediction)


@dataclass(frozen=True)
class _Scaled(EnergyForcesStress):
    shares: Tensor | None = None

    def _penalised(self, name: str, values: Tensor) -> Tensor:
        if name != "forces" or self.shares is None:
            return super()._penalised(name, values)
        return self.shares**2 * super()._penalised(name, values / self.shares)
