"""Folders of tiny workflows, made in seconds with toy tools: ended, waiting for the user, half-way, failed labels."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "strategies"))

from workflow_toys import TINY, toys

from mlipkit.events import Event
from mlipkit.runs import WorkflowSpec
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.log import EventLog
from mlipkit.strategies.workflows import Evaluation, Outcome, plan, run_workflow

SMALL = dataclasses.replace(
    TINY, runs=3, frames=3, evaluation=Evaluation(independent=4, self_md="all", frames=3),
)  # fmt: skip


def workflow(folder: Path, arm: str, seed: int = 0, reuse: tuple[Path, ...] = (), stop_in: str = "",
             breaks: dict[str, tuple[int, ...]] | None = None, **settings: object) -> Outcome:  # fmt: skip
    """Carry out one arm with one seed in a folder, or go on with it."""
    chosen = dataclasses.replace(SMALL, **settings)  # type: ignore[arg-type]
    tools = toys(stop_in=stop_in, breaks=breaks or {})
    return run_workflow(plan(arm, chosen, seed), folder, tools, reuse=reuse)


def arms(root: Path, seeds: tuple[int, ...] = (0,)) -> list[Path]:
    """Naive and iterative, evaluated; two labels of the iterative arm have failed."""
    folders: list[Path] = []
    for seed in seeds:
        for arm in ("naive", "iterative"):
            folder = root / f"{arm}_{seed}"
            breaks = {"label_2": (1,)} if arm == "iterative" else {}
            assert workflow(folder, arm, seed, tuple(folders), breaks=breaks).state == "completed"
            folders.append(folder)
    return folders


def waiting(folder: Path) -> Path:
    """Iterative; the frames of its first round wait for the user."""
    assert workflow(folder, "iterative", review=True).state == "waiting"
    return folder


def recorded(folder: Path, *said: Event, **fields: object) -> RunFolder:
    """Make such a folder a run that has said so much; no process computes it."""
    spec = WorkflowSpec(start={"molecules": {"water": 4}}, **fields)  # type: ignore[arg-type]
    files = RunFolder(folder)
    files.spec.write_text(spec.to_yaml())
    log = EventLog(files.events)
    for event in said:
        log(event)
    log.close()
    return files
