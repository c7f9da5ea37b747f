"""mlipkit as an engine of `bench.py`; see `serving.py`."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from serving import Batch, Work, ase_md, atoms_of, batch, frames_of, serve, sizes, trainer

from mlipkit.data import FrameSet
from mlipkit.data.graph import Graph
from mlipkit.data.neighbours import neighbour_list
from mlipkit.models import ENCODERS, Potential, build_encoder
from mlipkit.training.batches import FrameSource


def potential(job: dict[str, Any]) -> Potential:
    options = {k: job[k] for k in ("features", "layers", "cutoff", "n_radial")}
    if job["model"] == "visnet":
        # PyG's ViSNet ends in gated equivariant blocks; edges are the same on both sides: no loops.
        made = build_encoder("visnet", **options, lmax=job["lmax"], heads=job["heads"])
        return Potential(made, atomic_energies={1: 0.0, 6: 0.0, 8: 0.0}, head="gated")
    return Potential(build_encoder(job["model"], **options), atomic_energies={1: 0.0, 6: 0.0, 8: 0.0})


def graph(part: Batch) -> Graph:
    return Graph(
        numbers=part.numbers, positions=part.positions, edge_index=part.edge_index, shift=part.shift, cell=part.cell,
        pbc=part.pbc, system=part.system, n_atoms=part.n_atoms,
    )  # fmt: skip


def own_md(model: Potential, context: dict[str, Any]) -> Work:
    """`simulate` as a run does it: trajectory, series of every step, checks, checkpoints, on disk."""
    # Here and not above: what a training takes of memory shall not hold what only simulations load.
    from mlipkit.md import PotentialForces, simulate, state_from_atoms

    job, start = context["job"], atoms_of(context)
    # Random forces heat the atoms up; a check that warns at every step is not what a simulation costs.
    model.scale.mul_(0.01)
    forces = PotentialForces(model)
    folder = Path(tempfile.mkdtemp(prefix="mlipkit-bench-"))

    def repeat() -> None:
        state = state_from_atoms(start, replicas=job["replicas"], device=context["device"])
        verdict = simulate(
            state, forces, "langevin", steps=job["steps"], folder=folder / "run", timestep=0.5,
            options={"temperature": 300.0, "friction": 0.01},
        )  # fmt: skip
        shutil.rmtree(folder / "run")
        if verdict.outcome == "failed" or state.step != job["steps"]:
            raise RuntimeError(f"the benchmark's MD failed: {verdict}")

    return Work(repeat, sizes(model))


def loading(context: dict[str, Any]) -> Work:
    """Batches of a training: random frames of a FrameSet, neighbour lists from the cache."""
    job = context["job"]
    numbers, positions, energy, forces = frames_of(context)
    count, n = positions.shape[:2]
    frames = FrameSet.from_arrays(
        np.tile(numbers, count), positions.reshape(-1, 3), np.full(count, n), energy=energy,
        forces=forces.reshape(-1, 3), source="benchmark",
    )  # fmt: skip
    source = FrameSource(frames, job["cutoff"], torch.float32)
    for index in range(count):
        source.cache.get(index)
    rng = np.random.default_rng(0)
    made = source.batch(np.arange(job["batch"])).graph

    def repeat() -> None:
        source.batch(rng.integers(0, count, job["batch"]))

    return Work(repeat, {"atoms": len(made.numbers), "edges": made.edge_index.shape[1]})


def neighbours(context: dict[str, Any]) -> Work:
    atoms, cutoff = atoms_of(context), context["job"]["cutoff"]
    arrays = atoms.positions, atoms.cell.array, atoms.pbc
    found = neighbour_list(*arrays, cutoff)[0].shape[1]
    return Work(lambda: neighbour_list(*arrays, cutoff), {"atoms": len(atoms), "edges": found})


def products(context: dict[str, Any]) -> Work:
    """2 GFLOP of float32 matrix product: what this machine can do."""
    a, b = (torch.randn(1000, 1000, device=context["device"]) for _ in range(2))
    return Work(lambda: torch.mm(a, b), {"gflop": 2.0})


def build(context: dict[str, Any]) -> Work:
    job = context["job"]
    kind = job["kind"]
    if kind in ("loading", "neighbours", "products"):
        return {"loading": loading, "neighbours": neighbours, "products": products}[kind](context)
    if job["model"] not in ENCODERS:
        raise LookupError(f"mlipkit has no encoder '{job['model']}' yet")
    model = potential(job).to(context["device"])
    if kind == "ase_md":
        from mlipkit.md import MlipCalculator

        return Work(ase_md(atoms_of(context), MlipCalculator(model), job["steps"]), sizes(model))
    if kind == "md":
        return own_md(model, context)
    part = batch(context)
    structures, facts = graph(part), {**part.facts, **sizes(model)}

    def fresh() -> Graph:
        """As it comes from the loader: a graph keeps index tables once made, and a training step meets new ones."""
        return dataclasses.replace(structures)

    if kind == "train":

        def predict() -> tuple[torch.Tensor, torch.Tensor]:
            said = model(fresh(), create_graph=True)
            return said.energy, said.forces

        return Work(trainer(model, predict, part), facts)
    model.eval()
    return Work(lambda: model(fresh()), facts)


if __name__ == "__main__":
    serve(build)
