"""`Run`: a run folder seen from outside. It only reads, apart from the small files that carry the user's wishes."""

from __future__ import annotations

import html
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlipkit import events
from mlipkit.errors import RunError, SpecError, nearest
from mlipkit.events import Verdict
from mlipkit.runs import process
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.log import Entry, EventTail
from mlipkit.runs.spec import AnySpec, load_spec, parse_spec

if TYPE_CHECKING:
    from mlipkit.data.series import Series
    from mlipkit.runs.executors import Executor
    from mlipkit.runs.replicas import Replicas

State = Literal["waiting", "queued", "running", "paused", "completed", "stopped", "failed", "crashed", "lost"]
ACTIVE: tuple[State, ...] = ("waiting", "queued", "running", "paused")
REMOTE_SILENCE_S = 120.0
"""A process on another machine that gave no sign of life for so long counts as lost."""


class Run(os.PathLike):
    """A run, alive or ended, as its folder shows it. Cheap to make, safe to make twice.

    ``os.fspath(run)`` is the folder, so a run can be named in another specification: ``MDSpec(potential=run)``.

    Args:
        folder: a folder with a `spec.yaml`.

    Raises:
        RunError: no such folder, or it holds no run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        path = Path(folder).expanduser().resolve()
        self.files = RunFolder(path)
        if not self.files.spec.is_file():
            raise RunError(
                "holds no run" if path.is_dir() else "no such folder",
                where=str(path), expected="a folder with a spec.yaml", hint=_runs_near(path),
            )  # fmt: skip
        self.spec: AnySpec = load_spec(self.files.spec)
        self._tail = EventTail(self.files.events)
        self._entries: list[Entry] = []

    # What it is

    @property
    def folder(self) -> Path:
        """Absolute path of the run folder."""
        return self.files.path

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def kind(self) -> str:
        """ "train", "md", "relax" or "label"."""
        return self.spec.kind

    @property
    def changes(self) -> dict[str, Any]:
        """Fields changed after the launch."""
        return self.files.read("changes.json")

    @property
    def current_spec(self) -> AnySpec:
        """The specification with the later changes in it."""
        changes = self.changes
        return self.spec.changed(**changes) if changes else self.spec

    def __fspath__(self) -> str:
        return str(self.folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.folder == self.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    def __repr__(self) -> str:
        return f"Run({self.name!r}: {self.sentence})"

    def _repr_html_(self) -> str:
        return f"<b>{html.escape(self.name)}</b> · {html.escape(self.sentence)}"

    # What happened

    def entries(self, after_seq: int = 0) -> list[Entry]:
        """Events with number and time, those after `after_seq` only. Reads just what is new on disk."""
        self._entries += self._tail.read()
        if after_seq <= 0:
            return list(self._entries)
        return [entry for entry in self._entries if entry.seq > after_seq]

    def events(self, after_seq: int = 0) -> list[events.Event]:
        """Events after this sequence number, oldest first."""
        return [entry.event for entry in self.entries(after_seq)]

    def last(self, kind: type[events.Event]) -> Any:
        """The latest event of a type, or None."""
        return next((e.event for e in reversed(self.entries()) if isinstance(e.event, kind)), None)

    @property
    def state(self) -> State:
        """What the run does now, from its events and from whether its process lives.

        waiting (for another run), queued (for free cores), running, paused, completed, stopped (by the user),
        failed (physics), crashed (an error), lost (the process is gone and left no last word).
        """
        record = self.files.read("pid.json")
        finished = self._finished(record)
        if finished is not None:
            return finished.state
        phase: State = record.get("phase", "queued")
        if record.get("submitted"):
            return "queued"
        alive = process.is_alive(record) if record else False
        if alive is None:
            age = self.heartbeat_age
            alive = age is None or age < REMOTE_SILENCE_S
        if alive:
            return phase
        # The process may have ended between the two looks.
        finished = self._finished(self.files.read("pid.json"))
        return finished.state if finished is not None else "lost"

    def _finished(self, record: Mapping[str, Any]) -> events.Finished | None:
        after = int(record.get("after_seq", 0))
        for entry in reversed(self.entries()):
            if entry.seq <= after:
                return None
            if isinstance(entry.event, events.Finished):
                return entry.event
        return None

    @property
    def active(self) -> bool:
        """True while a process works on it or waits to."""
        return self.state in ACTIVE

    @property
    def reason(self) -> str:
        """Why it ended, waits or was lost, in one sentence; "" while there is nothing to say."""
        state = self.state
        if state == "waiting":
            waiting = self.last(events.Waiting)
            return f"waits for {waiting.on}" if waiting else "waits for another run"
        if state == "queued":
            position = self.queue_position
            return f"number {position} in the queue for free cores{self._wait_words()}" if position else "starting"
        if state == "lost":
            return (
                "the process ended unexpectedly (killed, out of memory, or the machine was restarted); "
                "resume() continues the run"
            )
        finished = self.last(events.Finished)
        return finished.reason if finished is not None and state not in ACTIVE else ""

    @property
    def sentence(self) -> str:
        """State and what matters about it, in one line."""
        state, progress = self.state, self.progress
        parts = [state]
        if progress is not None and progress.total and state in (*ACTIVE, "lost", "stopped"):
            parts.append(f"{progress.done}/{progress.total} {progress.unit}s")
        if self.reason:
            parts.append(self.reason)
        return ", ".join(parts)

    @property
    def progress(self) -> events.Progress | None:
        """The latest progress, or None before the first."""
        record = self.files.read("progress.json")
        event = events.from_json(record) if record else None
        return event if isinstance(event, events.Progress) else None

    @property
    def queue_position(self) -> int | None:
        """Place in the queue for free cores (1: next), or None when it is not queued."""
        record = self.files.read("pid.json")
        return record.get("position") if record.get("phase") == "queued" else None

    @property
    def queue_wait(self) -> float | None:
        """Expected seconds until it may compute; None when it is in no line, or nothing is known."""
        record = self.files.read("pid.json")
        starts = record.get("starts_at") if record.get("phase") == "queued" else None
        return None if starts is None else max(float(starts) - time.time(), 0.0)

    def _wait_words(self) -> str:
        """``, about 4 min to wait``; "" before anybody has looked."""
        from mlipkit.runs.queue import Wait

        record = self.files.read("pid.json")
        return f", {Wait(self.queue_wait, bool(record.get('assumed'))).sentence}"

    @property
    def heartbeat_age(self) -> float | None:
        """Seconds since the process last gave a sign of life; None before the first."""
        return self.files.heartbeat_age()

    @property
    def started_at(self) -> float | None:
        """Unix time of the first start of the work, or None."""
        return next((e.t for e in self.entries() if isinstance(e.event, events.Started)), None)

    @property
    def verdict(self) -> Verdict | None:
        """The latest verdict of the stability checks, or None when they have said nothing."""
        judged = self.last(events.Judged)
        return judged.verdict if judged is not None else None

    def metrics(self) -> dict[str, dict[str, float]]:
        """Errors of the best model so far per split: energy in eV per atom, forces in eV/Å. Empty before the first."""
        found: dict[str, dict[str, float]] = {}
        for event in self.events():
            if isinstance(event, events.Evaluated) and (event.best or not found):
                found = {split: dict(figures) for split, figures in event.metrics.items()}
        finished = self.last(events.Finished)
        for split, figures in (finished.facts.get("metrics", {}) if finished else {}).items():
            found.setdefault(split, {}).update(figures)
        return found

    def facts(self) -> dict[str, Any]:
        """Figures of the finished run: seconds, peak memory, steps; empty before the end."""
        finished = self.last(events.Finished)
        return dict(finished.facts) if finished is not None else {}

    def replica_folder(self, replica: int = 0) -> Path:
        """Where the trajectory and series of a replica lie: the run folder itself when there is only one.

        Raises:
            RunError: no such replica.
        """
        number = self._n_folders()
        if not 0 <= replica < number:
            raise RunError(f"no replica {replica}", where=self.name, expected=f"0 to {number - 1}")
        return self.folder if number == 1 else self.folder / f"replica_{replica:03d}"

    def _n_folders(self) -> int:
        if self.kind == "relax":
            return len(self.files.read("replicas.json").get("replicas", [])) or 1
        return getattr(self.spec, "n_simulations", 1)

    @property
    def replicas(self) -> Replicas:
        """The simulations of an MD run as they are now: start, temperature, seeds, folder, verdict, how far each got.

        Raises:
            RunError: not an MD run.
        """
        if self.kind != "md":
            raise RunError("has no simulations", where=self.name, expected="an MD run", found=self.kind)
        from mlipkit.runs.replicas import Replicas

        return Replicas(self)

    def series_names(self, replica: int = 0) -> list[str]:
        """Names of the numeric series written so far."""
        from mlipkit.data.series import HEADER

        return sorted(path.parent.name for path in (self.replica_folder(replica) / "series").glob(f"*/{HEADER}"))

    def series(self, name: str, replica: int = 0) -> Series:
        """A numeric series ("training", "validation", "md"), read by offset.

        Raises:
            RunError: not written (yet); the names that are.
        """
        from mlipkit.data.series import Series

        path = self.replica_folder(replica) / "series" / name
        if not path.is_dir():
            raise RunError(f"no series '{name}' yet", where=self.name, hint=nearest(name, self.series_names(replica)))
        return Series(path)

    def trajectory(self, replica: int = 0):
        """Stored frames, also while they grow: an `ase.io.trajectory.TrajectoryReader`.

        Raises:
            RunError: no frame has been stored yet.
        """
        from ase.io.trajectory import Trajectory

        path = self.replica_folder(replica) / "trajectory.traj"
        if not path.is_file():
            raise RunError("no trajectory yet", where=self.name)
        return Trajectory(str(path))

    def log_text(self, last_lines: int = 100) -> str:
        """The end of what the process printed."""
        try:
            lines = self.files.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-last_lines:])

    # What the user wants

    def pause(self) -> None:
        """Ask the process to pause; it keeps its memory and frees its cores."""
        self._ask("pause")

    def stop(self) -> None:
        """Ask the process to end after the step at hand, with a checkpoint."""
        self._ask("stop")

    def resume(self, executor: Executor | None = None) -> Run:
        """Go on: at once when paused, with a new process when stopped, crashed, lost or changed. Returns itself."""
        if self.state in ACTIVE:
            self._ask("run")
        else:
            from mlipkit.runs.launching import start

            start(self, executor)
        return self

    def change(self, **fields: Any) -> None:
        """Change fields of the specification; a running process takes them over within a step.

        An ended run takes them over with `resume()`: ``run.change(steps=40000); run.resume()`` goes on longer.

        Raises:
            SpecError: a field that cannot change after the launch, a wrong value, or fewer steps than are done.
        """
        for field in fields:
            if field not in self.spec.CHANGEABLE:
                raise SpecError(
                    "cannot change after the launch", where=field,
                    hint=f"These can: {', '.join(self.spec.CHANGEABLE)}. For all else launch a new run",
                )  # fmt: skip
        with self.files.locked(".change"):
            changes = {**self.changes, **fields}
            checked = self.spec.changed(**changes)
            self._check_number(checked)
            self._check_end(checked, fields)
            record = checked.model_dump(mode="json")
            self.files.write("changes.json", {key: record[key] for key in changes})
            control = self.files.read("control.json")
            control["revision"] = int(control.get("revision", 0)) + 1
            self.files.write("control.json", {"request": "run", **control})

    def _check_number(self, wanted: AnySpec) -> None:
        before, now = (getattr(spec, "n_simulations", 1) for spec in (self.spec, wanted))
        if before != now:
            raise SpecError(
                "the number of simulations cannot change after the launch", where=(self.name, "temperature"),
                expected=f"{before} simulations", found=now, hint="Give as many temperatures as before, or launch anew",
            )  # fmt: skip

    def _check_end(self, wanted: AnySpec, fields: Mapping[str, Any]) -> None:
        """Refuse an end that lies behind: what has been computed stays, and the last word shall be true."""
        progress, evaluated = self.progress, self.last(events.Evaluated)
        steps, epochs = progress.done if progress else 0, evaluated.epoch if evaluated else 0
        if self._n_folders() > 1 and self.kind == "md":
            # Progress is the average over batches, of which the first may be done.
            names = [number for number in range(self._n_folders()) if "md" in self.series_names(number)]
            steps = max([steps, *(len(self.series("md", number)) - 1 for number in names)])
        for field, done, unit in (
            ("steps", steps, "steps"), ("time_ps", steps, "steps"), ("max_steps", steps, "steps"),
            ("max_epochs", epochs, "epochs"),
        ):  # fmt: skip
            planned = getattr(wanted, "steps" if field == "time_ps" else field, None)
            if field in fields and planned is not None and planned < done:
                raise SpecError(
                    f"the run has done {done} {unit} already", where=(self.name, field),
                    expected=f"at least {done} {unit}", found=planned,
                    hint="To end it now, stop it" if self.state in ACTIVE else "For a shorter run launch a new one",
                )  # fmt: skip

    def wait(self, timeout: float | None = None) -> Run:
        """Block until the run has ended or `timeout` seconds have passed; returns itself."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.state in ACTIVE and (end is None or time.monotonic() < end):
            time.sleep(0.1)
        return self

    def _ask(self, request: events.Request) -> None:
        with self.files.locked(".change"):
            self.files.write("control.json", {**self.files.read("control.json"), "request": request})

    # What it gives

    def yaml(self) -> str:
        """The specification as YAML."""
        return self.spec.to_yaml()

    def code(self) -> str:
        """Python that launches (or re-opens) this run."""
        return self.spec.code()

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the one-file HTML report; `report.html` in the folder when no path is given."""
        from mlipkit.runs.report import write_report

        return write_report(self, Path(path) if path is not None else self.files.report)


def open_run(folder: str | os.PathLike[str]) -> Run:
    """The run in a folder, alive or ended."""
    return Run(folder)


def run_at(place: Run | str | os.PathLike[str]) -> Run:
    """A run, given itself or as its folder."""
    return place if isinstance(place, Run) else Run(place)


def spec_in(folder: RunFolder) -> AnySpec:
    """The specification of a run folder, later changes included."""
    spec, changes = load_spec(folder.spec), folder.read("changes.json")
    return parse_spec(spec.changed(**changes).model_dump(mode="json")) if changes else spec


def _runs_near(path: Path) -> str | None:
    parent = path if path.is_dir() else path.parent
    names = [item.parent.name for item in parent.glob("*/spec.yaml")] if parent.is_dir() else []
    return f"In {parent}: {nearest(path.name, names)}" if names else None
