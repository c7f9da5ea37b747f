"""Waiting in a cell holds nothing up."""

from __future__ import annotations

import asyncio
from pathlib import Path

from recorded import log
from run_folders import folder_of

from mlipkit.events import Finished
from mlipkit.runs import MDSpec, Run, process
from mlipkit_widgets import ended


def test_others_go_on_while_a_cell_waits_for_runs(tmp_path: Path) -> None:
    files = folder_of(tmp_path / "md", MDSpec())
    files.write("pid.json", {**process.describe(), "phase": "running", "after_seq": 0})
    ticks: list[int] = []

    async def beside() -> None:
        for k in range(5):
            await asyncio.sleep(0.05)
            ticks.append(k)
        log(files, Finished("completed", ""))

    async def cell() -> list[Run]:
        other = asyncio.create_task(beside())
        assert [run.active for run in await ended(Run(files.path), timeout=0.05)] == [True], "not for ever"
        found = await ended([Run(files.path)], timeout=20)
        await other
        return found

    (run,) = asyncio.run(cell())
    assert run.state == "completed"
    assert len(ticks) == 5
