"""Where the time of one MD step of 32 ethanols goes: products, our own loops, everything small.

    python benchmarks/step_shares.py

PaiNN 128 x 3, 20 radial functions, 5 Å, one thread, energies and forces. Shares are of the profiler's self time, which
also costs time itself: take the shares, not the milliseconds.
"""

from __future__ import annotations

import torch
from ase.build import molecule
from records import command, keep
from torch.profiler import ProfilerActivity, profile

from mlipkit.md import state_from_atoms
from mlipkit.md.forces import PotentialForces
from mlipkit.models import Potential, build_encoder

REPLICAS, CALLS, WARM_UP = 32, 100, 30
PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm")
LOOPS = ("Layers", "LayersBackward")


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    encoder = build_encoder("painn", features=128, layers=3, cutoff=5.0, n_radial=20)
    forces = PotentialForces(Potential(encoder, atomic_energies={1: 0.0, 6: 0.0, 8: 0.0}))
    images = [molecule("CH3CH2OH") for _ in range(REPLICAS)]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.05, seed=seed)
    state = state_from_atoms(images, seed=list(range(REPLICAS)))
    for _ in range(WARM_UP):
        forces(state)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(CALLS):
            forces(state)
    spent = {event.key: event.self_cpu_time_total / CALLS / 1e3 for event in seen.key_averages()}
    total = sum(spent.values())
    shares = {
        "products": sum(spent.get(name, 0.0) for name in PRODUCTS) / total,
        "own loops (edges, gates, updates)": sum(spent.get(name, 0.0) for name in LOOPS) / total,
    }
    shares["everything else"] = 1 - sum(shares.values())
    keep("step_shares", {"job": "painn.md.ethanol_x32", "ms": total, "shares": shares, "command": command()})


if __name__ == "__main__":
    main()
