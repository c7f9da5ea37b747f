"""SO3LR: a transformer plus repulsion, electrostatics and dispersion, for organic molecules and liquids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mlipkit.errors import ModelError
from mlipkit.models.registry import register_potential
from mlipkit.models.universal.base import Facts, UniversalPotential, own, print_precision_kept, process_unchanged
from mlipkit.ops import gather, segment_sum

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph

LONG_RANGE = 12.0
"""Å, cutoff of electrostatics and dispersion: the default of the package's calculator."""
DAMPING = 2.0
"""Å, over which dispersion is switched off before the cutoff: the default of the package's calculator."""


@register_potential
class SO3LR(UniversalPotential):
    """SO3LR with the settings of `so3krates_torch.calculator.so3.SO3LRCalculator(default_dtype="float64")`.

    Edges within 4.5 Å carry the transformer and the repulsion, all edges within 12 Å the electrostatics of its partial
    charges (erf-damped, shifted force) and the dispersion of its Hirshfeld ratios; so `cutoff` is 12 Å. Every
    structure is taken as neutral and closed-shell.
    """

    kind = "universal:so3lr"
    NAME = "so3lr"
    PACKAGE = "so3krates-torch"
    MODULE = "so3krates_torch"
    FACTS = Facts(
        title="SO3LR (weights of so3krates-torch)",
        level_of_theory="PBE0+MBD",
        training_data="4 million neutral and charged molecular complexes",
        licence="MIT",
        citation="Kabylda et al., Molecular simulations with a pretrained neural network and universal pairwise force "
        "fields, J. Am. Chem. Soc. 2025, doi 10.1021/jacs.5c09558",
        note="float64: in float32 its forces differ from the slope of its energy by up to 0.05 eV/Å. Every structure "
        "is taken as neutral and closed-shell, whatever charge its file states",
    )
    PRECISIONS = (torch.float64,)
    ENERGY_HEAD = ("atomic_energy_output_block",)
    READOUT = ("atomic_energy_output_block", "zbl_repulsion", "partial_charges_output_block", "hirshfeld_output_block")

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, elements=(1, 6, 7, 8, 9, 15, 16, 17))
        self.model.r_max_lr = LONG_RANGE
        self.model.dispersion_energy_cutoff_lr_damping = DAMPING
        self.model.partial_charges_output_block.register_forward_hook(_exact_total, with_kwargs=True)
        self._known = set(vars(self.model))
        self._lora: int | None = None

    def add_lora(self, rank: int, seed: int) -> bool:
        tools, dtype = self.require("so3krates_torch.tools.finetune"), self.dtype
        if self._lora == rank:
            return True
        if self._lora is not None:
            raise ModelError(
                "has low-rank additions already", where=f"universal:{self.NAME}", expected=f"rank {self._lora}",
                found=f"rank {rank}", hint=f"lora_rank={self._lora} trains them further, train='all' all weights",
            )  # fmt: skip
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        # The package seeds torch's own generator, and makes blocks anew in the default dtype, which rounds weights.
        with torch.random.fork_rng(devices=[]), process_unchanged():
            tools.model_to_lora(self.model, rank=rank, alpha=2 * rank, device=str(self.device), seed=seed)
        self.model.to(dtype).load_state_dict(weights, strict=False)
        self.model.eval()
        self._lora = rank
        return True

    def specification(self) -> dict[str, Any]:
        return super().specification() | ({} if self._lora is None else {"lora_rank": self._lora})

    @classmethod
    def from_specification(cls, spec: Mapping[str, Any], *, where: str) -> SO3LR:
        made = super().from_specification(spec, where=where)
        assert isinstance(made, SO3LR)
        if spec.get("lora_rank") is not None:
            made.add_lora(int(spec["lora_rank"]), 0)
        return made

    @classmethod
    def load(cls) -> SO3LR:
        from importlib import resources

        cls.require("so3krates_torch.modules.models")
        file = resources.files("so3krates_torch.pretrained.so3lr") / "so3lr.model"
        with process_unchanged(), resources.as_file(file) as path:
            return cls(torch.load(path, map_location="cpu", weights_only=False))

    @property
    def cutoff(self) -> float:
        return LONG_RANGE

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        positions, cell = own(positions.double()), cell.double()
        lengths = graph.edge_vectors(positions, cell).detach().norm(dim=1)
        far, near = (lengths < LONG_RANGE).nonzero()[:, 0], (lengths < self.model.r_max).nonzero()[:, 0]
        # Their receivers come first, and their vectors are the sender's position less the receiver's.
        edges = graph.edge_index.flip(0)
        shifts = graph.shift.double() @ cell[0] if graph.n_systems == 1 else _shift_vectors(graph, cell)
        data = {
            "positions": positions,
            "cell": cell,
            "edge_index": edges[:, near],
            "shifts": shifts[near],
            "edge_index_lr": edges[:, far],
            "shifts_lr": shifts[far],
            "atomic_numbers": graph.numbers,
            "node_attrs": nn.functional.one_hot(graph.numbers - 1, 118).double(),
            "batch": graph.system,
            "ptr": nn.functional.pad(graph.n_atoms.cumsum(0), (1, 0)),
            "head": torch.zeros_like(graph.n_atoms),
            "total_charge": cell.new_zeros(graph.n_systems),
            "total_spin": cell.new_zeros(graph.n_systems),
        }
        with print_precision_kept():
            found: dict[str, Any] = self.model(data, compute_force=False, return_descriptors=True)
        # The model keeps what it computed as attributes, and with it the whole autograd graph.
        for name in set(vars(self.model)) - self._known:
            delattr(self.model, name)
        return found["node_energy"].squeeze(1), found["inv_features"]


def _shift_vectors(graph: Graph, cell: Tensor) -> Tensor:
    return torch.einsum("ek,ekl->el", graph.shift.to(cell.dtype), cell[graph.system[graph.edge_index[1]]])


def _exact_total(module: Any, _: tuple, inputs: dict[str, Any], charges: Tensor) -> Tensor:
    """Spread what the charges lack of the total once more: the package divides by the number of atoms in torch's
    default dtype, which is not ours to change."""
    system = inputs["batch_segments"]
    count = torch.bincount(system, minlength=inputs["num_graphs"])
    rest = inputs["total_charge"] - segment_sum(charges, system, inputs["num_graphs"])
    return charges + gather(rest / count.to(rest.dtype), system)
