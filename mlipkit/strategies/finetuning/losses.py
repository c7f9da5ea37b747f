"""The loss of the published recipe: Huber with a bound that falls with the size of the force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from mlipkit.training import EnergyForcesStress

if TYPE_CHECKING:
    from mlipkit.data.graph import Targets
    from mlipkit.training.settings import Loss

BOUNDS: Final = (100.0, 200.0, 300.0)
"""eV/Å: sizes of the labelled force at which the bound changes."""
SHARES: Final = (1.0, 0.7, 0.4, 0.1)
"""Of delta, for forces below and between the bounds and above the last."""


@dataclass(frozen=True)
class UniversalLoss(EnergyForcesStress):
    """``L = w_E <h(ΔE/n)> + w_F <h_c(ΔF)> + w_S <h(Δσ)>``, h the Huber penalty with bound δ.

    For a force component the bound is δ times 1, 0.7, 0.4, 0.1 where the labelled force on the atom is below 100, 200,
    300 eV/Å, and above. Means run over labelled frames, components and the nine entries of the stress. Nothing of a
    frame but its labels enters: a weight that a file gives to it has no effect (in the published tool neither).
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"energy": 1.0, "forces": 10.0, "stress": 10.0})
    loss: Loss = "huber"
    huber_delta: float = 0.01

    def _penalised(self, name: str, values: Tensor, targets: Targets) -> Tensor:
        if name != "forces":
            return super()._penalised(name, values, targets)
        size = torch.nan_to_num(targets.forces).norm(dim=1, keepdim=True)
        level = torch.stack([size >= bound for bound in BOUNDS]).sum(0)
        shares = torch.tensor(SHARES, dtype=values.dtype, device=values.device)[level]
        # h_{cδ}(r) = c² h_δ(r/c): scaled residuals go through the one penalty there is.
        return shares**2 * super()._penalised(name, values / shares, targets)
