"""What a step of MD costs beside the model: integrator, thermostat, neighbour lists, figures, checks, files.

    python benchmarks/md_overhead.py --replicas 1 32

Ethanol, Langevin 300 K, 0.5 fs, a frame every 20 steps and all checks, as `simulate` does by default. The model is
replaced by springs whose own time is taken off; CPU time, difference of a long and a short run. Appends a JSON line per
number of replicas to `results/md_overhead.jsonl`, with the CPU time of one call of the real potential beside it.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import torch
from ase.build import molecule
from records import command, keep

import mlipkit as mk
from mlipkit.md import PotentialForces, maxwell_boltzmann, simulate, state_from_atoms
from mlipkit.models.contract import Prediction


class Springs:
    """Each atom on a spring to where it was first seen, with the face of a potential."""

    cutoff, device = 5.0, torch.device("cpu")

    def __init__(self) -> None:
        self.seconds, self.rest = 0.0, torch.empty(0)

    def check_elements(self, numbers) -> None:
        """All are known."""

    def __call__(self, graph, forces=True, stress=False) -> Prediction:
        begin = time.process_time()
        if len(self.rest) != len(graph.positions):
            self.rest = graph.positions.clone()
        arm = graph.positions - self.rest
        atoms = 2.5 * arm.square().sum(1)
        energy = torch.zeros(len(graph.n_atoms), dtype=torch.float64).index_add_(0, graph.system, atoms)
        answer = Prediction(energy=energy, forces=-5.0 * arm, stress=None, features=None, energies=atoms)
        self.seconds += time.process_time() - begin
        return answer


def start(replicas: int):
    state = state_from_atoms(molecule("CH3CH2OH"), seed=1, replicas=replicas)
    maxwell_boltzmann(state, 300.0, seed=2)
    return state


def overhead(replicas: int, steps: int, short: int = 40) -> float:
    """CPU seconds per step beside the springs."""
    taken = []
    for n in (short, short, short + steps):  # the first one warms up
        springs = Springs()
        begin = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            simulate(start(replicas), PotentialForces(springs), steps=n, folder=folder, options={"temperature": 300.0})  # type: ignore[arg-type]
        taken.append(time.process_time() - begin - springs.seconds)
    return (taken[2] - taken[1]) / steps


def call(replicas: int, potential: str, repeats: int = 30) -> float:
    """CPU seconds of one force call, median."""
    state, forces = start(replicas), PotentialForces(mk.load(potential))
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        forces(state)
        taken.append(time.process_time() - begin)
    return sorted(taken)[repeats // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--potential", default="sample:ethanol_1000")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for replicas in args.replicas:
        beside, model = overhead(replicas, args.steps), call(replicas, args.potential)
        line = {
            "replicas": replicas,
            "us_per_step_beside_the_model": round(beside * 1e6, 1),
            "us_per_step_and_replica": round(beside * 1e6 / replicas, 1),
            "us_per_model_call": round(model * 1e6, 1),
            "share": round(beside / (beside + model), 4),
            "command": command(),
        }
        keep("md_overhead", line)


if __name__ == "__main__":
    main()
