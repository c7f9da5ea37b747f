"""The closed loop as specifications: label what led to a failure, train on, simulate again, hotter.

>>> picked = before_failure(run)                             # at most ten frames
>>> picked.selection.export("selections/hot.extxyz", picked.frames)
>>> labelled = launch(label_step(run, "selections/hot.extxyz"))
>>> trained = launch(train_step(run, labelled))
>>> again = launch(simulate_step(run, trained))
>>> survival_change(run, again).sentence
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlipkit.errors import MlipkitError, RunError
from mlipkit.runs.folder import read_json
from mlipkit.runs.places import file_name, short_place
from mlipkit.runs.replicas import FS_PER_PS, Replicas
from mlipkit.runs.run import Run, run_at
from mlipkit.runs.spec import FinetuneSpec, FittingSpec, LabelSpec, MDSpec, parse_spec
from mlipkit.runs.spec_md import listed
from mlipkit.runs.spec_train import places_in

if TYPE_CHECKING:
    from mlipkit.analysis.survival import Survival

HOTTER = 1.25
"""A stable simulation is repeated at a temperature so much higher."""
HELD_OUT = 5
"""One new frame of so many is for validation."""
LEARNING_RATE = 1e-3
"""Of the training on: that of a first training, as the new frames are far from what is known."""
LABELLED = "labelled.json"
"""What a label run leaves about its labels."""
MAKERS = {"GFN1-xTB": "gfn1-xtb", "GFN2-xTB": "gfn2-xtb"}
"""Level of theory of packaged sets -> label maker that gives the same."""


def trained_on(potential: str) -> list[str]:
    """Places of the frames that a potential learned from: of a training run its data, of a packaged one its set."""
    spec = fitting_of(potential)
    return listed(spec.data) if spec is not None else []


def maker_of(potential: str) -> str | None:
    """Label maker whose level of theory is that of the potential's training frames; None when it is not known."""
    from mlipkit.data import samples

    for place in trained_on(potential):
        name = place.removeprefix("sample:").partition("@")[0]
        if place.startswith("sample:") and name in samples.names():
            return MAKERS.get(str(samples.card(name).get("level_of_theory", "")).partition(" ")[0].rstrip(","))
        folder = Path(place.partition("@")[0])
        if (folder / "spec.yaml").is_file():
            spec = Run(folder).spec
            if isinstance(spec, LabelSpec):
                return spec.maker
    return None


def level_of(potential: str) -> str:
    """Level of theory of the frames that a potential learned from; "" where it is not known."""
    from mlipkit.data import samples

    for place in trained_on(potential):
        name = place.removeprefix("sample:").partition("@")[0]
        if place.startswith("sample:") and name in samples.names():
            return str(samples.card(name).get("level_of_theory", ""))
        record = Path(place.partition("@")[0]) / LABELLED
        if record.is_file():
            return str(read_json(record).get("maker", {}).get("level_of_theory", ""))
    return ""


def label_step(
    run: Run | str | os.PathLike[str], frames: str | os.PathLike[str], maker: str | None = None
) -> LabelSpec:
    """Label frames that were picked from a simulation, at the level of theory of its potential where that is known."""
    spec = _md(run)
    return LabelSpec(
        data=short_place(frames), maker=maker or maker_of(spec.potential) or LabelSpec.model_fields["maker"].default,
        name=f"label_{Path(frames).stem}"[:80], threads=spec.threads,
    )  # fmt: skip


def train_step(
    run: Run | str | os.PathLike[str], labelled: Run | str, level: str = "", **changes: object
) -> FinetuneSpec:
    """Train the simulation's potential on: from its last checkpoint, on its old frames and the new ones.

    It is judged on one new frame of five, which it does not see: on the frames that it was validated on before, which
    are like its old training set, whatever it learns of the new ones would count for nothing and the old weights would
    be kept. Whether it forgets shows on its old test set. The energy zero stays: the new labels have that of the old.

    Labels of two levels of theory do not mix: where the new ones are known to be of another level than the old
    training set, it learns from the new ones alone, with the energy zero fitted to them.

    Args:
        run: the simulation.
        labelled: run that labelled the new frames, or their file.
        level: level of theory of the new labels where it is known.
        changes: fields that shall differ.
    """
    spec = _md(run)
    place = labelled if isinstance(labelled, str) else short_place(labelled.folder)
    known = trained_on(spec.potential)
    # Of frames that were learned from already, nothing is held out a second time.
    old = [one for one in known if one.partition("@")[0] != place]
    before = fitting_of(spec.potential)
    apart, new = _held_out(labelled, place)
    apart += [one for one in places_in(before.validation) if _labels_of_a_run(one)] if before is not None else []
    other = other_level(spec.potential, level)
    if other:
        old, apart = [], _held_out(labelled, place)[0]
    fields: dict[str, object] = {
        "potential": spec.potential, "data": [*old, new], "name": f"train_on_{stem(place)}"[:80],
        "recipe": {"shifts": "fit" if other else "keep"}, "retention": None, "threads": spec.threads,
        "device": spec.device, "optimiser": {"learning_rate": LEARNING_RATE},
    }  # fmt: skip
    if other:
        fields |= {"validation": apart or None, "split": {"test": 0}}
    elif before is not None:
        fields |= {"batch_size": before.batch_size, "test": before.test}
        fields["validation"] = apart or before.validation
        # Parts of its old data would have been learned from already.
        fields["split"] = {"test": 0} if before.test is None else {}
    return FinetuneSpec(**{**fields, **changes})  # type: ignore[arg-type]


def other_level(potential: str, level: str) -> str:
    """The level of theory of a potential's training frames when it is known, and not the given one; else ""."""
    known = level_of(potential) if level else ""
    return known if known != level else ""


def _labels_of_a_run(place: str) -> bool:
    """Whether frames come out of a run: of an earlier round, not of the potential's first training."""
    return (Path(place.partition("@")[0]) / "spec.yaml").is_file()


def _held_out(labelled: Run | str, place: str) -> tuple[list[str], str]:
    """(places of new frames for validation, place of the others); of less than five none are held out."""
    if isinstance(labelled, Run) and "labelled" in labelled.facts():
        count = int(labelled.facts()["labelled"])
    else:
        from mlipkit.runs.building_data import read_frames

        try:
            count = len(read_frames(place, Path.cwd(), allow_partial=True))
        except MlipkitError:  # the launch will say what is wrong with it
            count = 0
    held = count // HELD_OUT
    return ([f"{place}@:{held}"], f"{place}@{held}:") if held else ([], place)


def simulate_step(run: Run | str | os.PathLike[str], potential: Run | str) -> MDSpec:
    """The same simulation with another potential: equal starts, seeds, temperatures and checks."""
    place = potential if isinstance(potential, str) else short_place(potential.folder)
    spec = _md(run)
    return spec.changed(potential=place, name=_next_name(spec.name or spec.default_name))


def hotter_step(run: Run | str | os.PathLike[str], factor: float = HOTTER) -> MDSpec:
    """The same simulation at a higher temperature, rounded to 10 K."""
    spec = _md(run)
    temperatures = [max(round(one * factor, -1), one + 10) for one in listed(spec.temperature)]
    made = spec.changed(temperature=temperatures if len(temperatures) > 1 else temperatures[0])
    return made.changed(name=f"{stem(spec.potential)}_{made.default_name}"[:80])


@dataclass(frozen=True)
class SurvivalChange:
    """Survival of equal simulations with two potentials.

    Attributes:
        before, after: survival curves, fs.
        p_value: log-rank test of equal survival; 1 when nothing failed.
        sentence: in words, with the exact intervals of the shares that held.
    """

    before: Survival
    after: Survival
    p_value: float
    sentence: str


def survival_change(
    before: Run | str | os.PathLike[str], after: Run | str | os.PathLike[str], confidence: float = 0.95
) -> SurvivalChange:
    """Compare how long equal simulations hold with two potentials.

    Simulations that were ended early count in the curves as long as they were followed, not in the shares that held.

    Args:
        before, after: MD runs, or their folders.
        confidence: of the intervals.

    Raises:
        RunError: simulations that differ in more than the potential, or that have not ended.
    """
    from mlipkit.analysis.survival import clopper_pearson, kaplan_meier, log_rank, restricted_mean

    before, after = run_at(before), run_at(after)
    one, two = _md(before), _md(after)
    for name in ("temperature", "timestep", "steps", "ensemble", "replicas", "start", "friction", "checks", "seed"):
        if getattr(one, name) != getattr(two, name):
            raise RunError(
                "not the same simulation", where=(after.name, name), expected=getattr(one, name),
                found=getattr(two, name), hint="simulate_step() repeats a simulation with another potential",
            )  # fmt: skip
    curves, shares = [], []
    for run in (before, after):
        if run.active:
            raise RunError(f"is {run.state}", where=run.name, hint="Wait for its end")
        members = [each for each in Replicas(run) if each.time > 0 or each.failed]
        if not members:
            raise RunError("no simulation has begun", where=run.name)
        curves.append(
            kaplan_meier([m.time for m in members], [m.failed for m in members], reasons=[m.why for m in members])
        )
        early = sum(m.fate == "ended" for m in members)
        known, held = len(members) - early, sum(m.fate == "held" for m in members)
        low, high = clopper_pearson([held], [known], confidence)
        share = f"{held} of {known} held [{low[0]:.0%}, {high[0]:.0%}]" if known else f"all {early} ended early"
        shares.append(f"{share} and {early} ended early" if known and early else share)
    p_value = log_rank(curves[0], curves[1])
    end = max(curve.longest for curve in curves) / FS_PER_PS
    said = f"Over {end:.3g} ps {shares[0]} before, {shares[1]} after"
    if p_value < 1 - confidence:
        # A curve that has come to zero is known for ever, the others to their longest simulation.
        ends = [curve.longest for curve in curves if not curve.failed.all()]
        until = min(ends) if ends else max(curve.longest for curve in curves)
        longer = restricted_mean(curves[1], until) > restricted_mean(curves[0], until)
        said += f": simulations hold {'longer' if longer else 'less long'} than before (log-rank p = {p_value:.2g})."
    else:
        said += f": undecided, a difference of this size can arise by chance (log-rank p = {p_value:.2g})."
    return SurvivalChange(curves[0], curves[1], p_value, said)


def _md(run: Run | str | os.PathLike[str]) -> MDSpec:
    run = run_at(run)
    if not isinstance(run.spec, MDSpec):
        raise RunError("is no simulation", where=run.name, expected="an MD run", found=run.kind)
    spec = run.current_spec
    assert isinstance(spec, MDSpec)
    return spec


def fitting_of(potential: str) -> FittingSpec | None:
    """The specification by which a potential was trained: of a run, of a packaged one; None of all others."""
    if potential.startswith("sample:"):
        from mlipkit.data import samples

        record = samples.potential_card(potential.removeprefix("sample:"))["training"]["specification"]
        spec = parse_spec(record, potential)
    elif (Path(potential) / "spec.yaml").is_file():
        spec = Run(potential).spec
    else:
        return None
    return spec if isinstance(spec, FittingSpec) else None


def _next_name(name: str) -> str:
    """``hot``, ``hot_round2``, ``hot_round3``: one simulation with the potentials of each round."""
    head, _, number = name.rpartition("_round")
    if head and number.isdigit():
        return f"{head}_round{int(number) + 1}"
    return f"{name[:72]}_round2"


def stem(place: str | os.PathLike[str]) -> str:
    """Last word of a place, as part of a name: ``ethanol_50`` of ``sample:ethanol_50``."""
    text = os.fspath(place).rstrip("/").rpartition("/")[2].rpartition(":")[2]
    for suffix in (".extxyz", ".xyz", ".safetensors"):
        text = text.removesuffix(suffix)
    return file_name(text)
