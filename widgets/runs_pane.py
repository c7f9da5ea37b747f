"""The runs of a folder: open one, start a new one, once more, throw one away and bring it back, compare two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as w

from mlipkit.errors import MlipkitError
from mlipkit.runs import MDSpec, Run, delete, duplicate, restore
from mlipkit.runs.family import trashed

from .parts import button, row, show
from .run_tree import RunTree
from .runs_data import RunsData
from .states import look
from .ticker import in_background

NONE = "compare with …"


class RunsPane(w.VBox):
    """List of runs and what can be done with the one that is open.

    Args:
        data: the runs.
        on_open: called with a run that shall be shown, or None for none.
        on_new: called when a new run is wanted.
        on_compare: called with two simulations, the earlier first.
        say: called with one line on what went wrong, or "".
    """

    def __init__(
        self,
        data: RunsData,
        on_open: Callable[[Run | None], None],
        on_new: Callable[[], None],
        on_compare: Callable[[Run, Run], None],
        say: Callable[[str], None],
    ) -> None:
        self.data, self._on_open, self._on_compare, self._say = data, on_open, on_compare, say
        self._opened: Run | None = None
        self._busy = False
        self._known: tuple[object, ...] = ()
        self.tree = RunTree(self._picked)
        self.title = w.HTML()
        self.new_button = button("+ New run", on_new, tip="A form for a run of any kind")
        self.again_button = button("Duplicate", self.duplicate, tip="Start the open run once more, beside it")
        self.delete_button = button(
            "Delete", self.delete, tip="Move the open run out of the way; it can be brought back"
        )
        self.undo_button = button("↶ Undo delete", self.undo, tip="Bring back what was deleted last", hidden=True)
        self.other = w.Dropdown(options=[NONE], value=NONE, layout={"width": "auto"})
        self.other.tooltip = "Compare the survival of the open simulation with that of another one"
        self.other.observe(self._compared, "value")
        self.actions = row(self.again_button, self.delete_button, self.undo_button)
        super().__init__([self.title, self.tree, row(self.new_button), self.actions, self.other])
        self.add_class("mlipkit-pane-runs")
        self.update(None)

    def update(self, opened: Run | None) -> None:
        """Bring the list up to the data. `opened`: the run on show."""
        self._opened = opened
        self.tree.show(self.data.lines, opened.name if opened is not None else "")
        known = (self.data.revision, opened, self._busy, len(trashed(self.data.root)))
        if known == self._known:
            return
        self._known = known
        n = len(self.data.lines)
        self._put(self.title, f"<b>RUNS</b> <span class='mk-quiet'>{n or 'none yet'}</span>")
        state = self.data.states.get(opened.folder, "") if opened is not None else ""
        for made in (self.again_button, self.delete_button):
            show(made, opened is not None)
            made.disabled = self._busy
        if not look(state).final:
            self.delete_button.disabled = True
        show(self.undo_button, known[-1] > 0)
        self.undo_button.disabled = self._busy
        self._offer(opened)

    def duplicate(self) -> None:
        """Launch the open run once more and open the copy."""
        run = self._opened
        if run is not None:
            self._work(lambda: duplicate(run), self._on_open)

    def delete(self) -> None:
        """Move the open run into the trash; the one launched before it is opened."""
        run = self._opened
        if run is None or self._busy:
            return
        others = [other for other in self.data.runs if other != run]
        self._work(lambda: delete(run), lambda _place: self._on_open(others[-1] if others else None))

    def undo(self) -> None:
        """Bring back what was deleted last, and open it."""
        places = trashed(self.data.root)
        if places:
            self._work(lambda: restore(places[0]), self._on_open)

    def compare(self, other: Run) -> None:
        """Compare the open simulation with another one."""
        run = self._opened
        if run is not None:
            order = [one.folder for one in self.data.runs]
            first, second = sorted((run, other), key=lambda one: order.index(one.folder))
            self._on_compare(first, second)

    def _work(self, work: Callable[[], object], done: Callable[..., object]) -> None:
        """Do something with run folders beside the notebook; nothing else begins meanwhile."""
        if self._busy:
            return
        self._busy = True
        self._say("")
        self.update(self._opened)

        def finished(result: object, error: BaseException | None) -> None:
            self._busy = False
            if error is None:
                self.data.refresh()
                done(result)
            else:
                self._say(
                    str(error) if isinstance(error, (MlipkitError, OSError)) else f"{type(error).__name__}: {error}"
                )
            self.update(self._opened)

        in_background(work, finished)

    def _offer(self, opened: Run | None) -> None:
        """Other simulations that the open one can be compared with."""
        names = []
        if opened is not None and isinstance(opened.spec, MDSpec):
            names = [run.name for run in self.data.runs if isinstance(run.spec, MDSpec) and run != opened]
        show(self.other, bool(names))
        if list(self.other.options) != [NONE, *names]:
            self.other.options = [NONE, *names]
            self.other.value = NONE

    def _compared(self, change: dict) -> None:
        other = self.data.named(str(change["new"])) if change["new"] != NONE else None
        if other is not None:
            self.other.value = NONE
            self.compare(other)

    def _picked(self, name: str) -> None:
        run = self.data.named(name)
        if run is not None:
            self._on_open(run)
        elif why := self.data.unread.get(self.data.root.resolve() / name):
            self._say(f"{name} cannot be read: {why}")

    @staticmethod
    def _put(widget: w.HTML, text: str) -> None:
        if widget.value != text:
            widget.value = text


def root_of(root: str | Path) -> Path:
    """The folder of runs as an absolute path: a notebook may change its folder later."""
    return Path(root).expanduser().resolve()
