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

import errno
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlipkit.data.whole import write_whole
from mlipkit.errors import RunError
from mlipkit.events import Control, Event, EventSink, Judged, Message, Progress, Saved, Started, always_run, ignore
from mlipkit.strategies.workflows import provenance
from mlipkit.strategies.workflows.plan import UNTOUCHED, Plan, Stage
from mlipkit.strategies.workflows.tools import Model, Stopped, Tools

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

FRAMES, LABELLED = "frames.extxyz", "labelled.extxyz"
PAUSE_S = 0.1
FULL = {errno.ENOSPC, errno.EDQUOT}


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


class Flagged(Exception):
    """A simulation failed, so that what would follow has no meaning."""


class Waits(Exception):
    """The user has to look first."""


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
    work = Work(plan, Path(folder), tools, sink, control)
    try:
        work.claim()
        others = [other for other in (_Other.at(Path(one)) for one in reuse) if other is not None]
        return _go(work, others)
    except BaseException as error:
        full = disk_full(error)
        if full is None:
            raise
        raise RunError(
            "the disk is full", where=str(full.filename or folder),
            hint="What is done stays as it is: free some space and resume",
        ) from error  # fmt: skip
    finally:
        tools.close()


def disk_full(error: BaseException | None) -> OSError | None:
    """The error of a full disk (or quota) behind an error, if that was the reason."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def _go(work: Work, others: Sequence[_Other]) -> Outcome:
    from mlipkit.strategies.workflows.stages import DO

    plan, total = work.plan, len(work.plan.stages)
    done = len(work.records)
    work.sink(Started(f"{plan.arm} workflow, seed {plan.seed}", total, done, {"budget": plan.budget.sentence}))
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
            facts = DO[stage.does](work, stage, place)
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


class Work:
    """A plan, its folder, and what of it is done.

    Attributes:
        records: facts of the stages that are done, by name.
        at: name of the stage at hand.
    """

    def __init__(self, plan: Plan, folder: Path, tools: Tools, sink: EventSink, control: Control) -> None:
        self.plan, self.folder, self.tools, self.sink, self.control = plan, folder, tools, sink, control
        self.words = tools.describe()
        self.records: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.at = ""

    def claim(self) -> None:
        """Write the plan into a new folder, or read what an earlier attempt has done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path, mine = self.folder / "plan.json", {**self.plan.to_json(), "tools": self.words}
        mine = json.loads(json.dumps(mine))
        if not path.is_file():
            write_whole(path, json.dumps(mine, indent=1).encode())
            return
        theirs = json.loads(path.read_text(encoding="utf-8"))
        for part in ("arm", "seed", "settings", "stages", "tools"):
            if theirs.get(part) != mine[part]:
                raise RunError(
                    f"the folder holds a workflow with other {part}", where=str(self.folder),
                    hint="Give this one a folder of its own",
                )  # fmt: skip
        for stage in self.plan.stages:
            record = read_record(self.folder_of(stage.name))
            if record is not None:
                self.records[stage.name] = record["facts"]
                self.seconds[stage.name] = 0.0 if record["reused"] else record["seconds"]

    def done(self, stage: Stage, facts: Mapping[str, Any], seconds: float, reused: str = "") -> None:
        """Note that a stage is done: from here on it stays as it is."""
        record = {
            "state": "done", "name": stage.name, "does": stage.does, "key": self.plan.key(stage.name),
            "seconds": round(seconds, 3), "reused": reused, "facts": dict(facts),
        }  # fmt: skip
        write_whole(self.folder_of(stage.name) / "stage.json", json.dumps(record, indent=1).encode())
        self.records[stage.name] = json.loads(json.dumps(dict(facts)))
        # What was taken over cost nothing here.
        self.seconds[stage.name] = 0.0 if reused else seconds
        if stage.does in ("pick", "review", "label", "finetune"):
            provenance.write(self.folder, self.plan, self.records)
        said = facts.get("sentence") or f"{stage.does} done"
        self.sink(Saved(str(self.folder_of(stage.name)), f"{stage.name}: {said}"))

    def folder_of(self, name: str) -> Path:
        return self.folder / self.plan.folder(name)

    def frames(self, name: str) -> FrameSet:
        """Frames that a stage gave (labelled ones of a labelling)."""
        from mlipkit.data import read

        stage = self.plan[name]
        return read(self.folder_of(name) / (LABELLED if stage.does == "label" else FRAMES))

    def model(self, stage: Stage, role: str = "model") -> Model:
        return self.weights(stage.inputs[role][0])

    def weights(self, name: str) -> Model:
        return None if name == UNTOUCHED else self.folder_of(name) / self.records[name]["best"]

    def heard(self, event: Event) -> None:
        """What a stage has to say, as messages: progress, verdicts and errors of a part are not those of the whole."""
        if isinstance(event, Message):
            self.sink(Message(f"{self.at}: {event.text}", event.level))
        elif isinstance(event, Judged) and event.verdict.outcome != "ok":
            self.sink(Message(f"{self.at}: {event.verdict.sentence}", "warning"))

    def figures(self) -> dict[str, Any]:
        """Seconds per deed, labels and failures so far."""
        seconds: dict[str, float] = {}
        asked = failed = gradients = 0
        for stage in self.plan.stages:
            facts = self.records.get(stage.name)
            if facts is None:
                continue
            seconds[stage.does] = round(seconds.get(stage.does, 0.0) + self.seconds[stage.name], 3)
            if stage.does == "label":
                asked, failed = asked + facts["asked"], failed + len(facts["failed"])
            gradients += facts.get("frame_gradients") or 0 if stage.does == "finetune" else 0
        return {
            "stages": len(self.records), "of": len(self.plan.stages), "seconds": seconds, "labels_asked": asked,
            "labels_failed": failed, "frame_gradients": gradients,
        }  # fmt: skip


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a stage that is done, else None."""
    try:
        record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"cannot be read: {error}", where=str(folder / "stage.json")) from None
    return record if record.get("state") == "done" else None


@dataclass(frozen=True)
class _Other:
    """Another workflow whose stages may be taken over."""

    folder: Path
    plan: Plan
    words: Mapping[str, Any]

    @classmethod
    def at(cls, folder: Path) -> _Other | None:
        path = folder / "plan.json"
        if not path.is_file():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        return cls(folder, Plan.from_json(record), record["tools"])

    def give(self, work: Work, stage: Stage) -> bool:
        """Copy the equal stage of this workflow into another, if there is one."""
        if self.words != json.loads(json.dumps(work.words)) or stage.does == "evaluate":
            return False
        if stage.name in work.plan.by_hand:
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
