"""A selection that grows by steps and can go back: on disk after every change, the same after a kernel restart.

::

    selections/tray/
        tray.json     which step is the present one, and those before it
        000007.json   a step: one `Selection`
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mlipkit.data.selection import Selection, Sets
from mlipkit.data.store import _replace_text
from mlipkit.errors import DataError

TRAY: Final = "tray.json"
UNDO_STEPS: Final = 10


class Tray:
    """The present selection of a folder, and the ten before it.

    Two trays on one folder show the same: each looks at the disk before it changes anything.

    Args:
        folder: made with the first change.

    Raises:
        DataError: the folder holds something that is no tray, or a damaged one.
    """

    def __init__(self, folder: str | os.PathLike[str] = "selections/tray") -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.selection = Selection()
        self._steps: list[int] = []
        self._stamp: tuple[int, int] | None = None
        self.refresh()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def undo_steps(self) -> int:
        """How often `undo` can be called."""
        return max(0, len(self._steps) - 1)

    def refresh(self) -> bool:
        """Look whether another tray has changed the folder; True when it has."""
        path = self.folder / TRAY
        try:
            stat = path.stat()
        except FileNotFoundError:
            return False
        stamp = stat.st_ino, stat.st_mtime_ns
        if stamp == self._stamp:
            return False
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            steps = [int(step) for step in record["steps"]]
        except (ValueError, KeyError, TypeError) as problem:
            raise DataError(f"not the record of a tray ({problem!r})", where=str(path)) from None
        self.selection = Selection.load(self._path(steps[-1])) if steps else Selection()
        self._steps, self._stamp = steps, stamp
        return True

    def put(self, selection: Selection) -> Selection:
        """Make this the present selection; undo brings back the one before."""
        self.refresh()
        if not self._steps:
            # The empty tray is what the first undo goes back to.
            self._write(Selection(), 1)
        self._write(selection, self._steps[-1] + 1)
        return selection

    def add(self, selection: Selection) -> Selection:
        """The present selection with this one."""
        return self._changed(lambda now: now.union(selection))

    def remove(self, selection: Selection) -> Selection:
        """The present selection without this one."""
        return self._changed(lambda now: now.minus(selection))

    def invert(self, sets: Sets) -> Selection:
        """All frames of the sets that are not selected at present."""
        return self._changed(lambda now: now.invert(sets))

    def clear(self) -> Selection:
        """Nothing selected."""
        return self._changed(lambda now: Selection(tag=now.tag))

    def tag(self, tag: str) -> Selection:
        """Give the present selection a tag."""
        return self._changed(lambda now: now.tagged(tag))

    def undo(self) -> Selection:
        """The selection before the last change; nothing happens when there is none."""
        self.refresh()
        if self.undo_steps:
            last = self._steps.pop()
            self._record()
            self.selection = Selection.load(self._path(self._steps[-1]))
            self._path(last).unlink(missing_ok=True)
        return self.selection

    def _changed(self, change: Callable[[Selection], Selection]) -> Selection:
        self.refresh()
        new = change(self.selection)
        return self.put(new) if new != self.selection else self.selection

    def _write(self, selection: Selection, step: int) -> None:
        selection.save(self._path(step))
        kept = [*self._steps, step]
        self._steps = kept[-(UNDO_STEPS + 1) :]
        self._record()
        self.selection = selection
        for old in set(kept) - set(self._steps):
            self._path(old).unlink(missing_ok=True)

    def _record(self) -> None:
        _replace_text(self.folder / TRAY, json.dumps({"steps": self._steps}))
        stat = (self.folder / TRAY).stat()
        self._stamp = stat.st_ino, stat.st_mtime_ns

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:06d}.json"
