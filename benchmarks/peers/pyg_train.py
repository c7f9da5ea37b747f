"""Train PyTorch Geometric's ViSNet or SchNet on arrays given as npz, with edges given to it (see `serve_pyg.py`)."""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch_geometric
from peer_training import Engine, run
from serve_pyg import GivenEdges
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.nn.models import SchNet, ViSNet


def build_model(args: argparse.Namespace) -> torch.nn.Module:
    if args.model == "schnet":
        edges = GivenEdges(vectors=False)
        return SchNet(args.features, args.features, args.layers, args.n_radial, args.cutoff, interaction_graph=edges)
    model = ViSNet(
        lmax=1, num_layers=args.layers, hidden_channels=args.features, num_rbf=args.n_radial, cutoff=args.cutoff
    )
    model.representation_model.distance = GivenEdges(vectors=True)
    return model


def load(data: Any, cutoff: float, mean_per_atom: float) -> list[Data]:
    numbers = torch.tensor(data["numbers"], dtype=torch.long)
    frames = []
    for positions, energy, forces in zip(data["positions"], data["energy"], data["forces"], strict=True):
        x = torch.tensor(positions)
        near = (torch.cdist(x, x) < cutoff) & ~torch.eye(len(x), dtype=torch.bool)
        shifted = torch.tensor([energy - mean_per_atom * len(numbers)]).float()
        edges = near.nonzero().T.contiguous()
        frames.append(Data(z=numbers, pos=x.float(), edge_index=edges, y=shifted, force=torch.tensor(forces).float()))
    return frames


def collate(frames: list[Data]) -> tuple[Batch, Tensor, Tensor, Tensor]:
    batch = Batch.from_data_list(frames)
    return batch, batch.y, batch.force, batch.ptr.diff()


def predict(model: torch.nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    places = model.interaction_graph if isinstance(model, SchNet) else model.representation_model.distance
    places.set(batch.edge_index)
    positions = batch.pos.detach().requires_grad_()
    said = model(batch.z, positions, batch.batch)
    energy = (said[0] if isinstance(said, tuple) else said).squeeze(-1)
    (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=model.training)
    return energy, -slope


if __name__ == "__main__":
    version = torch_geometric.__version__
    run(Engine(f"pyg {version}", load, collate, build_model, predict), ["visnet", "schnet"])
