"""AppliesPanel: which strategies fit these frames and this potential, and the form of each that can be launched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
from pydantic import BaseModel

from mlipkit.errors import MlipkitError
from mlipkit.runs import MDSpec, Run, parse_spec, what_applies
from mlipkit.runs.applying import WITHIN_S
from mlipkit.runs.places import short_place
from mlipkit.runs.spec import AnySpec, FittingSpec
from mlipkit.runs.spec_md import listed
from mlipkit.strategies.applies import ICONS, Answer, Answers
from mlipkit.strategies.applies.answers import TONES, State

from .form_words import START
from .header import Header
from .launcher import Launcher
from .parts import button, close_all, row
from .ticker import in_background

LONGER_S = 120.0
"""For what did not fit in the time of an answer."""
WORDS: dict[State, str] = {"ready": "READY", "needs": "NEEDS SOMETHING", "impossible": "IMPOSSIBLE"}


class AppliesPanel(w.VBox):
    """Every strategy with icon and word, its reason in one sentence, what it would cost, and a button to its form.

    Args:
        frames, potential, maker: as `mlipkit.what_applies` takes them; no frames: an empty panel.
        root: folder in which runs are kept.
        measure: time a call, a gradient and a label (at most 5 s, beside the notebook).

    Attributes:
        answers: what was found, or None.
        launcher: the form that was opened, or None.
    """

    def __init__(
        self, frames: Any = None, potential: Any = None, *, maker: str | None = None,
        root: str | os.PathLike[str] = "runs", measure: bool = True,
    ) -> None:  # fmt: skip
        self.root, self.measure = Path(root), measure
        self.answers: Answers | None = None
        self.launcher: Launcher | None = None
        self._callbacks: list[Callable[[AnySpec], None]] = []
        self._asked = 0
        self._closed = False
        self.header = Header(state="empty", title="What applies here?")
        self.problem, self.notes = w.HTML(), w.HTML()
        self.rows, self.form = w.VBox(), w.VBox()
        super().__init__([self.header, self.problem, self.rows, self.notes, self.form])
        self.add_class("mlipkit-view")
        self.header.sentence = "Name frames and a potential."
        if frames is not None:
            self.ask(frames, potential, maker=maker)

    # For users

    def ask(self, frames: Any, potential: Any = None, *, maker: str | None = None) -> None:
        """Ask anew; what was asked before is forgotten."""
        self._asked += 1
        mine = self._asked
        self.header.state, self.header.sentence = "computing", "Looking, and measuring for a few seconds …"
        self._say("")

        def look(within: float) -> None:
            in_background(
                lambda: what_applies(frames, potential, maker=maker, within=within, measure=self.measure),
                lambda found, error: done(found, error, last=within > WITHIN_S),
            )

        def done(found: object, error: BaseException | None, last: bool) -> None:
            if mine != self._asked or self._closed:
                return
            if isinstance(found, Answers):
                self._show(found)
                if found.late and not last:
                    # Some packages take longer to load than a question may: answered now, measured on, remembered.
                    self.header.state, self.header.live = "computing", False  # nobody is told to wait for news
                    self.header.sentence += " Measuring on: what is unknown follows within a minute or so."
                    look(LONGER_S)
            elif error is not None:
                self._failed(error)

        look(WITHIN_S)

    def on_open(self, callback: Callable[[AnySpec], None]) -> None:
        """Call back with the specification when its form is asked for, instead of opening one below."""
        self._callbacks.append(callback)

    def open_form(self, answer: Answer | str) -> None:
        """Open the form of an answer (or of the strategy of this name), filled in."""
        if isinstance(answer, str):
            assert self.answers is not None
            answer = self.answers[answer]
        if answer.spec is None:
            self._say(f"{answer.title}: there is no form for it here.")
            return
        spec = parse_spec(answer.spec)
        if self._callbacks:
            for callback in self._callbacks:
                callback(spec)
            return
        if self.launcher is not None:
            self.launcher.close()
        self.launcher = Launcher(spec.kind, self.root, **fields_of(spec))
        self.form.children = [self.launcher]

    def close(self) -> None:
        """Remove the panel and its form. Runs go on."""
        if self._closed:
            return
        self._closed = True
        layout = self.layout
        for child in self.children:
            close_all(child)
        super().close()
        layout.close()

    # What comes back

    def _show(self, found: Answers) -> None:
        self.answers = found
        self.header.state = "ready"
        self.header.sentence = f"{found.sentence[:1].upper()}{found.sentence[1:]}."
        self.header.detail = " · ".join(filter(None, (found.frames, found.potential)))
        old = list(self.rows.children)
        self.rows.children = [self._row(one) for state in WORDS for one in found.of(state)]
        for child in old:
            close_all(child)
        self.notes.value = "".join(f'<div class="mk-quiet">{escape(note)}</div>' for note in found.notes)

    def _row(self, answer: Answer) -> w.Box:
        cost = "" if answer.state == "impossible" else answer.expected.sentence
        basis = f' title="{escape(answer.expected.basis)}"' if answer.expected.basis else ""
        text = w.HTML(
            f'<div role="listitem"><span class="mk-chip" style="--mk-tone:{TONES[answer.state]}">'
            f"{ICONS[answer.state]} {WORDS[answer.state]}</span> <b>{escape(answer.title)}</b><br>"
            f"{escape(answer.sentence)}<br>"
            f'<span class="mk-quiet"{basis}>{escape(cost)}</span></div>'
        )
        text.layout.flex = "1 1 24em"
        if answer.spec is None:
            return row(text)
        name = answer.strategy.rpartition(":")[2].replace("_", " ")
        tip = f"Open the form, filled in: {answer.title}"
        kind = "primary" if answer.state == "ready" else ""
        made = button(f"Form: {name}", lambda: self.open_form(answer), kind=kind, tip=tip)
        return row(text, made)

    def _failed(self, error: BaseException) -> None:
        self.header.state, self.header.sentence = "empty", ""
        self._say(str(error) if isinstance(error, MlipkitError) else f"{type(error).__name__}: {error}")

    def _say(self, problem: str) -> None:
        self.problem.value = f'<div class="mk-verdict mk-wrong" role="alert">{escape(problem)}</div>' if problem else ""


def question_of(run: Run) -> tuple[str, str] | None:
    """(frames, potential) to ask about: what a simulation went through, the data of a training; None for other runs."""
    spec = run.spec
    if isinstance(spec, MDSpec):
        return short_place(run.folder), spec.potential
    if isinstance(spec, FittingSpec):
        return listed(spec.data)[0], short_place(run.folder)
    return None


def fields_of(spec: AnySpec) -> dict[str, Any]:
    """Arguments of a `Launcher` whose form shows a specification: what differs from the form's own beginning."""
    given = dict(_walk(spec))
    wanted = {path: value for path, (value, default) in given.items() if value != default}
    # The form begins with values of its own for these: they are said also where they are the default.
    wanted |= {path: given[path][0] for path in START.get(spec.kind, {}) if path in given}
    if spec.kind == "finetune" or spec.kind == "workflow":
        wanted["potential"] = given["potential"][0]
    return {path.replace(".", "__"): value for path, value in wanted.items()}


def _walk(part: BaseModel, prefix: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(path, (value, default)) of every field, nested ones by dots."""
    for name, info in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            yield from _walk(value, f"{prefix}{name}.")
        elif prefix or name not in ("kind", "version"):
            yield f"{prefix}{name}", (value, info.get_default(call_default_factory=True))
