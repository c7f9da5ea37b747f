"""CHGNet 0.3.0: a network of atoms, bonds and angles for materials of 89 elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mlipkit.models.registry import register_potential
from mlipkit.models.universal.base import Facts, UniversalPotential, process_unchanged

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph

MISSING = (84, 85, 86, 87, 88)
"""Po, At, Rn, Fr and Ra: within its range of 1 to 94, but not in its training data."""


@register_potential
class CHGNet(UniversalPotential):
    """CHGNet 0.3.0, as `chgnet.model.CHGNetCalculator()` computes it.

    The package makes its graphs of bonds and angles from crystals only; here they come from our neighbour list, so
    molecules and slabs need no cell and equal the same structure in a large empty one.
    """

    kind = "universal:chgnet"
    NAME = "chgnet"
    PACKAGE = "chgnet"
    MODULE = "chgnet"
    FACTS = Facts(
        title="CHGNet 0.3.0",
        level_of_theory="PBE and PBE+U of the Materials Project",
        training_data="MPtrj: relaxation trajectories of the Materials Project",
        licence="modified BSD (Lawrence Berkeley National Laboratory)",
        citation="Deng et al., CHGNet as a pretrained universal neural network potential for charge-informed atomistic "
        "modelling, Nat. Mach. Intell. 2023, doi 10.1038/s42256-023-00716-3",
        note="trained on crystals only; molecules are computed without a cell, which equals a large empty one",
    )
    ENERGY_HEAD = ("mlp",)
    READOUT = ("mlp", "composition_model", "site_wise")

    def __init__(self, model: Any) -> None:
        super().__init__(model, elements=[z for z in range(1, 95) if z not in MISSING])
        self._cutoff = float(model.graph_converter.atom_graph_cutoff)
        self._bond_cutoff = float(model.graph_converter.bond_graph_cutoff)

    @classmethod
    def load(cls) -> CHGNet:
        package = cls.require("chgnet.model.model")
        with process_unchanged():
            return cls(package.CHGNet.load(use_device="cpu", verbose=False))

    @property
    def cutoff(self) -> float:
        return self._cutoff

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        package = self.require("chgnet.model.model")
        vectors = graph.edge_vectors(positions, cell)
        distances = vectors.detach().norm(dim=1)
        near = (distances < self._cutoff).nonzero()[:, 0]
        sender, center = graph.edge_index[:, near]
        vectors = vectors.index_select(0, near).to(self.dtype)
        bond, first = _undirected(sender, center, graph.shift[near], len(graph.numbers))
        left, right = _angles(center, (distances[near] < self._bond_cutoff).nonzero()[:, 0], len(graph.numbers))
        lengths = vectors.norm(dim=1)
        directions = vectors / lengths[:, None]
        basis = self.model.bond_basis_expansion
        crystals = package.BatchedGraph(
            atomic_numbers=graph.numbers,
            bond_bases_ag=basis.rbf_expansion_ag(lengths[first]),
            bond_bases_bg=basis.rbf_expansion_bg(lengths[first]),
            angle_bases=self.model.angle_basis_expansion(directions[left], directions[right]),
            batched_atom_graph=torch.stack([center, sender], 1),
            batched_bond_graph=torch.stack([center[left], bond[left], bond[right]], 1),
            atom_owners=graph.system,
            directed2undirected=bond,
            atom_positions=(), strains=(), volumes=(),  # for derivatives, which come from the contract
        )  # fmt: skip
        features: list[Tensor] = []
        seen = self.model.mlp.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        try:
            found = self.model._compute(crystals, return_site_energies=True)
        finally:
            seen.remove()
        own = self.model.composition_model.fc.weight[0].double().index_select(0, graph.numbers - 1)
        return torch.cat(list(found["site_energies"])).double() + own, features[0]


def _undirected(sender: Tensor, center: Tensor, shift: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
    """One bond for the two edges i -> j and j -> i over opposite images.

    Returns:
        int64 [E], bond of each edge, and [B], one edge of each bond.
    """
    x, y, z = shift.unbind(1)
    positive = (x > 0) | (x == 0) & ((y > 0) | (y == 0) & (z > 0))
    turned = (sender > center) | (sender == center) & ~positive
    low, high = torch.where(turned, center, sender), torch.where(turned, sender, center)
    image = torch.where(turned[:, None], -shift, shift)
    # A table of numbers below is unique much faster than rows.
    reach = int(shift.abs().max()) + 1 if len(shift) else 1
    key = low * n_atoms + high
    for axis in range(3):
        key = key * (2 * reach + 1) + image[:, axis] + reach
    found, bond = key.unique(return_inverse=True)
    edges = torch.arange(len(key), device=key.device)
    first = torch.full((len(found),), len(key), device=key.device).scatter_reduce(0, bond, edges, "amin")
    return bond, first


def _angles(center: Tensor, short: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
    """All ordered pairs of different short edges with one center, [A] indices into the edges each."""
    short = short[center[short].argsort(stable=True)]
    owner = center[short]
    count = torch.bincount(owner, minlength=n_atoms)
    start = count.cumsum(0) - count
    repeats = count[owner]
    left = torch.arange(len(short), device=short.device).repeat_interleave(repeats)
    place = torch.arange(len(left), device=short.device) - (repeats.cumsum(0) - repeats)[left]
    right = start[owner[left]] + place
    other = left != right
    return short[left[other]], short[right[other]]
