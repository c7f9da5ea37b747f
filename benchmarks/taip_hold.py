"""What is gained and lost when adapted weights are held for some steps of MD: cost, and how far forces move.

    python benchmarks/taip_hold.py POTENTIAL START    # of a training with tasks; a file or sample of starting frames

One trajectory at 300 K with adaptation at every step; along it, at the same structures, forces of every variant. The
deviation from adapting at every step is set against what adaptation itself does to forces (every step against none):
their ratio is what matters, with another draw of the noise (`seed`) as the scale of chance. One line to
`results/taip_hold.jsonl`.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from records import command, keep

from mlipkit.data import read_source
from mlipkit.md import PotentialForces, maxwell_boltzmann, state_from_atoms
from mlipkit.md.ensembles import get_ensemble
from mlipkit.md.forces import evaluate
from mlipkit.models import Potential, load
from mlipkit.strategies.taip import AdaptedForces, AdaptSettings, MDAdaptation

HOLDS = (2, 5, 10, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("potential")
    parser.add_argument("start")
    parser.add_argument("--rate", type=float, default=1e-5)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    potential = load(given.potential)
    assert isinstance(potential, Potential)
    frames = read_source(given.start)
    images = [frames[index] for index in np.linspace(0, len(frames) - 1, given.replicas).round().astype(int)]
    state = state_from_atoms(images, seed=list(range(given.replicas)))
    maxwell_boltzmann(state, 300.0, list(range(given.replicas)))

    def adapting(hold: int = 1, seed: int = 0) -> AdaptedForces:
        return AdaptedForces(potential, MDAdaptation("nonsaving", AdaptSettings(given.rate, seed=seed), hold=hold))

    every, ensemble = adapting(), get_ensemble("nve")
    others = {"plain": PotentialForces(potential), "other_draw": adapting(seed=1)}
    others |= {f"hold_{hold}": adapting(hold) for hold in HOLDS}
    square, spent = dict.fromkeys(others, 0.0), dict.fromkeys((*others, "every"), 0.0)
    with torch.no_grad():
        ensemble.init(state)
        evaluate(state, every)
        for step in range(given.steps):
            # Numbers of steps and draws are those of the state: equal for all.
            begin = time.process_time()
            found = every(state).forces
            spent["every"] += (time.process_time() - begin) if step else 0.0
            for name, one in others.items():
                begin = time.process_time()
                forces = one(state).forces
                spent[name] += (time.process_time() - begin) if step else 0.0
                square[name] += float((forces - found).square().mean())
            ensemble.step(state, every, 0.5)
            state.step = step + 1
    deviation = {name: (value / given.steps) ** 0.5 for name, value in square.items()}
    said = command().replace(given.potential, "POTENTIAL")
    keep("taip_hold", {
        "atoms": len(images[0]), "replicas": given.replicas, "steps": given.steps, "rate": given.rate,
        "encoder": potential.describe()["encoder"], "rms_force_deviation_meV_per_A": {
            name: 1e3 * value for name, value in deviation.items()
        },
        "of_what_adaptation_does": {name: value / deviation["plain"] for name, value in deviation.items()},
        "times_plain": {name: value / spent["plain"] for name, value in spent.items()},
        "load": round(os.getloadavg()[0], 1), "command": said.replace(given.start, Path(given.start).name),
    })  # fmt: skip


if __name__ == "__main__":
    main()
