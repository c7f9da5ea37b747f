"""The recorded runs that come with the notebooks: ``python benchmarks/samples/recordings.py [NOTEBOOK ...]``.

Each specification is one that its notebook launches in full length, so that "Run here" and the cell open the same run.
Runs are kept under `build/recordings`; those that ended there before are not computed again.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import mlipkit as mk

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "recordings"
SPECS = {
    "00_start_here": [
        mk.MDSpec(name="ethanol_1000_900K", potential="sample:ethanol_1000", start="sample:ethanol_300K@0",
                  temperature=900, time_ps=5),
    ],
    "01_your_own_potential": [
        mk.TrainSpec(name="own_potential", data="sample:ethanol_300K",
                     model=mk.runs.ModelSpec(features=32, layers=2), time_limit_s=90),
        mk.MDSpec(name="own_md", potential="runs/own_potential", start="sample:ethanol_300K", temperature=300,
                  time_ps=3),
    ],
}  # fmt: skip
"""Notebook -> what is recorded, in the order of the launch."""


def make(notebook: str) -> None:
    """Compute the runs of a notebook and put their recordings where the package takes them from."""
    place = BUILD / notebook
    place.mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    target = ROOT / "notebooks" / "recorded" / notebook
    for run in [mk.launch(spec) for spec in SPECS[notebook]]:
        print(run.name, run.wait().sentence)
        shutil.rmtree(target / run.name, ignore_errors=True)
        made = mk.runs.record(run, target)
        print(made, sum(file.stat().st_size for file in made.rglob("*") if file.is_file()), "bytes")


if __name__ == "__main__":
    for name in sys.argv[1:] or SPECS:
        make(name)
