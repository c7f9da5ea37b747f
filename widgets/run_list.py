"""Several runs as one table that keeps itself up to date: name, state, how far, what came of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import ipywidgets as w

from mlipkit.errors import MlipkitError
from mlipkit.events import Judged
from mlipkit.runs import MDSpec, Run
from mlipkit.runs.replicas import Replicas

from .header import Header
from .md_words import simulated
from .parts import button, close_all, row
from .states import chip, duration, look, sentence_case, state_of
from .ticker import Ticker

LIVE_S, IDLE_S = 0.5, 5.0


class RunList(w.VBox):
    """Table of runs.

    Args:
        runs: runs or folders of runs; or one folder, all runs in it are then shown, later ones too.
        columns: further columns, heading -> one text per run (``{"trained on": ["50 frames", "1000 frames"]}``).

    Raises:
        RunError: a folder holds no run.
    """

    def __init__(
        self,
        runs: Sequence[Run | str | os.PathLike[str]] | str | os.PathLike[str] = "runs",
        columns: dict[str, Sequence[str]] | None = None,
    ) -> None:
        self.header, self.table = Header(), w.HTML()
        self.reviews = w.VBox()
        self._reviewed: Path | None = None
        self._offered: list[Path] = []
        self._unread: list[str] = []
        self._closed = False
        self._ticker = Ticker(self._tick)
        self.review_row = row()
        super().__init__([self.header, self.table, self.review_row, self.reviews])
        self.add_class("mlipkit-view")
        self._folder = Path(runs) if isinstance(runs, str | os.PathLike) else None
        self.runs = [] if self._folder else [run if isinstance(run, Run) else Run(run) for run in runs]  # type: ignore[union-attr]
        self.columns = dict(columns or {})
        self._replicas: dict[Path, Replicas] = {}
        self.refresh()
        self._ticker.start()

    def refresh(self) -> bool:
        """Look at all runs once; True while one of them is active."""
        if self._folder is not None:
            known = {run.folder for run in self.runs}
            found = sorted(self._folder.glob("*/spec.yaml")) if self._folder.is_dir() else []
            self._unread = []
            for path in found:
                if path.parent.resolve() in known:
                    continue
                try:
                    self.runs.append(Run(path.parent))
                except MlipkitError as error:  # of a newer version, or damaged: the others are shown all the same
                    self._unread.append(f"{path.parent.name} cannot be read: {error}")
            self.runs = [run for run in self.runs if run.files.spec.is_file()]
        states = [state_of(run) for run in self.runs]
        self._offer_reviews([run for run, state in zip(self.runs, states, strict=True) if state == "review"])
        head = ["run", *self.columns, "state", "how far", "what came of it"]
        lines = [
            [
                escape(run.name),
                *(escape(str(column[i])) for column in self.columns.values()),
                chip(state),
                f"<span class='mk-far'>{far(run)}</span>",
                self._result(run),
            ]
            for i, (run, state) in enumerate(zip(self.runs, states, strict=True))
        ]
        text = "".join(f"<th scope='col'>{name}</th>" for name in head)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
        html = f"<table class='mk-table mk-runs'><thead><tr>{text}</tr></thead><tbody>{body}</tbody></table>"
        if html != self.table.value:
            self.table.value = html
        self._summarise(states)
        return any(look(state).live for state in states)

    def _result(self, run: Run) -> str:
        if not isinstance(run.spec, MDSpec) or run.spec.n_simulations == 1 or run.state == "crashed":
            return result(run)
        if run.folder not in self._replicas:
            self._replicas[run.folder] = Replicas(run)
        replicas = self._replicas[run.folder]
        replicas.refresh()
        return escape(sentence_case(replicas.sentence))

    def _offer_reviews(self, runs: list[Run]) -> None:
        """A button for each workflow that waits for its user."""
        folders = [run.folder for run in runs]
        if folders != self._offered:
            self._offered = folders
            old = list(self.review_row.children)
            self.review_row.children = [
                button(f"◆ Review {run.name}", lambda one=run: self.review(one), kind="warning",
                       tip="Look at the frames that wait to be labelled") for run in runs
            ]  # fmt: skip
            for child in old:
                close_all(child)
        for child in self.reviews.children:
            child.refresh_all()  # type: ignore[attr-defined]

    def review(self, run: Run) -> None:
        """Show the candidate frames of a workflow below the table, or hide them."""
        from .review_pane import ReviewPane
        from .workflow_folder import WorkflowFolder

        for child in self.reviews.children:
            close_all(child)
        opened = self._reviewed
        self._reviewed, self.reviews.children = None, []
        if opened == run.folder:
            return
        pane = ReviewPane(WorkflowFolder(run), self._ticker.hurry)
        pane.set_dark(self.header.dark)
        self._reviewed, self.reviews.children = run.folder, [pane]

    def _summarise(self, states: list[str]) -> None:
        live = [state for state in ("running", "review", "queued", "waiting") if state in states]
        self.header.state = live[0] if live else ("completed" if states else "empty")
        self.header.title = f"{len(states)} run{'s' if len(states) != 1 else ''}"
        self.header.detail = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        self.header.sentence = "; ".join(self._unread) or ("" if states else "No run yet.")
        ended = sum(look(state).final for state in states)
        self.header.done = round(ended / len(states), 4) if live else -1.0
        self.header.beat += 1

    def close(self) -> None:
        """End the loop and remove the table. The runs go on."""
        self._closed = True
        self._ticker.stop()
        for child in self.children:
            close_all(child)
        super().close()

    def _tick(self) -> float | None:
        if self._closed:
            return None
        live = self.refresh()
        if not live and self._folder is None:
            return None
        return LIVE_S if live else IDLE_S


def far(run: Run) -> str:
    """How far a run is, in its own unit; simulated time for MD."""
    progress = run.progress
    if progress is None:
        return ""
    if isinstance(run.spec, MDSpec) and progress.unit == "step" and progress.total:
        text = simulated(progress.done, progress.total, run.spec.timestep)
    else:
        text = f"{progress.unit} {progress.done}" + (f" of {progress.total}" if progress.total else "")
    if progress.remaining_s is not None and run.state == "running":
        text += f", {duration(progress.remaining_s)} left"
    return text


def result(run: Run) -> str:
    """The verdict of an MD run, the errors of a training, or why a run ended."""
    judged = run.last(Judged)
    if judged is not None and judged.verdict.sentence:
        return escape(judged.verdict.sentence)
    figures = run.metrics().get("validation", {}) if run.kind == "train" else {}
    if "forces_mae" in figures:
        return (
            f"validation: forces {figures['forces_mae']:.3f} eV/Å, "
            f"energy {1000 * figures.get('energy_mae', float('nan')):.1f} meV/atom (MAE)"
        )
    return escape(run.reason)
