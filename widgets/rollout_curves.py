"""What only a dynamic training shows: stages of its curriculum, errors of roll-outs over training and over steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets as w
import numpy as np
from ase.data import atomic_numbers

from mlipkit.plots import rollouts as plots
from mlipkit.runs import Run

from .curves import CurveFeed
from .parts import show
from .plot import Plot

MEPA = "rollout_mepa"
PART = f"{MEPA}/element="
PROGRESS = (
    "Validation roll-outs: the potential runs unseen AIMD again, from its frames and velocities, over {} steps. "
    "Force error along the roll-out, averaged over the steps; dotted: the error at the start frame, before any step. "
    "Roll-out steps count structures, the start included: 1 is training on single frames."
)
ALONG = (
    "How the error grows with the roll-out steps, for the best weights of each stage. The dot is where roll-outs of "
    "training ended."
)


@dataclass(frozen=True)
class StageLine:
    """A stage as the series has it: roll-out steps, epochs made in it, its best epoch and errors there (eV/Å)."""

    number: int
    length: int
    begin: float
    epochs: int
    best_epoch: int
    mepa: float
    parts: dict[str, float]


class RolloutCurves(w.VBox):
    """Curves and table of a dynamic training, fed while it grows; hidden until there is something of one.

    Attributes:
        stages: as far as the training has come.
    """

    def __init__(self) -> None:
        self.told, self.along_told, self.table = w.HTML(), w.HTML(), w.HTML()
        self.progress = Plot(
            plots.rollout_progress(), height=300, label="Error of validation roll-outs over the optimiser steps"
        )
        self.along = Plot(
            plots.error_by_rollout_steps({}, 1.0), height=300, label="Force error over roll-out steps, for each stage"
        )
        super().__init__([self.told, self.progress, self.table, self.along_told, self.along])
        self.reset()

    def reset(self) -> None:
        """Forget the training that was shown before."""
        self.stages: list[StageLine] = []
        self._elements: tuple[str, ...] | None = None
        self._feed: CurveFeed | None = None
        self._rows, self._stamp, self._drawn = 0, 0, ""
        self.table.value = ""
        show(self, False)
        for part in (self.along_told, self.along):
            show(part, False)

    def update(self, run: Run) -> bool:
        """Bring everything up to the run's files; True when stages have changed."""
        if "validation" not in run.series_names():
            return False
        series = run.series("validation")
        if MEPA not in series.columns:
            return False
        symbols = [name.removeprefix(PART) for name in series.columns if name.startswith(PART)]
        elements = tuple(sorted(symbols, key=lambda symbol: atomic_numbers[symbol]))
        if self._feed is None or elements != self._elements:
            self._begin(run, elements)
        assert self._feed is not None
        changed = False
        self._feed.update(series)
        if len(series) != self._rows:
            self._rows = len(series)
            stages = stages_of(series.read(), elements)
            changed = stages != self.stages
            self.stages = stages
            self.progress.relayout(**marks_of(stages))
            show(self, True)
        self._write(run)
        self._draw_along(run)
        return changed

    def _begin(self, run: Run, elements: tuple[str, ...]) -> None:
        self._elements = elements
        self.progress.show(plots.rollout_progress(elements))
        names = [MEPA, *(f"{PART}{symbol}" for symbol in elements), "rollout_first"]
        self._feed = CurveFeed(
            self.progress, {name: number for number, name in enumerate(names)}, "step", exact=True,
            scales=dict.fromkeys(names, 1000.0),
        )  # fmt: skip
        steps = getattr(getattr(run.spec, "rollout_validation", None), "n_structures", 0)
        self.told.value = f'<div class="mk-quiet">{escape(PROGRESS.format(steps))}</div>'
        self.along_told.value = f'<div class="mk-quiet">{escape(ALONG)}</div>'

    def _write(self, run: Run) -> None:
        chosen = run.facts().get("chosen")
        text = stages_table(self.stages, self._elements or (), chosen)
        if text != self.table.value:
            self.table.value = text

    def _draw_along(self, run: Run) -> None:
        path = run.folder / "rollouts.json"
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            return
        if stamp == self._stamp:
            return
        self._stamp = stamp
        record = json.loads(path.read_text(encoding="utf-8"))
        timestep = float(record.pop("timestep", 1.0))
        best = {int(key): one["best"] for key, one in sorted(record.items()) if "best" in one}
        if not best:
            return
        named = {stage_name(number, row["n_structures"]): row for number, row in best.items()}
        self.along.show(plots.error_by_rollout_steps(
            {name: row["error"] for name, row in named.items()}, timestep,
            {name: row["n_structures"] for name, row in named.items()},
        ))  # fmt: skip
        for part in (self.along_told, self.along):
            show(part, True)


def stage_name(number: int, length: int) -> str:
    """``stage 2: 4 roll-out steps``."""
    return f"stage {number}: {length} roll-out step{'s' * (length != 1)}"


def stages_of(rows: dict[str, np.ndarray], elements: tuple[str, ...]) -> list[StageLine]:
    """Stages from the columns of the series; the row before the first epoch belongs to the first one."""
    found = []
    numbers = np.asarray(rows["stage"], float)
    for number in np.unique(numbers[np.isfinite(numbers)]).astype(int):
        mine = np.flatnonzero(numbers == number)
        begin = float(rows["step"][mine[0] - 1]) if mine[0] else float(rows["step"][0])
        trained = mine[np.asarray(rows["epoch"])[mine] > 0]
        errors = np.asarray(rows[MEPA], float)[mine]
        best = int(mine[np.nanargmin(errors)]) if np.isfinite(errors).any() else int(mine[0])
        found.append(StageLine(
            number, int(rows["n_structures"][mine[-1]]), begin, len(trained), int(rows["epoch"][best]),
            float(rows[MEPA][best]), {symbol: float(rows[f"{PART}{symbol}"][best]) for symbol in elements},
        ))  # fmt: skip
    return found


def marks_of(stages: list[StageLine]) -> dict[str, list[dict[str, Any]]]:
    """Layout of a plot over optimiser steps that marks the stages."""
    return plots.stage_marks([one.begin for one in stages], [one.length for one in stages])


def stages_table(stages: list[StageLine], elements: tuple[str, ...], chosen: object = None) -> str:
    """HTML table: one line per stage, errors of its best epoch over all steps of the validation roll-outs."""
    if not stages:
        return ""
    head = "".join(f"<th>{symbol}<br>meV/Å</th>" for symbol in elements)
    lines = ""
    for one in stages:
        parts = "".join(f"<td>{_milli(one.parts[symbol])}</td>" for symbol in elements)
        name = f"<b>{one.number} ✓ chosen</b>" if one.number == chosen else f"{one.number}"
        lines += (
            f"<tr><td>{name}</td><td>{one.length}</td><td>{one.epochs}</td><td>{one.best_epoch}</td>"
            f"<td>{_milli(one.mepa)}</td>{parts}</tr>"
        )
    return (
        '<table class="mk-table"><tr><th>stage</th><th>roll-out<br>steps</th><th>epochs</th><th>best<br>epoch</th>'
        f"<th>sum over elements<br>meV/Å</th>{head}</tr>{lines}</table>"
    )


def _milli(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{1000 * value:.3g}" if value < 1 else f"{1000 * value:.0f}"
