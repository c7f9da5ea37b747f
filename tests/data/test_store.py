"""FrameSets on disk: exact, atomic, lazy, and never in silence when damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlipkit.data import FrameSet
from mlipkit.data import store as store_module
from mlipkit.errors import DataError


def some_frames(n_frames: int = 20, seed: int = 0) -> FrameSet:
    rng = np.random.default_rng(seed)
    return FrameSet.from_arrays(
        [8, 1, 1],
        rng.normal(size=(n_frames, 3, 3)),
        energy=rng.normal(size=n_frames),
        forces=rng.normal(size=(n_frames, 3, 3)),
        source=[f"f{i % 4}.xyz" for i in range(n_frames)],
        tag=["x" if i > 3 else "" for i in range(n_frames)],
        trajectory=np.arange(n_frames) // 5,
        time=np.arange(n_frames) * 0.5,
    )


@pytest.mark.parametrize("mmap", [True, False])
def test_round_trip_is_exact(tmp_path: Path, mmap: bool):
    frames = some_frames()
    frames.save(tmp_path / "set")
    again = FrameSet.open(tmp_path / "set", mmap=mmap)
    assert again == frames
    # The table holds the hashes; here the bits themselves are compared.
    again._hashes.clear()
    assert again.hashes() == frames.hashes()
    assert again.frame(7)["source"] == "f3.xyz"
    assert again[3:5] == frames[3:5]


def test_selections_and_empty_sets_round_trip(tmp_path: Path):
    frames = some_frames().select([7, 1, 15])
    frames.save(tmp_path / "part")
    part = FrameSet.open(tmp_path / "part")
    assert part == frames
    assert part.sources == ("f3.xyz", "f1.xyz"), "unused names are not stored"
    assert len(part._columns["positions"].values) == 9, "only the selected frames are stored"
    FrameSet.from_atoms([]).save(tmp_path / "empty")
    assert len(FrameSet.open(tmp_path / "empty")) == 0


def test_columns_are_mapped_not_read(tmp_path: Path):
    some_frames().save(tmp_path / "set")
    frames = FrameSet.open(tmp_path / "set")
    assert isinstance(frames.positions, np.memmap)
    assert not frames.positions.flags.writeable
    plain = np.load(next((tmp_path / "set").glob("positions.*.npy")), allow_pickle=False)
    assert np.array_equal(plain, frames.positions)


def test_saving_again_writes_only_what_changed(tmp_path: Path):
    folder = tmp_path / "set"
    frames = some_frames()
    frames.save(folder)
    before = {path.name: os.stat(path).st_ino for path in folder.glob("*.npy")}
    opened = FrameSet.open(folder)
    positions = np.array(opened.positions)
    opened.with_labels(energy=np.zeros(20)).save(folder)
    after = {path.name: os.stat(path).st_ino for path in folder.glob("*.npy")}
    assert {name.split(".")[0] for name in set(before) ^ set(after)} == {"energy"}
    assert all(before[name] == after[name] for name in set(before) & set(after))
    assert (FrameSet.open(folder).energy == 0).all()
    assert np.array_equal(opened.positions, positions), "a set that is open keeps its columns"
    assert opened.energy[0] == frames.energy[0]


def test_an_interrupted_save_leaves_the_former_set(tmp_path: Path, monkeypatch):
    folder = tmp_path / "set"
    frames = some_frames()
    frames.save(folder)
    n_files = 0
    while True:
        count = 0

        def failing(*args, n_files=n_files, replace=os.replace):
            nonlocal count
            count += 1
            if count > n_files:
                raise KeyboardInterrupt
            return replace(*args)

        with monkeypatch.context() as patch:
            patch.setattr(store_module.os, "replace", failing)
            try:
                some_frames(30 + n_files, seed=1).save(folder)
                break
            except KeyboardInterrupt:
                n_files += 1
        left = FrameSet.open(folder)
        left._hashes.clear()
        assert left == frames
    assert n_files > 8, "every column and the table were interrupted once"
    some_frames(30, seed=1).save(folder)
    assert FrameSet.open(folder) == some_frames(30, seed=1)
    assert not list(folder.glob(".*.part"))
    assert len(list(folder.glob("positions.*.npy"))) == 1


def test_a_column_has_its_name_only_when_it_is_whole(tmp_path: Path, monkeypatch):
    folder = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr(store_module.os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space left"):
            some_frames().save(folder)
    assert list(folder.iterdir()) == []


def test_a_save_that_was_killed_before_its_table_is_done_again(tmp_path: Path, monkeypatch):
    folder, whole = tmp_path / "set", some_frames()
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_replace_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            whole.save(folder)
    (folder / ".positions.0123456789abcdef.npy.0.part").write_bytes(b"cut")
    assert not (folder / "table.json").exists()
    whole.save(folder)
    assert FrameSet.open(folder).hash == whole.hash
    assert not list(folder.glob(".*"))
    (folder / "table.json").unlink()
    for foreign in ("weights.0123456789abcdef.npy", "positions.npy", "positions.0123456789abcdef.npy.part"):
        (folder / foreign).write_bytes(b"mine")
        with pytest.raises(DataError, match="will not write frames over other files"):
            whole.save(folder)
        (folder / foreign).unlink()


@pytest.mark.full
def test_a_killed_save_leaves_a_readable_set(tmp_path: Path):
    folder = tmp_path / "set"
    some_frames().save(folder)
    code = (
        "import sys, numpy as np\nfrom mlipkit.data import FrameSet\nprint('go', flush=True)\n"
        "for seed in range(10**6):\n"
        "    rng = np.random.default_rng(seed)\n"
        "    FrameSet.from_arrays([8, 1, 1], rng.normal(size=(2000, 3, 3)), source=str(seed)).save(sys.argv[1])\n"
    )
    for delay in np.random.default_rng(0).uniform(0.0, 0.3, 8):
        process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay)
        process.kill()
        process.wait()
        process.stdout.close()
        frames = FrameSet.open(folder)
        recorded = frames.hashes()
        frames._hashes.clear()
        assert frames.hashes() == recorded


def test_other_files_are_never_overwritten(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="will not write frames over other files"):
        some_frames().save(tmp_path)
    with pytest.raises(DataError, match="will not write"):
        some_frames().save(tmp_path / "notes.txt")


def damage_table(folder: Path, **changes: object) -> None:
    table = json.loads((folder / "table.json").read_text())
    (folder / "table.json").write_text(json.dumps(table | changes))


def column_file(folder: Path, name: str) -> Path:
    return next(folder.glob(f"{name}.*.npy"))


def escape(folder: Path) -> None:
    table = json.loads((folder / "table.json").read_text())
    table["columns"]["positions"]["file"] = "../secret.npy"
    (folder / "table.json").write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "table.json").unlink(), "holds no saved frames"),
        (lambda f: (f / "table.json").write_text('{"format": "mlip'), "table.json: cannot be read"),
        (lambda f: (f / "table.json").write_text("[]"), "unknown format"),
        (
            lambda f: damage_table(f, version=99),
            "unknown format; expected mlipkit-frames version 1; found mlipkit-frames 99",
        ),
        (lambda f: damage_table(f, columns={}), "columns are missing"),
        (lambda f: damage_table(f, frames="many"), "is damaged"),
        (lambda f: damage_table(f, frames=19), "does not fit the table"),
        (escape, "a column lies outside the folder"),
        (lambda f: column_file(f, "forces").unlink(), "forces.*column file is missing"),
        (lambda f: os.truncate(column_file(f, "forces"), 500), "forces.*column file cannot be read"),
        (lambda f: os.truncate(column_file(f, "forces"), 0), "forces.*column file cannot be read"),
        (lambda f: np.save(column_file(f, "forces"), np.zeros(3)), "forces.*does not fit the table"),
        (lambda f: np.save(column_file(f, "forces"), np.array([{}])), "forces.*column file cannot be read"),
    ],
)
def test_damage_is_an_error_that_names_the_file(tmp_path: Path, damage, message):
    folder = tmp_path / "set"
    some_frames().save(folder)
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        FrameSet.open(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
