"""What is carried out stage by stage, as its folder shows it at this moment: plan, what is done, where it stands.

Fine-tuning workflows and iterative pretraining are such; what is special to each stands in a class of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from mlipkit.errors import MlipkitError, RunError
from mlipkit.runs import Run
from mlipkit.runs.places import short_place
from mlipkit.strategies.ipip import ARMS as LOOP_ARMS
from mlipkit.strategies.ipip import LoopPlan
from mlipkit.strategies.workflows import Plan
from mlipkit.strategies.workflows.work import read_record

from .states import sentence_case

PLAN = "plan.json"
UNDONE = ("failed", "crashed", "lost", "stopped", "resting")
"""States of something that does not go on by itself."""
SILENT_S = 60.0
"""A folder without a run behind it in which nothing was written for so long counts as at rest."""
PLANS: dict[str, type[Plan]] = {"workflow": Plan, "ipip": LoopPlan}
"""Kind of run -> its plan."""
WORDS = {"workflow": "a workflow", "ipip": "an iterative pretraining"}
DAMAGED = "damaged"
"""Kind of a folder whose plan cannot be read."""


class StagedFolder:
    """Reads one folder, alive or ended; `refresh` reads what is new.

    Args:
        place: a run, or the folder of one.

    Attributes:
        plan: None before it has begun.
        records: facts of the stages that are done.
        revision: grows whenever something was new.

    Raises:
        RunError: the folder holds nothing of this kind.
    """

    KIND: ClassVar[str]

    def __init__(self, place: Run | str | os.PathLike[str]) -> None:
        self.folder = Path(place).expanduser().resolve()
        self.run: Run | None = place if isinstance(place, Run) else None
        if self.run is None and (self.folder / "spec.yaml").is_file():
            self.run = Run(self.folder)
        what = WORDS[self.KIND]
        # What is wrong with a damaged one is told when it is read.
        if self.run is None and kind_of(self.folder) not in (self.KIND, DAMAGED):
            raise RunError(
                f"holds no {what.partition(' ')[2]}" if self.folder.is_dir() else "no such folder", where=str(place),
                expected=f"the run of {what}, or a folder with its {PLAN}",
            )  # fmt: skip
        if self.run is not None and self.run.kind != self.KIND:
            raise RunError(f"not {what}", where=self.run.name, found=f"a run of kind '{self.run.kind}'")
        self.plan: Any = None
        self.records: dict[str, dict[str, Any]] = {}
        self.revision = 0
        self._stamps: dict[str, Any] = {}
        self._begin()
        self.refresh()

    def _begin(self) -> None:
        """What a subclass keeps, before anything is read."""

    def _read_more(self) -> None:
        """What a subclass reads beside plan and stages."""

    @property
    def arm(self) -> str:
        return self._asked.arm if self._asked is not None else self.folder.name

    @property
    def name(self) -> str:
        """``iterative 0``."""
        return f"{self._asked.arm} {self._asked.seed}" if self._asked is not None else self.folder.name

    @property
    def _asked(self) -> Any:
        """What names arm and seed, also before it has begun."""
        return self.plan if self.plan is not None or self.run is None else self.run.spec

    def refresh(self) -> bool:
        """Read what is new; True when something was.

        Raises:
            RunError: a file of it cannot be read, such as one that is half written; the next call tries again.
        """
        before = self.revision
        if self.plan is None and (self.folder / PLAN).is_file():
            self.plan = self._read(PLAN, self._plan_in, None)
        if self.plan is None:
            return False
        for stage in self.plan.stages:
            if stage.name not in self.records:
                record = read_record(self.folder / self.plan.folder(stage.name))
                if record is not None:
                    self.records[stage.name] = record["facts"]
                    self.revision += 1
        self._read_more()
        return self.revision != before

    def stamp(self, name: str) -> object:
        """Changes whenever what was read of a file did; None before."""
        return self._stamps.get(name)

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

    def _plan_in(self, folder: Path) -> Plan:
        return PLANS[self.KIND].from_json(json.loads((folder / PLAN).read_text(encoding="utf-8")))

    # What it does now

    @property
    def state(self) -> str:
        """A state of `states.LOOKS`."""
        if self.run is not None:
            return self.run.state
        if self.plan is not None and len(self.records) == len(self.plan.stages):
            return "completed"
        return "running" if self.age < SILENT_S else "resting"

    @property
    def age(self) -> float:
        """Seconds since a stage was begun or wrote something; what the user writes is no work."""
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
        if self.state == "resting":
            return "nothing was written for a while"
        return sentence_case(self.run.reason) if self.run is not None else ""

    @property
    def kept(self) -> str:
        """What is there when it goes no further by itself."""
        n = len(self.records)
        return f"Kept: {n} stage{'s' * (n != 1)}." if self.state in UNDONE and n else ""

    @property
    def next_step(self) -> str:
        """What the user does next; "" when it goes on by itself or is completed."""
        state, place = self.state, short_place(self.folder)
        if state not in UNDONE:
            return ""
        first = "mend what the reason names, then " if state == "crashed" else ""
        at = f"; it goes on at {self.present}" if self.present else ""
        if self.run is None:
            return f"{first}run it again{at}."
        return f"{first}Resume, or 'mlipkit open {place} --resume'{at}."

    @property
    def sentence(self) -> str:
        """Where it stands, for people."""
        return f"{self.name}: {self.stages}" + (f"; {self.reason}" if self.reason else "")


def kind_of(folder: Path) -> str:
    """Kind of what a folder holds, also of what has not begun: a key of `PLANS`, `DAMAGED`, "" for anything else."""
    if (folder / "spec.yaml").is_file():
        with contextlib.suppress(OSError, MlipkitError):
            kind = Run(folder).kind
            return kind if kind in PLANS else ""
    if not (folder / PLAN).is_file():
        return ""
    try:
        arm = json.loads((folder / PLAN).read_text(encoding="utf-8")).get("arm")
    except (OSError, ValueError, AttributeError):
        return DAMAGED
    return "ipip" if arm in LOOP_ARMS else "workflow"


def kind_at(place: Run | str | os.PathLike[str]) -> str:
    """As `kind_of`, of a place that a user names.

    Raises:
        RunError: there is nothing of the kind.
    """
    folder = Path(place.folder if isinstance(place, Run) else place).expanduser()
    kind = kind_of(folder)
    if not kind:
        found = None
        with contextlib.suppress(OSError, MlipkitError):
            found = f"a run of kind '{Run(folder).kind}'"
        every = " nor ".join([*WORDS.values(), "an evaluation of test-time adaptation"])
        what = f"holds neither {every}" if folder.is_dir() else "no such folder"
        raise RunError(what, where=str(folder), expected=f"such a run, or a folder with its {PLAN}", found=found)
    return kind
