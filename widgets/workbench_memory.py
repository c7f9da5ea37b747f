"""What a Workbench remembers of a folder of runs: which is open, whose failure was seen, which were compared, and the
folders of calculations that the user runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mlipkit.runs import OwnJobs, Run
from mlipkit.runs.folder import write_text

NAME = ".workbench.json"


class Memory:
    """A small file in the folder of runs, written whole. Runs are named by their folder, so that all can be moved.

    Two notebooks on one folder share it: each reads it again before a change.

    Args:
        root: the folder of runs.
        kept: write it down, where that is possible; otherwise it goes with this object.
    """

    def __init__(self, root: Path, kept: bool = True) -> None:
        self.root, self.kept = root, kept
        self._opened, self._seen, self._compared, self._jobs = "", [], [], {}
        self._read()

    def _read(self) -> None:
        # A folder that was thrown away while it was on show does not come back.
        if not self.kept or not self.root.is_dir():
            return
        try:
            record = json.loads((self.root / NAME).read_text(encoding="utf-8"))
            self._opened = str(record["opened"])
            self._seen, self._compared = list(map(str, record["seen"])), list(map(str, record["compared"]))
            self._jobs = {
                str(one["folder"]): {**one, "n_added": int(one.get("n_added", 0))} for one in record.get("jobs", [])
            }
        except (OSError, ValueError, KeyError, TypeError):
            # A damaged memory must not lock anybody out: all there is to lose is which steps were looked at.
            self._opened, self._seen, self._compared, self._jobs = "", [], [], {}

    @property
    def opened(self) -> Path | None:
        """Folder of the run that was open last."""
        return self._folder(self._opened) if self._opened else None

    @property
    def seen(self) -> set[Path]:
        """Folders of simulations whose failure was looked at."""
        return {self._folder(name) for name in self._seen}

    @property
    def compared(self) -> set[Path]:
        """Folders of simulations whose survival was compared with an earlier one."""
        return {self._folder(name) for name in self._compared}

    @property
    def jobs(self) -> list[OwnJobs]:
        """Calculations of the user, in the order of their export."""
        return [
            OwnJobs(Path(os.path.normpath(self.root.resolve() / name)), str(one.get("run", "")),
                    str(one.get("added", "")), int(one.get("n_added", 0)))
            for name, one in self._jobs.items()
        ]  # fmt: skip

    def keep_jobs(self, jobs: OwnJobs) -> None:
        """Remember jobs, or what has become of them."""
        self._read()
        name = self._name(jobs)
        more = {"added": jobs.added, "n_added": jobs.n_added} if jobs.n_added else {}
        self._jobs[name] = {"folder": name, "run": jobs.run, **more}
        self._write()

    def forget_jobs(self, jobs: OwnJobs) -> None:
        """Offer these jobs no more; their folder stays."""
        self._read()
        if self._jobs.pop(self._name(jobs), None) is not None:
            self._write()

    def _name(self, jobs: OwnJobs) -> str:
        """Seen from the folder of runs, so that all can be moved together."""
        return os.path.relpath(jobs.folder.resolve(), self.root.resolve())

    def open(self, run: Run | None) -> None:
        """Remember which run is open."""
        name = run.name if run is not None else ""
        if name != self._opened:
            self._read()
            self._opened = name
            self._write()

    def see(self, run: Run) -> None:
        """Remember that the failure of a run was looked at."""
        self._read()
        if run.name not in self._seen:
            self._seen.append(run.name)
            self._write()

    def compare(self, run: Run) -> None:
        """Remember that a run was compared with an earlier one."""
        self._read()
        if run.name not in self._compared:
            self._compared.append(run.name)
            self._write()

    def _folder(self, name: str) -> Path:
        return self.root.resolve() / name

    def _write(self) -> None:
        if not self.kept:
            return
        record: dict[str, object] = {"opened": self._opened, "seen": self._seen, "compared": self._compared}
        if self._jobs:
            record["jobs"] = list(self._jobs.values())
        try:
            write_text(self.root / NAME, json.dumps(record, indent=1), durable=False)
        except OSError:  # a folder of somebody else's, or a full disk: it goes with this object then
            self.kept = False
