"""RolloutView: a roll-out beside the AIMD run that it starts from, in 3D, with the errors that grow between them."""

from __future__ import annotations

from collections.abc import Hashable
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import numpy as np
import traitlets as t

from mlipkit.plots.rollouts import beside_aimd
from mlipkit.runs.places import short_place

from .atoms_pane import AtomsPane, Scale
from .base import HIDDEN_S, IDLE_S, LIVE_S
from .computed import Computed
from .frame_bar import FrameBar
from .live_view import LiveView
from .parts import button, row, show
from .plot import Plot
from .rollout_source import AIMDRun, RolloutSource, arguments, open_source, training_of
from .scene import NGLScene

if TYPE_CHECKING:
    from mlipkit.strategies.dynamic import Beside

EMPTY = "No potential is open yet: RolloutView('runs/dynamic'), or RolloutView('sample:ethanol_1000', 'aimd.extxyz')."
PARTED = 0.5
"""Å; the farthest atom is further from AIMD than this: the trajectories have parted."""
DISTANCE = Scale("distance", 0.0, PARTED, "0", f"≥ {PARTED:g} Å from AIMD")


class RolloutView(LiveView):
    """Prediction and AIMD side by side, from the same frame with the same velocities, on one time axis.

    Slider, arrows and a click on a curve move both. Any potential, any frames of AIMD in order of time.

    Args:
        potential: a run that trained one, whatever `mlipkit.load` takes, or a potential.
        frames: a `FrameSet` or its place; those that the run was trained on when omitted.
        start: frame to start from, counted in `frames`; None: in a run that the training has not seen, if known.
        steps: roll-out steps, the start included.
        viewer: "auto", "nglview", or "still" for pictures without WebGL.

    Attributes:
        frame: structure on show, from 0 (a traitlet).
        found: the roll-out (`mlipkit.strategies.dynamic.Beside`), or None until it is computed.
    """

    frame = t.Int(0)

    def __init__(
        self, potential: Any = None, frames: Any = None, start: int | None = None, steps: int = 200,
        viewer: str = "auto",
    ) -> None:  # fmt: skip
        self._asked = potential, frames, start
        self._key = _named(potential), _named(frames)
        self._source: Computed[RolloutSource] = Computed(self._opened)
        self._rolled: Computed[Beside] = Computed(self._came)
        self.found: Beside | None = None
        self._moving, self._code_open = False, False
        self.header = self._head(gone="run this cell again. A roll-out is computed anew.")
        self.empty, self.said, self.panel = w.HTML(), w.HTML(), w.HTML()
        self.which = w.Dropdown(options=[("-", -1)], description="start in", layout={"width": "300px"})
        self.start = w.IntSlider(
            description="at frame", min=0, max=1, continuous_update=False, layout={"flex": "1 1 240px", "width": "auto"}
        )
        self.steps = w.BoundedIntText(value=steps, min=2, max=100_000, description="steps", layout={"width": "170px"})
        self.which.tooltip = "AIMD run to start in"
        self.start.tooltip = "AIMD frame to start from, with its velocities"
        self.steps.tooltip = "Roll-out steps, the start included"
        self.controls = row(self.which, self.start, self.steps)
        self.picture, self.other = AtomsPane(viewer, (DISTANCE,)), AtomsPane(viewer, (DISTANCE,))
        for pane, words in ((self.picture, "prediction"), (self.other, "AIMD")):
            pane.children = [w.HTML(f'<div class="mk-pane-title"><b>{words}</b></div>'), *pane.children]
            pane.on_atom = self._mark
            if isinstance(pane.scene, NGLScene):
                pane.scene.twin = self.header.model_id or ""
        self._marked: tuple[int, ...] = ()
        t.link((self.picture.colour, "value"), (self.other.colour, "value"))
        self.plot = Plot(
            beside_aimd(), height=400, on_click=lambda x, _y, _trace: self._clicked(x),
            label="Distance from AIMD and force error over the time of the roll-out",
        )  # fmt: skip
        self.bar = FrameBar(self.go, lambda: None)
        self.panes = row(self.picture, self.other, kind="mlipkit-panes")
        self.body = w.VBox([self.controls, self.said, self.panes, self.bar, self.plot])
        self.code_button = button("Code", self._toggle_code, tip="Python that does the same")
        self.buttons = row(self.code_button, self._export_button(self._put))
        self._begin(self.header, self.empty, self.body, self.buttons, self.panel)
        show(self.panel, False)
        self.which.observe(lambda _change: self._chosen(True), "value")
        for control in (self.start, self.steps):
            control.observe(lambda _change: self._chosen(), "value")
        self._close_forgotten()
        self._first(self.refresh)
        self._wake()

    # For users

    def go(self, frame: int) -> None:
        """Show a structure, counted from 0; out of range means the first or last."""
        found = self.found
        if found is None:
            return
        frame = int(np.clip(frame, 0, len(found) - 1))
        numbers = {DISTANCE.name: found.distance[frame]}
        self.picture.show(found.predicted[frame], self._marked, numbers)
        self.other.show(found.reference[frame], self._marked, numbers)
        if len(self._marked) == 1:
            self.picture.describe(self._marked[0])
            self.other.describe(self._marked[0])
        self._moving = True
        try:
            self.frame = frame
        finally:
            self._moving = False
        self.plot.cursor = float(found.time[frame])
        far = found.distance[frame].max()
        text = f"step {frame + 1} of {len(found)} · <b>{found.time[frame]:g} fs</b> · farthest atom {far:.2f} Å"
        self.bar.tell(frame, len(found) - 1, text)

    @property
    def wanted(self) -> tuple[int, int] | None:
        """(frame to start from, steps) as the controls say; None until frames are open."""
        one = self._run
        if one is None:
            return None
        return int(one.rows[min(self.start.value, len(one.rows) - 1)]), int(self.steps.value)

    def refresh(self) -> str:
        """Look once at what is being computed; the state: empty, computing, ready or uncomputed."""
        if self._asked[0] is not None:
            # Run and folder are read again by every view; a potential that goes on training is the best of now.
            self._source.want("open", lambda: open_source(*self._asked[:2]))
        source, wanted = self._source.value, self.wanted
        if source is not None and wanted is not None:
            self._rolled.want(wanted, lambda: _roll(source, *wanted))
        state = self._state
        head = self.header
        head.state, head.title, head.beat = state, "Roll-out beside AIMD", head.beat + 1
        head.detail = source.name if source is not None else ""
        head.sentence = self._sentence(state)
        if state == "empty":
            self.empty.value = f'<div class="mk-empty">{escape(EMPTY)}</div>'
        show(self.empty, state == "empty")
        show(self.body, source is not None)
        show(self.buttons, source is not None)
        for part in (self.panes, self.bar, self.plot):
            show(part, self.found is not None)
        return state

    # What comes back

    def _opened(self) -> None:
        source, start = self._source.value, self._asked[2]
        if source is None:
            self.refresh()
            return
        self._moving = True
        try:
            self.which.options = [(one.words, one.number) for one in source.runs]
            chosen = _first_run(source)
            if start is not None and 0 <= start < len(source.frames):
                chosen = source.run_of(start)
            self.which.value = chosen.number
            self._fit_slider(chosen)
            at = np.flatnonzero(chosen.rows == start) if start is not None else []
            self.start.value = int(at[0]) if len(at) else min(max(1, len(chosen.rows) // 10), self.start.max)
        finally:
            self._moving = False
        self.refresh()

    def _came(self) -> None:
        if self._rolled.value is not None:
            first = self.found is None
            self.found = found = self._rolled.value
            self.plot.show(beside_aimd(
                found.time, found.distance.mean(axis=1), found.distance.max(axis=1), found.error.sum(axis=1),
                found.on_reference.sum(axis=1),
            ))  # fmt: skip
            begin = found.reference[0]
            for pane in (self.picture, self.other):
                pane.load(begin)
                forces = found.reference.forces
                if forces is not None:
                    largest = np.linalg.norm(np.asarray(forces, float).reshape(len(found), -1, 3), axis=2).max(axis=1)
                    pane.scale_forces(largest, settled=True)
            self._marked = tuple(atom for atom in self._marked if atom < len(begin))
            self.go(0 if first else self.frame)
        self._tell()
        if self._code_open:
            self._show_code()
        self.refresh()

    @property
    def _state(self) -> str:
        if self._asked[0] is None:
            return "empty"
        if self._source.problem or (self._rolled.problem and not self._rolled.busy):
            return "uncomputed"
        ready = self.found is not None and not self._rolled.busy and self._rolled.key == self.wanted
        return "ready" if ready else "computing"

    @property
    def _run(self) -> AIMDRun | None:
        source = self._source.value
        if source is None:
            return None
        return next((one for one in source.runs if one.number == self.which.value), None)

    def _sentence(self, state: str) -> str:
        if state == "uncomputed":
            return self._source.problem or self._rolled.problem
        if state == "computing":
            return "Reading AIMD frames …" if self._source.value is None else "Rolling out …"
        if self.found is None or self._run is None:
            return ""
        found = self.found
        timestep = found.time[1] - found.time[0] if len(found) > 1 else 0.0
        text = f"{len(found)} roll-out steps of {timestep:g} fs without a thermostat, {self._run.words}."
        if self._run.part == "train":
            text += " The potential was trained on this run."
        return text

    def _tell(self) -> None:
        text = "" if self.found is None else verdict(self.found)
        html = f'<div class="mk-verdict" role="status" style="--mk-tone:#0072b2">{escape(text)}</div>' if text else ""
        if self.said.value != html:
            self.said.value = html

    # What the reader does

    def _chosen(self, other_run: bool = False) -> None:
        if self._moving or self._source.value is None:
            return
        if other_run and self._run is not None:
            self._moving = True
            self._fit_slider(self._run)
            self._moving = False
        self.refresh()
        self._ticker.hurry()

    def _fit_slider(self, one: AIMDRun) -> None:
        # Without velocities of their own first and last frames have none; starts at the end have nothing to compare.
        self.start.max = max(1, len(one.rows) - 2)
        self.start.value = min(self.start.value, self.start.max)

    def _mark(self, atom: int) -> None:
        self._marked = () if self._marked == (atom,) else (atom,)
        self.go(self.frame)

    def _clicked(self, time: float) -> None:
        if self.found is not None:
            self.go(int(np.abs(self.found.time - time).argmin()))

    @t.observe("frame")
    def _frame_set(self, change: dict) -> None:
        if not self._moving and self.found is not None:
            self.go(change["new"])

    # The loop

    def _tick(self) -> float | None:
        if self._closed:
            return None
        state = self.refresh()
        return HIDDEN_S if self._hidden else LIVE_S if state == "computing" else IDLE_S

    def _set_dark(self, dark: bool) -> None:
        self.picture.set_dark(dark)
        self.other.set_dark(dark)

    def _shows(self) -> Hashable:
        return self._key if self._asked[0] is not None else None

    def _end(self) -> None:
        self.bar.halt()
        self._source.close()
        self._rolled.close()
        self.picture.scene.close()
        self.other.scene.close()

    # Code

    def _put(self, text: str) -> None:
        self._code_open = False
        self.panel.value = f'<pre class="mk-code">{escape(text)}</pre>'
        show(self.panel, True)

    def _toggle_code(self) -> None:
        self._code_open = not self._code_open
        self._show_code()

    def _show_code(self) -> None:
        text = self.code if self._code_open else ""
        self.panel.value = f'<pre class="mk-code">{escape(text)}</pre>' if text else ""
        show(self.panel, bool(text))

    @property
    def code(self) -> str:
        """Python that computes and draws what is on show."""
        source, wanted = self._source.value, self.wanted
        if source is None or wanted is None:
            return ""
        start, steps = wanted
        inner = source.potential_code.removeprefix("mk.load(").removesuffix(")")
        return (
            "import mlipkit as mk\nfrom mlipkit.data import read_source\n"
            "from mlipkit.plots.rollouts import beside_aimd\nfrom mlipkit.strategies.dynamic import roll_beside\n\n"
            f"found = roll_beside({source.potential_code}, {source.frames_code}, "
            f"start={start}, structures={steps}{arguments(source.options)})\n"
            "print(found.mepa(), found.equal_frames(), found.divergence_time())  # eV/Å, eV/Å, fs\n"
            "beside_aimd(\n"
            "    found.time, found.distance.mean(axis=1), found.distance.max(axis=1), found.error.sum(axis=1),\n"
            "    found.on_reference.sum(axis=1),\n"
            ").show()\n\n"
            "# the same view:\nfrom mlipkit_widgets import RolloutView\n"
            f"RolloutView({inner}, {source.frames_code}, start={start}, steps={steps})\n"
        )


def verdict(found: Beside) -> str:
    """What a roll-out came to, in one sentence."""
    parts = []
    if np.isfinite(found.mepa()):
        parts.append(
            f"Force error {1000 * found.mepa():.0f} meV/Å along the roll-out, "
            f"{1000 * found.equal_frames():.0f} on AIMD's positions (sum over elements)"
        )
    time = found.divergence_time(PARTED)
    parts.append(
        f"no atom gets {PARTED:g} Å away from AIMD in {found.time[-1]:g} fs"
        if np.isinf(time)
        else f"an atom is {PARTED:g} Å away from AIMD after {time:g} fs"
    )
    if found.lost:
        parts.append(f"positions are no numbers after {found.time[-1]:g} fs")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _roll(source: RolloutSource, start: int, steps: int) -> Beside:
    from mlipkit.strategies.dynamic import roll_beside

    return roll_beside(source.potential, source.frames, start, steps, **source.options)


def _first_run(source: RolloutSource) -> AIMDRun:
    for part in ("test", "validation"):
        for one in source.runs:
            if one.part == part:
                return one
    return source.runs[-1]


def _named(what: Any) -> Hashable:
    if what is None:
        return None
    trained = training_of(what)
    if trained is not None:
        return short_place(trained.folder)
    return tuple(what) if isinstance(what, list) else what if isinstance(what, str) else id(what)
