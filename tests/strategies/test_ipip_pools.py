"""Pools: what is forgotten, relabelled and added, where frames come from, and what is shared."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from mlipkit.data import FrameSet
from mlipkit.errors import DataError
from mlipkit.strategies.ipip import pools
from mlipkit.strategies.ipip.pools import COLUMNS, TEACHER, Pool, forgotten, gate


def frames(n: int, seed: int = 0) -> FrameSet:
    rng = np.random.default_rng(seed)
    water = molecule("H2O")
    positions = water.positions + rng.normal(0, 0.05, (n, 3, 3))
    return FrameSet.from_arrays(water.numbers, positions, energy=rng.normal(size=n), forces=rng.normal(size=(n, 3, 3)))


def pool(n: int, seed: int = 0, **more) -> Pool:
    given = {"labeller": TEACHER, "origin": "teacher_md", "iteration": 0, "step": np.arange(n), **more}
    return Pool.of(frames(n, seed), **given)


def relabelled(one: Pool, rows: np.ndarray, by: float) -> FrameSet:
    some = one.frames.select(rows)
    return some.with_labels(energy=some.energy + by, forces=some.forces + by)


@pytest.mark.parametrize(("n", "lost"), [(100, 10), (25, 3), (24, 2), (4, 0)])
def test_a_tenth_is_forgotten_to_whole_frames_at_random_by_seed(n, lost):
    whole = pool(n)
    one, count = whole.forget(0.1, 7)
    assert (count, len(one)) == (lost, n - lost) == (forgotten(n, 0.1), len(one))
    assert one.hash == whole.forget(0.1, 7)[0].hash
    assert set(one.frames.uids) <= set(whole.frames.uids)
    if lost:
        assert one.hash != whole.forget(0.1, 8)[0].hash
    assert whole.forget(0.0, 7)[0] is whole


def test_a_frame_is_relabelled_once_in_an_iteration_and_says_so():
    one = pool(10)
    rows = np.arange(4)
    new = one.relabel(rows, relabelled(one, rows, 1.0), student=0, iteration=1)
    assert new.table["labeller"].tolist() == [0] * 4 + [TEACHER] * 6
    assert new.table["relabelled"].tolist() == [1] * 4 + [-1] * 6
    assert np.allclose(new.frames.energy - one.frames.energy, [1.0] * 4 + [0.0] * 6)
    assert np.allclose(new.frames.forces[:12] - one.frames.forces[:12], 1.0)
    assert new.teacher_share == 0.6
    with pytest.raises(DataError, match="once"):
        new.relabel(rows, relabelled(new, rows, 1.0), student=0, iteration=1)
    with pytest.raises(DataError, match="once"):
        one.relabel(np.array([1, 1]), relabelled(one, np.array([1, 1]), 1.0), student=0, iteration=1)
    with pytest.raises(DataError, match="other structures"):
        one.relabel(np.array([1]), one.frames.select([2]), student=0, iteration=1)


def test_who_may_be_relabelled():
    teacher, student = pool(4), pool(3, 1, origin="student_md", maker=0, iteration=1)
    both, doubles = teacher.add(student)
    assert doubles == 0
    assert both.candidates("all").tolist() == list(range(7))
    assert both.candidates("student_origin").tolist() == [4, 5, 6]
    assert both.candidates("off").tolist() == []


def test_structures_are_shared_when_labels_are_new_also_on_disk(tmp_path):
    one = pool(12)
    rows = np.arange(12)
    new = one.relabel(rows, relabelled(one, rows, 0.5), student=0, iteration=1)
    before, after = one.frames.hashes(), new.frames.hashes()
    assert {name for name in before if before[name] != after[name]} == {"energy", "forces"}
    assert new.frames.positions.base is one.frames.positions.base or np.shares_memory(
        new.frames.positions, one.frames.positions
    )
    one.save(tmp_path / "0")
    new.save(tmp_path / "1", previous=tmp_path / "0")
    files = [{path.name: path.stat().st_ino for path in (tmp_path / k / "frames").glob("*.npy")} for k in "01"]
    shared = set(files[0]) & set(files[1])
    assert {name.partition(".")[0] for name in set(files[1]) - shared} == {"energy", "forces"}
    assert all(files[0][name] == files[1][name] for name in shared)
    for k, pool_k in (("0", one), ("1", new)):
        assert Pool.open(tmp_path / k).hash == pool_k.hash


def test_without_links_a_copy_that_breaks_off_is_no_column(tmp_path, monkeypatch):
    one = pool(12)
    one.save(tmp_path / "0")
    new = one.relabel(np.arange(2), relabelled(one, np.arange(2), 0.5), student=0, iteration=1)

    def broken(source, target):
        target.write_bytes(b"cut")
        raise KeyboardInterrupt

    monkeypatch.setattr(pools.os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    with monkeypatch.context() as patch:
        patch.setattr(pools.shutil, "copyfile", broken)
        with pytest.raises(KeyboardInterrupt):
            new.save(tmp_path / "1", previous=tmp_path / "0")
    new.save(tmp_path / "1", previous=tmp_path / "0")
    assert Pool.open(tmp_path / "1").hash == new.hash
    assert np.array_equal(Pool.open(tmp_path / "1").frames.positions, one.frames.positions)


def test_doubles_and_test_frames_stay_out():
    one = pool(6)
    again = one.select([1, 2])
    both, doubles = one.add(again)
    assert (both, doubles) == (one, 2)
    new = pool(3, 5)
    twice = Pool(FrameSet.concat([new.frames, new.frames]), {n: np.tile(new.table[n], 2) for n in COLUMNS})
    assert [len(x) if isinstance(x, Pool) else x for x in one.add(twice)] == [9, 3]
    left, found = one.without(one.frames.select([0, 5]))
    assert (len(left), found) == (4, 2)
    assert not set(left.frames.structure_hashes) & set(one.frames.select([0, 5]).structure_hashes)


def test_the_hash_knows_labels_and_provenance():
    one = pool(5)
    assert one.hash == pool(5).hash
    assert one.hash != pool(5, iteration=1).hash
    assert one.hash != Pool(one.frames.with_labels(energy=one.frames.energy + 1), one.table).hash


def test_provenance_is_complete_or_refused():
    one = pool(5)
    with pytest.raises(DataError, match="provenance"):
        Pool(one.frames, {name: one.table[name] for name in COLUMNS if name != "step"})
    with pytest.raises(DataError, match="energies and forces"):
        Pool.of(one.frames.without_labels(), labeller=TEACHER, origin="teacher_md", iteration=0)
    found = one.composition()
    assert found["size"] == 5
    assert found["labellers"] == {"teacher": 5}
    assert found["origins"] == {"teacher_md": 5}


def test_the_gate_keeps_wild_and_uncertain_frames_from_the_student():
    forces = np.zeros((10, 3))
    forces[2] = [60.0, 0, 0]
    forces[4] = [np.nan, 0, 0]
    spread = np.array([1.0, 2, 3, 4, 5])
    assert gate(forces, spread, np.full(5, 2), cap=50.0).tolist() == [True, False, False, True, False]
