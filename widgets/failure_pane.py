"""The simulation at which a workflow failed: its last frames in 3D, with the atom that feels most, and the reason."""

from __future__ import annotations

from html import escape

import ipywidgets as w
import numpy as np

from mlipkit.runs.frames import RunFrames

from .atoms_pane import AtomsPane, forces_of
from .frame_bar import FrameBar
from .parts import button, close_all, row, show
from .workflow_folder import WorkflowFolder

BEFORE_FAILURE = 50
"""Steps before the last one at which it opens."""
FS_PER_PS = 1000.0


class FailurePane(w.VBox):
    """Frames of the stage at which a workflow failed, from a little before the end on.

    Args:
        workflow: one for which `failed_in` names a folder.
        viewer: "auto", "nglview" or "still".

    Attributes:
        frame: number of the frame on show.
    """

    def __init__(self, workflow: WorkflowFolder, viewer: str = "auto") -> None:
        assert workflow.failed_in is not None
        self.frame = 0
        self._frames = RunFrames(workflow.failed_in)
        self._frames.refresh()
        self.picture = AtomsPane(viewer)
        self.bar = FrameBar(self.go, lambda: None)
        why = escape(f"✖ {workflow.name}: {workflow.reason}")
        self.text = w.HTML(f'<div class="mk-verdict" style="--mk-tone:#c04f00">{why}</div>')
        super().__init__([self.text, self.picture, self.bar])
        if len(self._frames):
            first = self._frames[0]
            self.picture.load(first)
            if (forces := forces_of(first)) is not None:
                self.picture.scale_forces(np.linalg.norm(forces, axis=1).max(keepdims=True), settled=True)
            self.picture.colour.value = "force"
            self.go(self._frames.at_step(self._frames.step(len(self._frames) - 1) - BEFORE_FAILURE))

    def go(self, frame: int) -> None:
        """Show a frame, counted from 0; out of range means the first or last."""
        frames = self._frames
        last = len(frames) - 1
        if last < 0:
            return
        self.frame = int(np.clip(frame, 0, last))
        atoms = frames[self.frame]
        forces, marked, told = forces_of(atoms), (), ""
        if forces is not None:
            size = np.nan_to_num(np.linalg.norm(forces, axis=1), nan=np.inf)
            atom = int(size.argmax())
            marked, told = (atom,), f" · {size[atom]:.3g} eV/Å on {atoms.symbols[atom]}{atom}"
        self.picture.show(atoms, marked)
        end = frames.step(last)
        where = f"step {frames.step(self.frame)} of {end} · {frames.time(self.frame) / FS_PER_PS:.4g} ps"
        self.bar.tell(self.frame, last, f"{where}{told}")

    def set_dark(self, dark: bool) -> None:
        """Follow the theme of the page."""
        self.picture.set_dark(dark)

    def close(self) -> None:
        self.bar.halt()
        self._frames.close()
        self.picture.scene.close()
        super().close()


class FailureDoor(w.VBox):
    """A button for each workflow that has failed in a simulation, which opens its frames around the failure.

    Args:
        viewer: "auto", "nglview" or "still".

    Attributes:
        pane: the frames on show, or None.
        shown: the workflow whose frames they are, or None.
    """

    def __init__(self, viewer: str = "auto") -> None:
        self._viewer, self._dark = viewer, False
        self.pane: FailurePane | None = None
        self.shown: WorkflowFolder | None = None
        self.buttons, self.holder = row(), w.VBox()
        self._failed: dict[str, WorkflowFolder] = {}
        super().__init__([self.buttons, self.holder])
        show(self, False)

    def tell(self, workflows: dict[str, WorkflowFolder]) -> None:
        """Offer the way to those that have failed. `workflows`: by name."""
        failed = {name: one for name, one in workflows.items() if one.failed_in is not None}
        if failed == self._failed:
            return
        self._failed = failed
        self.shut()
        old, alone = self.buttons.children, len(workflows) == 1
        self.buttons.children = [
            button("✖ Go to failure" if alone else f"✖ Go to failure of {name}", lambda one=one: self.toggle(one),
                   kind="danger", tip=f"The atoms, {BEFORE_FAILURE} steps before {name} failed")
            for name, one in failed.items()
        ]  # fmt: skip
        for made in old:
            close_all(made)
        show(self, bool(failed))

    def toggle(self, workflow: WorkflowFolder) -> None:
        """Show the frames around a failure, or close them when they are on show."""
        again = workflow is self.shown
        self.shut()
        if again or workflow.failed_in is None:
            return
        self.pane, self.shown = FailurePane(workflow, self._viewer), workflow
        self.pane.set_dark(self._dark)
        self.holder.children = [self.pane]

    def shut(self) -> None:
        """Close the frames on show."""
        self.holder.children = []
        if self.pane is not None:
            close_all(self.pane)
        self.pane = self.shown = None

    def set_dark(self, dark: bool) -> None:
        """Follow the theme of the page."""
        self._dark = dark
        if self.pane is not None:
            self.pane.set_dark(dark)
