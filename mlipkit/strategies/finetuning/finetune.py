"""Fine-tuning: a reference step, a choice of weights and a source of frames around the one training loop."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data.whole import write_whole
from mlipkit.errors import DataError, SpecError
from mlipkit.events import Control, EventSink, Message, always_run, ignore
from mlipkit.strategies.finetuning.bond_scan import bond_scans, bonded_pairs
from mlipkit.strategies.finetuning.losses import UniversalLoss
from mlipkit.strategies.finetuning.masks import choose_weights
from mlipkit.strategies.finetuning.outcome import CHOSEN, OFFSET, UNTOUCHED, Finetuned, judged, words
from mlipkit.strategies.finetuning.recipe import FinetuneRecipe
from mlipkit.strategies.finetuning.record import Record, identity
from mlipkit.strategies.finetuning.replay import Replay, Retention, copies, own_labels, pool, shared
from mlipkit.strategies.finetuning.shifts import EnergyShifts, energy_shifts
from mlipkit.training import EnergyForcesStress, FrameSource, evaluate, train
from mlipkit.training.metrics import monitored

if TYPE_CHECKING:
    import torch

    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.training import TrainSettings

SCANS = "bond_scan.json"
FEW = 5
"""Validation frames below which the best epoch is decided by chance."""


def finetune(
    potential: BasePotential,
    frames: FrameSet,
    validation: FrameSet,
    settings: TrainSettings,
    recipe: FinetuneRecipe | None = None,
    *,
    folder: str | Path,
    replay: FrameSet | None = None,
    retention: FrameSet | None = None,
    test: FrameSet | None = None,
    isolated: Mapping[int, float] | None = None,
    sink: EventSink = ignore,
    control: Control = always_run,
) -> Finetuned:
    """Fine-tune any potential on labelled frames, or go on where the folder stands.

    The untouched potential is measured first and stays a candidate, and so does the untouched potential whose energies
    were moved by the constants of the reference step ("offset"), from which the training starts.

    Args:
        potential: universal or own; left as it is. What is returned has the same weights free for further training.
        frames, validation: labelled.
        settings: of the training. Zero epochs return the potential as it is.
        recipe: which weights, which energy zero, which replay; None: all weights, fitted constants, no replay.
        folder: output, as of `mlipkit.training.train`, with ``finetune.json`` and ``bond_scan.json``.
        replay: general frames that are mixed in with the old potential's own labels; only with a `mix`.
        retention: general frames held out: how far the potential has gone from its old labels of them stands in every
            row of the validation. None: no such column.
        test: for the final table.
        isolated: energies of isolated atoms at the labels' level, for ``shifts="isolated"``.

    Raises:
        SpecError: an option that cannot act, or needs what is not there; held-out frames that are trained on.
        DataError, LabelError, ModelError: as `mlipkit.training.train`, `energy_shifts` and `choose_weights`.
        RunError: the folder was begun with other frames, another recipe or another potential, or with zero epochs.
    """
    recipe, folder = recipe or FinetuneRecipe(), Path(folder)
    sets = {
        "training frames": frames, "validation frames": validation, "test frames": test, "replay frames": replay,
        "retention frames": retention,
    }  # fmt: skip
    _check(potential, sets, recipe, settings, isolated)
    n_doubles = int(np.isin(validation.structure_hashes, frames.structure_hashes).sum())
    if n_doubles:
        said = f"{n_doubles} of {len(validation)} validation frames are among the training frames"
        blind = ": the best epoch is then the one that has memorised them" if n_doubles == len(validation) else ""
        sink(Message(said + blind, "warning"))
    universal = recipe.loss == "universal"
    if universal:
        # The best epoch is then chosen by mean absolute errors with the weights of the loss.
        settings = replace(settings, loss="huber", huber_delta=UniversalLoss().huber_delta)
    loss = (UniversalLoss if universal else EnergyForcesStress).from_settings(settings)
    if recipe.mix == "loss10" and settings.points_per_epoch is None:
        settings = replace(settings, points_per_epoch=recipe.steps_per_epoch * settings.batch_size)
    if settings.patience is not None and len(validation) < FEW:
        sink(
            Message(f"Early stopping on {len(validation)} validation frames is noise: better fix the epochs", "warning")
        )
    idle = settings.max_epochs == 0
    start = copy.deepcopy(potential).to(_device(settings.device)).eval()
    # Before anything is measured: a recipe that does not fit costs nothing.
    free = copy.deepcopy(start)
    choose_weights(free, recipe, settings.noise_seed)
    free.to(_dtype(settings))
    splits = {"validation": validation} | ({"test": test} if test is not None and len(test) else {})
    record = Record(folder, identity(start, sets, recipe, isolated, idle))

    shifts = record.shifts
    if shifts is None:
        shifts = _shifts(start, frames, replace(recipe, shifts="keep") if idle else recipe, isolated)
        record.write(shifts=shifts)
    if shifts.warning:
        sink(Message(shifts.warning, "warning"))
    body = _moved(free, shifts)
    metrics = record.metrics
    if not metrics:
        size = settings.evaluation_batch_size
        for name, one in {UNTOUCHED: start, OFFSET: body}.items():
            metrics[name] = {split: evaluate(one, part, size) for split, part in splits.items()}
            sink(Message(f"{name}: {words(metrics[name]['validation'])} on {len(validation)} validation frames"))
        record.write(metrics=metrics)
    score = {name: monitored(figures["validation"], settings) for name, figures in metrics.items()}

    old = None if replay is None else own_labels(start, replay, shifts.values)
    terms, points = _mixed(loss, recipe, frames, old, body, settings)
    if replay is not None:
        sink(Message(_said(recipe, settings, len(frames), len(replay))))
    held = None if retention is None else Retention(own_labels(start, retention, shifts.values))
    # Of a training that ended earlier; until this one ends, the best checkpoint is what there is.
    (folder / "checkpoints" / CHOSEN).unlink(missing_ok=True)
    result = train(
        body, points, validation, settings, folder=folder, sink=sink, control=control, terms=terms, test=test,
        validate=held,
    )  # fmt: skip
    fixed = {name for name, p in _moved(start, shifts).named_parameters() if not p.requires_grad}
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(name not in fixed)
    found = judged(start, body, result, metrics, score, shifts, recipe, settings, len(points))
    if result.state == "completed":
        _scan(start, found.potential, frames, folder, sink)
    sink(Message(found.sentence, "warning" if found.worse_than_start else "info"))
    return found


def _check(
    potential: BasePotential, sets: Mapping[str, FrameSet | None], recipe: FinetuneRecipe, settings: TrainSettings,
    isolated: Mapping[int, float] | None,
) -> None:  # fmt: skip
    replay, retention = sets["replay frames"], sets["retention frames"]
    if recipe.mix != "none" and (replay is None or not len(replay)):
        raise SpecError("needs replay frames", where=("mix", recipe.mix), hint="Name general frames as replay")
    if recipe.mix == "none" and replay is not None:
        raise SpecError("has no effect without a mix", where="replay", hint="mix='loss10', or leave the frames out")
    if (recipe.shifts == "isolated") != (isolated is not None):
        said = "are missing" if isolated is None else f"have no effect with shifts='{recipe.shifts}'"
        raise SpecError(f"energies of isolated atoms {said}", where="isolated")
    if recipe.loss == "universal" and settings.energy_unit != "per_atom":
        raise SpecError("has no effect with loss='universal'", where="energy_unit", found=settings.energy_unit)
    for name, part in sets.items():
        if part is not None and len(part):
            potential.check_elements(list(part.elements), name)
        elif part is not None and name != "test frames":
            hint = "Split some off: mlipkit.data.split(frames)" if name == "validation frames" else ""
            raise DataError("no frame", where=name, hint=hint)
    for name in ("replay frames", "training frames"):
        part = sets[name]
        if retention is not None and part is not None and _overlap(retention, part):
            raise SpecError(f"held-out frames are among the {name}", where="retention")


def _moved(potential: BasePotential, shifts: EnergyShifts) -> BasePotential:
    """A copy on the new energy zero; `origin` "none": a copy."""
    from mlipkit.models import with_shifts

    return copy.deepcopy(potential) if shifts.origin == "none" else with_shifts(potential, shifts.values)


def _said(recipe: FinetuneRecipe, settings: TrainSettings, n_new: int, n_old: int) -> str:
    """What replay does, in numbers."""
    if recipe.mix == "loss10":
        return (
            f"Replay: each step {settings.batch_size} new and {recipe.replay_batch} of {n_old} old frames, their "
            f"losses weighted {recipe.weight:g} to 1"
        )
    times = copies(n_new, n_old) if recipe.mix == "tool_dup10" else 1
    return f"Replay: one shuffle of {n_new} new frames, each {times} times, and {n_old} old ones"


def _shifts(
    start: BasePotential, frames: FrameSet, recipe: FinetuneRecipe, isolated: Mapping[int, float] | None
) -> EnergyShifts:
    if recipe.shifts == "keep" or not frames.has("energy").any():
        return EnergyShifts({}, "none", 0, len(frames.elements), float("nan"), float("nan"))
    return energy_shifts(start, frames, isolated)


def _mixed(
    loss: EnergyForcesStress, recipe: FinetuneRecipe, frames: FrameSet, old: FrameSet | None, body: BasePotential,
    settings: TrainSettings,
) -> tuple[list[Any], FrameSet]:  # fmt: skip
    """Objective terms, and the frames that the loop draws from."""
    if old is None:
        return [loss], frames
    if recipe.mix == "loss10":
        dtype = _dtype(settings)
        new_loss, old_loss = shared(loss, recipe.weight)
        return [new_loss, Replay(FrameSource(old, body.cutoff, dtype), old_loss, recipe.replay_batch)], frames
    return [loss], pool(frames, old, recipe.mix)


def _scan(before: BasePotential, after: BasePotential, frames: FrameSet, folder: Path, sink: EventSink) -> None:
    scans = bond_scans(before, after, bonded_pairs(frames))
    write_whole(folder / SCANS, json.dumps([one.to_json() for one in scans]).encode())
    for one in scans:
        if one.warning:
            sink(Message(one.warning, "warning"))


def _dtype(settings: TrainSettings) -> torch.dtype:
    import torch

    return torch.float64 if settings.precision == "float64" else torch.float32


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _overlap(first: FrameSet, second: FrameSet) -> bool:
    uids = {second.uid(i) for i in range(len(second))}
    return any(first.uid(i) in uids for i in range(len(first)))
