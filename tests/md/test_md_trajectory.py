"""The append-only trajectory: ASE reads it at any time, a crash cannot spoil it, a resumed run cuts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import ase.io
import numpy as np
import pytest
from ase.build import molecule

from mlipkit.errors import RunError
from mlipkit.md.ring import Ring
from mlipkit.md.trajectory import TrajectoryWriter, truncate


def frame(k, n=3):
    rng = np.random.default_rng(k)
    return {
        "positions": rng.standard_normal((n, 3)),
        "velocities": rng.standard_normal((n, 3)) * 0.01,
        "cell": np.diag([5.0, 6.0, 7.0]),
        "energy": float(k),
        "forces": rng.standard_normal((n, 3)),
        "info": {"step": k, "time_fs": 0.5 * k},
    }


def write(path, frames, **options):
    water = molecule("H2O")
    writer = TrajectoryWriter(path, water.numbers, water.get_masses(), [True, True, False], **options)
    for k in frames:
        writer.append(**frame(k))
    return writer


def read_steps(path):
    return [atoms.info["step"] for atoms in ase.io.read(path, ":")]


def test_ase_reads_what_was_written(tmp_path):
    write(tmp_path / "t.traj", range(3)).close()
    atoms = ase.io.read(tmp_path / "t.traj", index=2)
    expected = frame(2)
    np.testing.assert_array_equal(atoms.positions, expected["positions"])
    np.testing.assert_array_equal(atoms.get_forces(), expected["forces"])
    assert atoms.get_potential_energy() == 2.0
    assert atoms.pbc.tolist() == [True, True, False]
    assert atoms.info == expected["info"]
    from mlipkit.units import velocities_from_ase

    np.testing.assert_allclose(velocities_from_ase(atoms.get_velocities()), expected["velocities"], rtol=1e-14)


def test_own_masses_and_stress_are_kept(tmp_path):
    heavy = TrajectoryWriter(tmp_path / "t.traj", np.array([1, 1]), np.array([2.014, 1.008]), [True] * 3)
    stress = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
    heavy.append(np.zeros((2, 3)), np.zeros((2, 3)), np.eye(3), energy=0.0, stress=stress)
    heavy.close()
    atoms = ase.io.read(tmp_path / "t.traj")
    assert atoms.get_masses().tolist() == [2.014, 1.008]
    np.testing.assert_array_equal(atoms.get_stress(voigt=False), stress)


# The offset table of the format grows at 1, 42 and 1764 frames: cut and go on at each side of every step.
@pytest.mark.parametrize("keep", [0, 1, 2, 41, 42, 43, 100, 1763, 1764, 1765, 1799])
def test_truncate_and_append(tmp_path, keep):
    path = tmp_path / "t.traj"
    write(path, range(1800)).close()
    writer = write(path, [], keep=keep)
    assert writer.n_frames == keep
    for k in range(keep, keep + 60):
        writer.append(**frame(k))
    writer.close()
    assert read_steps(path) == list(range(keep + 60))
    np.testing.assert_array_equal(ase.io.read(path, index=keep).positions, frame(keep)["positions"])


def test_truncate_gives_the_space_back(tmp_path):
    path = tmp_path / "t.traj"
    write(path, range(1000)).close()
    full = path.stat().st_size
    truncate(path, 100)
    assert path.stat().st_size < 0.2 * full


def test_what_cannot_be_truncated_is_said(tmp_path):
    path = tmp_path / "t.traj"
    write(path, range(5)).close()
    with pytest.raises(RunError, match="shorter than its checkpoint says; expected 6 frames; found 5"):
        truncate(path, 6)
    with pytest.raises(RunError, match="is missing"):
        truncate(tmp_path / "none.traj", 1)
    (tmp_path / "text.traj").write_text("not a trajectory at all, but long enough for a head")
    with pytest.raises(RunError, match="not a readable trajectory"):
        truncate(tmp_path / "text.traj", 1)


@pytest.mark.parametrize("frames", [1, 2, 41, 42, 43])
def test_any_cut_end_leaves_the_whole_frames(tmp_path, frames):
    """Lengths that a crash can leave behind while one more frame is written: the frames before it stay readable."""
    path = tmp_path / "t.traj"
    writer = write(path, range(frames))
    head = path.read_bytes()
    writer.append(**frame(frames))
    writer.close()
    whole = path.read_bytes()
    # The bytes in front (count, table) are the old ones until the frame is complete.
    for end in range(len(head), len(whole), max(37, (len(whole) - len(head)) // 30)):
        path.write_bytes(head + whole[len(head) : end])
        assert read_steps(path) == list(range(frames))
        if end % 3 == 0:
            write(path, [99], keep=frames).close()
            assert read_steps(path) == [*range(frames), 99]


WRITER = """
import sys, numpy as np
from mlipkit.md.trajectory import TrajectoryWriter
writer = TrajectoryWriter(sys.argv[1], np.full(200, 6), np.full(200, 12.011), [False] * 3)
for k in range(10**6):
    x = np.full((200, 3), float(k))
    writer.append(x, x, np.eye(3), energy=float(k), forces=x, info={"step": k})
    if k == 20:
        print("going", flush=True)
"""


@pytest.mark.full
def test_killed_while_writing(tmp_path):
    rng = np.random.default_rng(1)
    for trial in range(4):
        path = tmp_path / f"{trial}.traj"
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(0.05 * rng.random())
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        frames = ase.io.read(path, ":")
        assert len(frames) > 20
        for k, atoms in enumerate(frames):
            assert atoms.info["step"] == k
            assert (atoms.positions == k).all()
            assert (atoms.get_forces() == k).all()


def test_ring_keeps_the_last_steps_and_no_more(tmp_path):
    ring = Ring(2, ("step", "time_fs", "potential_energy"), size=5)
    for k in range(12):
        x = np.full((2, 3), float(k))
        ring.append(np.array([k, 0.5 * k, -k]), x, 2 * x, 3 * x, np.eye(3))
    assert len(ring) == 5
    ring.write(tmp_path / "last.traj", np.array([1, 1]), np.array([1.008, 1.008]), np.zeros(3, bool))
    frames = ase.io.read(tmp_path / "last.traj", ":")
    assert [atoms.info["step"] for atoms in frames] == [7, 8, 9, 10, 11]
    assert (frames[0].get_forces() == 21).all()
    again = Ring(2, ring.columns, size=5)
    again.recall(ring.memory())
    again.write(tmp_path / "again.traj", np.array([1, 1]), np.array([1.008, 1.008]), np.zeros(3, bool))
    assert (tmp_path / "again.traj").read_bytes() == (tmp_path / "last.traj").read_bytes()


def test_ring_recalls_its_steps_to_where_the_next_ones_lie():
    ring = Ring(2, ("step", "time_fs", "potential_energy"), size=5)
    x = np.ones((2, 3))
    ring.append(np.zeros(3), x, x, x, np.eye(3))
    again = Ring(2, ring.columns, size=5)
    # Any device but the one that the memory comes from: steps of two devices cannot be stacked.
    again.recall(ring.memory(), device="meta")
    assert {values.device.type for values in again._kept[0]} == {"meta"}


def test_ring_of_a_huge_system_is_bounded():
    assert Ring(1_000_000, ("step", "time_fs", "potential_energy"), size=200).size == 3


def test_ring_that_keeps_nothing_yet_has_empty_memory():
    memory = Ring(5, ("step", "time_fs", "potential_energy"), size=4, n_systems=2).memory(1, slice(2, 5))
    assert {name: values.shape for name, values in memory.items()} == {
        "arrays": (0, 3, 3, 3), "cells": (0, 3, 3), "rows": (0, 3)
    }  # fmt: skip
