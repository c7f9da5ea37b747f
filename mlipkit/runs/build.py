"""From a specification to work: the one place that maps its fields to the plain arguments of the core objects.

Only the worker process imports this; it loads torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlipkit.errors import LabelError, RunError, SpecError
from mlipkit.events import Control, EventSink, Finished, Judged, Message, Saved, Verdict
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.runs.log import EventTail
from mlipkit.runs.places import PREFIXES, absolute, factory_of, idle_at, load_factory, run_of, split_place, universal_of
from mlipkit.runs.spec import MDSpec, TrainSpec

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.data import FrameSet, Split
    from mlipkit.md.forces import ForceFunction
    from mlipkit.models import BasePotential, Potential
    from mlipkit.training import TrainSettings

MAX_PARITY_POINTS = 20000
SKIN = 0.5
THERMOSTAT_SEEDS = 1_000_003
"""Added to the run's seed for the thermostat: equal seeds would repeat the draws of the start velocities."""


def execute(spec: TrainSpec | MDSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    """Do the work of a specification in a run folder, or go on with it where the folder stands.

    Args:
        base: folder against which relative paths in the specification are meant.

    Returns:
        The last word; facts about machine and time are added by the worker.
    """
    # Gaussians times cutoff give subnormal numbers, on which products run more than ten times slower.
    torch.set_flush_denormal(True)
    torch.set_num_threads(spec.threads)
    # Every purpose has a generator of its own; torch's global one is set for code that a user brings along.
    torch.manual_seed(spec.seed)
    if isinstance(spec, TrainSpec):
        return _train(spec, files, base, sink, control)
    return _simulate(spec, files, base, sink, control)


# ---- data


def read_frames(places: str | list[str], base: Path, sink: EventSink | None = None, **reading: Any) -> FrameSet:
    """Frames that a specification names: samples, files, other runs' trajectories, factories.

    Args:
        reading: options of `mlipkit.data.read` for files and public sets (`keys`, `units`, `allow_partial`,
            `unconverged`).

    Raises:
        DataError: as `mlipkit.data.read`.
        LabelError: as `mlipkit.data.read`, the places taken together: one without a label among others that have it.
        SpecError: a factory that cannot be found or gives no frames; `keys` or `units` that can act on none of the
            places.
    """
    texts = [places] if isinstance(places, str) else list(places)
    return _read(texts, base, sink, reading, idle_at(texts, base, reading))


def _read(
    texts: list[str], base: Path, sink: EventSink | None, reading: dict[str, Any], idle: Mapping[str, set[str]]
) -> FrameSet:
    """Frames of places; `idle` names the options that each of them does not take."""
    from mlipkit.data import FrameSet, read_source

    parts = []
    for text in texts:
        if factory_of(text) is not None:
            parts.append(_frames_of(load_factory(text, base)(), text))
            continue
        options = {name: value for name, value in reading.items() if value is not None and name not in idle[text]}
        if text.partition(":")[0] in PREFIXES:
            # A public set knows its own keys; only what was asked for takes their place.
            parts.append(read_source(text, **(options if text.startswith("public:") else {})))
        else:
            options = options if run_of(text, base) is None else {}
            parts.append(read_source(_file_of(text, base), sink=sink, **options))
    if len(parts) == 1:
        return parts[0]
    frames = FrameSet.concat(parts)
    if not reading.get("allow_partial"):
        _check_coverage(frames, texts, parts)
    return frames


def _check_coverage(frames: FrameSet, texts: list[str], parts: list[FrameSet]) -> None:
    """Refuse labels that some frames lack, as `mlipkit.data.read` does within its files."""
    for label in ("energy", "forces", "stress"):
        found = frames.has(label)
        # Forces on a lone atom and stress without a full cell are not to be had.
        expected = found | {"forces": frames.n_atoms > 1, "stress": frames.pbc.all(1)}.get(label, True)
        if not found.any() or found[expected].all():
            continue
        row = int(np.flatnonzero(expected & ~found)[0])
        place = int(np.searchsorted(np.cumsum([len(part) for part in parts]), row, side="right"))
        raise LabelError(
            f"{label} is on {int(found.sum())} of {int(expected.sum())} frames; the first without it is in "
            f"{texts[place]}",
            where=("data", label),
            hint="Set allow_partial to train on what is there, or ignore the label with "
            f"keys: {{{label}: null}}",
        )  # fmt: skip


def _frames_of(made: Any, text: str) -> FrameSet:
    from ase import Atoms

    from mlipkit.data import FrameSet

    if isinstance(made, FrameSet):
        return made
    images = [made] if isinstance(made, Atoms) else list(made) if isinstance(made, Iterable) else []
    if not images or not all(isinstance(image, Atoms) for image in images):
        raise SpecError("the factory gives no frames", where=text, expected="Atoms, a list of Atoms or a FrameSet")
    return FrameSet.from_atoms(images, source=text)


def _file_of(text: str, base: Path) -> str:
    path, index = absolute(text, base), split_place(text)[1]
    assert path is not None
    if run_of(text, base) is not None:
        path = RunFolder(path).trajectory
        if not path.is_file():
            raise RunError("the run has stored no frame", where=text)
    return f"{path}@{index}" if index else str(path)


def split_frames(spec: TrainSpec, base: Path, sink: EventSink | None = None) -> Split:
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
    data = [spec.data] if isinstance(spec.data, str) else spec.data
    # An option may be meant for the validation file alone, so all places are judged together.
    idle = idle_at([text for _, text in spec.places()], base, reading)
    frames = _read(data, base, sink, reading, idle)
    apart = {
        name: _read([place], base, sink, reading, idle)
        for name, place in (("validation", spec.validation), ("test", spec.test))
        if place
    }
    parts = split(
        frames, by=spec.split.by, seed=spec.split.seed,
        validation=0 if "validation" in apart else size(spec.split.validation),
        test=0 if "test" in apart else size(spec.split.test),
    )  # fmt: skip
    train = parts.train
    if spec.n_train is not None and spec.n_train < len(train):
        chosen = np.random.default_rng(spec.split.seed).permutation(len(train))[: spec.n_train]
        train = train.select(np.sort(chosen))
    elif spec.n_train is not None and spec.n_train > len(train):
        raise SpecError(
            "more frames than there are", where="n_train", expected=f"at most {len(train)}", found=spec.n_train
        )
    how = parts.how + "".join(f"; {name} from {getattr(spec, name)}" for name in apart)
    return Split(
        train=train, validation=apart.get("validation", parts.validation), test=apart.get("test", parts.test),
        how=how, seed=parts.seed, by=parts.by, gap=parts.gap, moved=parts.moved, dropped=parts.dropped,
    )  # fmt: skip


# ---- training


def build_potential(spec: TrainSpec, train: FrameSet) -> Potential:
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


def _train(spec: TrainSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    from mlipkit.training import train

    parts = split_frames(spec, base, sink)
    write_text(files.path / "split.json", json.dumps(parts.to_json()))
    potential = build_potential(spec, parts.train)
    result = train(
        potential, parts.train, parts.validation, settings_of(spec), folder=files.path, sink=sink, control=control,
        test=parts.test if len(parts.test) else None,
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
    reasons = {
        "max_epochs": f"all {spec.max_epochs} epochs done", "max_steps": f"all {spec.max_steps} steps done",
        "time_limit": f"time limit of {spec.time_limit_s:g} s reached" if spec.time_limit_s else "time limit reached",
        "early_stopping": f"no better for {spec.optimiser.patience} epochs",
    }  # fmt: skip
    return Finished("completed", reasons.get(result.ending, result.ending), facts)


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


# ---- molecular dynamics


def start_structure(spec: MDSpec, base: Path) -> Atoms:
    """The structure an MD run begins with; of several frames the first, of a run without an index the last."""
    text = spec.start
    if not split_place(text)[1] and factory_of(text) is None:
        text += "@-1" if run_of(text, base) is not None else "@0"
    # Only the structure matters here, not which labels it has.
    atoms = read_frames(text, base, allow_partial=True)[0]
    atoms.calc = None
    return atoms


def build_forces(spec: MDSpec, base: Path) -> ForceFunction:
    """Force provider of a specification: a trained potential or a calculator from a factory."""
    from mlipkit.md.forces import CalculatorForces, PotentialForces
    from mlipkit.models import BasePotential, load

    stress = spec.ensemble == "npt"
    if factory_of(spec.potential) is not None:
        made: Any = load_factory(spec.potential, base)()
        if isinstance(made, BasePotential):
            return PotentialForces(_placed(made, spec), skin=SKIN, stress=stress)
        if not hasattr(made, "get_property"):
            raise SpecError(
                "the factory gives no calculator", where=("potential", spec.potential),
                expected="an ASE calculator or a Potential", found=type(made).__name__,
            )  # fmt: skip
        return CalculatorForces(made, stress=stress)
    return PotentialForces(_placed(load(_source(spec.potential, base)), spec), skin=SKIN, stress=stress)


def _source(text: str, base: Path) -> str | Path:
    """What `mlipkit.models.load` takes for a potential named in a specification."""
    path, universal = absolute(text, base), universal_of(text)
    if path is None:
        return text
    return path if universal is None else f"universal:{universal[0]}:{path}"


def _placed(potential: BasePotential, spec: MDSpec) -> BasePotential:
    from mlipkit.models import UniversalPotential

    device = device_of(spec.device)
    potential = potential.to(device)
    if isinstance(potential, UniversalPotential) and getattr(torch, spec.dtype) not in potential.PRECISIONS:
        return potential
    return potential.double() if spec.dtype == "float64" else potential.float()


def device_of(name: str) -> str:
    """ "auto" as the best device here; others are checked.

    Raises:
        SpecError: no such device on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise SpecError("no such device here", where="device", found=name, hint=str(error).splitlines()[0]) from None
    return name


def _simulate(spec: MDSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    from mlipkit.md import maxwell_boltzmann, simulate, state_from_atoms

    forces = build_forces(spec, base)
    potential = getattr(forces, "potential", None)
    if potential is not None and str(potential.dtype) != f"torch.{spec.dtype}":
        sink(Message(f"{spec.potential} computes in {str(potential.dtype)[6:]}, not in {spec.dtype}"))
    atoms = start_structure(spec, base)
    state = state_from_atoms(
        atoms, seed=spec.seed + THERMOSTAT_SEEDS, replicas=spec.replicas, device=device_of(spec.device)
    )
    if not spec.keep_velocities:
        maxwell_boltzmann(state, spec.temperature, spec.seed)
    before, begin = _steps_on_disk(files), time.monotonic()
    verdict = simulate(
        state, forces, spec.ensemble, steps=spec.steps, folder=files.path, timestep=spec.timestep,
        options=spec.ensemble_options, stride=spec.stride, checks=spec.checks, checkpoint_every=spec.checkpoint_every,
        sink=sink, control=control,
    )  # fmt: skip
    seconds = time.monotonic() - begin
    facts = {"simulated_s": round(seconds, 3), "atoms": len(atoms), "replicas": spec.replicas}
    if state.step > before:
        facts["steps_per_s"] = round((state.step - before) / seconds, 3)
    return _last_word(spec, verdict, _failed_replicas(files), state.step, facts)


def _steps_on_disk(files: RunFolder) -> int:
    """Step from which a simulation goes on: that of its checkpoint."""
    path = files.checkpoints / "md.safetensors"
    if not path.is_file():
        return 0
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return int(file.get_tensor("state.step"))


def _failed_replicas(files: RunFolder) -> list[Verdict]:
    """Final verdicts of all replicas that have failed, those of earlier attempts included."""
    entries = EventTail(files.events).read()
    final = [entry.event.verdict for entry in entries if isinstance(entry.event, Judged) and entry.event.final]
    return list({verdict.replica: verdict for verdict in final if verdict.outcome == "failed"}.values())


def _last_word(spec: MDSpec, verdict: Verdict, failed: list[Verdict], step: int, facts: dict[str, Any]) -> Finished:
    """How a simulation ended at `step`."""
    if not failed and verdict.outcome == "failed":
        failed = [verdict]
    if step < spec.steps and len(failed) < spec.replicas:
        return Finished("stopped", f"stopped by the user at step {step}", facts)
    if not failed:
        # The end may have been moved to behind the step at hand while the wish travelled to this process.
        passed = f"step {step} reached, past the {spec.steps} steps asked for"
        return Finished("completed", passed if step > spec.steps else f"all {spec.steps} steps done", facts)
    first = min(failed, key=lambda end: end.step)
    facts["failed_replicas"] = len(failed)
    if spec.replicas == 1:
        return Finished("failed", first.sentence, facts)
    return Finished("failed", f"{len(failed)} of {spec.replicas} replicas failed; the first: {first.sentence}", facts)
