"""The waiting line for the cores of this machine: runs that would not fit start later, in the order of their launch.

Every run lays a ticket into one folder per user. A ticket whose process is gone counts for nothing, so a killed run
never blocks the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipkit import machine
from mlipkit.errors import RunError
from mlipkit.runs import process
from mlipkit.runs.folder import read_json, write_text


def cores() -> int:
    """Cores that runs may use together: MLIPKIT_CORES, or those that this process and its control group may use."""
    text = os.environ.get("MLIPKIT_CORES", "")
    if text.isdigit() and int(text) > 0:
        return int(text)
    affinity = getattr(os, "sched_getaffinity", None)
    seen = len(affinity(0)) if affinity else os.cpu_count() or 1
    return machine.cores_of(seen, machine.cpu_limit(), machine.cpuset_size())


def queue_folder() -> Path:
    """Folder of the tickets: MLIPKIT_QUEUE, or one per user beside the temporary files.

    Raises:
        RunError: somebody else has taken the place.
    """
    folder = os.environ.get("MLIPKIT_QUEUE") or Path(tempfile.gettempdir()) / f"mlipkit-queue-{os.getuid()}"
    path = Path(folder)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.environ.get("MLIPKIT_QUEUE") and _owner(path) != os.getuid():
        raise RunError(
            "the queue folder belongs to another user", where=str(path),
            hint="Name one of your own in MLIPKIT_QUEUE",
        )  # fmt: skip
    return path


@dataclass(frozen=True)
class Wait:
    """Expected time until a run may compute.

    Attributes:
        seconds: None: unknown.
        assumed: runs before it that have not begun were taken to last as long as those that run.
    """

    seconds: float | None
    assumed: bool = False

    @property
    def sentence(self) -> str:
        """``about 4 min to wait``."""
        if self.seconds is None:
            return "wait unknown"
        text = f"about {_duration(self.seconds)} to wait"
        return f"{text} if the runs ahead of it take as long as those now running" if self.assumed else text


class Ticket:
    """A place in the line for `threads` cores (at most all there are).

    Args:
        path: the place that was reserved at the launch; a new one at the end of the line when omitted.
        run: folder of the run, whose progress tells the others how long it will take.
    """

    def __init__(
        self, threads: int, folder: Path | None = None, *, path: Path | None = None, run: Path | None = None
    ) -> None:
        self.threads = min(threads, cores())
        self.folder = folder or (path.parent if path is not None else queue_folder())
        self.run = run
        self._running = False
        self._began: float | None = None
        if path is None:
            self.path = self.folder / _name()
            self._write()
        else:
            self.path = path

    def ask(self) -> int:
        """0 when the run may compute now, else its position in the line (1: next)."""
        if self._running:
            return 0
        with _locked(self.folder):
            if not self.path.exists():
                self._write()
            position = _position(self.path, self.threads, _alive(self.folder))
            if position == 0:
                self._running, self._began = True, time.time()
                self._write()
            return position

    def give_back(self) -> None:
        """Leave the line, or free the cores."""
        self._running = False
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        record = {**process.describe(), "threads": self.threads, "running": self._running}
        if self.run is not None:
            record["run"] = str(self.run)
        if self._began is not None:
            record["began"] = self._began
        write_text(self.path, json.dumps(record))


def reserve(threads: int, owner: dict[str, Any], run: Path, folder: Path | None = None) -> tuple[Path, int]:
    """Lay a ticket for a process that was just started: its place is that of the launch, however slowly it comes up.

    Returns:
        The ticket, and its position in the line now (0: it may compute when it is up).
    """
    folder = folder or queue_folder()
    threads = min(threads, cores())
    with _locked(folder):
        path = folder / _name()
        write_text(path, json.dumps({**owner, "threads": threads, "running": False, "run": str(run)}))
        return path, _position(path, threads, _alive(folder))


def wait_of(path: Path) -> Wait:
    """Expected wait of a ticket, from the progress of the runs that compute.

    A run in the line whose length nobody knows is taken to last as long as those that compute now (median of what they
    have taken and still need).
    """
    tickets, total = _alive(path.parent), cores()
    running = [record for _, record in tickets if record["running"]]
    remaining = [_remaining(record) for record in running]
    known = [
        left + time.time() - record["began"] for left, record in zip(remaining, running, strict=True)
        if left is not None and "began" in record
    ]  # fmt: skip
    typical = statistics.median(known) if known else None
    free = total - sum(record["threads"] for record in running)
    ends = [
        (left, record["threads"], False) for left, record in zip(remaining, running, strict=True) if left is not None
    ]
    heapq.heapify(ends)
    now, assumed = 0.0, False
    for other, record in tickets:
        if record["running"]:
            continue
        while free < min(record["threads"], total):
            if not ends:
                return Wait(None)
            now, freed, guessed = heapq.heappop(ends)
            free, assumed = free + freed, assumed or guessed
        if other == path:
            return Wait(now, assumed)
        free -= record["threads"]
        if typical is not None:
            heapq.heappush(ends, (now + typical, record["threads"], True))
    return Wait(None)


def _remaining(record: dict[str, Any]) -> float | None:
    """Seconds that a run still needs, as it has said itself; None when it has not."""
    if "run" not in record:
        return None
    path = Path(record["run"]) / "progress.json"
    try:
        left, said = read_json(path).get("remaining_s"), path.stat().st_mtime
    except (OSError, RunError):
        return None
    return None if left is None else max(float(left) - (time.time() - said), 0.0)


def _position(path: Path, threads: int, tickets: list[tuple[Path, dict[str, Any]]]) -> int:
    before = sum(not record["running"] for other, record in tickets if other < path)
    used = sum(record["threads"] for _, record in tickets if record["running"])
    return 0 if before == 0 and (used == 0 or used + threads <= cores()) else before + 1


def _alive(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Tickets of living processes, in the order of the line; those of others are removed."""
    tickets = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if not _tells(record):
            continue
        if process.is_alive(record) is False:
            path.unlink(missing_ok=True)
        else:
            tickets.append((path, record))
    return tickets


def _tells(record: Any) -> bool:
    """Whether a ticket says what the line needs to know; one of another version may not."""
    return isinstance(record, dict) and isinstance(record.get("threads"), int) and "running" in record


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open(folder / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _name() -> str:
    return f"{time.time_ns():020d}-{os.getpid()}.json"


def _owner(path: Path) -> int:
    return path.stat().st_uid


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
