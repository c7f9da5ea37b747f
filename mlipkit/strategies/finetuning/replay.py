"""Keeping what a potential knew: its own labels of general frames (replay) are learned beside the new ones.

A second head that shares the body and differs in its atomic energies is the same as one head for which the replay
labels are moved by the difference (`mlipkit.strategies.finetuning.shifts.moved`); so any model can do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from torch import Tensor

from mlipkit.errors import DataError
from mlipkit.strategies.finetuning.shifts import moved
from mlipkit.training import EnergyForcesStress
from mlipkit.training.batches import FrameSource

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.data.graph import Graph, Targets
    from mlipkit.models import BasePotential, Prediction
    from mlipkit.strategies.finetuning.recipe import Mix
    from mlipkit.training.objective import Figures, StepState

SHARE: Final = 10
"""tool_dup10: new frames are copied until they are one in so many of the replay frames."""


def own_labels(
    potential: BasePotential, frames: FrameSet, shifts: Mapping[int, float], batch_size: int = 8
) -> FrameSet:
    """Frames with the untouched potential's own labels, energies on the zero of the new ones.

    Args:
        potential: before any fine-tuning.
        frames: general frames; their own labels, of whatever level of theory, are not looked at.
        shifts: atomic number -> eV, as `EnergyShifts.values`.
    """
    from mlipkit.models import predict

    if not len(frames):
        raise DataError("no frame", where="general frames")
    stress = bool(frames.pbc.all(1).any())
    bare = frames.without_labels()
    found = predict(potential, bare, batch_size, stress=stress)
    finite = found.has("energy") & found.has("forces")
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        raise DataError(
            "the potential gives no finite energy and forces", where=("general frames", frames.uid(bad)),
            found=f"{int((~finite).sum())} of {len(frames)} frames", hint="Atoms that overlap? Leave these frames out",
        )  # fmt: skip
    return moved(found, shifts)


def copies(n_new: int, n_replay: int) -> int:
    """tool_dup10: how often each new frame is in the pool: `1 + ⌊0.1 / ratio⌋` if `ratio = n_new / n_replay < 0.1`."""
    if n_new < 1:
        raise DataError("no new frame", where="tool_dup10")
    if n_replay < 0:
        raise DataError("out of range", where="n_replay", expected="at least 0 frames", found=n_replay)
    return 1 + n_replay // (SHARE * n_new) if SHARE * n_new < n_replay else 1


def pool(new: FrameSet, replay: FrameSet, mix: Mix) -> FrameSet:
    """The one set that `tool_shuffle` and `tool_dup10` draw from; new frames come first."""
    from mlipkit.data import FrameSet

    if mix == "tool_dup10":
        new = new.select(np.tile(np.arange(len(new)), copies(len(new), len(replay))))
    return FrameSet.concat([new, replay])


@dataclass(frozen=True)
class Replay:
    """Objective term: the loss of a batch of replay frames, drawn anew in every step.

    Which frames come is a pure function of seed, step and process, so that a resumed training draws the same.

    Args:
        source: replay frames with the old potential's labels on the new zero.
        loss: penalty with its weights; its figures are reported as ``replay_*``.
        batch_size: frames per step and process.
    """

    source: FrameSource
    loss: EnergyForcesStress
    batch_size: int

    name = "replay"
    needs: frozenset[str] = frozenset()

    @property
    def labels(self) -> Mapping[str, float]:
        # Of its own frames, which all have them; the training frames are not asked for any.
        return {}

    @property
    def figures(self) -> Mapping[str, str]:
        return {f"replay_{name}": unit for name, unit in self.loss.figures.items()}

    def __call__(
        self, state: StepState, graph: Graph, targets: Targets, prediction: Prediction | None
    ) -> tuple[Tensor, Figures]:
        import torch

        draw = torch.randint(len(self.source), (self.batch_size,), generator=state.generator("replay"))
        batch = self.source.batch(draw.numpy()).to(graph.positions.device)
        found = state.potential(
            batch.graph, forces="forces" in self.loss.needs, stress="stress" in self.loss.needs, create_graph=True
        )
        loss, figures = self.loss(state, batch.graph, batch.targets, found)
        return loss, {f"replay_{name}": value for name, value in figures.items()}


def shared(loss: EnergyForcesStress, weight: float) -> tuple[EnergyForcesStress, EnergyForcesStress]:
    """The loss of the new and of the replay batch in `(w ℓ_new + ℓ_replay) / (w + 1)`."""
    return scaled(loss, weight / (weight + 1)), scaled(loss, 1 / (weight + 1))


def scaled(loss: EnergyForcesStress, factor: float) -> EnergyForcesStress:
    """A loss with all weights times a factor."""
    from dataclasses import replace

    return replace(loss, weights={name: weight * factor for name, weight in loss.weights.items()})


@dataclass(frozen=True)
class Retention:
    """Validation figures: how far a potential has gone from what it said of general frames before.

    Args:
        frames: `own_labels` of held-out general frames.
        batch_size: frames at a time.
    """

    frames: FrameSet
    batch_size: int = 8

    @property
    def figures(self) -> Mapping[str, str]:
        return {"retention_energy_mae": "eV/atom", "retention_forces_mae": "eV/Å"}

    def __call__(self, potential: BasePotential) -> Mapping[str, float]:
        from mlipkit.training import evaluate

        found = evaluate(potential, self.frames, self.batch_size)
        return {name: found[name.removeprefix("retention_")] for name in self.figures}
