"""Iterative pretraining side by side: verdict, arms beside their controls, all iterations of one run, budgets."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go

from mlipkit.plots import pretraining as pictures
from mlipkit.plots.runs import COLOURS, STOPPED
from mlipkit.strategies.ipip import LOOPS
from mlipkit.strategies.ipip.comparing import Comparison

from .budget_meter import budget_html
from .computed import Computed
from .loop_data import BUDGETS, LoopData
from .loop_folder import LoopFolder
from .loop_species import LoopSpecies
from .loop_table import iterations_html
from .parts import row, show
from .plot import Plot
from .standing import standing_html

NO_ARMS = "Errors beside controls appear when a run has been evaluated."
NO_ROUNDS = "Iterations appear with the first pool and the first student."
ARMS_TOLD = (
    "Every arm on the same test frames: mean over seeds, bars from the least to the most of them. Of the students of a "
    "loop the one that is best on the validation frames stands for it. Open circles and pale bars (no_...): a loop "
    "without one of its parts."
)


class LoopPane(w.VBox):
    """Everything of a comparison below its head. The chosen iteration is one number for picture and traitlet.

    Args:
        on_round: called when another iteration was chosen here.

    Attributes:
        alone: the head above tells state and reason of the one run.
        round: iteration on show, from 0.
    """

    alone = False

    def __init__(self, on_round: Callable[[int], object] = lambda round: None) -> None:
        self.data, self.round = LoopData([]), 0
        self._on_round = on_round
        self._moving = self._closed = False
        self._following = True
        self.compared: Computed[Comparison] = Computed(self._computed)
        self.verdict, self.standing, self.notes, self.answers, self.budget, self.table = (w.HTML() for _ in range(6))
        self.no_arms = w.HTML(f'<div class="mk-empty">{escape(NO_ARMS)}</div>')
        self.no_rounds = w.HTML(f'<div class="mk-empty">{escape(NO_ROUNDS)}</div>')
        self.arms_told = w.HTML(f'<div class="mk-quiet">{escape(ARMS_TOLD)}</div>')
        self.arms = Plot(go.Figure(), height=380, label="Test errors of every arm beside its controls")
        self.tests = Plot(go.Figure(), height=230, label="Test simulations of every arm that failed, with intervals")
        self.run = w.Dropdown(options=["-"], description="run", layout={"width": "260px"})
        self.timeline = Plot(go.Figure(), height=600, label="Iterations: pool, errors, failed runs, labels, speed",
                             on_click=lambda x, _y, _trace: self.choose(round(x)))  # fmt: skip
        self.run_row = row(self.run)
        self.species = LoopSpecies()
        super().__init__([
            self.verdict, self.standing, self.notes, self.answers, self.no_arms, self.arms_told, self.arms, self.tests,
            self.run_row, self.no_rounds, self.timeline, self.table, self.species, self.budget,
        ])  # fmt: skip
        self.run.observe(self._run_picked, "value")
        self._drawn: dict[str, object] = {}
        self.watch(self.data)

    def watch(self, data: LoopData) -> None:
        """Show other runs."""
        self.data, self.round, self._following, self._drawn = data, 0, True, {}
        self.compared.close()
        self.compared = Computed(self._computed)
        self.update()

    def update(self) -> None:
        """Draw what has changed; the caller has refreshed the data."""
        if not self.data.workflows:
            for part in self.children:
                show(part, False)
            return
        self.compared.want(self.data.compared_key() or None, self.data.compare)
        self._offer()
        self._draw()

    def tell(self) -> None:
        """Say where the runs stand; states change without news in their folders."""
        text = standing_html({self.data.label(one): one for one in self.data.workflows}, not self.alone)
        _write(self.standing, text)
        show(self.standing, bool(text))

    @property
    def busy(self) -> bool:
        return self.compared.busy

    @property
    def chosen(self) -> LoopFolder | None:
        """The run whose iterations are drawn."""
        return next((one for one in self.data.workflows if self.data.label(one) == self.run.value), None)

    def choose(self, round: int) -> None:
        """Mark an iteration; out of range means the first or last."""
        if self.chosen is None or not self.chosen.n_rounds:
            return
        self._following = False
        self._set_round(int(np.clip(round, 0, self.chosen.n_rounds - 1)))

    def set_dark(self, dark: bool) -> None:
        """Follow the theme of the page: figures do by themselves."""

    def close(self) -> None:
        self._closed = True
        self.compared.close()
        super().close()

    # What is on show

    def _set_round(self, round: int) -> None:
        if round != self.round:
            self.round = round
            self._draw_timeline()
            self._on_round(round)

    def _offer(self) -> None:
        names = [self.data.label(one) for one in self.data.sorted]
        if list(self.run.options) != names:
            value = self.run.value
            self._moving = True
            try:
                self.run.options = names
                self.run.value = value if value in names else names[0]
            finally:
                self._moving = False
        if self._following and self.chosen is not None:
            known = [one.number for one in self.chosen.iterations if one.pool or one.validation is not None]
            self._set_round(max(known, default=0))

    def _draw(self) -> None:
        data, compared = self.data, self.compared.value
        answer = self.compared.problem or ("Comparing …" if self.compared.busy else data.sentence(compared))
        tone = "#c04f00" if self.compared.problem else data.tone(compared)
        _write(self.verdict, f'<div class="mk-verdict mk-answer" role="status" style="--mk-tone:{tone}">'
                             f"{escape(answer)}</div>")  # fmt: skip
        notes, answers = data.warnings(compared), data.answers(compared)
        _write(self.notes, "".join(f'<div class="mk-note">{escape(note)}</div>' for note in notes))
        _write(self.answers, "".join(f'<div class="mk-quiet"><b>{escape(asked)}:</b> {escape(said)}</div>'
                                     for asked, said in answers))  # fmt: skip
        tones = {data.label(one): COLOURS[0] if one.arm in LOOPS else STOPPED for one in data.workflows}
        _write(self.budget, budget_html(data.budgets(), tones, BUDGETS))
        self._draw_arms(compared)
        self._draw_timeline()
        for part, there in ((self.verdict, True), (self.notes, bool(notes)), (self.answers, bool(answers)),
                            (self.budget, True), (self.run_row, len(data.workflows) > 1)):  # fmt: skip
            show(part, there)

    def _draw_arms(self, compared: Comparison | None) -> None:
        rows = [{**row, "name": row["arm"]} for row in compared.rows] if compared is not None else []
        # The teacher is a yardstick for everything, and stands behind the controls.
        rows = [*rows[1:], *rows[:1]]
        tests = {arm: (one["failed"], one["runs"], *one["interval"]) for arm, one in compared.stability.items()} if (
            compared is not None) else {}  # fmt: skip
        for part in (self.arms, self.arms_told):
            show(part, bool(rows))
        show(self.no_arms, not rows)
        show(self.tests, bool(tests))
        if rows and self._changed("arms", repr(rows)):
            self.arms.show(pictures.arms_beside(rows))
        if tests and self._changed("tests", repr(tests)):
            self.tests.show(pictures.failed_tests(tests))

    def _draw_timeline(self) -> None:
        one = self.chosen
        iterations = one.iterations if one is not None else []
        there = bool(iterations) and pictures.something_known(iterations)
        show(self.timeline, there)
        show(self.no_rounds, not there)
        text = iterations_html(one) if one is not None else ""
        _write(self.table, text)
        show(self.table, bool(text))
        self.species.tell(one, self.round)
        if not there or one is None:
            return
        controls = {name: value for name, value in self.data.controls().items() if name != one.arm}
        if self._changed("timeline", (one.folder, tuple(map(repr, iterations)), tuple(controls.items()), self.round)):
            marked = self.round if len(iterations) > 1 else None
            figure = pictures.loop_timeline(iterations, controls, chosen=marked)
            self.timeline.height = int(figure.layout.height)  # type: ignore[attr-defined]
            self.timeline.show(figure)

    def _changed(self, part: str, key: object) -> bool:
        if self._drawn.get(part) == key:
            return False
        self._drawn[part] = key
        return True

    # What the reader does

    def _run_picked(self, _change: dict) -> None:
        if not self._moving:
            self._following = True
            self._offer()
            self._draw_timeline()

    def _computed(self) -> None:
        if not self._closed:
            self.update()


def _write(widget: w.HTML, text: str) -> None:
    if widget.value != text:
        widget.value = text
