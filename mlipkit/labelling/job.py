"""Label many frames, each by itself: recorded as soon as it is done, with the engine's reason where it has no label."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.errors import DataError, RunError, SpecError
from mlipkit.events import Control, EventSink, Message, Progress, Saved, Started, always_run, ignore
from mlipkit.labelling.children import Answer, Children, Task, through_children
from mlipkit.labelling.protocol import MAX_FORCE, LabelMaker, Labels, Recipe, fault_of
from mlipkit.labelling.records import LabelLog

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

LABELLED = "labelled.extxyz"
SUMMARY = "labelled.json"
TIMEOUT_S = 1800.0
PAUSE_S = 0.1


@dataclass(frozen=True)
class FailedLabel:
    """A frame without labels: its index among those asked for, its uid, why, and the wall seconds it took."""

    index: int
    uid: str
    reason: str
    seconds: float


@dataclass
class Labelled:
    """What came of labelling.

    Attributes:
        frames: those with labels, in the order asked for; uids, source, trajectory, time, tags and velocities as they
            were. Labels that they brought along are gone.
        failed: those without.
        seconds: wall seconds that the engine worked, over all frames and attempts, also of earlier calls.
        cpu_seconds: CPU seconds of the same; for frames whose engine died or hung their wall seconds.
        n_asked: frames asked for; more than labelled and failed together when the user stopped.
        maker: what the engine is (`LabelMaker.describe`, with "name").
    """

    frames: FrameSet
    failed: list[FailedLabel]
    seconds: float
    n_asked: int
    cpu_seconds: float = 0.0
    maker: dict[str, Any] = field(default_factory=dict)

    @property
    def n_missing(self) -> int:
        """Frames neither labelled nor failed, as the user stopped."""
        return self.n_asked - len(self.frames) - len(self.failed)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why frames failed and how many, most frequent first; reasons that differ by numbers only count as one."""
        said: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for one in self.failed:
            key = re.sub(r"[-+]?\d[\d.e+-]*", "#", one.reason)
            said.setdefault(key, one.reason)
            counts[key] += 1
        return [(said[key], count) for key, count in counts.most_common()]

    @property
    def sentence(self) -> str:
        """For people: ``48 of 50 frames labelled, 2 failed: SCF did not converge (2); 41 s of GFN1-xTB``."""
        parts = [f"{len(self.frames)} of {self.n_asked} frame{'s' * (self.n_asked != 1)} labelled"]
        if self.failed:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in self.reasons)
            parts.append(f"{len(self.failed)} failed: {reasons}")
        if self.n_missing:
            parts.append(f"{self.n_missing} not begun")
        return f"{', '.join(parts)}; {_seconds(self.seconds)} of {self.maker.get('level_of_theory', 'the engine')}"

    def to_json(self) -> dict[str, Any]:
        """Plain data: what was asked, what failed and why, what it cost, what the engine is."""
        return {
            "asked": self.n_asked, "labelled": len(self.frames), "missing": self.n_missing,
            "failed": [vars(one) for one in self.failed], "reasons": [list(one) for one in self.reasons],
            "seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "sentence": self.sentence, "maker": self.maker,
        }  # fmt: skip


def label_frames(
    frames: FrameSet, maker: Recipe | LabelMaker, folder: Path | str, *, timeout: float | None = None,
    processes: int = 1, threads: int = 1, retries: int = 0, retry_failed: bool = False, max_force: float = MAX_FORCE,
    sink: EventSink = ignore, control: Control = always_run, kept: Children | None = None,
) -> Labelled:  # fmt: skip
    """Label frames into a folder, or go on where the folder stands: what it holds is not labelled again.

    An engine that comes from a recipe (all of `label_maker`) works in child processes: of a frame on which it dies,
    hangs or talks nonsense the reason is recorded, the process is replaced, and the others go on. Any other object with
    `label` works in this process, one frame at a time.

    Args:
        frames: what to label; labels that they have are not looked at.
        folder: holds `labels.jsonl` (appended frame by frame), and at the end `labelled.extxyz` and `labelled.json`.
        timeout: wall seconds for a frame; None: no limit (`TIMEOUT_S` for engines in child processes is a good one).
        processes: engines at once.
        threads: CPU threads of each.
        retries: how often a frame that failed is tried again, after all others.
        retry_failed: try frames again that failed in an earlier call.
        max_force: eV/Å; a label with a larger force counts as nonsense.
        kept: engines of earlier calls, which are used again and left there; None: they end with this call.

    Raises:
        DataError: no frames.
        SpecError: options that have no effect on an engine in this process.
        RunError: the engine cannot be built, the folder cannot be written or holds labels of another engine.
    """
    folder = Path(folder)
    recipe = maker if isinstance(maker, Recipe) else getattr(maker, "recipe", None)
    _check(frames, maker, recipe, timeout, processes)
    with LabelLog(folder) as log:
        _check_engine(log, maker, recipe, max_force)
        if log.torn:
            sink(
                Message(
                    f"{log.torn} lines of {log.path.name} cannot be read; their frames are labelled anew", "warning"
                )
            )
        uids = [frames.uid(row) for row in range(len(frames))]
        missing = [row for row, uid in enumerate(uids) if _is_missing(log.rows.get(uid), retries, retry_failed)]
        done = len(frames) - len(missing)
        tasks = deque(Task(row, lambda row=row: _request(frames, row)) for row in missing)
        ready = _Introduction(log, recipe, max_force, len(frames), done, sink)
        if recipe is None:
            answers = _in_this_process(tasks, maker, control, ready)  # type: ignore[arg-type]
        else:
            answers = through_children(
                tasks, recipe, processes=processes, threads=threads, timeout=timeout, control=control, ready=ready,
                kept=kept,
            )  # fmt: skip
        begin = time.monotonic()
        with closing(answers):
            for number, answer in enumerate(answers, 1):
                uid = uids[answer.task.row]
                row = _row_of(answer, frames, log.rows.get(uid), max_force)
                log.add(row)
                if "failed" in row and row["attempt"] <= retries:
                    tasks.append(answer.task)
                    continue
                done += 1
                left = (time.monotonic() - begin) / number * (len(frames) - done)
                sink(Progress(done, len(frames), "frame", left))
        log.sync()
        labelled = _gather(frames, uids, log)
    _write(folder, labelled, sink)
    return labelled


@dataclass
class _Introduction:
    """Told what the engine is whenever one has been built; the first time that goes to the file and the listener."""

    log: LabelLog
    recipe: Recipe | None
    max_force: float
    total: int
    done: int
    sink: EventSink
    said: bool = False

    def __call__(self, what: dict[str, Any]) -> None:
        if self.said:
            return
        self.said = True
        name = what["name"]
        found = {"name": name, **what["describe"]}
        if not self.log.head:
            recipe = self.recipe.to_json() if self.recipe else None
            self.log.begin({"recipe": recipe, "maker": found, "max_force": self.max_force})
        self.sink(Started(f"labels {self.total} frames with {name}", self.total, self.done, found))
        before = self.log.head["maker"]
        if before != json.loads(json.dumps(found)):
            text = f"these labels come from {name}, those before from {before.get('name')}"
            self.sink(Message(text + " with other versions or settings", "warning"))


def _check(frames: FrameSet, maker: Any, recipe: Recipe | None, timeout: float | None, processes: int) -> None:
    if not len(frames):
        raise DataError("no frames to label")
    if recipe is not None:
        return
    if not isinstance(maker, LabelMaker):
        raise SpecError("no label maker", where="maker", expected="a Recipe or an object with name, describe and label",
                        found=type(maker).__name__)  # fmt: skip
    for name, given in (("timeout", timeout is not None), ("processes", processes != 1)):
        if given:
            raise SpecError(
                "has no effect on an engine in this process", where=name,
                hint="Give a recipe (mlipkit.labelling.recipe_of), from which child processes build theirs",
            )  # fmt: skip


def _check_engine(log: LabelLog, maker: Any, recipe: Recipe | None, max_force: float) -> None:
    if not log.head:
        return
    ours = json.loads(json.dumps(recipe.to_json())) if recipe else None
    theirs = log.head.get("recipe")
    same = ours == theirs
    if recipe is None and same:
        same = log.head["maker"] == json.loads(json.dumps({"name": maker.name, **maker.describe()}))
    if not same:
        raise RunError(
            "the folder holds labels of another engine", where=str(log.path), expected=log.head["maker"].get("name"),
            found=recipe.to_json() if recipe else maker.name, hint="Label into a new folder",
        )  # fmt: skip
    if log.head.get("max_force") != max_force:
        raise RunError("the folder was labelled with another limit of forces", where=str(log.path),
                       expected=log.head.get("max_force"), found=max_force)  # fmt: skip


def _is_missing(row: dict[str, Any] | None, retries: int, retry_failed: bool) -> bool:
    return row is None or ("failed" in row and (retry_failed or row["attempt"] <= retries))


def _request(frames: FrameSet, row: int) -> dict[str, Any]:
    """A frame as plain data for a child process."""
    frame = frames.frame(row)
    return {
        "uid": frame["uid"], "numbers": frame["numbers"].tolist(), "positions": frame["positions"].tolist(),
        "cell": frame["cell"].tolist(), "pbc": frame["pbc"].tolist(),
    }  # fmt: skip


def _in_this_process(
    tasks: deque[Task], maker: LabelMaker, control: Control, ready: Any
) -> Generator[Answer, None, None]:
    from mlipkit.labelling.child import answer

    if tasks:
        ready({"name": maker.name, "describe": maker.describe()})
    while tasks:
        request = control()
        if request == "stop":
            return
        if request == "pause":
            time.sleep(PAUSE_S)
            continue
        task = tasks.popleft()
        record = answer(maker, task.request())
        yield Answer(task, record, record.pop("seconds"), record.pop("cpu_s"))


def _row_of(answer: Answer, frames: FrameSet, before: dict[str, Any] | None, max_force: float) -> dict[str, Any]:
    """The line of `labels.jsonl` for an answer. Costs of earlier attempts are carried along."""
    record, fault = answer.record, answer.record.get("error")
    if fault is None:
        labels = Labels(record["energy"], record["forces"], record["stress"])
        fault = fault_of(labels, int(frames.n_atoms[answer.task.row]), max_force)
    spent = before or {}
    row = {
        "index": answer.task.row, "uid": frames.uid(answer.task.row), "attempt": spent.get("attempt", 0) + 1,
        "seconds": round(answer.seconds + spent.get("seconds", 0.0), 6),
        "cpu_s": round(answer.cpu_s + spent.get("cpu_s", 0.0), 6),
    }  # fmt: skip
    if fault:
        return {**row, "failed": fault}
    return {**row, **{name: record[name] for name in ("energy", "forces", "stress")}}


def _gather(frames: FrameSet, uids: list[str], log: LabelLog) -> Labelled:
    good, failed, seconds, cpu = [], [], 0.0, 0.0
    for index, uid in enumerate(uids):
        row = log.rows.get(uid)
        if row is None:
            continue
        seconds, cpu = seconds + row["seconds"], cpu + row["cpu_s"]
        if "failed" in row:
            failed.append(FailedLabel(index, uid, row["failed"], row["seconds"]))
        else:
            good.append((index, row))
    chosen = frames.select([index for index, _ in good])
    if good:
        nothing = np.full((3, 3), np.nan)
        stress = [nothing if row["stress"] is None else np.array(row["stress"]) for _, row in good]
        known = any(row["stress"] is not None for _, row in good)
        chosen = chosen.with_labels(
            energy=[row["energy"] for _, row in good], forces=np.concatenate([row["forces"] for _, row in good]),
            stress=np.stack(stress) if known else float("nan"),
        )  # fmt: skip
    return Labelled(chosen, failed, seconds, len(uids), cpu, log.head.get("maker", {}))


def _write(folder: Path, labelled: Labelled, sink: EventSink) -> None:
    """The labelled frames as a file, and what they are and cost."""
    from mlipkit.data import write
    from mlipkit.data.whole import write_whole

    path = folder / LABELLED
    try:
        if len(labelled.frames):
            write(path, labelled.frames)
        else:
            path.unlink(missing_ok=True)
        write_whole(folder / SUMMARY, (json.dumps(labelled.to_json(), indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise RunError(
            f"cannot be written ({error.strerror})", where=str(path),
            hint="All labels are safe in labels.jsonl; make room and start the same again: nothing is labelled anew",
        ) from None  # fmt: skip
    if len(labelled.frames):
        sink(Saved(str(path), "labelled frames"))


def _seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
