"""Recorded runs that come with the notebooks: on screen at once, read only, and run here on a wish.

A recording is a run folder of an ended run, without what belongs to the machine that computed it, and with a
`recorded.json`. Views open it like any other run. ::

    NOTEBOOK/runs/RUN/        recordings of one notebook; relative places in them count from NOTEBOOK, as at the launch
    NOTEBOOK/boxes.extxyz     files that they read, where the notebook makes them
    NOTEBOOK/shown.json       how all of them are shown together, where a notebook does that: see `Exhibit`
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from mlipkit.errors import RunError, nearest
from mlipkit.runs.family import parents, runs_in
from mlipkit.runs.folder import read_json
from mlipkit.runs.launching import existing, launch
from mlipkit.runs.places import absolute, factory_of, split_place
from mlipkit.runs.run import Run
from mlipkit.runs.spec import AnySpec

CARD, RUNS, SHOWN = "recorded.json", "runs", "shown.json"


@dataclass(frozen=True)
class Exhibit:
    """What is shown of recordings, and what "Run here" launches.

    Attributes:
        view: the view of a run, or what a notebook shows of several.
        runs: the recordings, in the order of their launch.
        first: those that are launched here; what comes of them is launched in the notebook.
        folder: of the notebook's recordings.
        sets: with "explorer" name -> place of each set; recordings as ``runs/NAME``.
        compared: with "workbench" names of two simulations whose survival is compared.
    """

    view: Literal["run", "explorer", "comparison", "workbench"]
    runs: Sequence[Run]
    first: Sequence[Run]
    folder: Path
    sets: Mapping[str, str]
    compared: Sequence[str]


def recordings() -> list[str]:
    """Names of the recordings that are installed: ``"00_start_here/ethanol_1000_900K"``."""
    cards = _root().glob(f"*/{RUNS}/*/{CARD}")
    return sorted(f"{card.parents[2].name}/{card.parent.name}" for card in cards)


def exhibits() -> list[str]:
    """Notebooks that show several recordings together."""
    return sorted(card.parent.name for card in _root().glob(f"*/{SHOWN}"))


def recording(name: str) -> Run:
    """A recording.

    Args:
        name: one of `recordings()`.

    Raises:
        RunError: no such recording.
    """
    known = recordings()
    if name not in known:
        raise RunError(f"there is no recording '{name}'", hint=nearest(name, known))
    notebook, _, run = name.partition("/")
    return Run(_root() / notebook / RUNS / run)


def exhibit(name: str) -> Exhibit:
    """A recording, or all that a notebook shows together.

    Args:
        name: one of `recordings()` or `exhibits()`.

    Raises:
        RunError: neither.
    """
    folder = _root() / name
    if name not in exhibits():
        if name not in recordings():
            known = [*recordings(), *exhibits()]
            raise RunError(f"there is no recording '{name}'", hint=nearest(name, known))
        run = recording(name)
        return Exhibit("run", [run], [run], run.files.base, {}, ())
    card, runs = read_json(folder / SHOWN), runs_in(folder / RUNS)
    first = [run for run in runs if run.name in card.get("first", [run.name])]
    return Exhibit(card["view"], runs, first, folder, card.get("sets", {}), card.get("compared", ()))


def run_of_recording(run: Run, root: str | os.PathLike[str] = "runs") -> Run | None:
    """The run that `run_here` has launched in `root` before, or None."""
    return existing(_spec_here(run, root), root)


def recorded_on(run: Run) -> str:
    """The day of a recording in words, ``"22 November 2026"``; "" for every other run."""
    return str(_card(run).get("day", ""))


def kept_every(run: Run) -> int:
    """One frame and one row of the curves of so many were kept; 1: all."""
    return int(_card(run).get("every", 1))


def run_here(run: Run, root: str | os.PathLike[str] = "runs") -> Run:
    """Launch the specification of a recording on this machine, those of the recordings that it reads before it.

    What was launched before is opened again, as `launch` does. Files that the notebook makes for it are put where the
    specification looks for them, unless they are there.

    Raises:
        RunError: not a recording.
        SpecError: something that the run reads is not here.
    """
    if not recorded_on(run):
        raise RunError("is no recording", where=run.name, hint="duplicate() launches any run once more")
    for parent in _parents(run):
        run_here(parent, root)
    _bring_inputs(run)
    return launch(_spec_here(run, root), root=root)


def _root() -> Path:
    """Where the installed recordings lie."""
    try:
        return Path(str(resources.files("mlipkit_notebooks"))) / "recorded"
    except ModuleNotFoundError:
        return Path("recorded")


def _card(run: Run) -> dict[str, Any]:
    return run.files.read(CARD) if (run.folder / CARD).is_file() else {}


def _parents(run: Run) -> list[Run]:
    """Recordings whose output this one reads."""
    found = [Run(folder) for folder in parents(run) if folder != run.folder]
    return [parent for parent in found if recorded_on(parent)]


def _bring_inputs(run: Run) -> None:
    """Copy the files that lie beside the recordings to where a launch from this folder looks for them."""
    base = run.files.base.resolve()
    for _, text in run.spec.places():
        source = absolute(text, base)
        if factory_of(text) is not None or source is None or not source.is_file() or not source.is_relative_to(base):
            continue
        target = Path.cwd() / source.relative_to(base)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def _spec_here(run: Run, root: str | os.PathLike[str]) -> AnySpec:
    """Its specification with the runs that it reads where `launch` puts, or has put, them in `root`."""
    here = {}
    for parent in _parents(run):
        spec = _spec_here(parent, root)
        there = existing(spec, root)
        wanted = Path(root, spec.name or spec.default_name).expanduser().resolve()
        here[parent.folder] = os.fspath(there) if there is not None else str(wanted)
    if not here:
        return run.spec
    base = run.files.base
    fields: dict[str, list[str]] = {}
    for field, text in run.spec.places():
        path, (head, index) = absolute(text, base), split_place(text)
        moved = here.get(path, head) + (f"@{index}" if index else "") if path in here else text
        fields.setdefault(field, []).append(moved)
    many = {field for field in fields if isinstance(getattr(run.spec, field, None), list)}
    return run.spec.changed(**{field: texts if field in many else texts[0] for field, texts in fields.items()})
