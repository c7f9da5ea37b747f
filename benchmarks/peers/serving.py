"""The server that every engine of `bench.py` is: it does repetitions of a job when asked, and says what they cost.

Runs in the engine's own environment and knows nothing of mlipkit; needs NumPy, PyTorch and ASE. One JSON object a line,
in on stdin, out on stdout:

    {"open": job, "threads": 1, "tuned": true, "device": "cpu", "structures": path}  ->  {"facts": {...}}
    {"turn": seconds}  ->  {"cpu": [s, ...], "wall": [s, ...], "peak_mib": ...}

A process does one job and ends with its stdin: its peak memory is what a process of a user takes that does this job,
imports included. (A forked child would be charged for the libraries that it maps itself, not for its parent's.)
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

PACKAGES = (
    "mlipkit", "schnetpack", "graph-pes", "torch-geometric", "torch-sim-atomistic", "torch", "numpy", "ase", "vesin",
    "matscipy", "numba", "nvalchemi-toolkit-ops",
)  # fmt: skip


@dataclass
class Work:
    """A job made ready: one repetition, and what is to be known about it (edges, atoms, parameters)."""

    repeat: Callable[[], object]
    facts: dict[str, Any]


@dataclass
class Batch:
    """Some structures as float32 tensors, with the same edges for every engine.

    numbers, system [N]; positions, forces, velocities (Å/fs) [N,3]; cell [S,3,3]; pbc [S,3]; n_atoms, energy [S];
    edge_index [2,E] (row 0 neighbour j, row 1 centre i), shift [E,3].
    """

    numbers: Tensor
    positions: Tensor
    cell: Tensor
    pbc: Tensor
    system: Tensor
    n_atoms: Tensor
    edge_index: Tensor
    shift: Tensor
    energy: Tensor
    forces: Tensor
    velocities: Tensor

    @property
    def offsets(self) -> Tensor:
        """Cartesian shift of each edge [E,3], Å."""
        senders = self.system[self.edge_index[0]]
        return torch.einsum("ek,ekl->el", self.shift.to(self.cell.dtype), self.cell[senders])

    @property
    def facts(self) -> dict[str, int]:
        return {"atoms": len(self.numbers), "edges": self.edge_index.shape[1], "structures": len(self.n_atoms)}


def batch(context: Mapping[str, Any]) -> Batch:
    """The structures of the opened job, on its device."""
    name = context["job"]["system"]
    with np.load(context["structures"]) as arrays:
        fields = {k: torch.from_numpy(arrays[f"{name}/{k}"]) for k in Batch.__dataclass_fields__}
    fields = {k: v.float() if v.is_floating_point() else v for k, v in fields.items()}
    return Batch(**{k: v.to(context["device"]) for k, v in fields.items()})


def frames_of(context: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """What a loading job reads: numbers [n], positions [F,n,3], energy [F], forces [F,n,3]."""
    with np.load(context["structures"]) as arrays:
        return tuple(arrays[f"frames/{k}"] for k in ("numbers", "positions", "energy", "forces"))


def endless(loader: Iterable) -> Callable[[], Any]:
    """The next batch of a loader at each call, epoch after epoch."""
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    return lambda: next(batches)


def atoms_of(context: Mapping[str, Any]):
    """The first structure of the opened job as ASE atoms, start of an MD job.

    Weights are random and nothing holds a molecule together: masses are a hundred times the real ones, so that atoms
    move, but no neighbour is lost within a repetition, and every engine does the same work.
    """
    from ase import Atoms, units

    part = batch({**context, "device": "cpu"})
    n = int(part.n_atoms[0])
    cell, pbc = part.cell[0].double().numpy(), part.pbc[0].numpy()
    atoms = Atoms(part.numbers[:n].numpy(), part.positions[:n].double().numpy(), cell=cell, pbc=pbc)
    atoms.set_masses(100.0 * atoms.get_masses())
    atoms.set_velocities(part.velocities[:n].double().numpy() / 10.0 / units.fs)
    return atoms


def ase_md(atoms, calculator, steps: int) -> Callable[[], None]:
    """Langevin MD of ASE through an engine's own calculator: `steps` steps from the same start each time."""
    from ase import units
    from ase.md.langevin import Langevin

    atoms.calc = calculator
    positions, velocities = atoms.positions.copy(), atoms.get_velocities()
    rng = np.random.default_rng(0)

    def repeat() -> None:
        atoms.positions = positions
        atoms.set_velocities(velocities)
        Langevin(atoms, 0.5 * units.fs, temperature_K=300.0, friction=0.01 / units.fs, rng=rng).run(steps)

    return repeat


def trainer(module: torch.nn.Module, predict: Callable[[], tuple[Tensor, Tensor]], part: Batch) -> Callable[[], None]:
    """One training step: energy and force loss, second backward, fused AdamW. The same lines for every engine.

    Args:
        predict: energy [S] and forces [N,3] of `part`, with the graph for the second backward.
    """
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-4, weight_decay=0.0, fused=True)

    def repeat() -> None:
        optimiser.zero_grad(set_to_none=True)
        energy, forces = predict()
        loss = ((energy.to(part.energy.dtype) - part.energy) / part.n_atoms).square().mean()
        loss = loss + 10.0 * (forces - part.forces).square().mean()
        loss.backward()
        optimiser.step()

    return repeat


def sizes(module: torch.nn.Module) -> dict[str, int]:
    """Number of weights, and without embedding tables: these have a row for as many elements as an engine likes."""
    tables = {id(p) for m in module.modules() if "mbedding" in type(m).__name__ for p in m.parameters(recurse=False)}
    weights = {id(p): p.numel() for p in module.parameters()}
    return {
        "parameters": sum(weights.values()),
        "without_embedding": sum(n for which, n in weights.items() if which not in tables),
    }


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peak_mib() -> float:
    """Largest resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def turn(work: Work, seconds: float, device: str) -> dict[str, Any]:
    """Repetitions until `seconds` have passed, at least one."""
    cpu, wall, begin = [], [], time.perf_counter()
    while not wall or time.perf_counter() - begin < seconds:
        cpu0, wall0 = time.process_time(), time.perf_counter()
        work.repeat()
        if device != "cpu":
            torch.cuda.synchronize()
        cpu.append(time.process_time() - cpu0)
        wall.append(time.perf_counter() - wall0)
    peak = peak_mib() if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20
    return {"cpu": cpu, "wall": wall, "peak_mib": peak}


def _job(request: dict[str, Any], build: Callable[[dict[str, Any]], Work], lines: Any, answer: Callable) -> None:
    """The life of the opened job."""
    torch.set_num_threads(request["threads"])
    torch.set_flush_denormal(request["tuned"])
    torch.manual_seed(0)
    context = {"job": request["open"], "device": request["device"], "structures": request["structures"]}
    work = build(context)
    # Warm-up: lazily made parts, just-in-time compilers (seconds, the first time), optimiser state.
    first = last = turn(work, 0.0, request["device"])["wall"][0]
    if first < 20.0:
        last = turn(work, 0.0, request["device"])["wall"][0]
    gc.collect()
    name = torch.cuda.get_device_name() if request["device"] != "cpu" else "cpu"
    answer({"facts": work.facts, "versions": versions(), "device_name": name, "first_s": first, "repeat_s": last})
    for line in lines:
        answer(turn(work, json.loads(line)["turn"], request["device"]))


def serve(build: Callable[[dict[str, Any]], Work]) -> None:
    """Answer requests until stdin ends. `build` makes the job ready from {"job", "device", "structures"}."""
    # What libraries print must not mix with answers.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(reply: dict[str, Any]) -> None:
        out.write(json.dumps(reply) + "\n")
        out.flush()

    answer({"ready": versions()})
    line = sys.stdin.readline()
    if not line:
        return
    try:
        _job(json.loads(line), build, sys.stdin, answer)
    except BaseException as error:
        traceback.print_exc()
        answer({"error": f"{type(error).__name__}: {error}"[:300]})
