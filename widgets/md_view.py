"""MDView: a simulation live or recorded: atoms in 3D, curves on one time axis, the verdict, the way to the failure."""

from __future__ import annotations

import os
from html import escape

import ipywidgets as w
import numpy as np
import traitlets as t
from ase import Atoms

from mlipkit.data.series import Series
from mlipkit.errors import MlipkitError
from mlipkit.events import Judged, Verdict
from mlipkit.runs import MDSpec, Run
from mlipkit.runs.frames import RunFrames
from mlipkit.runs.replicas import Replica, Replicas

from .adaptation_strip import AdaptationStrip
from .atoms_pane import AtomsPane
from .base import RunView
from .beside_door import BesideDoor
from .frame_bar import FrameBar
from .md_curves import FS_PER_PS, MDCurves
from .md_words import kelvin, place_words, simulated
from .parts import button, row, show
from .replicas_pane import ReplicasPane
from .states import FATES, duration, look

NO_FRAMES = "Atoms and curves appear with the first steps."
BEFORE_FAILURE = 50
"""Steps before the failure at which "Go to failure" begins."""
TONES: dict[str, tuple[str, str]] = {"ok": ("✓", "#007a5a"), "warning": ("▼", "#8a6100"), "failed": ("✖", "#c04f00")}


class MDView(RunView):
    """A simulation on screen, while it runs or afterwards.

    The frame on show is one number, shared by the atoms, the slider and the line in the curves: `frame` (a traitlet, so
    that other views can be linked to it). A click on a curve, the slider and the arrows all set it.

    Args:
        run: an MD run or its folder; None for an empty view.
        viewer: "auto", "nglview", or "still" for pictures without WebGL.

    Attributes:
        frame: number of the frame on show.
        marked: atoms marked in 3D, as indices.
        replica: number of the replica on show.
    """

    EMPTY = "No simulation is open yet. Start one with a Launcher, or open one: MDView('runs/NAME')."

    frame = t.Int(0)
    marked = t.Tuple()
    replica = t.Int(0)

    def __init__(self, run: Run | str | os.PathLike[str] | None = None, viewer: str = "auto") -> None:
        self._viewer = viewer
        super().__init__(run)

    # Parts

    def _build(self) -> None:
        self.picture = AtomsPane(self._viewer)
        self.curves = MDCurves(self._curve_clicked)
        self.adaptation = AdaptationStrip(self._curve_clicked)
        self.bar = FrameBar(self.go, self.follow)
        self.replicas: Replicas | None = None
        self.overview = ReplicasPane()
        t.link((self, "replica"), (self.overview.list, "picked"))
        self.failure_button = button(
            "✖ Go to failure", self.go_to_failure, kind="danger", hidden=True,
            tip=f"The offending atoms, {BEFORE_FAILURE} steps before the failure",
        )  # fmt: skip
        self.verdict, self.empty = w.HTML(), w.HTML()
        self.panes = row(self.picture, self.curves, kind="mlipkit-panes")
        self.door = BesideDoor()
        self.toolbar.children = (*self.toolbar.children, self.failure_button, self.door.button)
        parts = [self.empty, self.overview, self.verdict, self.panes, self.bar, self.adaptation, self.door.box]
        self.body.children = parts
        self._frames: RunFrames | None = None
        self._moving = False

    def beside(self, pane: w.Widget) -> None:
        """Put a pane to the right of the atoms; curves go below both over the whole width, the replicas last."""
        self.panes.children = [self.picture, pane]
        self.curves.layout.flex, self.curves.plot.height = "0 0 auto", 380
        strips = [self.curves, self.bar, self.adaptation, self.door.box]
        self.body.children = [self.empty, self.verdict, self.panes, *strips, self.overview]
        self._show_panes(self._loaded or self.curves.rows > 0)

    def _reset(self) -> None:
        if self._frames is not None:
            self._frames.close()
        self.replicas = Replicas(self.run) if self.run is not None and isinstance(self.run.spec, MDSpec) else None
        self.overview.reset()
        self._moving = True
        self.replica = 0
        self._moving = False
        show(self.overview, self._several)
        self.door.offer(self.run)
        self._start_over()

    @property
    def _several(self) -> bool:
        return self.replicas is not None and len(self.replicas) > 1

    @property
    def _one(self) -> Replica | None:
        """The simulation on show."""
        if self.replicas is None:
            return None
        return self.replicas[min(self.replica, len(self.replicas) - 1)]

    def _start_over(self) -> None:
        """Everything that belongs to one replica."""
        self.bar.halt()
        one = self._one
        self._place = one.folder if one is not None else self.run.folder if self.run is not None else None
        self._frames = RunFrames(self._place) if self._place is not None else None
        self._loaded = False
        self._following = True
        self._seen = 0
        self._verdict: Verdict | None = None
        self._moving = True
        self.marked, self.frame = (), 0
        self._moving = False
        self.bar.tell(0, 0, "")
        self.picture.reset()
        self.curves.reset(self._target())
        spec = self.run.spec if self.run is not None else None
        self.adaptation.reset(getattr(spec, "adaptation", None), getattr(spec, "timestep", 1.0))
        self.verdict.value = ""
        self.empty.value = f'<div class="mk-empty">{escape(self.EMPTY if self.run is None else NO_FRAMES)}</div>'
        self._show_panes(False)
        show(self.verdict, False)
        show(self.failure_button, False)

    def _target(self) -> float | None:
        """Target temperature of the simulation on show, K."""
        if self.run is None or self._one is None:
            return None
        if "temperature" not in self.run.changes:
            return self._one.temperature
        # A run may be made hotter while it goes on.
        return float(self.run.current_spec.table()[self._one.index]["temperature"])  # type: ignore[union-attr]

    def _show_panes(self, there: bool) -> None:
        show(self.empty, not there)
        for part in (self.panes, self.curves, self.bar):
            show(part, there)

    # What the user does

    def go(self, frame: int) -> None:
        """Show a frame, counted from 0; out of range means the first or last."""
        self._following = False
        self._show_frame(frame)
        self._offer_live()

    def follow(self) -> None:
        """Show the newest frame, and each newer one as it comes."""
        self.bar.halt()
        self._following = True
        if self._frames is not None:
            self._show_frame(len(self._frames) - 1)
        self._offer_live()

    def play(self) -> None:
        """Play from the frame on show, or halt."""
        self.bar.play()

    def go_to_failure(self) -> None:
        """Show the offending atoms 50 steps before the failure, or as early as steps were kept.

        Of several simulations the one on show when it has failed, else the one that failed first.
        """
        one, first = self._one, self.replicas.first_failed if self.replicas is not None else None
        if first is not None and one is not None and not one.failed:
            self.replica = first.index
        verdict, frames = self._verdict, self._frames
        if verdict is None or verdict.outcome != "failed" or frames is None:
            return
        frames.refresh()
        if not len(frames):
            return
        self.bar.halt()
        self.marked = tuple(int(atom) for atom in verdict.atoms)
        self.picture.colour.value = "force"
        self.go(frames.at_step(verdict.step - BEFORE_FAILURE))

    @property
    def atoms(self) -> Atoms | None:
        """The frame on show, with its energy and forces; None when there is none."""
        if self._frames is None or not len(self._frames):
            return None
        return self._frames[min(self.frame, len(self._frames) - 1)]

    # What comes from the run

    def _update(self, run: Run, state: str) -> None:
        if self.replicas is not None and self._several:
            changed = self.replicas.refresh()
            self.overview.update(self.replicas, changed, self.replicas.end)
        if self._place is not None and (self._place / "series" / "md").is_dir():
            try:
                series = Series(self._place / "series" / "md")
                if self.curves.update(series):
                    largest = series.overview(["max_force"], max_points=200)["max_force"][1]
                    self.picture.scale_forces(largest, settled=not look(state).live)
                if (self._place / "series" / "adaptation").is_dir():
                    self.adaptation.update(Series(self._place / "series" / "adaptation"))
            except MlipkitError:
                pass  # its header is being written at this moment
        for entry in run.entries(self._seen):
            self._seen = entry.seq
            if isinstance(entry.event, Judged) and entry.event.verdict.replica == self.replica:
                self._judged(entry.event.verdict)
        if self._several and self._one is not None and (self._verdict is None or not self._verdict.sentence):
            self._tell(*FATES[self._one.fate])
        if self._frames is not None and self._frames.refresh():
            self._frames_changed(self._frames)
        self._show_panes(self._loaded or self.curves.rows > 0)
        failed = self._verdict is not None and self._verdict.outcome == "failed"
        show(
            self.failure_button, failed or (self._several and self.replicas is not None and self.replicas.n_failed > 0)
        )
        self._offer_live()

    def _frames_changed(self, frames: RunFrames) -> None:
        if not len(frames):
            return
        if not self._loaded:
            self.picture.load(frames[0])
            self._loaded = True
        self._show_frame(len(frames) - 1 if self._following else self.frame)

    def _judged(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._tell(*TONES[verdict.outcome], verdict.sentence)
        self.curves.mark(verdict)

    def _tell(self, icon: str, tone: str, sentence: str) -> None:
        """What the checks say of the simulation on show; of several also which one it is."""
        if self._several and self._one is not None:
            sentence = f"Number {self._one.index}, {self._one.temperature:g} K: {sentence}"
        text = f'<div class="mk-verdict" role="status" style="--mk-tone:{tone}">{icon} {escape(sentence)}</div>'
        if self.verdict.value != text:
            self.verdict.value = text
        show(self.verdict, bool(sentence))

    def _progress(self, run: Run) -> str:
        progress, spec = run.progress, run.current_spec
        if progress is None or not progress.total:
            return super()._progress(run)
        text = simulated(progress.done, progress.total, float(getattr(spec, "timestep", 1.0)))
        if progress.remaining_s is not None and self._state == "running":
            text += f" · {duration(progress.remaining_s)} left"
        return text

    def _sentence(self, run: Run, state: str) -> str:
        spec, several = run.current_spec, self.replicas if self._several else None
        if not isinstance(spec, MDSpec) or state not in ("failed", "completed", "running"):
            return super()._sentence(run, state)
        if state == "running":
            warmth = f"{kelvin(spec.temperature)}, {spec.timestep:g} fs steps"
            facts = [place_words(spec.potential), spec.ensemble, warmth]
            if several is not None:
                facts.insert(0, several.sentence)
            return " · ".join(fact for fact in facts if fact)
        if several is None:
            if state == "failed":
                return "Next: Go to failure, and see which atoms left the training space."
            return f"Stable to the end at {kelvin(spec.temperature)}. Next: raise the temperature, or run longer."
        if state == "completed":
            warmth = kelvin(spec.temperature)
            return f"All {len(several)} held to the end at {warmth}. Next: raise the temperature, or run longer."
        return f"{several.sentence}. Next: Go to failure, or pick one below."

    # Drawing

    def _show_frame(self, frame: int) -> None:
        frames = self._frames
        if frames is None or not len(frames):
            return
        last = len(frames) - 1
        frame = int(np.clip(frame, 0, last))
        self.picture.show(frames[frame], tuple(self.marked))
        self._moving = True
        self.frame = frame
        self._moving = False
        self.curves.point_at(frames.time(frame))
        self.adaptation.point_at(frames.time(frame))
        text = f"{frame} of {last} · <b>{frames.time(frame) / FS_PER_PS:.4f} ps</b> · step {frames.step(frame)}"
        if frames.first_last_step <= frame and self._verdict is not None and self._verdict.outcome == "failed":
            left = self._verdict.step - frames.step(frame)
            text += f" · {left} steps before failure" if left > 0 else " · failure"
        self.bar.tell(frame, last, text)

    @t.observe("frame")
    def _frame_set(self, change: dict) -> None:
        if self._frames is not None and not self._moving and self.bar.frame != change["new"]:
            self.go(change["new"])

    @t.observe("replica")
    def _replica_set(self, _change: dict) -> None:
        if self.run is not None and not self._moving:
            if self._frames is not None:
                self._frames.close()
            self._start_over()
            self.refresh()

    @t.observe("marked")
    def _marked_set(self, _change: dict) -> None:
        if self._loaded and not self._moving:
            self._show_frame(self.frame)

    def _curve_clicked(self, time_ps: float) -> None:
        if self._frames is not None and len(self._frames):
            self.go(self._frames.at_time(time_ps * FS_PER_PS))

    def _offer_live(self) -> None:
        self.bar.offer_live(not self._following and look(self._state).live)

    def _set_dark(self, dark: bool) -> None:
        self.picture.set_dark(dark)

    def close(self) -> None:
        """End the loop and remove the view with all its parts. The run goes on."""
        if self._closed:
            return
        self.bar.halt()
        if self._frames is not None:
            self._frames.close()
        self.picture.scene.close()
        super().close()
