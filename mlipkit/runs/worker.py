"""The process that computes a run: ``python -m mlipkit.runs.worker FOLDER``.

It waits for the runs it depends on, then for free cores, computes, and always leaves a last word in the event log
unless it is killed outright. It imports torch only when its turn has come.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import platform
import signal
import sys
import time
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

from mlipkit import events
from mlipkit.errors import MlipkitError, RunError
from mlipkit.runs import process
from mlipkit.runs.control import FolderControl
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.hub import hub_warning
from mlipkit.runs.log import EventLog, EventTail
from mlipkit.runs.places import run_of
from mlipkit.runs.queue import Ticket, wait_of
from mlipkit.runs.run import ACTIVE, Run, spec_in

POLL_S = 0.3
PROGRESS_EVERY_S = 0.4
PROGRESS_LOGGED_EVERY_S = 30.0
MOST_POLLS = 10
"""The further back in the line, the seldomer a run asks for its turn; its user's wishes are heard all the time."""
WAIT_EVERY_S = 2.0

PACKAGES = (
    "mlipkit", "torch", "numpy", "ase", "vesin", "lightning-fabric", "pydantic", "safetensors",
    "so3krates-torch", "sevenn", "chgnet", "mace-torch", "e3nn",
)  # fmt: skip


class Interrupted(Exception):
    """The user or a signal ended the run before its work began."""


class Worker:
    """One attempt at a run, from the first line in `pid.json` to the last word."""

    def __init__(self, files: RunFolder) -> None:
        self.files = files
        # The launcher holds this lock until its record of this process is written.
        with files.locked(".launch"):
            self.record = files.read("pid.json")
        self.log = EventLog(files.events)
        ours = self.record.get("submitted") or self.record.get("pid") == os.getpid()
        after = self.record.get("after_seq", 0) if ours else self.log.seq
        self._here = not self.record.get("submitted")
        taken, self.record = self.record, {**process.describe(), "after_seq": after, "since": time.time()}
        self.base = Path.cwd()
        self.begin: float | None = None
        self.ticket: Ticket | None = None
        # The place in the line that the launch has kept for it.
        self._reserved = Path(taken["ticket"]) if ours and "ticket" in taken else None
        self.control = FolderControl(files, self.log, self._hold, self._go_on)
        self._next_progress = self._next_logged = self._next_wait = 0.0
        self._waiting: dict[str, Any] = {"position": taken["position"]} if "position" in taken else {}
        self._progress: events.Progress | None = None

    def run(self) -> events.Finished:
        """Compute the run; whatever happens, the returned last word is also in the log."""
        self._phase("queued", **self._waiting)
        self._warn_of_hub()
        for name in ("SIGTERM", "SIGINT"):
            signal.signal(getattr(signal, name), lambda *_, name=name: setattr(self.control, "signal", name))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            self._wait_for_runs()
            self._wait_for_cores()
            finished = self._compute()
        except Interrupted as error:
            finished = events.Finished("stopped", str(error))
        except MemoryError:
            traceback.print_exc()
            finished = events.Finished("crashed", "out of memory. A smaller batch_size or model needs less")
        except BaseException as error:
            traceback.print_exc()
            finished = events.Finished("crashed", one_line(error))
        finally:
            self._free_cores()
        self._write_progress()
        finished = events.Finished(finished.state, finished.reason, {**finished.facts, **self._facts()})
        self.log(finished)
        self.log.close()
        return finished

    def sink(self, event: events.Event) -> None:
        """Event sink of the work. Progress goes to a small file of its own, and to the log now and then."""
        if isinstance(event, events.Progress):
            now, self._progress = time.monotonic(), event
            if now >= self._next_progress:
                self._next_progress = now + PROGRESS_EVERY_S
                self._write_progress()
            if now < self._next_logged:
                return
            self._next_logged = now + PROGRESS_LOGGED_EVERY_S
        self.log(event)

    def _write_progress(self) -> None:
        if self._progress is not None:
            self.files.write("progress.json", events.to_json(self._progress), durable=False)

    def _compute(self) -> events.Finished:
        self.begin = time.monotonic()
        process.lower_priority()
        process.session_niceness(0)  # its turn has come: cores are kept for it
        self.files.write("versions.json", versions())
        from mlipkit.runs import build

        while True:
            self.control.take_changes()
            finished = build.execute(spec_in(self.files), self.files, self.base, self.sink, self.control)
            if not (self.control.changed and finished.state == "stopped") or self.control.signal:
                break
            self.log(events.Message(f"goes on with changed fields: {self.files.read('changes.json')}"))
        if finished.state == "stopped" and self.control.signal:
            return events.Finished("stopped", f"ended by {self.control.signal}", finished.facts)
        return finished

    def _wait_for_runs(self) -> None:
        spec = spec_in(self.files)
        for field, text in spec.places():
            folder = run_of(text, self.base)
            if folder is None:
                continue
            if folder == self.files.path:
                raise RunError("a run cannot wait for itself", where=(field, text))
            other = Run(folder)
            if other.state in ACTIVE:
                self._free_cores()  # others need not wait as well
                # The event comes first: whoever sees that the run waits shall also see for what.
                self.log(events.Waiting(other.name))
                self._phase("waiting", on=str(folder))
                while other.state in ACTIVE:
                    self._pause_point()
            self._check_output(other, field)

    def _check_output(self, other: Run, field: str) -> None:
        state = other.state
        if state == "completed":
            return
        if state == "stopped":
            self.log(
                events.Message(f"{field}: run '{other.name}' was stopped; its results up to then are used", "warning")
            )
            return
        if state == "failed" and other.kind == "md" and spec_in(self.files).kind == "label":
            # Where a potential goes wrong is where labels are wanted most.
            self.log(events.Message(f"{field}: simulation '{other.name}' failed; its frames are labelled", "warning"))
            return
        raise RunError(
            f"run '{other.name}', on which this run depends, {state}", where=field, found=other.reason,
            hint=f"Repair and resume '{other.name}', then resume this run",
        )  # fmt: skip

    def _wait_for_cores(self) -> None:
        while position := self._ask_for_cores():
            for _ in range(min(position, MOST_POLLS)):
                self._pause_point()

    def _ask_for_cores(self) -> int:
        if self.ticket is None:
            reserved, self._reserved = self._reserved, None
            self.ticket = Ticket(spec_in(self.files).threads, path=reserved, run=self.files.path)
        position = self.ticket.ask()
        if position:
            self._phase("queued", **self._expect(position))
        else:
            self._phase("running")
        return position

    def _expect(self, position: int) -> dict[str, Any]:
        """Position and expected start; the latter anew now and then, and only when it has moved."""
        assert self.ticket is not None
        now = time.time()
        if position != self._waiting.get("position") or now >= self._next_wait:
            self._next_wait = now + WAIT_EVERY_S
            wait, old = wait_of(self.ticket.path), self._waiting.get("starts_at")
            said: dict[str, Any] = {"position": position}
            if wait.seconds is not None:
                starts = round(now + wait.seconds)
                moved = old is None or abs(starts - old) > max(3.0, 0.1 * wait.seconds)
                said |= {"starts_at": starts if moved else old, "assumed": wait.assumed}
            self._waiting = said
        return self._waiting

    def _warn_of_hub(self) -> None:
        text = hub_warning() if self._here else ""
        said = events.Message(text, "warning")
        if text and all(entry.event != said for entry in EventTail(self.files.events).read()):
            self.log(said)

    def _free_cores(self) -> None:
        if self.ticket is not None:
            self.ticket.give_back()
            self.ticket = None
        if self._reserved is not None:
            self._reserved.unlink(missing_ok=True)
            self._reserved = None

    def _hold(self) -> None:
        self._free_cores()
        self._phase("paused")

    def _go_on(self) -> bool:
        return self._ask_for_cores() == 0

    def _pause_point(self) -> None:
        time.sleep(POLL_S)
        self.files.beat()
        if self.control.signal:
            raise Interrupted(f"ended by {self.control.signal} before it started computing")
        if self.files.read("control.json").get("request") == "stop":
            raise Interrupted("stopped by the user before it started computing")

    def _phase(self, phase: str, **facts: Any) -> None:
        record = {**self.record, "phase": phase, **facts}
        if record != getattr(self, "_written", None):
            self._written = record
            self.files.write("pid.json", record)
            self.files.beat()

    def _facts(self) -> dict[str, Any]:
        return {
            "seconds": round(time.monotonic() - self.begin, 3) if self.begin is not None else 0.0,
            "peak_bytes": process.peak_memory(),
        }


def one_line(error: BaseException) -> str:
    """An exception as one line: the text of an `MlipkitError`, else with the type in front."""
    text = " ".join(str(error).split())
    if isinstance(error, MlipkitError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def versions() -> dict[str, Any]:
    """What computes: packages, Python, machine, thread limits."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "host": process.host(),
        "cpus": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
        "packages": found,
    }


def main(arguments: list[str]) -> int:
    """Compute the run in the folder named on the command line; 0 unless it crashed."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m mlipkit.runs.worker FOLDER\n")
        return 2
    faulthandler.enable()
    files = RunFolder(Path(arguments[0]).resolve())
    with files.locked(".work", wait=False) as mine:
        if not mine:
            sys.stderr.write("another process is already computing this run\n")
            return 0
        return int(Worker(files).run().state == "crashed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
