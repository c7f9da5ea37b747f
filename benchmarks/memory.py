"""Peak memory of reading and of training when the data set grows tenfold.

    python benchmarks/memory.py

Frames are the packaged ethanol frames, repeated with fresh noise so that no two are equal. Every measurement is a
process of its own; `base_mib` is what the imports alone take. Appends JSON lines to `results/memory.jsonl`.

read      extended XYZ -> FrameSet in memory: must grow by the arrays only (72 + 72 + 24 bytes and some per atom)
open      a FrameSet folder, one frame touched: must stay flat
train     300 steps from a memory-mapped FrameSet folder: must stay flat beyond the bounded neighbour cache
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from records import keep

SIZES = (2_000, 20_000, 200_000)


def frames_of(n: int):
    from mlipkit.data import FrameSet, samples

    frames = samples.load("ethanol_300K")
    atoms = int(frames.n_atoms[0])
    pick = np.arange(n) % len(frames)
    noise = np.random.default_rng(0).normal(0.0, 1e-3, (n, atoms, 3))
    return FrameSet.from_arrays(
        frames.numbers[:atoms],
        frames.positions.reshape(-1, atoms, 3)[pick] + noise,
        energy=frames.energy[pick],
        forces=frames.forces.reshape(-1, atoms, 3)[pick],
        source="grown",
    )


def job(kind: str, path: Path) -> None:
    if kind == "base":
        import mlipkit.data
    elif kind == "base_train":
        import mlipkit.training  # noqa: F401
    elif kind == "read":
        from mlipkit.data import read

        assert len(read(path)) > 0
    elif kind == "open":
        from mlipkit.data import FrameSet

        assert len(FrameSet.open(path)[-1]) == 9
    else:
        from mlipkit.data import FrameSet, fit_atomic_energies
        from mlipkit.models import Potential, build_encoder
        from mlipkit.training import TrainSettings, train

        frames = FrameSet.open(path)
        training, validation = frames[: len(frames) - 100], frames[len(frames) - 100 :]
        potential = Potential(
            build_encoder("painn", features=32, layers=2, cutoff=4.0), atomic_energies=fit_atomic_energies(validation)
        )
        with tempfile.TemporaryDirectory() as folder:
            train(potential, training, validation, TrainSettings(max_steps=300, max_epochs=10**6), folder=folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", nargs=2, metavar=("KIND", "PATH"), help="internal")
    args = parser.parse_args()
    if args.job:
        job(args.job[0], Path(args.job[1]))
        from mlipkit.runs.process import peak_memory

        print(peak_memory() / 2**20)
        return
    from mlipkit.data import write

    def measure(kind: str, path: Path) -> float:
        out = subprocess.run(
            [sys.executable, __file__, "--job", kind, str(path)], capture_output=True, text=True, check=False
        )
        if out.returncode:
            raise SystemExit(out.stderr)
        return float(out.stdout.split()[-1])

    base, base_train = measure("base", Path()), measure("base_train", Path())
    for n in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            frames = frames_of(n)
            store, text = frames.save(Path(folder) / "frames"), Path(folder) / "frames.extxyz"
            write(text, frames)
            del frames
            line = {
                "frames": n,
                "atoms": 9 * n,
                "arrays_mib": round(9 * n * (24 + 24 + 2) / 2**20, 1),
                "base_mib": round(base, 1),
                "base_train_mib": round(base_train, 1),
                "read_mib": round(measure("read", text), 1),
                "open_mib": round(measure("open", store), 1),
                "train_mib": round(measure("train", store), 1),
                "command": "python benchmarks/memory.py",
            }
        keep("memory", line)


if __name__ == "__main__":
    main()
