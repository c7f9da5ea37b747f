"""Limits of control groups, read from made-up trees of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlipkit import machine
from mlipkit.runs.queue import cores


def tree(root: Path, own: str, files: dict[str, str]) -> dict[str, Path]:
    """A hierarchy and the file that says where a process is in it."""
    for name, text in files.items():
        (root / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "cgroup" / name).write_text(text)
    (root / "cgroup").mkdir(exist_ok=True)
    (root / "own").write_text(own)
    return {"root": root / "cgroup", "own": root / "own"}


V1 = "12:cpuset:/pod\n5:memory:/pod\n4:cpu,cpuacct:/pod\n0::/pod\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2.0),
        ("0::/a/b\n", {"a/cpu.max": "800000 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
        # The host's path, of which a container sees nothing but the root.
        ("0::/kubepods/pod1\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/../..\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "much"}, None),
        (V1, {"cpu,cpuacct/pod/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n"}, 4.0),
        (V1, {"cpu/pod/cpu.cfs_quota_us": "-1\n", "cpu/pod/cpu.cfs_period_us": "100000\n"}, None),
        (V1, {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000",
              "cpu/pod/cpu.cfs_quota_us": "-1", "cpu/pod/cpu.cfs_period_us": "100000"}, 2.5),
    ],
)  # fmt: skip
def test_cpu_quota(tmp_path: Path, own: str, files: dict[str, str], expected: float | None):
    assert machine.cpu_limit(**tree(tmp_path, own, files)) == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a\n", {"a/cpuset.cpus.effective": "0-3,8\n"}, 5),
        ("0::/a\n", {"a/cpuset.cpus.effective": "\n", "cpuset.cpus.effective": "0-1\n"}, 2),
        (V1, {"cpuset/pod/cpuset.cpus": "2\n"}, 1),
        (V1, {"cpuset/pod/cpuset.cpus": "two\n"}, None),
        ("", {}, None),
    ],
)
def test_cpuset(tmp_path: Path, own: str, files: dict[str, str], expected: int | None):
    assert machine.cpuset_size(**tree(tmp_path, own, files)) == expected


def test_memory(tmp_path: Path):
    v2 = tree(tmp_path / "v2", "0::/a/b\n", {
        "a/memory.max": "1000", "a/memory.current": "600", "a/memory.stat": "anon 1\ninactive_file 100\n",
        "a/b/memory.max": "max", "a/b/memory.current": "50",
    })  # fmt: skip
    assert machine.memory_limit(**v2) == 1000
    assert machine.memory_left(**v2) == 500
    v1 = tree(tmp_path / "v1", V1, {
        "memory/pod/memory.limit_in_bytes": "4000", "memory/pod/memory.usage_in_bytes": "5000",
        "memory/memory.limit_in_bytes": "9223372036854771712",
    })  # fmt: skip
    assert machine.memory_limit(**v1) == 4000
    assert machine.memory_left(**v1) == 0
    none = tree(tmp_path / "none", "0::/\n", {"memory.max": "max\n"})
    assert machine.memory_limit(**none) is None
    assert machine.memory_left(**none) is None


def test_cores_are_whole_and_at_least_one():
    assert machine.cores_of(8, None, None) == 8
    assert machine.cores_of(8, 2.9, None) == 2
    assert machine.cores_of(8, 0.5, None) == 1
    assert machine.cores_of(8, 6.0, 3) == 3
    assert machine.cores_of(2, 6.0, None) == 2
    assert machine.count_of("0-3,7") == 5
    assert machine.count_of("") == 0


def test_runs_share_what_the_group_leaves(monkeypatch):
    monkeypatch.delenv("MLIPKIT_CORES", raising=False)
    monkeypatch.setattr(machine, "cpu_limit", lambda: 1.5)
    assert cores() == 1
    monkeypatch.setenv("MLIPKIT_CORES", "6")
    assert cores() == 6
    monkeypatch.setenv("MLIPKIT_CORES", "many")
    assert cores() == 1


def test_memory_of_this_machine_is_at_most_what_is_left(monkeypatch):
    assert machine.memory_available() > 0
    monkeypatch.setattr(machine, "memory_left", lambda: 12345)
    assert machine.memory_available() == 12345
