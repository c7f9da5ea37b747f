"""Workflows: from the specification to real tools; how they ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.errors import SpecError
from mlipkit.events import Control, EventSink, Finished, Message
from mlipkit.runs.building_data import read_frames, read_starts
from mlipkit.runs.building_finetune import finetune_settings, recipe_of, start_potential
from mlipkit.runs.building_forces import device_of
from mlipkit.runs.building_ipip import content_of
from mlipkit.runs.building_label import recipe_for
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.places import absolute, factory_of, load_factory, run_of
from mlipkit.runs.spec_finetune import FinetuneSpec
from mlipkit.runs.spec_workflow import WorkflowSpec

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.models import BasePotential
    from mlipkit.strategies.workflows import Cost
    from mlipkit.strategies.workflows.standard import StandardTools
    from mlipkit.training import TrainSettings

STATES: dict[str, Any] = {"completed": "completed", "stopped": "stopped", "waiting": "stopped", "failed": "failed"}
"""State of a run for each of a workflow: one that waits for the user has stopped and can be resumed."""
WITH_STRESS = 10.0


def run_workflow(spec: WorkflowSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    """Do what the plan says, or go on where the folder stands."""
    from mlipkit.strategies import workflows

    others = [folder for text in spec.reuse if (folder := run_of(text, base)) is not None]
    outcome = workflows.run_workflow(spec.plan, files.path, tools_of(spec, base, sink), sink, control, reuse=others)
    facts = {**outcome.facts, "workflow": outcome.state, "stage": outcome.stage}
    facts["stage_seconds"] = facts.pop("seconds", {})
    return Finished(STATES[outcome.state], outcome.reason, facts)


def cost_of(spec: WorkflowSpec, base: Path, measure: Path | None = None) -> Cost:
    """Plan and cost; with a folder for scratch files one unit of each deed is timed there."""
    from mlipkit.strategies.workflows import dry_run

    tools = None if measure is None else tools_of(spec, base)
    return dry_run(spec.plan, tools, measure, spec.relax_steps)


def tools_of(spec: WorkflowSpec, base: Path, sink: EventSink | None = None) -> StandardTools:
    """The tools that a specification names.

    Raises:
        SpecError, DataError, ModelError: something that it names is not there or does not fit.
    """
    from mlipkit.strategies.workflows.standard import StandardTools
    from mlipkit.strategies.workflows.tools import CONTENT

    potential, tuning = universal(spec, base), as_finetuning(spec)
    precision = str(potential.dtype).removeprefix("torch.")
    if sink is not None and precision != spec.dtype:
        sink(Message(f"{spec.potential} computes in {precision}, not in {spec.dtype}"))
    given, make_start = starts(spec, base)
    return StandardTools(
        universal=potential, make_start=make_start, given=given, maker=recipe_for(spec.labelling, base),
        words={**words(spec), CONTENT: _content(spec, base, potential)},
        settings=settings(tuning, bool(make_start(0).pbc.all()), precision),
        recipe=recipe_of(tuning), fmax=spec.fmax, relax_steps=spec.relax_steps, timeout=spec.label.timeout_s,
        processes=spec.label.processes,
        replay=read_frames(spec.tuning.replay, base, allow_partial=True) if spec.tuning.replay else None,
    )  # fmt: skip


def universal(spec: WorkflowSpec, base: Path) -> BasePotential:
    """The untouched model on its device, from a file, a package or a factory."""
    if factory_of(spec.potential) is None:
        return start_potential(as_finetuning(spec), base).to(device_of(spec.device))
    import torch

    from mlipkit.models import BasePotential

    made = load_factory(spec.potential, base)()
    if not isinstance(made, BasePotential):
        raise SpecError("the factory gives nothing that can be fine-tuned", where=("potential", spec.potential),
                        expected="a Potential", found=type(made).__name__)  # fmt: skip
    return made.to(device_of(spec.device)).to(getattr(torch, spec.dtype))


def as_finetuning(spec: WorkflowSpec) -> FinetuneSpec:
    """A fine-tuning of this workflow as a run of its own would say it, but for its frames and epochs."""
    one = spec.tuning
    return FinetuneSpec(
        data=".", potential=spec.potential, seed=spec.seed, dtype=spec.dtype, device=spec.device, recipe=one.recipe,
        replay=one.replay, retention=None, loss=one.loss, optimiser=one.optimiser, batch_size=one.batch_size,
        max_epochs=one.max_epochs,
    )  # fmt: skip


def settings(tuning: FinetuneSpec, periodic: bool, precision: str) -> TrainSettings:
    """Settings of a fine-tuning; stress is learned where labels will have it, as structures are periodic."""
    stress = tuning.loss.stress
    if stress is None:
        stress = WITH_STRESS if periodic else 0.0
    return finetune_settings(tuning.changed(**{"loss.stress": stress}), None, precision)  # type: ignore[arg-type]


def starts(spec: WorkflowSpec, base: Path) -> tuple[list[Atoms], Callable[[int], Atoms]]:
    """Given structures (none where boxes are packed), and seed -> a start structure."""
    one = spec.start
    if one.place is not None:
        given = list(read_starts(one.place, base))
        return given, lambda seed: given[seed % len(given)].copy()
    from mlipkit.data.packing import pack

    molecules: dict[str, int] = {}
    for name, count in one.molecules.items():
        path = absolute(name, base)
        molecules[str(path) if path is not None and path.is_file() else name] = count
    return [], lambda seed: pack(molecules, density=one.density, tolerance=one.tolerance, seed=seed)


def _content(spec: WorkflowSpec, base: Path, potential: BasePotential) -> str:
    """What tells a model from another of the same name; a factory's code may read weights, which are told, too."""
    from mlipkit.strategies.finetuning.record import digest

    told = content_of(spec.potential, base, potential)
    return told if factory_of(spec.potential) is None else f"{told} {digest(potential)}"


def words(spec: WorkflowSpec) -> dict[str, Any]:
    """What must be equal for two arms to be compared: everything but the arm, its seed and where it runs."""
    record = spec.model_dump(mode="json")
    kept = ("potential", "start", "label", "tuning", "dtype", "fmax", "relax_steps")
    said = {name: record[name] for name in kept}
    for name in ("processes", "timeout_s"):
        said["label"].pop(name)
    return {**said, "sampling": {key: record["sampling"][key] for key in ("ensemble", "temperature", "timestep")}}
