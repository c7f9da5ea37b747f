"""Which run came of which; a run once more, a run thrown away and brought back."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlipkit.errors import MlipkitError, RunError
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.launching import launch
from mlipkit.runs.places import run_of
from mlipkit.runs.run import Run
from mlipkit.runs.spec_label import LabelSpec

TRASH = ".trash"


def runs_in(root: str | Path) -> list[Run]:
    """All runs of a folder in the order of their launch; folders that hold none are passed over.

    One whose files cannot be read, such as that of a newer version, is left out with a warning.
    """
    found = []
    for path in Path(root).glob("*/spec.yaml"):
        try:
            run = Run(path.parent)
            launched_at(run)
        except MlipkitError as error:
            if path.is_file():  # else deleted at this moment, or no run
                warnings.warn(f"{path.parent.name} is left out: {error}", stacklevel=2)
            continue
        found.append(run)
    return sorted(found, key=lambda run: (launched_at(run), run.name))


def launched_at(run: Run) -> float:
    """Unix time of the launch."""
    created = run.files.read("launch.json").get("created")
    return float(created) if isinstance(created, int | float) else run.files.spec.stat().st_mtime


def parents(run: Run) -> list[Path]:
    """Folders of the runs whose output this one reads, each once, in the order of its specification."""
    base = run.files.base
    found = (run_of(text, base) for _, text in run.spec.places())
    return list(dict.fromkeys(path.resolve() for path in found if path is not None))


def picked_from(run: Run) -> list[Path]:
    """Folders of the simulations that the frames of a labelling run were picked from, where their file tells."""
    if not isinstance(run.spec, LabelSpec):
        return []
    base = run.files.base
    found: dict[Path, None] = {}
    for _, text in run.spec.places():
        record = (base / text.partition("@")[0]).with_suffix(".json")
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for criterion in _flat(json.loads(record.read_text(encoding="utf-8"))["criterion"]):
                if "run" in criterion:
                    found[(base / criterion["run"]).resolve()] = None
    return list(found)


def _flat(criterion: dict[str, Any]) -> list[dict[str, Any]]:
    """A criterion and all that it was put together from."""
    inner = criterion.get("of", [])
    parts = [part for one in (inner if isinstance(inner, list) else [inner]) for part in _flat(one)]
    return [criterion, *parts]


def children(run: Run, others: Iterable[Run]) -> list[Run]:
    """Those of the others that read this run's output."""
    return [other for other in others if other != run and run.folder in parents(other)]


def duplicate(run: Run, **changes: Any) -> Run:
    """Launch the run once more beside it, from the start, under a name of its own.

    Args:
        changes: fields of the specification that shall differ.

    Raises:
        SpecError: a wrong value, or something that it reads has gone.
    """
    spec = run.current_spec.changed(**changes) if changes else run.current_spec
    return launch(spec, root=run.folder.parent, again=True)


def delete(run: Run, force: bool = False) -> Path:
    """Move a run out of the way, where `restore` finds it; its place in the trash.

    Args:
        force: although other runs read its output.

    Raises:
        RunError: it is active, others need it, or its folder is gone or cannot be moved.
    """
    if run.active:
        raise RunError(f"is {run.state}", where=run.name, hint="Stop it first")
    heirs = [] if force else children(run, runs_in(run.folder.parent))
    if heirs:
        names = ", ".join(other.name for other in heirs)
        raise RunError(
            "other runs read its output", where=run.name, found=names, hint="Delete these first, or force it"
        )
    trash = run.folder.parent / TRASH
    place = trash / f"{time.time_ns()}-{run.name}"
    try:
        trash.mkdir(exist_ok=True)
        run.folder.rename(place)
    except OSError as error:
        gone = "" if run.folder.is_dir() else "is gone already; "
        raise RunError(f"{gone}cannot be moved into the trash ({error.strerror})", where=run.name) from None
    return place


def trashed(root: str | Path) -> list[Path]:
    """Folders in the trash of a folder of runs, the latest first."""
    found = [path.parent for path in (Path(root) / TRASH).resolve().glob("*/spec.yaml")]
    ours = [folder for folder in found if folder.name.partition("-")[0].isdecimal()]
    return sorted(ours, key=lambda folder: int(folder.name.partition("-")[0]), reverse=True)


def restore(place: Path) -> Run:
    """Bring a deleted run back to where it was.

    Raises:
        RunError: it is gone, or another run has its name by now.
    """
    if not RunFolder(place).spec.is_file():
        raise RunError("nothing to bring back", where=str(place))
    home = place.parent.parent / place.name.partition("-")[2]
    if home.exists():
        raise RunError("another run has this name by now", where=home.name, hint="Rename that folder, then try again")
    place.rename(home)
    return Run(home)


def empty_trash(root: str | Path, keep: Sequence[Path] = ()) -> int:
    """Remove what was deleted for good; how many."""
    gone = [folder for folder in trashed(root) if folder not in keep]
    for place in gone:
        shutil.rmtree(place)
    return len(gone)
