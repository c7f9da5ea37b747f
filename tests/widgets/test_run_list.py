"""The table of runs: what each is, how far, what came of it; new ones appear by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded import RecordedMD, RecordedReplicas

from mlipkit.errors import RunError
from mlipkit_widgets import RunList


def test_table_says_what_each_run_is(tmp_path: Path) -> None:
    recorded = RecordedMD(tmp_path / "runs" / "breaking")
    table = RunList([recorded.files.path], columns={"trained on": ["50 <frames>"]})
    text = table.table.value
    assert "breaking" in text
    assert "50 &lt;frames&gt;" in text, "texts of the user are shown as text"
    assert table.header.title == "1 run"
    table.close()


def test_several_simulations_are_counted(tmp_path: Path) -> None:
    recorded = RecordedReplicas(tmp_path / "runs" / "many", 4, {1: 60, 2: 200}, steps=300)
    recorded.alive()
    recorded.advance(100)
    table = RunList([recorded.files.path])
    assert "1 of 4 failed so far (1 overlap), the first (number 1) after 0.03 ps" in table.table.value
    recorded.finish()
    table.refresh()
    assert "2 of 4 failed (1 overlap, 1 broken bonds)" in table.table.value
    table.close()


def test_folder_shows_later_runs_too_and_refuses_what_is_none(tmp_path: Path) -> None:
    table = RunList(tmp_path / "runs")
    assert table.header.state == "empty"
    assert table.header.sentence == "No run yet."
    RecordedMD(tmp_path / "runs" / "later")
    table.refresh()
    assert "later" in table.table.value
    table.close()
    with pytest.raises(RunError, match="no such folder"):
        RunList([tmp_path / "nothing"])


def test_a_run_that_cannot_be_read_is_named_beside_the_others(tmp_path: Path) -> None:
    RecordedMD(tmp_path / "runs" / "good")
    table = RunList(tmp_path / "runs")
    (tmp_path / "runs" / "newer").mkdir()
    (tmp_path / "runs" / "newer" / "spec.yaml").write_text("kind: md\nversion: 99\n")
    table.refresh()
    assert [run.name for run in table.runs] == ["good"]
    assert "newer cannot be read" in table.header.sentence
    assert "written by a newer mlipkit" in table.header.sentence
    table.close()
