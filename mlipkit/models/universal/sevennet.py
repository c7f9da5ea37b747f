"""SevenNet-0: an equivariant network for materials of 89 elements."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from mlipkit.models.registry import register_potential
from mlipkit.models.universal.base import Facts, UniversalPotential, process_unchanged

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph


@register_potential
class SevenNet0(UniversalPotential):
    """SevenNet-0 (11 July 2024), as `sevenn.calculator.SevenNetCalculator("7net-0")` computes it, without D3.

    The package's network runs up to the energy of each atom; its own sums and derivatives are left out, so energies
    are summed in float64.
    """

    kind = "universal:sevennet-0"
    NAME = "sevennet-0"
    PACKAGE = "sevenn"
    MODULE = "sevenn"
    FACTS = Facts(
        title="SevenNet-0 (11 July 2024)",
        level_of_theory="PBE and PBE+U of the Materials Project",
        training_data="MPtrj: relaxation trajectories of the Materials Project",
        licence="MIT",
        citation="Park et al., Scalable parallel algorithm for graph neural network interatomic potentials in "
        "molecular dynamics simulations, J. Chem. Theory Comput. 2024, doi 10.1021/acs.jctc.4c00190",
        note="no dispersion correction",
    )
    ENERGY_HEAD = ("reduce_input_to_hidden", "reduce_hidden_to_energy")
    READOUT = ("reduce_input_to_hidden", "reduce_hidden_to_energy", "rescale_atomic_energy")

    def __init__(self, model: nn.Module, cutoff: float, types: Mapping[int, int]) -> None:
        super().__init__(model, elements=list(types))
        for name in ("reduce_total_enegy", "force_output"):
            self.model.delete_module_by_key(name)
        # Its preparation of an input would ask for the gradient of our edge vectors.
        self.model.key_grad = None
        self._cutoff = float(cutoff)

    @classmethod
    def load(cls) -> SevenNet0:
        with warnings.catch_warnings(), process_unchanged():
            warnings.simplefilter("ignore")
            checkpoint = cls.require("sevenn.util").load_checkpoint("7net-0")
            model = checkpoint.build_model()
        return cls(model, checkpoint.config["cutoff"], model.type_map)

    @property
    def cutoff(self) -> float:
        return self._cutoff

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        vectors = graph.edge_vectors(positions, cell)
        # Its cutoff function is not zero beyond the cutoff.
        near = (vectors.detach().norm(dim=1) < self._cutoff).nonzero()[:, 0]
        data = {
            "atomic_numbers": graph.numbers,
            "edge_index": graph.edge_index[:, near],
            # Its vectors point from the sender to the receiver.
            "edge_vec": -vectors[near].to(self.dtype),
            "batch": graph.system,
            "num_atoms": graph.n_atoms,
        }
        data = self.model._preprocess(data)
        features = None
        for name, module in self.model.named_children():
            if name == self.READOUT[0]:
                features = data["x"]
            data = module(data)
            if name == "onehot_idx_to_onehot":
                # Made in float32 whatever the weights' dtype.
                data |= {key: data[key].to(self.dtype) for key in ("x", "node_attr") if key in data}
        return data["atomic_energy"].squeeze(1).double(), features
