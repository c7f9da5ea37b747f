"""Recorded runs that come with the notebooks: on screen at once, read only, and run here on a wish.

A recording is a run folder of an ended run, without what belongs to the machine that computed it, and with a
`recorded.json`. Views open it like any other run. Recordings of one notebook lie side by side; one that reads the
output of another (``runs/own_potential``) names it as it was named at the launch.
"""

from __future__ import annotations

import os
import shutil
import time
from importlib import resources
from pathlib import Path

from mlipkit.errors import RunError, nearest
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.runs.launching import existing, launch
from mlipkit.runs.places import factory_of
from mlipkit.runs.run import ACTIVE, Run
from mlipkit.runs.spec import AnySpec

CARD = "recorded.json"
KEPT = (
    "spec.yaml", "replicas.json", "progress.json", "events.jsonl", "parity.npz", "trajectory.traj", "last_steps.traj",
    "series",
)  # fmt: skip
"""What views read of a run; checkpoints, the log and the process's own files stay behind."""
OF_THE_MACHINE = ("executable", "host")
"""Entries of `versions.json` that say nothing to others."""


def recordings() -> list[str]:
    """Names of the recordings that are installed: ``"00_start_here/ethanol_1000_900K"``."""
    root = _root()
    return sorted(card.parent.relative_to(root).as_posix() for card in root.glob(f"*/*/{CARD}"))


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
    return Run(_root() / name)


def run_of_recording(run: Run, root: str | os.PathLike[str] = "runs") -> Run | None:
    """The run that `run_here` has launched in `root` before, or None."""
    return existing(_spec_here(run, root), root)


def recorded_on(run: Run) -> str:
    """The day of a recording in words, ``"22 November 2026"``; "" for every other run."""
    return str(run.files.read(CARD).get("day", "")) if (run.folder / CARD).is_file() else ""


def run_here(run: Run, root: str | os.PathLike[str] = "runs") -> Run:
    """Launch the specification of a recording on this machine, those of the recordings that it reads before it.

    What was launched before is opened again, as `launch` does.

    Raises:
        RunError: not a recording.
        SpecError: something that the run reads is not here.
    """
    if not recorded_on(run):
        raise RunError("is no recording", where=run.name, hint="duplicate() launches any run once more")
    for _, parent in _parents(run):
        run_here(parent, root)
    return launch(_spec_here(run, root), root=root)


def record(run: Run, folder: str | os.PathLike[str]) -> Path:
    """Make a recording of an ended run in a new folder `folder`/NAME; returns that.

    Raises:
        RunError: it has not ended, or the folder exists.
    """
    if run.state in ACTIVE or run.started_at is None:
        raise RunError("only what has ended is recorded", where=run.name, found=run.state)
    made = RunFolder(Path(folder) / run.name)
    if made.path.exists():
        raise RunError("the folder exists", where=str(made.path))
    made.path.mkdir(parents=True)
    for name in KEPT:
        source = run.folder / name
        if source.is_dir():
            shutil.copytree(source, made.path / name)
        elif source.is_file():
            shutil.copyfile(source, made.path / name)
    write_text(made.events, made.events.read_text(encoding="utf-8").replace(f"{run.folder}{os.sep}", ""))
    versions = {key: value for key, value in run.files.read("versions.json").items() if key not in OF_THE_MACHINE}
    made.write("versions.json", versions)
    made.write("launch.json", {"created": run.files.read("launch.json").get("created", run.started_at)})
    day = time.gmtime(run.started_at)
    made.write(CARD, {"day": f"{day.tm_mday} {time.strftime('%B %Y', day)}", "cpus": versions.get("cpus")})
    return made.path


def _root() -> Path:
    """Where the installed recordings lie."""
    try:
        return Path(str(resources.files("mlipkit_notebooks"))) / "recorded"
    except ModuleNotFoundError:
        return Path("recorded")


def _parents(run: Run) -> list[tuple[str, Run]]:
    """(place, recording) of the recordings whose output this one reads."""
    found = []
    for _, text in run.spec.places():
        beside = run.folder.parent / Path(text).name
        if factory_of(text) is None and beside != run.folder and (beside / CARD).is_file():
            found.append((text, Run(beside)))
    return found


def _spec_here(run: Run, root: str | os.PathLike[str]) -> AnySpec:
    """Its specification with the runs that it reads where `launch` puts, or has put, them in `root`."""
    places = {}
    for text, parent in _parents(run):
        spec = _spec_here(parent, root)
        there = existing(spec, root)
        wanted = Path(root, spec.name or spec.default_name).expanduser().resolve()
        places[text] = os.fspath(there) if there is not None else str(wanted)
    if not places:
        return run.spec
    return run.spec.changed(**{field: places[text] for field, text in run.spec.places() if text in places})
