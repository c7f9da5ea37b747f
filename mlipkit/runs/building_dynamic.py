"""Dynamic training as a run: from the specification to runs, recipe, settings and the strategy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlipkit.errors import DataError
from mlipkit.events import Control, EventSink, Finished, Saved
from mlipkit.runs.building_forces import source_of
from mlipkit.runs.building_train import build_potential, ending_of, split_frames, write_parity
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.runs.spec import DynamicSpec

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.strategies.dynamic import AIMDRuns, DynamicRecipe, Rollouts
    from mlipkit.training import TrainSettings

RECOMPUTED = 1.4
"""Cost of a force evaluation whose intermediate results are not kept; 1.2 to 1.5 in benchmarks/results/dynamic_cost."""
MOST_TABLED = 10_000
TEST_ROLLOUTS = "test_rollouts.npz"
ARRAYS = ("error", "on_reference", "apart", "energy", "timestep", "run", "start", "n_atoms")


def recipe_of(spec: DynamicSpec) -> DynamicRecipe:
    """The recipe as `mlipkit.strategies.dynamic` takes it."""
    from mlipkit.strategies.dynamic import DynamicRecipe, RolloutSettings
    from mlipkit.strategies.dynamic.recipe import MANY

    how, loss, curriculum, validation = spec.rollout, spec.loss, spec.curriculum, spec.rollout_validation
    return DynamicRecipe(
        n_structures=tuple(curriculum.n_structures),
        rollout=RolloutSettings(
            how.bptt, how.window, how.recompute == "always", MANY if how.recompute == "auto" else None,
            how.position_update,
        ),
        refresh=how.refresh, loss=loss.kind, first_weight=loss.first_step, energy_weight=loss.energy,
        energy_weight_dyn=loss.energy_dyn, velocities=how.velocities,
        evaluations_per_epoch=curriculum.evaluations_per_epoch, apart_limit=curriculum.apart_limit,
        validation_structures=validation.n_structures, validation_points=validation.n_points, choose=curriculum.choose,
        refit_energy=loss.refit_energy, auxiliary_heads=spec.auxiliary_heads, frozen=tuple(how.frozen),
    )  # fmt: skip


def dynamic_settings(spec: DynamicSpec, precision: str) -> TrainSettings:
    """The numbers of a specification as `mlipkit.training` takes them."""
    from mlipkit.training import TrainSettings

    curriculum = spec.curriculum
    return TrainSettings(
        batch_size=spec.batch_size, evaluation_batch_size=max(spec.batch_size, 64), max_epochs=spec.max_epochs,
        max_steps=spec.max_steps, time_limit_s=spec.time_limit_s, points_per_epoch=curriculum.points_per_epoch,
        converge=curriculum.converge, stage_epochs=curriculum.stage_epochs, stage_start=curriculum.start_from,
        shuffle_seed=spec.seed, noise_seed=spec.seed, precision=precision,  # type: ignore[arg-type]
        device=spec.device, **spec.optimiser.model_dump(),
    )  # fmt: skip


def start_potential(spec: DynamicSpec, train: FrameSet, base: Path) -> BasePotential:
    """A new potential, or the one to start from, in the precision of the specification where it computes in it."""
    from mlipkit.models import UniversalPotential, load

    if not spec.potential:
        return build_potential(spec, train)
    potential = load(source_of(spec.potential, base))
    wanted = getattr(torch, spec.dtype)
    if any(isinstance(part, UniversalPotential) and wanted not in part.PRECISIONS for part in potential.modules()):
        return potential
    return potential.to(wanted)


@dataclass(frozen=True)
class Work:
    """What a dynamic training will do, in force evaluations of one frame.

    Attributes:
        steps: of the optimiser. evaluations: with gradients, over all stages; recomputed ones count `RECOMPUTED` times.
        validations: how often, the one before the first step included. validation: evaluations of each.
        ending: evaluations after the last step: tables of errors, pictures, roll-outs of the test part.
    """

    steps: int
    evaluations: float
    validations: int
    validation: int
    ending: int


def planned_work(spec: DynamicSpec, runs: Mapping[str, Sequence[int]]) -> Work:
    """Of stages that end by themselves, all epochs at the longest roll-outs at most.

    Args:
        runs: frames of each run of the parts train, validation and test.
    """
    from mlipkit.strategies.dynamic.source import points_of
    from mlipkit.strategies.dynamic.training import MOST_FRAMES
    from mlipkit.training.batches import Order

    curriculum, validation = spec.curriculum, spec.rollout_validation
    longest = max(curriculum.n_structures)
    n_points = max(1, _points_in(runs["train"], longest))
    stages = [(length, curriculum.stage_epochs) for length in curriculum.n_structures]
    left, steps, evaluations, epochs = spec.max_epochs, 0, 0.0, 0
    for length, planned in stages if curriculum.stage_epochs is not None else [(longest, None)]:
        points = points_of(curriculum.evaluations_per_epoch, length) or curriculum.points_per_epoch
        order = Order(n_points, 0, spec.batch_size, points=points)
        mine = min(left, planned or left) * order.steps_per_epoch
        if spec.max_steps is not None:
            mine = min(mine, spec.max_steps - steps)
        each = length * order.per_epoch / order.steps_per_epoch
        evaluations += mine * each * (RECOMPUTED if recomputed(spec, length) else 1.0)
        steps, epochs = steps + mine, epochs + -(-mine // order.steps_per_epoch)
        left -= min(left, planned or left)
    sizes = {part: sum(several) for part, several in runs.items()}
    starts = min(validation.n_points, _points_in(runs["validation"], validation.n_structures))
    ending = min(sizes["train"], MOST_TABLED) + 2 * (sizes["validation"] + sizes["test"])
    if sizes["test"]:
        length = max(1, min(validation.test_structures, max(runs["test"]) - 2))
        # Along the way, and on the reference's positions.
        ending += 2 * length * min(validation.test_points, _points_in(runs["test"], length))
    one = starts * validation.n_structures + min(sizes["validation"], MOST_FRAMES)
    return Work(steps, evaluations, epochs + 1, one, ending)


def recomputed(spec: DynamicSpec, length: int) -> bool:
    """Whether roll-outs of so many structures keep no intermediate results."""
    from mlipkit.strategies.dynamic.recipe import MANY

    how = spec.rollout.recompute
    return how == "always" or (how == "auto" and length > MANY)


def largest_stage(spec: DynamicSpec) -> DynamicSpec:
    """The same with all stages like the one that takes most memory."""
    lengths = spec.curriculum.n_structures
    keeping = [length for length in lengths if not recomputed(spec, length)]
    return spec.changed(**{"curriculum.n_structures": [max(keeping or lengths)] * len(lengths)})


def _points_in(sizes: Sequence[int], length: int) -> int:
    """Start points of runs of so many frames, where the frames have velocities."""
    return sum(max(0, size - length - 1) for size in sizes)


def run_dynamic(spec: DynamicSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    """Train what the specification says, or go on where the folder stands."""
    from mlipkit.strategies.dynamic import dynamic_training

    parts = split_frames(spec, base, sink)
    # Before the training: after hours of it is too late to learn that the test part is too short.
    unseen = unseen_runs(spec, parts.test) if len(parts.test) else None
    write_text(files.path / "split.json", json.dumps(parts.to_json()))
    potential = start_potential(spec, parts.train, base)
    precision = str(potential.dtype).removeprefix("torch.")
    found = dynamic_training(
        potential, parts.train, parts.validation, dynamic_settings(spec, precision), recipe_of(spec),
        folder=files.path, test=parts.test if len(parts.test) else None, sink=sink, control=control,
    )  # fmt: skip
    result = found.result
    facts: dict[str, Any] = {
        **found.facts(),
        "metrics": {name: dict(figures) for name, figures in found.metrics.items()},
        "epoch": result.epoch, "step": result.step, "best_epoch": found.stages[found.chosen - 1].best_epoch,
        "steps_per_s": round(result.step / result.seconds, 3) if result.seconds else None,
        "frames": {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test)},
        "runs": {name: len(np.unique(getattr(parts, name).trajectory)) for name in ("train", "validation", "test")},
    }  # fmt: skip
    if result.state == "stopped":
        return Finished("stopped", "stopped by the user", facts)
    write_parity(found.potential, {"validation": parts.validation, "test": parts.test}, files.parity)
    sink(Saved(str(files.parity), "predictions beside labels"))
    if unseen is not None:
        facts["test_rollouts"] = test_rollouts(spec, found.potential, unseen, files.path / TEST_ROLLOUTS)
        sink(Saved(str(files.path / TEST_ROLLOUTS), "roll-outs of the test part"))
    over = result.ending == "converged" or (result.ending == "max_epochs" and result.epoch < spec.max_epochs)
    ended = "every stage is over" if over else ending_of(spec, result.ending)
    return Finished("completed", f"{ended}. {found.sentence}", facts)


def unseen_runs(spec: DynamicSpec, test: FrameSet) -> AIMDRuns:
    """The runs of the test part.

    Raises:
        DataError: no AIMD runs, or too short for any roll-out; frozen atoms that they do not have.
    """
    from mlipkit.strategies.dynamic import aimd_runs

    runs = aimd_runs(test, spec.rollout.velocities, "test")
    runs.start_points(1)
    sizes = np.unique(test.n_atoms)
    if spec.rollout.frozen and (len(sizes) > 1 or max(spec.rollout.frozen) >= sizes[0]):
        raise DataError("frozen atoms need frames of one size", where=("test", "frozen"), found=sizes.tolist())
    return runs


def test_rollouts(spec: DynamicSpec, potential: BasePotential, runs: AIMDRuns, path: Path) -> dict[str, Any]:
    """Roll out on the test part, keep the arrays, and say what they came to."""
    from mlipkit.strategies.dynamic import nve_rollouts, validation_starts
    from mlipkit.strategies.dynamic.evaluation import DIVERGED

    structures = max(1, min(spec.rollout_validation.test_structures, runs.longest))
    starts = validation_starts(runs, structures, spec.rollout_validation.test_points)
    frozen = None
    if spec.rollout.frozen:
        frozen = np.isin(np.arange(int(runs.frames.n_atoms[0])), spec.rollout.frozen)
    found = nve_rollouts(potential, runs, starts, structures, frozen=frozen)
    keep_rollouts(found, path)
    times = found.divergence_time()
    return {
        "structures": structures, "starts": len(starts), "timestep": float(found.timestep[0]),
        "mepa": _plain(found.mepa().mean()), "equal_frames": _plain(found.equal_frames().mean()),
        "per_element": found.per_element(), "drift": _plain(np.nanmedian(np.abs(found.drift()))),
        "diverged": int(np.isfinite(times).sum()), "divergence_limit": DIVERGED,
        "divergence_fs": _plain(np.median(times)),
    }  # fmt: skip


def keep_rollouts(found: Rollouts, path: Path) -> None:
    """Write the arrays of roll-outs, whole."""
    arrays = {name: getattr(found, name) for name in ARRAYS if getattr(found, name) is not None}
    partial = path.with_name(f".{path.stem}.part.npz")
    np.savez_compressed(partial, elements=np.asarray(found.elements), data=np.array(found.data), **arrays)
    partial.replace(path)


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def read_rollouts(path: Path) -> Rollouts:
    """The inverse of `keep_rollouts`."""
    from mlipkit.strategies.dynamic import Rollouts

    with np.load(path) as arrays:
        values: dict[str, Any] = {name: arrays.get(name) for name in ARRAYS}
        # Of roll-outs that were kept before their data were.
        values["data"] = str(arrays["data"]) if "data" in arrays else ""
        return Rollouts(tuple(int(z) for z in arrays["elements"]), **values)  # type: ignore[arg-type]
