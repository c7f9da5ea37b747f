"""The worker's ear: what the user asks through `control.json`, read at most ten times a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from mlipkit.errors import RunError
from mlipkit.events import Message, Request
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.log import EventLog

READ_EVERY_S = 0.1
BEAT_EVERY_S = 1.0


class FolderControl:
    """A `mlipkit.events.Control` on a run folder; it also gives the signs of life.

    It says "pause" from the user's wish until the user lifts it and there are cores again.

    Args:
        files: the run folder.
        log: where pauses are noted.
        pause: called when a pause begins.
        go_on: asked whether the work may go on after a pause.

    Attributes:
        changed: a changed specification waits to be taken over; the work at hand is asked to stop for it.
        signal: name of the signal that asked the process to end, or "".
    """

    def __init__(self, files: RunFolder, log: EventLog, pause: Callable[[], None], go_on: Callable[[], bool]) -> None:
        self.files, self._log, self._pause, self._go_on = files, log, pause, go_on
        self.changed, self.signal = False, ""
        self._revision = self._read()[1]
        self._request: Request = "run"
        self._asked = self._held = False
        self._next_read = self._next_beat = 0.0

    def __call__(self) -> Request:
        now = time.monotonic()
        if now >= self._next_read:
            self._next_read = now + READ_EVERY_S
            self._request = self._look(now)
        return self._request

    def take_changes(self) -> None:
        """The specification has just been read anew: nothing waits to be taken over."""
        self.changed, self._revision = False, self._read()[1]
        self._next_read = 0.0

    def _read(self) -> tuple[Request, int]:
        try:
            record = self.files.read("control.json")
        except RunError:  # edited by hand and not JSON: go on as before
            return "run", self._revision if hasattr(self, "_revision") else 0
        return record.get("request", "run"), int(record.get("revision", 0))

    def _look(self, now: float) -> Request:
        if now >= self._next_beat:
            self._next_beat = now + BEAT_EVERY_S
            self.files.beat()
        request, revision = self._read()
        if self.signal:
            request = "stop"
        if request == "pause":
            if not self._asked:
                # The work is saved after this answer; the pause is said to have begun when it asks again.
                self._asked, self._next_read = True, 0.0
            elif not self._held:
                self._held = True
                self._log(Message("paused by the user"))
                self._pause()
            return "pause"
        self._asked = False
        if self._held:
            if request == "run" and not self._go_on():
                return "pause"
            self._held = False
            self._log(Message("goes on after a pause"))
        self.changed = revision != self._revision
        return "stop" if self.changed else request
