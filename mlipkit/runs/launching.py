"""Launch a run, or re-open the one that an unchanged specification already made."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipkit.errors import RunError, SpecError, nearest
from mlipkit.runs.devices import check_device
from mlipkit.runs.executors import Executor, LocalExecutor, worker_environment
from mlipkit.runs.folder import RunFolder, fingerprint, write_text
from mlipkit.runs.interpreters import check_python
from mlipkit.runs.places import (
    POTENTIAL_FIELDS,
    PREFIXES,
    absolute,
    check_factory,
    check_universal,
    factory_of,
    idle_at,
    run_of,
    split_place,
    universal_of,
)
from mlipkit.runs.queue import reserve
from mlipkit.runs.run import ACTIVE, Run, spec_in
from mlipkit.runs.spec import KINDS, AnySpec, BaseSpec, MDSpec, ReadingSpec, load_spec, parse_spec
from mlipkit.runs.spec_label import LabelSpec, check_engine
from mlipkit.runs.spec_workflow import WorkflowSpec


def launch(
    spec: AnySpec | Mapping[str, Any] | str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    root: str | os.PathLike[str] = "runs",
    again: bool = False,
    resume: bool = False,
    executor: Executor | None = None,
) -> Run:
    """Start a run in a child process, or re-open it when the same specification was launched before.

    Re-running a notebook cell therefore starts nothing new: the run in `root` with this name and an equal
    specification is returned, running or ended. A changed specification gets a folder of its own with the next number
    (``md_300K``, ``md_300K-2``).

    Args:
        spec: a specification, its fields as a mapping, or the path of its YAML file.
        folder: exact folder of the run, instead of a name in `root`.
        root: folder in which runs are kept.
        again: make a numbered copy and start it although the run exists.
        resume: let a re-opened run that was stopped, crashed or lost go on.
        executor: where to compute; this machine when omitted.

    Raises:
        SpecError: wrong specification, or it names something that does not exist here, a device included.
        RunError: `folder` holds another run.
    """
    if isinstance(spec, (str, os.PathLike)):
        spec = load_spec(spec)
    elif isinstance(spec, Mapping):
        spec = parse_spec(spec)
    elif not isinstance(spec, BaseSpec):
        expected = ", ".join(cls.__name__ for cls in KINDS.values())
        raise SpecError("not a specification", found=type(spec).__name__, expected=expected)
    base = Path.cwd()
    wanted = Path(root, spec.name or spec.default_name) if folder is None else Path(folder)
    wanted = wanted.expanduser().resolve()
    run = None if again else _find(spec, wanted, exact=folder is not None)
    if run is None:
        inputs = check_places(spec, base)
        if executor is None and spec.python:  # which may have another torch
            check_python(spec.python, base)
        elif executor is None:  # another machine may have what this one lacks
            check_device(spec.device)
        # Of two notebooks that launch the same at once, the second shall find what the first has made.
        with _room(wanted.parent, shared=folder is None):
            run = None if again else _find(spec, wanted, exact=folder is not None)
            if run is None:
                files = _claim(wanted, exact=folder is not None and not again)
                # The specification comes last: a folder with a spec.yaml is a whole run.
                files.write("launch.json", {
                    "cwd": str(base), "python": sys.executable, "created": time.time(), "inputs": inputs,
                })  # fmt: skip
                if isinstance(spec, MDSpec) and spec.n_simulations > 1:
                    files.write("replicas.json", {"replicas": spec.table()})
                write_text(files.spec, spec.to_yaml())
                # Inside the lock: whoever opens this run shall find it with a process.
                return start(Run(files.path), executor)
    _warn_of_changed_inputs(run)
    if resume and run.state in ("stopped", "crashed", "lost"):
        run.resume(executor)
    return run


def existing(spec: AnySpec, root: str | os.PathLike[str] = "runs") -> Run | None:
    """The run that `launch` would re-open for this specification, or None when it would start one."""
    return _find(spec, Path(root, spec.name or spec.default_name).expanduser().resolve(), exact=False)


def start(run: Run, executor: Executor | None = None) -> Run:
    """Start a process for a run that has none. Two that try at once start one.

    Raises:
        SpecError: something the run reads has gone.
    """
    files = run.files
    with files.locked(".launch"):
        if (files.path / "pid.json").exists() and run.state in ACTIVE:
            return run
        base = Path(files.read("launch.json").get("cwd", files.path))
        if not base.is_dir():
            base = files.path
        spec = spec_in(files)
        check_places(spec, base)
        entries = run.entries()
        with files.locked(".change"):
            files.write("control.json", {**files.read("control.json"), "request": "run"})
        files.heartbeat.unlink(missing_ok=True)
        record = {"phase": "queued", "after_seq": entries[-1].seq if entries else 0}
        # The worker waits for the lock held here before it writes its own record over this one.
        files.write("pid.json", {**record, "submitted": True})
        submitted = (executor or LocalExecutor()).submit(files.path, base, worker_environment(spec.threads))
        if not submitted.get("submitted"):
            if not _waits(spec, base):
                # Before the process is up: its place in the line is that of the launch.
                path, position = reserve(spec.threads, submitted, files.path)
                record |= {"ticket": str(path), **({"position": position} if position else {})}
            files.write("pid.json", {**record, **submitted})
    return run


def _waits(spec: AnySpec, base: Path) -> bool:
    """Another run has to end first."""
    folders = (run_of(text, base) for _, text in spec.places())
    return any(Run(folder).active for folder in folders if folder is not None)


def check_places(spec: AnySpec, base: Path) -> dict[str, str]:
    """Check all that can be known without torch of what a specification reads; fingerprints of the local files in it.

    Raises:
        DataError: no such sample, or a frame of it that does not exist.
        SpecError: no such file or run, factory or index, with the field that names it; options of reading that can act
            nowhere.
        MissingPackageError: the package of a universal potential or of an engine is not installed.
    """
    inputs = {}
    for field, text in spec.places():
        _check_index(field, text, base)
        if universal_of(text) is not None:
            path = check_universal(text, field, base, elsewhere=bool(spec.python))
            if path is not None:
                inputs[str(path)] = fingerprint(path)
            continue
        prefix, _, name = text.partition(":")
        if prefix in PREFIXES and factory_of(text) is None:
            _check_packaged(field, prefix, split_place(name)[0])
            continue
        path = absolute(text, base)
        if factory_of(text) is not None and (path is None or path.exists()):
            check_factory(text, base, field)
        if path is None:
            continue
        if run_of(text, base) is not None:
            continue
        if field == "reuse":
            raise SpecError("no such run", where=(field, text), hint=_near(path))
        if any(sign in path.name for sign in "*?[") and list(path.parent.glob(path.name)):
            continue
        if not path.exists():
            raise SpecError("no such file, folder or run", where=(field, text), hint=_near(path))
        inputs[str(path)] = fingerprint(path)
    labelling = spec if isinstance(spec, LabelSpec) else spec.labelling if isinstance(spec, WorkflowSpec) else None
    if labelling is not None and not spec.python:
        check_engine(labelling)
    if isinstance(spec, ReadingSpec):
        places = spec.frame_places
        # What is in a public set shows once it is fetched, which is the worker's business.
        if not any(text.startswith("public:") for text in places):
            idle_at(places, base, {"keys": spec.keys, "units": spec.units, "unconverged": spec.unconverged})
    return inputs


def _check_index(field: str, text: str, base: Path) -> None:
    """Refuse an index that is none, that a sample does not have, or behind a potential."""
    if factory_of(text) is not None:
        return
    where = f"{field}: {text}"
    prefix, _, name = text.partition(":")
    if prefix in PREFIXES:
        head, at, index = name.partition("@")
    else:
        head, at, index = text.rpartition("@")
        if not at or (base / Path(text).expanduser()).exists() or "/" in index:
            return
        if not split_place(text)[1] and not (base / Path(head).expanduser()).exists():
            return  # the name of a file that is not there, as will be said
    if not at:
        return
    if field in POTENTIAL_FIELDS:
        raise SpecError("a potential has no frames", where=where, hint=f"Leave out @{index}")
    from mlipkit.data import samples
    from mlipkit.data.reading import parse_index, pick

    chosen = parse_index(index, where)
    if prefix == "sample" and head in samples.names():
        pick(int(samples.card(head)["frames"]), chosen, where)


def _check_packaged(field: str, prefix: str, name: str) -> None:
    from mlipkit.data import public, samples

    # Each names the known ones when there is no such set or potential.
    if prefix == "public":
        public.find(name)
    elif field in POTENTIAL_FIELDS:
        samples.potential_path(name)
    else:
        samples.card(name)


def _near(path: Path) -> str | None:
    folder = path.parent
    if not folder.is_dir():
        return f"There is no folder {folder} either"
    names = [item.name for item in folder.iterdir() if not item.name.startswith(".")]
    return f"In {folder}: {nearest(path.name, names[:40])}"


def _find(spec: AnySpec, wanted: Path, exact: bool) -> Run | None:
    """The latest run at the wanted folder (or its numbered copies) with an equal specification."""
    found = None
    for path in [wanted] if exact else _copies(wanted):
        if not (path / "spec.yaml").is_file():
            continue
        run = Run(path)
        if run.spec == spec:
            found = run
        elif exact:
            ours, theirs = spec.model_dump(mode="json"), run.spec.model_dump(mode="json")
            fields = [key for key in ours if ours[key] != theirs.get(key)] or ["kind"]
            raise RunError(
                "the folder holds a run with another specification", where=str(path),
                found=", ".join(f"{key}: {theirs.get(key)} there, {ours[key]} here" for key in fields),
                hint="Choose another folder, or again=True for a numbered copy",
            )  # fmt: skip
    return found


def _copies(wanted: Path) -> list[Path]:
    """The folder itself and its numbered copies that exist, in order."""
    numbered = re.compile(re.escape(wanted.name) + r"(?:-(\d+))?")
    found = []
    for path in wanted.parent.iterdir() if wanted.parent.is_dir() else ():
        match = numbered.fullmatch(path.name)
        if match:
            found.append((int(match[1] or 1), path))
    return [path for _, path in sorted(found)]


def _room(root: Path, shared: bool) -> contextlib.AbstractContextManager[Any]:
    """Make the folder in which runs are kept; with `shared` nobody else launches there meanwhile.

    Raises:
        RunError: it cannot be made or written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        if shared:
            (root / ".launch").touch()
    except OSError as error:
        raise RunError(
            f"runs cannot be kept here ({error.strerror})", where=str(root), hint="Choose another folder with root"
        ) from None
    return RunFolder(root).locked() if shared else contextlib.nullcontext()


def _claim(wanted: Path, exact: bool) -> RunFolder:
    """Make a folder that nobody else has: the wanted one or the next number."""
    number = 1
    while True:
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            path.mkdir()
            return RunFolder(path)
        except FileExistsError:
            if path.is_dir() and not any(path.iterdir()):
                return RunFolder(path)
            if exact:
                raise RunError(
                    "the folder exists and holds no run", where=str(path), hint="Choose a new or empty folder"
                ) from None
            number += 1


def _warn_of_changed_inputs(run: Run) -> None:
    for text, known in run.files.read("launch.json").get("inputs", {}).items():
        path = Path(text)
        if not path.exists() or fingerprint(path) != known:
            warnings.warn(
                f"{run.name} was computed with another content of {path.name}; launch(..., again=True) computes anew",
                stacklevel=3,
            )
