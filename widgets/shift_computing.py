"""Fills the shift explorer from a child process, which the notebook starts, reads and can end at any time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlipkit.data import FrameSet
from mlipkit.errors import DataError, nearest
from mlipkit.runs.frames import RunFrames

from .shift_data import Points, ShiftData, ShiftSet
from .shift_sets import mark_from_run, resolve

State = Literal["empty", "computing", "ready", "failed"]
LAST_COLUMNS = 3
"""Columns of a stored row behind the scores: Q, T², limit."""


class Child:
    """A job in a folder of its own, with the process that works on it. Both go with this object."""

    def __init__(self, job: Mapping[str, Any], sets: Sequence[ShiftSet]) -> None:
        place = tempfile.TemporaryDirectory(prefix="mlipkit-shift-", ignore_cleanup_errors=True)
        self.folder = Path(place.name)
        asked = []
        for number, one in enumerate(sets):
            if isinstance(one.frames, FrameSet):
                asked.append({"frames": str(one.frames.save(self.folder / f"frames{number}"))})
            else:
                asked.append({"run": str(one.run.folder), "replica": one.replica})
        (self.folder / "job.json").write_text(json.dumps({**job, "sets": asked}))
        with open(self.folder / "log.txt", "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlipkit.runs.shift_job", str(self.folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **os.environ},
            )  # fmt: skip
        self._stamp = 0
        self.state: dict[str, Any] = {"phase": "computing", "text": "Starting", "done": 0.0, "sets": []}
        self._end = weakref.finalize(self, _end, self.process, place)

    def refresh(self) -> bool:
        """Read its report; True when it has said something new."""
        path = self.folder / "state.json"
        try:
            stamp = path.stat().st_mtime_ns
            if stamp != self._stamp:
                self._stamp, self.state = stamp, json.loads(path.read_text())
                return True
        except FileNotFoundError:
            pass
        if self.process.poll() not in (None, 0) and self.state["phase"] != "failed":
            tail = (self.folder / "log.txt").read_text(errors="replace").strip().splitlines()[-1:]
            self.state = {**self.state, "phase": "failed", "error": tail[0] if tail else "the process was ended"}
            return True
        return False

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def read(self, name: str, dtype: str, start: int, stop: int) -> np.ndarray:
        """Numbers `start` to `stop` of a file."""
        width = np.dtype(dtype).itemsize
        with open(self.folder / name, "rb") as file:
            file.seek(start * width)
            return np.frombuffer(file.read((stop - start) * width), dtype)

    def close(self) -> None:
        """End the process and remove the folder."""
        self._end()


class Kept:
    """What a job has left in a folder; no process works on it any more."""

    alive = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        self._told = False

    def refresh(self) -> bool:
        """True once: all is there."""
        told, self._told = self._told, True
        return not told

    def read(self, name: str, dtype: str, start: int, stop: int) -> np.ndarray:
        """Numbers `start` to `stop` of a file."""
        return np.fromfile(self.folder / name, dtype)[start:stop]

    def close(self) -> None:
        """The folder stays."""


class ShiftComputing:
    """The sets of an explorer and where their numbers come from.

    Args:
        sets: see `shift_sets.resolve`; a `ShiftData` is taken as it is and nothing is computed.
        model, fit_on, components, options, potential, computed: see `ShiftExplorer`.

    Attributes:
        data: what the explorer shows; its points arrive by `refresh`.
        fit_on: names of the sets that the components are fitted on; none when a model was given.
        facts: what the numbers depend on, for the record of a selection.
    """

    def __init__(
        self,
        sets: Any,
        model: Any,
        fit_on: str | Sequence[str] | None,
        components: int,
        options: Mapping[str, Any],
        potential: Any,
        computed: str | os.PathLike[str] | None = None,
    ) -> None:
        self.facts: dict[str, Any] = {}
        self.components, self.options = components, dict(options)
        self.fit_on: list[str] = []
        self._child: Child | Kept | None = None
        self._alive = True
        self._embedding: Child | None = None
        self._then: Callable[[], None] | None = None
        self._seen: list[tuple[int, int, bool]] = []
        self._problem = ""
        if isinstance(sets, ShiftData):
            self.data, self._given = sets, True
            return
        self._given = False
        found = resolve(sets)
        self.data = ShiftData(found)
        if not found:
            return
        self._job: dict[str, Any] = {
            "model": None, "fit_on": [], "components": components, "options": dict(options), "potential": None,
        }  # fmt: skip
        self._model_file = _model_file(model)
        if self._model_file is None:
            self.fit_on = self._fit_on(fit_on)
            for one in found:
                one.fitted = one.name in self.fit_on
            self._job["fit_on"] = [self.data.names.index(name) for name in self.fit_on]
        else:
            self._job["model"] = str(self._model_file)
        if potential is not None:
            self._job["potential"] = _potential_place(potential)
        self._seen = [(0, 0, False)] * len(found)
        self._child = Child(self._job, found) if computed is None else Kept(Path(computed))

    def _fit_on(self, asked: str | Sequence[str] | None) -> list[str]:
        sets = [one.name for one in self.data.sets if one.run is None]
        if not sets:
            raise DataError(
                "there is no set to fit on", where="ShiftExplorer",
                hint="Give the training frames first, or a fitted model=",
            )  # fmt: skip
        if asked is None:
            return sets[:1]
        wanted = sets if asked == "all" else [asked] if isinstance(asked, str) else list(asked)
        for name in wanted:
            if name not in sets:
                raise DataError(f"there is no set '{name}'", where="fit_on", hint=nearest(name, sets))
        return wanted

    @property
    def state(self) -> State:
        if not self.data.sets:
            return "empty"
        if self._given:
            return "ready"
        assert self._child is not None
        if self._child.state["phase"] == "failed":
            return "failed"
        if self._embedding is not None or self._child.state["phase"] != "ready":
            return "computing"
        return "ready"

    @property
    def live(self) -> bool:
        """Frames of a run are still being written or scored."""
        return self._alive and any(one.run is not None for one in self.data.sets)

    @property
    def done(self) -> float:
        """Share of the work that is done, 0 to 1."""
        child = self._embedding or self._child
        return float(child.state["done"]) if child is not None else 1.0

    @property
    def sentence(self) -> str:
        """What is going on, for people."""
        if self.state == "failed":
            assert self._child is not None
            return str(self._child.state["error"])
        child = self._embedding or self._child
        if self.state == "computing" and child is not None:
            return f"{child.state['text']} …"
        if self.state == "empty":
            return ""
        return self._problem or "Click an atom to see it in its frame; draw a lasso or a box to pick frames."

    def refresh(self) -> bool:
        """Take over what has been computed since; True when the data has changed."""
        changed = False
        for one in self.data.sets:
            if isinstance(one.frames, RunFrames) and one.frames.refresh():
                changed = True
            if one.run is not None and mark_from_run(one):
                changed = True
        if self._child is not None:
            # Asked before the reading: what was said last must not be missed.
            self._alive = self._child.alive
            if self._child.refresh():
                changed = self._take(self._child) or changed
        if self._embedding is not None and self._embedding.refresh():
            changed = self._take_embedding(self._embedding) or changed
        if changed:
            self.data.changed()
        return changed

    def call_back(self) -> None:
        """Tell who asked for t-SNE that it is there; for whoever shows the data, once it shows them."""
        if self._then is not None and self._embedding is None:
            then, self._then = self._then, None
            then()

    def embed(self, then: Callable[[], None]) -> None:
        """Have t-SNE computed, and call `then` when the map has it."""
        if self._given or self._embedding is not None or not self.data.sets:
            return
        self._then, self._problem = then, ""
        self._embedding = Child({**self._job, "embed": True}, self.data.sets)

    def close(self) -> None:
        """End what is under way."""
        for child in (self._child, self._embedding):
            if child is not None:
                child.close()

    # What has come

    def _take(self, child: Child | Kept) -> bool:
        state = child.state
        if state["phase"] == "failed" or "components" not in state:
            return False
        self.data.explained = tuple(state["explained"])
        self.data.bands = {int(z): (low, high) for z, (low, high) in state["bands"].items()}
        self.facts = {"fit_on": self.fit_on or str(self._model_file), "model": state["hash"]}
        changed = False
        for number, (one, told) in enumerate(zip(self.data.sets, state["sets"], strict=True)):
            now = (told["frames"], told["generation"], told["forces"])
            if now != self._seen[number] and told["frames"]:
                one.points = self._grown(child, number, one, now)
                self._seen[number] = now
                changed = True
        return changed

    def _grown(self, child: Child | Kept, number: int, one: ShiftSet, now: tuple[int, int, bool]) -> Points:
        """Points of a set with the frames that have come."""
        count, generation, forces = now
        if isinstance(one.frames, FrameSet):
            offsets, numbers = np.asarray(one.frames.offsets[: count + 1]), np.asarray(one.frames.numbers)
        else:
            numbers = one.frames[0].numbers
            offsets = np.arange(count + 1) * len(numbers)
            numbers = np.tile(numbers, count)
        last = int(offsets[-1])
        width = int(child.state["components"]) + LAST_COLUMNS
        old = one.points if one.points is not None and generation == self._seen[number][1] else None
        first = len(old.q) if old is not None else 0
        new = child.read(f"{number}.{generation}.scores", "<f4", first * width, last * width).reshape(-1, width)

        def joined(name: str, values: np.ndarray) -> np.ndarray:
            return values if old is None else np.concatenate([getattr(old, name), values])

        points = Points(
            numbers[:last], offsets, joined("scores", new[:, :-3]), joined("q", new[:, -3]), joined("t2", new[:, -2]),
            joined("limit", new[:, -1]), embedding=old.embedding if old is not None and first == last else None,
        )  # fmt: skip
        if one.run is not None:
            points = replace(points, uids=child.read(f"{number}.{generation}.uids", "<u8", 0, count))
        if forces:
            points = replace(points, force_error=child.read(f"{number}.error", "<f4", 0, last))
        return points

    def _take_embedding(self, child: Child) -> bool:
        if child.state["phase"] == "computing":
            return False
        changed = False
        if child.state["phase"] == "failed":
            self._problem = f"t-SNE: {child.state['error']}"
            self._then = None
        else:
            for number, (one, told) in enumerate(zip(self.data.sets, child.state["sets"], strict=True)):
                if told["embedded"] and one.points is not None:
                    many = 2 * len(one.points.q)
                    flat = child.read(f"{number}.embedding", "<f4", 0, many).reshape(-1, 2)
                    one.points = replace(one.points, embedding=flat)
                    changed = True
        child.close()
        self._embedding = None
        return changed


def _model_file(model: Any) -> Path | None:
    """File of a fitted model, written when it is an object."""
    if model is None:
        return None
    if isinstance(model, str | os.PathLike):
        path = Path(model).expanduser().resolve()
        if not path.is_file():
            raise DataError("no such file", where=("model", str(path)))
        return path
    path = Path(tempfile.mkdtemp(prefix="mlipkit-model-")) / "model.safetensors"
    weakref.finalize(model, path.unlink, missing_ok=True)
    model.save(path)
    return path


def _potential_place(potential: Any) -> str:
    """A potential as `mlipkit.models.load` takes it."""
    if isinstance(potential, str | os.PathLike):
        text = os.fspath(potential)
        return str(Path(text).expanduser().resolve()) if Path(text).expanduser().exists() else text
    path = Path(tempfile.mkdtemp(prefix="mlipkit-potential-")) / "potential.safetensors"
    potential.save(path)
    return str(path)


def _end(process: subprocess.Popen, place: tempfile.TemporaryDirectory) -> None:
    process.kill()
    process.wait()
    place.cleanup()
