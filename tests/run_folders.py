"""Run folders that no process computes."""

from __future__ import annotations

from pathlib import Path

from mlipkit.runs import MDSpec, Run, TrainSpec, process
from mlipkit.runs.folder import RunFolder


def folder_of(path: Path, spec: MDSpec | TrainSpec) -> RunFolder:
    """A new run folder with its specification."""
    path.mkdir(parents=True)
    files = RunFolder(path)
    files.spec.write_text(spec.to_yaml())
    return files


class Acted:
    """A run whose files are written by the test itself."""

    files: RunFolder

    @property
    def run(self) -> Run:
        return Run(self.files.path)

    def alive(self) -> None:
        """Claim that this very process computes the run."""
        self.files.write("pid.json", {**process.describe(), "phase": "running", "after_seq": 0})
        self.files.beat()
