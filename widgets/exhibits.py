"""The view that a notebook shows of several recordings together, and of the runs that were launched here instead."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mlipkit.runs import Run, survival_change
from mlipkit.runs.shipped import RUNS, Exhibit

from .live_view import LiveView
from .shift_explorer import ShiftExplorer
from .strategy_comparison import StrategyComparison
from .workbench import Workbench

SCORES = "scores"
"""Folder beside the recordings with the numbers of an explorer."""
TRAY = "selections/recorded"


def view_of(shown: Exhibit, own: Sequence[Run], root: str | os.PathLike[str]) -> LiveView:
    """The view of an exhibit; with runs of one's own that of these.

    Args:
        own: runs that were launched here for `shown.first`; none for the recordings.
        root: folder of one's own runs.
    """
    if shown.view == "explorer":
        return _explorer(shown, own)
    if shown.view == "comparison":
        return StrategyComparison(own or shown.runs)
    return _workbench(shown, own, root)


def _explorer(shown: Exhibit, own: Sequence[Run]) -> ShiftExplorer:
    runs = {f"{RUNS}/{run.name}": run for run in shown.runs}
    here = {f"{RUNS}/{run.name}": mine for run, mine in zip(shown.first, own, strict=False)}
    sets = {name: here.get(place) or runs.get(place) or place for name, place in shown.sets.items()}
    if own:
        return ShiftExplorer(sets, tray=f"{TRAY}_here")
    view = ShiftExplorer(sets, tray=TRAY, computed=shown.folder / SCORES)
    moving = next(one for one in view.data.sets if one.run is not None)
    warned = [frame for frame, kind in moving.marks.items() if kind == "warning"]
    if warned:
        view.go(moving.name, warned[0])
    return view


def _workbench(shown: Exhibit, own: Sequence[Run], root: str | os.PathLike[str]) -> Workbench:
    if own:
        return Workbench(root)
    bench = Workbench(shown.folder / RUNS, read_only=True)
    if shown.compared:
        before, after = (next(run for run in shown.runs if run.name == name) for name in shown.compared)
        bench.go_to_failure(before)
        bench.show_change(before, after, survival_change(before, after))
    return bench
