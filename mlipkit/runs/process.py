"""Which process is it, and does it still live? A process number alone may since belong to another program."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
from pathlib import Path

import psutil


def host() -> str:
    """Name of this machine."""
    return socket.gethostname()


def identity(pid: int) -> str | None:
    """Text that no other process ever has on this machine: boot and start time; None when it does not run.

    A process that ended and only waits to be collected by its parent counts as gone.
    """
    if Path("/proc/self/stat").exists():
        # Start time in clock ticks since boot: unlike a wall-clock time it does not move with the clock.
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (OSError, ValueError):
            return None
        return None if fields[0] in "ZXx" else f"{boot}:{fields[19]}"
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def describe(pid: int | None = None) -> dict[str, object]:
    """Plain record of a process (this one when `pid` is omitted), as `is_alive` reads it."""
    pid = os.getpid() if pid is None else pid
    return {"pid": pid, "identity": identity(pid), "host": host()}


def is_alive(record: dict) -> bool | None:
    """Does the recorded process still run? None when it belongs to another machine."""
    if record.get("host") not in (None, host()):
        return None
    pid = record.get("pid")
    if not pid or not record.get("identity"):
        return False
    return identity(int(pid)) == record["identity"]


NICENESS = 5
"""Lower priority than the notebook's own process, whose clicks shall stay quick on a full machine."""


def lower_priority(pid: int = 0) -> None:
    """Let others go first, this process when `pid` is 0."""
    with contextlib.suppress(OSError, AttributeError):
        if os.getpriority(os.PRIO_PROCESS, pid) < NICENESS:
            os.setpriority(os.PRIO_PROCESS, pid, NICENESS)


def session_niceness(niceness: int, pid: int = 0) -> None:
    """Niceness of the session that a process leads; nothing happens when it leads none.

    Linux shares the cores among sessions before it looks at the niceness of processes. Each worker leads one: thirty
    that come up at once would leave a notebook one part of thirty-one.
    """
    with contextlib.suppress(OSError):
        if os.getsid(pid) == (pid or os.getpid()):
            Path(f"/proc/{pid or 'self'}/autogroup").write_text(str(niceness))


def peak_memory() -> int:
    """Largest memory that this process has held, bytes.

    Linux counts what the starting process held into `ru_maxrss` of its children, so that a run started from a large
    notebook would seem large: the high-water mark of this program alone is in /proc.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
