"""The simulations of one MD run: what each started from, how far it got, what was said of it, and how they survive.

A run with several simulations keeps a table of them in `replicas.json`, written at the launch::

    {"replicas": [{"index": 0, "start": "...", "temperature": 300.0, "folder": "replica_000", ...}, ...]}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlipkit.errors import MlipkitError
from mlipkit.events import Judged, Verdict
from mlipkit.runs.run import ACTIVE, Run
from mlipkit.runs.spec import MDSpec

if TYPE_CHECKING:
    from mlipkit.analysis.survival import Survival
    from mlipkit.data.series import Series
    from mlipkit.plots.survival import Curve

TABLE = "replicas.json"
FS_PER_PS = 1000.0
Fate = Literal["waiting", "running", "held", "failed", "ended"]


@dataclass(frozen=True)
class Replica:
    """One simulation of a run.

    Attributes:
        index: its number in the run.
        start: place of the structure it started from.
        temperature: target, K.
        folder: where its trajectory and series lie.
        fate: waiting (not begun), running, held (to the end), failed, or ended (by the user or with its process).
        time: simulated so far, fs; of a failed one the time of its failure.
        verdict: the last one of the stability checks, or None.
        facts: further entries of the table (its seeds).
    """

    index: int
    start: str
    temperature: float
    folder: Path
    fate: Fate = "waiting"
    time: float = 0.0
    verdict: Verdict | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.fate == "failed"

    @property
    def why(self) -> str:
        """What failed, in words: the name of the check; "" when nothing did."""
        return self.verdict.check.replace("_", " ") if self.failed and self.verdict is not None else ""


class Replicas(Sequence[Replica]):
    """All simulations of an MD run, kept up to date by `refresh`; reads only what is new.

    Args:
        run: an MD run.

    Attributes:
        end: time to which they are to run, fs.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._table = table_of(run)
        self._verdicts: dict[int, Verdict] = {}
        self._series: dict[int, Series] = {}
        self._times: dict[int, tuple[int, float]] = {}
        self._seen = 0
        self._all: list[Replica] = []
        self.refresh()

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index):  # type: ignore[override]
        return self._all[index]

    def refresh(self) -> bool:
        """Look at the run again; True when the fate or verdict of one of them has changed."""
        for entry in self.run.entries(self._seen):
            self._seen = entry.seq
            if isinstance(entry.event, Judged):
                self._hear(entry.event.verdict)
        active, before = self.run.state in ACTIVE, self._all
        self.end = _end(self.run)
        self._all = [self._look(one, active) for one in self._table]
        return [(one.fate, one.verdict) for one in before] != [(one.fate, one.verdict) for one in self._all]

    @property
    def n_failed(self) -> int:
        """How many have failed so far."""
        return sum(one.failed for one in self._all)

    @property
    def first_failed(self) -> Replica | None:
        """The one that failed earliest in simulated time, or None."""
        return min((one for one in self._all if one.failed), key=lambda one: (one.time, one.index), default=None)

    @property
    def count(self) -> str:
        """``3 of 20 failed``."""
        return f"{self.n_failed} of {len(self)} failed"

    @property
    def sentence(self) -> str:
        """``3 of 20 failed so far (2 broken bonds, 1 overlap), the first (number 7) after 0.17 ps``."""
        text = self.count + (" so far" if any(one.fate == "running" for one in self._all) else "")
        first = self.first_failed
        if first is None:
            return text
        reasons = Counter(one.why for one in self._all if one.failed).most_common()
        counted = ", ".join(f"{number} {reason}" for reason, number in reasons)
        return f"{text} ({counted}), the first (number {first.index}) after {first.time / FS_PER_PS:.3g} ps"

    def groups(self) -> dict[str, list[Replica]]:
        """Those of equal start and temperature together, by what sets them apart: ``300 K``, ``water.xyz, 300 K``."""
        starts, temperatures = {one.start for one in self._all}, {one.temperature for one in self._all}
        found: dict[str, list[Replica]] = {}
        for one in self._all:
            parts = [one.start] if len(starts) > 1 else []
            if len(temperatures) > 1 or not parts:
                parts.append(f"{one.temperature:g} K")
            found.setdefault(", ".join(parts), []).append(one)
        return found

    def survival(self) -> dict[str, Survival]:
        """Survival curve of each group in which a simulation has begun, fs; who still runs counts as ended there."""
        found = {}
        for name, members in self.groups().items():
            begun = [one for one in members if one.time > 0 or one.failed]
            if begun:
                found[name] = _estimate(begun)
        return found

    def _hear(self, verdict: Verdict) -> None:
        known = self._verdicts.get(verdict.replica)
        # A failure is the last word of a simulation, whatever comes late.
        if known is None or known.outcome != "failed":
            self._verdicts[verdict.replica] = verdict

    def _look(self, one: Replica, active: bool) -> Replica:
        verdict = self._verdicts.get(one.index)
        if verdict is not None and verdict.outcome == "failed":
            return replace(one, fate="failed", time=verdict.time, verdict=verdict)
        time = self._time(one)
        if time is None:
            return replace(one, fate="waiting", verdict=verdict)
        fate: Fate = "held" if time >= self.end else "running" if active else "ended"
        return replace(one, fate=fate, time=time, verdict=verdict)

    def _time(self, one: Replica) -> float | None:
        """Simulated time so far, fs; None before the first step. Of a recording not every row was kept."""
        from mlipkit.data.series import Series

        series = self._series.get(one.index)
        if series is None:
            path = one.folder / "series" / "md"
            if not path.is_dir():
                return None
            try:
                series = self._series[one.index] = Series(path)
            except MlipkitError:  # its header is being written at this moment
                return None
        rows = len(series)
        known = self._times.get(one.index)
        if rows and (known is None or known[0] != rows):
            last = series.read("time_fs", start=rows - 1, stop=rows)["time_fs"]
            known = self._times[one.index] = (rows, round(float(last[0]), 6)) if len(last) else (0, 0.0)
        return known[1] if rows and known is not None else None


def table_of(run: Run) -> list[Replica]:
    """The simulations of a run as they were planned, without what came of them."""
    spec = run.spec
    assert isinstance(spec, MDSpec)
    rows = run.files.read(TABLE).get("replicas")
    if rows is None:  # only one, or launched by an earlier version
        rows = spec.table()
    known = ("index", "start", "temperature", "folder")
    return [
        Replica(
            int(row["index"]), str(row["start"]), float(row["temperature"]), run.folder / str(row["folder"]),
            facts={key: value for key, value in row.items() if key not in known},
        )
        for row in rows
    ]  # fmt: skip


def curve_of(survival: Survival) -> Curve:
    """A survival curve as `mlipkit.plots.survival` draws it, in ps."""
    from mlipkit.plots.survival import Curve

    def steps(first: float, values: np.ndarray) -> np.ndarray:
        return np.concatenate([[first], values, [values[-1] if len(values) else first]])

    longest, low, high = survival.longest, *survival.before
    censored = survival.ended[~survival.failed & (survival.ended < longest)]
    return Curve(
        time_ps=np.concatenate([[0.0], survival.times, [longest]]) / FS_PER_PS,
        survival=steps(1.0, survival.survival), lower=steps(low, survival.lower), upper=steps(high, survival.upper),
        censored_ps=np.sort(censored) / FS_PER_PS, ended_ps=survival.ended / FS_PER_PS, n_failed=survival.n_failed,
    )  # fmt: skip


def _estimate(members: Sequence[Replica]) -> Survival:
    from mlipkit.analysis.survival import kaplan_meier

    times = np.array([one.time for one in members])
    return kaplan_meier(times, [one.failed for one in members], reasons=[one.why for one in members])


def _end(run: Run) -> float:
    """Time to which the simulations are to run, fs, later changes included."""
    spec = run.current_spec
    assert isinstance(spec, MDSpec)
    return round(spec.steps * spec.timestep, 6)
