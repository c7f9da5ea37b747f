"""Candidate frames of a workflow that waits for its user: look at them, strike out bad ones, approve the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
from ase import Atoms

from mlipkit.errors import MlipkitError
from mlipkit.strategies.workflows import approve

from .atoms_pane import AtomsPane, forces_of
from .parts import button, row, show
from .thumbnails import Thumbnails, thumbnail
from .workflow_folder import WorkflowFolder

MOST_PICTURES = 60
UNDO_STEPS = 100


@dataclass(frozen=True)
class Candidate:
    """A frame that waits: atoms with the forces of the model that sampled it where they are known."""

    uid: str
    atoms: Atoms
    time_fs: float | None = None
    density: float | None = None
    sampled_by: str = ""

    @property
    def max_force(self) -> float | None:
        """Largest force of the model that sampled it, eV/Å."""
        forces = forces_of(self.atoms)
        return None if forces is None else float(np.linalg.norm(forces, axis=1).max())

    @property
    def facts(self) -> list[str]:
        """Time, density and largest force, as far as they are known."""
        told = [] if self.time_fs is None else [f"{self.time_fs / 1000:.4g} ps"]
        told += [] if self.density is None else [f"{self.density:.3g} g/cm³"]
        told += [] if self.max_force is None else [f"max {self.max_force:.3g} eV/Å"]
        return told


class ReviewPane(w.VBox):
    """Shows the candidates of a workflow; hidden while none wait.

    Nothing is written before "Approve". The frames that were struck out are recorded with the approval, and never
    replaced by others.

    Args:
        workflow: whose candidates.
        on_approve: called when they were approved.
        viewer: "auto", "nglview" or "still".

    Attributes:
        struck: uids that are struck out at present.
    """

    def __init__(
        self, workflow: WorkflowFolder, on_approve: Callable[[], object] = lambda: None, viewer: str = "auto"
    ) -> None:
        self.workflow, self._on_approve = workflow, on_approve
        self.candidates: list[Candidate] = []
        self.struck: list[str] = []
        self._undo: list[list[str]] = []
        self._path: Path | None = None
        self._viewer, self._picked = viewer, -1
        self.head, self.text = w.HTML(), w.HTML()
        self.pictures = Thumbnails(self.pick, self.strike)
        self.holder = w.VBox()
        self.picture: AtomsPane | None = None
        self.approve_button = button("Approve", self.approve, kind="primary",
                                     tip="Label these frames; struck ones are recorded and never replaced")  # fmt: skip
        self.undo_button = button("↶ Undo", self.undo, tip="Take back the last strike")
        self.box = w.VBox([self.head, self.pictures, self.holder, row(self.approve_button, self.undo_button)])
        self.box.add_class("mlipkit-review")
        super().__init__([self.box, self.text])
        self.refresh()

    @property
    def number(self) -> str:
        """Number of the candidates on show, "" when none wait."""
        return self._path.stem if self._path is not None else ""

    def refresh(self) -> None:
        """Look whether candidates wait; the caller has refreshed the workflow."""
        waiting = self.workflow.candidates
        path = waiting[0] if waiting else None
        if path == self._path:
            show(self.box, path is not None)
            return
        approved = self._path
        self._path, self.struck, self._undo, self._picked = path, [], [], -1
        if path is None:
            self.candidates = []
            if approved is not None and not self.text.value:
                self._say(f"Candidates {approved.stem} were approved.")
        else:
            self.candidates = candidates_of(self.workflow, path)
            self._say("")
        show(self.box, path is not None)
        show(self.holder, False)
        self._draw()

    def refresh_all(self) -> None:
        """Look at the folder and what waits there."""
        self.workflow.refresh()
        self.refresh()

    def pick(self, index: int) -> None:
        """Show a frame in 3D."""
        if not 0 <= index < len(self.candidates):
            return
        if self.picture is None:
            self.picture = AtomsPane(self._viewer)
            self.holder.children = [self.picture]
        self._picked = index
        one = self.candidates[index]
        self.picture.load(one.atoms)
        largest = [c.max_force for c in self.candidates if c.max_force is not None]
        self.picture.scale_forces(np.array(largest), settled=True)
        self.picture.show(one.atoms, self._worst(one))
        told = [f"<b>uid {one.uid}</b>", *one.facts, f"sampled by {one.sampled_by}" if one.sampled_by else ""]
        self.picture.text.value = " · ".join(part for part in told if part)
        show(self.holder, True)
        self._draw()

    def strike(self, index: int) -> None:
        """Strike a frame out, or take that back."""
        if not 0 <= index < len(self.candidates):
            return
        uid = self.candidates[index].uid
        self._undo = [*self._undo, list(self.struck)][-UNDO_STEPS:]
        self.struck = [one for one in self.struck if one != uid] if uid in self.struck else [*self.struck, uid]
        self._draw()

    def undo(self) -> None:
        """Take back the last strike."""
        if self._undo:
            self.struck = self._undo.pop()
            self._draw()

    def approve(self) -> None:
        """Write the approval, and let a run that waits for it go on."""
        if self._path is None:
            return
        try:
            approve(self.workflow.folder, self.number, self.struck)
        except (MlipkitError, OSError) as error:
            self._say(str(error), wrong=True)
            return
        left, struck = len(self.candidates) - len(self.struck), len(self.struck)
        text = f"{left} frames approved" + (f", {struck} struck out and recorded" if struck else "") + "."
        run = self.workflow.run
        if run is None:
            text += " Run the workflow again: it goes on with their labels."
        elif not run.active:
            try:
                run.resume()
                text += " Their labels are being made."
            except MlipkitError as error:
                text += f" It could not go on by itself: {error}"
        self._say(text)
        self.workflow.refresh()
        self.refresh()
        self._on_approve()

    def set_dark(self, dark: bool) -> None:
        """Follow the theme of the page."""
        if self.picture is not None:
            self.picture.set_dark(dark)

    def close(self) -> None:
        if self.picture is not None:
            self.picture.scene.close()
        super().close()

    def _worst(self, one: Candidate) -> tuple[int, ...]:
        forces = forces_of(one.atoms)
        return () if forces is None else (int(np.linalg.norm(forces, axis=1).argmax()),)

    def _draw(self) -> None:
        n, gone = len(self.candidates), len(self.struck)
        left = n - gone
        self.approve_button.description = f"Approve and label {left} frame{'s' * (left != 1)}"
        self.approve_button.disabled = left == 0
        self.undo_button.disabled = not self._undo
        what = f"{gone} of {n} struck out" if gone else "click one to see it in 3D, strike out what makes no sense"
        if n and not left:
            what = "all are struck out. Keep at least one, or leave the workflow as it stands"
        self.head.value = (
            f"<b>{escape(self.workflow.name)}: {n} frames (candidates {escape(self.number)}) wait for you before they "
            f"are labelled</b> <span class='mk-quiet'>{what}</span>"
        )
        items = []
        for index, one in enumerate(self.candidates[:MOST_PICTURES]):
            out = one.uid in self.struck
            facts = "\n".join([one.uid[:8], *one.facts])
            items.append({
                "svg": thumbnail(one.atoms, self._worst(one)), "text": facts, "out": out,
                "picked": index == self._picked,
                "told": f"Frame {one.uid}, {', '.join(one.facts)}: show it in 3D",
                "action": "✖ struck out, keep it" if out else "strike out",
            })  # fmt: skip
        more = f"+ {n - MOST_PICTURES} more, which are labelled as well" if n > MOST_PICTURES else ""
        self.pictures.show(items, more)

    def _say(self, text: str, wrong: bool = False) -> None:
        look = "mk-wrong" if wrong else "mk-quiet"
        self.text.value = f'<div class="{look}" role="status">{escape(text)}</div>' if text else ""
        show(self.text, bool(text))


def candidates_of(workflow: WorkflowFolder, path: Path) -> list[Candidate]:
    """Frames of a file of candidates, with what provenance and trajectory know of them."""
    from mlipkit.data import read

    frames = read(path)
    known = {row["uid"]: row for row in workflow.rows}
    found = []
    for index in range(len(frames)):
        uid = frames.uid(index)
        row = known.get(uid, {})
        atoms = frames.atoms(index)
        atoms.calc = _forces(workflow, row, atoms)
        found.append(Candidate(uid, atoms, row.get("time_fs"), row.get("density"), row.get("sampled_by", "")))
    return found


def _forces(workflow: WorkflowFolder, row: dict[str, Any], atoms: Atoms) -> Any:
    """A calculator with the forces that the sampling model stored with a frame; None where there are none."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.trajectory import TrajectoryReader

    if not row or workflow.plan is None or row.get("time_fs") is None:
        return None
    path = workflow.folder / workflow.plan.folder(row["trajectory"]) / "trajectory.traj"
    if not path.is_file():
        return None
    with TrajectoryReader(str(path)) as trajectory:
        stored: Any = trajectory[row["row"]] if row["row"] < len(trajectory) else None
    forces = forces_of(stored) if stored is not None else None
    if forces is None or len(forces) != len(atoms):
        return None
    return SinglePointCalculator(atoms, forces=forces)
