"""`labels.jsonl`: one line per frame as it is labelled, written before the next one is begun.

A killed process loses nothing of what is written, a power cut at most the last `SYNC_S` seconds: waiting for the disk
takes longer than a cheap label.

The first line says what the engine is. A line is a frame's labels or the reason why it has none; of two lines for one
uid the later one counts. A line that was torn by a crash is cut off or passed over, and its frame is labelled anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, NoReturn

from mlipkit.errors import RunError

FORMAT = "mlipkit-labels-1"
LOG = "labels.jsonl"
SYNC_S = 0.2


class LabelLog:
    """The file of a folder, held by this process alone until it is closed.

    Attributes:
        head: first line, or empty when nothing was written yet.
        rows: by uid, the latest line of each frame.
        torn: lines that could not be read.

    Raises:
        RunError: another process labels in this folder, it cannot be written, or it holds something else.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise RunError(f"labels cannot be kept here ({error.strerror})", where=str(folder)) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise RunError("another process labels in this folder", where=str(folder),
                           hint="Wait for it, or choose another folder") from None  # fmt: skip
        self.head: dict[str, Any] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.torn = 0
        self._safe, self._next_sync = (0, 0), 0.0
        try:
            self._read()
        except BaseException:
            self.close()
            raise
        self._safe = os.fstat(self._file).st_size, len(self.rows)

    def begin(self, head: dict[str, Any]) -> None:
        """Write the first line."""
        self.head = {"format": FORMAT, **head}
        self._write(self.head)
        self.sync()

    def add(self, row: dict[str, Any]) -> None:
        """Append the outcome of a frame.

        Raises:
            RunError: the disk is full or gone; what was written before is whole.
        """
        self._write(row)
        self.rows[row["uid"]] = row
        if time.monotonic() >= self._next_sync:
            self.sync()

    def sync(self) -> None:
        """Wait until the disk has all that was written.

        Raises:
            RunError: it has no room, or is gone; the file is cut back to what it has.
        """
        self._next_sync = time.monotonic() + SYNC_S
        try:
            os.fsync(self._file)
        except OSError as error:
            self._give_up(*self._safe, error)
        self._safe = os.fstat(self._file).st_size, len(self.rows)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._file)

    def __enter__(self) -> LabelLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file, whole)
        self.head, self.rows, self.torn = _parse(content[:whole], self.path)
        if not self.head:  # begun by a process that came no further
            os.ftruncate(self._file, 0)

    def _write(self, record: dict[str, Any]) -> None:
        line = memoryview(json.dumps(record).encode() + b"\n")
        size = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            self._give_up(size, len(self.rows), error)

    def _give_up(self, size: int, n_frames: int, error: OSError) -> NoReturn:
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, size)
        raise RunError(
            f"labels cannot be written ({error.strerror})", where=str(self.path),
            hint=f"The {n_frames} frames before are safe; make room and start the same again: it goes on",
        ) from None  # fmt: skip


def read_records(folder: Path | str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """First line and the latest line of each uid of a folder, also while another process labels there; empty before.

    Raises:
        RunError: the file is not one of ours.
    """
    path = Path(folder) / LOG
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}, {}
    head, rows, _ = _parse(content[: content.rfind(b"\n") + 1], path)
    return head, rows


def _parse(content: bytes, path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]], int]:
    """Head, rows by uid, and how many lines cannot be read."""
    head: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]] = {}
    torn = 0
    for number, line in enumerate(content.splitlines()):
        try:
            record = json.loads(line)
            if number == 0:
                if record.get("format") != FORMAT:
                    raise RunError("holds no labels of mlipkit", where=str(path), expected=FORMAT)
                head = record
            else:
                rows[record["uid"]] = record
        except (ValueError, KeyError, AttributeError, TypeError):
            torn += 1
    if rows and not head:
        raise RunError("the first line cannot be read", where=str(path), hint="Label into a new folder")
    return head, rows, torn
