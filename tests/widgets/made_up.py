"""Made-up sets and scores for the shift explorer: tests of what it shows need no descriptor."""

from __future__ import annotations

import numpy as np
from ase.build import molecule

from mlipkit.data import FrameSet
from mlipkit_widgets.shift_data import Points, ShiftData, ShiftSet

LIMITS = {1: 9.0, 6: 12.0, 8: 11.0}


def wobbling(n_frames: int, seed: int, width: float = 0.05, name: str = "made up", **table: object) -> FrameSet:
    """Ethanol whose atoms are each moved a little."""
    atoms = molecule("CH3CH2OH")
    moved = atoms.positions + width * np.random.default_rng(seed).normal(size=(n_frames, len(atoms), 3))
    return FrameSet.from_arrays(atoms.numbers, moved, source=name, **table)  # type: ignore[arg-type]


def points_of(frames: FrameSet, seed: int, shift: float = 0.0, k: int = 4) -> Points:
    """Scores around a centre per element; Q around half its limit, or around it where `shift` is 1."""
    random = np.random.default_rng(seed)
    numbers = np.asarray(frames.numbers)
    centre = np.stack([numbers % 5, numbers % 3, numbers % 4, numbers % 2], axis=1)[:, :k].astype(float)
    limit = np.array([LIMITS[int(z)] for z in numbers])
    q = limit * (0.5 + 0.5 * shift) * np.exp(0.1 * random.normal(size=len(numbers)))
    return Points(
        numbers, np.asarray(frames.offsets), centre + shift + 0.25 * random.normal(size=(len(numbers), k)), q,
        np.exp(random.normal(size=len(numbers))), limit,
    )  # fmt: skip


def two_sets(n_frames: int = 40) -> ShiftData:
    """A training set and one that is a little elsewhere, 9 atoms a frame."""
    sets = []
    for seed, name in enumerate(("cold", "hot")):
        frames = wobbling(n_frames, seed, 0.05 + 0.05 * seed, name, time=np.arange(n_frames) * 10.0, trajectory=0)
        sets.append(ShiftSet(name, frames, points_of(frames, seed, 0.4 * seed), fitted=seed == 0))
    return ShiftData(sets, (0.4, 0.2, 0.1, 0.05), {1: (3.0, 6.0), 6: (4.0, 8.0), 8: (4.0, 7.0)})


def large_set(n_frames: int = 500, size: int = 200, seed: int = 0) -> ShiftData:
    """100,000 atoms: frames of a random liquid."""
    random = np.random.default_rng(seed)
    numbers = np.tile(np.repeat([1, 6, 8], [size // 2, size // 4, size - size // 2 - size // 4]), 1)
    grid = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), -1).reshape(-1, 3)[:size] * 2.4
    moved = grid + 0.25 * random.normal(size=(n_frames, size, 3))
    frames = FrameSet.from_arrays(numbers, moved, cell=np.full((n_frames, 3), 14.4), pbc=[True] * 3, source="liquid")
    return ShiftData([ShiftSet("liquid", frames, points_of(frames, seed), fitted=True)], (0.4, 0.2), {1: (3.0, 6.0)})


def ethanol(n_frames: int = 30) -> ShiftData:
    """Real frames with labels, whose scores are made up: the hot ones lie apart."""
    from mlipkit.data import samples

    sets = []
    for number, name in enumerate(("ethanol_300K", "ethanol_600K")):
        frames = samples.load(name)[:n_frames]
        sets.append(
            ShiftSet(name, frames, points_of(frames, number, 0.6 * number), origin=f"sample:{name}@:{n_frames}")
        )
    sets[0].fitted = True
    return ShiftData(sets, (0.42, 0.21, 0.09, 0.06), {1: (3.0, 6.0), 6: (4.0, 8.0), 8: (4.0, 7.0)})
