"""Open my data: a path, checked as it is typed, in the words of the data report; then a first training on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as w

from mlipkit.data import FrameSet
from mlipkit.runs import TrainSpec

from .computed import Computed
from .parts import button, row, show
from .ticker import after

if TYPE_CHECKING:
    # Its neighbour lists bring torch, which a view does not need.
    from mlipkit.data.report import DataReport

QUIET_S = 0.4
"""Pause after the last key before a path is looked at."""
MOST_FINDINGS = 6


class BeginPane(w.VBox):
    """Asks for a data set.

    Args:
        on_train: called with the specification of a first training on it.
    """

    def __init__(self, on_train: Callable[[TrainSpec], object]) -> None:
        self._on_train = on_train
        self._typed = 0
        self._wanted = ""
        self._looking = Computed(self._looked)
        self.place = w.Text(
            description="my data", placeholder="frames.extxyz, OUTCAR, a folder, vasp/*/OUTCAR …",
            layout={"width": "auto", "flex": "1 1 320px"},
        )  # fmt: skip
        self.place.observe(lambda _change: self._changed(), "value")
        self.train_button = button(
            "▶ Train on it", self.train, kind="primary", tip="A first potential, trained for a minute"
        )
        self.train_button.disabled = True
        self.text = w.HTML()
        super().__init__([row(self.place, self.train_button), self.text])
        self.add_class("mlipkit-begin")

    @property
    def spec(self) -> TrainSpec | None:
        """The training that would be started, or None as long as the data cannot be trained on."""
        report, place = self._looking.value, self._wanted
        if not place or report is None or not trainable(report):
            return None
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(place.partition("@")[0]).stem).strip("._-")
        return TrainSpec(data=place, time_limit_s=60.0, max_epochs=10000, name=f"train_{name or 'my_data'}"[:80])

    def check(self) -> None:
        """Look at the data now."""
        place = self.place.value.strip()
        self._wanted = place
        if not place:
            self._say("")
            self.train_button.disabled = True
            return
        self.train_button.disabled = True
        self._say("Reading …")
        self._looking.want(place, lambda: report_on(place))

    def train(self) -> None:
        """Start a first training on the data."""
        spec = self.spec
        if spec is not None and not self.train_button.disabled:
            self.train_button.disabled = True
            self._on_train(spec)

    def _changed(self) -> None:
        self._typed += 1
        mine = self._typed
        self.train_button.disabled = True
        after(QUIET_S, lambda: self.check() if mine == self._typed else None)

    def _looked(self) -> None:
        if self._looking.key != self._wanted:
            # Another path was typed meanwhile.
            self.check()
            return
        report = self._looking.value
        if report is None:
            self._say(self._looking.problem, wrong=True)
            return
        self.text.value = report_html(report)
        self.train_button.disabled = self.spec is None

    def _say(self, text: str, wrong: bool = False) -> None:
        tone = "mk-verdict mk-wrong" if wrong else "mk-quiet"
        self.text.value = f'<div class="{tone}" role="status">{escape(text)}</div>' if text else ""
        show(self.text, bool(text))

    def close(self) -> None:
        self._looking.close()
        super().close()


def report_on(place: str) -> DataReport:
    """What is in a data set.

    Raises:
        MlipkitError: it cannot be read.
    """
    from mlipkit.runs.building_data import read_frames

    frames: FrameSet = read_frames(place, Path.cwd(), allow_partial=True)
    return frames.report()


def trainable(report: DataReport) -> bool:
    """Whether every frame has energy and forces, and nothing is wrong that training would choke on."""
    return all(report.coverage.get(label, 0) == report.n_frames for label in ("energy", "forces"))


def report_html(report: DataReport) -> str:
    """The report in short: what there is, whether it can be trained on, what is to be looked at."""
    wanted = ("frames", "elements", "periodicity", "energy", "forces")
    told = " · ".join(f"{name} {text}" for name, text in report.rows() if name in wanted)
    marks = {"problem": "✗", "warning": "!", "info": "·", "ok": "✓"}
    look = [one for one in report.findings if one.level in ("problem", "warning")] or list(report.findings[:1])
    items = "".join(
        f"<div>{marks[one.level]} {escape(one.topic)}: {escape(one.text)}</div>" for one in look[:MOST_FINDINGS]
    )
    can = "" if trainable(report) else "<div class='mk-wrong'>Training needs energy and forces on every frame.</div>"
    return f"<div role='status'><div>{escape(told)}</div>{can}{items}</div>"
