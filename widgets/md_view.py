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
from mlipkit.plots import runs as plots
from mlipkit.runs import Run

from . import drawing
from .base import RunView, button, close_all, row, show
from .curves import CurveFeed
from .frames import RunFrames, replica_folder
from .plot import Plot
from .scene import Picture, make_scene
from .states import duration, look
from .ticker import Ticker

FS_PER_PS = 1000.0
NO_FRAMES = "Atoms and curves appear with the first steps."
BEFORE_FAILURE = 50
"""Steps before the failure at which "Go to failure" begins."""
PLAY_S = 0.125
TONES = {"ok": ("✓", "#007a5a"), "warning": ("▼", "#8a6100"), "failed": ("✖", "#c04f00")}


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
        self.scene = make_scene(self._viewer)
        self.scene.widget.add_class("mlipkit-scene")
        self.colour = w.Dropdown(
            options=[("element", "element"), ("force", "force")], value="element", description="colour by",
            layout={"width": "190px"},
        )  # fmt: skip
        self.replicas = w.Dropdown(options=[("0", 0)], description="replica", layout={"width": "160px"})
        t.link((self, "replica"), (self.replicas, "value"))
        self.colour_bar = w.HTML()
        self.atom_text = w.HTML()
        self.plot = Plot(
            self._figure(), height=420, on_click=self._curve_clicked,
            label="Temperature, energy change and largest force over simulated time",
        )  # fmt: skip
        self.slider = w.IntSlider(
            description="frame", min=0, max=1, readout=False, layout={"flex": "1 1 260px", "width": "auto"}
        )
        self.frame_text = w.HTML()
        self.back_button = button("◀", lambda: self.go(self.frame - 1), tip="One frame back")
        self.play_button = button("▶", self.play, tip="Play or halt")
        self.next_button = button("▶|", lambda: self.go(self.frame + 1), tip="One frame on")
        self.live_button = button("● Live", self.follow, tip="Follow the newest frame", hidden=True)
        self.failure_button = button(
            "✖ Go to failure", self.go_to_failure, kind="danger", hidden=True,
            tip=f"The offending atoms, {BEFORE_FAILURE} steps before the failure",
        )  # fmt: skip
        for made in (self.back_button, self.play_button, self.next_button):
            made.add_class("mlipkit-icon-button")
        self.verdict = w.HTML()
        self.empty = w.HTML(f'<div class="mk-empty">{escape(self.EMPTY)}</div>')
        self.left = w.VBox([self.scene.widget, row(self.replicas, self.colour, self.colour_bar), self.atom_text])
        self.left.add_class("mlipkit-pane-3d")
        self.right = w.VBox([self.plot])
        self.right.add_class("mlipkit-pane-curves")
        self.panes = row(self.left, self.right, kind="mlipkit-panes")
        self.frame_row = row(
            self.back_button, self.play_button, self.next_button, self.slider, self.frame_text, self.live_button,
        )  # fmt: skip
        self.toolbar.children = (*self.toolbar.children, self.failure_button)
        self.body.children = [self.empty, self.verdict, self.panes, self.frame_row]
        self.slider.observe(self._slider_moved, "value")
        self.colour.observe(lambda _change: self._colour_changed(), "value")
        if self.scene.widget.has_trait("picked"):
            self.scene.widget.observe(self._picked, "picked")
        self._player = Ticker(self._play_tick)
        self._frames: RunFrames | None = None
        self._moving = False

    def _figure(self, marks: list[plots.Mark] | None = None):
        # One figure for all simulations: temperature, total and potential energy, largest force.
        target = getattr(self.run.current_spec, "temperature", None) if self.run is not None else None
        figure = plots.md_curves(
            [], temperature=[], energies={name: [] for name in ENERGIES.values()}, max_force=[],
            target_temperature=target, marks=marks or [],
        )  # fmt: skip
        # plotly crowds a logarithmic axis of less than a decade.
        return figure.update_yaxes(nticks=3, selector={"type": "log"})

    def _reset(self) -> None:
        if self._frames is not None:
            self._frames.close()
        self._player.stop()
        count = getattr(self.run.spec, "replicas", 1) if self.run is not None else 1
        self.replicas.options = [(str(number), number) for number in range(count)]
        show(self.replicas, count > 1)
        self._start_over()

    def _start_over(self) -> None:
        """Everything that belongs to one replica."""
        self._place = replica_folder(self.run, self.replica) if self.run is not None else None
        self._frames = RunFrames(self._place) if self._place is not None else None
        self._loaded = False
        self._following = True
        self._marks: list[plots.Mark] = []
        self._seen = 0
        self._verdict: Verdict | None = None
        self._force_top = 1.0
        self._moving = True
        self.marked, self.frame, self.slider.value = (), 0, 0
        self._moving = False
        self.verdict.value = self.frame_text.value = self.atom_text.value = ""
        self._feed = CurveFeed(
            self.plot, {name: number for number, name in enumerate(("temperature", *ENERGIES, "max_force"))},
            "time_fs", x_scale=1 / FS_PER_PS, from_first=tuple(ENERGIES),
        )  # fmt: skip
        self.plot.show(self._figure())
        self.plot.cursor = None
        self.empty.value = f'<div class="mk-empty">{escape(self.EMPTY if self.run is None else NO_FRAMES)}</div>'
        self._show_panes(False)
        show(self.verdict, False)
        show(self.failure_button, False)

    def _show_panes(self, there: bool) -> None:
        show(self.empty, not there)
        for part in (self.panes, self.frame_row):
            show(part, there)

    # What the user does

    def go(self, frame: int) -> None:
        """Show a frame, counted from 0; out of range means the first or last."""
        self._following = False
        self._show_frame(frame)
        self._follow_button()

    def follow(self) -> None:
        """Show the newest frame, and each newer one as it comes."""
        self._player.stop()
        self._following = True
        if self._frames is not None:
            self._show_frame(len(self._frames) - 1)
        self._follow_button()

    def play(self) -> None:
        """Play from the frame on show, or halt."""
        if self._player.running:
            self._player.stop()
            self.play_button.description = "▶"
            return
        if self._frames is not None and self.frame >= len(self._frames) - 1:
            self.go(0)
        self._following = False
        self.play_button.description = "‖"
        self._player.start()

    def go_to_failure(self) -> None:
        """Show the offending atoms 50 steps before the failure, or as early as steps were kept."""
        verdict, frames = self._verdict, self._frames
        if verdict is None or verdict.outcome != "failed" or frames is None:
            return
        frames.refresh()
        if not len(frames):
            return
        self._player.stop()
        self.marked = tuple(int(atom) for atom in verdict.atoms)
        target = frames.at_step(verdict.step - BEFORE_FAILURE)
        self.colour.value = "force"
        self.go(target)

    @property
    def atoms(self) -> Atoms | None:
        """The frame on show, with its energy and forces; None when there is none."""
        if self._frames is None or not len(self._frames):
            return None
        return self._frames[min(self.frame, len(self._frames) - 1)]

    # What comes from the run

    def _update(self, run: Run, state: str) -> None:
        if self._place is not None and (self._place / "series" / "md").is_dir():
            try:
                series = Series(self._place / "series" / "md")
                if self._feed.update(series):
                    self._set_force_top(series)
            except MlipkitError:
                pass  # its header is being written at this moment
        for entry in run.entries(self._seen):
            self._seen = entry.seq
            if isinstance(entry.event, Judged) and entry.event.verdict.replica == self.replica:
                self._judged(entry.event)
        if self._frames is not None and self._frames.refresh():
            self._frames_changed()
        self._show_panes(self._loaded or self._feed.rows > 0)
        show(self.failure_button, self._verdict is not None and self._verdict.outcome == "failed")
        self._follow_button()

    def _frames_changed(self) -> None:
        frames = self._frames
        assert frames is not None
        if not len(frames):
            return
        if not self._loaded:
            first = frames[0]
            self._first = first.positions
            self.scene.load(first)
            self._loaded = True
        self._moving = True
        self.slider.max = max(len(frames) - 1, 1)
        self._moving = False
        self._show_frame(len(frames) - 1 if self._following else self.frame)

    def _judged(self, event: Judged) -> None:
        verdict = event.verdict
        self._verdict = verdict
        icon, tone = TONES[verdict.outcome]
        self.verdict.value = (
            f'<div class="mk-verdict" role="status" style="--mk-tone:{tone}">{icon} {escape(verdict.sentence)}</div>'
        )
        show(self.verdict, bool(verdict.sentence))
        kinds = {mark.kind for mark in self._marks}
        if verdict.outcome == "warning" and "warning" not in kinds:
            self._marks.append(plots.Mark(verdict.time / FS_PER_PS, "warning", verdict.sentence))
        elif verdict.outcome == "failed" and "failure" not in kinds:
            self._marks.append(plots.Mark(verdict.time / FS_PER_PS, "failure", verdict.sentence))
            if verdict.first_warning is not None and "warning" not in kinds and verdict.step:
                time = verdict.time * verdict.first_warning / verdict.step
                self._marks.append(plots.Mark(time / FS_PER_PS, "warning", "first warning"))
        layout = self._figure(self._marks).to_plotly_json()["layout"]
        self.plot.relayout(shapes=layout.get("shapes", []), annotations=layout.get("annotations", []))

    def _progress(self, run: Run) -> str:
        progress, spec = run.progress, run.current_spec
        if progress is None or not progress.total:
            return super()._progress(run)
        text = simulated(progress.done, progress.total, float(getattr(spec, "timestep", 1.0)))
        if progress.remaining_s is not None and self._state == "running":
            text += f" · {duration(progress.remaining_s)} left"
        return text

    def _sentence(self, run: Run, state: str) -> str:
        if state == "failed":
            return "Next: Go to failure, and see which atoms left what the potential has learnt."
        if state == "completed":
            spec = run.current_spec
            return f"Stable to the end at {getattr(spec, 'temperature', 0):g} K. Next: go hotter, or run longer."
        if state == "running":
            spec = run.current_spec
            facts = [str(getattr(spec, "potential", "")), str(getattr(spec, "ensemble", ""))]
            facts.append(f"{getattr(spec, 'temperature', 0):g} K, {getattr(spec, 'timestep', 0):g} fs steps")
            return " · ".join(fact for fact in facts if fact)
        return super()._sentence(run, state)

    # Drawing

    def _show_frame(self, frame: int) -> None:
        frames = self._frames
        if frames is None or not len(frames):
            return
        frame = int(np.clip(frame, 0, len(frames) - 1))
        atoms = frames[frame]
        forces = _forces(atoms)
        by_force = self.colour.value == "force" and forces is not None
        values = np.linalg.norm(forces, axis=1) if by_force and forces is not None else None
        positions = atoms.positions
        if not atoms.pbc.any():
            # A free molecule wanders off; the median keeps the rest in view when single atoms fly away.
            positions = positions - np.nan_to_num(np.nanmedian(positions - self._first, axis=0))
        self.scene.show(Picture(positions, values, (0.0, self._force_top), tuple(self.marked)))
        self._moving = True
        self.slider.value = self.frame = frame
        self._moving = False
        time = frames.time(frame) / FS_PER_PS
        self.plot.cursor = time
        text = f"{frame} of {len(frames) - 1} · <b>{time:.4f} ps</b> · step {frames.step(frame)}"
        if frames.first_last_step <= frame and self._verdict is not None and self._verdict.outcome == "failed":
            left = self._verdict.step - frames.step(frame)
            text += f" · {left} steps before failure" if left > 0 else " · failure"
        if self.frame_text.value != text:
            self.frame_text.value = text

    @t.observe("frame")
    def _frame_set(self, change: dict) -> None:
        if self._frames is not None and not self._moving and self.slider.value != change["new"]:
            self.go(change["new"])

    @t.observe("replica")
    def _replica_set(self, _change: dict) -> None:
        if self.run is not None:
            if self._frames is not None:
                self._frames.close()
            self._start_over()
            self.refresh()

    @t.observe("marked")
    def _marked_set(self, _change: dict) -> None:
        if self._frames is not None and self._loaded:
            self._show_frame(self.frame)

    def _slider_moved(self, change: dict) -> None:
        if not self._moving:
            self.go(change["new"])

    def _curve_clicked(self, x: float, _y: float, _trace: int) -> None:
        if self._frames is not None and len(self._frames):
            self.go(self._frames.at_time(x * FS_PER_PS))

    def _play_tick(self) -> float | None:
        if self._closed or self._frames is None or self.frame >= len(self._frames) - 1:
            self.play_button.description = "▶"
            return None
        self._show_frame(self.frame + 1)
        return PLAY_S

    def _follow_button(self) -> None:
        show(self.live_button, not self._following and look(self._state).live)

    def _colour_changed(self) -> None:
        self._draw_colour_bar()
        self._show_frame(self.frame)

    def _set_force_top(self, series) -> None:
        """End of the force scale: a little above the usual largest force, so that a failure stands out."""
        values = series.overview(["max_force"], max_points=200)["max_force"][1]
        values = values[np.isfinite(values)]
        if len(values):
            top = _round_up(1.2 * float(np.median(values)))
            # Only in whole jumps: colours that drift say nothing.
            if top > self._force_top or self._force_top > 2 * top or not look(self._state).live:
                self._force_top = top
                self._draw_colour_bar()

    def _draw_colour_bar(self) -> None:
        text = ""
        if self.colour.value == "force":
            text = (
                f'<span class="mk-colourbar">0<i style="background:{drawing.gradient()}"></i>'
                f"≥ {self._force_top:g} eV/Å</span>"
            )
        self.colour_bar.value = text

    def _picked(self, change: dict) -> None:
        atom = (change["new"] or {}).get("atom1")
        atoms = self.atoms
        if not atom or atoms is None or not 0 <= int(atom.get("index", -1)) < len(atoms):
            return
        index = int(atom["index"])
        forces = _forces(atoms)
        force = f" · force {np.linalg.norm(forces[index]):.2f} eV/Å" if forces is not None else ""
        self.atom_text.value = f"<b>{atoms.symbols[index]} {index}</b>{force}"

    def _set_dark(self, dark: bool) -> None:
        self.scene.set_dark(dark)

    def close(self) -> None:
        """End the loop and remove the view with all its parts. The run goes on."""
        if self._closed:
            return
        self._player.stop()
        if self._frames is not None:
            self._frames.close()
        self.scene.close()
        close_all(self.plot)
        super().close()


ENERGIES = {"potential_energy": "potential energy", "conserved_energy": "conserved energy"}
"""Columns of the series `md` that are drawn as energies, and their names on screen."""


def _forces(atoms: Atoms) -> np.ndarray | None:
    return atoms.calc.results.get("forces") if atoms.calc is not None else None


def simulated(done: int, total: int, timestep: float) -> str:
    """Simulated time of `done` and `total` steps of `timestep` fs: ``0.445 of 5 ps``."""
    return f"{_short(done * timestep / FS_PER_PS)} of {_short(total * timestep / FS_PER_PS)} ps"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step for step in (1, 2, 5, 10) if step * power >= value * 0.999) * power)
