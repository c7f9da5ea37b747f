"""Labelling: from the specification to frames, the recipe of an engine and the job; what came out, in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.errors import SpecError
from mlipkit.events import Control, EventSink, Finished, Message
from mlipkit.labelling import CalculatorLabels, Labelled, LabelMaker, PotentialLabels, Recipe, label_frames, recipe_of
from mlipkit.labelling.makers import RECORDED
from mlipkit.runs.building_data import file_of, read_frames
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.places import PREFIXES, load_factory
from mlipkit.runs.spec_label import LabelSpec

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

FACTORY = "mlipkit.runs.building_label:maker_of_factory"


def frames_to_label(spec: LabelSpec, base: Path) -> FrameSet:
    """The frames of a specification, its part of them, with or without labels."""
    frames = read_frames(spec.data, base, allow_partial=True)
    return frames[spec.slice(len(frames))]


def recipe_for(spec: LabelSpec, base: Path) -> Recipe:
    """The recipe of a specification's engine; relative paths are meant against `base`."""
    if spec.engine == "calculator":
        return Recipe(FACTORY, {"factory": spec.maker, "base": str(base)})
    if spec.engine == "recorded":
        text = spec.maker.removeprefix(RECORDED)
        source = text if text.partition(":")[0] in PREFIXES else file_of(text, base)
        return recipe_of(f"{RECORDED}{source}", **spec.options)
    if spec.engine == "potential":
        # A view of a labelled run reads its frames by this file, and needs no torch.
        from mlipkit.runs.building_forces import device_of, source_of

        return Recipe("potential", {
            "potential": str(source_of(spec.maker, base)), "device": device_of(spec.device), "dtype": spec.dtype,
        })  # fmt: skip
    return recipe_of(spec.maker, **spec.options)


def maker_of_factory(factory: str, base: str) -> LabelMaker:
    """What a factory makes, as a label maker: a calculator, a potential, or a label maker of its own.

    Raises:
        SpecError: no such factory, or it makes none of these.
    """
    made: Any = load_factory(factory, Path(base))()
    if isinstance(made, LabelMaker):
        return made
    if hasattr(made, "get_property"):
        return CalculatorLabels(made, name=factory)
    from mlipkit.models import BasePotential

    if isinstance(made, BasePotential):
        return PotentialLabels(made)
    raise SpecError(
        "the factory gives nothing that labels", where=("maker", factory),
        expected="an ASE calculator, a Potential or a LabelMaker", found=type(made).__name__,
    )  # fmt: skip


def run_labelling(spec: LabelSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    """Label what the specification names, or go on where the folder stands."""
    frames = frames_to_label(spec, base)
    if not len(frames):
        return Finished(
            "completed", f"part {spec.part} holds no frame", {"asked": 0, "labelled": 0, "failed_frames": 0}
        )
    found = label_frames(
        frames, recipe_for(spec, base), files.path, timeout=spec.timeout_s, processes=spec.n_processes,
        threads=max(1, spec.threads // spec.n_processes), retries=spec.retries, retry_failed=spec.retry_failed,
        max_force=spec.max_force, sink=sink, control=control,
    )  # fmt: skip
    return _last_word(found, sink)


def _last_word(found: Labelled, sink: EventSink) -> Finished:
    facts = {
        "asked": found.n_asked, "labelled": len(found.frames), "failed_frames": len(found.failed),
        "failure_reasons": dict(found.reasons), "engine_s": round(found.seconds, 3),
        "engine_cpu_s": round(found.cpu_seconds, 3), "level_of_theory": found.maker.get("level_of_theory"),
    }  # fmt: skip
    if found.n_missing:
        return Finished("stopped", f"stopped by the user, {found.sentence}", facts)
    if found.failed:
        sink(Message(found.sentence, "warning"))
    return Finished("completed" if len(found.frames) else "failed", found.sentence, facts)
