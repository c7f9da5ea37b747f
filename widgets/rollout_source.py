"""What a roll-out is made of: a potential, AIMD frames, and which of their runs a training has not seen."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data import FrameSet
from mlipkit.errors import DataError, MlipkitError
from mlipkit.runs import Run
from mlipkit.runs.places import short_place
from mlipkit.runs.spec import DynamicSpec, FittingSpec
from mlipkit.runs.spec_md import listed

if TYPE_CHECKING:
    from mlipkit.models import BasePotential

PARTS = {"test": "held out for the test", "validation": "validation", "train": "trained on"}
Place = Run | str | os.PathLike[str]


@dataclass(frozen=True)
class AIMDRun:
    """One run among the frames: its number, its frames in order of time, what it was to the training ("" unknown)."""

    number: int
    rows: np.ndarray
    part: str

    @property
    def words(self) -> str:
        """``run 3, held out for the test``."""
        part = PARTS.get(self.part, "")
        return f"run {self.number}" + (f", {part}" if part else "")


@dataclass(frozen=True, eq=False)
class RolloutSource:
    """A potential and AIMD frames, with the Python that opens them (`potential_code`, `frames_code`).

    `options` of `roll_beside` are those of the training: frozen atoms, where velocities come from.
    """

    potential: BasePotential
    frames: FrameSet
    runs: list[AIMDRun]
    name: str
    potential_code: str
    frames_code: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def run_of(self, frame: int) -> AIMDRun:
        """The run that a frame belongs to."""
        number = int(self.frames.trajectory[frame])
        return next(one for one in self.runs if one.number == number)


def open_source(potential: Any, frames: Any = None) -> RolloutSource:
    """Load what is named.

    Args:
        potential: a `BasePotential`, a run that trained one, or whatever `mlipkit.load` takes.
        frames: a `FrameSet` or its place; those that the run was trained on when omitted.

    Raises:
        DataError: no frames, or frames that belong to no run.
    """
    import mlipkit as mk
    from mlipkit.data import read_source

    trained = training_of(potential)
    name, potential_code, model = "potential", "potential", potential
    if isinstance(potential, Run | str | os.PathLike):
        folder = potential.folder if isinstance(potential, Run) else potential
        text = os.fspath(folder)
        place = short_place(Path(text)) if os.path.isabs(text) else text
        name, potential_code, model = Path(place).name, f"mk.load({place!r})", mk.load(folder)
    frames_code, reading = "frames", {}
    if frames is None:
        spec = trained.spec if trained is not None else None
        if not isinstance(spec, FittingSpec):
            raise DataError("no AIMD frames named", where="roll-out", hint="RolloutView(potential, 'aimd.extxyz')")
        places = listed(spec.data)
        frames = places[0] if len(places) == 1 else places
        # Read as the training read them.
        reading = {name: value for name in ("keys", "units") if (value := getattr(spec, name))}
    if not isinstance(frames, FrameSet):
        named = frames if isinstance(frames, str | list) else os.fspath(frames)
        frames_code = f"read_source({named!r}{arguments(reading)})"
        frames = read_source(frames, **reading)
    runs = _runs(frames, trained)
    if not runs:
        raise DataError(
            "frames that belong to no run", where="roll-out",
            hint="Give runs and times: frames.with_table(trajectory=..., time=...)",
        )  # fmt: skip
    return RolloutSource(model, frames, runs, name, potential_code, frames_code, _options(trained))


def arguments(options: Mapping[str, Any]) -> str:
    """Python of further arguments of a call: ``, name=value`` each."""
    return "".join(f", {name}={value!r}" for name, value in options.items())


def training_of(potential: Any) -> Run | None:
    """The run that a potential is named by, or None."""
    if isinstance(potential, Run):
        return potential
    if isinstance(potential, str | os.PathLike) and (Path(potential) / "spec.yaml").is_file():
        try:
            return Run(potential)
        except MlipkitError:
            return None
    return None


def _options(trained: Run | None) -> dict[str, Any]:
    spec = trained.spec if trained is not None else None
    if not isinstance(spec, DynamicSpec):
        return {}
    found = {"frozen": spec.rollout.frozen} if spec.rollout.frozen else {}
    return found if spec.rollout.velocities == "auto" else {**found, "velocities": spec.rollout.velocities}


def _runs(frames: FrameSet, trained: Run | None) -> list[AIMDRun]:
    part_of: dict[int, str] = {}
    if trained is not None and (trained.folder / "split.json").is_file():
        record = json.loads((trained.folder / "split.json").read_text(encoding="utf-8"))
        part_of = {int(uid, 16): part for part, uids in record.get("uids", {}).items() for uid in uids}
    found = []
    numbers = np.asarray(frames.trajectory)
    uids = np.asarray(frames.uids) if part_of else None
    for number in np.unique(numbers[numbers >= 0]):
        rows = np.flatnonzero(numbers == number)
        rows = rows[np.argsort(np.asarray(frames.time)[rows], kind="stable")]
        # Of a run that is divided in blocks nothing can be said as a whole.
        parts = {part_of.get(int(uids[row]), "") for row in rows} if uids is not None else {""}
        found.append(AIMDRun(int(number), rows, parts.pop() if len(parts) == 1 else ""))
    return found
