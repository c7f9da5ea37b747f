"""Errors of forces along a roll-out, and the loss that dynamic training makes small.

ℓ_F(s) = mean over structures of Σ over species t of mean over atoms i of t and x, y, z of |F_s,i - F_ref[s],i|
MEPA   = mean over steps s of ℓ_F(s)        (mean error per atom type and step; a sum over species, eV/Å)

L = ℓ_E + ℓ_F(0)                 for one structure, ℓ_E = mean |E - E_ref| / n
L = Σ_s α_s ℓ_F(s), α_0 = 50, else 1    for several
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mlipkit.data.graph import Graph
from mlipkit.errors import SpecError, nearest
from mlipkit.ops import segment_sum
from mlipkit.strategies.dynamic.rollout import RolloutSettings, roll_out
from mlipkit.training.objective import Figures, StepState

if TYPE_CHECKING:
    from mlipkit.data.graph import Targets
    from mlipkit.models import Prediction

Kind = Literal["mepa", "mae", "mse"]
KINDS: tuple[Kind, ...] = ("mepa", "mae", "mse")
_SPECIES = 128


@dataclass(frozen=True)
class Sequences:
    """What a batch of sub-sequences holds beside its start frames (`Batch.extra`).

    Attributes:
        graphs: edges and cell of each step; the positions are those of the reference.
        forces: reference [S,N,3], eV/Å; NaN = missing.
        displacement: velocity times time step at the start [N,3], Å.
        masses, timestep: of each atom [N], u and fs.
        frozen: bool [N], or None.
    """

    graphs: Sequence[Graph]
    forces: Tensor
    displacement: Tensor
    masses: Tensor
    timestep: Tensor
    frozen: Tensor | None = None

    def to(self, device: torch.device) -> Sequences:
        """A copy on a device."""
        return Sequences(
            [graph.to(device) for graph in self.graphs], self.forces.to(device), self.displacement.to(device),
            self.masses.to(device), self.timestep.to(device), None if self.frozen is None else self.frozen.to(device),
        )  # fmt: skip


def species_error(residual: Tensor, graph: Graph, known: Tensor | None = None) -> Tensor:
    """ℓ_F of each structure [S], eV/Å, of residuals [N,3]; species of which no atom is known do not count.

    Args:
        known: bool [N], atoms with a reference; None: all. A prediction that is no number is an error, not a gap.
    """
    size, count = _sizes(residual.abs(), known)
    key = graph.system * _SPECIES + graph.numbers
    groups, member = torch.unique(key, return_inverse=True)
    total = segment_sum(size, member, len(groups)) / segment_sum(count, member, len(groups)).clamp(min=1)
    return segment_sum(total, groups // _SPECIES, graph.n_systems)


def step_error(residual: Tensor, graph: Graph, kind: Kind, known: Tensor | None = None) -> Tensor:
    """Error of one step, each structure's share [S]: by species ("mepa"), or over all components ("mae", "mse")."""
    if kind == "mepa":
        return species_error(residual, graph, known)
    size, count = _sizes(residual.abs() if kind == "mae" else residual * residual, known)
    total = segment_sum(size, graph.system, graph.n_systems)
    return total / segment_sum(count, graph.system, graph.n_systems).clamp(min=1)


def _sizes(values: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean over components of each atom [N], 0 where it is not known; 1 for those that count [N]."""
    if known is None:
        return values.mean(1), torch.ones_like(values[:, 0])
    return torch.where(known.unsqueeze(1), values, 0.0).mean(1), known.to(values.dtype)


def check_weights(of: object, *names: str) -> None:
    """Refuse weights that are negative or no numbers: SpecError."""
    for name in names:
        value = getattr(of, name)
        if not 0 <= value < math.inf:
            raise SpecError("out of range", where=name, expected="0 or more, and finite", found=value)


@dataclass(frozen=True)
class RolloutLoss:
    """Objective term of dynamic training; on single frames (no sequence beside the batch) the loss of S = 1.

    Attributes:
        kind: error of a step: "mepa", "mae" or "mse".
        first_weight: α_0 of roll-outs with more than one structure.
        energy_weight: weight of ℓ_E for S = 1.
        energy_weight_rolled: weight of ℓ_E of the start frames for S > 1.
        settings: how gradients run.

    Figures: `loss_forces` (eV/Å, without α), `energy_mae` (eV/atom), `apart` (mean distance from the reference in the
    last step, Å, of the positions that the potential made).
    """

    kind: Kind = "mepa"
    first_weight: float = 50.0
    energy_weight: float = 1.0
    energy_weight_rolled: float = 0.0
    settings: RolloutSettings = field(default_factory=RolloutSettings)

    name = "roll-out"
    needs = frozenset[str]()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecError(f"unknown loss '{self.kind}'", where="roll-out", hint=nearest(str(self.kind), KINDS))
        check_weights(self, "first_weight", "energy_weight", "energy_weight_rolled")

    @property
    def labels(self) -> Mapping[str, float]:
        return {"forces": 1.0} | ({"energy": self.energy_weight} if self.energy_weight else {})

    @property
    def figures(self) -> Mapping[str, str]:
        return {"loss_forces": "eV/Å", "energy_mae": "eV/atom", "apart": "Å"}

    def __call__(
        self, state: StepState, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Figures]:
        """Loss (scalar, this process's share) and figures (shares likewise)."""
        batch: Sequences | None = state.extra
        total = state.total(graph.n_atoms.new_tensor(graph.n_systems)).double()
        steps, reference = self._steps(state, graph, targets, batch)
        errors, energy, last = [], None, None
        for step, wanted in zip(steps, reference, strict=True):
            known = torch.isfinite(wanted).all(1)
            # Masked before the difference: NaN times zero would still poison the gradient.
            residual = step.forces - torch.where(known.unsqueeze(1), wanted, 0.0)
            errors.append(step_error(residual, graph, self.kind, known).sum() / total)
            energy = step.energy if energy is None else energy
            last = step.positions
        assert energy is not None
        assert last is not None
        several = len(errors) > 1
        loss = sum((self.first_weight if several and s == 0 else 1.0) * error for s, error in enumerate(errors))
        per_atom = (energy - targets.energy) / graph.n_atoms
        known = torch.isfinite(targets.energy)
        missed = torch.where(known, per_atom, 0.0).abs().sum() / state.total(known.sum()).clamp(min=1)
        weight = self.energy_weight_rolled if several else self.energy_weight
        if weight:
            loss = loss + weight * missed
        apart = torch.zeros((), dtype=torch.float64)
        if batch is not None and several:
            away = torch.linalg.vector_norm(last.detach() - batch.graphs[-1].positions, dim=1)
            apart = (segment_sum(away, graph.system, graph.n_systems) / graph.n_atoms).sum() / total
        assert isinstance(loss, Tensor)
        forces = torch.stack([error.detach().double() for error in errors]).mean()
        return loss, {"loss_forces": forces, "energy_mae": missed.detach(), "apart": apart}

    def _steps(self, state: StepState, graph: Graph, targets: Targets, batch: Sequences | None):
        if batch is None:
            nowhere = torch.zeros_like(graph.positions)
            ones = torch.ones_like(graph.positions[:, 0])
            return roll_out(state.potential, [graph], nowhere, ones, ones, self.settings), targets.forces.unsqueeze(0)
        steps = roll_out(
            state.potential, batch.graphs, batch.displacement, batch.masses, batch.timestep, self.settings,
            frozen=batch.frozen,
        )  # fmt: skip
        return steps, batch.forces
