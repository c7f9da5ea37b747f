"""Survival of equal simulations with two potentials: both curves with their intervals, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets as w

from mlipkit.plots.survival import height, survival_curves
from mlipkit.runs import Run, SurvivalChange
from mlipkit.runs.replicas import curve_of

from .parts import button, row, show
from .plot import Plot


class ComparePane(w.VBox):
    """Shows a comparison until it is closed.

    Args:
        on_close: called when the reader closes it.
    """

    def __init__(self, on_close: Callable[[], object] = lambda: None) -> None:
        self._on_close = on_close
        self.sentence = w.HTML()
        self.plot = Plot(
            survival_curves({}), height=height(2), label="Share of simulations without failure, before and after"
        )
        self.close_button = button("✖ Close", self.shut, tip="Close the comparison")
        super().__init__([row(self.sentence, self.close_button), self.plot])
        self.add_class("mlipkit-compare")
        show(self, False)

    def show_change(self, before: Run, after: Run, change: SurvivalChange) -> None:
        """Show how survival has changed from one simulation to another."""
        names = [f"{word}: {run.name}" for word, run in (("before", before), ("after", after))]
        curves = dict(zip(names, map(curve_of, (change.before, change.after)), strict=True))
        self.plot.height = height(2)
        self.plot.show(survival_curves(curves))
        self.sentence.value = (
            f'<div class="mk-answer" role="status">{escape(change.sentence)}</div>'
            f'<div class="mk-quiet">{escape(potentials(before, after))}</div>'
        )
        show(self, True)

    def shut(self) -> None:
        """Close the comparison; it can be made again at any time."""
        show(self, False)
        self._on_close()


def potentials(before: Run, after: Run) -> str:
    """Which potential each had."""
    return f"before: {before.name} with {before.spec.potential}; after: {after.name} with {after.spec.potential}"  # type: ignore[union-attr]
