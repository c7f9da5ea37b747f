"""A workflow while it is carried out: plan, folder, what is done of it, and what stages take from each other."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.data.whole import read_json, write_whole
from mlipkit.errors import DataError, RunError
from mlipkit.events import Control, Event, EventSink, Judged, Message, Saved
from mlipkit.strategies.workflows import provenance
from mlipkit.strategies.workflows.differences import differing, told
from mlipkit.strategies.workflows.picking import nested_draw
from mlipkit.strategies.workflows.plan import UNTOUCHED, Plan, Stage
from mlipkit.strategies.workflows.settings import acting
from mlipkit.strategies.workflows.tools import CONTENT, SEEDS, Model

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

FULL = {errno.ENOSPC, errno.EDQUOT}
FRAMES, LABELLED = "frames.extxyz", "labelled.extxyz"


class Flagged(Exception):
    """A simulation failed, so that what would follow has no meaning."""


class Waits(Exception):
    """The user has to look first."""


class Work:
    """A plan, its folder, and what of it is done.

    Attributes:
        records: facts of the stages that are done, by name.
        at: name of the stage at hand.
    """

    def __init__(self, plan: Plan, folder: Path, tools: Any, sink: EventSink, control: Control) -> None:
        self.plan, self.folder, self.tools, self.sink, self.control = plan, folder, tools, sink, control
        self.words = tools.describe()
        self.records: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.at = ""

    def claim(self) -> None:
        """Write the plan into a new folder, or read what an earlier attempt has done."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise RunError(f"no folder can be made here: {error.strerror}", where=str(self.folder)) from None
        path = self.folder / "plan.json"
        if path.is_file():
            self.words = as_told(self.words, read_json(path).get("tools"))
        mine = json.loads(json.dumps({**self.plan.to_json(), "tools": self.words}))
        if not path.is_file():
            write_whole(path, json.dumps(mine, indent=1).encode())
            return
        theirs = plan_told(read_json(path))
        for part in ("arm", "seed", "settings", "stages", "tools"):
            if theirs.get(part) != mine[part]:
                names = [] if part == "stages" else differing(theirs.get(part), mine[part])
                raise RunError(
                    f"the folder holds a workflow with other {part}", where=str(self.folder),
                    expected=told(theirs.get(part), names) or None, found=told(mine[part], names) or None,
                    hint=self.otherwise(names),
                )  # fmt: skip
        for stage in self.plan.stages:
            record = read_record(self.folder_of(stage.name))
            if record is not None:
                self.records[stage.name] = record["facts"]
                self.seconds[stage.name] = 0.0 if record["reused"] else record["seconds"]

    def otherwise(self, names: Sequence[str]) -> str:
        """What to do where settings or tools of these names are not those of the folder."""
        if list(names) == [CONTENT]:
            return "The universal model's weights or code have changed since: bring back the former ones, or start anew"
        return "Give this one a folder of its own"

    def unlike(self, theirs: Any) -> list[str]:
        """Names in which the tools of another workflow differ from these."""
        return differing(theirs, json.loads(json.dumps(self.words)))

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
        self.note(stage)
        said = facts.get("sentence") or f"{stage.does} done"
        self.sink(Saved(str(self.folder_of(stage.name)), f"{stage.name}: {said}"))

    def note(self, stage: Stage) -> None:
        """Keep what is told of the whole after a stage."""
        if stage.does in ("pick", "review", "label", "finetune"):
            provenance.write(self.folder, self.plan, self.records)

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
    """The record of a stage that is done, else None.

    Raises:
        RunError: it tells nothing of what was found.
    """
    try:
        record = read_json(folder / "stage.json")
    except FileNotFoundError:
        return None
    if record.get("state") != "done":
        return None
    if not isinstance(record.get("facts"), dict):
        raise RunError("the record of a stage without its facts", where=str(folder / "stage.json"),
                       hint="Delete the folder of the stage and resume: it is done again")  # fmt: skip
    return record


def tools_told(record: Mapping[str, Any]) -> Any:
    """The tools in a stored plan; seeds, which some plans tell among the settings, are no part of them."""
    tools = record.get("tools")
    if not isinstance(tools, dict) or not isinstance(settings := tools.get("settings"), dict):
        return tools
    return {**tools, "settings": {key: value for key, value in settings.items() if key not in SEEDS}}


def plan_told(record: Mapping[str, Any]) -> dict[str, Any]:
    """A stored plan without what had no effect in earlier versions."""
    found = {**record, "tools": tools_told(record)}
    settings, stages = record.get("settings"), record.get("stages")
    if isinstance(settings, dict) and isinstance(settings.get("train"), dict):
        found["settings"] = {**settings, "train": acting(settings["train"])}
    if isinstance(stages, list):
        found["stages"] = [
            {**one, "options": acting(one["options"])} if one.get("does") == "finetune" else one for one in stages
        ]
    return found


def as_told(
    words: Mapping[str, Any] | None, others: Mapping[str, Any] | None, content: str = CONTENT
) -> dict[str, Any]:
    """What tools say of themselves, as far as others do: whether both are the same.

    Args:
        content: what those of earlier versions do not tell.
    """
    return {name: value for name, value in (words or {}).items() if name != content or content in (others or {})}


def training_frames(work: Work, stage: Stage) -> tuple[FrameSet, list[list[str]]]:
    """Labelled frames of a fine-tuning, in the order of the labellings, with the labelling and the uid of each.

    The uid is that within its labelling: a structure that two of them hold has another one in their sum.

    Raises:
        DataError: fewer than two frames are labelled: one for training, one for validation.
    """
    from mlipkit.data import FrameSet

    names = [name for name in stage.inputs["data"] if work.records[name]["labelled"]]
    parts = [work.frames(name) for name in names]
    origin = [[name, part.uid(i)] for name, part in zip(names, parts, strict=True) for i in range(len(part))]
    size = stage.options.get("size") or len(origin)
    if len(origin) < 2:
        raise DataError("too few labelled frames to fine-tune on", where=stage.name, expected="at least 2",
                        found=len(origin), hint="The reasons lie in failed.json of the labellings")  # fmt: skip
    together = FrameSet.concat(parts) if len(parts) > 1 else parts[0]
    # Failures are never replaced: where more frames were planned than there are, all are taken.
    size = min(size, len(origin))
    rows = list(range(size))
    if stage.options.get("choose") == "draw":
        rows = nested_draw(len(origin), size, stage.seeds["draw"])
    return together.select(rows), [origin[i] for i in rows]


def trained_before(work: Work, stage: Stage) -> set[tuple[str, str]]:
    """Labelling and uid of every frame that the model with which a fine-tuning begins was trained on."""
    found: set[tuple[str, str]] = set()
    (base,) = stage.inputs["model"]
    while base != UNTOUCHED:
        record = work.records[base]
        found.update((name, uid) for name, uid in record["train"])
        base = record["base"]
    return found
