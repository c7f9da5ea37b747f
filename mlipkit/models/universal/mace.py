"""MACE: a user's own `.model` file. mace-torch pins an e3nn that SevenNet refuses: it lives in another environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mlipkit.errors import ModelError, nearest
from mlipkit.models.registry import check_complete, dtype_of, register_potential
from mlipkit.models.universal.base import Facts, UniversalPotential, own, process_unchanged

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph

KINDS = ("MACE", "ScaleShiftMACE")
"""Classes of models that give an energy per atom from types and positions alone."""


@register_potential
class MACE(UniversalPotential):
    """A model that mace-torch has saved, as `mace.calculators.MACECalculator` computes it.

    Args:
        model: unpickled MACE model.
        path: its file, for `describe()` and to load it again; kept as an absolute path.
        head: name of one of its heads; None takes the only one, or that called "default".
    """

    kind = "universal:mace"
    NAME = "mace"
    PACKAGE = "mace-torch"
    MODULE = "mace"
    CURE = "mace-torch needs an environment of its own: load it there, or name its Python in the field python of a run"
    FACTS = Facts(
        title="MACE model of the user",
        level_of_theory="that of its training data; the file does not say",
        training_data="not in the file",
        licence="that of the file; mace-torch is MIT",
        citation="Batatia et al., MACE: higher order equivariant message passing neural networks for fast and accurate "
        "force fields, NeurIPS 2022",
        trust="the file is a pickle: loading it runs whatever code it holds, so load files of people you trust only",
    )
    ENERGY_HEAD = ("readouts",)
    READOUT = ("readouts", "scale_shift", "atomic_energies_fn")

    def __init__(self, model: Any, path: str | os.PathLike[str] = "", head: str | None = None) -> None:
        where = str(path) or "universal:mace"
        if type(model).__name__ not in KINDS:
            raise ModelError("not a MACE energy model", where=where, expected=" or ".join(KINDS), found=type(model))
        if getattr(model, "embedding_specs", None):
            raise ModelError("models that take charges or spins are not supported", where=where)
        super().__init__(model, elements=model.atomic_numbers.tolist())
        self.path = str(Path(path).expanduser().resolve()) if str(path) else ""
        heads = list(getattr(model, "heads", None) or ["Default"])
        self.head = _choose(head, heads, where)
        self.head_name = heads[self.head]
        self.column: Tensor
        column = torch.zeros(119, dtype=torch.int64)
        column[list(self.elements)] = torch.arange(len(self.elements))
        self.register_buffer("column", column, persistent=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str], head: str | None = None) -> MACE:
        """Unpickle a model: only files of people you trust.

        Raises:
            ModelError: no such file, or no MACE energy model in it.
            MissingPackageError: mace-torch is not installed here.
        """
        file = Path(path).expanduser()
        if not file.is_file():
            raise ModelError("no such file", where=f"universal:mace:{path}", expected="a .model file of mace-torch")
        cls.require("mace.modules")
        with process_unchanged():
            try:
                model = torch.load(file, map_location="cpu", weights_only=False)
            except Exception as error:
                raise ModelError(f"cannot be read ({type(error).__name__}: {error})", where=str(file)) from error
        return cls(model, file, head)

    @property
    def cutoff(self) -> float:
        return float(self.model.r_max)

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        lengths = graph.edge_vectors(positions, cell).detach().norm(dim=1)
        near = (lengths < self.cutoff).nonzero()[:, 0]
        edges, images = graph.edge_index[:, near], graph.shift[near].to(cell.dtype)
        # Their vectors point from the sender to the receiver, against ours.
        shifts = -torch.einsum("ek,ekl->el", images, cell[graph.system[edges[1]]])
        columns = self.column.index_select(0, graph.numbers)
        data = {
            "positions": own(positions.to(self.dtype)),
            "edge_index": edges,
            "shifts": shifts.to(self.dtype),
            "unit_shifts": -images.to(self.dtype),
            "cell": cell.to(self.dtype),
            "node_attrs": nn.functional.one_hot(columns, len(self.elements)).to(self.dtype),
            "batch": graph.system,
            "ptr": nn.functional.pad(graph.n_atoms.cumsum(0), (1, 0)),
            "head": torch.full_like(graph.n_atoms, self.head),
        }
        found: dict[str, Any] = self.model(data, compute_force=False)
        return found["node_energy"].double(), self._scalars(found["node_feats"])

    def _scalars(self, features: Tensor) -> Tensor:
        """Those of the last layer: its block comes last, and scalars come first in it."""
        irreps = self.model.products[-1].linear.irreps_out
        start = features.shape[1] - irreps.dim
        return features[:, start : start + irreps.count("0e")]

    def specification(self) -> dict[str, Any]:
        return {**super().specification(), "path": self.path, "head": self.head_name}

    @classmethod
    def from_specification(cls, spec: Mapping[str, Any], *, where: str) -> MACE:
        check_complete(spec, {"path", "head", "dtype"}, where)
        return cls.load(spec["path"], spec["head"]).to(dtype_of(spec, where))

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "name": f"universal:mace:{self.path}", "head": self.head_name}


def _choose(head: str | None, heads: list[str], where: str) -> int:
    if head in heads:
        return heads.index(head)
    default = [index for index, name in enumerate(heads) if name.lower() == "default"]
    if head is None and (len(heads) == 1 or default):
        return default[0] if default else 0
    raise ModelError("which head?", where=where, found=head, hint=nearest(head or "", heads))
