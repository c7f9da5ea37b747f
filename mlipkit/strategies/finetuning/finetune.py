"""Fine-tuning: a reference step, a choice of weights and a source of frames around the one training loop."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.data.whole import write_whole
from mlipkit.errors import RunError, SpecError
from mlipkit.events import Control, EventSink, Message, always_run, ignore
from mlipkit.strategies.finetuning.bond_scan import bond_scans, bonded_pairs
from mlipkit.strategies.finetuning.losses import UniversalLoss
from mlipkit.strategies.finetuning.masks import choose_weights
from mlipkit.strategies.finetuning.recipe import FinetuneRecipe
from mlipkit.strategies.finetuning.replay import LossTerm, Replay, Retention, own_labels, pool, shared
from mlipkit.strategies.finetuning.shifts import EnergyShifts, energy_shifts
from mlipkit.training import EnergyForcesStress, FrameSource, TrainResult, evaluate, train
from mlipkit.training.metrics import monitored

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.training import TrainSettings

RECORD, SCANS = "finetune.json", "bond_scan.json"
UNTOUCHED, OFFSET = "untouched", "offset"
FEW = 5
"""Validation frames below which the best epoch is decided by chance."""


@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning gave.

    Attributes:
        potential: the best candidate: a fine-tuned one, the untouched one with its energies moved, or untouched.
        best: its file; opens with `mlipkit.models.load`.
        chosen: "fine-tuned", "offset" or "untouched".
        best_epoch: 0 when no epoch was better than the start.
        worse_than_start: no epoch of the training was better than the better of the two starts.
        sentence: the result for people.
        shifts: the reference step.
        metrics: figures of "untouched", "offset" (untouched and moved) and "best" per split.
        frame_gradients: how many frames were differentiated in the training, replay frames included.
        result: what the training loop says.
    """

    potential: BasePotential
    best: Path
    chosen: str
    best_epoch: int
    worse_than_start: bool
    sentence: str
    shifts: EnergyShifts
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    frame_gradients: int
    result: TrainResult


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
        potential: universal or own; left as it is.
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
        SpecError: an option that cannot act, or needs what is not there.
        DataError, LabelError, ModelError: as `mlipkit.training.train` and `energy_shifts`.
        RunError: the folder was begun with other frames, another recipe or another potential.
    """
    recipe, folder = recipe or FinetuneRecipe(), Path(folder)
    _check(recipe, replay, isolated)
    if recipe.loss == "universal":
        # The best epoch is then chosen by mean absolute errors with the weights of the loss.
        settings = replace(settings, loss="huber", huber_delta=UniversalLoss().delta)
    if recipe.mix == "loss10" and settings.points_per_epoch is None:
        settings = replace(settings, points_per_epoch=recipe.steps_per_epoch * settings.batch_size)
    if settings.patience is not None and 0 < len(validation) < FEW:
        sink(
            Message(f"Early stopping on {len(validation)} validation frames is noise: better fix the epochs", "warning")
        )
    idle = settings.max_epochs == 0
    start = copy.deepcopy(potential).to(_device(settings.device)).eval()
    splits = {"validation": validation} | ({"test": test} if test is not None and len(test) else {})
    record = _Record(folder, _identity(start, frames, splits, replay, recipe))

    shifts = record.shifts
    if shifts is None:
        shifts = _shifts(start, frames, replace(recipe, shifts="keep") if idle else recipe, isolated)
        record.write(shifts=shifts)
    if shifts.warning:
        sink(Message(shifts.warning, "warning"))
    from mlipkit.models import with_shifts

    body = copy.deepcopy(start) if recipe.shifts == "keep" or idle else with_shifts(start, shifts.values)
    metrics = record.metrics
    if not metrics:
        size = settings.evaluation_batch_size
        for name, one in {UNTOUCHED: start, OFFSET: body}.items():
            metrics[name] = {split: evaluate(one, part, size) for split, part in splits.items()}
            sink(Message(f"{name}: {_words(metrics[name]['validation'])} on {len(validation)} validation frames"))
        record.write(metrics=metrics)
    choose_weights(body, recipe, settings.noise_seed)

    universal = recipe.loss == "universal"
    loss = UniversalLoss(settings.weights()) if universal else EnergyForcesStress.from_settings(settings)
    old = None if replay is None else own_labels(start, replay, shifts.values)
    terms, points = _mixed(loss, recipe, frames, old, body, settings)
    held = None if retention is None else Retention(own_labels(start, retention, shifts.values))
    if held is not None and retention is not None and replay is not None and _overlap(retention, replay):
        raise SpecError("held-out frames are among the replay frames", where="retention")
    result = train(
        body, points, validation, settings, folder=folder, sink=sink, control=control, terms=terms, test=test,
        validate=held,
    )  # fmt: skip
    found = _judged(start, body, result, metrics, shifts, recipe, settings, points)
    if result.state == "completed":
        _scan(start, found.potential, frames, folder, sink)
    sink(Message(found.sentence, "warning" if found.worse_than_start else "info"))
    return found


def _check(recipe: FinetuneRecipe, replay: FrameSet | None, isolated: Mapping[int, float] | None) -> None:
    if recipe.mix != "none" and (replay is None or not len(replay)):
        raise SpecError("needs replay frames", where=("mix", recipe.mix), hint="Name general frames as replay")
    if recipe.mix == "none" and replay is not None:
        raise SpecError("has no effect without a mix", where="replay", hint="mix='loss10', or leave the frames out")
    if (recipe.shifts == "isolated") != (isolated is not None):
        said = "are missing" if isolated is None else f"have no effect with shifts='{recipe.shifts}'"
        raise SpecError(f"energies of isolated atoms {said}", where="isolated")


def _shifts(
    start: BasePotential, frames: FrameSet, recipe: FinetuneRecipe, isolated: Mapping[int, float] | None
) -> EnergyShifts:
    if recipe.shifts == "keep" or not frames.has("energy").any():
        return EnergyShifts({}, "none", 0, len(frames.elements), float("nan"), float("nan"))
    return energy_shifts(start, frames, isolated)


def _mixed(
    loss: LossTerm, recipe: FinetuneRecipe, frames: FrameSet, old: FrameSet | None, body: BasePotential,
    settings: TrainSettings,
) -> tuple[list[Any], FrameSet]:  # fmt: skip
    """Objective terms, and the frames that the loop draws from."""
    import torch

    if old is None:
        return [loss], frames
    if recipe.mix == "loss10":
        dtype = torch.float64 if settings.precision == "float64" else torch.float32
        new_loss, old_loss = shared(loss, recipe.weight)
        return [new_loss, Replay(FrameSource(old, body.cutoff, dtype), old_loss, recipe.replay_batch)], frames
    return [loss], pool(frames, old, recipe.mix)


def _judged(
    start: BasePotential, body: BasePotential, result: TrainResult, metrics: dict[str, Any], shifts: EnergyShifts,
    recipe: FinetuneRecipe, settings: TrainSettings, points: FrameSet,
) -> Finetuned:  # fmt: skip
    from mlipkit.models import save

    score = {name: monitored(splits["validation"], settings) for name, splits in metrics.items()}
    worse = result.best_epoch <= 0 or result.best_objective >= score[UNTOUCHED]
    chosen = "fine-tuned" if not worse else UNTOUCHED if score[UNTOUCHED] <= score[OFFSET] else OFFSET
    tuned: BasePotential = body.eval()
    if chosen == UNTOUCHED:
        tuned = start
    file = result.best.with_name("chosen.safetensors")
    if result.state == "completed":
        save(tuned, file, {"chosen": chosen, "best": dict(result.metrics), "epoch": 0 if worse else result.best_epoch})
    best = dict(result.metrics) if chosen == "fine-tuned" else {**result.metrics, **metrics[chosen]}
    batch = settings.batch_size + (recipe.replay_batch if recipe.mix == "loss10" else 0)
    table = {UNTOUCHED: metrics[UNTOUCHED], OFFSET: metrics[OFFSET], "best": best}
    return Finetuned(
        potential=tuned, best=file, chosen=chosen, best_epoch=max(0, result.best_epoch) if not worse else 0,
        worse_than_start=bool(worse and settings.max_epochs), shifts=shifts, metrics=table, result=result,
        sentence=_sentence(table, chosen, result, settings), frame_gradients=result.step * min(batch, len(points)),
    )  # fmt: skip


def _sentence(table: Mapping[str, Any], chosen: str, result: TrainResult, settings: TrainSettings) -> str:
    if not settings.max_epochs:
        return "Zero epochs: the potential is returned as it is."
    before, offset = table[UNTOUCHED]["validation"], table[OFFSET]["validation"]
    if chosen != "fine-tuned":
        what = "the untouched potential" if chosen == UNTOUCHED else "the untouched potential with its energies moved"
        return (
            f"Worse than the start: none of {result.epoch} epochs was better on validation "
            f"({_words(table[chosen]['validation'])}); {what} is returned."
        )
    after = table["best"]["validation"]
    parts = []
    if "forces_mae" in after:
        parts.append(f"forces {1000 * before['forces_mae']:.1f} -> {1000 * after['forces_mae']:.1f} meV/Å")
    if "energy_mae" in after:
        alone = f"the offset alone gives {1000 * offset['energy_mae']:.2f}"
        learned = "" if after["energy_mae"] < offset["energy_mae"] else ": beyond it nothing was learned of energies"
        energies = f"energies {1000 * before['energy_mae']:.2f} -> {1000 * after['energy_mae']:.2f} meV/atom"
        parts.append(f"{energies} ({alone}{learned})")
    return f"Best epoch {result.best_epoch} of {result.epoch} on validation: {', '.join(parts)}."


def _words(figures: Mapping[str, float]) -> str:
    units = {"energy_mae": "meV/atom", "forces_mae": "meV/Å"}
    known = ((name.split("_")[0], figures[name], unit) for name, unit in units.items() if name in figures)
    return ", ".join(f"{label} {1000 * value:.3g} {unit}" for label, value, unit in known)


def _scan(before: BasePotential, after: BasePotential, frames: FrameSet, folder: Path, sink: EventSink) -> None:
    if (folder / SCANS).is_file():
        return
    scans = bond_scans(before, after, bonded_pairs(frames))
    write_whole(folder / SCANS, json.dumps([one.to_json() for one in scans]).encode())
    for one in scans:
        if one.warning:
            sink(Message(one.warning, "warning"))


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _overlap(first: FrameSet, second: FrameSet) -> bool:
    uids = {second.uid(i) for i in range(len(second))}
    return any(first.uid(i) in uids for i in range(len(first)))


def _identity(
    start: BasePotential, frames: FrameSet, splits: Mapping[str, FrameSet], replay: FrameSet | None,
    recipe: FinetuneRecipe,
) -> dict[str, Any]:  # fmt: skip
    described = start.describe()
    return {
        "potential": described.get("name", described.get("kind", "")), "weights": _digest(start),
        "training frames": frames.hash, **{f"{name} frames": part.hash for name, part in splits.items()},
        "replay frames": "" if replay is None else replay.hash,
        "recipe": json.loads(json.dumps(recipe.to_json())),
    }  # fmt: skip


def _digest(potential: BasePotential) -> str:
    import hashlib

    found = hashlib.blake2b(digest_size=16)
    for name, value in potential.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    return found.hexdigest()


class _Record:
    """`finetune.json`: what this folder was begun with, and what was measured before the first step."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.path = folder / RECORD
        self.content: dict[str, Any] = {"identity": identity}
        if not self.path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            return
        self.content = json.loads(self.path.read_text("utf-8"))
        for what, value in identity.items():
            before = self.content["identity"].get(what)
            if before != value:
                raise RunError(
                    f"{what}: not what this fine-tuning began with", where=str(self.path), expected=before, found=value,
                    hint="Fine-tune in a new folder",
                )  # fmt: skip

    @property
    def shifts(self) -> EnergyShifts | None:
        from ase.data import atomic_numbers

        found = self.content.get("shifts")
        if found is None:
            return None
        values = {atomic_numbers[symbol]: value for symbol, value in found["eV"].items()}
        numbers = [found[name] for name in ("mean_meV_per_atom", "spread_meV_per_atom")]
        mean, spread = (float("nan") if value is None else value for value in numbers)
        return EnergyShifts(values, found["origin"], found["rank"], found["elements"], mean, spread, found["warning"])

    @property
    def metrics(self) -> dict[str, Any]:
        return self.content.get("metrics", {})

    def write(self, **content: Any) -> None:
        self.content |= {name: one.to_json() if isinstance(one, EnergyShifts) else one for name, one in content.items()}
        write_whole(self.path, (json.dumps(self.content, indent=1) + "\n").encode())
