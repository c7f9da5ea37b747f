"""Every potential on every set of frames, with the frames that a potential was fitted on told apart.

Frames are the same where their structure is the same, bit for bit, also in two files: sets that share frames (in the
published study ten of fifty frames of the naive and the iterative arm are one and the same) are compared twice, with
the shared frames and without them.

Source: arXiv 2603.10159, Tables 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlipkit.analysis.density import densities
from mlipkit.analysis.density_confound import match
from mlipkit.analysis.residuals import Residuals, table_row
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError


@dataclass(frozen=True, eq=False)
class Cell:
    """One potential on one set.

    Attributes:
        model, test_set: names.
        n_seen: frames of the set that the potential was fitted on.
        everything: row over all frames (`table_row`); None where all were left out.
        unseen: row over the frames it was not fitted on; None where there is none.
    """

    model: str
    test_set: str
    n_seen: int
    everything: dict[str, Any] | None
    unseen: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {
            "model": self.model, "test_set": self.test_set, "n_seen": self.n_seen, "everything": self.everything,
            "unseen": self.unseen,
        }  # fmt: skip


def is_in(frames: FrameSet, other: FrameSet | None) -> np.ndarray:
    """bool [F]: frames whose structure is also in another set."""
    if other is None:
        return np.zeros(len(frames), bool)
    return np.isin(frames.structure_hashes, other.structure_hashes)


def cross_evaluation(
    found: Mapping[str, Mapping[str, Residuals | Sequence[Residuals]]],
    training: Mapping[str, FrameSet], *, leave_out: FrameSet | None = None, **options: Any,
) -> list[Cell]:  # fmt: skip
    """The matrix, in the order of models, then sets.

    Args:
        found: model -> set -> residuals, one per training seed where there are several.
        training: model -> all frames that it was fitted on, validation included; models without any are untouched.
        leave_out: frames that count in no cell, such as those that two arms share.
        options: of `mlipkit.analysis.residuals.figures`.

    Raises:
        DataError: training frames of a model that is not there.
    """
    unknown = sorted(set(training) - set(found))
    if unknown:
        raise DataError(f"no residuals of {', '.join(unknown)}", where="cross_evaluation", expected=list(found))
    cells = []
    for model, sets in found.items():
        for name, given in sets.items():
            parts = [given] if isinstance(given, Residuals) else list(given)
            parts = [part.select(~is_in(part.frames, leave_out)) for part in parts]
            seen = is_in(parts[0].frames, training.get(model))
            rest = [part.select(~is_in(part.frames, training.get(model))) for part in parts]
            rows = [table_row(some, **options) if len(some[0]) else None for some in (parts, rest)]
            cells.append(Cell(model, name, int(seen.sum()), *rows))
    return cells


def density_pairs(a: FrameSet, b: FrameSet, tolerance: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Most pairs (rows of a [n], rows of b [n]) of frames of equal density, each frame once.

    Args:
        a, b: sets; frames that are in both are paired with none, as they say nothing of a difference.
        tolerance: share of the mean density by which a pair may differ.
    """
    rows = [np.flatnonzero(~is_in(one, other)) for one, other in ((a, b), (b, a))]
    density = [densities(one)[mine] for one, mine in zip((a, b), rows, strict=True)]
    known = np.concatenate([x[np.isfinite(x)] for x in density])
    if not len(known):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    i, j = match(density[0], density[1], tolerance * float(known.mean()))
    return rows[0][i], rows[1][j]
