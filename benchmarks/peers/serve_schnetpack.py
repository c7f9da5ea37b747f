"""SchNetPack as an engine of `bench.py`; see `serving.py`. Runs in SchNetPack's own environment."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
import schnetpack as spk
import schnetpack.transform as trn
import torch
from ase import Atoms, units
from schnetpack import properties
from schnetpack.data import ASEAtomsData, AtomsLoader
from schnetpack.interfaces import SpkCalculator
from schnetpack.md import Simulator, System
from schnetpack.md.calculators import SchNetPackCalculator
from schnetpack.md.integrators import VelocityVerlet
from schnetpack.md.neighborlist_md import NeighborListMD
from schnetpack.md.simulation_hooks import LangevinThermostat
from schnetpack.units import unit2internal
from serving import Work, ase_md, atoms_of, batch, endless, frames_of, serve, sizes, trainer

KEYS = {"energy_key": "energy", "force_key": "forces", "energy_unit": "eV", "position_unit": "Angstrom"}


def potential(job: dict[str, Any]) -> torch.nn.Module:
    cutoff, width = spk.nn.CosineCutoff(job["cutoff"]), job["features"]
    if job["model"] == "painn":
        radial = spk.nn.BesselRBF(n_rbf=job["n_radial"], cutoff=job["cutoff"])
        encoder = spk.representation.PaiNN(width, job["layers"], radial_basis=radial, cutoff_fn=cutoff)
    else:
        radial = spk.nn.GaussianRBF(n_rbf=job["n_radial"], cutoff=job["cutoff"])
        encoder = spk.representation.SchNet(width, job["layers"], radial_basis=radial, cutoff_fn=cutoff)
    return spk.model.NeuralNetworkPotential(
        representation=encoder,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(n_in=width, output_key="energy"),
            spk.atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
    )


def own_md(model: torch.nn.Module, context: dict[str, Any]) -> Work:
    """Its MD engine with a Langevin thermostat and nothing else: no logger, no check, no file."""
    job, start = context["job"], atoms_of(context)
    path = os.path.join(tempfile.mkdtemp(prefix="spk-bench-"), "model")
    model.spk_version = spk.__version__
    torch.save(model, path)
    neighbours = NeighborListMD(job["cutoff"], 0.5, trn.VesinNeighborList)
    calculator = SchNetPackCalculator(path, neighbor_list=neighbours, **KEYS)
    system = System()
    system.load_molecules([start], n_replicas=job["replicas"])
    velocities = torch.from_numpy(start.get_velocities()).float() * units.fs * unit2internal("Angstrom") / spk.units.fs
    simulator = Simulator(
        system, VelocityVerlet(0.5), calculator, [LangevinThermostat(300.0, 100.0)], progress=False,
    ).to(torch.float32).to(context["device"])  # fmt: skip
    positions, momenta = system.positions.clone(), system.masses * velocities.to(system.positions)
    momenta = momenta.expand_as(positions)

    def repeat() -> None:
        system.positions, system.momenta = positions.clone(), momenta.clone()
        simulator.simulate(job["steps"])

    return Work(repeat, sizes(model))


def loading(context: dict[str, Any]) -> Work:
    """Its database on disk behind its loader, with the fastest of its neighbour lists."""
    job = context["job"]
    numbers, positions, energy, forces = frames_of(context)
    folder = tempfile.mkdtemp(prefix="spk-bench-")
    data = ASEAtomsData.create(
        os.path.join(folder, "frames.db"), distance_unit="Ang", property_unit_dict={"energy": "eV", "forces": "eV/Ang"}
    )
    data.add_systems(
        [{"energy": np.array([e]), "forces": f} for e, f in zip(energy, forces, strict=True)],
        [Atoms(numbers, x) for x in positions],
    )
    lists = trn.VesinNeighborList(job["cutoff"])
    data.transforms = [lists, trn.CastTo32()]
    loader = AtomsLoader(data, batch_size=job["batch"], shuffle=True, drop_last=True)
    repeat = endless(loader)
    made = repeat()
    return Work(repeat, {"atoms": len(made[properties.Z]), "edges": len(made[properties.idx_i])})


def build(context: dict[str, Any]) -> Work:
    job = context["job"]
    kind = job["kind"]
    if kind == "loading":
        return loading(context)
    model = potential(job).to(context["device"])
    if kind == "md":
        return own_md(model, context)
    if kind == "ase_md":
        lists = trn.SkinNeighborList(trn.VesinNeighborList(job["cutoff"]), cutoff_skin=0.5)
        calculator = SpkCalculator(model, lists, device=context["device"], **KEYS)
        return Work(ase_md(atoms_of(context), calculator, job["steps"]), sizes(model))
    part = batch(context)
    inputs = {
        properties.idx: torch.arange(len(part.n_atoms), device=context["device"]),
        properties.n_atoms: part.n_atoms,
        properties.Z: part.numbers,
        properties.R: part.positions,
        properties.cell: part.cell,
        properties.pbc: part.pbc,
        properties.idx_m: part.system,
        properties.idx_i: part.edge_index[1],
        properties.idx_j: part.edge_index[0],
        properties.offsets: part.offsets,
    }
    facts = {**part.facts, **sizes(model)}
    if kind == "train":

        def predict() -> tuple[torch.Tensor, torch.Tensor]:
            said = model(dict(inputs))
            return said["energy"], said["forces"]

        return Work(trainer(model, predict, part), facts)
    model.eval()

    def repeat() -> None:
        # Fresh leaf: the model marks its positions as needing a gradient.
        model({**inputs, properties.R: part.positions.detach()})

    return Work(repeat, facts)


if __name__ == "__main__":
    serve(build)
