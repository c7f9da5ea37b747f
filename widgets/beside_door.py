"""The button that opens a roll-out beside AIMD, for potentials that were trained through roll-outs."""

from __future__ import annotations

import ipywidgets as w

from mlipkit.runs import MDSpec, Run
from mlipkit.runs.places import run_of

from .parts import button, show


class BesideDoor:
    """A button for the toolbar of a view, and a box for what it opens.

    Attributes:
        button, box: to be placed by the view.
    """

    def __init__(self) -> None:
        self.box = w.VBox()
        self.button = button(
            "Beside AIMD", self.toggle, hidden=True,
            tip="Start a roll-out from an AIMD frame with the current weights; compare both in 3D, with the error",
        )  # fmt: skip
        self._trained: Run | None = None

    def offer(self, run: Run | None) -> None:
        """Offer the roll-outs of a training, or those of the training whose potential a simulation has."""
        found = trained_by(run) if run is not None else None
        if found != self._trained:
            self.close()
        self._trained = found
        show(self.button, found is not None)

    def toggle(self) -> None:
        """Open the view, or close it."""
        if self.box.children:
            self.close()
        elif self._trained is not None:
            from .rollout_view import RolloutView

            self.box.children = [RolloutView(self._trained)]

    def close(self) -> None:
        """Close what is open."""
        for child in self.box.children:
            child.close()
        self.box.children = []


def trained_by(run: Run) -> Run | None:
    """The dynamic training that a run is, or whose potential it simulates with, once that has weights."""
    spec = run.spec
    if isinstance(spec, MDSpec) and isinstance(spec.potential, str):
        folder = run_of(spec.potential, run.files.base)
        if folder is None:
            return None
        run = Run(folder)
    ready = run.kind == "dynamic" and (run.files.checkpoints / "best.safetensors").is_file()
    return run if ready else None
