"""The folder of a run: which file lies where, and how small files are written so that readers never see half of one.

::

    <root>/<name>/
        spec.yaml         what was asked for (never changed)
        changes.json      what was changed since, while it ran or for going on
        replicas.json     of several simulations in one run: index, start, temperature, seeds, folder of each
        launch.json       where and how it was launched: working folder, Python, fingerprints of the inputs
        versions.json     packages and machine that computed it
        pid.json          the process of the latest attempt and its phase
        control.json      what the user asks of the process: run, pause, stop
        progress.json     how far it is; overwritten twice a second, so that the log stays short
        heartbeat         touched while the process works; its age is what views show
        events.jsonl      events, one JSON object per line (see `mlipkit.runs.log`)
        log.txt           everything the process printed, tracebacks included
        checkpoints/  series/  trajectory.traj  parity.npz  report.html
        replica_000/ ...  series and trajectory of each of several simulations
        recorded.json     of a recording that comes with a notebook: the day (see `mlipkit.runs.shipped`)
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipkit.errors import RunError


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run folder and access to its small files."""

    path: Path

    @property
    def base(self) -> Path:
        """Folder of the launch: relative places of the specification count from it."""
        return (self.path / self.read("launch.json").get("cwd", "")).resolve()

    @property
    def spec(self) -> Path:
        return self.path / "spec.yaml"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def series(self) -> Path:
        return self.path / "series"

    @property
    def trajectory(self) -> Path:
        return self.path / "trajectory.traj"

    @property
    def parity(self) -> Path:
        return self.path / "parity.npz"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def heartbeat(self) -> Path:
        return self.path / "heartbeat"

    def read(self, name: str) -> dict[str, Any]:
        """A small JSON file as a dictionary; empty when it does not exist."""
        return read_json(self.path / name)

    def write(self, name: str, record: dict[str, Any], durable: bool = True) -> None:
        """Write a small JSON file whole."""
        write_text(self.path / name, json.dumps(record, indent=1), durable)

    def beat(self) -> None:
        """Mark now as the moment of the latest sign of life."""
        try:
            os.utime(self.heartbeat)
        except FileNotFoundError:
            self.heartbeat.touch()

    def heartbeat_age(self) -> float | None:
        """Seconds since the latest sign of life; None before the first one."""
        try:
            return max(0.0, time.time() - self.heartbeat.stat().st_mtime)
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def locked(self, name: str = ".launch", wait: bool = True) -> Iterator[bool]:
        """Hold the lock of this name; yields False when another process has it and `wait` is off."""
        with open(self.path / name, "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Replace a file in one step: a reader sees the old content or the new, a crash leaves one of the two.

    Args:
        durable: wait until the disk has it, so that a power cut leaves one of the two as well.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty when the file does not exist.

    Raises:
        RunError: not a JSON object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise RunError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(record, dict):
        raise RunError("not a JSON object", where=str(path))
    return record


def fingerprint(path: Path, whole_below: int = 64 << 20) -> str:
    """Text that changes when a file or folder does: SHA-256 of small files, size and time of the rest."""
    if path.is_file() and path.stat().st_size <= whole_below:
        return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())[:1000]
    digest = hashlib.sha256()
    for item in files:
        stat = item.stat()
        digest.update(f"{item.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return "stat:" + digest.hexdigest()
