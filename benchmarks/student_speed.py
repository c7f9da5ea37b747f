"""How fast are students beside their teacher: MD steps per second on this machine, one system and a batch.

    python benchmarks/student_speed.py                          # ethanol, SO3LR against PaiNN, ViSNet, SchNet, EGNN
    python benchmarks/student_speed.py --teacher universal:chgnet --data FILE@0
    python benchmarks/student_speed.py --threads 2              # by wall time: on a quiet machine alone
    python benchmarks/student_speed.py --batch 20 --seconds 10 --device cuda

Both go through the same engine (`mlipkit.md`, Langevin, numbers checked alone, frames stored every 20th step), in the
precision in which each computes. Rates are steps of all systems together per second of CPU time of this process (of
wall time on a GPU and with several threads), the median of three stretches; the load of the machine (mean of a minute)
is kept beside them. A line per potential goes to `results/student_speed.jsonl`. Students have new weights: speed does
not depend on them, but errors do, so a ratio counts only beside the errors of the same students.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

import torch
from records import command, keep

from mlipkit.data import FrameSet, read, samples
from mlipkit.md import PotentialForces, maxwell_boltzmann, simulate, state_from_atoms
from mlipkit.models import Potential, build_encoder, load

STUDENTS: dict[str, dict[str, Any]] = {
    "painn": {"features": 64, "layers": 3}, "visnet": {"features": 64, "layers": 3, "heads": 8},
    "schnet": {"features": 64, "layers": 3}, "egnn": {"features": 64, "layers": 3},
}  # fmt: skip
STRETCHES = 3


def rate(potential: Any, atoms: Any, batch: int, seconds: float) -> tuple[float, int]:
    """Steps of all systems per second, and steps made."""
    own = potential.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if own else time.perf_counter
    state = state_from_atoms([atoms.copy() for _ in range(batch)], seed=1, device=potential.device)
    maxwell_boltzmann(state, 300.0, 2)
    # A student without training would not hold a molecule together.
    quiet = dict.fromkeys(("max_force", "overlap", "temperature", "broken_bonds", "lone_atoms", "energy_drift"), False)
    provider, done, rates = PotentialForces(potential), 0, []
    with tempfile.TemporaryDirectory() as folder:

        def go(steps: int) -> float:
            nonlocal done
            done += steps
            begin = clock()
            simulate(state, provider, "langevin", steps=done, folder=folder, timestep=0.01, stride=20, checks=quiet,
                     options={"temperature": 300.0, "friction": 0.01}, checkpoint_every=10**9)  # fmt: skip
            if potential.device.type != "cpu":
                torch.cuda.synchronize()
            return clock() - begin

        go(5)
        first = go(10) / 10
        steps = max(10, int(seconds / STRETCHES / max(first, 1e-6)))
        rates = [batch * steps / go(steps) for _ in range(STRETCHES)]
    return statistics.median(rates), done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="universal:so3lr")
    parser.add_argument("--data", default="", help="a structure file, with @frame; ethanol when left out")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--cutoff", type=float, default=5.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_flush_denormal(True)
    frames: FrameSet = read(given.data) if given.data else samples.load("ethanol_300K")
    atoms = frames.atoms(0)
    atoms.calc = None
    teacher = load(given.teacher).to(given.device).eval()
    found: dict[str, dict[int, float]] = {}
    for name in (given.teacher, *STUDENTS):
        if name == given.teacher:
            potential: Any = teacher
        else:
            options = {**STUDENTS[name], "cutoff": given.cutoff}
            elements = sorted(set(atoms.numbers.tolist()))
            options |= {"elements": elements} if name == "egnn" else {}
            made = build_encoder(name, seed=0, **options)
            potential = Potential(made, atomic_energies=dict.fromkeys(elements, 0.0)).to(given.device).eval()
        found[name] = {}
        for batch in (1, given.batch):
            found[name][batch], steps = rate(potential, atoms, batch, given.seconds)
            keep("student_speed", {
                "command": command(), "potential": name, "dtype": str(potential.dtype).removeprefix("torch."),
                "device": given.device, "threads": given.threads, "cpus": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
                "atoms": len(atoms), "batch": batch, "steps": steps,
                "system_steps_per_s": found[name][batch],
                "times_the_teacher": found[name][batch] / found[given.teacher][batch],
            })  # fmt: skip


if __name__ == "__main__":
    main()
