"""What SchNetPack says of a few structures: small models with random weights, their weights, energies and forces.

Run in SchNetPack's own environment (torch, ase and schnetpack are enough; mlipkit is not needed):

    python tests/models/references/record_schnetpack.py

It writes `schnetpack.npz` beside this file. Written with SchNetPack 2.2.0, torch 2.13.0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.neighborlist import neighbor_list

CUTOFF, WIDTH, LAYERS, N_RADIAL = 4.0, 16, 3, {"painn": 8, "schnet": 10}


def structures() -> list[Atoms]:
    """A molecule and a skewed crystal smaller than the cutoff."""
    rng = np.random.default_rng(7)
    ethanol = molecule("CH3CH2OH")
    ethanol.positions += rng.normal(scale=0.1, size=(9, 3))
    cell = np.array([[3.6, 0.0, 0.0], [1.4, 3.3, 0.0], [-0.9, 1.2, 3.5]])
    fractions = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) + rng.normal(scale=0.03, size=(4, 3))
    return [ethanol, Atoms([8, 1, 6, 1], positions=fractions @ cell, cell=cell, pbc=True)]


def build(kind: str) -> torch.nn.ModuleDict:
    """Representation and energy head with random weights and biases, float64."""
    import schnetpack as spk
    from schnetpack import nn as snn

    basis = {"painn": snn.BesselRBF, "schnet": snn.GaussianRBF}[kind](n_rbf=N_RADIAL[kind], cutoff=CUTOFF)
    representation = {"painn": spk.representation.PaiNN, "schnet": spk.representation.SchNet}[kind](
        n_atom_basis=WIDTH, n_interactions=LAYERS, radial_basis=basis, cutoff_fn=snn.CosineCutoff(CUTOFF)
    )
    head = spk.atomistic.Atomwise(n_in=WIDTH, output_key="energy")
    model = torch.nn.ModuleDict({"representation": representation, "head": head}).double()
    generator = torch.Generator().manual_seed({"painn": 1, "schnet": 2}[kind])
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.2 if parameter.ndim == 1 else 1.0 / parameter.shape[1] ** 0.5
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float32) * scale
            # Float32 numbers, so that the recorded file is small and exact.
            parameter.copy_(values.float().double())
    # Their constants are rounded to float32 on the way; here they are what the equations say.
    if kind == "painn":
        basis.freqs = torch.arange(1, N_RADIAL[kind] + 1, dtype=torch.float64) * torch.pi / CUTOFF
    else:
        basis.offsets = torch.linspace(0.0, CUTOFF, N_RADIAL[kind], dtype=torch.float64)
        basis.widths = torch.full_like(basis.offsets, CUTOFF / (N_RADIAL[kind] - 1))
    return model


def evaluate(model: torch.nn.ModuleDict, atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy and forces."""
    i, j, shift = neighbor_list("ijS", atoms, CUTOFF)
    positions = torch.tensor(atoms.positions, requires_grad=True)
    offsets = torch.tensor(shift @ atoms.cell.array)
    inputs = {
        "_atomic_numbers": torch.tensor(atoms.numbers.astype(np.int64)),
        "_idx_i": torch.tensor(i.astype(np.int64)),
        "_idx_j": torch.tensor(j.astype(np.int64)),
        "_idx_m": torch.zeros(len(atoms), dtype=torch.int64),
    }
    inputs["_Rij"] = positions[inputs["_idx_j"]] - positions[inputs["_idx_i"]] + offsets
    energy = model["head"](model["representation"](inputs))["energy"].sum()
    (slope,) = torch.autograd.grad(energy, positions)
    return float(energy.detach()), -slope.numpy()


def record(kind: str) -> dict[str, np.ndarray]:
    """Weights, energies and forces of one model, by name."""
    model = build(kind)
    used = sorted({z for atoms in structures() for z in atoms.numbers})
    found = {}
    for name, value in model.named_parameters():
        rows = value.detach()[used] if "embedding" in name else value.detach()
        found[f"{kind}/weights/{name}"] = rows.numpy().astype(np.float32)
    for number, atoms in enumerate(structures()):
        energy, forces = evaluate(model, atoms)
        found[f"{kind}/energy/{number}"], found[f"{kind}/forces/{number}"] = np.array(energy), forces
    found[f"{kind}/elements"] = np.array(used)
    return found


if __name__ == "__main__":
    arrays = {**record("painn"), **record("schnet")}
    for number, atoms in enumerate(structures()):
        for name, value in (("numbers", atoms.numbers), ("positions", atoms.positions), ("cell", atoms.cell.array),
                            ("pbc", atoms.pbc)):  # fmt: skip
            arrays[f"structure/{number}/{name}"] = np.asarray(value)
    np.savez_compressed(Path(__file__).with_name("schnetpack.npz"), **arrays)
