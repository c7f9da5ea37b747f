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

    While the user wants a pause the call does not return: the cores are free, memory and state stay as they are.

    Args:
        files: the run folder.
        log: where pauses are noted.
        pause: called when a pause begins.
        go_on: called when it ends; returns when there are cores again.

    Attributes:
        changed: a changed specification waits to be taken over; the work at hand is asked to stop for it.
        signal: name of the signal that asked the process to end, or "".
    """

    def __init__(self, files: RunFolder, log: EventLog, pause: Callable[[], None], go_on: Callable[[], None]) -> None:
        self.files, self._log, self._pause, self._go_on = files, log, pause, go_on
        self.changed, self.signal = False, ""
        self.paused_s = 0.0
        self._revision = self._read()[1]
        self._request: Request = "run"
        self._next_read = self._next_beat = 0.0

    def __call__(self) -> Request:
        now = time.monotonic()
        if now >= self._next_read:
            self._next_read = now + READ_EVERY_S
            self._look(now)
            if self._request == "pause":
                self._hold()
        return self._request

    def take_changes(self) -> None:
        """The specification has just been read anew: nothing waits to be taken over."""
        self.changed, self._revision = False, self._read()[1]
        self._next_read = 0.0

    def _read(self) -> tuple[Request, int]:
        try:
            record = self.files.read("control.json")
        except RunError:  # edited by hand and not JSON: go on as before
            return "run", 0
        return record.get("request", "run"), int(record.get("revision", 0))

    def _look(self, now: float) -> None:
        if now >= self._next_beat:
            self._next_beat = now + BEAT_EVERY_S
            self.files.beat()
        request, revision = self._read()
        self.changed = revision != self._revision
        self._request = "stop" if self.signal or (self.changed and request != "pause") else request

    def _hold(self) -> None:
        begin = time.monotonic()
        self._log(Message("paused by the user"))
        self._pause()
        while self._request == "pause":
            time.sleep(READ_EVERY_S)
            self._look(time.monotonic())
        if self._request == "run":
            self._go_on()
            self._look(time.monotonic())
        self.paused_s += time.monotonic() - begin
        self._log(Message("goes on after a pause"))
