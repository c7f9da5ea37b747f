"""A workflow as its folder shows it at this moment: plan, what is done, what became of each frame."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.errors import MlipkitError, RunError
from mlipkit.runs import Run, WorkflowSpec
from mlipkit.runs.frames import LAST_STEPS, STORED
from mlipkit.runs.places import short_place
from mlipkit.strategies.workflows import Plan, provenance
from mlipkit.strategies.workflows.evaluating import Evaluated
from mlipkit.strategies.workflows.review import decisions, waiting
from mlipkit.strategies.workflows.work import FRAMES, LABELLED, read_record

from .states import sentence_case

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

PLAN = "plan.json"
UNDONE = ("failed", "crashed", "lost", "stopped", "resting")
"""States of a workflow that does not go on by itself."""
SILENT_S = 60.0
"""A folder without a run behind it in which nothing was written for so long counts as at rest."""


class WorkflowFolder:
    """Reads one workflow, alive or ended; `refresh` reads what is new.

    Args:
        place: a workflow run, or the folder of one.

    Attributes:
        plan: None before the workflow has begun.
        records: facts of the stages that are done.
        rows: provenance of the frames that were picked.
        evaluated: its evaluation, or None.
        struck: number of candidates -> uids that were struck out.
        revision: grows whenever something was new.

    Raises:
        RunError: the folder holds no workflow.
    """

    def __init__(self, place: Run | str | os.PathLike[str]) -> None:
        self.folder = Path(place).expanduser().resolve()
        self.run: Run | None = place if isinstance(place, Run) else None
        if self.run is None and (self.folder / "spec.yaml").is_file():
            self.run = Run(self.folder)
        if self.run is None and not (self.folder / PLAN).is_file():
            raise RunError(
                "holds no workflow" if self.folder.is_dir() else "no such folder", where=str(place),
                expected=f"a workflow run, or a folder with a {PLAN}",
            )  # fmt: skip
        if self.run is not None and self.run.kind != "workflow":
            raise RunError("not a workflow", where=self.run.name, found=f"a run of kind '{self.run.kind}'")
        self.plan: Plan | None = None
        self.records: dict[str, dict[str, Any]] = {}
        self.rows: list[dict[str, Any]] = []
        self.evaluated: Evaluated | None = None
        self.struck: dict[str, Any] = {}
        self.candidates: list[Path] = []
        self.revision = 0
        self._stamps: dict[str, Any] = {}
        self.refresh()

    @property
    def arm(self) -> str:
        return self._asked.arm if self._asked is not None else self.folder.name

    @property
    def name(self) -> str:
        """``iterative 0``."""
        return f"{self._asked.arm} {self._asked.seed}" if self._asked is not None else self.folder.name

    @property
    def _asked(self) -> Plan | WorkflowSpec | None:
        """What names arm and seed, also before the workflow has begun."""
        if self.plan is not None or self.run is None:
            return self.plan
        assert isinstance(self.run.spec, WorkflowSpec)
        return self.run.spec

    def refresh(self) -> bool:
        """Read what is new; True when something was.

        Raises:
            RunError: a file of it cannot be read, such as one that is half written; the next call tries again.
        """
        before = self.revision
        if self.plan is None and (self.folder / PLAN).is_file():
            self.plan = self._read(PLAN, _plan_of, None)
        if self.plan is None:
            return False
        for stage in self.plan.stages:
            if stage.name not in self.records:
                record = read_record(self.folder / self.plan.folder(stage.name))
                if record is not None:
                    self.records[stage.name] = record["facts"]
                    self.revision += 1
        self.rows = self._read(provenance.NAME, provenance.read, self.rows)
        self.evaluated = self._read("evaluation.json", Evaluated.read, self.evaluated)
        self.struck = self._read("struck.json", decisions, self.struck)
        candidates = waiting(self.folder) if (self.folder / "candidates").is_dir() else []
        if candidates != self.candidates:
            self.candidates = candidates
            self.revision += 1
        return self.revision != before

    def _read(self, name: str, read: Callable[[Path], Any], known: Any) -> Any:
        """What a file says; what is known of it already, where it is not there or has not changed."""
        try:
            stat = (self.folder / name).stat()
        except FileNotFoundError:
            return known
        stamp = stat.st_ino, stat.st_mtime_ns, stat.st_size
        if self._stamps.get(name) == stamp:
            return known
        try:
            found = read(self.folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"cannot be read: {error}", where=(self.folder.name, name)) from None
        self._stamps[name] = stamp
        self.revision += 1
        return found

    # What it does now

    @property
    def state(self) -> str:
        """A state of `states.LOOKS`; "review" when it waits for the user to approve candidates."""
        if self.run is not None:
            state = self.run.state
            return "review" if self.candidates and state not in ("running", "queued", "paused", "crashed") else state
        if self.plan is not None and len(self.records) == len(self.plan.stages):
            return "completed"
        if self.candidates:
            return "review"
        return "running" if self.age < SILENT_S else "resting"

    @property
    def age(self) -> float:
        """Seconds since a stage was begun or wrote something; the user's approvals are no work."""
        places = [self.folder / "stages"]
        if self.plan is not None and self.present:
            stage = self.folder / self.plan.folder(self.present)
            places += [stage, *(stage.iterdir() if stage.is_dir() else ())]
        times = [path.stat().st_mtime for path in places if path.exists()]
        return max(0.0, time.time() - max(times)) if times else float("inf")

    @property
    def present(self) -> str:
        """Name of the stage at hand, "" when all are done."""
        if self.plan is None:
            return ""
        return next((stage.name for stage in self.plan.stages if stage.name not in self.records), "")

    @property
    def stages(self) -> str:
        """How far it is, for people."""
        if self.plan is None:
            return "has not begun"
        text = f"{len(self.records)} of {len(self.plan.stages)} stages"
        words = f" ({self.plan.words(self.plan[self.present])})" if self.present else ""
        return f"{text}, now {self.present}{words}" if self.state in ("running", "paused") and self.present else text

    @property
    def reason(self) -> str:
        """Why it waits or has ended, "" while there is nothing to say."""
        state = self.state
        if state == "review":
            return "waits for you to look at candidate frames"
        if state == "resting":
            return "nothing was written for a while"
        return sentence_case(self.run.reason) if self.run is not None else ""

    @property
    def kept(self) -> str:
        """What is there when it goes no further by itself."""
        if self.state not in UNDONE or not self.records:
            return ""
        n, spent = len(self.records), self.spent()
        return f"Kept: {n} stage{'s' * (n != 1)}, {spent['labels']:g} labels, {spent['md_ps']:.3g} ps of MD."

    @property
    def next_step(self) -> str:
        """What the user does next; "" when it goes on by itself or is completed."""
        state, place = self.state, short_place(self.folder)
        if state == "review":
            return "look at the candidate frames and approve them."
        if state == "failed":
            look_at = ""
            if (stage := self.failed_in) is not None:
                path = stage / STORED
                look_at = f"look at it with ShiftExplorer({short_place(path)!r}), then " if path.is_file() else ""
            return f"{look_at}launch the arm with another start, time step or seed; this folder stays as it is."
        if state in UNDONE:
            first = "mend what the reason names, then " if state == "crashed" else ""
            at = f"; it goes on at {self.present}" if self.present else ""
            if self.run is None:
                return f"{first}run it again{at}."
            return f"{first}Resume, or 'mlipkit open {place} --resume'{at}."
        return ""

    @property
    def failed_in(self) -> Path | None:
        """Folder of the simulation at which the workflow failed; None when it has not, or left no frame."""
        if self.plan is None or not self.present or self.state != "failed":
            return None
        stage = self.folder / self.plan.folder(self.present)
        return stage if any((stage / name).is_file() for name in (STORED, LAST_STEPS)) else None

    @property
    def sentence(self) -> str:
        """Where it stands, for people."""
        return f"{self.name}: {self.stages}" + (f"; {self.reason}" if self.reason else "")

    # Rounds

    @property
    def n_rounds(self) -> int:
        return len(self.plan.of("finetune")) if self.plan is not None else 0

    def round_of(self, row: dict[str, Any]) -> int:
        """Round of a frame, from 1: the first fine-tuning that used it; before that, the one it is labelled for."""
        assert self.plan is not None
        tunings = [stage.name for stage in self.plan.of("finetune")]
        entered = [tunings.index(stage) + 1 for stage, _ in row["entered"] if stage in tunings]
        if entered:
            return min(entered)
        picks = self.plan.of("pick", "training")
        stage = self.plan[row["stage"]]
        if len({one.round for one in picks}) > 1:
            return min(stage.round + 1, self.n_rounds)
        return min(picks.index(stage) + 1, self.n_rounds)

    @property
    def training_rows(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["purpose"] == "training"]

    @property
    def n_waiting(self) -> int:
        """Frames for training that were picked and have no label yet."""
        return sum(row["outcome"].startswith("waits") for row in self.training_rows)

    def counts(self) -> dict[str, list[int]]:
        """Outcome -> frames per round."""
        found = {kind: [0] * self.n_rounds for kind in ("labelled", "waits", "failed", "struck")}
        for row in self.training_rows:
            outcome = row["outcome"]
            kind = "labelled" if outcome == "labelled" else "failed" if outcome.startswith("failed") else "waits"
            if outcome.startswith("struck"):
                kind = "struck"
            found[kind][self.round_of(row) - 1] += 1
        return found

    def trained(self) -> list[int | None]:
        """Frames of each round's fine-tuning (validation included), None before it is done."""
        if self.plan is None:
            return []
        facts = [self.records.get(stage.name) for stage in self.plan.of("finetune")]
        return [None if one is None else len(one["train"]) + len(one["validation"]) for one in facts]

    def spent(self) -> dict[str, float]:
        """Labels asked for, ps of MD and frame-gradients so far, those of the evaluation left out."""
        total = {"labels": 0.0, "md_ps": 0.0, "gradients": 0.0}
        for stage in self.plan.stages if self.plan is not None else ():
            facts = self.records.get(stage.name)
            if facts is None or stage.purpose != "training":
                continue
            if stage.does == "label":
                total["labels"] += facts["asked"]
            elif stage.does == "simulate":
                total["md_ps"] += (facts["rows"] - 1) * stage.options["stride"] * stage.options["timestep"] / 1000
            elif stage.does == "finetune":
                total["gradients"] += facts.get("frame_gradients") or 0
        return total

    # Frames

    def picked_frames(self) -> tuple[FrameSet, list[int]] | None:
        """Frames that were picked for training and have no answer of the label maker yet, without labels."""
        from mlipkit.data import FrameSet

        wait = {row["uid"] for row in self.training_rows if row["outcome"].startswith("waits")}
        by_uid = {row["uid"]: row for row in self.training_rows}
        parts, rounds = [], []
        for stage in self.plan.of("pick", "training") if wait and self.plan is not None else ():
            frames = self.frames_of(stage.name) if stage.name in self.records else None
            chosen = [] if frames is None else [i for i in range(len(frames)) if frames.uid(i) in wait]
            if frames is not None and chosen:
                parts.append(frames.select(chosen))
                rounds += [self.round_of(by_uid[frames.uid(i)]) for i in chosen]
        if not parts:
            return None
        return (FrameSet.concat(parts) if len(parts) > 1 else parts[0]), rounds

    def training_frames(self) -> tuple[FrameSet, list[int]] | None:
        """Labelled training frames so far and the round of each; None before the first."""
        from mlipkit.data import FrameSet

        parts, rounds = [], []
        by_uid = {row["uid"]: row for row in self.training_rows}
        for stage in self.plan.of("label", "training") if self.plan is not None else ():
            if not self.records.get(stage.name, {}).get("labelled"):
                continue
            frames = self.frames_of(stage.name)
            if frames is None:
                continue
            parts.append(frames)
            rounds += [
                self.round_of(by_uid[frames.uid(i)]) if frames.uid(i) in by_uid else 1 for i in range(len(frames))
            ]
        if not parts:
            return None
        return (FrameSet.concat(parts) if len(parts) > 1 else parts[0]), rounds

    def frames_of(self, stage: str) -> FrameSet | None:
        """Frames that a stage has given (labelled ones of a labelling), or None."""
        from mlipkit.data import read

        assert self.plan is not None
        path = self.folder / self.plan.folder(stage) / (LABELLED if self.plan[stage].does == "label" else FRAMES)
        return read(path) if path.is_file() else None


def _plan_of(folder: Path) -> Plan:
    return Plan.from_json(json.loads((folder / PLAN).read_text(encoding="utf-8")))


def is_workflow(folder: Path) -> bool:
    """Whether a folder holds a workflow, also one that has not begun."""
    if (folder / PLAN).is_file():
        return True
    try:
        return (folder / "spec.yaml").is_file() and Run(folder).kind == "workflow"
    except MlipkitError:
        return False


def wants_review(run: Run, state: str) -> bool:
    """Whether a run has ended its work for now because the user has to look at candidate frames."""
    if run.kind != "workflow" or state in ("running", "queued", "paused", "crashed"):
        return False
    return (run.folder / "candidates").is_dir() and bool(waiting(run.folder))
