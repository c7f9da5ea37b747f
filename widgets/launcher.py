"""Launcher: fill in, start after three measured steps, watch."""

from __future__ import annotations

import os
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w

from mlipkit.errors import MlipkitError
from mlipkit.runs import Run, launch
from mlipkit.runs.hub import hub_warning
from mlipkit.runs.launching import existing
from mlipkit.runs.spec import KINDS, AnySpec

from .adaptation_view import AdaptationView
from .base import RunView
from .form import Form
from .form_words import FIELDS, FIRST, FIXED, PARTS, START, UNITS, WORDS
from .header import Header
from .label_view import LabelView
from .loop_view import PretrainingView
from .md_view import MDView
from .measuring import Measuring
from .parts import ClosingBox, button, close_all, row, show
from .ticker import after, in_background
from .training_monitor import TrainingMonitor
from .tray_actions import MAKERS
from .workflow_view import WorkflowView

START_TEXT = ("▶ Start", "Measure, then start the run in a process of its own")
VIEWS: dict[str, type[RunView]] = {
    "md": MDView, "train": TrainingMonitor, "finetune": TrainingMonitor, "label": LabelView, "workflow": WorkflowView,
    "dynamic": TrainingMonitor, "taip": AdaptationView, "ipip": PretrainingView,
}  # fmt: skip
QUIET_S = 1.2
"""Pause after the last change before the estimate is measured by itself."""


class Launcher(ClosingBox):
    """A form for a new run; below it the run that was started.

    Every field is one of the specification (`mlipkit.runs`: `MDSpec`, `TrainSpec`, `LabelSpec` ...); "Code" and "YAML"
    show the same run in these words.
    Before every start three real steps are measured in a process of their own, and what the run will take is shown.

    Args:
        kind: "md", "train", "label", "finetune", "dynamic", "taip", "ipip" or "workflow".
        root: folder in which runs are kept.
        automatic: measure time, memory and disk by itself after each change by the user.
        **values: fields to begin with; nested ones as ``model__features=32``.

    Attributes:
        run: the run that was started or re-opened, or None.
        view: its view (MDView, TrainingMonitor, LabelView, WorkflowView, PretrainingView), or None.
    """

    def __init__(
        self, kind: str = "md", root: str | os.PathLike[str] = "runs", *, automatic: bool = True, **values: Any
    ) -> None:
        self.kind, self.root, self.automatic = kind, Path(root), automatic
        self.run: Run | None = None
        self.view: RunView | None = None
        self._callbacks: list[Callable[[Run], None]] = []
        self._measuring = Measuring(self._measured)
        self._wanted: tuple[AnySpec, bool] | None = None
        self._busy = False
        self._changes = 0
        self.header = Header(state="empty", title="New run", sentence="")
        self.header.word = self.header.icon = ""
        self.kinds = w.ToggleButtons(
            options=[(text, name) for name, text in WORDS.items() if name in KINDS], value=kind
        )
        self.kinds.style.button_width = "auto"
        self.kinds.observe(lambda change: self._choose(change["new"]), "value")
        self.form_box = w.VBox()
        self.more_button = button("More settings", self._toggle_more)
        self.problem, self.estimate_text, self.panel = w.HTML(), w.HTML(), w.HTML()
        self.hub_note = w.HTML(f'<span class="mk-quiet">{escape(hub_warning())}</span>')
        show(self.hub_note, bool(hub_warning()))
        self.start_button = button(START_TEXT[0], self.start, kind="primary", tip=START_TEXT[1])
        self.again_button = button("Run again", lambda: self.start(again=True), hidden=True,
                                   tip="Start a numbered copy of the run that is there")  # fmt: skip
        self.estimate_button = button("Estimate", self.measure, tip="Measure real steps: time, memory, disk")
        self._panel_kind = ""
        self.buttons = row(
            self.start_button, self.again_button, self.estimate_button,
            button("Code", lambda: self._toggle("code"), tip="Python that starts the same run"),
            button("YAML", lambda: self._toggle("yaml"), tip="The specification as a file"),
        )  # fmt: skip
        self.view_box = w.VBox()
        super().__init__([
            self.header, row(self.kinds), self.form_box, row(self.more_button), self.problem, self.estimate_text,
            self.buttons, self.hub_note, self.panel, self.view_box,
        ])  # fmt: skip
        self.add_class("mlipkit-view")
        self.form: Form
        self._choose(kind, {name.replace("__", "."): value for name, value in values.items()})

    # For users

    @property
    def spec(self) -> AnySpec:
        """The specification of what is in the form.

        Raises:
            SpecError: a wrong value.
        """
        return self.form.spec()

    def on_start(self, callback: Callable[[Run], None]) -> None:
        """Call back with the run when one was started or re-opened."""
        self._callbacks.append(callback)

    def start(self, again: bool = False) -> None:
        """Measure three steps, then start the run; or re-open the one that an equal specification already made.

        Nothing is measured for a run that is there, or when this very specification was measured before. A second
        call while measuring takes the wish back.

        Args:
            again: make a numbered copy of a run that is there.
        """
        if self._wanted is not None:
            self._forget_start("Not started.")
            self._measuring.cancel()
            self._tell(self._hint, quiet=True)
            return
        spec, problem = self.form.check()
        self._say(problem)
        if spec is None or self._busy:
            return
        try:
            there = not again and existing(spec, self.root) is not None
        except MlipkitError as error:
            self._say(str(error))
            return
        if there or (self._measuring.spec == spec and self._measuring.estimate is not None):
            self._launch(spec, again)
            return
        self._wanted = (spec, again)
        self.start_button.description, self.start_button.tooltip = "✖ Cancel", "Do not start"
        self.header.sentence = f"Measuring {self._unit} before the start …"
        show(self.again_button, False)
        self.measure()

    def measure(self) -> None:
        """Measure three real steps of what is in the form, beside the notebook, and show what the run will take."""
        spec, problem = self.form.check()
        if spec is None or self._closed or (self._measuring.running and self._measuring.spec == spec):
            self._say(problem)
            return
        self._tell(f"Measuring {self._unit} …", quiet=True)
        self._measuring.start(spec)

    def _end(self) -> None:
        self._measuring.cancel()
        if self.view is not None:
            self.view.close()

    # Form

    def _choose(self, kind: str, values: dict[str, Any] | None = None) -> None:
        self.kind = kind
        cls = KINDS[kind]
        old = list(self.form_box.children)
        start = {**START[kind], **self._sensible(kind), **(values or {})}
        first = list(FIRST[kind])
        if "steps" in start and "time_ps" not in (values or {}):
            del start["time_ps"]
            first[first.index("time_ps")] = "steps"
        self.form = Form(
            cls, first, start=start, suggestions=self._suggestions(), words=FIELDS.get(kind), parts=PARTS,
            fixed=FIXED.get(kind), on_change=self._changed,
        )  # fmt: skip
        self.form_box.children = [self.form.essential, self.form.more]
        for child in old:
            close_all(child)
        self.more_button.description = "More settings"
        # A form that only appears starts no process: running all cells of a notebook again must cost nothing.
        self._check()

    @property
    def _unit(self) -> str:
        return UNITS.get(self.kind, "three steps")

    @property
    def _hint(self) -> str:
        unit = self._unit.replace("a frame", "one real frame").replace("three steps", "three real steps")
        verb = "are" if unit.startswith("three") else "is"
        return f"{unit[:1].upper()}{unit[1:]} {verb} measured before the start: time, memory, disk."

    def _sensible(self, kind: str) -> dict[str, Any]:
        """A first potential that can be computed here."""
        from mlipkit.data import samples
        from mlipkit.runs.places import installed_universal

        universal = installed_universal()
        if kind not in ("finetune", "workflow", "ipip") or "universal:so3lr" in universal:
            return {}
        if kind == "ipip":
            return {"teacher": universal[0]} if universal else {}
        known = samples.potential_names()
        return {"potential": f"sample:{known[0]}"} if known else {}

    def _suggestions(self) -> dict[str, list[str]]:
        from mlipkit.data import samples
        from mlipkit.runs.places import installed_universal

        data = [f"sample:{name}" for name in samples.names()]
        runs = [str(path.parent) for path in sorted(self.root.glob("*/spec.yaml"))]
        weights = ("chosen.safetensors", "best.safetensors")
        trained = [place for place in runs if any((Path(place) / "checkpoints" / name).is_file() for name in weights)]
        potentials = [*(f"sample:{name}" for name in samples.potential_names()), *trained, *installed_universal()]
        labelled = [place for place in runs if (Path(place) / "labelled.extxyz").is_file()]
        makers = [*MAKERS, *potentials]
        return {
            "data": [*data, *labelled], "start": [f"{name}@0" for name in data], "potential": potentials,
            "maker": makers, "label.maker": makers, "replay": data, "shifted": data,
            "teacher": [*installed_universal(), *trained],
        }  # fmt: skip

    def _changed(self) -> None:
        """The user changed a field."""
        spec = self._check()
        self._changes += 1
        if spec is not None and spec != self._measuring.spec and self.automatic:
            mine = self._changes
            after(QUIET_S, lambda: self.measure() if mine == self._changes else None)

    def _check(self) -> AnySpec | None:
        """Show what is wrong with the fields, or what they say."""
        spec, problem = self.form.check()
        self._say(problem)
        self.start_button.disabled = spec is None or self._busy
        self.estimate_button.disabled = spec is None
        show(self.again_button, False)
        self._show_panel()
        if self._wanted is not None and spec != self._wanted[0]:
            self._forget_start("Changed meanwhile, not started.")
        if spec is None or spec != self._measuring.spec:
            self._measuring.cancel()
            self._tell(self._hint if spec is not None else "", quiet=True)
        return spec

    def _toggle_more(self) -> None:
        hidden = self.form.more.layout.display == "none"
        show(self.form.more, hidden)
        self.more_button.description = "Fewer settings" if hidden else "More settings"

    # What comes back

    def _measured(self) -> None:
        if self._closed:
            return
        found, wanted = self._measuring, self._wanted
        self._tell(found.sentence, quiet=found.estimate is None)
        if wanted is None:
            return
        if found.breaks_the_run:
            self._forget_start("Not started: the run would fail.")
            self._tell("")
            self._say(str(found.error))
            return
        self._forget_start("")
        if found.estimate is None:
            self._tell(f"{found.sentence}. Started without one.", quiet=True)
        self._launch(*wanted)

    def _forget_start(self, sentence: str) -> None:
        self._wanted = None
        self.start_button.description, self.start_button.tooltip = START_TEXT
        self.header.sentence = sentence

    def _launch(self, spec: AnySpec, again: bool) -> None:
        self._busy = self.start_button.disabled = True
        self.header.sentence = "Starting …"
        before = {path.parent.resolve() for path in self.root.glob("*/spec.yaml")}

        def started(run: object, error: BaseException | None) -> None:
            self._busy = self.start_button.disabled = False
            self.header.sentence = ""
            if error is not None:
                self._failed(error)
                return
            assert isinstance(run, Run)
            self._open(run, new=run.folder not in before)

        in_background(lambda: launch(spec, root=self.root, again=again), started)

    def _open(self, run: Run, new: bool) -> None:
        self.run = run
        cls = VIEWS[run.kind]
        if self.view is not None and type(self.view) is cls:
            self.view.watch(run)
        else:
            if self.view is not None:
                self.view.close()
            self.view = cls(run)
            self.view_box.children = [self.view]
        show(self.again_button, True)
        if not new:
            self.header.sentence = f"This run was there already and is open below: {run.name}. Run again makes a copy."
        for callback in self._callbacks:
            callback(run)

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, MlipkitError):
            self._say(f"{type(error).__name__}: {error}")
            raise error
        self._say(str(error))

    def _toggle(self, kind: str) -> None:
        self._panel_kind = "" if kind == self._panel_kind else kind
        self._show_panel()

    def _show_panel(self) -> None:
        spec, problem = self.form.check()
        text = ""
        if self._panel_kind:
            text = f"# {problem}" if spec is None else spec.code() if self._panel_kind == "code" else spec.to_yaml()
        self.panel.value = f'<pre class="mk-code">{escape(text)}</pre>' if text else ""
        show(self.panel, bool(text))

    def _say(self, problem: str) -> None:
        self.problem.value = f'<div class="mk-verdict mk-wrong" role="alert">{escape(problem)}</div>' if problem else ""
        show(self.problem, bool(problem))

    def _tell(self, text: str, quiet: bool = False) -> None:
        self.estimate_text.value = f'<span class="mk-quiet">{escape(text)}</span>' if quiet and text else escape(text)
        show(self.estimate_text, bool(text))
