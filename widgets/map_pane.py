"""The map beside a simulation: its atoms over those that the potential learned from. Opened by a button: it costs.

Frame and atom are those of the view beside it: it is told where the reader is, and says where the reader clicks.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets as w
import numpy as np

from mlipkit.data import FrameSet, Selection
from mlipkit.errors import MlipkitError
from mlipkit.runs import MDSpec, Run
from mlipkit.runs.frames import RunFrames
from mlipkit.runs.loop import trained_on
from mlipkit.runs.places import run_of

from .parts import ClosingBox, button, row, show
from .shift_computing import ShiftComputing
from .shift_controls import ShiftControls
from .shift_data import ShiftSet
from .shift_map import Following, ShiftMap
from .shift_sets import mark_from_run
from .ticker import in_background

TRAINING = "training set"
OFFER = "Where do the atoms of this simulation lie relative to the training data of its potential? Takes some seconds."
UNKNOWN = "No map: what this potential learned from is not known here."


class MapPane(ClosingBox):
    """Shows the map of one simulation.

    Args:
        on_pick: called with the frame and the atom of a point that was clicked.
        on_lasso: called with frames of the simulation that were encircled, and their selection.

    Attributes:
        state: "closed", "computing", "ready" or "failed".
    """

    def __init__(
        self, on_pick: Callable[[int, int], None], on_lasso: Callable[[FrameSet, Selection], None],
        read_only: bool = False,
    ) -> None:  # fmt: skip
        self._on_pick, self._on_lasso, self._ready = on_pick, on_lasso, "" if read_only else "Lasso → tray."
        self.state = "closed"
        self._run: Run | None = None
        self._replica = self._frame = 0
        self._atom = -1
        self._live = False
        self._selection = Selection()
        self._computing: ShiftComputing | None = None
        self._turn = 0
        self._known = -1
        self.open_button = button("Show the map", self.compute, tip=OFFER)
        self.text = w.HTML()
        self.controls = ShiftControls(self._draw, self._embed)
        for one in (self.controls.map, self.controls.colour):
            one.layout.width = "165px"
            one.style.description_width = "45px"
        self.map = ShiftMap(self._picked, self._encircled)
        self.close_button = button("✖ Map", self.shut, tip="Close the map")
        self.body = w.VBox([self.controls, self.map])
        self.offer = row(self.open_button, self.close_button, self.text)
        super().__init__([self.offer, self.body])
        self.add_class("mlipkit-pane-side")
        self._show_state("closed")

    # For the view beside it

    @property
    def live(self) -> bool:
        """Something is being computed."""
        return self.state == "computing" or (self._computing is not None and self._computing.live and self._live)

    def watch(self, run: Run | None, replica: int = 0) -> None:
        """Belong to a simulation; an open map is made anew for it."""
        if (run, replica) == (self._run, self._replica):
            return
        was_open = self.state != "closed" and run is not None and isinstance(run.spec, MDSpec)
        self._end()
        self._run, self._replica, self._frame, self._atom = run, replica, 0, -1
        self._show_state("closed")
        if was_open:
            self.compute()

    def point_at(self, frame: int, atom: int = -1, live: bool = False) -> None:
        """The frame and the atom on show beside the map."""
        if (frame, atom, live) != (self._frame, self._atom, self._live):
            self._frame, self._atom, self._live = frame, atom, live
            self._draw()

    def choose(self, selection: Selection) -> None:
        """Mark what lies in the tray."""
        self._selection = selection
        self._draw()

    def compute(self) -> None:
        """Have the map computed, beside the notebook."""
        run, replica = self._run, self._replica
        if run is None or self.state in ("computing", "ready"):
            return
        self._turn += 1
        mine = self._turn
        self._show_state("computing", "Starting …")

        def made(computing: object, error: BaseException | None) -> None:
            if mine != self._turn or self._closed:
                if isinstance(computing, ShiftComputing):
                    computing.close()
                return
            if error is not None:
                self._failed(error)
                return
            assert isinstance(computing, ShiftComputing)
            self._computing, self._known = computing, -1
            self.refresh()

        in_background(lambda: computing_of(run, replica), made)

    def shut(self) -> None:
        """Close the map."""
        self._end()
        self._show_state("closed")

    def refresh(self) -> None:
        """Take over what has been computed since."""
        computing = self._computing
        if computing is None:
            return
        try:
            if computing.refresh() or self._known != computing.data.revision:
                self._known = computing.data.revision
                self.controls.offer(computing.data)
                # Which frames are learned ones is seen anyway, and two sets leave nothing to compare.
                for part in (self.controls.only_in, self.controls._sets):
                    show(part, False)
                self._draw()
            computing.call_back()
        except (MlipkitError, OSError, ValueError, KeyError) as error:
            self._failed(error)
            return
        state = computing.state
        if state == "failed":
            self._failed(None, computing.sentence)
        elif state == "computing" and self.state != "ready":
            self._show_state("computing", computing.sentence)
        elif state == "ready":
            self._show_state("ready")

    # Inside

    def _end(self) -> None:
        self._turn += 1
        if self._computing is not None:
            self._computing.close()
            self._computing = None

    def _failed(self, error: BaseException | None, text: str = "") -> None:
        self._end()
        self._show_state("failed", text or (str(error) if isinstance(error, MlipkitError) else f"No map: {error}"))

    def _show_state(self, state: str, text: str = "") -> None:
        self.state = state
        told = text or {"closed": OFFER, "ready": self._ready}.get(state, "")
        tone = "mk-wrong" if state == "failed" else "mk-quiet"
        html = f'<div class="{tone}" role="status">{escape(told)}</div>'
        if self.text.value != html:
            self.text.value = html
        show(self.open_button, state in ("closed", "failed"))
        (self.offer.remove_class if state == "ready" else self.offer.add_class)("mlipkit-offer")
        self.open_button.description = "Try again" if state == "failed" else "Show the map"
        show(self.close_button, state in ("computing", "ready"))
        show(self.body, state == "ready")

    @property
    def _name(self) -> str:
        assert self._computing is not None
        return next(one.name for one in self._computing.data.sets if one.run is not None)

    def _draw(self) -> None:
        computing = self._computing
        if computing is None or not computing.data.n_points:
            return
        one = computing.data[self._name]
        there = one.points is not None and one.points.n_frames > 0
        moving = None
        frame = self._frame
        if there:
            assert one.points is not None
            frame = min(self._frame, one.points.n_frames - 1)
            atom = self._atom if self._atom >= 0 else one.points.worst(frame)
            moving = Following(one.name, frame, atom, self._live)
        place = (one.name, frame, self._atom) if there else None
        self.map.show(computing.data, self.controls.picks, self._selection, place, moving)

    def _embed(self) -> None:
        if self._computing is not None:
            self._computing.embed(lambda: self.controls.pick_map("t-SNE"))
            self.controls.map.value = self.map.picks.map

    def _picked(self, name: str, frame: int, atom: int) -> None:
        if self._computing is not None and name == self._name:
            self._on_pick(frame, atom)

    def _encircled(self, kind: str, polygon: np.ndarray, indices: np.ndarray) -> None:
        computing = self._computing
        if computing is None:
            return
        data, picks = computing.data, self.controls.picks
        # What the potential learned from need not be labelled again.
        mine = indices[data.column("set")[indices] == data.names.index(self._name)]
        if not len(mine):
            self.text.value = '<div class="mk-quiet" role="status">No atom of this simulation lies inside.</div>'
            self.map.draw()
            return
        assert self._run is not None
        criterion = {
            "kind": kind, "run": str(self._run.folder), "replica": self._replica, "map": picks.map,
            "axes": list(data.axes(picks.map)), "polygon": np.round(polygon, 6).tolist(),
            "elements": list(picks.elements), **computing.facts,
        }  # fmt: skip
        made = data.select(mine, criterion, f"{kind} on {picks.map} of {self._name}")
        frames = FrameSet.concat(data.frame_sets(made))
        self._on_lasso(_with_sources(frames, self._run, self._replica, data[self._name]), made)


def _with_sources(frames: FrameSet, run: Run, replica: int, one: ShiftSet) -> FrameSet:
    """Frames that know which simulation they are of, as those before a failure do."""
    folder = run.replica_folder(replica)
    return frames.with_table(source=run.name if folder == run.folder else f"{run.name}/{folder.name}")


def computing_of(run: Run, replica: int) -> ShiftComputing:
    """The numbers of a map, which a child process computes: the training frames, and one simulation of a run.

    Raises:
        MlipkitError: the training frames are not known or cannot be read.
    """
    from mlipkit.errors import RunError

    assert isinstance(run.spec, MDSpec)
    base = run.files.base
    home = run_of(run.spec.potential, base)
    training: object = Run(home) if home is not None else None
    if training is None:
        from mlipkit.runs.building_data import read_frames

        places = trained_on(run.spec.potential)
        if not places:
            raise RunError(UNKNOWN, where=run.spec.potential)
        training = read_frames(places, base, allow_partial=True)
    frames = RunFrames(run.replica_folder(replica))
    frames.refresh()
    number = f" #{replica}" if run.replica_folder(replica) != run.folder else ""
    one = ShiftSet(f"{run.name}{number}", frames, run=run, replica=replica)
    mark_from_run(one)
    return ShiftComputing({TRAINING: training, one.name: one}, None, TRAINING, 5, {}, None)
