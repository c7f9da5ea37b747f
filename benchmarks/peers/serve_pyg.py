"""PyTorch Geometric's SchNet, ViSNet and data loader as an engine of `bench.py`; see `serving.py`.

Its own radius graphs need compiled extensions and know no periodic cells: the edges are given.
"""

from __future__ import annotations

from typing import Any

import torch
from serving import Batch, Work, batch, endless, frames_of, serve, sizes, trainer
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn.models import SchNet, ViSNet


class GivenEdges(torch.nn.Module):
    """Stands where the models look for neighbours: edges are given, distances follow the positions.

    Args:
        vectors: also give edge vectors (ViSNet).
    """

    def __init__(self, vectors: bool) -> None:
        super().__init__()
        self.vectors = vectors

    def set(self, edge_index: Tensor, offsets: Tensor | float = 0.0) -> None:
        """Edges [2,E] and their cartesian shifts [E,3], Å, of what is predicted next."""
        self.edge_index, self.offsets = edge_index, offsets

    def forward(self, positions: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        j, i = self.edge_index
        vectors = positions[j] - positions[i] + self.offsets
        distances = vectors.norm(dim=-1)
        # A copy: ViSNet normalises them in place.
        return (self.edge_index, distances, vectors.clone()) if self.vectors else (self.edge_index, distances)


def potential(job: dict[str, Any], part: Batch) -> torch.nn.Module:
    edges = GivenEdges(vectors=job["model"] == "visnet")
    edges.set(part.edge_index, part.offsets)
    if job["model"] == "schnet":
        return SchNet(
            job["features"], job["features"], job["layers"], job["n_radial"], job["cutoff"],
            interaction_graph=edges,
        )  # fmt: skip
    model = ViSNet(
        lmax=job["lmax"], num_heads=job["heads"], num_layers=job["layers"], hidden_channels=job["features"],
        num_rbf=job["n_radial"], cutoff=job["cutoff"],
    )  # fmt: skip
    model.representation_model.distance = edges
    return model


def loading(context: dict[str, Any]) -> Work:
    """Frames in memory with their edges made before, behind its loader."""
    job = context["job"]
    numbers, positions, energy, forces = map(torch.from_numpy, frames_of(context))
    frames = []
    for x, e, f in zip(positions, energy, forces, strict=True):
        near = (torch.cdist(x, x) < job["cutoff"]) & ~torch.eye(len(x), dtype=torch.bool)
        edges = near.nonzero().T.contiguous()
        frames.append(Data(z=numbers, pos=x.float(), edge_index=edges, y=e[None].float(), force=f.float()))
    loader = DataLoader(frames, batch_size=job["batch"], shuffle=True, drop_last=True)
    repeat = endless(loader)
    made = repeat()
    return Work(repeat, {"atoms": len(made.z), "edges": made.edge_index.shape[1]})


def build(context: dict[str, Any]) -> Work:
    job = context["job"]
    if job["kind"] == "loading":
        return loading(context)
    part = batch(context)
    model = potential(job, part).to(context["device"])
    train = job["kind"] == "train"

    def predict() -> tuple[Tensor, Tensor]:
        positions = part.positions.detach().requires_grad_()
        said = model(part.numbers, positions, part.system)
        energy = (said[0] if isinstance(said, tuple) else said).squeeze(-1)
        (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=train)
        return energy, -slope

    facts = {**part.facts, **sizes(model)}
    if train:
        return Work(trainer(model, predict, part), facts)
    model.eval()
    return Work(predict, facts)


if __name__ == "__main__":
    serve(build)
