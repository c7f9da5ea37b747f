"""What a dynamic training came to: its stages, the potential that is returned, the sentence for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.events import EventSink, Message
from mlipkit.strategies.dynamic.recipe import DynamicRecipe
from mlipkit.strategies.dynamic.source import SequenceSource, points_of
from mlipkit.strategies.dynamic.validation import MEPA, RolloutValidation
from mlipkit.training import evaluate
from mlipkit.training.batches import Order
from mlipkit.training.checkpoint import read_header, take_weights, write_json

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.training import TrainResult, TrainSettings

CHOSEN = "chosen.safetensors"
REFIT_FRAMES = 500
"""Training frames at most from which the energy zero is found."""


@dataclass(frozen=True)
class Stage:
    """One stage of the curriculum.

    Attributes:
        number, n_structures: from 1; S.
        first_epoch, epochs, steps: epochs made before it, and made in it.
        evaluations: force evaluations whose gradients were taken.
        training_s, validation_s: time, apart.
        best_epoch: by the validation; None: none could be measured.
        rollout_mepa, per_element, rollout_first, apart: of the best epoch: eV/Å over S_val structures, and Å.
        file: name of its best weights in the folder of checkpoints.
    """

    number: int
    n_structures: int
    first_epoch: int
    epochs: int
    steps: int
    evaluations: int
    training_s: float
    validation_s: float
    best_epoch: int | None
    rollout_mepa: float | None
    per_element: Mapping[str, float] = field(default_factory=dict)
    rollout_first: float | None = None
    apart: float | None = None
    file: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class DynamicResult:
    """What a dynamic training gave.

    Attributes:
        potential: with the chosen weights and its energy zero.
        best: its file; opens with `mlipkit.models.load`.
        chosen: number of the stage it is from.
        stages: all of them.
        metrics: single-frame errors of `potential` per split.
        energy_shift: eV per atom by which energies were moved at the end; 0 when not asked for.
        held_at: S at which roll-outs stopped to become longer because they went astray, or None.
        sentence: the result for people.
        result: what the training loop says.
    """

    potential: BasePotential
    best: Path
    chosen: int
    stages: tuple[Stage, ...]
    metrics: Mapping[str, Mapping[str, float]]
    energy_shift: float
    held_at: int | None
    sentence: str
    result: TrainResult

    def facts(self) -> dict[str, Any]:
        """What a report says, JSON-ready."""
        return {
            "sentence": self.sentence, "chosen": self.chosen, "stages": [one.to_json() for one in self.stages],
            "energy_shift": self.energy_shift, "held_at": self.held_at,
            "evaluations": sum(one.evaluations for one in self.stages),
            "training_s": round(sum(one.training_s for one in self.stages), 3),
            "validation_s": round(sum(one.validation_s for one in self.stages), 3),
        }  # fmt: skip


def concluded(
    body: BasePotential, result: TrainResult, recipe: DynamicRecipe, settings: TrainSettings, source: SequenceSource,
    watch: RolloutValidation, validation: FrameSet, test: FrameSet | None, folder: Path, sink: EventSink,
) -> DynamicResult:  # fmt: skip
    """Choose a stage, refit the energy zero, measure, and write the potential that is returned."""
    from mlipkit.models import save, with_shifts

    stages = stages_of(result, recipe, settings, source)
    measured = [one for one in stages if one.rollout_mepa is not None]
    chosen = stages[-1]
    if measured:
        chosen = min(measured, key=_score) if recipe.choose == "best" else measured[-1]
        take_weights(result.best.parent / chosen.file, body)
    body.eval()
    shift = energy_offset(body, source.frames, settings.evaluation_batch_size) if recipe.refit_energy else 0.0
    potential = with_shifts(body, dict.fromkeys(body.elements, shift)) if shift else body
    metrics: dict[str, Any] = {}
    if result.state == "completed":
        size, frames = settings.evaluation_batch_size, source.frames
        if len(frames) > settings.final_frames:
            frames = frames.select(range(0, len(frames), -(-len(frames) // settings.final_frames)))
        splits = {"train": frames, "validation": validation, "test": test}
        metrics = {name: evaluate(potential, part, size) for name, part in splits.items() if part is not None and part}
    sentence = _sentence(stages, chosen, source.held, watch.structures, result.state)
    card = {"chosen": chosen.number, "metrics": metrics, "epoch": chosen.best_epoch, "energy_shift": shift}
    file = save(potential, result.best.with_name(CHOSEN), card)
    if result.state == "completed":
        write_json(folder / "metrics.json", {"metrics": metrics, "chosen": chosen.number})
    sink(Message(sentence))
    return DynamicResult(
        potential, file, chosen.number, tuple(stages), metrics, shift, source.held, sentence, result,
    )  # fmt: skip


def stages_of(
    result: TrainResult, recipe: DynamicRecipe, settings: TrainSettings, source: SequenceSource
) -> list[Stage]:
    """The stages as the training loop counted them."""
    found: list[Stage] = []
    before: Mapping[str, Any] = {"epoch": 0, "step": 0, "seconds": 0.0, "evaluation_s": 0.0}
    for number, one in enumerate(result.stages, 1):
        last = number == len(result.stages)
        file = "best.safetensors" if last else f"best_stage_{number}.safetensors"
        length = recipe.n_structures[number - 1]
        if source.held is not None:
            length = min(length, source.held)
        figures: Mapping[str, float] = {}
        if one["best"] and (result.best.parent / file).is_file():
            figures = read_header(result.best.parent / file)["card"]["metrics"].get("validation", {})
        evaluating = one["evaluation_s"] - before["evaluation_s"]
        per_epoch = points_of(recipe.evaluations_per_epoch, length) or settings.points_per_epoch
        order = Order(len(source), 0, settings.batch_size, settings.num_processes, per_epoch)
        mepa = figures.get(MEPA)
        found.append(Stage(
            number, length, before["epoch"], one["epoch"] - before["epoch"], one["step"] - before["step"],
            length * _points(one["step"] - before["step"], order),
            round(one["seconds"] - before["seconds"] - evaluating, 3), round(evaluating, 3),
            one["best"].get("epoch"), mepa if mepa is not None and math.isfinite(mepa) else None,
            {name.partition("=")[2]: value for name, value in figures.items() if name.startswith(f"{MEPA}/")},
            figures.get("rollout_first"), figures.get("rollout_apart"), file,
        ))  # fmt: skip
        before = one
    return found


def energy_offset(potential: BasePotential, frames: FrameSet, batch_size: int) -> float:
    """c (eV per atom) that makes Σ (E + c n - E_ref)² smallest over at most `REFIT_FRAMES` frames; 0 without labels."""
    from mlipkit.models import predict

    chosen = frames.select(np.unique(np.linspace(0, len(frames) - 1, min(len(frames), REFIT_FRAMES)).astype(int)))
    energy = np.asarray(chosen.energy, float)
    known = np.isfinite(energy)
    if not known.any():
        return 0.0
    missed = energy - np.asarray(predict(potential, chosen, batch_size=batch_size, forces=False).energy, float)
    n = np.asarray(chosen.n_atoms, float)
    return float((n * missed)[known].sum() / (n * n)[known].sum())


def _points(steps: int, order: Order) -> int:
    """Points that so many steps saw; the last batch of an epoch may be short."""
    width = order.batch_size * order.processes
    epochs, rest = divmod(steps, order.steps_per_epoch)
    return epochs * min(order.per_epoch, order.steps_per_epoch * width) + min(rest * width, order.per_epoch)


def _score(stage: Stage) -> float:
    return math.inf if stage.rollout_mepa is None else stage.rollout_mepa


def _sentence(stages: list[Stage], chosen: Stage, held: int | None, structures: int, state: str) -> str:
    if chosen.rollout_mepa is None:
        return "No validation roll-out could be measured: the potential is that of the last step."
    first = stages[0]
    start = "Stopped; best" if state == "stopped" else "Best"
    text = (
        f"{start} with roll-outs of {chosen.n_structures} (stage {chosen.number} of {len(stages)}): error per atom "
        f"type and step {chosen.rollout_mepa:.4g} eV/Å over {structures} structures of validation runs"
    )
    if chosen.number > 1 and first.rollout_mepa is not None:
        text += f", {first.rollout_mepa:.4g} after the first stage"
    if held is not None:
        text += f"; roll-outs went astray and stayed at {held}"
    return f"{text}. Whether roll-outs gained anything shows beside the equal-compute control of single frames."
