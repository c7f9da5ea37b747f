"""Writing and reading back: every bit, whole files or none, readable by ASE."""

from __future__ import annotations

import os

import ase.io
import numpy as np
import pytest

from mlipkit.data import FrameSet, read, write
from mlipkit.errors import DataError, LabelError
from mlipkit.units import velocities_from_ase

FORMATS = ["a.extxyz", "a.xyz.gz", "a.xyz.bz2", "a.traj"]


def awkward(asymmetric: bool = False) -> FrameSet:
    """Frames of different size with everything a set can hold, in numbers that need all 17 digits."""
    rng = np.random.default_rng(5)
    counts = np.array([3, 1, 5, 3])
    total = int(counts.sum())
    cell = np.zeros((4, 3, 3))
    cell[0] = rng.normal(size=(3, 3)) + 6 * np.eye(3)
    cell[2] = np.diag([7.1, 8.3, 30.0])
    stress = rng.normal(size=(4, 3, 3)) / 300
    if not asymmetric:
        stress = stress + stress.transpose(0, 2, 1)
    stress[1] = np.nan
    energy = rng.normal(size=4) * 1e5 / 3
    energy[3] = np.nan
    forces = rng.normal(size=(total, 3)) * np.pi
    forces[3] = np.nan
    velocities = rng.normal(size=(total, 3)) / 97
    velocities[4:9] = np.nan
    return FrameSet.from_arrays(
        rng.choice([1, 6, 8, 78], total),
        rng.normal(size=(total, 3)) * 5 / 3,
        counts,
        cell=cell,
        pbc=np.array([[1, 1, 1], [0, 0, 0], [1, 1, 0], [0, 0, 0]], bool),
        velocities=velocities,
        energy=energy,
        forces=forces,
        stress=stress,
        source=["a b.xyz", "T", 'with "quotes" and \\ = {x}', "1e5"],
        tag=["", "T", "two words\nand a line", "300"],
        trajectory=[4, -1, -1, 4],
        time=[0.1 + 0.2, np.nan, 7.0, 1e9 / 3],
    )


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip_is_exact(tmp_path, name):
    frames = awkward()
    back = read(write(tmp_path / name, frames), allow_partial=True)
    for column in ("n_atoms", "numbers", "positions", "cell", "pbc", "energy", "forces", "stress", "velocities"):
        np.testing.assert_array_equal(getattr(back, column), getattr(frames, column), err_msg=column)
    for column in ("uids", "trajectory", "time"):
        np.testing.assert_array_equal(getattr(back, column), getattr(frames, column), err_msg=column)
    assert [back.sources[c] for c in back.source_codes] == [frames.sources[c] for c in frames.source_codes]
    assert [back.tags[c] for c in back.tag_codes] == [frames.tags[c] for c in frames.tag_codes]
    assert back.hash == frames.hash


@pytest.mark.parametrize("name", FORMATS)
def test_stress_with_rotation_part_is_kept(tmp_path, name):
    frames = awkward(asymmetric=True)
    np.testing.assert_array_equal(read(write(tmp_path / name, frames), allow_partial=True).stress, frames.stress)


def test_extremes_of_float64_survive(tmp_path):
    values = np.array([[5e-324, -0.0, 1.7976931348623157e308], [2**-1074 * 3, 1 / 3, -1e-300]])
    frames = FrameSet.from_arrays([1, 1], np.array([[0.0, 0, 0], [1, 0, 0]]), 2, energy=[1e22 / 3], forces=values)
    for name in ("x.extxyz", "x.traj"):
        back = read(write(tmp_path / name, frames))
        assert back.forces.tobytes() == values.tobytes()


def test_ase_reads_labels_velocities_and_cell(tmp_path):
    frames = awkward().select([0])
    atoms = ase.io.read(write(tmp_path / "a.extxyz", frames))
    assert atoms.get_potential_energy() == frames.energy[0]
    np.testing.assert_array_equal(atoms.get_forces(), frames.forces)
    np.testing.assert_array_equal(atoms.get_stress(voigt=False), frames.stress[0])
    np.testing.assert_allclose(velocities_from_ase(atoms.get_velocities()), frames.velocities, rtol=1e-12)
    np.testing.assert_array_equal(atoms.cell.array, frames.cell[0])
    assert atoms.pbc.all()


def test_a_selection_writes_what_it_shows(tmp_path):
    frames = awkward()
    back = read(write(tmp_path / "a.extxyz", frames.select([2, 0])), allow_partial=True)
    np.testing.assert_array_equal(back.uids, frames.uids[[2, 0]])
    np.testing.assert_array_equal(back.forces, np.concatenate([frames.forces[4:9], frames.forces[:3]]))


def test_half_labelled_frame_is_refused_and_nothing_is_left_behind(tmp_path):
    forces = np.zeros((2, 3))
    forces[1] = np.nan
    frames = FrameSet.from_arrays([1, 1], np.eye(3)[:2], 2, forces=forces)
    with pytest.raises(LabelError, match=r"a\.extxyz: frame 0: forces"):
        write(tmp_path / "a.extxyz", frames)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = write(tmp_path / "a.extxyz", awkward())
    before = path.read_bytes()

    def broken(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        write(path, awkward())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.extxyz"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.cif", "cannot write the format"), ("nowhere/a.extxyz", "no folder"), ("a.traj.gz", "never compressed")],
)
def test_refusals(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        write(tmp_path / name, awkward())


def test_no_frames(tmp_path):
    with pytest.raises(DataError, match="no frames to write"):
        write(tmp_path / "a.extxyz", awkward().select([]))
