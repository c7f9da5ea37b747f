"""CPU time and peak memory of the analysis of trajectories of 1,000 and 10,000 frames of 192 atoms.

    python benchmarks/trajectory_analysis.py

Frames are a frame of the packaged liquid water, doubled along one axis, with fresh thermal noise. Every measurement is
a process of its own. Appends JSON lines to `results/trajectory_analysis.jsonl`; `seconds_per_1000` is CPU time of the
analysis alone, `peak_mib` the memory beyond that of the frames and imports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results" / "trajectory_analysis.jsonl"
JOBS = ("bonds", "rdf_6A", "msd", "coordination", "covalent_graph", "density")
SIZES = (1_000, 10_000)


def frames_of(n: int):
    from mlipkit.data import FrameSet, samples

    first = samples.load("water_liquid").frame(0)
    cell = first["cell"]
    numbers = np.tile(first["numbers"], 2)
    place = np.concatenate([first["positions"], first["positions"] + cell[0]])
    rng = np.random.default_rng(0)
    positions = np.empty((n, len(place), 3))
    for frame in positions:
        frame[:] = place + rng.normal(0.0, 0.03, place.shape)
    doubled = cell * np.array([[2.0], [1], [1]])
    return FrameSet.from_arrays(
        numbers, positions, cell=doubled, pbc=[True] * 3, time=np.arange(n) * 500.0, trajectory=0, source="grown"
    )


def job(name: str, n: int) -> dict[str, float]:
    from mlipkit import analysis as a
    from mlipkit.runs.process import peak_memory

    frames = frames_of(n)
    work = {
        "bonds": lambda: a.summarise_bonds(a.bond_lengths(frames, "O-H", "soft")),
        "rdf_6A": lambda: a.rdf(frames),
        "msd": lambda: a.msd(frames),
        "coordination": lambda: a.coordination(frames, "O", "H", 1.3).changes(),
        "covalent_graph": lambda: a.species(a.reactions(frames).history),
        "density": lambda: a.summarise_density(frames),
    }[name]
    work_on_few(a, frames)
    before, begun = peak_memory(), time.process_time()
    work()
    return {"cpu": time.process_time() - begun, "peak": (peak_memory() - before) / 2**20}


def work_on_few(a, frames) -> None:
    """Imports and caches are paid for once per process, not per frame."""
    few = frames[:4]
    a.rdf(few, bins=10), a.msd(few, origin="first", blocks=0), a.summarise_bonds(a.bond_lengths(few))
    a.species(a.reactions(few).history), a.coordination(few, "O", "H", 1.3).changes(), a.summarise_density(few)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", nargs=2, metavar=("NAME", "FRAMES"), help="internal")
    args = parser.parse_args()
    if args.job:
        print(json.dumps(job(args.job[0], int(args.job[1]))))
        return
    RESULTS.parent.mkdir(exist_ok=True)
    for n in SIZES:
        for name in JOBS:
            out = subprocess.run(
                [sys.executable, __file__, "--job", name, str(n)], capture_output=True, text=True, check=False,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            if out.returncode:
                raise SystemExit(out.stderr)
            found = json.loads(out.stdout)
            row = {
                "job": name, "frames": n, "atoms": 192, "seconds_per_1000": round(found["cpu"] / n * 1000, 4),
                "peak_mib": round(found["peak"], 1), "command": "python benchmarks/trajectory_analysis.py",
            }  # fmt: skip
            print(json.dumps(row))
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
