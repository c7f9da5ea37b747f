"""Frames of a simulation that the user computes by VASP or CP2K: what has come of them, and their labels as data.

>>> picked.export_jobs("jobs/hot", frames, template="inputs")
>>> jobs = OwnJobs(Path("jobs/hot"), "hot")
>>> print(jobs.collect())                          # at any time, as often as one likes
>>> labels = jobs.add("selections/dft_hot.extxyz")
>>> launch(train_step(run, labels, level=jobs.level))
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.errors import DataError, MlipkitError
from mlipkit.runs.folder import read_json
from mlipkit.runs.places import short_place

if TYPE_CHECKING:
    from mlipkit.labelling.collected import Collected

MANIFEST, COLLECTED = "jobs.json", "collected.json"


@dataclass(frozen=True)
class OwnJobs:
    """A folder of calculations, and how far its labels have come. Everything else is read from the folder.

    Attributes:
        folder: as `export_jobs` made it.
        run: name of the simulation that the frames are of.
        added: place of the labels that were added to the data last, "" for none.
        n_added: how many they are.
    """

    folder: Path
    run: str = ""
    added: str = ""
    n_added: int = 0

    @property
    def n(self) -> int:
        """Number of jobs; 0 when the folder is not there any more."""
        return len(read_json(self.folder / MANIFEST).get("jobs", []))

    @property
    def counts(self) -> dict[str, int]:
        """State -> how many jobs, as collected last; empty before."""
        return self._collected().get("counts", {})

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """Each job as collected last: folder, uid, state, reason, ... (`CollectedJob.to_json`); empty before."""
        return self._collected().get("jobs", [])

    @property
    def done(self) -> int:
        """Jobs with labels, as collected last."""
        return self.counts.get("done", 0)

    @property
    def level(self) -> str:
        """Level of theory of the labels that were collected, "" before."""
        return str(self._collected().get("maker", {}).get("level_of_theory", "")) if self.done else ""

    @property
    def stamp(self) -> tuple[object, ...]:
        """Differs when something has come of the jobs since."""
        try:
            changed = os.stat(self.folder / COLLECTED).st_mtime_ns
        except OSError:
            changed = 0
        return self.folder, self.added, self.n_added, changed

    @property
    def sentence(self) -> str:
        """For people: ``15 of 20 jobs in jobs/hot done, 3 missing, 1 unconverged``."""
        counts, n = self.counts, self.n
        place = short_place(self.folder)
        if not counts:
            return f"{n} job{'s' * (n != 1)} in {place}: run them wherever you can; nothing was collected yet"
        others = "".join(f", {count} {state}" for state, count in counts.items() if state != "done")
        return f"{self.done} of {n} job{'s' * (n != 1)} in {place} done{others}"

    def collect(self) -> Collected:
        """Read what has come of the jobs, and leave it in their folder (`mlipkit.labelling.collect`).

        Raises:
            DataError: no folder of jobs, or a damaged one.
        """
        from mlipkit.labelling import collect

        return collect(self.folder)

    def add(self, path: str | os.PathLike[str]) -> str:
        """Write the labels that are done by now as a data set: its place. Collecting again leaves it as it is.

        Args:
            path: file to write; when it is there already the next free number is put behind its name.

        Raises:
            DataError: no job is done, or the folder is none of jobs.
        """
        from mlipkit.data import write

        found = self.collect()
        if not len(found.frames):
            raise DataError("no job is done yet", where=short_place(self.folder), found=found.sentence)
        target = free(Path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, found.frames)
        return short_place(target)

    def _collected(self) -> dict[str, Any]:
        try:
            record = read_json(self.folder / COLLECTED)
        except MlipkitError:  # collecting writes it anew
            return {}
        right = {"counts": dict, "jobs": list, "maker": dict}
        return record if all(isinstance(record.get(key, kind()), kind) for key, kind in right.items()) else {}


def free(path: Path) -> Path:
    """The path, or with the next number behind its name that is not taken."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_stem(f"{path.stem}_{number}")
    return found
