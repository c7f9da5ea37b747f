"""A teacher in MD whose errors end the simulation of one start and not the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mlipkit.data.graph import Graph
from mlipkit.models import BasePotential, Prediction
from mlipkit.strategies.ipip.tools import told


class Tolerant(BasePotential):
    """Another potential, with NaN as energy and forces of structures for which that one raises.

    The checks of MD then end the run at this step, as for a number that is not finite. What has to do with the machine
    (no memory) is still raised.

    Args:
        heard: is told kind and text of every error.
    """

    def __init__(self, potential: BasePotential, heard: Callable[[str], None]) -> None:
        super().__init__(potential.elements)
        self.potential, self.heard = potential, heard
        self.to(potential.device)

    @property
    def cutoff(self) -> float:
        return self.potential.cutoff

    @property
    def dtype(self) -> torch.dtype:
        return self.potential.dtype

    def describe(self) -> dict[str, Any]:
        return self.potential.describe()

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.potential.evaluate(graph, positions, cell)

    def forward(self, graph: Graph, **asked: Any) -> Prediction:
        try:
            return self.potential(graph, **asked)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # calculators raise whatever they like
            if graph.n_systems > 1:
                return _together([self.forward(part, **asked) for part in _parts(graph)])
            self.heard(told(error))
            unknown = torch.full_like(graph.positions.detach(), float("nan"))
            energies = unknown[:, 0].double()
            return Prediction(energies.sum(0, keepdim=True), unknown, unknown.new_full((1, 3, 3), float("nan")), None,
                              energies)  # fmt: skip


def _parts(graph: Graph) -> list[Graph]:
    """Its structures one by one."""
    found, owner, begin = [], graph.system[graph.edge_index[1]], 0
    for k, n in enumerate(graph.n_atoms.tolist()):
        rows, edges = slice(begin, begin + n), owner == k
        found.append(Graph(
            graph.numbers[rows], graph.positions[rows], graph.edge_index[:, edges] - begin, graph.shift[edges],
            graph.cell[k : k + 1], graph.pbc[k : k + 1], torch.zeros_like(graph.system[rows]), graph.n_atoms[k : k + 1],
        ))  # fmt: skip
        begin += n
    return found


def _together(parts: list[Prediction]) -> Prediction:
    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else torch.cat(values)

    return Prediction(*(joined(name) for name in ("energy", "forces", "stress", "features", "energies")))
