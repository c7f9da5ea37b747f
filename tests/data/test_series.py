"""Series: exact rows, exact pyramids, torn files, resume, speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlipkit.data import Series, SeriesWriter
from mlipkit.data.series import FACTOR, series_names
from mlipkit.errors import DataError

COLUMNS = {"step": "", "temperature": "K", "energy": "eV"}


def values(n_rows: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, 3))
    rows[:, 0] = np.arange(n_rows)
    rows[rng.random(n_rows) < 0.1, 2] = np.nan
    return rows


def write(folder: Path, rows: np.ndarray, resume_rows: int | None = None, seed: int = 1) -> None:
    rng = np.random.default_rng(seed)
    with SeriesWriter(folder, COLUMNS, resume_rows) as writer:
        at = 0
        while at < len(rows):
            size = int(rng.choice([1, 7, 64, 1500]))
            writer.append(rows[at] if size == 1 else rows[at : at + size])
            at += size
        assert writer.n_rows == (resume_rows or 0) + len(rows)


def assert_holds(folder: Path, rows: np.ndarray) -> None:
    """Rows and every level of the pyramid are those of `rows`, computed by hand."""
    series = Series(folder)
    assert len(series) == len(rows)
    found = series.read()
    for k, name in enumerate(COLUMNS):
        assert np.array_equal(found[name], rows[:, k], equal_nan=True)
    level, size = 1, FACTOR
    while size <= len(rows):
        blocks = rows[: len(rows) // size * size].reshape(-1, size, 3)
        stored = np.fromfile(folder / f"level{level}.f64").reshape(-1, 2, 3)
        assert np.array_equal(stored[:, 0], np.fmin.reduce(blocks, axis=1), equal_nan=True)
        assert np.array_equal(stored[:, 1], np.fmax.reduce(blocks, axis=1), equal_nan=True)
        level, size = level + 1, size * FACTOR
    assert not (folder / f"level{level}.f64").exists() or not (folder / f"level{level}.f64").stat().st_size


@pytest.mark.parametrize("n_rows", [0, 1, 63, 64, 65, 4095, 4096, 4097, 10_000])
def test_rows_and_pyramid_are_exact(tmp_path: Path, n_rows: int):
    rows = values(n_rows)
    write(tmp_path / "md", rows)
    assert_holds(tmp_path / "md", rows)
    series = Series(tmp_path / "md")
    assert series.columns == tuple(COLUMNS)
    assert series.units == COLUMNS


def test_reading_by_offset(tmp_path: Path):
    rows = values(5000)
    write(tmp_path, rows)
    series = Series(tmp_path)
    for start, stop in [(0, 10), (4990, None), (-3, None), (100, 100), (4000, 9999), (10, -10)]:
        found = series.read(["energy", "step"], start, stop)
        assert list(found) == ["energy", "step"]
        assert np.array_equal(found["energy"], rows[start:stop, 2], equal_nan=True)
    assert np.array_equal(series.read("step")["step"], rows[:, 0])
    with pytest.raises(DataError, match=r"no column 'temprature'.*did you mean 'temperature'"):
        series.read("temprature")


@pytest.mark.parametrize("max_points", [2, 3, 10, 100, 1999])
def test_overview_is_the_minimum_and_maximum_of_every_range(tmp_path: Path, max_points: int):
    rows = values(20_011)
    write(tmp_path, rows)
    series = Series(tmp_path)
    rng = np.random.default_rng(0)
    ranges = [(0, len(rows)), (1, 20_000), (4095, 12_289)]
    ranges += [tuple(sorted(rng.integers(0, len(rows), 2).tolist())) for _ in range(40)]
    for start, stop in ranges:
        for name, k in (("temperature", 1), ("energy", 2)):
            x, y = series.overview([name], max_points, start, stop)[name]
            assert len(x) == len(y) <= max(max_points, min(2, stop - start))
            if stop - start <= max_points:
                assert np.array_equal(x, np.arange(start, stop))
                assert np.array_equal(y, rows[start:stop, k], equal_nan=True)
                continue
            assert x[0] == start
            assert x[-1] == stop - 1
            assert (x[2::2] == x[1:-1:2] + 1).all(), "ranges follow each other without gap"
            for (a, b), (low, high) in zip(x.reshape(-1, 2), y.reshape(-1, 2), strict=True):
                part = rows[a : b + 1, k]
                if np.isnan(part).all():
                    assert np.isnan(low)
                else:
                    assert low == np.nanmin(part)
                    assert high == np.nanmax(part)


def test_a_spike_among_a_million_rows_is_seen_within_50_ms(tmp_path: Path):
    n_rows = 1_000_000
    with SeriesWriter(tmp_path, {f"c{k}": "" for k in range(10)}) as writer:
        rows = np.zeros((n_rows, 10))
        rows[777_777, 3] = 5.0
        writer.append(rows)
    series = Series(tmp_path)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        x, y = Series(tmp_path).overview(["c3", "c4"])["c3"]
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05
    assert y.max() == 5.0
    assert abs(int(x[np.argmax(y)]) - 777_777) < n_rows / 900
    assert len(series) == n_rows


def test_torn_tails_are_not_seen(tmp_path: Path):
    rows = values(9000)
    write(tmp_path, rows)
    whole = (tmp_path / "rows.f64").read_bytes()
    for cut in (1, 7, 8, 23):
        (tmp_path / "rows.f64").write_bytes(whole[:-cut])
        series = Series(tmp_path)
        assert len(series) == 8999
        assert np.array_equal(series.read("step")["step"], rows[:-1, 0])
    (tmp_path / "rows.f64").write_bytes(whole)
    level = (tmp_path / "level1.f64").read_bytes()
    for cut in (1, 48, 49, len(level)):
        (tmp_path / "level1.f64").write_bytes(level[: len(level) - cut])
        y = Series(tmp_path).overview("temperature", 50)["temperature"][1]
        assert y.max() == rows[:, 1].max()
        assert y.min() == rows[:, 1].min()


@pytest.mark.parametrize("keep", [0, 1, 64, 4096, 5000, 9000])
@pytest.mark.parametrize("damage", ["none", "torn rows", "torn level", "no level", "level ahead"])
def test_resume_cuts_and_goes_on(tmp_path: Path, keep: int, damage: str):
    write(tmp_path, values(9000))
    if damage == "torn rows":
        with (tmp_path / "rows.f64").open("ab") as stream:
            stream.write(b"\x01" * 13)
    elif damage == "torn level":
        os.truncate(tmp_path / "level1.f64", 48 * 50 + 5)
    elif damage == "no level":
        (tmp_path / "level1.f64").unlink()
        (tmp_path / "level2.f64").unlink()
    elif damage == "level ahead":
        with (tmp_path / "level3.f64").open("ab") as stream:
            stream.write(b"\x01" * 48)
    new = values(3000, seed=7)
    write(tmp_path, new, resume_rows=keep)
    assert_holds(tmp_path, np.concatenate([values(9000)[:keep], new]))


def test_resume_refuses_what_does_not_fit(tmp_path: Path):
    write(tmp_path, values(10))
    with pytest.raises(DataError, match="expected at least 11 rows; found 10"):
        SeriesWriter(tmp_path, COLUMNS, resume_rows=11)
    with pytest.raises(DataError, match="cannot resume a series with other columns"):
        SeriesWriter(tmp_path, {"step": ""}, resume_rows=5)
    with pytest.raises(DataError, match="holds no series"):
        SeriesWriter(tmp_path / "new", COLUMNS, resume_rows=0)
    assert len(Series(tmp_path)) == 10


def test_a_new_series_replaces_the_old_one(tmp_path: Path):
    write(tmp_path, values(9000))
    with SeriesWriter(tmp_path, {"loss": "eV"}) as writer:
        writer.append([1.0])
    assert Series(tmp_path).read() == {"loss": np.array([1.0])}
    assert not (tmp_path / "level1.f64").exists()


def test_readable_while_it_grows(tmp_path: Path):
    writer = SeriesWriter(tmp_path / "training", COLUMNS)
    series = Series(tmp_path / "training")
    assert len(series) == 0
    assert series.overview()["step"][0].shape == (0,)
    rows = values(70)
    for row in rows[:10]:
        writer.append(row)
    writer.flush()
    assert len(series) == 10
    writer.append(rows[10:])
    writer.flush(sync=True)
    assert np.array_equal(series.read("step")["step"], rows[:, 0])
    writer.close()
    assert series_names(tmp_path) == ["training"]


def test_rows_reach_the_disk_without_flush(tmp_path: Path):
    writer = SeriesWriter(tmp_path, {"a": ""})
    for k in range(SeriesWriter.FLUSH_ROWS):
        writer.append([k])
    assert len(Series(tmp_path)) == SeriesWriter.FLUSH_ROWS
    writer._flushed_at -= 1.0
    writer.append([0.0])
    assert len(Series(tmp_path)) == SeriesWriter.FLUSH_ROWS + 1
    writer.close()


def test_a_reader_survives_a_series_that_is_cut_under_it(tmp_path: Path, monkeypatch):
    rows = values(9000)
    write(tmp_path, rows)
    series = Series(tmp_path)
    real, calls = type(series._rows).__len__, []

    def stale(file):
        calls.append(1)
        return 9000 if len(calls) == 1 else real(file)

    monkeypatch.setattr(type(series._rows), "__len__", stale)
    SeriesWriter(tmp_path, COLUMNS, resume_rows=500).close()
    calls.clear()
    assert series.overview("temperature", 20)["temperature"][1].max() == rows[:500, 1].max()
    calls.clear()
    assert len(series.read("step")["step"]) == 500


def test_errors_say_where_and_what(tmp_path: Path):
    with pytest.raises(DataError, match="holds no series"):
        Series(tmp_path)
    with pytest.raises(DataError, match="at least one column"):
        SeriesWriter(tmp_path, {})
    with SeriesWriter(tmp_path, COLUMNS) as writer:
        with pytest.raises(DataError, match=r"expected 3 columns \(step, temperature, energy\)"):
            writer.append([1.0, 2.0])
        writer.append([1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="at least two points"):
        Series(tmp_path).overview(max_points=1)
    (tmp_path / "series.json").write_text('{"format": ')
    with pytest.raises(DataError, match=r"series.json: cannot be read"):
        Series(tmp_path)
    (tmp_path / "series.json").write_text(
        json.dumps({"format": "mlipkit-series", "version": 2, "columns": {}, "factor": 64})
    )
    with pytest.raises(DataError, match="unknown version"):
        Series(tmp_path)


@pytest.mark.full
def test_a_killed_writer_leaves_a_series_that_reads_and_resumes(tmp_path: Path):
    code = (
        "import sys, numpy as np\nfrom mlipkit.data.series import SeriesWriter\n"
        "keep = int(sys.argv[2]) if len(sys.argv) > 2 else None\n"
        "w = SeriesWriter(sys.argv[1], {'step': '', 'b': ''}, resume_rows=keep)\n"
        "print('go', flush=True)\n"
        "while True:\n    k = w.n_rows + np.arange(100.0)\n    w.append(np.stack([k, k % 97], 1))\n"
    )
    arguments = [str(tmp_path)]
    for delay in np.random.default_rng(0).uniform(0.0, 0.2, 8):
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.wait()
        process.stdout.close()
        n_rows = len(Series(tmp_path))
        rows = Series(tmp_path).read()
        assert np.array_equal(rows["step"], np.arange(n_rows))
        assert np.array_equal(rows["b"], np.arange(n_rows) % 97)
        if n_rows > 100:
            assert Series(tmp_path).overview("b", 20)["b"][1].max() == 96
        arguments = [str(tmp_path), str(n_rows // 2)]
