"""ShiftExplorer: where the atoms of several sets and simulations lie on the map of what a potential was trained on.

One thing seen several times: a point on the map, a frame in the curve of Q, an atom in 3D. A lasso picks frames, which
lie in a tray on disk.

The map is plotly in the project's own plot widget. Up to three thousand atoms are points of it, more are an image of
bins made in NumPy (9 ms for 100,000), and every question (what was clicked, what is inside a lasso) is answered in
Python, where all atoms are known. jupyter-scatter and chemiscope draw all points by WebGL; docs/explorer.md has
what was measured and why neither is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
import traitlets as t
from ase import Atoms

from mlipkit.data import FrameSet, Selection, Tray

from .atoms_pane import AtomsPane, Scale
from .base import HIDDEN_S, IDLE_S, LIVE_S
from .frame_bar import FrameBar
from .live_view import LiveView
from .parts import button, row, show
from .shift_code import code_of
from .shift_computing import ShiftComputing
from .shift_controls import Picks, ShiftControls
from .shift_curves import FS_PER_PS, BondPane, QSeries
from .shift_data import ShiftSet
from .shift_map import Following, ShiftMap
from .tray_pane import TrayPane

EMPTY = "No frames are open yet: ShiftExplorer(['train.extxyz', 'runs/md_300K']), or sample:water_liquid to try it."
Q_SCALE = Scale("Q / limit", 0.0, 2.0, "0", "≥ 2 × limit of the element")


class ShiftExplorer(LiveView):
    """Map, curves, bonds and atoms of frame sets and runs, with one frame and one selection for all.

    Args:
        sets: frame sets, files, samples, runs, or a list or mapping (name -> one) of these; or a `ShiftData` that is
            filled already.
        model: an `mlipkit.analysis.OODModel`, or its file; fitted on `fit_on` when omitted.
        fit_on: name of the set that the components are fitted on (the first one when omitted), several, or "all".
        tray: folder of the selection; the same folder shows the same tray, also after a kernel restart.
        potential: a potential or its name, to colour by force error.
        viewer: "auto", "nglview", or "still" for pictures without WebGL.
        components, options: number of principal components, and settings of the SOAP descriptor (`r_cut`, ...).
        computed: folder in which `mlipkit.runs.shift_job` has left the numbers of these very sets; nothing is computed.

    Attributes:
        set, frame, atom: what is on show (traitlets); atom is -1 when none is picked.
    """

    set = t.Unicode("")
    frame = t.Int(0)
    atom = t.Int(-1)

    def __init__(
        self,
        sets: Any = None,
        model: Any = None,
        *,
        fit_on: str | Sequence[str] | None = None,
        tray: str | os.PathLike[str] = "selections/tray",
        potential: Any = None,
        viewer: str = "auto",
        components: int = 5,
        options: Mapping[str, Any] | None = None,
        computed: str | os.PathLike[str] | None = None,
    ) -> None:
        self.computing = ShiftComputing(sets, model, fit_on, components, dict(options or {}), potential, computed)
        self.data = self.computing.data
        self.header = self._head(gone="run this cell again. What lies in the tray is on disk and comes back.")
        self.controls = ShiftControls(self._controls_changed, self._embed)
        self.map = ShiftMap(self.go, self._encircled)
        self.picture = AtomsPane(viewer, (Q_SCALE,), later=True)
        self.picture.colour.value = Q_SCALE.name
        self.picture.on_atom = lambda index: self.go(self.set, self.frame, index)
        self.series = QSeries(lambda frame: self.go(self.set, frame, self.atom))
        self.bonds = BondPane()
        self.which = w.Dropdown(options=["-"], description="frames of", layout={"width": "230px"})
        self.bar = FrameBar(lambda frame: self.go(self.set, frame, self.atom), self.follow)
        self.bar.offer("± Tray", self.take, "The frame on show into the tray, or out of it, as the lasso does")
        self.said, self.empty, self.panel = w.HTML(), w.HTML(), w.HTML()
        self.code_button = button("Code", self._toggle_code, tip="Python that makes the picture on show")
        self._moving, self._code_open = True, False
        self.tray = TrayPane(Tray(tray), self.data, self._selection_changed, lambda name, at: self.go(name, at))
        self._moving = False
        self._following = any(one.run is not None and one.run.active for one in self.data.sets)
        self.body = w.VBox([
            self.controls, row(self.map, self.picture, kind="mlipkit-panes"), self.said,
            row(self.series, self.bonds, kind="mlipkit-panes"), row(self.which, self.bar), self.tray,
        ])  # fmt: skip
        self.bar.layout.flex = "1 1 380px"
        self.buttons = row(self.code_button, self._export_button(self._say), self._picture_button(self._say))
        self._begin(self.header, self.empty, self.body, self.buttons, self.panel)
        self.add_class("mlipkit-explorer")
        show(self.panel, False)
        self.which.observe(self._which_changed, "value")
        self._state = ""
        self._known = -1
        self._close_forgotten()
        self.refresh()
        self._ticker.start()

    # For users

    @property
    def selection(self) -> Selection:
        """What lies in the tray."""
        return self.tray.selection

    @property
    def picks(self) -> Picks:
        """Map, colour, elements and sets on show."""
        return self.controls.picks

    @property
    def atoms(self) -> Atoms | None:
        """The frame on show; None when there is none."""
        if self.set not in self.data.names:
            return None
        frames = self.data[self.set].frames
        return frames[min(self.frame, len(frames) - 1)] if len(frames) else None

    def frames(self) -> FrameSet:
        """The selected frames, tagged.

        Raises:
            DataError: nothing is selected, or frames of sets that are not open here.
        """
        return self.selection.frames(self.data.frame_sets(self.selection))

    def go(self, name: str, frame: int, atom: int = -1) -> None:
        """Show a frame of a set, and mark an atom of it; out of range means the first or last frame."""
        if self.set != name or frame != self.frame:
            self._following = False
        self._place(name, frame, atom)

    def take(self) -> None:
        """Do with the frame on show what the lasso does: add it to the tray, or take it away."""
        if self.set in self.data.names:
            frames = self.data[self.set].frame_set([self.frame])
            criterion = {"kind": "one frame", "set": self.set, "frame": self.frame}
            self.tray.take(Selection.of(frames, criterion=criterion, sentence=f"frames of {self.set}, one by one"))

    def follow(self) -> None:
        """Show the newest frame of the running simulation, and each newer one as it comes."""
        running = [one for one in self.data.sets if one.run is not None]
        if running:
            self._following = True
            self._newest(running[0])

    def offer(self, text: str, action: Callable[[Selection], object], tip: str = "") -> None:
        """Add a button to the tray that does something with the selection."""
        self.tray.offer(text, action, tip)

    def refresh(self) -> str:
        """Look once at what is being computed and at runs; the state: empty, computing, ready or failed."""
        grown = self.computing.refresh()
        if grown or self._known != self.data.revision:
            self._data_changed()
        self.computing.call_back()
        self.tray.refresh()
        self._show_state()
        return self._state

    def _end(self) -> None:
        self.bar.halt()
        self.computing.close()
        self.picture.scene.close()

    def _set_dark(self, dark: bool) -> None:
        self.picture.set_dark(dark)

    def _shows(self) -> Path:
        return self.tray.tray.folder

    # The loop

    def _tick(self) -> float | None:
        if self._closed:
            return None
        state = self.refresh()
        if self._hidden:
            return HIDDEN_S
        return LIVE_S if state == "computing" or self.computing.live else IDLE_S

    def _show_state(self) -> None:
        state, head = self.computing.state, self.header
        facts = [f"{len(self.data.sets)} sets"] if len(self.data.sets) != 1 else [self.data.names[0]]
        if self.data.n_points:
            facts.append(f"{self.data.n_points:,} atoms".replace(",", " "))
        fitted = [one.name for one in self.data.sets if one.fitted]
        facts += [f"fit-on set: {', '.join(fitted)}"] if fitted else []
        head.title, head.detail = "Shift explorer", " · ".join(facts) if self.data.sets else ""
        head.state = {"empty": "empty", "computing": "computing", "ready": "ready"}.get(state, "uncomputed")
        head.done = round(self.computing.done, 3) if state == "computing" else -1.0
        head.sentence = self.computing.sentence
        head.beat += 1
        self.bar.offer_live(not self._following and self.computing.live)
        if state == self._state:
            return
        self._state = state
        self.empty.value = f'<div class="mk-empty">{escape(EMPTY)}</div>' if state == "empty" else ""
        show(self.empty, state == "empty")
        show(self.body, state != "empty")
        show(self.buttons, state != "empty")

    def _data_changed(self) -> None:
        first = self._known == -1 or self.set not in self.data.names
        self._known = self.data.revision
        names = self.data.names
        self._moving = True
        try:
            self.controls.offer(self.data)
            if list(self.which.options) != (names or ["-"]):
                self.which.options = names or ["-"]
            show(self.which, len(names) > 1)
        finally:
            self._moving = False
        if not names:
            return
        self.tray.look_again()
        running = next((one for one in self.data.sets if one.run is not None), None)
        if self._following and running is not None and running.points is not None and running.points.n_frames:
            self._newest(running)
        elif first:
            self._place(names[0], 0, -1)
        else:
            self._place(self.set, self.frame, self.atom)

    # What is on show

    def _newest(self, one: ShiftSet) -> None:
        if one.points is None or not one.points.n_frames:
            return
        last = one.points.n_frames - 1
        atom = self.atom if self.set == one.name else -1
        self._place(one.name, last, atom)

    def _place(self, name: str, frame: int, atom: int) -> None:
        """Bring all parts to one frame and one atom."""
        if name not in self.data.names:
            return
        one = self.data[name]
        if not len(one.frames):
            return
        frame = int(np.clip(frame, 0, len(one.frames) - 1))
        atoms = one.frames[frame]
        if atom >= len(atoms):
            atom = -1
        self._moving = True
        try:
            self.set, self.frame, self.atom = name, frame, atom
            self.which.value = name
        finally:
            self._moving = False
        self._draw_map()
        points = one.points if one.points is not None and frame < one.points.n_frames else None
        numbers = {}
        if points is not None:
            numbers = {Q_SCALE.name: points.ratio[points.atoms_of(frame)], "Q": points.q[points.atoms_of(frame)]}
        if np.isfinite(atoms.positions).all() and not self.picture.follows(atoms):
            self.picture.load(atoms)
        self.picture.show(atoms, (atom,) if atom >= 0 else (), numbers)
        if atom >= 0:
            self.picture.describe(atom)
        else:
            self.picture.text.value = ""
        self.series.show(self.data, one, self.picks.elements, frame, atom)
        self.bonds.show(self.data, self.picks.sets)
        self.bonds.point_at(one, frame)
        last = len(one.frames) - 1
        time = one.time(frame)
        told = f"{frame} of {last}" + (
            f" · <b>{time / FS_PER_PS:.4f} ps</b>" if one.timed and np.isfinite(time) else ""
        )
        self.bar.tell(frame, last, told)
        self.bar.mark(one.marks)
        if self._code_open:
            self._show_code()

    def _draw_map(self) -> None:
        place = (self.set, self.frame, self.atom) if self.set in self.data.names else None
        self.map.show(self.data, self.picks, self.selection, place, self._moving_now())
        self._say(self.map.sentence)

    def _moving_now(self) -> Following | None:
        """The simulation whose trail is drawn: the one on show."""
        if self.set not in self.data.names:
            return None
        one = self.data[self.set]
        if one.run is None or one.points is None or not one.points.n_frames:
            return None
        frame = min(self.frame, one.points.n_frames - 1)
        atom = self.atom if self.atom >= 0 else one.points.worst(frame)
        return Following(one.name, frame, atom, one.run.active)

    def _say(self, text: str) -> None:
        html = f'<div class="mk-quiet" role="status">{escape(text)}</div>' if text else ""
        if self.said.value != html:
            self.said.value = html
            show(self.said, bool(text))

    # What the reader does

    def _controls_changed(self) -> None:
        if self.set in self.data.names:
            self._draw_map()
            self.series.show(self.data, self.data[self.set], self.picks.elements, self.frame, self.atom)
            self.bonds.show(self.data, self.picks.sets)
            if self._code_open:
                self._show_code()

    def _encircled(self, kind: str, polygon: np.ndarray, indices: np.ndarray) -> None:
        picks = self.picks
        if not len(indices):
            self.map.draw()
            self._say("No atom on show lies inside.")
            return
        axes = self.data.axes(picks.map)
        criterion = {
            "kind": kind, "map": picks.map, "axes": list(axes), "polygon": np.round(polygon, 6).tolist(),
            "elements": list(picks.elements), "sets": list(picks.sets), **self.computing.facts,
        }  # fmt: skip
        words = [f"{kind} on {picks.map}"]
        if len(picks.elements) < len(self.data.elements):
            from ase.data import chemical_symbols

            words.append("atoms of " + " ".join(chemical_symbols[z] for z in picks.elements))
        words.append("in " + ", ".join(picks.sets))
        self.tray.take(self.data.select(indices, criterion, ", ".join(words)))

    def _selection_changed(self, _selection: Selection) -> None:
        if not self._moving and self._known >= 0:
            self._draw_map()

    def _embed(self) -> None:
        self.computing.embed(lambda: self.controls.pick_map("t-SNE"))
        self.controls.map.value = self.map.picks.map
        self._show_state()
        self._ticker.hurry()

    def _which_changed(self, change: dict) -> None:
        if not self._moving and change["new"] in self.data.names:
            self.go(change["new"], 0)

    @t.observe("set", "frame", "atom")
    def _state_set(self, _change: dict) -> None:
        if not self._moving and getattr(self, "_known", -1) >= 0:
            self._following = False
            self._place(self.set, self.frame, self.atom)

    def _toggle_code(self) -> None:
        self._code_open = not self._code_open
        self._show_code()

    def _show_code(self) -> None:
        text = code_of(self) + self.tray.next.code if self._code_open else ""
        self.panel.value = f'<pre class="mk-code">{escape(text)}</pre>' if text else ""
        show(self.panel, bool(text))
