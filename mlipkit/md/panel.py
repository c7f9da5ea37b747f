"""The judges of all replicas: checks screen all at once, and only what catches their eye is looked at one by one."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import numpy as np

from mlipkit.events import Verdict
from mlipkit.md.checks import Check
from mlipkit.md.figures import COLUMNS
from mlipkit.md.judging import Judge
from mlipkit.md.look import Array
from mlipkit.md.looks import Looks

Said = dict[int, list[Verdict]]
"""New verdicts by the index of the replica, a failure last."""


class Panel:
    """Judges and looks of the replicas that go on.

    The rules are those of `Check.look`: what `Check.screen` passes over is what they would say nothing of.

    Args:
        judges: one per replica, all with the same checks.
        looks: of the same replicas.
    """

    def __init__(self, judges: Sequence[Judge], looks: Looks) -> None:
        self.judges, self.looks = list(judges), looks
        self._kinds: list[list[Check]] = [list(kind) for kind in zip(*(j.checks for j in judges), strict=True)]
        self._others: list[list[Check]] = []  # that have no bounds
        self._bounds: Array | None = None

    def begin(self) -> Said:
        """Show the start, which `looks` is filled with, to all checks of all replicas."""
        return {index: judge.begin(self.looks.close(index)) for index, judge in enumerate(self.judges)}

    def look(
        self, rows: Array, arrays: Callable[[], tuple[Array, Array]], stored: bool, ended: Container[int] = ()
    ) -> Said:
        """New verdicts at a step.

        Args:
            rows: [S,columns]; arrays: as in `Looks.fill`.
            stored: whether it is a stored frame.
            ended: replicas that have failed and are not looked at.
        """
        looks, said = self.looks, {}
        looks.fill(rows, arrays)
        if self._bounds is None:
            self._bounds = self._find_bounds()
        # NaN is within no bounds.
        calm = bool((np.abs(rows[:, : len(COLUMNS)]) <= self._bounds).all())
        concerned: dict[int, list[Check]] = {}
        for kind in self._others if calm else self._kinds:
            if stored or looks.step % kind[0].every == 0:
                for index in np.flatnonzero(type(kind[0]).screen(kind, looks)).tolist():
                    concerned.setdefault(index, []).append(kind[index])
        if concerned:
            self._bounds = None
        for index, judge in enumerate(self.judges) if stored else ((i, self.judges[i]) for i in sorted(concerned)):
            if index in ended:
                continue
            if index in concerned:
                said[index] = judge.look(looks.close(index), stored, concerned[index])
            else:
                judge.last_good = looks.step
        return said

    def _find_bounds(self) -> Array:
        """Size of every figure [S,columns] up to which no check of figures has to be asked."""
        bounds, self._others = np.full((len(self.judges), len(COLUMNS)), np.inf), []
        for kind in self._kinds:
            of_kind = type(kind[0]).bounds(kind, self.looks)
            if not of_kind:
                self._others.append(kind)
            for name, bound in of_kind.items():
                place = list(COLUMNS).index(name)
                bounds[:, place] = np.minimum(bounds[:, place], bound)
        return bounds

    def verdict(self, index: int) -> Verdict:
        """The verdict of a replica so far, at the present step."""
        look = self.looks.each[index]
        look.step, look.time = self.looks.step, self.looks.time
        return self.judges[index].verdict(look)

    def select(self, replicas: Sequence[int]) -> Panel:
        """The panel of some of the replicas."""
        return Panel([self.judges[index] for index in replicas], self.looks.select(replicas))
