"""A workflow as its folder shows it at this moment: plan, what is done, what became of each frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.runs.frames import LAST_STEPS, STORED
from mlipkit.runs.places import short_place
from mlipkit.strategies.workflows import provenance
from mlipkit.strategies.workflows.evaluating import Evaluated
from mlipkit.strategies.workflows.review import decisions, waiting
from mlipkit.strategies.workflows.work import FRAMES, LABELLED

from .staged_folder import PLAN as PLAN
from .staged_folder import UNDONE, StagedFolder

if TYPE_CHECKING:
    from mlipkit.data import FrameSet


class WorkflowFolder(StagedFolder):
    """Reads one workflow, alive or ended; `refresh` reads what is new.

    Args:
        place: a workflow run, or the folder of one.

    Attributes:
        rows: provenance of the frames that were picked.
        evaluated: its evaluation, or None.
        struck: number of candidates -> uids that were struck out.

    Raises:
        RunError: the folder holds no workflow.
    """

    KIND = "workflow"

    def _begin(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.evaluated: Evaluated | None = None
        self.struck: dict[str, Any] = {}
        self.candidates: list[Path] = []

    def _read_more(self) -> None:
        self.rows = self._read(provenance.NAME, provenance.read, self.rows)
        self.evaluated = self._read("evaluation.json", Evaluated.read, self.evaluated)
        self.struck = self._read("struck.json", decisions, self.struck)
        candidates = waiting(self.folder) if (self.folder / "candidates").is_dir() else []
        if candidates != self.candidates:
            self.candidates = candidates
            self.revision += 1

    # What it does now

    @property
    def state(self) -> str:
        """A state of `states.LOOKS`; "review" when it waits for the user to approve candidates."""
        state = super().state
        busy = ("completed",) if self.run is None else ("running", "queued", "paused", "crashed")
        return "review" if self.candidates and state not in busy else state

    @property
    def reason(self) -> str:
        """Why it waits or has ended, "" while there is nothing to say."""
        return "waits for you to look at candidate frames" if self.state == "review" else super().reason

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
        state = self.state
        if state == "review":
            return "look at the candidate frames and approve them."
        if state == "failed":
            look_at = ""
            if (stage := self.failed_in) is not None:
                path = stage / STORED
                look_at = f"look at it with ShiftExplorer({short_place(path)!r}), then " if path.is_file() else ""
            return f"{look_at}launch the arm with another start, time step or seed; this folder stays as it is."
        return super().next_step

    @property
    def failed_in(self) -> Path | None:
        """Folder of the simulation at which the workflow failed; None when it has not, or left no frame."""
        if self.plan is None or not self.present or self.state != "failed":
            return None
        stage = self.folder / self.plan.folder(self.present)
        return stage if any((stage / name).is_file() for name in (STORED, LAST_STEPS)) else None

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
