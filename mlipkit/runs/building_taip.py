"""Evaluations of TAIP: from the specification to frames, arms and the study."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data import undetermined
from mlipkit.errors import SpecError
from mlipkit.events import Control, EventSink, Finished, Message, Saved
from mlipkit.runs.building_data import _read
from mlipkit.runs.building_forces import device_of
from mlipkit.runs.building_train import build_potential, settings_of, split_frames, tasks_of
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.runs.places import idle_at, split_place
from mlipkit.runs.spec import TaipSpec, TrainSpec
from mlipkit.runs.spec_train import places_in

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.data.splits import Split
    from mlipkit.models import Potential
    from mlipkit.strategies.taip.study import Study

IN_DISTRIBUTION = "in distribution"
"""Name of the test set that comes from the training frames."""


def run_taip(spec: TaipSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    """Train, measure and judge what the specification says, or go on where the folder stands."""
    from mlipkit.strategies.taip.study import NAME, evaluate_taip

    parts = split_frames(spec, base, sink)
    if spec.allow_partial:
        parts = replace(parts, validation=with_labels(parts.validation, "validation", sink))
    write_text(files.path / "split.json", json.dumps(parts.to_json()))
    tests = judging_frames(spec, parts, base, sink)
    shifted = [name for name in tests if name != IN_DISTRIBUTION]
    training = as_training(spec)

    def make(seed: int) -> Potential:
        return build_potential(training.changed(seed=seed), parts.train).to(device_of(spec.device))

    record = evaluate_taip(
        study_of(spec), make, settings_of(training), parts.train, parts.validation, tests, shifted=shifted,
        folder=files.path, sink=sink, control=control,
    )  # fmt: skip
    if record is None:
        return Finished("stopped", "stopped by the user", {})
    sink(Saved(str(files.path / NAME), "errors, controls and verdicts"))
    for test, quantity in _unmeasured(record):
        sink(Message(f"{test}: no arm has an error of {quantity}: nothing was measured there", "warning"))
    # Out of distribution first, as in the sentence.
    first = next(iter((*shifted, *tests)))
    asked = (v["answer"] for v in record["verdicts"] if (v["test"], v["question"]) == (first, "adaptation"))
    facts: dict[str, Any] = {
        "sentence": record["sentence"], "answer": next(asked, "undecided"), "test": first,
        "rates": {str(seed["seed"]): seed["rates"]["adapted"] for seed in record["seeds"]},
        "seconds_per_frame": record["seeds"][0]["seconds"], "training_s": record["seeds"][0]["training_s"],
        "frames": {"train": len(parts.train), "validation": len(parts.validation)},
        "tests": {name: len(frames) for name, frames in tests.items()},
    }  # fmt: skip
    return Finished("completed", record["sentence"], facts)


def _unmeasured(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Test sets and quantities that were predicted, and have no verdict."""
    told = [{(one["test"], one["quantity"]): None for one in record[part]} for part in ("ratios", "verdicts")]
    return [each for each in told[0] if each not in told[1]]


def as_training(spec: TaipSpec) -> TrainSpec:
    """One of the trainings, as a run of its own would say it."""
    shared = {name: getattr(spec, name) for name in TrainSpec.model_fields if name in TaipSpec.model_fields}
    return TrainSpec(**{name: value for name, value in shared.items() if name not in ("kind", "taip")})


def study_of(spec: TaipSpec) -> Study:
    """The study as `mlipkit.strategies.taip` takes it."""
    from mlipkit.strategies.taip import AdaptSettings
    from mlipkit.strategies.taip.study import Study

    options, how = tasks_of(spec.taip), spec.adaptation
    return Study(
        options=options,
        adaptation=AdaptSettings(optimiser=how.optimiser, together=how.together, seed=how.seed),
        rates=tuple(how.rates), seeds=tuple(spec.seeds), noise_sigmas=tuple(spec.noise_sigma), ablate=spec.ablate,
        features=spec.features, repeats=how.repeats, draws=how.draws, effect=spec.effect,
    )  # fmt: skip


def judging_frames(spec: TaipSpec, parts: Split, base: Path, sink: EventSink | None = None) -> dict[str, FrameSet]:
    """Test sets by name, that of the training frames first; no more frames of each than the specification says."""
    tests = {IN_DISTRIBUTION: parts.test} if len(parts.test) else {}
    tests |= shifted_frames(spec, base, sink)
    if spec.allow_partial:
        tests = {name: with_labels(one, name, sink) for name, one in tests.items()}
    tests = {name: with_known_energies(one, parts.train, name, sink) for name, one in tests.items()}
    return {name: _some(one, spec.most) for name, one in tests.items()}


def with_known_energies(frames: FrameSet, train: FrameSet, name: str, sink: EventSink | None = None) -> FrameSet:
    """The same without energies, and a message, where compositions of the training frames leave them open."""
    if not (train.has("energy").any() and frames.has("energy").any() and frames.has("forces").any()):
        return frames
    unknown = undetermined(train, frames)
    if not unknown.any():
        return frames
    if sink is not None:
        said = (
            f"{name}: {int(unknown.sum())} of {len(frames)} frames have a composition whose energy the training frames "
            "do not determine; this set is judged by forces alone"
        )
        sink(Message(said, "warning"))
    return frames.with_labels(energy=np.nan)


def with_labels(frames: FrameSet, name: str, sink: EventSink | None = None) -> FrameSet:
    """Those frames that have every label that some of them have; of the others a message."""
    has = [found for label in ("energy", "forces") if (found := frames.has(label)).any()]
    whole = np.all(has, axis=0) if has else np.ones(len(frames), bool)
    if whole.all() or not whole.any():
        return frames
    if sink is not None:
        few = f"{name}: {int((~whole).sum())} of {len(frames)} frames"
        said = f"{few} lack energy or forces and are left out of the evaluation"
        sink(Message(said, "warning"))
    return frames.select(np.flatnonzero(whole))


def shifted_frames(spec: TaipSpec, base: Path, sink: EventSink | None = None) -> dict[str, FrameSet]:
    """Test sets out of distribution by name: the name of their file, numbered where it repeats."""
    reading: dict[str, Any] = {"keys": spec.keys, "units": spec.units, "unconverged": spec.unconverged}
    reading["allow_partial"] = True
    idle = idle_at(spec.frame_places, base, reading)
    found: dict[str, FrameSet] = {}
    for text in places_in(spec.shifted):
        found[_name_of(text, found)] = _read([text], base, sink, reading, idle)
    if not found and not (spec.test or spec.split.test):
        raise SpecError("no frames to judge by", where="shifted", hint="Name test frames out of distribution")
    return found


def _name_of(text: str, taken: Iterable[str]) -> str:
    """Name of the file, sample or folder at a place; numbered where another test set has it."""
    from mlipkit.strategies.taip.study import RESERVED

    file = split_place(text)[0].rstrip("/").rpartition("/")[2].rpartition(":")[2].lstrip(".")
    name, known = file.partition(".")[0] or "frames", {*taken, IN_DISTRIBUTION, *RESERVED}
    numbered = (f"{name}_{number}" for number in count(2))
    return name if name not in known else next(other for other in numbered if other not in known)


def _some(frames: FrameSet, most: int | None) -> FrameSet:
    if most is None or len(frames) <= most:
        return frames
    return frames.select(np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int)))
