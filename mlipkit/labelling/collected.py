"""What came of calculations that the user ran elsewhere: every job with its state, and the labels of those done."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.labelling.job import FailedLabel, Labelled

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

STATES = ("done", "missing", "unconverged", "wrong structure", "other settings", "failed")


@dataclass
class CollectedJob:
    """What became of one job.

    Attributes:
        folder: its name; uid: of its frame.
        state: one of `STATES`.
        reason: why it is not "done".
        files: outputs that were read.
        program: name and version.
        settings: what it was computed with.
        energy: eV, as in the frames; other_energy: eV, the one that was not taken (NaN when not said).
        seconds: wall time that the program reports.
        notes: one sentence each.
    """

    folder: str
    uid: str
    state: str
    reason: str = ""
    files: tuple[str, ...] = ()
    program: str = ""
    settings: dict[str, float | str] = field(default_factory=dict)
    energy: float = float("nan")
    other_energy: float = float("nan")
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN is None."""
        record = dict(vars(self))
        for name in ("energy", "other_energy"):
            record[name] = record[name] if np.isfinite(record[name]) else None
        return record | {"files": list(self.files)}


@dataclass
class Collected:
    """What came of a folder of calculations.

    Attributes:
        folder: that folder.
        frames: those that are done, in the order of export; uids, source, trajectory, time, tags and velocities as they
            were exported, positions and cells bit for bit.
        jobs: all of them.
        settings: what the labels of `frames` were made with.
        maker: what the engine is, as `LabelMaker.describe` says it, with "name".
        notes: one sentence each.
    """

    folder: Path
    frames: FrameSet
    jobs: list[CollectedJob]
    settings: dict[str, float | str]
    maker: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def level_of_theory(self) -> str:
        """For people: ``PBE, cutoff 400 eV, k-points 2×2×2 with Γ``."""
        return str(self.maker["level_of_theory"])

    @property
    def other_energy(self) -> np.ndarray:
        """float64 [F], eV: of each of `frames` the energy that was not taken, NaN where the output has only one."""
        return np.array([job.other_energy for job in self.jobs if job.state == "done"])

    @property
    def counts(self) -> dict[str, int]:
        """State -> how many jobs, states without any left out."""
        found = Counter(job.state for job in self.jobs)
        return {state: found[state] for state in STATES if found[state]}

    @property
    def labelled(self) -> Labelled:
        """The same as other label makers give it; jobs that are missing count as not begun."""
        failed = [
            FailedLabel(index, job.uid, f"{job.state}: {job.reason}", job.seconds)
            for index, job in enumerate(self.jobs)
            if job.state not in ("done", "missing")
        ]
        seconds = sum(job.seconds for job in self.jobs)
        return Labelled(self.frames, failed, seconds, len(self.jobs), seconds, self.maker)

    @property
    def sentence(self) -> str:
        """For people: ``15 of 20 jobs done, 3 missing, 1 unconverged, 1 other settings; PBE, cutoff 400 eV, ...``."""
        counts = self.counts
        parts = [f"{counts.get('done', 0)} of {len(self.jobs)} job{'s' * (len(self.jobs) != 1)} done"]
        parts += [f"{count} {state}" for state, count in counts.items() if state != "done"]
        return f"{', '.join(parts)}; {self.level_of_theory}"

    def table(self) -> str:
        """The sentence, a line for each job that is not done or has a note, and the notes."""
        rows = [(job.folder, job.state, _why(job)) for job in self.jobs if job.state != "done" or job.notes]
        wide = [max((len(row[k]) for row in rows), default=0) for k in (0, 1)]
        lines = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c}" for a, b, c in rows]
        return "\n".join([self.sentence, *lines, *(f"note: {text}" for text in self.notes)])

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"<Collected: {self.sentence}>"

    def _repr_html_(self) -> str:
        """The sentence and a table of all jobs, those that are not done first."""
        style = "style='text-align:left'"
        order = sorted(self.jobs, key=lambda job: job.state == "done")
        rows = "".join(
            f"<tr><td {style}>{escape(job.folder)}</td><td {style}>{escape(job.state)}</td>"
            f"<td {style}>{f'{job.energy:.4f}' if job.state == 'done' else ''}</td>"
            f"<td {style}>{escape(_why(job))}</td></tr>"
            for job in order
        )
        notes = "".join(f"<li>{escape(text)}</li>" for text in self.notes)
        head = "".join(f"<th {style}>{name}</th>" for name in ("job", "state", "energy (eV)", "why"))
        return f"<p>{escape(self.sentence)}</p><table><tr>{head}</tr>{rows}</table><ul>{notes}</ul>"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": "mlipkit-collected-1", "sentence": self.sentence, "counts": self.counts, "maker": self.maker,
            "settings": self.settings, "notes": self.notes, "jobs": [job.to_json() for job in self.jobs],
        }  # fmt: skip


def _why(job: CollectedJob) -> str:
    return "; ".join(text for text in (job.reason, *job.notes) if text)
