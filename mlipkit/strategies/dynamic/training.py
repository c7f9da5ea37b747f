"""Dynamic training: sub-sequences as data, roll-outs as objective, around the one training loop."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlipkit.errors import DataError, SpecError
from mlipkit.events import Control, EventSink, Message, always_run, ignore
from mlipkit.strategies.dynamic.outcome import CHOSEN, DynamicResult, concluded
from mlipkit.strategies.dynamic.recipe import DynamicRecipe
from mlipkit.strategies.dynamic.runs import AIMDRuns, aimd_runs
from mlipkit.strategies.dynamic.source import SequenceSource
from mlipkit.strategies.dynamic.validation import CURVES, MEPA, RolloutValidation, validation_starts
from mlipkit.training import train

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.training import TrainSettings
    from mlipkit.training.objective import ObjectiveTerm

MOST_FRAMES = 256
"""Validation frames whose single-frame errors are measured in every epoch; roll-outs decide."""


def dynamic_training(
    potential: BasePotential,
    frames: FrameSet,
    validation: FrameSet,
    settings: TrainSettings,
    recipe: DynamicRecipe | None = None,
    *,
    folder: str | Path,
    test: FrameSet | None = None,
    terms: Sequence[ObjectiveTerm] = (),
    sink: EventSink = ignore,
    control: Control = always_run,
) -> DynamicResult:
    """Train a potential on pieces of AIMD that it integrates itself, or go on where the folder stands.

    Args:
        potential: starting weights, of any kind; left as it is.
        frames, validation, test: frames of AIMD runs in order of time, each set with runs of its own (or blocks of
            them).
        settings: of the training; best epoch, schedule and convergence go by the roll-outs of the validation. With
            converge "fixed" and recipe.evaluations_per_epoch the work is known before: as many epochs as stages times
            stage_epochs.
        recipe: None: the defaults.
        folder: output, as of `mlipkit.training.train`, with ``rollouts.json`` and ``checkpoints/chosen.safetensors``.
        terms: further summands of the loss on the start frames, such as self-supervised ones of auxiliary heads.

    Raises:
        DataError: frames that do not follow each other, as `aimd_runs`; runs too short for the roll-outs.
        SpecError: options that contradict each other.
        LabelError, ModelError, RunError: as `mlipkit.training.train`.
    """
    recipe, folder = recipe or DynamicRecipe(), Path(folder)
    settings = _settled(settings, recipe)
    runs, held = (
        aimd_runs(part, recipe.velocities, name) for name, part in (("training", frames), ("validation", validation))
    )
    sink(Message(f"{len(runs)} training runs of {len(runs.frames)} frames, {runs.said}"))
    body = copy.deepcopy(potential)
    heads = getattr(body, "auxiliary", None)
    if recipe.auxiliary_heads == "drop" and heads is not None:
        heads.clear()
    frozen = _frozen(recipe, runs, held)
    dtype = torch.float64 if settings.precision == "float64" else torch.float32
    source = SequenceSource(
        runs, body.cutoff, dtype, recipe.n_structures, refresh=recipe.refresh, frozen=frozen,
        apart_limit=recipe.apart_limit, evaluations=recipe.evaluations_per_epoch,
        equal_stages=settings.converge == "fixed", sink=sink,
    )  # fmt: skip
    starts = validation_starts(held, recipe.validation_structures, recipe.validation_points)
    folder.mkdir(parents=True, exist_ok=True)
    watch = RolloutValidation(held, starts, recipe.validation_structures, source, path=folder / CURVES, frozen=frozen)
    settings = _planned(settings, recipe)
    sink(Message(plan_words(settings, recipe, source, watch)))
    # Of a training that ended earlier; until this one ends, the best checkpoint is what there is.
    (folder / "checkpoints" / CHOSEN).unlink(missing_ok=True)
    looked_at = _thinned(held.frames)
    # The table of the end is of the potential that is chosen, which may be of another stage than the last.
    result = train(
        body, source, looked_at, replace(settings, final_frames=1), folder=folder, sink=sink, control=control,
        terms=[recipe.term, *terms], validate=watch,
    )  # fmt: skip
    return concluded(body, result, recipe, settings, source, watch, held.frames, test, folder, sink)


def _settled(settings: TrainSettings, recipe: DynamicRecipe) -> TrainSettings:
    if recipe.evaluations_per_epoch is not None and settings.points_per_epoch is not None:
        raise SpecError("say the same thing twice", where="evaluations_per_epoch and points_per_epoch")
    if recipe.evaluations_per_epoch is not None and settings.converge != "fixed":
        raise SpecError("needs converge='fixed'", where="evaluations_per_epoch", found=settings.converge)
    # The table of errors at single frames takes the weights of the loss of single frames.
    return replace(
        settings, monitor=MEPA, loss="l2" if recipe.loss == "mse" else "l1", energy_weight=recipe.energy_weight,
        forces_weight=1.0, stress_weight=0.0,
    )  # fmt: skip


def _planned(settings: TrainSettings, recipe: DynamicRecipe) -> TrainSettings:
    """With stages of fixed length the end is known."""
    if settings.converge != "fixed":
        return settings
    assert settings.stage_epochs is not None
    return replace(settings, max_epochs=min(settings.max_epochs, settings.stage_epochs * len(recipe.n_structures)))


def plan_words(settings: TrainSettings, recipe: DynamicRecipe, source: SequenceSource, watch: RolloutValidation) -> str:
    """What will be done, in one sentence."""
    stages = ", ".join(map(str, recipe.n_structures))
    if settings.converge == "fixed":
        points = recipe.evaluations_per_epoch
        how = f"{settings.stage_epochs} epochs each" + (f" of {points} force evaluations" if points else "")
    else:
        how = "each until it has converged"
    return (
        f"Roll-outs of {stages} structures, {how}, from {len(source)} start points; validation rolls out "
        f"{watch.structures} structures from {len(watch.starts)} starts"
    )


def _frozen(recipe: DynamicRecipe, *parts: AIMDRuns) -> np.ndarray | None:
    if not recipe.frozen:
        return None
    sizes = np.unique(np.concatenate([np.asarray(part.frames.n_atoms) for part in parts]))
    if len(sizes) > 1:
        raise DataError("frozen atoms need frames of one size", where="frozen", found=sizes.tolist())
    n = int(sizes[0])
    wrong = [index for index in recipe.frozen if not 0 <= index < n]
    if wrong:
        raise SpecError("no such atom", where="frozen", expected=f"0 to {n - 1}", found=wrong)
    mask = np.zeros(n, bool)
    mask[list(recipe.frozen)] = True
    if mask.all():
        raise SpecError("every atom is frozen: nothing moves", where="frozen", expected=f"fewer than {n} atoms")
    return mask


def _thinned(frames: FrameSet, most: int = MOST_FRAMES) -> FrameSet:
    if len(frames) <= most:
        return frames
    return frames.select(np.unique(np.linspace(0, len(frames) - 1, most).astype(int)))


def read_curves(folder: str | Path) -> dict[str, Any]:
    """``rollouts.json`` of a folder; empty before the first validation."""
    path = Path(folder) / CURVES
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
