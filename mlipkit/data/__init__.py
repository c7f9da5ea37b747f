"""Structures and their labels: reading, the flat `FrameSet`, reports, splits, neighbours, graphs, series, samples.

Names are imported on first use, so that reading data or a run folder never pays for torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlipkit.data import public as public
    from mlipkit.data import samples as samples
    from mlipkit.data.atomic_energies import AtomicEnergies as AtomicEnergies
    from mlipkit.data.atomic_energies import choose_atomic_energies as choose_atomic_energies
    from mlipkit.data.atomic_energies import fit_atomic_energies as fit_atomic_energies
    from mlipkit.data.atomic_energies import isolated_atom_energies as isolated_atom_energies
    from mlipkit.data.atomic_energies import undetermined as undetermined
    from mlipkit.data.frameset import FrameSet as FrameSet
    from mlipkit.data.graph import Graph as Graph
    from mlipkit.data.graph import Targets as Targets
    from mlipkit.data.graph import collate as collate
    from mlipkit.data.graph import graph_of as graph_of
    from mlipkit.data.jobs import export_jobs as export_jobs
    from mlipkit.data.neighbours import NeighbourCache as NeighbourCache
    from mlipkit.data.neighbours import neighbour_list as neighbour_list
    from mlipkit.data.packing import pack as pack
    from mlipkit.data.read import read as read
    from mlipkit.data.read import read_with_report as read_with_report
    from mlipkit.data.report import DataReport as DataReport
    from mlipkit.data.report import report as report
    from mlipkit.data.resolve import Resolved as Resolved
    from mlipkit.data.resolve import resolve as resolve
    from mlipkit.data.selection import Selection as Selection
    from mlipkit.data.series import Series as Series
    from mlipkit.data.series import SeriesWriter as SeriesWriter
    from mlipkit.data.skin_lists import SkinLists as SkinLists
    from mlipkit.data.sources import read_source as read_source
    from mlipkit.data.splits import Split as Split
    from mlipkit.data.splits import split as split
    from mlipkit.data.tray import Tray as Tray
    from mlipkit.data.write import write as write

_HOMES = {
    "FrameSet": "frameset",
    "Selection": "selection",
    "Series": "series",
    "SeriesWriter": "series",
    "neighbour_list": "neighbours",
    "NeighbourCache": "neighbours",
    "SkinLists": "skin_lists",
    "Graph": "graph",
    "Targets": "graph",
    "collate": "graph",
    "graph_of": "graph",
    "Split": "splits",
    "split": "splits",
    "Tray": "tray",
    "AtomicEnergies": "atomic_energies",
    "fit_atomic_energies": "atomic_energies",
    "isolated_atom_energies": "atomic_energies",
    "choose_atomic_energies": "atomic_energies",
    "undetermined": "atomic_energies",
    "export_jobs": "jobs",
    "pack": "packing",
    "read": "read",
    "read_source": "sources",
    "read_with_report": "read",
    "write": "write",
    "resolve": "resolve",
    "Resolved": "resolve",
    "DataReport": "report",
    "report": "report",
}
_MODULES = ("samples", "public")

__all__ = [
    *sorted([*_HOMES, *_MODULES]),
]


class _Package(ModuleType):
    """`read`, `write`, `resolve` and `report` name a function and its file; here the function is meant.

    The import system sets a submodule as an attribute of its package; this keeps the function under that name.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


WITH_TORCH = ("graph", "skin_lists")
"""Modules that compute with torch."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    if home in WITH_TORCH:
        importlib.import_module("mlipkit.compute")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
