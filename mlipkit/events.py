"""What a running job says, as plain data: the only link between work and view.

Events are rare (an epoch, a checkpoint, a verdict); numbers that come every step go to a series instead
(`mlipkit.data.series`). An event is a frozen dataclass; `to_json` and `from_json` turn it into one JSON object with the
class name under ``event``. Producers get an `EventSink` and a `Control` as plain functions and know nothing of folders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlipkit.errors import RunError, nearest

Outcome = Literal["ok", "warning", "failed"]
Request = Literal["run", "pause", "stop"]


@dataclass(frozen=True)
class Verdict:
    """What the stability checks say of a simulation. Only physics fails; a user who ends a run has stopped it.

    Attributes:
        outcome: ok, warning (worth a look, the run goes on) or failed (the run ended here).
        check: name of the check that decided, "" when ok.
        step: MD step at which it decided.
        time: fs since the start of the run.
        value, limit: the figure and its bound, in `unit`.
        atoms: indices of the offending atoms.
        replica: index of the replica.
        last_good: step of the last recorded frame in which no check had anything to say; -1 when there is none.
        first_warning: step of the first warning before a failure, or None.
        sentence: one sentence for people.
    """

    outcome: Outcome
    check: str = ""
    step: int = 0
    time: float = 0.0
    value: float = 0.0
    limit: float = 0.0
    unit: str = ""
    atoms: tuple[int, ...] = ()
    replica: int = 0
    last_good: int = -1
    first_warning: int | None = None
    sentence: str = ""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Verdict:
        """Rebuild what `dataclasses.asdict` gave; unknown fields of newer versions are dropped."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in record.items() if key in known}
        return cls(**{**values, "atoms": tuple(values.get("atoms", ()))})


@dataclass(frozen=True)
class Ending:
    """How a replica ended, or where it is: survival statistics take a list of these.

    Attributes:
        replica: its index.
        step, time: of its failure; of one that has not failed, how far it got (fs).
        failed: whether a check ended it.
        reason: name of that check, "" when it has not failed.
    """

    replica: int
    step: int
    time: float
    failed: bool
    reason: str = ""


def time_to_failure(endings: Iterable[Ending]) -> tuple[list[float], list[bool], list[str]]:
    """Times in fs, whether each ended in a failure (else it is censored), and reasons, one of each per replica."""
    found = list(endings)
    return [one.time for one in found], [one.failed for one in found], [one.reason for one in found]


@dataclass(frozen=True)
class Started:
    """The work begins or resumes. `what` in words; `total` units of progress (steps or epochs), 0 if unknown."""

    what: str
    total: int = 0
    resumed_at: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units; emitted at most about twice a second."""

    done: int
    total: int
    unit: str = "step"
    remaining_s: float | None = None


@dataclass(frozen=True)
class Evaluated:
    """Errors of a model after an epoch (epoch 0: before the first step).

    `metrics` maps a split to its figures: ``{"validation": {"energy_mae": ..., "forces_mae": ...}}`` with energies in
    eV per atom and forces in eV/Å.
    """

    epoch: int
    step: int
    metrics: Mapping[str, Mapping[str, float]]
    learning_rate: float = 0.0
    best: bool = False


@dataclass(frozen=True)
class Saved:
    """A file was written whole: a checkpoint, a trajectory, a report."""

    path: str
    what: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """The checks reached a verdict (a warning or the final one)."""

    verdict: Verdict
    final: bool = False


@dataclass(frozen=True)
class Message:
    """A sentence for the user. Library code never prints."""

    text: str
    level: Literal["info", "warning", "error"] = "info"


@dataclass(frozen=True)
class Waiting:
    """The run waits for another run's output."""

    on: str


@dataclass(frozen=True)
class Finished:
    """The end. `state`: completed, stopped (by the user), failed (physics), crashed (an error; `reason` says which)."""

    state: Literal["completed", "stopped", "failed", "crashed"]
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


Event = Started | Progress | Evaluated | Saved | Judged | Message | Waiting | Finished
EventSink = Callable[[Event], None]
Control = Callable[[], Request]

_TYPES: dict[str, type] = {
    cls.__name__: cls for cls in (Started, Progress, Evaluated, Saved, Judged, Message, Waiting, Finished)
}


def ignore(event: Event) -> None:
    """An event sink for callers that do not listen."""


def always_run() -> Request:
    """A control for callers that never interrupt."""
    return "run"


def to_json(event: Event) -> dict[str, Any]:
    """Plain dictionary of an event, with its type under ``event``."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}


def from_json(record: Mapping[str, Any]) -> Event:
    """Rebuild an event from its dictionary; unknown fields of newer versions are dropped.

    Raises:
        RunError: the record names no known event.
    """
    name = str(record.get("event"))
    cls = _TYPES.get(name)
    if cls is None:
        raise RunError(f"unknown event '{name}'", hint=nearest(name, _TYPES))
    known = {f.name for f in dataclasses.fields(cls)}
    values = {key: value for key, value in record.items() if key in known}
    if cls is Judged:
        values["verdict"] = Verdict.from_record(values["verdict"])
    return cls(**values)
