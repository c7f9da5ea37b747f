"""Errors of predictions against labels: MAE and RMSE overall, per element, per source and per tag.

Figures are flat: ``energy_mae``, ``forces_rmse`` over everything; ``forces_mae/element=O``,
``energy_mae/source=water.xyz``, ``stress_mae/tag=hot`` for groups; ``energy_n`` counts the labelled values. Energies
are per atom (eV/atom; undivided ones are ``energy_total_mae``, eV), forces per component (eV/Å), stress per component
of the 3x3 tensor (eV/Å³). Missing labels do not enter; a label without any value has no figures. Every split is
measured by the same code, so tables can be laid side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mlipkit.errors import SpecError, nearest

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph, Targets
    from mlipkit.models import Prediction
    from mlipkit.training.settings import TrainSettings

UNITS = {"energy": "eV/atom", "energy_total": "eV", "forces": "eV/Å", "stress": "eV/Å³"}
GROUPS = ("all", "element", "source", "tag")


class ErrorSums:
    """Running sums of errors; adding batches in any partition gives the same figures up to rounding.

    Memory does not grow with the number of frames: one row of (count, sum |e|, sum e²) in float64 per label and
    group. A prediction that is not finite where a label exists makes its figures NaN: it is never left out.

    Args:
        elements: atomic numbers that may occur.
        sources, tags: names behind the codes in `Targets.source` and `Targets.tag`.
    """

    def __init__(self, elements: Sequence[int], sources: Sequence[str] = (), tags: Sequence[str] = ()) -> None:
        self.names = {"all": ("",), "element": _symbols(elements), "source": tuple(sources), "tag": tuple(tags)}
        self._column = torch.full((120,), -1, dtype=torch.long)
        self._column[torch.tensor(list(elements), dtype=torch.long)] = torch.arange(len(elements))
        self._sums = {
            (label, group): torch.zeros(len(names), 3, dtype=torch.float64)
            for label in UNITS
            for group, names in self.names.items()
        }

    def add(self, graph: Graph, targets: Targets, prediction: Prediction) -> None:
        """Add one batch. Labels that were not predicted are left out; missing (NaN) labels too."""
        graph, targets = graph.to("cpu"), targets.to("cpu")
        structures = {
            "all": torch.zeros(graph.n_systems, dtype=torch.long),
            "source": targets.source,
            "tag": targets.tag,
        }
        if prediction.energy is not None:
            error = _difference(prediction.energy, targets.energy)[:, None]
            self._add("energy", structures, error / graph.n_atoms[:, None])
            self._add("energy_total", {"all": structures["all"]}, error)
        if prediction.forces is not None:
            atoms = {group: index[graph.system] for group, index in structures.items()}
            atoms["element"] = self._column[graph.numbers]
            self._add("forces", atoms, _difference(prediction.forces, targets.forces))
        if prediction.stress is not None:
            target = torch.where(graph.pbc.all(-1)[:, None, None], targets.stress, torch.nan)
            self._add("stress", structures, _difference(prediction.stress, target).flatten(1))

    def _add(self, label: str, groups: Mapping[str, Tensor], error: Tensor) -> None:
        known = ~torch.isinf(error)
        size = torch.where(known, error, 0.0).abs()
        rows = torch.stack([known.double().sum(-1), size.sum(-1), (size * size).sum(-1)], -1)
        for group, index in groups.items():
            inside = index >= 0
            self._sums[label, group].index_add_(0, index[inside], rows[inside])

    def packed(self) -> Tensor:
        """All sums as one float64 vector, to be added over processes."""
        return torch.cat([sums.flatten() for sums in self._sums.values()])

    def unpack(self, packed: Tensor) -> None:
        """Take the sums from such a vector."""
        start = 0
        for sums in self._sums.values():
            sums.copy_(packed[start : start + sums.numel()].reshape(sums.shape))
            start += sums.numel()

    def figures(self) -> dict[str, float]:
        """Flat dictionary of all figures that have at least one labelled value."""
        result: dict[str, float] = {}
        for (label, group), sums in self._sums.items():
            # A single source or tag would only repeat the line of everything.
            if group in ("source", "tag") and int((sums[:, 0] > 0).sum()) < 2:
                continue
            for name, (count, absolute, squared) in zip(self.names[group], sums.tolist(), strict=True):
                if count == 0:
                    continue
                suffix = "" if group == "all" else f"/{group}={name}"
                result[f"{label}_mae{suffix}"] = absolute / count
                result[f"{label}_rmse{suffix}"] = float(np.sqrt(squared / count))
                result[f"{label}_n{suffix}"] = count
        return result


def compact(figures: Mapping[str, float], most: int = 20) -> dict[str, float]:
    """Figures without the groups of more than `most` names, for places where many epochs are kept."""
    names: dict[str, set[str]] = {}
    for key in figures:
        group, _, name = key.partition("/")[2].partition("=")
        names.setdefault(group, set()).add(name)
    return {key: value for key, value in figures.items() if len(names[key.partition("/")[2].partition("=")[0]]) <= most}


def table(metrics: Mapping[str, Mapping[str, float]]) -> list[dict[str, object]]:
    """Rows of one table for all splits: split, group, name, and the figures of that group.

    Args:
        metrics: figures per split, as `ErrorSums.figures` or `evaluate` give them.
    """
    rows: dict[tuple[str, str, str], dict[str, object]] = {}
    for split, figures in metrics.items():
        for key, value in figures.items():
            figure, _, suffix = key.partition("/")
            group, _, name = suffix.partition("=")
            place = (split, group or "all", name)
            row = rows.setdefault(place, {"split": split, "group": group or "all", "name": name})
            row[figure] = value
    order = {name: position for position, name in enumerate(metrics)}
    return sorted(
        rows.values(), key=lambda row: (order[str(row["split"])], _place(str(row["group"])), str(row["name"]))
    )


def objective(figures: Mapping[str, float], settings: TrainSettings) -> float:
    """One number to compare epochs by: the errors of a split weighted like the loss; lower is better.

    ``Σ w MAE`` for l1 and Huber, ``Σ w RMSE²`` for l2, over the labels that the split has; NaN when it has none.
    """
    parts = []
    for label, weight in settings.weights().items():
        if label == "energy" and settings.energy_unit == "total":
            label = "energy_total"
        name = f"{label}_rmse" if settings.loss == "l2" else f"{label}_mae"
        if name in figures:
            parts.append(weight * (figures[name] ** 2 if settings.loss == "l2" else figures[name]))
    return float(np.sum(parts)) if parts else float("nan")


def monitored(figures: Mapping[str, float], settings: TrainSettings) -> float:
    """The number that chooses the best epoch.

    Raises:
        SpecError: `settings.monitor` names no figure of the validation.
    """
    if settings.monitor == "objective":
        return objective(figures, settings)
    if settings.monitor not in figures:
        raise SpecError(
            f"no validation figure '{settings.monitor}'", where="monitor", hint=nearest(settings.monitor, figures)
        )
    return figures[settings.monitor]


def _difference(predicted: Tensor, target: Tensor) -> Tensor:
    """Error in float64 on the CPU; inf marks a missing label, NaN a prediction that is not finite."""
    error = predicted.detach().cpu().double() - target.double()
    error = torch.where(torch.isfinite(error), error, torch.nan)
    return torch.where(torch.isfinite(target), error, torch.inf)


def _symbols(elements: Sequence[int]) -> tuple[str, ...]:
    from ase.data import chemical_symbols

    return tuple(chemical_symbols[number] for number in elements)


def _place(group: str) -> int:
    return GROUPS.index(group) if group in GROUPS else len(GROUPS)
