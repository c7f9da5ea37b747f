"""What comes after a selection: label its frames, and fine-tune a potential on them beside the old training set."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets as w

from mlipkit.data import Selection, samples
from mlipkit.errors import MlipkitError
from mlipkit.runs import FinetuneSpec, LabelSpec, Run, launch
from mlipkit.runs.loop import trained_on
from mlipkit.runs.places import installed_universal, short_place

from .base import RunView
from .label_view import LabelView
from .parts import button, close_all, row, show
from .ticker import in_background
from .training_monitor import TrainingMonitor

MAKERS = ("gfn1-xtb", "gfn2-xtb", "pyscf")
Exported = Callable[[Path | None], None]


class TrayActions(w.VBox):
    """Two buttons below a tray, and the run that was started last.

    Args:
        export: writes the selected frames and calls back with the file, or with None when it could not.
        training: places of the sets that the old training set is made of.
        name: tag of the selection.
        root: folder in which runs are kept.

    Attributes:
        labelling, tuning: the runs that were started, or None.
        code: Python that does the same.
    """

    def __init__(
        self, export: Callable[[Exported], None], training: Callable[[], list[str]], name: Callable[[], str],
        root: str | Path = "runs",
    ) -> None:  # fmt: skip
        self._export, self._training, self._name, self.root = export, training, name, Path(root)
        self.labelling: Run | None = None
        self.tuning: Run | None = None
        self._lines: dict[str, str] = {}
        self._there = self._busy = False
        self._view: RunView | None = None
        self.maker = w.Combobox(options=[*MAKERS, *_potentials(self.root)], value=MAKERS[0], ensure_option=False,
                                description="label with", layout={"width": "260px"})  # fmt: skip
        potentials = _potentials(self.root)
        self.potential = w.Combobox(
            options=potentials, value=potentials[0] if potentials else "", ensure_option=False,
            description="fine-tune", layout={"width": "300px"},
        )  # fmt: skip
        self.label_button = button(
            "Label", self.label, kind="primary", tip="Label the selected frames in their own run"
        )
        self.train_button = button(
            "Train", self.train, tip="Fine-tune this potential on the labelled frames and the old training set"
        )
        self.text, self.view_box = w.HTML(), w.VBox()
        self.row = row(self.maker, self.label_button, self.potential, self.train_button)
        super().__init__([self.row, self.text, self.view_box])
        self.update(Selection())

    @property
    def code(self) -> str:
        """Python of what was started here, or would be."""
        if not self._lines:
            return ""
        return "\n".join(["", "# label and train", *self._lines.values()])

    def update(self, selection: Selection) -> None:
        """Follow the selection: its size stands on the button."""
        n = len(selection)
        self._there = n > 0
        self.label_button.description = f"Label {n} frame{'s' * (n != 1)}" if n else "Label"
        self._enable()

    def label(self) -> None:
        """Export the selection and start a labelling run on it."""
        if self._busy or not self._there:
            return
        self._wait("Writing the frames …")
        self._export(self._label)

    def _label(self, path: Path | None) -> None:
        if path is None:
            self._done("")
            return
        try:
            spec = LabelSpec(data=short_place(path), maker=self.maker.value.strip(), name=f"label_{path.stem}")
        except MlipkitError as error:
            self._done(str(error), wrong=True)
            return
        self._lines["label"] = f"labelling = mk.launch({_call(spec)})"
        self._start(spec, "labelling", LabelView)

    def train(self) -> None:
        """Fine-tune on what was labelled here (or was selected with labels) together with the old training set."""
        if self._busy:
            return
        if self.labelling is not None:
            self._train(short_place(self.labelling.folder))
        elif self._there:
            self._wait("Writing the frames …")
            self._export(lambda path: self._done("") if path is None else self._train(short_place(path)))

    def _train(self, place: str) -> None:
        name, potential = self._name(), self.potential.value.strip()
        try:
            old = [one for one in (trained_on(potential) or self._training()) if one != place]
            spec = FinetuneSpec(potential=potential, data=[*old, place], name=f"finetune_{name}")
        except MlipkitError as error:
            self._done(str(error), wrong=True)
            return
        self._lines["train"] = f"tuning = mk.launch({_call(spec)})"
        self._start(spec, "tuning", TrainingMonitor)

    def _start(self, spec: LabelSpec | FinetuneSpec, kind: str, view: type[RunView]) -> None:
        self._wait("Starting …")

        def started(run: object, error: BaseException | None) -> None:
            if error is not None:
                self._done(str(error), wrong=True)
                return
            assert isinstance(run, Run)
            setattr(self, kind, run)
            self._done("")
            if self._view is not None and type(self._view) is view:
                self._view.watch(run)
                return
            if self._view is not None:
                self._view.close()
            self._view = view(run)
            self.view_box.children = [self._view]

        in_background(lambda: launch(spec, root=self.root), started)

    def close(self) -> None:
        if self._view is not None:
            self._view.close()
        for child in self.children:
            close_all(child)
        super().close()

    def _wait(self, text: str) -> None:
        self._busy = True
        self._say(text)
        self._enable()

    def _done(self, text: str, wrong: bool = False) -> None:
        self._busy = False
        self._say(text, wrong)
        self._enable()

    def _enable(self) -> None:
        self.label_button.disabled = self._busy or not self._there
        self.train_button.disabled = self._busy or not (self._there or self.labelling is not None)
        show(self.row, self._there or self.labelling is not None)

    def _say(self, text: str, wrong: bool = False) -> None:
        look = "mk-wrong" if wrong else "mk-quiet"
        self.text.value = f'<div class="{look}" role="status">{escape(text)}</div>' if text else ""
        show(self.text, bool(text))


def _potentials(root: Path) -> list[str]:
    runs = [path.parent for path in sorted(root.glob("*/spec.yaml"))]
    trained = [str(one) for one in runs if (one / "checkpoints" / "best.safetensors").is_file()]
    return [*trained, *(f"sample:{name}" for name in samples.potential_names()), *installed_universal()]


def _call(spec: LabelSpec | FinetuneSpec) -> str:
    """``mk.LabelSpec(...)`` of a specification."""
    return spec.code().split("mk.launch(", 1)[1].rsplit(")\nrun.wait", 1)[0]
