"""Fine-tuning runs: from the specification to potential, frames, recipe and the strategy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mlipkit.errors import DataError
from mlipkit.events import Control, EventSink, Finished, Message, Saved
from mlipkit.runs.building_data import read_frames
from mlipkit.runs.building_forces import source_of
from mlipkit.runs.building_train import ending_of, split_frames, write_parity
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.runs.spec import FinetuneSpec
from mlipkit.runs.spec_finetune import GENERAL

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.strategies.finetuning import FinetuneRecipe
    from mlipkit.training import TrainSettings

STRESS_WEIGHT = 10.0


def start_potential(spec: FinetuneSpec, base: Path) -> BasePotential:
    """The potential to start from, in the precision of the specification where it computes in it."""
    from mlipkit.models import UniversalPotential, load

    potential = load(source_of(spec.potential, base))
    wanted = getattr(torch, spec.dtype)
    if any(isinstance(part, UniversalPotential) and wanted not in part.PRECISIONS for part in potential.modules()):
        return potential
    return potential.to(wanted)


def finetune_settings(spec: FinetuneSpec, frames: FrameSet, precision: str) -> TrainSettings:
    """The numbers of a specification as `mlipkit.training` takes them."""
    from mlipkit.training import TrainSettings

    stress = spec.loss.stress
    if stress is None:
        stress = STRESS_WEIGHT if frames.has("stress").any() else 0.0
    kind: Any = "huber" if spec.loss.kind == "universal" else spec.loss.kind
    return TrainSettings(
        batch_size=spec.batch_size, evaluation_batch_size=max(spec.batch_size, 4), max_epochs=spec.max_epochs,
        max_steps=spec.max_steps, time_limit_s=spec.time_limit_s, loss=kind, huber_delta=spec.loss.huber_delta,
        energy_weight=spec.loss.energy, forces_weight=spec.loss.forces, stress_weight=stress,
        energy_unit=spec.loss.energy_unit, shuffle_seed=spec.seed, noise_seed=spec.seed,
        precision=precision,  # type: ignore[arg-type]
        device=spec.device, **spec.optimiser.model_dump(),
    )  # fmt: skip


def recipe_of(spec: FinetuneSpec) -> FinetuneRecipe:
    """The recipe as `mlipkit.strategies.finetuning` takes it."""
    from mlipkit.strategies.finetuning import FinetuneRecipe

    fields = spec.recipe.model_dump()
    penalty = "universal" if spec.loss.kind == "universal" else "settings"
    return FinetuneRecipe(**{**fields, "frozen": tuple(fields["frozen"])}, loss=penalty)


def retention_frames(spec: FinetuneSpec, potential: BasePotential, base: Path, sink: EventSink) -> FrameSet | None:
    """The general frames that a specification holds out; None where it names none, or none can be made."""
    from mlipkit.strategies.finetuning import general_frames

    if spec.retention != GENERAL:
        return read_frames(spec.retention, base, sink, allow_partial=True) if spec.retention else None
    try:
        return general_frames(potential.elements)
    except DataError as error:  # nothing that the user asked for
        sink(Message(f"No retention column: {error}", "warning"))
        return None


def run_finetuning(spec: FinetuneSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    """Fine-tune what the specification says, or go on where the folder stands."""
    from mlipkit.data import isolated_atom_energies
    from mlipkit.strategies.finetuning import finetune

    parts = split_frames(spec, base, sink)
    write_text(files.path / "split.json", json.dumps(parts.to_json()))
    potential = start_potential(spec, base)
    precision = str(potential.dtype).removeprefix("torch.")
    if precision != spec.dtype:
        sink(Message(f"{spec.potential} computes in {precision}, not in {spec.dtype}"))
    found = finetune(
        potential, parts.train, parts.validation, finetune_settings(spec, parts.train, precision), recipe_of(spec),
        folder=files.path, sink=sink, control=control,
        retention=retention_frames(spec, potential, base, sink),
        replay=read_frames(spec.replay, base, sink, allow_partial=True) if spec.replay else None,
        test=parts.test if len(parts.test) else None,
        isolated=isolated_atom_energies(read_frames(spec.isolated, base, sink, allow_partial=True))
        if spec.isolated else None,
    )  # fmt: skip
    result = found.result
    facts: dict[str, Any] = {
        "metrics": {name: dict(figures) for name, figures in found.metrics["best"].items()},
        "before": {kind: found.metrics[kind] for kind in ("untouched", "offset")},
        "chosen": found.chosen, "sentence": found.sentence, "worse_than_start": found.worse_than_start,
        "shifts": found.shifts.to_json(), "frame_gradients": found.frame_gradients,
        "epoch": result.epoch, "step": result.step, "best_epoch": found.best_epoch,
        "training_s": round(result.seconds, 3),
        "steps_per_s": round(result.step / result.seconds, 3) if result.seconds else None,
        "frames": {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test)},
    }  # fmt: skip
    if result.state == "stopped":
        return Finished("stopped", "stopped by the user", facts)
    write_parity(found.potential, {"validation": parts.validation, "test": parts.test}, files.parity)
    sink(Saved(str(files.parity), "predictions beside labels"))
    return Finished("completed", f"{ending_of(spec, result.ending)}. {found.sentence}", facts)
