"""graph-pes, and TorchSim over graph-pes, as an engine of `bench.py`; see `serving.py`. Own environment."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from graph_pes import AtomicGraph
from graph_pes.models import PaiNN, SchNet
from graph_pes.utils.calculator import GraphPESCalculator
from serving import Batch, Work, ase_md, atoms_of, batch, serve, sizes, trainer

warnings.filterwarnings("ignore")


def potential(job: dict[str, Any]) -> torch.nn.Module:
    shared = {"cutoff": job["cutoff"], "channels": job["features"], "layers": job["layers"]}
    if job["model"] == "painn":
        return PaiNN(**shared, radial_features=job["n_radial"])
    return SchNet(**shared, expansion_features=job["n_radial"])


def graph(part: Batch, cutoff: float) -> AtomicGraph:
    ptr = torch.cat([part.n_atoms.new_zeros(1), part.n_atoms.cumsum(0)])
    return AtomicGraph(
        Z=part.numbers, R=part.positions, cell=part.cell, neighbour_list=part.edge_index.flip(0),
        neighbour_cell_offsets=part.shift.to(part.cell.dtype), properties={}, other={}, cutoff=cutoff,
        batch=part.system, ptr=ptr,
    )  # fmt: skip


def torch_sim_md(model: torch.nn.Module, context: dict[str, Any]) -> Work:
    """TorchSim's Langevin integrator over its own wrapper of graph-pes, no reporter."""
    import torch_sim as ts
    from torch_sim.models.graphpes import GraphPESWrapper
    from torch_sim.units import MetalUnits

    job, device = context["job"], torch.device(context["device"])
    wrapped = GraphPESWrapper(model.eval(), device=device, dtype=torch.float32, compute_stress=False)
    start = ts.io.atoms_to_state([atoms_of(context)] * job["replicas"], device, torch.float32)
    init, update = ts.nvt_langevin(
        model=wrapped, dt=torch.tensor(0.5 * MetalUnits.time, dtype=torch.float32, device=device),
        kT=torch.tensor(300.0 * MetalUnits.temperature, dtype=torch.float32, device=device), seed=0,
    )  # fmt: skip

    def repeat() -> None:
        state = init(start.clone())
        for _ in range(job["steps"]):
            state = update(state)

    return Work(repeat, sizes(model))


def build(context: dict[str, Any]) -> Work:
    job = context["job"]
    kind = job["kind"]
    model = potential(job).to(context["device"])
    if kind == "md":
        return torch_sim_md(model, context)
    if kind == "ase_md":
        calculator = GraphPESCalculator(model, device=context["device"])
        return Work(ase_md(atoms_of(context), calculator, job["steps"]), sizes(model))
    part = batch(context)
    structures = graph(part, job["cutoff"])
    if kind == "train":
        model.train()

        def predict() -> tuple[torch.Tensor, torch.Tensor]:
            said = model.predict(structures, ["energy", "forces"])
            return said["energy"], said["forces"]

        predict()  # makes the parts that wait for the elements
        return Work(trainer(model, predict, part), {**part.facts, **sizes(model)})
    model.eval()

    def repeat() -> None:
        model.predict(structures, ["energy", "forces"])

    return Work(repeat, {**part.facts, **sizes(model)})


if __name__ == "__main__":
    serve(build)
