"""The waiting line for the cores of this machine: runs that would not fit start later, in the order they came.

Every run lays a ticket into one folder per user. A ticket whose process is gone counts for nothing, so a killed run
never blocks the others.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from pathlib import Path

from mlipkit.runs import process
from mlipkit.runs.folder import write_text


def cores() -> int:
    """Cores that runs may use together: MLIPKIT_CORES, or those this process may use."""
    text = os.environ.get("MLIPKIT_CORES", "")
    if text.isdigit() and int(text) > 0:
        return int(text)
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


def queue_folder() -> Path:
    """Folder of the tickets: MLIPKIT_QUEUE, or one per user beside the temporary files."""
    folder = os.environ.get("MLIPKIT_QUEUE") or Path(tempfile.gettempdir()) / f"mlipkit-queue-{os.getuid()}"
    path = Path(folder)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


class Ticket:
    """A place in the line for `threads` cores (at most all there are)."""

    def __init__(self, threads: int, folder: Path | None = None) -> None:
        self.threads = min(threads, cores())
        self.folder = folder or queue_folder()
        self.path = self.folder / f"{time.time_ns():020d}-{os.getpid()}.json"
        self._running = False
        self._write()

    def ask(self) -> int:
        """0 when the run may compute now, else its position in the line (1: next)."""
        if self._running:
            return 0
        with open(self.folder / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.path.exists():
                self._write()
            tickets = self._alive()
            before = sum(not record["running"] for path, record in tickets if path < self.path)
            used = sum(record["threads"] for _, record in tickets if record["running"])
            if before == 0 and (used == 0 or used + self.threads <= cores()):
                self._running = True
                self._write()
                return 0
            return before + 1

    def give_back(self) -> None:
        """Leave the line, or free the cores."""
        self._running = False
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        record = {**process.describe(), "threads": self.threads, "running": self._running}
        write_text(self.path, json.dumps(record))

    def _alive(self) -> list[tuple[Path, dict]]:
        tickets = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                record = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if process.is_alive(record) is False:
                path.unlink(missing_ok=True)
            else:
                tickets.append((path, record))
        return tickets
