"""Label by one's own VASP or CP2K: frames out as folders of inputs, and what has become of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import ipywidgets as w

from mlipkit.data import FrameSet
from mlipkit.errors import DataError, MlipkitError
from mlipkit.runs import OwnJobs
from mlipkit.runs.places import short_place

from .computed import Computed
from .parts import button, row, show
from .ticker import after

QUIET_S = 0.4
"""Pause after the last key before a template is looked at."""
MOST_LINES = 12
OFFER = "A folder with your own inputs: INCAR, KPOINTS, POTCAR and a job script, or one .inp of CP2K."
STATES = {
    "done": "✓", "missing": "◔", "unconverged": "!", "wrong structure": "✖", "other settings": "✖", "failed": "✖",
}  # fmt: skip


class JobsPane(w.VBox):
    """Asks for a template while frames are to be exported; afterwards shows what has become of the jobs.

    Args:
        frames: the frames that would be exported.
        on_collect: called when the reader wants the jobs to be looked at.
        on_forget: called when the jobs shall not be offered any more.

    Attributes:
        template, folder, box: what was typed: folder of inputs, folder of the jobs, edge of a box in Å or "".
    """

    def __init__(
        self, frames: Callable[[], FrameSet], on_collect: Callable[[], object], on_forget: Callable[[], object]
    ) -> None:
        self._frames = frames
        self._typed = 0
        self._wanted: tuple[str, ...] = ()
        self._looking = Computed(self._looked)
        wide = {"width": "auto", "flex": "1 1 260px"}
        self.template = w.Text(description="inputs", placeholder="folder with INCAR … or one .inp", layout=wide)
        self.folder = w.Text(description="jobs into", placeholder="a new folder", layout=wide)
        self.box = w.Text(description="box (Å)", placeholder="none", layout={"width": "190px"})
        self.box.tooltip = "Edge of a box in whose middle molecules without a cell are computed"
        self.template.tooltip = OFFER
        for part in (self.template, self.box):
            part.observe(lambda _change: self._changed(), "value")
        self.text, self.found = w.HTML(), w.HTML()
        self.form = w.VBox([row(self.template, self.folder, self.box), self.text])
        self.collect_button = button("Collect", on_collect, tip="Check the state of the jobs again")
        self.forget_button = button("✖ Dismiss jobs", on_forget, tip="Go on without these jobs; their folder stays")
        self.notes = w.HTML()
        self.result = w.VBox([self.found, self.notes, row(self.collect_button, self.forget_button)])
        super().__init__([self.form, self.result])
        self.add_class("mlipkit-jobs")
        self.show_state(form=False, jobs=None)

    def show_state(self, form: bool, jobs: OwnJobs | None, name: str = "") -> None:
        """Show the form, or what has become of jobs, or nothing.

        Args:
            form: frames are to be exported.
            jobs: the jobs to speak of.
            name: of the folder that is offered for the jobs.
        """
        show(self.form, form)
        show(self.result, jobs is not None and not form)
        show(self, form or jobs is not None)
        if form:
            if name and not self.folder.value:
                self.folder.value = name
            self._check()
        elif jobs is not None:
            self._put(self.found, jobs_html(jobs))

    def tell(self, notes: Sequence[str]) -> None:
        """Show what exporting or collecting had to say besides."""
        self._put(self.notes, "".join(f'<div class="mk-note">{escape(note)}</div>' for note in notes))

    @property
    def edge(self) -> float | None:
        """Edge of the box, Å, or None.

        Raises:
            DataError: no number.
        """
        text = self.box.value.strip()
        try:
            return float(text) if text else None
        except ValueError:
            raise DataError("no number", where="box (Å)", expected="an edge in Å, or nothing", found=text) from None

    @property
    def places(self) -> tuple[str, str]:
        """Folders of the inputs and of the jobs.

        Raises:
            DataError: one was not named.
        """
        template, folder = self.template.value.strip(), self.folder.value.strip()
        for text, words in ((template, "the folder with your inputs"), (folder, "a folder for the jobs")):
            if not text:
                raise DataError(f"name {words} first", where="label by my own DFT")
        return template, folder

    def _changed(self) -> None:
        self._typed += 1
        mine = self._typed
        after(QUIET_S, lambda: self._check() if mine == self._typed else None)

    def _check(self) -> None:
        """Look at the template and at the frames that are to be computed with it."""
        template = self.template.value.strip()
        if not template:
            self._say(OFFER)
            return
        try:
            frames, edge = self._frames(), self.edge
        except MlipkitError as error:
            self._say(str(error), wrong=True)
            return
        key = (template, _changed_at(template), self.box.value.strip(), *(str(uid) for uid in frames.uids))
        self._wanted = key

        def look() -> str:
            from mlipkit.data.jobs import check_jobs

            return check_jobs(frames, template, box=edge)

        self._looking.want(key, look)
        if self._looking.key == key and not self._looking.busy:
            self._looked()

    def _looked(self) -> None:
        if self._looking.key != self._wanted:
            self._check()
            return
        fits = self._looking.value
        self._say(fits if fits is not None else self._looking.problem, wrong=fits is None)

    def _say(self, text: str, wrong: bool = False) -> None:
        tone = "mk-verdict mk-wrong" if wrong else "mk-quiet"
        self._put(self.text, f'<div class="{tone}" role="status">{escape(text)}</div>')

    @staticmethod
    def _put(widget: w.HTML, html: str) -> None:
        if widget.value != html:
            widget.value = html

    def close(self) -> None:
        self._looking.close()
        super().close()


def _changed_at(folder: str) -> str:
    """Differs when files came or went."""
    try:
        return str(Path(folder).stat().st_mtime_ns)
    except OSError:
        return ""


def jobs_html(jobs: OwnJobs) -> str:
    """How many jobs are in which state, and of each that is not done the reason."""
    marks = " ".join(
        f'<span class="mk-job">{STATES.get(state, "·")} <b>{count}</b> {escape(state)}</span>'
        for state, count in jobs.counts.items()
    )
    lines = [one for one in jobs.jobs if one.get("state") != "done"]
    items = "".join(
        f"<tr><td>{escape(str(one.get('folder')))}</td><td>{escape(str(one.get('state')))}</td>"
        f"<td>{escape(str(one.get('reason') or ''))}</td></tr>"
        for one in lines[:MOST_LINES]
    )
    table = (
        "<table class='mk-table mk-runs'><thead><tr><th scope='col'>job</th><th scope='col'>state</th>"
        f"<th scope='col'>why</th></tr></thead><tbody>{items}</tbody></table>" if items else ""
    )  # fmt: skip
    more = f"<div class='mk-quiet'>… and {len(lines) - MOST_LINES} more</div>" if len(lines) > MOST_LINES else ""
    level = f"<div class='mk-quiet'>{escape(jobs.level)}</div>" if jobs.level else ""
    place = f"<b>Your jobs</b> {escape(short_place(jobs.folder))}"
    return f"<div role='status'><div>{place} {marks or escape('not collected yet')}</div>{level}</div>{table}{more}"
