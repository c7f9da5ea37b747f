"""Arms side by side: verdict, errors beside controls, budgets, one axis of rounds, maps, bonds, residuals."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go

from mlipkit.plots import workflows as pictures
from mlipkit.plots.bonds import bond_distributions
from mlipkit.plots.runs import COLOURS
from mlipkit.strategies.workflows import Comparison
from mlipkit.strategies.workflows.evaluating import INDEPENDENT

from .arms_data import ArmsData, Bonds, Maps
from .budget_meter import budget_html
from .computed import Computed
from .failure_pane import FailureDoor
from .parts import close_all, row, show
from .plot import Plot
from .review_pane import ReviewPane
from .standing import standing_html

BINS = 60
AFTER_S = 0.5
"""Maps and bonds begin so long after the errors: time for these to reach the page."""
TEST = "test set"
HIGHEST = 3.0
"""A test set of relaxed frames has peaks far higher than any simulation: they are cut so much above the others."""
NO_ERRORS = "Errors appear when a workflow has been evaluated."
NO_FRAMES = "The map appears with the first frames that are picked, bond lengths with their labels."
NO_RESIDUALS = (
    "Energy residuals over time appear when frames from a run with a fine-tuned model have labels: with the second "
    "round of an iterative arm, with the evaluation of the others."
)


class ArmsPane(w.VBox):
    """Everything of a comparison below its head. The chosen round is one number for all pictures.

    Args:
        on_round: called when another round was chosen here.
        on_approve: called when candidates were approved here.
        viewer: of candidate frames.

    Attributes:
        alone: the head above tells state and reason of the one workflow.
    """

    alone = False

    def __init__(
        self, on_round: Callable[[int], object] = lambda round: None, on_approve: Callable[[], object] = lambda: None,
        viewer: str = "auto",
    ) -> None:  # fmt: skip
        self.data = ArmsData([])
        self.round = 0
        self._on_round, self._on_approve, self._viewer = on_round, on_approve, viewer
        self._moving = self._closed = self._dark = False
        self._following = True
        self.compared: Computed[Comparison] = Computed(self._computed)
        self.mapped: Computed[Maps] = Computed(self._computed)
        self.bonded: Computed[Bonds] = Computed(self._computed)
        self.verdict, self.standing, self.notes, self.budget = (w.HTML() for _ in range(4))
        self.reviews = w.VBox()
        self.failure = FailureDoor(viewer)
        self._reviews: list[ReviewPane] = []
        self.test_set = w.Dropdown(options=["-"], description="test set", layout={"width": "340px"})
        self.rounds = w.ToggleButtons(options=[], style={"button_width": "auto"})
        self.pair = w.Dropdown(options=["-"], description="bond", layout={"width": "170px"})
        self.errors = Plot(go.Figure(), height=500, label="Errors of every model beside its controls, with intervals",
                           on_click=self._error_clicked)  # fmt: skip
        self.timeline = Plot(go.Figure(), height=260, label="What became of the frames of each round",
                             on_click=lambda x, _y, _trace: self.choose(round(x)))  # fmt: skip
        self.map = Plot(go.Figure(), height=340, label="Score space of the training sets up to the chosen round")
        self.bonds = Plot(go.Figure(), height=340, label="Bond lengths of the chosen round beside the test set")
        self.residuals = Plot(go.Figure(), height=320, label="Energy residuals along each model's own simulation")
        self.map.add_class("mlipkit-pane-half")
        self.no_errors = w.HTML(f'<div class="mk-empty">{escape(NO_ERRORS)}</div>')
        self.no_bonds = w.HTML()
        self.no_frames = w.HTML(f'<div class="mk-empty">{escape(NO_FRAMES)}</div>')
        self.no_residuals = w.HTML(f'<div class="mk-empty">{escape(NO_RESIDUALS)}</div>')
        self.said, self.on_map = w.HTML(), w.HTML()
        self.error_box = w.VBox([row(self.test_set), self.errors])
        bond_box = w.VBox([row(self.pair), self.bonds, self.no_bonds]).add_class("mlipkit-pane-half")
        self.frame_box = row(self.map, bond_box, kind="mlipkit-panes")
        self.round_row = row(w.Label("round"), self.rounds)
        super().__init__([
            self.verdict, self.standing, self.failure, self.notes, self.reviews, self.no_errors, self.error_box,
            self.budget, self.round_row, self.timeline, self.said, self.no_frames, self.on_map, self.frame_box,
            self.residuals, self.no_residuals,
        ])  # fmt: skip
        self.test_set.observe(lambda _change: self._drawn_again(), "value")
        self.pair.observe(lambda _change: self._draw_bonds(), "value")
        self.rounds.observe(self._round_picked, "value")
        self._drawn: dict[str, object] = {}
        self.watch(self.data)

    def watch(self, data: ArmsData) -> None:
        """Show other workflows."""
        self.data, self.round, self._following, self._drawn = data, 0, True, {}
        for one in self._reviews:
            close_all(one)
        for part in (self.compared, self.mapped, self.bonded):
            part.close()
        self.compared, self.mapped, self.bonded = (Computed(self._computed) for _ in range(3))
        self._reviews = [ReviewPane(one, self._on_approve, self._viewer) for one in data.workflows]
        for one in self._reviews:
            one.set_dark(self._dark)
        self.reviews.children = self._reviews
        self.update()

    def update(self) -> None:
        """Draw what has changed; the caller has refreshed the data."""
        data = self.data
        for one in self._reviews:
            one.refresh()
        if not data.workflows:
            for part in self.children:
                show(part, False)
            return
        self.compared.want(data.compared_key() or None, data.compare)
        if not self.compared.busy:
            # The verdict and its errors come first.
            if places := data.map_key():
                self.mapped.want(places, data.maps, AFTER_S)
            if key := data.frames_key():
                self.bonded.want(key, data.bonds, AFTER_S)
        self._offer()
        self._draw()

    def tell(self) -> None:
        """Say where the workflows stand; states change without news in their folders."""
        text = standing_html({self.data.label(one): one for one in self.data.workflows}, not self.alone)
        _write(self.standing, text)
        show(self.standing, bool(text))
        self.failure.tell({self.data.label(one): one for one in self.data.workflows})

    @property
    def busy(self) -> bool:
        return self.compared.busy or self.mapped.busy or self.bonded.busy

    def choose(self, round: int) -> None:
        """Show a round everywhere; out of range means the first or last."""
        if self.data.n_rounds == 0:
            return
        self._following = False
        self._set_round(int(np.clip(round, 1, self.data.n_rounds)))

    def set_dark(self, dark: bool) -> None:
        """Follow the theme of the page."""
        self._dark = dark
        self.failure.set_dark(dark)
        for one in self._reviews:
            one.set_dark(dark)

    def close(self) -> None:
        self._closed = True
        for part in (self.compared, self.mapped, self.bonded):
            part.close()
        super().close()

    # What is on show

    def _set_round(self, round: int) -> None:
        if round == self.round:
            return
        self.round = round
        self._moving = True
        try:
            if round in dict(self.rounds.options).values():
                self.rounds.value = round
        finally:
            self._moving = False
        self._draw()
        self._on_round(round)

    def _offer(self) -> None:
        """The choices: rounds, test sets, bonds."""
        data = self.data
        self._moving = True
        try:
            options = [(str(k), k) for k in range(1, data.n_rounds + 1)]
            if list(self.rounds.options) != options:
                self.rounds.options = options
            sets = list(data.test_sets()) or ["-"]
            if list(self.test_set.options) != sets:
                self.test_set.options = sets
            pairs = list(self.bonded.value.arms) if self.bonded.value is not None else ["-"]
            if list(self.pair.options) != pairs:
                self.pair.options = pairs
        finally:
            self._moving = False
        show(self.pair, len(self.pair.options) > 1)
        if self._following and data.n_rounds:
            newest = max((k for one in data.rounds().values() for k in _begun(one)), default=1)
            self._set_round(newest)

    def _draw(self) -> None:
        data, compared = self.data, self.compared.value
        answer = self.compared.problem or data.sentence(compared)
        tone = "#c04f00" if self.compared.problem else "#6b7280" if compared is None else "#0072b2"
        if self.compared.busy:
            answer = "Comparing …"
        if "learned an offset" in answer:
            tone = "#c04f00"
        _write(self.verdict, f'<div class="mk-verdict mk-answer" role="status" style="--mk-tone:{tone}">'
                             f"{escape(answer)}</div>")  # fmt: skip
        notes = data.warnings(compared)
        _write(self.notes, "".join(f'<div class="mk-note">{escape(note)}</div>' for note in notes))
        tones = {
            data.label(one): COLOURS[k % len(COLOURS)] for k, some in enumerate(data.arms.values()) for one in some
        }
        _write(self.budget, budget_html(data.budgets(), tones))
        for part, there in ((self.verdict, True), (self.notes, bool(notes)), (self.budget, True), (self.reviews, True)):
            show(part, there)
        self._draw_errors()
        rounds = data.rounds()
        show(self.round_row, bool(data.n_rounds))
        show(self.timeline, bool(rounds))
        if rounds and self._changed("timeline", (rounds, data.n_rounds, self.round)):
            self.timeline.show(pictures.iteration_timeline(rounds, data.n_rounds, chosen=self.round or None))
        self._draw_maps()
        self._draw_bonds()
        runs = data.own_runs(self.round)
        show(self.residuals, bool(runs))
        # What will never come is not promised.
        show(self.no_residuals, not runs and any(one.state != "completed" for one in data.workflows))
        if runs and self._changed("residuals", (self.round, data.own_key())):
            figure = pictures.own_residuals(runs)
            self.residuals.height = int(figure.layout.height)
            self.residuals.show(figure)

    def _draw_errors(self) -> None:
        compared = self.compared.value
        key = self.data.test_sets().get(str(self.test_set.value), "")
        arms = self.data.errors(compared, key, self.round) if compared is not None else {}
        show(self.error_box, bool(arms))
        show(self.no_errors, not arms)
        self._arms = arms
        if arms and self._changed("errors", (arms, self.round, key)):
            self.errors.show(pictures.arm_errors(arms, chosen=self.round, title=str(self.test_set.value)))

    def _draw_maps(self) -> None:
        maps = self.mapped.value
        there = maps is not None or self.bonded.value is not None
        show(self.frame_box, there)
        busy = self.mapped.busy or self.bonded.busy
        show(self.no_frames, not there and not busy)
        problem = self.mapped.problem or self.bonded.problem
        words = "Placing the training frames on a map …" if busy and not there else problem
        _write(self.said, f'<div class="mk-quiet" role="status">{escape(words)}</div>' if words else "")
        show(self.said, bool(words))
        show(self.map, maps is not None)
        wait = self.data.unlabelled(self.round) if maps is not None else 0
        words = f"{wait} frame{'s' * (wait != 1)} of round {self.round} on the map without a label yet." if wait else ""
        _write(self.on_map, f'<div class="mk-quiet">{words}</div>' if words else "")
        show(self.on_map, bool(words))
        if maps is not None and self._changed("map", (id(maps), self.round)):
            self.map.show(pictures.growth_of_arms(maps.arms, maps.width, chosen=self.round, axes=maps.axes))

    def _draw_bonds(self) -> None:
        found, pair = self.bonded.value, str(self.pair.value)
        arms = found.arms.get(pair, {}) if found is not None else {}
        sets = {
            arm: lengths[rounds == self.round] for arm, (lengths, rounds) in arms.items()
            if (rounds == self.round).any()
        }  # fmt: skip
        test = found.test.get(self._test, {}).get(pair) if found is not None else None
        show(self.bonds, bool(sets) or test is not None)
        show(self.no_bonds, bool(arms) and not sets and test is None)
        self.no_bonds.value = f'<div class="mk-empty">No frame of round {self.round} has labels yet.</div>'
        if not (sets or test is not None) or not self._changed("bonds", (id(found), pair, self.round, self._test)):
            return
        every = {**sets, **({TEST: test} if test is not None else {})}
        low, high = min(one.min() for one in every.values()), max(one.max() for one in every.values())
        edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
        named = {f"{name}: std {one.std():.4f} Å": one for name, one in every.items()}
        density = {name: np.histogram(one, edges, density=True)[0] for name, one in named.items()}
        figure = bond_distributions(
            edges, density, pair=pair, means={name: float(one.mean()) for name, one in named.items()}
        )
        tops = [values.max() for values in density.values()]
        if sets and test is not None and tops[-1] > HIGHEST * max(tops[:-1]):
            figure.update_yaxes(range=[0, 0.6 * HIGHEST * max(tops[:-1])], title_text="density (1/Å), top cut off")
        self.bonds.show(figure)

    @property
    def _test(self) -> str:
        """Key of the test set whose bonds are drawn."""
        return self.data.test_sets().get(str(self.test_set.value), INDEPENDENT)

    def _changed(self, part: str, key: object) -> bool:
        if self._drawn.get(part) == key:
            return False
        self._drawn[part] = key
        return True

    # What the reader does

    def _error_clicked(self, x: float, _y: float, _trace: int) -> None:
        for place, _, one in pictures.model_places(self._arms):
            if place == round(x) and one.kind == "finetuned":
                self.choose(one.round)

    def _round_picked(self, change: dict) -> None:
        if not self._moving and change["new"] is not None:
            self.choose(int(change["new"]))

    def _drawn_again(self) -> None:
        if not self._moving:
            self._draw_errors()
            self._draw_bonds()

    def _computed(self) -> None:
        if not self._closed:
            self.update()


def _begun(one: pictures.Rounds) -> list[int]:
    """Numbers of the rounds that have frames."""
    n = max((len(column) for column in one.counts.values()), default=0)
    return [k + 1 for k in range(n) if any(column[k] for column in one.counts.values())]


def _write(widget: w.HTML, text: str) -> None:
    if widget.value != text:
        widget.value = text
