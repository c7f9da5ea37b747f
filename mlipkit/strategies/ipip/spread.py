"""How sure students are of their labels: spread of a committee, or of one student under a little noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential

DRAWS, SHARE = 4, 0.2
"""Noisy copies of each frame, and their noise as a share of that of denoising (0.01 Å of 0.05 Å)."""


def spread(
    students: Sequence[BasePotential], frames: FrameSet, noise: float, seed: int, batch_size: int = 32
) -> np.ndarray:
    """Standard deviation of forces, eV/Å, averaged over the atoms of each frame [F].

    Args:
        students: several: apart from each other; one: between `DRAWS` copies with noise of `SHARE` times `noise`, Å.
    """
    from mlipkit.data import FrameSet as Frames
    from mlipkit.models import predict

    bare = frames.without_labels(velocities=False)
    if len(students) > 1:
        said = [np.asarray(predict(one, bare, batch_size).forces) for one in students]
    else:
        rng = np.random.default_rng(seed)
        said = []
        for _ in range(DRAWS):
            moved = np.array(bare.positions) + rng.normal(0.0, SHARE * noise, bare.positions.shape)
            copy = Frames.from_arrays(bare.numbers, moved, n_atoms=bare.n_atoms, cell=bare.cell, pbc=bare.pbc)
            said.append(np.asarray(predict(students[0], copy, batch_size).forces))
    each = np.sqrt(np.stack(said).var(0, ddof=1).sum(1))
    return np.add.reduceat(each, bare.offsets[:-1]) / bare.n_atoms
