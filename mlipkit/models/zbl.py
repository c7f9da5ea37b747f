"""Screened nuclear repulsion at short distances (Ziegler, Biersack, Littmark, The Stopping and Range of Ions, 1985)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from ase.data import chemical_symbols, covalent_radii
from ase.units import Bohr, Hartree
from torch import Tensor

from mlipkit.errors import ModelError
from mlipkit.models.bases import polar
from mlipkit.models.contract import BasePotential
from mlipkit.models.encoder import N_TYPES
from mlipkit.models.registry import check_complete, dtype_of, register_potential
from mlipkit.ops import gather, segment_sum

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph

SCREENING: Final = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
"""Coefficients and decays of the universal screening function."""
INNER_SHARE, OUTER_SHARE = 0.35, 0.7
"""Of the sum of two covalent radii: where the switch begins and ends. The shortest bonds (C≡O, N≡N) are 0.78 of it."""


@register_potential
class ZBLRepulsion(BasePotential):
    """Repulsion of screened nuclei, switched off before atoms are as close as in a bond; no weights.

    `E = ½ Σ_ij (e²/4πε0) Z_i Z_j / d φ(d/a) S(d)`, `a = 0.8854 a0 / (Z_i^0.23 + Z_j^0.23)`,
    `φ(x) = Σ_k c_k exp(-b_k x)`, `S(t) = 1 - 10 t³ + 15 t⁴ - 6 t⁵`, `t = (d - inner) / (outer - inner)` in 0..1.

    Energy, forces and their slope are continuous. Half of a pair's energy belongs to each of its atoms. It says nothing
    of bonding: add it to a trained potential with `SumPotential`, where that has never seen such short distances.

    Args:
        elements: atomic numbers in the domain.
        inner, outer: Å, where the switch begins and ends for all pairs; None: 0.35 and 0.7 of the sum of the covalent
            radii of the pair, which leaves all chemical bonds alone.
    """

    kind = "zbl"
    radii: Tensor

    def __init__(self, elements: Sequence[int], *, inner: float | None = None, outer: float | None = None) -> None:
        super().__init__(elements)
        if (inner is None) != (outer is None):
            raise ModelError("inner and outer radius go together", where="zbl", found=f"inner {inner}, outer {outer}")
        if inner is not None and outer is not None and not 0 <= inner < outer:
            raise ModelError(
                "the switch ends before it begins", where="zbl", expected="0 <= inner < outer",
                found=f"inner {inner:g}, outer {outer:g}",
            )  # fmt: skip
        if outer is not None and math.isinf(outer):
            raise ModelError("the switch never ends", where="zbl", expected="a finite outer radius", found=outer)
        self.inner = None if inner is None else float(inner)
        self.outer = None if outer is None else float(outer)
        radii = torch.tensor(covalent_radii[:N_TYPES].tolist(), dtype=torch.get_default_dtype())
        self.register_buffer("radii", radii, persistent=False)

    @property
    def cutoff(self) -> float:
        """Å, the longest distance at which a pair repels."""
        if self.outer is not None:
            return self.outer
        return 2 * OUTER_SHARE * max(float(covalent_radii[z]) for z in self.elements)

    @property
    def dtype(self) -> torch.dtype:
        """In which energies of pairs are computed."""
        return self.radii.dtype

    @property
    def atomic_energies(self) -> Tensor:
        """float64 [119], eV: zero, as a lone atom has no repulsion."""
        return torch.zeros(N_TYPES, dtype=torch.float64, device=self.device)

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        sender, receiver = graph.edge_index.unbind(0)
        d, _ = polar(graph.edge_vectors(positions, cell).to(self.dtype))
        first, second = gather(graph.numbers, sender), gather(graph.numbers, receiver)
        z_first, z_second = first.to(self.dtype), second.to(self.dtype)
        length = (0.8854 * Bohr) / (z_first**0.23 + z_second**0.23)
        screened = sum(c * torch.exp(d * (-b / length)) for c, b in SCREENING)
        energy = (0.5 * Hartree * Bohr) * z_first * z_second / d * screened * self._switch(d, first, second)
        return segment_sum(energy.double(), receiver, graph.numbers.shape[0]), None

    def _switch(self, d: Tensor, first: Tensor, second: Tensor) -> Tensor:
        if self.inner is None or self.outer is None:
            contact = gather(self.radii, first) + gather(self.radii, second)
            t = (d - INNER_SHARE * contact) / ((OUTER_SHARE - INNER_SHARE) * contact)
        else:
            t = (d - self.inner) / (self.outer - self.inner)
        inside = t.clamp(0.0, 1.0)
        switch = 1.0 - inside**3 * (10.0 - 15.0 * inside + 6.0 * inside.square())
        # Rounding of the polynomial must not leave a trace beyond the end.
        return torch.where(t < 1.0, switch, 0.0)

    def describe(self) -> dict[str, Any]:
        """Kind, domain and radii, JSON-ready."""
        return {
            "kind": self.kind,
            "inner": self.inner,
            "outer": self.outer,
            "parameters": 0,
            "trainable": 0,
            "cutoff": self.cutoff,
            "elements": [chemical_symbols[z] for z in self.elements],
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def specification(self) -> dict[str, Any]:
        return {
            "inner": self.inner,
            "outer": self.outer,
            "elements": list(self.elements),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_specification(cls, spec: Mapping[str, Any], *, where: str) -> ZBLRepulsion:
        check_complete(spec, {"inner", "outer", "elements", "dtype"}, where)
        return cls(spec["elements"], inner=spec["inner"], outer=spec["outer"]).to(dtype_of(spec, where))
