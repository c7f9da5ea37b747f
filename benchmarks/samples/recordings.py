"""The recorded runs that come with the notebooks: ``python benchmarks/samples/recordings.py [NOTEBOOK ...]``.

Each notebook is run in full length under `build/recordings`, so that "Run here" and its cells open the same runs; runs
that ended there before are not computed again. Needs no public data set.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

import mlipkit as mk

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "recordings"
RECORDED = ROOT / "notebooks" / "recorded"
TIMEOUT_S = 3600
NUMBERS = ("state.json", "*.scores", "*.uids")


@dataclass(frozen=True)
class Recipe:
    """What is recorded of a notebook.

    Attributes:
        runs: names, in the order of the launch.
        every, last: one frame of so many is kept, and of the last steps (`mlipkit.runs.record`).
        inputs: files that the notebook makes and its runs read.
        shown: see `mlipkit.runs.shipped.Exhibit`.
    """

    runs: tuple[str, ...]
    every: int = 1
    last: int = 1
    inputs: tuple[str, ...] = ()
    shown: dict[str, Any] = field(default_factory=dict)


RECIPES = {
    "00_start_here": Recipe(("ethanol_1000_900K",)),
    "01_your_own_potential": Recipe(("own_potential", "own_md"), every=5),
    "03_explore_a_shift": Recipe(
        ("hot_run",),
        shown={"view": "explorer", "sets": {"training": "sample:ethanol_300K@::20", "hot_run": "runs/hot_run"}},
    ),
    "04_naive_vs_iterative": Recipe(
        ("naive_0", "iterative_0", "naive_1", "iterative_1"), inputs=("boxes.extxyz",), shown={"view": "comparison"},
    ),
    "05_close_the_loop": Recipe(
        ("hot", "label_hot", "train_on_label_hot", "control", "hot_round2", "hot_control"), every=20, last=10,
        inputs=("selections/hot.extxyz", "selections/hot.json"),
        shown={"view": "workbench", "first": ["hot"], "compared": ["hot", "hot_round2"]},
    ),
    "06_dynamic_training": Recipe(("roll_outs_0",)),
    "07_taip": Recipe(("hotter_ethanol", "water_to_ice"), shown={"view": "comparison"}),
    "08_ipip": Recipe(
        tuple(f"{arm}_{seed}" for seed in range(3) for arm in ("one_shot", "ipip", "continual", "scratch")),
        shown={"view": "comparison"},
    ),
}  # fmt: skip


def make(notebook: str) -> None:
    """Run a notebook and put the recordings of its runs where the package takes them from."""
    recipe, place, target = RECIPES[notebook], BUILD / notebook, RECORDED / notebook
    place.mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    if not all((place / "runs" / name / "spec.yaml").is_file() for name in recipe.runs):
        execute(notebook, place)
    shutil.rmtree(target, ignore_errors=True)
    for name in recipe.runs:
        run = mk.open(place / "runs" / name)
        print(run.name, run.wait().sentence)
        mk.runs.record(run, target, every=recipe.every, last=recipe.last)
    for name in recipe.inputs:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        text = (place / name).read_text(encoding="utf-8")
        (target / name).write_text(text.replace(f"{place}{os.sep}", ""), encoding="utf-8")
    if recipe.shown:
        (target / "shown.json").write_text(json.dumps(recipe.shown, indent=1))
    if recipe.shown.get("view") == "explorer":
        score(target, recipe.shown["sets"])
    print(notebook, sum(file.stat().st_size for file in target.rglob("*") if file.is_file()), "bytes")


def execute(notebook: str, place: Path) -> None:
    """Run all cells as they stand."""
    from nbclient import NotebookClient

    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    cells.metadata["kernelspec"]["name"] = "python3"
    NotebookClient(cells, timeout=TIMEOUT_S, resources={"metadata": {"path": str(place)}}).execute()


def score(target: Path, sets: dict[str, str]) -> None:
    """Where the explorer places every atom of the recordings, as its child process writes it."""
    from mlipkit_widgets.exhibits import SCORES
    from mlipkit_widgets.shift_computing import ShiftComputing

    given = {name: mk.open(target / text) if (target / text).is_dir() else text for name, text in sets.items()}
    computing = ShiftComputing(given, None, None, 5, {}, None)
    while computing.state == "computing":
        computing.refresh()
        time.sleep(0.2)
    (target / SCORES).mkdir()
    child = computing._child
    assert child is not None
    for pattern in NUMBERS:
        for file in child.folder.glob(pattern):
            shutil.copyfile(file, target / SCORES / file.name)
    computing.close()


if __name__ == "__main__":
    for name in sys.argv[1:] or RECIPES:
        make(name)
