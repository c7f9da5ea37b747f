"""Dynamic training: sub-sequences as data, roll-outs as objective, around the one training loop."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlipkit.errors import DataError, RunError, SpecError
from mlipkit.events import Control, EventSink, Message, always_run, ignore
from mlipkit.strategies.dynamic.outcome import CHOSEN, DynamicResult, concluded
from mlipkit.strategies.dynamic.recipe import DynamicRecipe
from mlipkit.strategies.dynamic.runs import AIMDRuns, aimd_runs
from mlipkit.strategies.dynamic.source import SequenceSource, made
from mlipkit.strategies.dynamic.validation import CURVES, MEPA, RolloutValidation, validation_starts
from mlipkit.training import train
from mlipkit.training.checkpoint import read_header

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.training import TrainSettings
    from mlipkit.training.objective import ObjectiveTerm

EITHER_WAY = ("rollout.recompute", "rollout.recompute_above")
"""Parts of a recipe that change memory and time alone: resuming with others is the way out of a machine too small."""
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
            Frames that two of the sets share.
        SpecError: options that contradict each other.
        RunError: a folder that was begun with another recipe.
        LabelError, ModelError, RunError: as `mlipkit.training.train`.
    """
    recipe, folder = recipe or DynamicRecipe(), Path(folder)
    settings = _settled(settings, recipe)
    _check_apart({"training": frames, "validation": validation, "test": test})
    _check_same(folder, recipe)
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
        equal_stages=settings.converge == "fixed", sink=sink, recipe=recipe.to_json(),
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
        how = f"{settings.stage_epochs} epochs each"
        if points:
            each = sorted({made(points, length) for length in recipe.n_structures})
            how += f" of {' to '.join(map(str, dict.fromkeys((each[0], each[-1]))))} force evaluations"
    else:
        how = "each until it has converged"
    return (
        f"Roll-outs of {stages} structures, {how}, from {len(source)} start points; validation rolls out "
        f"{watch.structures} structures from {len(watch.starts)} starts"
    )


def _check_apart(parts: Mapping[str, FrameSet | None]) -> None:
    """Refuse sets that share frames: errors of frames that were trained on choose nothing and show nothing."""
    there = [(name, part) for name, part in parts.items() if part is not None and len(part)]
    for (name, one), (other, two) in itertools.combinations(there, 2):
        shared = len(np.intersect1d(one.uids, two.uids))
        # Runs may start from one structure with other velocities.
        if shared > len(np.unique(two.trajectory)):
            raise DataError(
                f"{shared} frames are also {name} frames", where=other, expected="runs, or blocks of them, of its own",
                hint="Divide them by mlipkit.data.split(frames, by='trajectory')",
            )  # fmt: skip


def _check_same(folder: Path, recipe: DynamicRecipe) -> None:
    """Refuse to go on with another recipe than the folder's; folders that do not tell theirs go on."""
    last = folder / "checkpoints" / "last.safetensors"
    if not last.is_file():
        return
    before = _flat(read_header(last).get("record", {}).get("source", {}).get("recipe", {}))
    now = _flat(json.loads(json.dumps(recipe.to_json())))
    other = [name for name in before if name in now and name not in EITHER_WAY and before[name] != now[name]]
    if other:
        raise RunError(
            "the recipe is not the one that this training began with", where=str(folder),
            expected=", ".join(f"{name} {before[name]}" for name in other),
            found=", ".join(f"{name} {now[name]}" for name in other), hint="Train in a new folder",
        )  # fmt: skip


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Names and values, those of the roll-out among them."""
    return {name: value for name, value in recipe.items() if name != "rollout"} | {
        f"rollout.{name}": value for name, value in recipe.get("rollout", {}).items()
    }


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
