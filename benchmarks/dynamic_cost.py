"""Cost of a training step through roll-outs of S structures, against S times that of single structures.

    OMP_NUM_THREADS=1 python benchmarks/dynamic_cost.py                 # everything, a few minutes
    OMP_NUM_THREADS=1 python benchmarks/dynamic_cost.py --only ethanol_painn

Time: CPU seconds of making the batch, loss, gradients and optimiser step for the same number of start points, lengths
taken in turn, the least of several rounds (other work on the machine only adds). `ratio` is t(S) / (S t(1)): at most
1.2 without recomputation and 1.7 with it. Memory: peak of a process of its own that makes two such steps, beside one
that only makes the batch. A validation roll-out of S structures stands beside it, apart. Appends lines to
`results/dynamic_cost.jsonl`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from records import command, keep

CASES: dict[str, dict[str, Any]] = {
    "ethanol_painn": {"system": "ethanol", "encoder": "painn", "points": 32},
    "ethanol_egnn": {"system": "ethanol", "encoder": "egnn", "points": 32},
    "water_painn": {"system": "water", "encoder": "painn", "points": 2},
    "water_schnet": {"system": "water", "encoder": "schnet", "points": 2},
}
LENGTHS = (1, 2, 4, 8, 16)
ROUNDS = 5


def runs_of(system: str):
    from mlipkit.data import FrameSet, samples
    from mlipkit.strategies.dynamic import aimd_runs

    if system == "ethanol":
        frames = samples.load("ethanol_nve")
        return aimd_runs(frames.select(np.flatnonzero(frames.trajectory < 2)))
    # A cell of water whose atoms swing: what a step costs does not hang on where the labels come from.
    start = samples.load("water_liquid").atoms(0)
    rng, n = np.random.default_rng(0), len(start)
    swing, turn = rng.normal(0, 0.05, (n, 3)), rng.uniform(0, 2 * np.pi, (n, 3))
    times = 0.5 * np.arange(60)
    positions = start.positions + swing * np.sin(0.1 * times[:, None, None] + turn)
    forces = rng.normal(0, 1, positions.shape)
    return aimd_runs(FrameSet.from_arrays(
        start.numbers, positions, cell=start.cell.array, pbc=start.pbc, energy=np.zeros(60), forces=forces,
        trajectory=0, time=times,
    ))  # fmt: skip


class Step:
    """One training step of roll-outs."""

    def __init__(self, case: dict[str, Any], length: int, recompute: bool) -> None:
        from mlipkit.models import Potential, build_encoder
        from mlipkit.strategies.dynamic import DynamicRecipe, RolloutSettings, SequenceSource
        from mlipkit.training import TrainSettings
        from mlipkit.training.optimise import adamw

        runs = runs_of(case["system"])
        elements = list(runs.frames.elements)
        options = {"features": 64, "layers": 2, "cutoff": 5.0}
        if case["encoder"] == "egnn":
            options["elements"] = elements
        torch.manual_seed(0)
        encoder = build_encoder(case["encoder"], **options)
        self.model = Potential(encoder, atomic_energies=dict.fromkeys(elements, 0.0))
        self.source = SequenceSource(runs, 5.0, torch.float32, [length])
        self.points = np.arange(case["points"])
        self.term = DynamicRecipe(rollout=RolloutSettings(recompute=recompute)).term
        self.optimiser = adamw(self.model, TrainSettings())
        self.runs, self.length = runs, length

    def batch(self):
        return self.source.batch(self.points)

    def go(self) -> float:
        """CPU seconds of one step."""
        from mlipkit.training.objective import StepState

        begin = time.process_time()
        batch = self.batch()
        self.optimiser.zero_grad(set_to_none=True)
        loss, _ = self.term(StepState(self.model, extra=batch.extra), batch.graph, batch.targets, None)
        loss.backward(inputs=list(self.model.parameters()))
        self.optimiser.step()
        return time.process_time() - begin

    def validate(self) -> float:
        """CPU seconds of as many validation roll-outs."""
        from mlipkit.strategies.dynamic import nve_rollouts

        begin = time.process_time()
        nve_rollouts(self.model, self.runs, self.source.points[self.points], self.length, equal_frames=False)
        return time.process_time() - begin


def peak(name: str, length: int, what: str) -> float:
    """MiB of a process of its own."""
    out = subprocess.run(
        [sys.executable, __file__, "--job", name, str(length), what], capture_output=True, text=True, check=False
    )
    if out.returncode:
        raise SystemExit(out.stderr)
    return float(out.stdout.split()[-1])


def job(name: str, length: int, what: str) -> None:
    from mlipkit.runs.process import peak_memory

    step = Step(CASES[name], length, what == "recompute")
    if what == "batch":
        step.batch()
        Step(CASES[name], 1, False).go()
    else:
        step.go()
        step.go()
    print(peak_memory() / 2**20)


def measure(name: str) -> None:
    case = CASES[name]
    for recompute in (False, True):
        steps = {length: Step(case, length, recompute) for length in LENGTHS}
        # The yardstick is a step of single structures that keeps its intermediate results.
        one = Step(case, 1, False)
        best = dict.fromkeys(LENGTHS, np.inf)
        first, validation = np.inf, dict.fromkeys(LENGTHS, np.inf)
        for number in range(ROUNDS + 1):
            first = min(first, one.go() if number else np.inf)
            for length, step in steps.items():
                seconds = step.go()
                best[length] = min(best[length], seconds if number else np.inf)
                if not recompute and number < 3:
                    validation[length] = min(validation[length], step.validate())
        for length in LENGTHS:
            base = peak(name, length, "batch")
            grown = peak(name, length, "recompute" if recompute else "keep") - base
            keep("dynamic_cost", {
                "case": name, "structures": length, "recompute": recompute, "points": case["points"],
                "step_cpu_ms": round(1e3 * best[length], 2), "single_cpu_ms": round(1e3 * first, 2),
                "ratio": round(best[length] / (length * first), 3), "limit": 1.7 if recompute else 1.2,
                "validation_cpu_ms": None if recompute else round(1e3 * validation[length], 2),
                "peak_mib_above_single_step": round(grown, 1), "command": command(),
            })  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CASES))
    parser.add_argument("--job", nargs=3, metavar=("CASE", "LENGTH", "WHAT"), help="internal")
    given = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    if given.job:
        job(given.job[0], int(given.job[1]), given.job[2])
        return
    for name in CASES:
        if given.only in (None, name):
            measure(name)


if __name__ == "__main__":
    main()
