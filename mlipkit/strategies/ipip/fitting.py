"""Pretraining a student on a pool, and fine-tuning it on the DFT frames: the one training loop, with its parts chosen.

Pretraining takes forces alone: the constant of the energy then has no gradient at all, and is set by least squares on
the DFT frames before fine-tuning. With re-referenced energies a constant per element of each labeller is taken off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data.whole import write_whole
from mlipkit.errors import DataError, RunError
from mlipkit.events import Control, EventSink, Message
from mlipkit.strategies.ipip import objectives
from mlipkit.strategies.ipip.plan import force_calls
from mlipkit.strategies.ipip.pools import Pool
from mlipkit.strategies.ipip.signals import Kind, SignalSource, part, signals
from mlipkit.strategies.ipip.tools import LoopTools
from mlipkit.strategies.ipip.torsions import conformations
from mlipkit.strategies.workflows.tools import Stopped
from mlipkit.training import EnergyForcesStress, FrameSource, train

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.training import TrainResult, TrainSettings

SIGNAL: Mapping[str, Kind] = {"n2n": "features", "a2a": "energies", "hessian": "hessian"}
SIGNALS = "signals.npz"
PRETRAINED = "pretrained.safetensors"


def pretrain(
    tools: LoopTools, pool: Pool, options: Mapping[str, Any], seeds: Mapping[str, int], start: BasePotential | None,
    folder: Path, sink: EventSink, control: Control,
) -> dict[str, Any]:  # fmt: skip
    """Pretrain in a folder, or go on where it stands.

    Args:
        options: as of a "pretrain" stage: objective, steps, energy, split, and what the objective takes.
        start: weights of an earlier student; None: fresh ones.

    Raises:
        Stopped: by the user.
    """
    from mlipkit.models import Potential, save
    from mlipkit.models.heads import MLPHead

    objective = options["objective"]
    energies = objective == "distillation" or options["energy"] == "refit"
    frames = re_referenced(pool) if energies else pool.frames.with_labels(energy=float("nan"))
    rows, held = divided(len(frames), options["split"], seeds["split"])
    student = tools.fresh(frames, seeds["init"]) if start is None else start
    settings = tools.settings("pretraining", options["steps"], shuffle_seed=seeds["shuffle"],
                              noise_seed=seeds["noise"], stress_weight=0.0)  # fmt: skip
    settings = _weighted(settings, energies)
    points: FrameSet | FrameSource = frames.select(rows)
    validation = frames.select(held)
    terms: list[Any] = [EnergyForcesStress.from_settings(settings)]
    validate, dtype = None, _dtype(settings)
    if objective.startswith("denoising"):
        clean = frames.select(rows)
        if objective == "denoising_fractional":
            if still := int(clean.pbc.any(1).sum()):
                sink(Message(f"{still} of {len(clean)} frames are periodic: no torsion of them is turned", "warning"))
            clean = conformations(clean, options["copies"], options["torsion"], seeds["noise"])
        points = FrameSource(clean, student.cutoff + objectives.SKIN, dtype)
        terms = [objectives.Denoise(options["noise"])]
        validate = objectives.NoiseError(validation, options["noise"], seeds["noise"])
        settings = _changed(settings, monitor="noise_mae")
    elif objective in SIGNAL:
        arrays = _stored_signals(tools, frames, objective, options, seeds, folder, sink)
        mine = part(arrays, frames, np.asarray(rows))
        points = SignalSource(frames.select(rows), student.cutoff, dtype, mine)
        if objective == "n2n":
            assert isinstance(student, Potential)
            width = int(mine["values"].shape[1])
            student.auxiliary[objectives.MAP] = _seeded(lambda: MLPHead([student.encoder.width, width]), seeds["init"])
            size = float(np.mean(np.square(mine["values"], dtype=np.float64))) or 1.0
            terms.append(objectives.Features(options["signal"], size))
        elif objective == "a2a":
            terms.append(objectives.AtomEnergies(options["signal"]))
        else:
            terms.append(objectives.HessianRows(options["signal"]))
    result = train(student, points, validation, settings, folder=folder, sink=sink, control=control, terms=terms,
                   validate=validate)  # fmt: skip
    if result.state == "stopped":
        raise Stopped
    if isinstance(student, Potential) and objectives.MAP in student.auxiliary:
        del student.auxiliary[objectives.MAP]
    best = save(student, folder / PRETRAINED, {"objective": objective, "pool": pool.hash})
    said = _said(result)
    if objective == "hessian":
        said["spent"]["teacher_labels"] = force_calls(options["rows"], len(frames))
    return {**said, "best": str(best.relative_to(folder)), "pool": pool.hash, "frames": len(rows),
            "sentence": f"{result.step} steps on {len(rows)} frames ({objective.replace('_', ' ')}), "
            f"{_errors(result.metrics.get('validation', {}))}"}  # fmt: skip


def finetune(
    tools: LoopTools, start: BasePotential | None, steps: int, seeds: Mapping[str, int], folder: Path, sink: EventSink,
    control: Control, *, universal: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Fine-tune on the DFT frames, or train on them alone, or go on where the folder stands.

    Args:
        start: pretrained weights; None: fresh ones.
        universal: it is the teacher: its energies must lie near the labels, else something is wrong.

    Raises:
        Stopped: by the user.
    """
    from mlipkit.data import choose_atomic_energies
    from mlipkit.strategies.finetuning import FinetuneRecipe
    from mlipkit.strategies.finetuning import finetune as tune
    from mlipkit.strategies.finetuning.outcome import UNTOUCHED

    which = "teacher_tuning" if universal else "finetuning"
    changes: dict[str, Any] = {"shuffle_seed": seeds["shuffle"], "noise_seed": seeds["shuffle"]}
    if universal:
        changes["precision"] = "float64" if "64" in str(tools.teacher.dtype) else "float32"
    settings = tools.settings(which, steps, **changes)
    if start is None:
        student = tools.fresh(tools.train, seeds["init"], choose_atomic_energies(tools.train))
        result = train(student, tools.train, tools.validation, settings, folder=folder, sink=sink, control=control)
        best: Path = result.best
        more: dict[str, Any] = {"chosen": "trained"}
    else:
        body = start if universal else rezeroed(tools, start)
        done = tune(body, tools.train, tools.validation, settings, folder=folder, sink=sink, control=control,
                    recipe=FinetuneRecipe(loss="settings", shifts="fit" if universal else "keep"))  # fmt: skip
        result, best = done.result, done.best
        before = done.metrics[UNTOUCHED].get("validation", {}).get("forces_mae")
        more = {"chosen": done.chosen, "before": before}
    if result.state == "stopped":
        raise Stopped
    return {**_said(result), **more, "best": str(best.relative_to(folder)), "frames": len(tools.train),
            "sentence": f"{result.step} steps on {len(tools.train)} DFT frames, "
            f"{_errors(result.metrics.get('validation', {}))}"}  # fmt: skip


def re_referenced(pool: Pool) -> FrameSet:
    """Energies less one constant per element of each labeller, by least squares: their zeros are then one."""
    from mlipkit.data.atomic_energies import fit_atomic_energies, residual_per_atom

    energy = np.array(pool.frames.energy)
    for code in np.unique(pool.table["labeller"]).tolist():
        mine = np.flatnonzero(pool.table["labeller"] == code)
        some = pool.frames.select(mine)
        energy[mine] = residual_per_atom(some, fit_atomic_energies(some)) * some.n_atoms
    return pool.frames.with_labels(energy=energy)


def rezeroed(tools: LoopTools, student: BasePotential) -> BasePotential:
    """With the constant of its energies set by least squares on the DFT training frames: pretraining leaves it open."""
    from mlipkit.data import fit_atomic_energies
    from mlipkit.models import predict, with_shifts

    own = predict(student, tools.train, tools.batch_size, forces=False)
    apart = tools.train.with_labels(energy=np.asarray(tools.train.energy) - np.asarray(own.energy))
    return with_shifts(student, fit_atomic_energies(apart))


def divided(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows that choose the weights: at least one of each."""
    if n < 2:
        raise DataError("too few frames to pretrain on", where="pool", expected="at least 2", found=n)
    held = min(max(round(n * share), 1), n - 1)
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[held:]), np.sort(order[:held])


def _stored_signals(
    tools: LoopTools, frames: FrameSet, objective: str, options: Mapping[str, Any], seeds: Mapping[str, int],
    folder: Path, sink: EventSink,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Computed once, and kept beside the training that takes them.

    Raises:
        RunError: the teacher can tell them of no frame.
    """
    path, mark = folder / SIGNALS, folder / "signals.json"
    key = {"frames": frames.hash, "kind": SIGNAL[objective]}
    if path.is_file() and mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == key:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}
    errors: list[str] = []
    found = signals(tools.teacher, frames, SIGNAL[objective], options.get("rows", 2), seeds["noise"],
                    partial(tools.label, errors=errors))  # fmt: skip
    lacks = ~np.isfinite(found["values"]).reshape(len(found["values"]), -1).all(1)
    lost = int(np.logical_or.reduceat(lacks, frames.offsets[:-1]).sum())
    if lost:
        why = errors[0] if errors else "forces that are not finite numbers"
        text = f"the teacher has no answer for {lost} of {len(frames)} frames with an atom displaced"
        if lost == len(frames):
            raise RunError(text, where=objective, found=why, hint="Another arm, or a teacher that answers for them")
        sink(Message(f"{text} ({why}); their rows are left out", "warning"))
    unfinished = path.with_name(f".{SIGNALS}.part.npz")
    np.savez(unfinished, **found)  # type: ignore[arg-type]
    unfinished.replace(path)
    write_whole(mark, json.dumps(key).encode())
    return found


def _weighted(settings: TrainSettings, energies: bool) -> TrainSettings:
    """Forces alone unless energies shall be learned; then per atom with a weight of its own where they had none."""
    if not energies:
        return _changed(settings, energy_weight=0.0)
    return settings if settings.energy_weight else _changed(settings, energy_weight=1.0)


def _changed(settings: TrainSettings, **changes: Any) -> TrainSettings:
    import dataclasses

    return dataclasses.replace(settings, **changes)


def _dtype(settings: TrainSettings) -> Any:
    import torch

    return torch.float64 if settings.precision == "float64" else torch.float32


def _seeded(make: Any, seed: int) -> Any:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _said(result: TrainResult) -> dict[str, Any]:
    return {
        "steps": result.step, "best_step": result.best_step, "seconds": round(result.seconds, 3),
        "spent": {"steps": result.step},
        "metrics": {split: dict(figures) for split, figures in result.metrics.items()},
    }  # fmt: skip


def _errors(figures: Mapping[str, float]) -> str:
    known: Sequence[tuple[str, str, str]] = (("forces_mae", "forces", "meV/Å"), ("energy_mae", "energies", "meV/atom"))
    said = [f"{word} {1000 * figures[name]:.3g} {unit}" for name, word, unit in known if name in figures]
    return f"validation: {', '.join(said)}" if said else "no validation figure"
