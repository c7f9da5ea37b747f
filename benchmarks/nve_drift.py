"""Does the total energy drift without a thermostat? Ethanol, velocity Verlet, a straight line fitted to E_pot + E_kin.

    python benchmarks/nve_drift.py
    python benchmarks/nve_drift.py --dtype float32 --timestep 1.0

Appends one JSON line to `results/nve_drift.jsonl`: drift with its standard error (from the spread of the slopes of ten
equal parts about the common line), the spread of the energy about the line, and what it was measured with.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from records import command, keep

import mlipkit as mk
from mlipkit.data import Series, read_source
from mlipkit.md import PotentialForces, maxwell_boltzmann, simulate, state_from_atoms

MILLI = 1000.0


def drift(time_ps: np.ndarray, energy: np.ndarray, n_blocks: int = 10) -> tuple[float, float, float]:
    """Slope of a straight line, its standard error from `n_blocks` blocks, and the spread about the line.

    The residuals of an oscillating energy are correlated, so they are averaged over blocks first: of these few means
    the error of a fitted slope is the textbook's.
    """
    slope, offset = np.polyfit(time_ps, energy, 1)
    rest = energy - (slope * time_ps + offset)
    usable = len(rest) // n_blocks * n_blocks
    means = rest[:usable].reshape(n_blocks, -1).mean(1)
    centres = time_ps[:usable].reshape(n_blocks, -1).mean(1)
    error = np.sqrt((means**2).sum() / (n_blocks - 2) / ((centres - centres.mean()) ** 2).sum())
    return float(slope), float(error), float(rest.std())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", default="sample:ethanol_1000")
    parser.add_argument("--start", default="sample:ethanol_300K@0")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--time-ps", type=float, default=50.0)
    parser.add_argument("--timestep", type=float, default=0.5)
    parser.add_argument("--temperature", type=float, default=300.0)
    parser.add_argument("--skin", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    potential = mk.load(args.potential)
    potential = potential.double() if args.dtype == "float64" else potential.float()
    atoms = read_source(args.start)[0]
    atoms.calc = None
    state = state_from_atoms(atoms)
    maxwell_boltzmann(state, args.temperature, seed=args.seed)
    forces = PotentialForces(potential, skin=args.skin)
    steps = round(args.time_ps * 1000 / args.timestep)
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        verdict = simulate(state, forces, "nve", steps=steps, folder=folder, timestep=args.timestep, stride=1000,
                           checkpoint_every=20_000)  # fmt: skip
        rows = Series(Path(folder) / "series" / "md").read(["time_fs", "total_energy", "temperature"])
    n = len(atoms)
    slope, error, spread = drift(rows["time_fs"] / 1000, rows["total_energy"] / n * MILLI)
    line = {
        "drift_meV_per_atom_ps": slope,
        "standard_error": error,
        "spread_meV_per_atom": spread,
        "mean_temperature_K": float(rows["temperature"].mean()),
        "steps": len(rows["time_fs"]) - 1,
        "rebuilds": forces.n_rebuilds,
        "verdict": verdict.outcome,
        "atoms": n,
        "cpu_s": round(time.process_time() - begin, 1),
        "torch": torch.__version__,
        "command": command(),
    }
    keep("nve_drift", line)


if __name__ == "__main__":
    main()
