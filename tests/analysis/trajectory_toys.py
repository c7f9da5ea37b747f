"""Small systems whose bonds, neighbours and motion are known."""

from __future__ import annotations

import numpy as np

from mlipkit.data import FrameSet

ANGLE = np.deg2rad(104.5)


def water_box(n: int = 27, edge: float = 12.0, length: float = 0.96, frames: int = 1, seed: int = 0) -> FrameSet:
    """`n` rigid water molecules on a grid, turned at random, wrapped into the cell; elements in random order."""
    rng = np.random.default_rng(seed)
    side = round(n ** (1 / 3))
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3) * edge / side
    numbers = np.tile([8, 1, 1], len(sites))
    shuffled = rng.permutation(len(numbers))
    arms = length * np.array([[0, 0, 0], [1, 0, 0], [np.cos(ANGLE), np.sin(ANGLE), 0]])
    placed = []
    for _ in range(frames):
        turned = np.stack([arms @ np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in sites])
        placed.append(((sites[:, None] + turned).reshape(-1, 3) % edge)[shuffled])
    return FrameSet.from_arrays(numbers[shuffled], np.array(placed), cell=np.eye(3) * edge, pbc=[True] * 3)


def run(numbers, positions, step: float, edge: float | None = None, start: float = 0.0) -> FrameSet:
    """One run: positions [T,n,3], `step` fs between frames, a cube of `edge` Å or free."""
    box = {} if edge is None else {"cell": np.eye(3) * edge, "pbc": [True] * 3}
    time = start + step * np.arange(len(positions))
    return FrameSet.from_arrays(numbers, np.asarray(positions, float), time=time, trajectory=0, **box)


def proton_run(distances, step: float = 500.0, gap: float = 2.9) -> FrameSet:
    """C-O-H beside a chloride: the hydrogen on the line from O (atom 1) to Cl (atom 3), `distances` [T] Å from O."""
    x = np.asarray(distances, float)
    positions = np.zeros((len(x), 4, 3))
    positions[:, 0, 0] = -1.4
    positions[:, 2, 0] = x
    positions[:, 3, 0] = gap
    return run([6, 8, 1, 17], positions, step)


def complex_of(chlorides: int, distance: float = 2.3) -> np.ndarray:
    """Co at the centre, `chlorides` corners of a tetrahedron at `distance` Å, the others 6 Å away: positions [5,3]."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    far = np.where(np.arange(4) < chlorides, distance, 6.0)
    return np.concatenate([np.zeros((1, 3)), corners * far[:, None]])
