"""What a training says of itself: what is in effect at its head, what it reached at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlipkit.events import EventSink, Saved
from mlipkit.training import checkpoint
from mlipkit.training.evaluate import evaluate

if TYPE_CHECKING:
    from mlipkit.data.frameset import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.training.batches import Order
    from mlipkit.training.parallel import Processes
    from mlipkit.training.settings import TrainSettings
    from mlipkit.training.state import TrainState

Ending = Literal["", "user", "max_epochs", "max_steps", "time_limit", "early_stopping", "converged"]


@dataclass(frozen=True)
class TrainResult:
    """How a training ended and what it reached.

    Attributes:
        state: "stopped" only by the user; any other end is "completed".
        ending: which limit ended it.
        epoch, step: whole epochs and steps made.
        best_epoch, best_step, best_objective: of the checkpoint `best`; -1, -1, inf when no epoch was measurable.
        metrics: figures of `best` on "train", "validation" and "test" (after a stop: of the last evaluation).
        seconds: training time, resumed parts included, pauses not.
        best, last: the two checkpoints; both open with `mlipkit.models.load`.
        stages: of each stage of the data source, the present one last: see `Position.stages`. The best weights of stage
            k before the last lie beside `best` as ``best_stage_k``.
    """

    state: Literal["completed", "stopped"]
    ending: Ending
    epoch: int
    step: int
    best_epoch: int
    best_step: int
    best_objective: float
    metrics: Mapping[str, Mapping[str, float]]
    seconds: float
    best: Path
    last: Path
    stages: Sequence[Mapping[str, Any]] = ()


def in_effect(
    settings: TrainSettings, potential: BasePotential, points: int, order: Order, processes: Processes
) -> dict[str, Any]:
    """Facts of `Started`: every setting, sizes that follow from them, trainable and frozen weights per block."""
    from mlipkit.models import trainable_blocks

    return {
        "training_points": points,
        "effective_batch": settings.batch_size * processes.number,
        "steps_per_epoch": order.steps_per_epoch,
        "processes": processes.number,
        "device": str(processes.device),
        "parameters": trainable_blocks(potential),
        "settings": settings.to_json(),
    }


def final_table(
    path: Path,
    potential: BasePotential,
    splits: Mapping[str, FrameSet | None],
    state: TrainState,
    processes: Processes,
    sink: EventSink,
) -> dict[str, dict[str, float]]:
    """Errors of the best weights on every split, by the same code; kept in `path` and taken from there when it stands.

    Of very large training sets `final_frames` frames, evenly spaced, are measured; ``energy_n`` tells.
    """
    present = {name: frames for name, frames in splits.items() if frames is not None and len(frames)}
    key = {"best": state.at.best, "step": state.at.step, "data": {name: part.hash for name, part in present.items()}}
    found = checkpoint.read_json(path)
    if {name: found.get(name) for name in key} == key:
        return found["metrics"]
    size, most = state.settings.evaluation_batch_size, state.settings.final_frames
    metrics = {}
    for name, frames in present.items():
        if name == "train" and len(frames) > most:
            frames = frames.select(range(0, len(frames), -(-len(frames) // most)))
        metrics[name] = evaluate(potential, frames, size, processes=processes)
    if processes.first:
        checkpoint.write_json(path, {**key, "metrics": metrics})
        sink(Saved(str(path), "errors of the best weights on every split"))
    return metrics
