"""What a reader may open in the shift explorer, as named sets: frames, files, samples, runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from mlipkit.data import FrameSet, Split
from mlipkit.errors import DataError
from mlipkit.events import Judged
from mlipkit.runs import MDSpec, Run
from mlipkit.runs.frames import RunFrames
from mlipkit.runs.places import short_place
from mlipkit.runs.spec import FittingSpec

from .shift_data import ShiftSet

MOST_REPLICAS = 8


def resolve(sets: Any) -> list[ShiftSet]:
    """Named sets of what was given.

    Args:
        sets: None, a FrameSet, a structure or a list of them, a place as specifications name it (a file, a sample, a
            run folder), a run, or a list or mapping (name -> one) of these. Of a training run the frames that it was
            trained on, of a simulation its frames, also while they grow.

    Raises:
        DataError, RunError: nothing that can be read.
    """
    if sets is None:
        return []
    if isinstance(sets, Mapping):
        named: Iterable[tuple[str | None, Any]] = [(str(name), one) for name, one in sets.items()]
    elif isinstance(sets, str | os.PathLike | FrameSet | Atoms) or _all_atoms(sets):
        named = [(None, sets)]
    else:
        named = [(None, one) for one in sets]
    found: list[ShiftSet] = []
    for name, one in named:
        for made in _sets_of(one, name):
            made.name = _free(made.name, [other.name for other in found])
            found.append(made)
    return found


def place_of(one: ShiftSet) -> str:
    """The set as one would name it in a specification or in code."""
    if one.run is not None:
        return short_place(one.run.folder)
    assert isinstance(one.frames, FrameSet)
    return str(one.origin or one.name)


def mark_from_run(one: ShiftSet) -> bool:
    """Put first warning and failure of the simulation on their frames; True when something is new."""
    if one.run is None or not isinstance(one.frames, RunFrames) or not len(one.frames):
        return False
    warned, failed = [], []
    for entry in one.run.entries():
        if isinstance(entry.event, Judged) and entry.event.verdict.replica == one.replica:
            verdict = entry.event.verdict
            warned += [verdict.step] if verdict.outcome == "warning" else []
            failed += [verdict.step] if verdict.outcome == "failed" else []
            warned += [verdict.first_warning] if verdict.first_warning is not None else []
    marks = {one.frames.at_step(min(warned)): "warning"} if warned else {}
    marks |= {one.frames.at_step(failed[-1]): "failure"} if failed else {}
    changed, one.marks = marks != one.marks, marks
    return changed


def _sets_of(one: Any, name: str | None) -> list[ShiftSet]:
    if isinstance(one, ShiftSet):
        return [one]
    if isinstance(one, FrameSet):
        return [ShiftSet(name or _name_of(one), one)]
    if isinstance(one, ShiftSet):
        return [one]
    if isinstance(one, Run):
        return _run_sets(one, name)
    if isinstance(one, Atoms):
        return [ShiftSet(name or "structure", FrameSet.from_atoms([one]))]
    if isinstance(one, str | os.PathLike):
        text = os.fspath(one)
        if (Path(text) / "spec.yaml").is_file():
            return _run_sets(Run(text), name)
        from mlipkit.runs.building_data import read_frames

        frames = read_frames(text, Path.cwd(), allow_partial=True)
        return [ShiftSet(name or _stem(text), frames, origin=text)]
    if _all_atoms(one):
        return [ShiftSet(name or "structures", FrameSet.from_atoms(list(one)))]
    raise DataError(
        "cannot be shown", where="ShiftExplorer", expected="frames, a file, a sample or a run", found=type(one).__name__
    )


def _run_sets(run: Run, name: str | None) -> list[ShiftSet]:
    name = name or run.name
    if isinstance(run.spec, FittingSpec):
        return [ShiftSet(name, _trained_on(run), origin=short_place(run.folder))]
    if not isinstance(run.spec, MDSpec):
        from mlipkit.runs.building_data import read_frames

        return [ShiftSet(name, read_frames(str(run.folder), Path.cwd(), allow_partial=True), origin=str(run.folder))]
    count = min(len(run.replicas), MOST_REPLICAS)
    made = []
    for number in range(count):
        frames = RunFrames(run.replica_folder(number))
        frames.refresh()
        one = ShiftSet(name if count == 1 else f"{name} #{number}", frames, run=run, replica=number)
        mark_from_run(one)
        made.append(one)
    return made


def _trained_on(run: Run) -> FrameSet:
    """Training frames of a training run, as its own record says."""
    from mlipkit.runs.building_data import read_frames

    assert isinstance(run.spec, FittingSpec)
    frames = read_frames(run.spec.data, run.files.base, keys=run.spec.keys, units=run.spec.units, allow_partial=True)
    record = run.files.read("split.json")
    if not record:
        return frames
    if run.spec.validation or run.spec.test:
        return frames.select_uids(record["uids"]["train"])
    return Split.from_json(frames, record).train


def _all_atoms(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(len(value)) and all(isinstance(item, Atoms) for item in value)


def _name_of(frames: FrameSet) -> str:
    names = {frames.sources[int(code)] for code in frames.source_codes}
    return _stem(names.pop()) if len(names) == 1 else f"{len(frames)} frames"


def _stem(text: str) -> str:
    """``naive_50`` from ``data/naive_50.extxyz``."""
    name = text.rpartition("/")[2] or text
    name = name.partition(":")[2] or name
    for suffix in (".gz", ".bz2", ".xz", ".extxyz", ".xyz", ".traj", ".npz", ".db"):
        name = name.removesuffix(suffix)
    return name


def _free(name: str, taken: Sequence[str]) -> str:
    number = 2
    wanted = name
    while wanted in taken:
        wanted = f"{name} ({number})"
        number += 1
    return wanted
