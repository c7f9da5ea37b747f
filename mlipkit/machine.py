"""What a container or a shared server leaves to this process: CPU and memory limits of its control group.

Pure functions over the files of Linux (cgroup v1 and v2, also nested): on other systems there are none, and no limit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
NO_LIMIT = 1 << 60
"""Bytes from which a limit of v1 is none: it writes the largest page-aligned number there."""


def cpu_limit(root: Path = ROOT, own: Path = OWN) -> float | None:
    """CPUs that this process may keep busy by quota; the tightest of all groups it is in. None: no quota."""
    found: list[float] = []
    for folder in _groups(root, own, "cpu"):
        quota, period = _words(folder / "cpu.max", 2) or (
            *(_words(folder / "cpu.cfs_quota_us", 1) or ("max",)), *(_words(folder / "cpu.cfs_period_us", 1) or ("0",)),
        )  # fmt: skip
        # "max" in v2, -1 in v1: as much as there is.
        if _is_number(quota) and _is_number(period) and float(quota) > 0 and float(period) > 0:
            found.append(float(quota) / float(period))
    return min(found, default=None)


def cpuset_size(root: Path = ROOT, own: Path = OWN) -> int | None:
    """CPUs on which this process may run; None: no group says so."""
    for folder in _groups(root, own, "cpuset"):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            words = _words(folder / name, 1)
            size = count_of(words[0]) if words else 0
            if size:
                return size
    return None


def memory_limit(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Bytes that the group of this process may hold; the tightest of all groups it is in. None: no limit."""
    limits = [limit for limit, _ in _memory(root, own)]
    return min(limits, default=None)


def memory_left(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Bytes that may still be taken before a group reaches its limit, page cache counted as free; None: no limit."""
    return min((max(limit - used, 0) for limit, used in _memory(root, own)), default=None)


def memory_available() -> int:
    """Bytes that may be taken now: what the machine has left, or less where a group sets a limit."""
    import psutil

    left = memory_left()
    there = int(psutil.virtual_memory().available)
    return there if left is None else min(there, left)


def _memory(root: Path, own: Path) -> list[tuple[int, int]]:
    """(limit, use) of every group that has a limit, bytes."""
    found = []
    for folder in _groups(root, own, "memory"):
        for limit_in, used_in in (("memory.max", "memory.current"),
                                  ("memory.limit_in_bytes", "memory.usage_in_bytes")):  # fmt: skip
            limit = _words(folder / limit_in, 1)
            if limit and limit[0].isdigit() and int(limit[0]) < NO_LIMIT:
                used = _words(folder / used_in, 1)
                there = int(used[0]) if used and used[0].isdigit() else 0
                found.append((int(limit[0]), max(there - _reclaimable(folder), 0)))
    return found


def _reclaimable(folder: Path) -> int:
    """Bytes of files in memory that the kernel drops when it needs the room."""
    try:
        lines = (folder / "memory.stat").read_text().split("\n")
    except OSError:
        return 0
    table = dict(line.split(" ", 1) for line in lines if " " in line)
    text = table.get("total_inactive_file", table.get("inactive_file", "0")).strip()
    return int(text) if text.isdigit() else 0


def count_of(text: str) -> int:
    """Number of CPUs in a list such as ``0-3,8``."""
    total = 0
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            return 0
        total += int(last) - int(first) + 1 if dash else 1
    return total


def cores_of(seen: int, quota: float | None, cpuset: int | None) -> int:
    """Cores to share among runs: what the process sees, at most its set, at most its quota, and at least one.

    A quota of 1.5 CPUs is one core: a second thread would only be throttled.
    """
    limits = [seen, *([cpuset] if cpuset else []), *([math.floor(quota)] if quota is not None else [])]
    return max(1, min(limits))


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Folders of the groups of this process, the innermost first, up to the root."""
    for home, path in _homes(root, own, controller):
        inner = Path(os.path.normpath(home / path.lstrip("/")))
        # Inside a container the path is that of the host, which is not mounted here: its root is the group itself.
        if not inner.is_relative_to(home) or not inner.is_dir():
            inner = home
        while True:
            yield inner
            if inner == home:
                break
            inner = inner.parent


def _homes(root: Path, own: Path, controller: str) -> Iterator[tuple[Path, str]]:
    """(mount of the hierarchy, path in it) for v2, and for the v1 hierarchy that holds the controller."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            yield root, path
            # Beside v1 hierarchies v2 lies in a folder of its own.
            if (root / "unified").is_dir():
                yield root / "unified", path
        elif controller in names.split(","):
            for name in (names, controller):
                if (root / name).is_dir():
                    yield root / name, path
                    break


def _words(path: Path, count: int) -> tuple[str, ...]:
    """The first words of a file; () when there are fewer."""
    try:
        words = path.read_text().split()
    except OSError:
        return ()
    return tuple(words[:count]) if len(words) >= count else ()


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdigit()
