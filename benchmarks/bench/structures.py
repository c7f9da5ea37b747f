"""The structures of all jobs, made from the embedded samples and written once for every engine to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlipkit.data import FrameSet, samples
from mlipkit.data.neighbours import neighbour_list

from .jobs import CUTOFF


def _tiled(frames: FrameSet, index: int, repeats: tuple[int, int, int], rng: np.random.Generator) -> dict:
    """A cell repeated, each atom moved by about 0.05 Å so that no copy equals another."""
    frame = frames.frame(index)
    cell = np.asarray(frame["cell"], float)
    grid = np.array(np.meshgrid(*map(np.arange, repeats), indexing="ij")).reshape(3, -1).T
    positions = (np.asarray(frame["positions"])[None] + (grid @ cell)[:, None]).reshape(-1, 3)
    numbers = np.tile(frame["numbers"], len(grid))
    positions = positions + rng.normal(scale=0.05, size=positions.shape)
    return {"numbers": numbers, "positions": positions, "cell": cell * np.array(repeats)[:, None], "pbc": frame["pbc"]}


def _together(parts: list[dict], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The arrays of `peers/serving.Batch`. Labels are random: their values change no cost."""
    edges, shifts, start = [], [], 0
    for part in parts:
        found, shift, _ = neighbour_list(part["positions"], part["cell"], part["pbc"], CUTOFF)
        edges.append(found + start)
        shifts.append(shift)
        start += len(part["numbers"])
    n_atoms = np.array([len(part["numbers"]) for part in parts])
    return {
        "numbers": np.concatenate([part["numbers"] for part in parts]).astype(np.int64),
        "positions": np.concatenate([part["positions"] for part in parts]),
        "cell": np.stack([np.asarray(part["cell"], float) for part in parts]),
        "pbc": np.stack([np.asarray(part["pbc"], bool) for part in parts]),
        "system": np.repeat(np.arange(len(parts)), n_atoms),
        "n_atoms": n_atoms,
        "edge_index": np.concatenate(edges, axis=1),
        "shift": np.concatenate(shifts),
        "energy": rng.normal(size=len(parts)),
        "forces": rng.normal(size=(start, 3)),
        # 300 K for a hydrogen atom is 0.027 Å/fs.
        "velocities": rng.normal(scale=0.015, size=(start, 3)),
    }


def write(path: Path) -> None:
    """Write ethanol_1, ethanol_32 (300 K), water_1, water_2 (288 atoms each), water_large (10,368), frames (1000)."""
    rng = np.random.default_rng(0)
    ethanol, water = samples.load("ethanol_300K"), samples.load("water_liquid")
    molecules = [dict(ethanol.frame(i)) for i in range(0, 960, 30)]
    liquid = [_tiled(water, index, (3, 1, 1), rng) for index in (0, 100)]
    systems = {
        "ethanol_1": molecules[:1],
        "ethanol_32": molecules,
        "water_1": liquid[:1],
        "water_2": liquid,
        "water_large": [_tiled(water, 0, (3, 6, 6), rng)],
    }
    arrays = {f"{name}/{key}": value for name, parts in systems.items() for key, value in _together(parts, rng).items()}
    n = int(ethanol.n_atoms[0])
    arrays["frames/numbers"] = np.asarray(ethanol.numbers[:n])
    arrays["frames/positions"] = ethanol.positions.reshape(-1, n, 3)
    arrays["frames/energy"] = np.asarray(ethanol.energy)
    arrays["frames/forces"] = ethanol.forces.reshape(-1, n, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
