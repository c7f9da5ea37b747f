"""Exact state of a training on disk: `last.safetensors` to go on from, `best.safetensors` to use.

Both are potential files (`mlipkit.models.load` opens them; averaged weights when averaging is on) with the epoch, step
and metric in the header and in the model card. `last` also holds, in the same file and thus never torn apart, what
resuming needs: the raw weights, optimiser, moving average and torch's random state as tensors ``training.*``,
everything else as JSON. Files are replaced whole; nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mlipkit.errors import ModelError, RunError
from mlipkit.models import io
from mlipkit.training.optimise import MovingAverage, optimiser_tensors, restore_optimiser

if TYPE_CHECKING:
    from mlipkit.models import BasePotential

STATE_VERSION = 1
HEADER_KEY = "training"
WEIGHTS, OPTIMISER, AVERAGE, RANDOM = (f"training.{part}." for part in ("weights", "optimiser", "average", "random"))


def save_best(path: Path, potential: BasePotential, average: MovingAverage | None, card: Mapping[str, Any]) -> None:
    """Write the potential to use: averaged weights when there is an average. `card` holds epoch, step and metric."""
    with average.applied() if average else nullcontext():
        io.save(potential, path, card, extra={HEADER_KEY: json.dumps({"card": dict(card)})})


def save_last(
    path: Path,
    potential: BasePotential,
    optimiser: torch.optim.Optimizer,
    average: MovingAverage | None,
    record: Mapping[str, Any],
    random: Mapping[str, Tensor],
    card: Mapping[str, Any],
) -> None:
    """Write everything that `restore` needs, atomically.

    Args:
        record: JSON-ready state of loop, schedule, data source.
        random: `random_state()` of every process, by name.
        card: model card with epoch, step, metric.
    """
    tensors = {OPTIMISER + name: value for name, value in optimiser_tensors(optimiser, potential).items()}
    tensors |= {RANDOM + name: value for name, value in random.items()}
    if average is not None:
        tensors |= {WEIGHTS + name: p.detach().clone() for name, p in potential.named_parameters()}
        tensors |= {AVERAGE + name: value for name, value in average.average.items()}
    updates = average.updates if average else 0
    text = json.dumps({"version": STATE_VERSION, "updates": updates, "record": dict(record), "card": dict(card)})
    with average.applied() if average else nullcontext():
        io.save(potential, path, card, extra_tensors=tensors, extra={HEADER_KEY: text})


def read_header(path: Path) -> dict[str, Any]:
    """What the header says of the training: ``card`` (epoch, step, metric) and, in `last`, ``record``.

    Raises:
        RunError: not a training checkpoint, damaged, or of an unknown version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[HEADER_KEY])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunError(f"not a readable training checkpoint ({error})", where=str(path)) from error
    if header.get("version", STATE_VERSION) > STATE_VERSION:
        raise RunError(
            "checkpoint of a newer mlipkit",
            where=str(path),
            expected=f"version {STATE_VERSION}",
            found=header["version"],
            hint="Update mlipkit",
        )
    return header


def restore(
    path: Path, potential: BasePotential, optimiser: torch.optim.Optimizer, average: MovingAverage | None
) -> dict[str, Tensor]:
    """Put weights, optimiser and average of `last` back in place, bit for bit; returns the random states.

    Raises:
        RunError: the checkpoint belongs to another architecture, or was made with averaging where there is none now.
    """
    header = read_header(path)
    try:
        spec, tensors = io.read(path)
    except ModelError as error:
        raise RunError(str(error)) from error
    present = io.spec_of(potential)
    if spec != present:
        changed = ", ".join(sorted(key for key in {*spec, *present} if spec.get(key) != present.get(key)))
        raise RunError(
            f"the checkpoint belongs to another potential (different {changed})",
            where=str(path),
            hint="Train it in a new folder",
        )
    averaged = any(name.startswith(WEIGHTS) for name in tensors)
    if averaged != (average is not None):
        was = "with" if averaged else "without"
        raise RunError(f"the checkpoint was made {was} a moving average of the weights", where=(str(path), "ema_decay"))
    state = _part(tensors, io.PREFIX)
    state |= _part(tensors, WEIGHTS)
    # Copied into tensors that torch allocated itself: equal bits at another memory alignment can give other sums.
    potential.load_state_dict(state)
    restore_optimiser(optimiser, potential, _part(tensors, OPTIMISER))
    if average is not None:
        average.restore(_part(tensors, AVERAGE), header["updates"])
    return _part(tensors, RANDOM)


def take_weights(path: Path, potential: BasePotential) -> None:
    """Put the weights of a potential file into a potential of the same make-up, in place."""
    _, tensors = io.read(path)
    potential.load_state_dict(_part(tensors, io.PREFIX))


def keep(best: Path, stage: str, write: bool) -> None:
    """Copy `best` to `best_<stage>`, before the next stage starts to look for its own."""
    if not write or not best.is_file():
        return
    for suffix in (".safetensors", ".json"):
        copy = best.with_name(f".best_{stage}{suffix}.copy")
        shutil.copyfile(best.with_suffix(suffix), copy)
        os.replace(copy, best.with_name(f"best_{stage}{suffix}"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty when the file is not there."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object, atomically."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
    os.replace(half, path)


def random_state() -> dict[str, Tensor]:
    """State of torch's global generators (dropout and the like draw from them)."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Undo `random_state`."""
    if "cpu" in state:
        torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def clean(folder: Path) -> None:
    """Remove the halves of files whose writer was killed."""
    for stray in folder.glob(".*.safetensors.*"):
        stray.unlink(missing_ok=True)
    for stray in folder.glob(".*.json.*"):
        stray.unlink(missing_ok=True)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
