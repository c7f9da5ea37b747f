"""What positions of four decimals, as those of MD17, cost roll-outs: the same runs exact, and rounded.

    python benchmarks/studies/dynamic_rounding.py POTENTIAL

Held-out runs of the packaged `ethanol_nve` are rolled out by a potential that was trained on others (of the study
`ethanol_nve`). One line goes to `results/dynamic_rounding.jsonl`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from records import command, keep

from mlipkit.data import FrameSet, samples, split
from mlipkit.models import load
from mlipkit.strategies.dynamic import aimd_runs, nve_rollouts

STRUCTURES, STARTS = 120, 32


def rounded(frames: FrameSet, decimals: int | None) -> FrameSet:
    """The frames with fewer digits and without velocities; None: all digits."""
    positions = np.asarray(frames.positions)
    if decimals is not None:
        positions = np.round(positions, decimals)
    return FrameSet.from_arrays(
        frames.numbers, positions, frames.n_atoms, energy=frames.energy, forces=frames.forces,
        trajectory=frames.trajectory, time=frames.time,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("potential")
    given = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    potential = load(given.potential).eval()
    test = split(samples.load("ethanol_nve"), 0.1, 0.2, by="trajectory", seed=0).test
    exact = aimd_runs(test, "file")
    points = aimd_runs(test, "difference").start_points(STRUCTURES)
    starts = points[np.linspace(0, len(points) - 1, STARTS).astype(int)]
    made = {
        "velocities of the file": exact, "velocities by difference": aimd_runs(rounded(test, None)),
        "four decimals": aimd_runs(rounded(test, 4)), "three decimals": aimd_runs(rounded(test, 3)),
    }  # fmt: skip
    line = {}
    truth = np.stack([exact.velocities(int(start)) for start in starts])
    for name, runs in made.items():
        found = nve_rollouts(potential, runs, starts, STRUCTURES)
        velocities = np.stack([runs.velocities(int(start)) for start in starts])
        line[name] = {
            "mepa": round(float(found.mepa().mean()), 5), "mepa_60": round(float(found.mepa(60).mean()), 5),
            "equal_frames": round(float(found.equal_frames().mean()), 5),
            "velocity_error_A_per_fs": float(np.sqrt(np.mean((velocities - truth) ** 2))),
            "apart_at_end_A": round(float(found.apart[:, -1, 0].mean()), 5),
        }  # fmt: skip
    keep("dynamic_rounding", {
        "structures": STRUCTURES, "starts": STARTS, "timestep_fs": 0.5,
        "velocity_rms_A_per_fs": float(np.sqrt(np.mean(truth**2))), "found": line,
        "command": command().replace(given.potential, "POTENTIAL"),
    })  # fmt: skip


if __name__ == "__main__":
    main()
