"""Training runs: from the specification to split, potential, settings and the loop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlipkit.errors import SpecError
from mlipkit.events import Control, EventSink, Finished, Saved
from mlipkit.runs.building_data import _read
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.runs.places import idle_at
from mlipkit.runs.spec import DynamicSpec, FittingSpec, TrainSpec
from mlipkit.runs.spec_train import TasksSpec, places_in

if TYPE_CHECKING:
    from mlipkit.data import FrameSet, Split
    from mlipkit.models import BasePotential, Potential
    from mlipkit.strategies.taip import TaipOptions
    from mlipkit.training import ObjectiveTerm, TrainSettings

MAX_PARITY_POINTS = 20000


def split_frames(spec: FittingSpec, base: Path, sink: EventSink | None = None) -> Split:
    """Training, validation and test frames of a specification.

    Raises:
        SpecError: no training frame remains; `keys` or `units` that can act on none of the places.
    """
    from mlipkit.data import Split, split

    def size(value: float) -> float | int:
        return value if value < 1 else int(value)

    reading = {
        "keys": spec.keys,
        "units": spec.units,
        "allow_partial": spec.allow_partial,
        "unconverged": spec.unconverged,
    }
    # An option may be meant for the validation file alone, so all places are judged together.
    idle = idle_at(spec.frame_places, base, reading)
    frames = _read(places_in(spec.data), base, sink, reading, idle)
    apart = {
        name: _read(places, base, sink, reading, idle)
        for name in ("validation", "test")
        if (places := places_in(getattr(spec, name)))
    }
    n_trajectories = len(np.unique(frames.trajectory[frames.trajectory >= 0]))
    parts = split(
        frames, by=spec.split.method(n_trajectories), seed=spec.split.seed,
        validation=0 if "validation" in apart else size(spec.split.validation),
        test=0 if "test" in apart else size(spec.split.test),
    )  # fmt: skip
    train = parts.train
    if spec.n_train is not None and spec.n_train < len(train):
        train = train.select(_fewer(train, spec.n_train, spec.split.seed, isinstance(spec, DynamicSpec)))
    elif spec.n_train is not None and spec.n_train > len(train):
        raise SpecError(
            "more frames than there are", where="n_train", expected=f"at most {len(train)}", found=spec.n_train
        )
    how = parts.how + "".join(f"; {name} from {', '.join(places_in(getattr(spec, name)))}" for name in apart)
    return Split(
        train=train, validation=apart.get("validation", parts.validation), test=apart.get("test", parts.test),
        how=how, seed=parts.seed, by=parts.by, gap=parts.gap, moved=parts.moved, dropped=parts.dropped,
    )  # fmt: skip


def _fewer(train: FrameSet, n: int, seed: int, whole_runs: bool) -> np.ndarray:
    """Rows of so many frames: any, or of whole runs one after the other, the last one cut."""
    rng = np.random.default_rng(seed)
    if not whole_runs:
        return np.sort(rng.permutation(len(train))[:n])
    runs = rng.permutation(np.unique(train.trajectory))
    rows = [np.flatnonzero(train.trajectory == run) for run in runs]
    in_time = [part[np.argsort(train.time[part], kind="stable")] for part in rows]
    return np.sort(np.concatenate(in_time)[:n])


def build_potential(spec: TrainSpec | DynamicSpec, train: FrameSet) -> Potential:
    """Fresh potential for a training set: atomic energies, scale from the forces, encoder with its own seed."""
    from mlipkit.data import choose_atomic_energies
    from mlipkit.models import Potential, build_encoder

    options: dict[str, Any] = dict(spec.model.encoder_options)
    if spec.model.encoder == "egnn":
        options["elements"] = list(train.elements)
    seed = spec.seed if spec.model.seed is None else spec.model.seed
    energies = choose_atomic_energies(train) if train.has("energy").any() else dict.fromkeys(train.elements, 0.0)
    forces = np.asarray(train.forces)
    known = forces[np.isfinite(forces)]
    scale = float(np.sqrt(np.mean(known**2))) if known.size else 1.0
    # The head's weights are drawn beside the encoder's: one seed decides both.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(spec.model.encoder, **options)
        potential = Potential(
            encoder, atomic_energies=energies, scale=scale or 1.0, elements=list(train.elements), head=spec.model.head
        )
    return potential.double() if spec.dtype == "float64" else potential


def settings_of(spec: TrainSpec) -> TrainSettings:
    """The numbers of a training specification as `mlipkit.training` takes them."""
    from mlipkit.training import TrainSettings

    optimiser = spec.optimiser.model_dump()
    return TrainSettings(
        batch_size=spec.batch_size, max_epochs=spec.max_epochs, max_steps=spec.max_steps,
        time_limit_s=spec.time_limit_s, loss=spec.loss.kind, huber_delta=spec.loss.huber_delta,
        energy_weight=spec.loss.energy, forces_weight=spec.loss.forces, stress_weight=spec.loss.stress,
        energy_unit=spec.loss.energy_unit, shuffle_seed=spec.seed, noise_seed=spec.seed, precision=spec.dtype,
        device=spec.device, **optimiser,
    )  # fmt: skip


def run_training(spec: TrainSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    from mlipkit.training import train

    parts = split_frames(spec, base, sink)
    write_text(files.path / "split.json", json.dumps(parts.to_json()))
    potential = build_potential(spec, parts.train)
    settings = settings_of(spec)
    result = train(
        potential, parts.train, parts.validation, settings, folder=files.path, sink=sink, control=control,
        test=parts.test if len(parts.test) else None, terms=terms_of(spec, potential, parts.train, settings),
    )  # fmt: skip
    facts: dict[str, Any] = {
        "metrics": {name: dict(figures) for name, figures in result.metrics.items()},
        "epoch": result.epoch,
        "step": result.step,
        "best_epoch": result.best_epoch,
        "training_s": round(result.seconds, 3),
        "steps_per_s": round(result.step / result.seconds, 3) if result.seconds else None,
        "frames": {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test)},
    }
    if result.state == "stopped":
        return Finished("stopped", "stopped by the user", facts)
    write_parity(potential, {"validation": parts.validation, "test": parts.test}, files.parity)
    sink(Saved(str(files.parity), "predictions beside labels"))
    return Finished("completed", ending_of(spec, result.ending), facts)


def terms_of(
    spec: TrainSpec, potential: Potential, frames: FrameSet, settings: TrainSettings
) -> list[ObjectiveTerm] | None:
    """Objective terms of a specification; None: the labels alone. The tasks get their heads, in place."""
    if not spec.taip.enabled:
        return None
    from mlipkit.strategies.taip import SelfSupervised, attach
    from mlipkit.training import EnergyForcesStress

    options = tasks_of(spec.taip)
    attach(potential, options, periodic=bool(frames.pbc.any()), seed=spec.seed)
    return [EnergyForcesStress.from_settings(settings), SelfSupervised(options)]


def tasks_of(spec: TasksSpec) -> TaipOptions:
    """The tasks as `mlipkit.strategies.taip` takes them."""
    from mlipkit.strategies.taip import TaipOptions

    return TaipOptions(**spec.model_dump(exclude={"enabled"}))


def ending_of(spec: FittingSpec, ending: str) -> str:
    """Which limit ended a training, in words."""
    reasons = {
        "max_epochs": f"all {spec.max_epochs} epochs done", "max_steps": f"all {spec.max_steps} steps done",
        "time_limit": f"time limit of {spec.time_limit_s:g} s reached" if spec.time_limit_s else "time limit reached",
        "early_stopping": f"no better for {spec.optimiser.patience} epochs",
    }  # fmt: skip
    return reasons.get(ending, ending)


def write_parity(potential: BasePotential, splits: Mapping[str, FrameSet], path: Path) -> None:
    """Keep labels and predictions for parity pictures: energies per atom of all frames, a sample of the forces."""
    from mlipkit.models import predict

    arrays = {}
    for name, frames in splits.items():
        if not len(frames):
            continue
        predicted = predict(potential, frames)
        arrays[f"{name}_energy_reference"] = np.asarray(frames.energy) / frames.n_atoms
        arrays[f"{name}_energy_predicted"] = np.asarray(predicted.energy) / frames.n_atoms
        reference, forces = np.ravel(frames.forces), np.ravel(predicted.forces)
        if len(reference) > MAX_PARITY_POINTS:
            chosen = np.random.default_rng(0).choice(len(reference), MAX_PARITY_POINTS, replace=False)
            reference, forces = reference[chosen], forces[chosen]
        arrays[f"{name}_forces_reference"], arrays[f"{name}_forces_predicted"] = reference, forces
    partial = path.with_name(".parity.part.npz")
    np.savez_compressed(partial, **arrays)
    partial.replace(path)
