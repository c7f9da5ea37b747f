"""Evaluations of adaptation below each other, each with its own page: the part of a comparison that is no workflow."""

from __future__ import annotations

import os
from pathlib import Path

import ipywidgets as w

from mlipkit.runs import Run
from mlipkit.runs.places import short_place

from .adaptation_pane import AdaptationPane, is_evaluation
from .parts import close_all, show
from .states import state_of


class Evaluations(w.VBox):
    """Pages of several evaluations of TAIP.

    Attributes:
        runs: the evaluations, in this order. panes: their pages.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.panes: list[AdaptationPane] = []
        super().__init__()

    @property
    def folders(self) -> frozenset[Path]:
        """Where they lie."""
        return frozenset(run.folder for run in self.runs)

    @property
    def states(self) -> list[str]:
        """State of each."""
        return [state_of(run) for run in self.runs]

    def watch(self, runs: list[Run]) -> None:
        """Show these from now on; pages of those that were on show stay."""
        kept = dict(zip((run.folder for run in self.runs), self.panes, strict=True))
        self.panes = []
        for run in runs:
            pane = kept.pop(run.folder, None)
            if pane is None:
                pane = AdaptationPane()
            pane.watch(run, run.name if len(runs) > 1 else "")
            self.panes.append(pane)
        self.runs = list(runs)
        self.children = self.panes
        for pane in kept.values():
            close_all(pane)
        show(self, bool(runs))

    def look_in(self, root: Path) -> bool:
        """Take in evaluations that have come into a folder; True when there were any."""
        found = [path.resolve() for path in sorted(root.glob("*/")) if is_evaluation(path)] if root.is_dir() else []
        new = [folder for folder in found if folder not in self.folders]
        if new:
            self.watch([*self.runs, *map(Run, new)])
        return bool(new)

    def update(self) -> None:
        """Look at all folders once."""
        for pane in self.panes:
            pane.update()

    @property
    def sentence(self) -> str:
        """Why one of them has not ended well; "" where all have."""
        open_ = [run for run in self.runs if run.state != "completed"]
        return open_[0].reason if open_ else ""

    def code(self) -> str:
        """Python that shows the same."""
        shown = [short_place(run.folder) for run in self.runs]
        return (
            f"import mlipkit as mk\n\nfor place in {shown!r}:\n"
            '    print(mk.open(place).facts()["sentence"])  # all figures: taip.json in the folder\n\n'
            "# the same view, also from another notebook:\nfrom mlipkit_widgets import StrategyComparison\n"
            f"StrategyComparison({shown!r})\n"
        )


def sorted_out(places: list[Run | str | os.PathLike[str]]) -> tuple[list[Run], list[Run | str | os.PathLike[str]]]:
    """Evaluations of adaptation, and everything else."""
    evaluations: list[Run] = []
    others: list[Run | str | os.PathLike[str]] = []
    for one in places:
        folder = one.folder if isinstance(one, Run) else Path(one).expanduser()
        if is_evaluation(folder):
            evaluations.append(one if isinstance(one, Run) else Run(folder))
        else:
            others.append(one)
    return evaluations, others
