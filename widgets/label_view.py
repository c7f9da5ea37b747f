"""LabelView: a labelling run while it goes on or afterwards: how far, what it cost, which frames failed and why."""

from __future__ import annotations

import json
import re
from collections import Counter
from html import escape
from typing import Any

import ipywidgets as w
import numpy as np

from mlipkit.errors import MlipkitError
from mlipkit.labelling.job import LABELLED
from mlipkit.labelling.records import LOG
from mlipkit.plots.runs import parity
from mlipkit.runs import LabelSpec, Run
from mlipkit.runs.places import short_place
from mlipkit.runs.shipped import recorded_on

from .base import RunView
from .parts import close_all, row, show
from .plot import Plot
from .states import duration, look

MOST_FAILED = 20
MOST_POINTS = 3000
BESIDE = "The frames already had forces, such as those of the potential used in MD; here compared with the new labels."
NUMBER = re.compile(r"[-+]?\d[\d.e+-]*")


class LabelView(RunView):
    """Frames labelled, frames that failed with the engine's reason, and the cost.

    Args:
        run: a labelling run or its folder; None for an empty view.
    """

    EMPTY = "No labelling is open yet. Start one with a Launcher, or open one: LabelView('runs/NAME')."

    def _build(self) -> None:
        self.empty = w.HTML(f'<div class="mk-empty">{escape(self.EMPTY)}</div>')
        self.summary, self.failures = w.HTML(), w.HTML()
        self.beside = w.VBox()
        self.body.children = [self.empty, row(self.summary), self.failures, self.beside]

    def _reset(self) -> None:
        self._read_to = 0
        self.rows: dict[str, dict[str, Any]] = {}
        self.maker = ""
        self._drop_beside()
        self._compared = False
        self.summary.value = self.failures.value = ""
        show(self.empty, self.run is None)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Lines of the frames without labels, in the order asked for."""
        return sorted((one for one in self.rows.values() if "failed" in one), key=lambda one: one["index"])

    def _update(self, run: Run, state: str) -> None:
        if self._read(run) or not self.summary.value or not look(state).live:
            self._write(self.summary, self._words(run))
            self._write(self.failures, self._table())
        if state == "completed" and not self._compared:
            self._compared = True
            self._show_beside(run)
        elif look(state).live:
            self._compared = False
            self._drop_beside()

    def _show_beside(self, run: Run) -> None:
        """Forces that the frames brought along against the new ones, where they brought any."""
        try:
            new, before = forces_beside(run, [one["index"] for one in self.rows.values() if "failed" not in one])
        except (MlipkitError, OSError):
            return  # what was labelled is gone or was moved: the labels stand for themselves
        if not len(new):
            return
        figure = parity(new, before, quantity="force components", unit="eV/Å", label="before", most=MOST_POINTS)
        figure.update_layout(hovermode="closest", title_font_size=13)
        figure.update_xaxes(title_text=f"{self.maker or 'new label'}, eV/Å").update_yaxes(title_text="before, eV/Å")
        self.beside.children = [
            w.HTML(f'<div class="mk-quiet">{escape(BESIDE)}</div>'),
            Plot(figure, height=320, label="Force components before against the new labels"),
        ]

    def _drop_beside(self) -> None:
        for child in self.beside.children:
            close_all(child)
        self.beside.children = []

    def _read(self, run: Run) -> bool:
        """Whole lines that were appended since the last look."""
        try:
            with open(run.folder / LOG, "rb") as file:
                file.seek(self._read_to)
                text = file.read()
        except FileNotFoundError:
            return False
        whole = text.rfind(b"\n") + 1
        self._read_to += whole
        for line in text[:whole].splitlines():
            try:
                record = json.loads(line)
                if "uid" in record:
                    self.rows[record["uid"]] = record
                elif "maker" in record:
                    self.maker = str(record["maker"].get("name") or "")
            except (ValueError, AttributeError, TypeError):
                continue  # torn by a crash; the run labels that frame anew
        return whole > 0

    def _words(self, run: Run) -> str:
        failed, n = len(self.failed), len(self.rows)
        progress = run.progress
        total = progress.total if progress is not None and progress.unit == "frame" else n
        if not n:
            return '<span class="mk-quiet">The engine is being built; frames appear as they are labelled.</span>'
        seconds = sum(float(one.get("seconds", 0.0)) for one in self.rows.values())
        text = f"<b>{n - failed}</b> of {max(total, n)} frames labelled"
        text += f', <b class="mk-wrong">{failed} failed</b>' if failed else ", none failed"
        text += f" · {duration(seconds)} of {escape(self.maker or 'the engine')}, {_each(seconds / n)} per frame"
        return text

    def _table(self) -> str:
        failed = self.failed
        if not failed:
            return ""
        said: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for one in failed:
            key = NUMBER.sub("#", one["failed"])
            said.setdefault(key, one["failed"])
            counts[key] += 1
        reasons = "".join(f"<li>{escape(said[key])} ({count})</li>" for key, count in counts.most_common())
        lines = "".join(
            f"<tr><td>{one['index']}</td><td>{escape(one['uid'])}</td><td>{escape(one['failed'])}</td>"
            f"<td>{one['seconds']:.3g} s</td></tr>"
            for one in failed[:MOST_FAILED]
        )
        more = f"<p class='mk-quiet'>… and {len(failed) - MOST_FAILED} more</p>" if len(failed) > MOST_FAILED else ""
        return (
            f"<div class='mk-verdict' role='status' style='--mk-tone:#c04f00'>Frames without labels, in the engine's "
            f"words:<ul style='margin:2px 0'>{reasons}</ul></div><table class='mk-table mk-runs'><tr><th>frame</th>"
            f"<th>uid</th><th>reason</th><th>took</th></tr>{lines}</table>{more}"
        )

    def _sentence(self, run: Run, state: str) -> str:
        if state == "completed":
            place = short_place(run.folder)
            some = (run.folder / LABELLED).is_file() and not recorded_on(run)
            then = f" Next: fine-tune on them with data=[…, '{place}']." if some else ""
            return f"{super()._sentence(run, state)}.{then}"
        return super()._sentence(run, state)

    def _write(self, widget: w.HTML, text: str) -> None:
        if widget.value != text:
            widget.value = text


def forces_beside(run: Run, labelled: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """New force components and those that the frames had before, flat, eV/Å; empty where they had none.

    Args:
        labelled: numbers of the labelled frames among those that the run was asked for.
    """
    from mlipkit.data import read
    from mlipkit.runs.building_label import frames_to_label

    assert isinstance(run.spec, LabelSpec)
    none = np.empty(0), np.empty(0)
    if not labelled:
        return none
    asked = frames_to_label(run.spec, run.files.base).select(sorted(labelled))
    new = read(run.folder / LABELLED)
    if not asked.has("forces").all() or len(new) != len(asked):
        return none
    return np.ravel(new.forces), np.ravel(asked.forces)


def _each(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
