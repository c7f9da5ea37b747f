"""Validation of dynamic training: roll-outs of a fixed number of structures from fixed starts, in every epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from mlipkit.data.whole import write_whole
from mlipkit.errors import SpecError
from mlipkit.strategies.dynamic.evaluation import nve_rollouts
from mlipkit.strategies.dynamic.runs import AIMDRuns
from mlipkit.strategies.dynamic.source import SequenceSource

if TYPE_CHECKING:
    from mlipkit.models import BasePotential

CURVES = "rollouts.json"
"""File of a run folder: error against step, of the last and the best validation of each stage."""
MEPA = "rollout_mepa"


def validation_starts(runs: AIMDRuns, structures: int, number: int) -> np.ndarray:
    """So many starts at most, evenly spread over the runs."""
    points = runs.start_points(structures)
    return points[np.unique(np.linspace(0, len(points) - 1, min(number, len(points))).astype(int))]


class RolloutValidation:
    """Figures of the present weights; tells the source how far roll-outs of its length went astray.

    ==========================  ====  ==================================================================
    figure                      unit
    ==========================  ====  ==================================================================
    rollout_mepa                eV/Å  mean error per atom type and step, over S_val structures
    rollout_mepa/element=H      eV/Å  share of an element in it
    rollout_first               eV/Å  error on the starts themselves: that of equal frames
    rollout_apart               Å     mean distance from the reference in the last of the S_val structures
    rollout_apart_trained       Å     mean distance in structure S of the present stage
    n_structures, stage               S of the present stage, and its number from 1
    ==========================  ====  ==================================================================

    Args:
        runs, starts, structures: as `nve_rollouts`.
        source: the training's data source.
        path: curves are kept here.
        frozen: as `nve_rollouts`.
    """

    def __init__(
        self, runs: AIMDRuns, starts: np.ndarray, structures: int = 60, source: SequenceSource | None = None, *,
        path: Path | None = None, frozen: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        if structures < 1 or not len(starts):
            raise SpecError("nothing to validate with", where="roll-out validation", found=(structures, len(starts)))
        self.runs, self.starts, self.structures, self.source = runs, starts, structures, source
        self.path, self.frozen = path, frozen
        self.curves: dict[str, Any] = {}
        if path is not None and path.is_file():
            self.curves = json.loads(path.read_text("utf-8"))

    @property
    def figures(self) -> Mapping[str, str]:
        symbols = [chemical_symbols[z] for z in self.runs.frames.elements]
        found = {MEPA: "eV/Å", **{f"{MEPA}/element={symbol}": "eV/Å" for symbol in symbols}}
        found |= {"rollout_first": "eV/Å", "rollout_apart": "Å"}
        return found | ({"rollout_apart_trained": "Å", "n_structures": "", "stage": ""} if self.source else {})

    def __call__(self, potential: BasePotential) -> Mapping[str, float]:
        training = potential.training
        potential.eval()
        found = nve_rollouts(potential, self.runs, self.starts, self.structures, equal_frames=False, frozen=self.frozen)
        potential.train(training)
        curve, apart = found.curve(), found.apart[:, :, 0].mean(axis=0)
        figures = {MEPA: float(curve.mean())}
        figures |= {f"{MEPA}/element={symbol}": value for symbol, value in found.per_element().items()}
        figures |= {"rollout_first": float(curve[0]), "rollout_apart": float(apart[-1])}
        source = self.source
        if source is not None:
            source.apart = float(apart[min(source.n_structures, self.structures) - 1])
            figures |= {
                "rollout_apart_trained": source.apart, "n_structures": source.n_structures, "stage": source.stage + 1,
            }  # fmt: skip
        self._keep(curve, apart, figures)
        return figures

    def _keep(self, curve: np.ndarray, apart: np.ndarray, figures: Mapping[str, float]) -> None:
        stage = self.curves.setdefault(str(int(figures.get("stage", 1))), {})
        row = {
            "n_structures": int(figures.get("n_structures", 1)), "error": [_plain(x) for x in curve],
            "apart": [_plain(x) for x in apart], MEPA: _plain(figures[MEPA]),
        }  # fmt: skip
        before = stage.get("best", {}).get(MEPA)
        stage["last"] = row
        if before is None or (row[MEPA] is not None and row[MEPA] < before):
            stage["best"] = row
        if self.path is not None:
            timestep = float(self.runs.timestep[self.runs.run_of[self.starts[0]]])
            record = {**self.curves, "timestep": timestep}
            write_whole(self.path, (json.dumps(record) + "\n").encode())


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
