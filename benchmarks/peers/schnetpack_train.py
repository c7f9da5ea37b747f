"""Train a SchNetPack model on arrays given as npz; runs in SchNetPack's own environment and knows nothing of mlipkit.

SchNetPack's representation, output modules and neighbour transform in the loop of `peer_training.py`.
"""

from __future__ import annotations

import argparse
from typing import Any

import schnetpack as spk
import schnetpack.transform as trn
import torch
from ase import Atoms
from peer_training import Engine, run
from schnetpack import properties
from schnetpack.data.loader import _atoms_collate_fn


def build_model(args: argparse.Namespace) -> torch.nn.Module:
    cutoff = spk.nn.CosineCutoff(args.cutoff)
    if args.model == "painn":
        radial = spk.nn.BesselRBF(n_rbf=args.n_radial, cutoff=args.cutoff)
        encoder = spk.representation.PaiNN(args.features, args.layers, radial_basis=radial, cutoff_fn=cutoff)
    else:
        radial = spk.nn.GaussianRBF(n_rbf=args.n_radial, cutoff=args.cutoff)
        encoder = spk.representation.SchNet(args.features, args.layers, radial_basis=radial, cutoff_fn=cutoff)
    return spk.model.NeuralNetworkPotential(
        representation=encoder,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(n_in=args.features, output_key="energy"),
            spk.atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
    )


def load(data: Any, cutoff: float, mean_per_atom: float) -> list[dict[str, torch.Tensor]]:
    frames, neighbours = [], trn.ASENeighborList(cutoff=cutoff)
    for index, (positions, energy, forces) in enumerate(
        zip(data["positions"], data["energy"], data["forces"], strict=True)
    ):
        atoms = Atoms(data["numbers"], positions)
        inputs = {
            properties.idx: torch.tensor([index]),
            properties.n_atoms: torch.tensor([len(atoms)]),
            properties.Z: torch.tensor(atoms.numbers, dtype=torch.long),
            properties.R: torch.tensor(positions),
            properties.cell: torch.zeros(1, 3, 3, dtype=torch.float64),
            properties.pbc: torch.zeros(3, dtype=torch.bool),
            "energy": torch.tensor([energy - mean_per_atom * len(atoms)]),
            "forces": torch.tensor(forces),
        }
        inputs = neighbours(inputs)
        frames.append({k: v.float() if v.is_floating_point() else v for k, v in inputs.items()})
    return frames


def collate(frames: list[dict[str, torch.Tensor]]) -> tuple[dict[str, torch.Tensor], ...]:
    batch = _atoms_collate_fn(frames)
    return batch, batch["energy"].clone(), batch["forces"].clone(), batch[properties.n_atoms]


def predict(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    said = model(dict(batch))
    return said["energy"], said["forces"]


if __name__ == "__main__":
    version = spk.__version__ if hasattr(spk, "__version__") else "2.2.0"
    run(Engine(f"schnetpack {version}", load, collate, build_model, predict), ["painn", "schnet"])
