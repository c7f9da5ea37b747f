"""Several simulations of one run at a glance: how many failed, which, of what, and how survival falls."""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import ipywidgets as w

from mlipkit.plots.survival import Curve, at_risk_layout, failure_reasons, height, points_of, survival_curves
from mlipkit.runs.replicas import FS_PER_PS, Replicas, curve_of

from .parts import row, show
from .plot import Plot
from .replica_list import ReplicaList

if TYPE_CHECKING:
    from mlipkit.analysis.survival import Survival

EVERY_S = 1.5
"""Seconds between two estimates of survival while nothing but time has changed."""


class ReplicasPane(w.VBox):
    """Shows the simulations of one run.

    Attributes:
        list: the simulations, one of them picked.
        survival: the plot of their survival.
        reasons: the plot of what failed.
    """

    def __init__(self) -> None:
        self.list = ReplicaList()
        self.summary = w.HTML()
        self.survival = Plot(survival_curves({}), height=height(1), label="Share of simulations without failure")
        self.reasons = Plot(failure_reasons({}), height=130, label="What failed, and how often")
        left, right = w.VBox([self.list, self.reasons]), w.VBox([self.survival])
        left.add_class("mlipkit-pane-replicas")
        right.add_class("mlipkit-pane-survival")
        super().__init__([self.summary, row(left, right, kind="mlipkit-panes")])
        self.reset()

    def reset(self) -> None:
        """Forget the simulations of another run."""
        self._drawn: tuple[str, ...] = ()
        self._counted: dict[str, dict[str, int]] | None = None
        self._next = 0.0
        self.list.groups = []
        show(self.reasons, False)

    def update(self, replicas: Replicas, changed: bool, end: float) -> None:
        """Bring everything up to the simulations.

        Args:
            changed: the fate of one has changed, so nothing may wait.
            end: time to which they are to run, fs.
        """
        self.list.show(replicas)
        now = time.monotonic()
        if not changed and now < self._next:
            return
        self._next = now + EVERY_S
        found = replicas.survival()
        curves = {name: curve_of(found[name]) if name in found else Curve.empty() for name in replicas.groups()}
        if tuple(curves) != self._drawn:
            self._drawn = tuple(curves)
            self.survival.height = height(len(curves))
            self.survival.show(survival_curves(curves, end_ps=end / FS_PER_PS))
        else:
            self.survival.replace(points_of(curves))
            self.survival.relayout(**at_risk_layout(curves, end / FS_PER_PS))
        counted = {name: dict(found[name].reasons) if name in found else {} for name in curves}
        if counted != self._counted:
            self._counted = counted
            figure = failure_reasons(counted)
            self.reasons.height = figure.layout.height
            self.reasons.show(figure)
            show(self.reasons, any(counted.values()))
        text = "<br>".join(map(escape, said(found)))
        if text != self.summary.value:
            self.summary.value = text


def said(survival: Mapping[str, Survival]) -> list[str]:
    """How many hold for how long, and when half have failed, per group, as lines of text."""
    lines = []
    for name, curve in survival.items():
        at = curve.longest
        share, low, high = curve.at(at)
        line = f"{name}: {curve.n_failed} of {curve.n} failed, {share:.0%} hold at {_ps(at)} "
        line += f"(95% interval {low:.0%} to {high:.0%})"
        if curve.n_failed and curve.median != float("inf"):
            low, high = curve.median_interval
            until = f"to {_ps(high)}" if high != float("inf") else "upwards"
            line += f"; half have failed by {_ps(curve.median)} ({_ps(low)} {until})"
        lines.append(line)
    return lines


def _ps(time: float) -> str:
    return f"{time / FS_PER_PS:.3g} ps"
