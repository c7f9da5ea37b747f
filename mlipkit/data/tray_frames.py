"""The frames of a tray, kept beside it: a selection names frames by uid, and whoever labels them needs their positions.

Sets that a selection was made from may be closed, deleted or grown by then; a kernel restart closes them all.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from mlipkit.data.frameset import FrameSet
from mlipkit.data.selection import Selection
from mlipkit.data.store import is_frames_folder

FRAMES: Final = "frames"


class TrayFrames:
    """Frames that were put into the tray of a folder, by uid.

    Args:
        folder: the tray's folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser().resolve() / FRAMES

    def sets(self) -> list[FrameSet]:
        """All that is kept, the latest first."""
        found = [path for path in self.folder.glob("[0-9]*") if is_frames_folder(path)]
        return [FrameSet.open(path, mmap=False) for path in sorted(found, reverse=True)]

    def add(self, frames: FrameSet) -> None:
        """Keep frames; those that are kept already are not kept twice."""
        known = {int(uid) for one in self.sets() for uid in one.uids}
        new = [row for row, uid in enumerate(frames.uids) if int(uid) not in known]
        if new:
            last = max((int(path.name) for path in self.folder.glob("[0-9]*")), default=0)
            self.folder.mkdir(parents=True, exist_ok=True)
            frames.select(new).save(self.folder / f"{last + 1:06d}")

    def of(self, selection: Selection) -> FrameSet:
        """The selected frames.

        Raises:
            DataError: nothing is selected, or a frame is not kept here.
        """
        return selection.frames(self.sets())

    def clear(self) -> None:
        """Forget all frames."""
        shutil.rmtree(self.folder, ignore_errors=True)
