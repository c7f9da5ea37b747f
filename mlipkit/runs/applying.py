"""`what_applies`: which strategies fit these frames and this potential, what they lack, what they would cost.

>>> answers = what_applies("sample:ethanol_600K", "universal:so3lr")
>>> answers["finetune"].sentence, answers["finetune"].expected.sentence
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.errors import DataError, MlipkitError, torch_is_there
from mlipkit.runs import remembered
from mlipkit.runs.applying_potential import choose_maker, maker_of_place, model_of, model_of_object
from mlipkit.runs.places import factory_of, installed_universal, run_of
from mlipkit.runs.probing import LATE, Probe, measure_model
from mlipkit.strategies.applies import Answers, Frames, Maker, Model, Rates, Room, Situation, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from mlipkit.data import FrameSet

WITHIN_S = 5.0
RESERVE_S = 0.4
"""For the answers themselves, after what was measured."""


def what_applies(
    frames: FrameSet | Sequence[Atoms] | str | os.PathLike[str], potential: Any = None, *, maker: str | None = None,
    within: float = WITHIN_S, measure: bool = True,
) -> Answers:  # fmt: skip
    """What each strategy says of these frames and this potential, within seconds.

    Nothing is started, changed or downloaded. One call, one gradient and one label are timed in processes of their own;
    what does not fit in the time is unknown, unless it was measured on this machine before.

    Args:
        frames: a frame set, structures, or a place (sample, file, run, factory; see `mlipkit.runs.places`).
        potential: a place (universal:so3lr, sample:NAME, a file, a run, a factory), an object, or None.
        maker: label maker; by default that of the potential's training frames where it is known, else one that fits.
        within: s, after which nothing is measured any more.
        measure: False: figures stay unknown.

    Raises:
        SpecError, DataError: frames, potential or maker name nothing: no such file, run, sample or factory.
    """
    begin, base = time.monotonic(), Path.cwd()
    torch = torch_is_there()
    object_given = potential is not None and not isinstance(potential, str | os.PathLike)
    model = _model(potential, base)
    place = model.place if model is not None else ""
    probes: dict[str, Probe] = {}
    try:
        if measure:
            # Packages are being loaded while frames are read.
            if torch:
                probes["potential"] = Probe("potential", _loadable(model), base)
            likely = maker_of_place(maker, base) if maker else choose_maker(Frames(), place, base)
            if _askable(likely):
                probes["label"] = Probe("label", likely.place, base)
        known, read = _frames(frames, base)
        chosen = maker_of_place(maker, base) if maker else choose_maker(known, place, base)
        before = Situation(known, model, chosen, room=_room(torch), universals=tuple(installed_universal()))
        notes, rates = [] if measure else ["Nothing was measured."], Rates()
        if measure and read is not None and len(read):
            atoms = read[_middle(read)]
            if "label" in probes and probes["label"].place != chosen.place:
                probes.pop("label").close()
                if _askable(chosen):
                    probes["label"] = Probe("label", chosen.place, base)
            if "label" in probes and chosen.against(known):
                probes.pop("label").close()
            for probe in probes.values():
                probe.frame(atoms)
            # What the answers take is known before the time is up: the first round finds everything else.
            once = time.monotonic()
            ask(before)
            reserve = RESERVE_S + 2 * (time.monotonic() - once)
            deadline = begin + within - reserve
            own = _in_memory(potential, atoms, deadline) if object_given else {}
            said = {name: probe.until(deadline) for name, probe in probes.items()}
            said, notes = _with_remembered(said, probes, base, atoms)
            said["potential"] = {**said.get("potential", {}), **own}
            model = _seen(model, said["potential"])
            rates, why = _rates(said, chosen)
            notes += why
    finally:
        for probe in probes.values():
            probe.close()
    answers = tuple(ask(replace(before, potential=model, rates=rates)))
    seconds = round(time.monotonic() - begin, 3)
    return Answers(answers, _about(read), _named(model), tuple(notes), seconds, LATE in rates.why.values())


def _room(torch: bool) -> Room:
    from mlipkit.machine import memory_available
    from mlipkit.runs.queue import cores

    return Room(memory_available(), cores(), torch)


def _askable(maker: Maker) -> bool:
    """Whether a label may be asked for: a calculator of the user's own may be a DFT code, not called for a question."""
    return not maker.missing and factory_of(maker.place) is None and not maker.place.startswith("recorded:")


def _model(potential: Any, base: Path) -> Model | None:
    if potential is None:
        return None
    if isinstance(potential, str | os.PathLike):
        return model_of(os.fspath(potential), base)
    return model_of_object(potential)


def _loadable(model: Model | None) -> str:
    return model.place if model is not None and not model.missing and not model.wrong else ""


def _frames(given: Any, base: Path) -> tuple[Frames, FrameSet | None]:
    """Frames in numbers, and the frames."""
    from ase import Atoms

    from mlipkit.data import FrameSet

    if isinstance(given, FrameSet):
        place = given.sources[0] if len(given) and len(given.sources) == 1 else ""
        # A part of a sample is not the sample.
        return Frames.of(given, place if _is_whole(given, place) else ""), given
    if not isinstance(given, str | os.PathLike):
        images = [given] if isinstance(given, Atoms) else list(given) if isinstance(given, Iterable) else [given]
        if wrong := [one for one in images if not isinstance(one, Atoms)]:
            raise DataError("no frames", where="what_applies", expected="a FrameSet, structures of ASE or a place",
                            found=type(wrong[0]).__name__)  # fmt: skip
        made = FrameSet.from_atoms(images) if images else None
        return (Frames.of(made) if made is not None else Frames()), made
    place = os.fspath(given)
    if place.startswith("public:"):
        from mlipkit.data import public
        from mlipkit.runs.places import split_place

        name, index = split_place(place.removeprefix("public:"))
        read = public.get(name, index or ":", download=False, allow_partial=True)
    else:
        from mlipkit.runs.building_data import read_frames

        folder = run_of(place, base)
        if folder is not None and not _has_frames(folder):
            return Frames(place=place, simulation=_ending(folder)), None
        read = read_frames(place, base, allow_partial=True)
    ending = _ending(run_of(place, base))
    if ending:
        # What a simulation stores are its potential's own predictions: it would be taught its mistakes.
        read = read.without_labels()
    return Frames.of(read, place, ending), read


def _with_remembered(
    said: dict[str, dict[str, Any]], probes: dict[str, Probe], base: Path, atoms: Atoms
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What was said, or what an earlier measurement said where this one did not fit in the time; and notes on that."""
    notes, found = [], dict(said)
    for name, figures in said.items():
        if factory_of(probes[name].place) is not None:  # code of the user's own, which may change
            continue
        key = remembered.key_of(name, probes[name].place, base, atoms)
        if "error" not in figures:
            remembered.keep(key, figures)
        elif figures["error"] == LATE and (known := remembered.find(key)) is not None:
            found[name] = known[0]
            notes.append(f"What {probes[name].place or 'a new model'} takes was measured here on {known[1]}, not now.")
    return found, notes


def _is_whole(frames: FrameSet, place: str) -> bool:
    from mlipkit.data import samples

    name = place.removeprefix("sample:")
    return place.startswith("sample:") and name in samples.names() and len(samples.load(name)) == len(frames)


def _has_frames(folder: Path) -> bool:
    from mlipkit.runs.building_data import _output_of

    try:
        _output_of(folder, str(folder))
    except MlipkitError:
        return False
    return True


def _ending(folder: Path | None) -> str:
    """How a simulation ended: failed, held, or its state; "" for what is no simulation."""
    if folder is None:
        return ""
    from mlipkit.runs.replicas import Replicas
    from mlipkit.runs.run import Run

    run = Run(folder)
    if run.kind != "md":
        return ""
    if Replicas(run).n_failed:
        return "failed"
    return "held" if run.state == "completed" else f"is {run.state}"


def _middle(frames: FrameSet) -> int:
    """A frame of middle size."""
    return int(np.argsort(np.asarray(frames.n_atoms), kind="stable")[len(frames) // 2])


def _rates(said: dict[str, dict[str, Any]], maker: Maker) -> tuple[Rates, list[str]]:
    """Figures, and sentences on what could not be had."""
    one, label = said.get("potential", {}), said.get("label", {})
    notes, why = [], {}
    if "error" in one:
        why["potential"] = str(one["error"])
        notes.append(f"What training takes is not fully known: {one['error']}.")
    if "error" in label:
        why["label"] = str(label["error"])
        notes.append(f"What a label takes is not known: {maker.title} {label['error']}.")
    rates = Rates(
        one.get("new_gradient"), one.get("potential_call"), one.get("potential_gradient"), label.get("label"),
        one.get("new_bytes"), one.get("potential_bytes"), label.get("label_bytes"),
        one.get("potential_list", one.get("new_list")), why,
    )  # fmt: skip
    return rates, notes


def _in_memory(potential: Any, atoms: Atoms, deadline: float) -> dict[str, Any]:
    """Measure an object beside us; a call that does not come back in time is left to end by itself."""
    from mlipkit.strategies.applies.fitting import TUNE_BATCH

    said: dict[str, Any] = {}

    def work() -> None:
        from mlipkit.data import FrameSet

        try:
            if hasattr(potential, "encoder_parameters"):
                measure_model(potential, FrameSet.from_atoms([atoms]), TUNE_BATCH, _say(said), "potential")
        except Exception as error:
            said["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"

    thread = threading.Thread(target=work, daemon=True, name="what_applies")
    thread.start()
    thread.join(max(deadline - time.monotonic(), 0.0))
    return dict(said)


def _say(said: dict[str, Any]) -> Callable[..., None]:
    return lambda **figures: said.update(figures)


def _seen(model: Model | None, seen: dict[str, Any]) -> Model | None:
    """A model with what loading it has shown."""
    if model is None or not model.place:
        return model
    if seen.get("wrong"):
        return replace(model, wrong=str(seen["error"]))
    elements = tuple(seen["elements"]) if "elements" in seen else model.elements
    return replace(
        model, trainable=seen.get("trainable", model.trainable), elements=elements,
        parameters=seen.get("parameters", model.parameters),
    )  # fmt: skip


def _about(read: FrameSet | None) -> str:
    text = read.describe() if read is not None else "no frames"
    return f"Frames: {text}"


def _named(model: Model | None) -> str:
    if model is None:
        return "Potential: none"
    size = f", {model.parameters} weights" if model.parameters else ""
    return f"Potential: {model.title}{size}"
