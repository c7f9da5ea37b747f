"""Everything that a training is at one moment: what is saved, what is compared on resuming, what a card says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import mlipkit
from mlipkit.errors import RunError
from mlipkit.training import checkpoint
from mlipkit.training.optimise import LearningRate, MovingAverage

if TYPE_CHECKING:
    from mlipkit.models import BasePotential
    from mlipkit.training.batches import Source
    from mlipkit.training.parallel import Processes
    from mlipkit.training.settings import TrainSettings

EITHER_WAY = ("time_limit_s", "checkpoint_s", "checkpoint_steps", "evaluation_batch_size", "max_epochs", "max_steps")
"""Settings that change no step, so that resuming with others is not worth a word."""


@dataclass
class Position:
    """Where the training is. JSON-ready.

    Attributes:
        epoch, in_epoch, step: whole epochs made, steps made of the present one, steps made in all.
        seconds: training time.
        waited: epochs since the objective was last improved, as patience counts them.
        evaluation_s: the part of it that evaluations took.
        stage: name of the data source's stage.
        stage_epoch: epochs made when it began.
        stages: of every stage that is over: name, and epoch, step, seconds and evaluation_s at its end, its best.
        best: epoch, step and objective of the checkpoint `best`; empty before there is one.
        evaluated_step: step of the last evaluation, -1 before the first.
        objective, figures: what that evaluation found (None: not finite).
        rows: rows in each series.
        sums: running sums of the epoch's figures.
    """

    epoch: int = 0
    in_epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    evaluation_s: float = 0.0
    waited: int = 0
    stage: str = ""
    stage_epoch: int = 0
    stages: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    evaluated_step: int = -1
    objective: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    sums: dict[str, list[float]] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """`objective`, inf when it was not finite."""
        return math.inf if self.objective is None else self.objective

    def stage_now(self) -> dict[str, Any]:
        """The present stage as `stages` keeps it."""
        names = ("epoch", "step", "seconds", "evaluation_s", "best")
        return {"name": self.stage, **{name: getattr(self, name) for name in names}}

    @property
    def best_objective(self) -> float:
        """inf before there is a best."""
        return self.best.get("objective", math.inf)


@dataclass
class TrainState:
    """The parts with a memory. `save` and `restore` are each other's inverse, bit for bit.

    Args:
        identity: what must be equal on resuming, by name: fingerprints of the data, names of the objective terms.
    """

    potential: BasePotential
    optimiser: torch.optim.Optimizer
    average: MovingAverage | None
    rate: LearningRate
    source: Source
    settings: TrainSettings
    identity: Mapping[str, Any]
    at: Position = field(default_factory=Position)

    def card(self) -> dict[str, Any]:
        """Model card of the present weights."""
        at = self.at
        return {
            "epoch": at.epoch,
            "step": at.step,
            "monitor": self.settings.monitor,
            "metric": at.objective if at.evaluated_step == at.step else None,
            "metrics": {"validation": at.figures} if at.evaluated_step == at.step else {},
            "best": at.best,
            "weights": "moving average" if self.average else "last",
            "seconds": at.seconds,
            "settings": self.settings.to_json(),
            "data": dict(self.identity),
            "training_frames": len(self.source),
            "mlipkit": mlipkit.__version__,
        }

    def save(self, path: Path, processes: Processes) -> None:
        """Write `last`. All processes must call it; the first one writes."""
        random = {
            f"{rank}/{name}": value
            for name, values in checkpoint.random_state().items()
            for rank, value in enumerate(processes.gather(values))
        }
        if not processes.first:
            return
        record = {
            "position": dataclasses.asdict(self.at),
            "rate": self.rate.state(),
            "source": self.source.state(),
            "settings": self.settings.to_json(),
            "identity": dict(self.identity),
        }
        checkpoint.save_last(path, self.potential, self.optimiser, self.average, record, random, self.card())

    def restore(self, path: Path, rank: int) -> Sequence[str]:
        """Take everything from `last`; returns the settings that differ now, in words.

        Raises:
            RunError: other data, other objective terms, another architecture; not a checkpoint.
        """
        record = checkpoint.read_header(path).get("record")
        if record is None:
            raise RunError("no training state in this checkpoint", where=str(path))
        for what, found in self.identity.items():
            before = record["identity"].get(what)
            if before != found:
                raise RunError(
                    f"{what}: not what this training began with",
                    where=str(path),
                    expected=before,
                    found=found,
                    hint="Train in a new folder",
                )
        random = checkpoint.restore(path, self.potential, self.optimiser, self.average)
        checkpoint.set_random_state(
            {name.partition("/")[2]: value for name, value in random.items() if name.startswith(f"{rank}/")}
        )
        self.at = Position(**record["position"])
        self.source.restore(record["source"])
        self.rate.restore(record["rate"])
        old, new = record["settings"], self.settings.to_json()
        return [
            f"{name} {old[name]} -> {value}"
            for name, value in new.items()
            if name in old and old[name] != value and name not in EITHER_WAY
        ]
