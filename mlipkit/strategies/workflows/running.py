"""Carrying out a plan, stage after stage, in a folder from which it can always go on.

::

    plan.json                 stages, seeds, budget
    stages/NN_name/           one stage: its files, and stage.json (written whole when it is done)
    candidates/NN.extxyz      frames that wait for the user's approval; struck.json: the answers
    provenance.jsonl          a row per frame that was picked
    evaluation.json           a row per model and test set

A stage whose ``stage.json`` says done is never done again. One that was interrupted goes on by its own means: MD from
its checkpoint, labelling at the next frame, training from its last state.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlipkit.data.whole import read_json
from mlipkit.errors import RunError
from mlipkit.events import Control, EventSink, Message, Progress, Started, always_run, ignore
from mlipkit.strategies.workflows.plan import Plan, Stage
from mlipkit.strategies.workflows.stages import DO
from mlipkit.strategies.workflows.tools import Stopped, Tools
from mlipkit.strategies.workflows.work import FULL, Flagged, Waits, Work, read_record, tools_told

Deed = Callable[[Any, Stage, Path], dict[str, Any]]
PAUSE_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """How a workflow ended, or where it stands.

    Attributes:
        state: completed; stopped (by the user); waiting (for the approval of candidates); failed (a simulation left
            the range of densities or another check failed: flagged, nothing is built on it unless it is to be kept).
        reason: one sentence.
        stage: the stage at hand, "" when completed.
        facts: figures of the whole: seconds per deed, labels, failures.
    """

    state: Literal["completed", "stopped", "waiting", "failed"]
    reason: str
    stage: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def run_workflow(
    plan: Plan, folder: Path | str, tools: Tools, sink: EventSink = ignore, control: Control = always_run, *,
    reuse: Sequence[Path | str] = (),
) -> Outcome:  # fmt: skip
    """Do the stages of a plan one after the other, or go on where the folder stands.

    Args:
        folder: of this workflow alone.
        tools: how each deed is done.
        sink: gets the events of the stages and a progress in stages.
        control: asked between stages, and by the tools within them.
        reuse: folders of other workflows: a stage that one of them has done with equal options, seeds and inputs, and
            with equal tools, is copied instead of done again.

    Raises:
        RunError: the folder belongs to another plan or other tools; the disk is full.
    """
    return carry_out(Work(plan, Path(folder), tools, sink, control), DO, reuse=reuse)


def carry_out(
    work: Work, do: Mapping[str, Deed], *, reuse: Sequence[Path | str] = (), what: str = "workflow"
) -> Outcome:
    """`run_workflow` for any plan: what each deed does is given.

    Args:
        do: deed -> function (work, stage, its folder) -> JSON-ready facts.
        what: kind of the whole, for people.
    """
    try:
        work.claim()
        return _go(work, do, list(_others(work, reuse)), what)
    except BaseException as error:
        full = disk_full(error)
        if full is None:
            raise
        raise RunError(
            "the disk is full", where=str(full.filename or work.folder),
            hint="What is done stays as it is: free some space and resume",
        ) from error  # fmt: skip
    finally:
        work.tools.close()


def disk_full(error: BaseException | None) -> OSError | None:
    """The error of a full disk (or quota) behind an error, if that was the reason."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def _go(work: Work, do: Mapping[str, Deed], others: Sequence[_Other], what: str) -> Outcome:
    plan, total = work.plan, len(work.plan.stages)
    done = len(work.records)
    work.sink(Started(f"{plan.arm} {what}, seed {plan.seed}", total, done, {"budget": plan.budget.sentence}))
    work.sink(Message(f"Budget: {plan.budget.sentence}"))
    for number, stage in enumerate(plan.stages):
        if stage.name in work.records:
            continue
        while (request := work.control()) == "pause":
            time.sleep(PAUSE_S)
        if request == "stop":
            return Outcome("stopped", f"stopped by the user before stage {stage.name}", stage.name, work.figures())
        work.sink(Progress(number, total, "stage"))
        begin, work.at = time.monotonic(), stage.name
        if any(other.give(work, stage) for other in others):
            continue
        place = work.folder_of(stage.name)
        place.mkdir(parents=True, exist_ok=True)
        work.sink(Message(f"{stage.name}: {plan.words(stage)}"))
        try:
            facts = do[stage.does](work, stage, place)
        except Stopped:
            return Outcome("stopped", f"stopped by the user in stage {stage.name}", stage.name, work.figures())
        except Waits as error:
            work.sink(Message(str(error)))
            return Outcome("waiting", str(error), stage.name, work.figures())
        except Flagged as error:
            work.sink(Message(str(error), "error"))
            return Outcome("failed", str(error), stage.name, work.figures())
        work.done(stage, facts, time.monotonic() - begin)
    work.sink(Progress(total, total, "stage"))
    work.sink(Message(f"Spent: {plan.spent(work.records).of(plan.budget)}"))
    return Outcome("completed", f"all {total} stages done", "", work.figures())


def _others(work: Work, reuse: Sequence[Path | str]) -> Iterator[_Other]:
    """Those with equal tools; of each other one it is told why nothing comes from there."""
    for folder in map(Path, reuse):
        path = folder / "plan.json"
        record = read_json(path) if path.is_file() else {}
        if not record:
            why = "it has no plan yet"
        elif other := work.unlike(tools_told(record)):
            why = f"it differs in {', '.join(filter(None, other)) or 'tools'}"
        else:
            yield _Other(folder, type(work.plan).from_json(record))
            continue
        work.sink(Message(f"reuse: nothing is taken from {folder}: {why}", "warning"))


@dataclass(frozen=True)
class _Other:
    """Another workflow whose stages may be taken over."""

    folder: Path
    plan: Plan

    def give(self, work: Work, stage: Stage) -> bool:
        """Copy the equal stage of this workflow into another, if there is one."""
        if stage.does == "evaluate" or stage.name in work.plan.by_hand:
            return False
        key = work.plan.key(stage.name)
        for mine in self.plan.stages:
            source = self.folder / self.plan.folder(mine.name)
            record = read_record(source)
            if record is None or record["key"] != key:
                continue
            place = work.folder_of(stage.name)
            partial = place.with_name(f".{place.name}.part")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(place, ignore_errors=True)
            partial.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, partial, ignore=shutil.ignore_patterns("stage.json"))
            partial.rename(place)
            work.done(stage, record["facts"], record["seconds"], reused=str(source))
            return True
        return False
