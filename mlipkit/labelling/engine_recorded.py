"""Labels that were made before, given out as though they were being made now."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.errors import SpecError
from mlipkit.labelling.protocol import LabelMakerError, Labels

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.data import FrameSet
    from mlipkit.labelling.protocol import Recipe

NOT_RECORDED = "not in the recorded set"


class RecordedLabels:
    """A labelled data set as an engine: it knows the labels of its own frames and of no others.

    A frame is found by its uid (``info["uid"]``) where elements, pbc and atoms agree too, else by equal elements in the
    same order, pbc, positions and cell. What the set holds without energy or forces (a calculation that did not
    converge) has failed here as well.

    Args:
        frames: a labelled `FrameSet`, or what `mlipkit.data.read_source` takes: "sample:NAME", "public:NAME", a file.
        tolerance: Å, largest difference of a coordinate and of a cell vector's component.
    """

    recipe: Recipe | None = None

    def __init__(self, frames: FrameSet | str, tolerance: float = 1e-4) -> None:
        from mlipkit import __version__
        from mlipkit.data import FrameSet, read_source

        if not tolerance >= 0:
            raise SpecError("no tolerance", where="tolerance", expected="0 or more, Å", found=tolerance)
        self.source = frames if isinstance(frames, str) else ", ".join(frames.sources)
        self.frames = frames if isinstance(frames, FrameSet) else _read(frames, read_source)
        if not self.frames.has("energy").any():
            raise SpecError("holds no energy to replay", where=("recorded", self.source))
        self.tolerance, self.version = float(tolerance), __version__
        self.name = f"labels recorded in {Path(self.source).name if ':' not in self.source else self.source}"
        self._by_uid = {int(uid): row for row, uid in enumerate(self.frames.uids)}
        self._alike: dict[bytes, list[int]] = defaultdict(list)
        offsets = self.frames.offsets
        for row in range(len(self.frames)):
            self._alike[_kind(self.frames.numbers[offsets[row] : offsets[row + 1]], self.frames.pbc[row])].append(row)

    def describe(self) -> dict[str, Any]:
        return {
            "engine": "recorded", "version": self.version, "method": self.source, "level_of_theory": self.name,
            "settings": {"tolerance_A": self.tolerance, "frames": len(self.frames), "hash": self.frames.hash},
            "elements": list(self.frames.elements),
        }  # fmt: skip

    def label(self, atoms: Atoms) -> Labels:
        row = self._find(atoms)
        if row is None:
            raise LabelMakerError(NOT_RECORDED)
        frame = self.frames.frame(row)
        for label in ("energy", "forces"):
            if not np.isfinite(frame[label]).all():
                raise LabelMakerError(f"recorded without {label}")
        stress = np.array(frame["stress"])
        return Labels(frame["energy"], np.array(frame["forces"]), stress if np.isfinite(stress).all() else None)

    def _find(self, atoms: Atoms) -> int | None:
        alike: list[int] = self._alike.get(_kind(atoms.numbers, atoms.pbc), [])
        if not alike:
            return None
        row = self._by_uid.get(_number(atoms.info.get("uid")))
        # The repetition of a structure has a uid that depends on what else is in its set.
        if row in alike and self._equal(row, atoms):
            return row
        return next((row for row in alike if self._equal(row, atoms)), None)

    def _equal(self, row: int, atoms: Atoms) -> bool:
        first, end = self.frames.offsets[row : row + 2]
        if end - first != len(atoms):
            return False
        periodic = np.asarray(atoms.pbc)
        return bool(
            (np.abs(self.frames.positions[first:end] - atoms.positions) <= self.tolerance).all()
            and (np.abs(self.frames.cell[row] - atoms.cell.array)[periodic] <= self.tolerance).all()
        )


def _read(source: str, read_source: Any) -> FrameSet:
    # Samples are whole; of all else a part of the frames may lack labels.
    return read_source(source) if source.startswith("sample:") else read_source(source, allow_partial=True)


def _kind(numbers: np.ndarray, pbc: np.ndarray) -> bytes:
    return np.asarray(numbers, np.int16).tobytes() + np.asarray(pbc, bool).tobytes()


def _number(uid: Any) -> int:
    try:
        return int(uid, 16) if isinstance(uid, str) else int(uid)
    except (TypeError, ValueError):
        return -1
