"""What adaptation costs: many molecules at once beside one after the other, and a step of MD beside the plain step.

    python benchmarks/taip_cost.py                 # everything, one line each to results/taip_cost.jsonl
    python benchmarks/taip_cost.py --only at_once  # molecules at once: structures per second, ratio to the loop
    python benchmarks/taip_cost.py --only md       # MD: CPU time of a force call of every strategy, ratio to plain
    python benchmarks/taip_cost.py --only products # counted matrix products of each part, and their ratio to plain

CPU time of this process, medians; other processes slow it by what they take of caches and cores (`load`).
Fresh weights: cost hangs on sizes only. Products are counted, so their ratio is what adaptation would cost if all of it
ran at the speed of the plain step.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from records import command, keep
from torch.utils.flop_counter import FlopCounterMode

from mlipkit.data import NeighbourCache, collate, fit_atomic_energies, samples
from mlipkit.data.graph import Graph
from mlipkit.md import PotentialForces, maxwell_boltzmann, state_from_atoms
from mlipkit.models import Potential, build_encoder
from mlipkit.strategies.taip import TASKS, AdaptedForces, Adapter, AdaptSettings, MDAdaptation, TaipOptions, attach
from mlipkit.strategies.taip.stacked import Stacked

ENCODERS: dict[str, dict[str, Any]] = {
    "schnet": {}, "painn": {}, "egnn": {"elements": [1, 6, 8]}, "visnet": {},
}  # fmt: skip
SIZES = ((64, 2), (64, 3), (128, 3))
AT_ONCE = (8, 32, 64)
STRATEGIES: dict[str, dict[str, Any]] = {
    "none": {}, "nonsaving": {}, "save_every": {}, "save_every_k": {"every": 100}, "threshold": {"threshold": 1e9},
}  # fmt: skip
CHEAPER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nonsaving, hold 5": ({"hold": 5}, {}),
    "nonsaving, noise and types": ({}, {"pseudo_forces": 0.0}),
    **{
        f"nonsaving, {task} alone": ({}, {other: float(other == task) for other in TASKS}) for task in TASKS
    },
}  # fmt: skip
"""Ways to cost less: keywords of `MDAdaptation`, and of `AdaptSettings`."""


def potential(encoder: str, features: int, layers: int, sample: str) -> Potential:
    frames = samples.load(sample)
    made = Potential(
        build_encoder(encoder, seed=0, features=features, layers=layers, **ENCODERS[encoder]),
        atomic_energies=fit_atomic_energies(frames),
    )
    return attach(made, TaipOptions(), periodic=bool(frames.pbc.any())).eval()


def beside(works: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median CPU time of a call of each in ms, in turn, so that what the machine does meanwhile meets all alike; every
    call that counts comes after one of its own kind."""
    times = np.zeros((repeats + 1, len(works)))
    for turn in range(repeats + 1):
        for index, work in enumerate(works):
            work()
            begin = time.process_time()
            work()
            times[turn, index] = time.process_time() - begin
    return (1e3 * np.median(times[1:], axis=0)).tolist()


def facts() -> dict[str, Any]:
    return {
        "machine": platform.processor() or platform.machine(), "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1), "command": command(),
    }  # fmt: skip


def at_once(encoder: str, features: int, layers: int) -> None:
    """Adaptation and prediction of ethanol, one after the other and all at once."""
    frames = samples.load("ethanol_300K")
    made = potential(encoder, features, layers, "ethanol_300K")
    adapter, cache = Adapter(made, AdaptSettings(1e-5)), NeighbourCache(frames, made.cutoff)
    one = collate(frames, [0], cache)[0]
    for size in AT_ONCE:
        graph = collate(frames, range(size), cache)[0]

        def at_once(graph: Graph = graph, size: int = size) -> object:
            return adapter.predict_each(graph, range(size))

        plain, loop, together = beside([lambda: made(one), lambda: adapter.predict(one, [1]), at_once], 10)
        each = together / size
        keep("taip_cost", {
            "what": "at_once", "encoder": encoder, "features": features, "layers": layers, "structures": size,
            "plain_ms": plain, "loop_ms": loop, "at_once_ms": each, "times_loop": loop / each, **facts(),
        })  # fmt: skip


def products(encoder: str, features: int, layers: int) -> None:
    """Millions of multiplications and additions in matrix products, per ethanol: plain, and the parts of adaptation."""
    frames, size = samples.load("ethanol_300K"), 32
    made = potential(encoder, features, layers, "ethanol_300K")
    adapter, cache = Adapter(made, AdaptSettings(1e-5)), NeighbourCache(frames, made.cutoff)
    graph = collate(frames, range(size), cache)[0]
    stack = Stacked(made, graph)
    parts = {
        "plain": lambda: made(graph), "losses": lambda: adapter.losses(graph, range(size), stack),
        "adapted": lambda: adapter.predict_each(graph, range(size)),
        "prediction": lambda: Stacked(made, graph).predict(graph),
    }  # fmt: skip
    counted = {}
    for name, work in parts.items():
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            work()
        counted[name] = counter.get_total_flops() / size / 1e6
    counted["gradients"] = counted["adapted"] - counted["losses"] - counted["prediction"]
    keep("taip_cost", {
        "what": "products", "encoder": encoder, "features": features, "layers": layers, "structures": size,
        "mflop": {name: round(value, 3) for name, value in counted.items()},
        "times_plain": counted["adapted"] / counted["plain"], **facts(),
    })  # fmt: skip


def md(encoder: str, features: int, layers: int, sample: str, replicas: int) -> None:
    """A force call of every strategy."""
    made, frames = potential(encoder, features, layers, sample), samples.load(sample)
    state = state_from_atoms([frames[i] for i in range(replicas)], seed=list(range(replicas)))
    maxwell_boltzmann(state, 300.0, list(range(replicas)))
    plain = PotentialForces(made)
    repeats = 20 if replicas * len(frames[0]) < 50 else 5
    ways = {name: (more, {}) for name, more in STRATEGIES.items()} | CHEAPER
    for strategy, (more, weights) in ways.items():
        how: Any = strategy.partition(",")[0]
        forces = AdaptedForces(made, MDAdaptation(how, AdaptSettings(1e-5, **weights), **more))
        forces(state)

        def steps(forces: AdaptedForces = forces, count: int = more.get("hold", 1)) -> None:
            for _ in range(count):
                state.step += 1
                forces(state)

        base, found = beside([lambda: plain(state), steps], repeats)
        found /= more.get("hold", 1)
        keep("taip_cost", {
            "what": "md", "encoder": encoder, "features": features, "layers": layers, "system": sample,
            "replicas": replicas, "strategy": strategy, "plain_ms": base, "ms": found, "times_plain": found / base,
            **facts(),
        })  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=("at_once", "md", "products"))
    parser.add_argument("--encoder", choices=tuple(ENCODERS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    chosen = [given.encoder] if given.encoder else list(ENCODERS)
    for encoder in chosen if given.only in (None, "products") else ():
        for features, layers in SIZES:
            products(encoder, features, layers)
    if given.only in (None, "at_once"):
        for encoder in chosen:
            for features, layers in SIZES:
                at_once(encoder, features, layers)
    if given.only in (None, "md"):
        for encoder in chosen:
            for sample, replicas in (
                ("ethanol_300K", 1),
                ("ethanol_300K", 32),
                ("water_liquid", 1),
                ("water_liquid", 10),
            ):
                md(encoder, 64, 2, sample, replicas)


if __name__ == "__main__":
    main()
