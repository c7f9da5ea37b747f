"""The event log of a run: one JSON object per line, with a sequence number and a time stamp.

One process appends; any number read. A line that a crash cut short is not an event; the next writer closes it off.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from mlipkit import events
from mlipkit.errors import RunError
from mlipkit.events import Event


@dataclass(frozen=True)
class Entry:
    """One event of the log. `seq` counts from 1, `t` is Unix time in seconds."""

    seq: int
    t: float
    event: Event


class EventLog:
    """Append-only writer. Numbers go on from what the file holds."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab")  # noqa: SIM115 - held for the life of the process
        size = os.fstat(self._file.fileno()).st_size
        if size:
            with open(path, "rb") as file:
                file.seek(size - 1)
                torn = file.read(1) != b"\n"
            if torn:
                self._file.write(b"\n")
                self._file.flush()
        last = EventTail(path).read()
        self.seq = last[-1].seq if last else 0

    def append(self, event: Event) -> int:
        """Write one event and hand it to the operating system; its sequence number."""
        self.seq += 1
        record = {"seq": self.seq, "t": round(time.time(), 3), **events.to_json(event)}
        # One write call: a reader sees the line or not.
        self._file.write(json.dumps(record, ensure_ascii=False, default=_number).encode() + b"\n")
        self._file.flush()
        return self.seq

    __call__ = append

    def close(self) -> None:
        """Write through to the disk and close."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class EventTail:
    """Reader that goes on where it stopped: each `read` returns only what is new."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def read(self) -> list[Entry]:
        """Whole events since the last call; lines that are no events (cut short by a crash) are passed over."""
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self.offset:  # another file took its place
                    self.offset = 0
                file.seek(self.offset)
                block = file.read()
        except FileNotFoundError:
            return []
        end = block.rfind(b"\n") + 1
        self.offset += end
        entries = []
        for line in block[:end].splitlines():
            try:
                record = json.loads(line)
                entries.append(Entry(int(record["seq"]), float(record["t"]), events.from_json(record)))
            except (ValueError, KeyError, TypeError, RunError):
                continue
        return entries


def _number(value):
    """Numbers and arrays of numpy and torch as plain ones."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
