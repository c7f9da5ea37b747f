"""Makes recordings: run folders of ended runs, as small as their views allow and without what belongs to a machine."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from mlipkit.errors import RunError
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.runs.frames import LAST_STEPS, STORED
from mlipkit.runs.run import ACTIVE, Run
from mlipkit.runs.shipped import CARD, RUNS

KEPT = (
    "spec.yaml", "replicas.json", "progress.json", "events.jsonl", "parity.npz", "split.json", "finetune.json",
    "rollouts.json", "labelled.extxyz", "labelled.json", "labels.jsonl", "plan.json", "provenance.jsonl",
    "evaluation.json", "errors.npz", "taip.json", "taip_maps.npz",
)  # fmt: skip
"""Files that views read of a run; checkpoints and the process's own files stay behind."""
STAGES = "stages"
UNREAD = (
    "checkpoints", "series", STORED, LAST_STEPS, "frames.extxyz", "labels.jsonl", "labelled.json", "finetune.json",
    "metrics.json", "bond_scan.json", ".*",
)  # fmt: skip
"""Of the stages of a workflow that has been evaluated: what no view reads any more."""
FACTS, ABSENT = "stage.json", "split.json"
"""Of the stages of iterative pretraining: all that views read; and a file that none reads of it."""
OF_THE_MACHINE = ("executable", "host")
"""Entries of `versions.json` that say nothing to others."""
TEXT = (".yaml", ".json", ".jsonl")


def record(run: Run, folder: str | os.PathLike[str], every: int = 1, last: int = 1) -> Path:
    """Make a recording of an ended run in a new folder `folder`/runs/NAME; returns that.

    Args:
        folder: of the recordings of one notebook. Relative places in the specifications count from it, as they
            counted from the folder of the launch: files that they name lie there, other recordings in its `runs`.
        every: keep one of so many stored frames and rows of the curves of a simulation, as they are.
        last: the same of the steps before a failure, which lie there one by one; the very last one is kept.

    Raises:
        RunError: it has not ended, or the folder exists; `every` would leave out the end of a whole simulation.
    """
    steps = getattr(run.current_spec, "steps", 0) or 0
    if steps % every:
        raise RunError("would leave out the last step", where=("every", run.name), expected=f"a divisor of {steps}",
                       found=every)  # fmt: skip
    if run.state in ACTIVE or run.started_at is None:
        raise RunError("only what has ended is recorded", where=run.name, found=run.state)
    made = RunFolder(Path(folder) / RUNS / run.name)
    if made.path.exists():
        raise RunError("the folder exists", where=str(made.path))
    made.path.mkdir(parents=True)
    for name in KEPT:
        if (run.folder / name).is_file() and not (run.kind == "ipip" and name == ABSENT):
            shutil.copyfile(run.folder / name, made.path / name)
    if run.kind == "ipip":
        for file in sorted(run.folder.glob(f"{STAGES}/*/{FACTS}")):
            into = made.path / file.parent.relative_to(run.folder)
            into.mkdir(parents=True)
            # Many, and read by machines: half of them would be blanks.
            write_text(into / FACTS, json.dumps(json.loads(file.read_text(encoding="utf-8")), separators=(",", ":")))
    elif (run.folder / STAGES).is_dir():
        shutil.copytree(run.folder / STAGES, made.path / STAGES, ignore=shutil.ignore_patterns(*UNREAD))
    for place in (run.folder, *sorted(run.folder.glob("replica_*"))):
        _record_simulation(place, made.path / place.relative_to(run.folder), every, last)
    _forget_places(made.path, (run.folder, run.files.base))
    versions = {key: value for key, value in run.files.read("versions.json").items() if key not in OF_THE_MACHINE}
    made.write("versions.json", versions)
    created = run.files.read("launch.json").get("created", run.started_at)
    made.write("launch.json", {"created": created, "cwd": os.path.join("..", "..")})
    day = time.gmtime(run.started_at)
    card = {"day": f"{day.tm_mday} {time.strftime('%B %Y', day)}", "cpus": versions.get("cpus")}
    thinned = every > 1 and any(run.folder.glob(f"**/{STORED}"))
    made.write(CARD, {**card, **({"every": every} if thinned else {})})
    return made.path


def _record_simulation(source: Path, target: Path, every: int, last: int) -> None:
    """Frames and series of one folder, whole or thinned."""
    target.mkdir(exist_ok=True)
    for name, step in ((STORED, every), (LAST_STEPS, last)):
        if (source / name).is_file() and step == 1:
            shutil.copyfile(source / name, target / name)
        elif (source / name).is_file():
            _thin_frames(source / name, target / name, step, backwards=name == LAST_STEPS)
    for series in sorted((source / "series").glob("*/series.json")):
        into = target / "series" / series.parent.name
        if every == 1 or series.parent.name != "md":
            shutil.copytree(series.parent, into)
        else:
            _thin_series(series.parent, into, every)


def _thin_frames(source: Path, target: Path, every: int, backwards: bool) -> None:
    """One frame of so many, counted from the first one or, `backwards`, from the last."""
    from ase.io.trajectory import TrajectoryReader, TrajectoryWriter

    with TrajectoryReader(str(source)) as frames, TrajectoryWriter(str(target)) as kept:
        rows = range(len(frames))
        for row in rows[::-every][::-1] if backwards else rows[::every]:
            kept.write(frames[row])


def _thin_series(source: Path, target: Path, every: int) -> None:
    import numpy as np

    from mlipkit.data.series import Series, SeriesWriter

    series = Series(source)
    columns = series.read()
    writer = SeriesWriter(target, series.units)
    writer.append(np.column_stack([columns[name] for name in series.columns])[::every])
    writer.close()


def _forget_places(made: Path, places: tuple[Path, ...]) -> None:
    """Paths of the machine become relative ones."""
    for file in made.rglob("*"):
        if file.suffix in TEXT:
            text = file.read_text(encoding="utf-8")
            short = text
            for place in places:
                short = short.replace(f"{place}{os.sep}", "")
            if short != text:
                write_text(file, short)
