"""Iterative pretraining as a run: from the specification to teacher, students, frames and the strategy."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.errors import MlipkitError, SpecError
from mlipkit.events import Control, EventSink, Finished, Message, ignore
from mlipkit.runs.building_forces import device_of, source_of
from mlipkit.runs.building_train import split_frames
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.runs.places import absolute, factory_of, load_factory, run_of
from mlipkit.runs.spec_ipip import IPIPSpec, StudentTrainingSpec

if TYPE_CHECKING:
    from mlipkit.models import BasePotential
    from mlipkit.strategies.ipip import LoopTools
    from mlipkit.training import TrainSettings

STATES: dict[str, Any] = {"completed": "completed", "stopped": "stopped", "waiting": "stopped", "failed": "failed"}


def run_ipip(spec: IPIPSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    """Do what the plan says, or go on where the folder stands."""
    from mlipkit.strategies import ipip
    from mlipkit.strategies.ipip.evaluating import selected_row

    others = [folder for text in spec.reuse if (folder := run_of(text, base)) is not None]
    tools = tools_of(spec, base, sink, files)
    outcome = ipip.run_ipip(spec.plan, files.path, tools, sink, control, reuse=others)
    facts = {**outcome.facts, "ipip": outcome.state, "stage": outcome.stage}
    facts["stage_seconds"] = facts.pop("seconds", {})
    found = files.read("evaluation.json")
    reason = outcome.reason
    if outcome.state == "completed" and found:
        row, teacher = selected_row(found), found["rows"][0]
        reason += (
            f". Test forces {row['forces_mae']:.3g} meV/Å (zero-shot teacher {teacher['forces_mae']:.3g}), energies "
            f"{row['energy_mae']:.3g} meV/atom; whether that is a gain shows only beside the other arms"
        )
        facts["test"] = {name: row[name] for name in ("forces_mae", "energy_mae", "forces_norm")}
    return Finished(STATES[outcome.state], reason, facts)


def tools_of(spec: IPIPSpec, base: Path, sink: EventSink | None = None, files: RunFolder | None = None) -> LoopTools:
    """The tools that a specification names.

    Raises:
        SpecError, DataError, ModelError: something that it names is not there or does not fit.
    """
    from mlipkit.strategies.ipip import LoopTools
    from mlipkit.strategies.ipip.tools import CONTENT

    parts = split_frames(spec.reading, base, sink)
    if files is not None:
        write_text(files.path / "split.json", json.dumps(parts.to_json()))
    teacher = teacher_of(spec, base)
    precision = str(teacher.dtype).removeprefix("torch.")
    if sink is not None and precision != spec.dtype:
        sink(Message(f"The teacher {spec.teacher} computes in {precision}, the students in {spec.dtype}"))
    tuning = spec.teacher_tuning
    tools = LoopTools(
        teacher=teacher, train=parts.train, validation=parts.validation, test=parts.test, encoder=spec.model.encoder,
        options=spec.model.encoder_options, head=spec.model.head, device=device_of(spec.device),
        pretraining=training_settings(spec, spec.pretraining), finetuning=training_settings(spec, spec.finetuning),
        teacher_tuning=training_settings(
            spec, spec.finetuning, batch_size=tuning.batch_size, learning_rate=tuning.learning_rate,
            points_per_epoch=tuning.batch_size * spec.finetuning.look_every,
        ),
        accept_teacher=spec.accept_teacher,
        words={"teacher": spec.teacher, "dtype": spec.dtype, CONTENT: content_of(spec.teacher, base, teacher)},
    )  # fmt: skip
    _check_fit(spec, tools)
    return tools


def _check_fit(spec: IPIPSpec, tools: LoopTools) -> None:
    """Refuse before any simulation what would show hours later."""
    from ase.data import atomic_numbers, chemical_symbols

    from mlipkit.models import CalculatorPotential
    from mlipkit.strategies.ipip.fitting import SIGNAL
    from mlipkit.strategies.ipip.signals import signals
    from mlipkit.training import EnergyForcesStress
    from mlipkit.training.preflight import check_labels

    terms = [EnergyForcesStress.from_settings(tools.settings("finetuning", 1))]
    check_labels(terms, tools.train, tools.validation, ignore)
    if spec.method in ("n2n", "a2a"):
        # Whether a teacher has them is known once it is asked.
        signals(tools.teacher, tools.train[:1], SIGNAL[spec.method])
    elements = {*tools.train.elements, *tools.validation.elements, *tools.test.elements}
    if spec.method == "teacher" and isinstance(tools.teacher, CalculatorPotential):
        raise SpecError("a teacher that is a calculator has no weights to fine-tune", where=("arm", spec.method),
                        hint="Leave this arm out: zero-shot it stands in every other arm's evaluation")  # fmt: skip
    for name, test in (("stability", spec.stability), ("reaction", spec.reaction)):
        if test.runs and test.track and atomic_numbers[test.track] not in elements:
            raise SpecError("no such atom in the data", where=(name, "track"), found=test.track,
                            expected=" or ".join(chemical_symbols[z] for z in sorted(elements)))  # fmt: skip


def teacher_of(spec: IPIPSpec, base: Path) -> BasePotential:
    """The teacher: a potential by its place, or what a factory makes; calculators are wrapped.

    Raises:
        SpecError: the factory raises.
    """
    from mlipkit.models import BasePotential, CalculatorPotential, load

    if factory_of(spec.teacher) is None:
        return load(source_of(spec.teacher, base)).to(device_of(spec.device)).eval()
    try:
        made: Any = load_factory(spec.teacher, base)()
    except MlipkitError:
        raise
    except Exception as error:  # code of the user
        raise SpecError(
            f"the factory raises {type(error).__name__}: {error}", where=("teacher", spec.teacher),
            expected="a function without arguments that gives a potential or an ASE calculator",
        ) from error  # fmt: skip
    return made.to(device_of(spec.device)).eval() if isinstance(made, BasePotential) else CalculatorPotential(made)


def content_of(text: str, base: Path, teacher: BasePotential) -> str:
    """What tells a teacher from another of the same name: its weights, the version of its package, its code."""
    from mlipkit.models import UniversalPotential
    from mlipkit.strategies.finetuning.record import digest

    factory = factory_of(text)
    if factory is not None:
        home = factory[0]
        path = base / Path(home).expanduser() if home.endswith(".py") else Path(sys.modules[home].__file__ or "")
        # What it does, not how it is written: a comment is no other teacher.
        code = ast.dump(ast.parse(path.read_bytes())) if path.suffix == ".py" and path.is_file() else ""
        return hashlib.blake2b(code.encode(), digest_size=16).hexdigest()
    if isinstance(teacher, UniversalPotential):
        told = teacher.describe()
        packaged = absolute(text, base) is None
        return f"{told['package']} {told['version']}" + ("" if packaged else f" {digest(teacher)}")
    return digest(teacher)


def training_settings(spec: IPIPSpec, one: StudentTrainingSpec, **changes: Any) -> TrainSettings:
    """The numbers of a training as `mlipkit.training` takes them; steps and seeds come from the plan."""
    from mlipkit.training import TrainSettings

    given: dict[str, Any] = {
        "batch_size": one.batch_size, "points_per_epoch": one.batch_size * one.look_every, "loss": one.loss.kind,
        "huber_delta": one.loss.huber_delta, "energy_weight": one.loss.energy, "forces_weight": one.loss.forces,
        "stress_weight": one.loss.stress, "energy_unit": one.loss.energy_unit, "precision": spec.dtype,
        "device": spec.device, **one.optimiser.model_dump(),
    }  # fmt: skip
    return TrainSettings(**{**given, **changes})
