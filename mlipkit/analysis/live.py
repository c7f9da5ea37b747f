"""Scores of one structure after another, cheap enough for every few steps of MD.

>>> scorer = LiveScorer(OODModel.load("model.safetensors"))
>>> scorer.score(numbers, positions, cell, pbc).ratio.max()

What it costs is in `benchmarks/results/soap_pca.jsonl`. Where a potential is evaluated anyway its features cost next to
nothing: fit the model on `ModelFeatures` and pass them to `score_rows`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from mlipkit.analysis.ood import OODModel
from mlipkit.analysis.thresholds import Limits
from mlipkit.data.columns import Array
from mlipkit.errors import DataError, ModelError


@dataclass(frozen=True, eq=False)
class LiveScores:
    """How far each of n atoms lies outside: Q and T² [n], their limits [n] (NaN for an element never seen)."""

    q: Array
    t2: Array
    limit: Array
    t2_limit: Array

    @property
    def ratio(self) -> Array:
        """Q over its limit [n]; infinite for an element never seen."""
        return _ratio(self.q, self.limit)

    @property
    def t2_ratio(self) -> Array:
        """T² over its limit [n]; infinite for an element never seen."""
        return _ratio(self.t2, self.t2_limit)


class LiveScorer:
    """A model applied to one structure at a time, without a frame set and without fresh memory.

    Args:
        model: fitted with limits of its own.
        limits: measure -> limits to use instead.

    Raises:
        ModelError: the model takes its limits from what it scores, which is not known yet.
    """

    def __init__(self, model: OODModel, limits: dict[str, Limits] | None = None) -> None:
        self.limits = dict(model.limits if limits is None else limits)
        if not self.limits:
            raise ModelError(
                "limits along the trajectory are not known while it runs", where="rule", expected="leave_one_run_out",
                found=model.rule,
            )  # fmt: skip
        self.model = model
        self._known = np.zeros(120, bool)
        self._known[list(model.descriptor.species) or slice(None)] = True
        self._buffer = np.empty((0, model.descriptor.size), np.float32)

    def score(self, numbers: Array, positions: Array, cell: Array, pbc: Array) -> LiveScores:
        """Score the atoms of one structure.

        Args:
            numbers: int [n]. positions: [n,3] Å, inside the cell or not. cell: [3,3] Å. pbc: bool [3].

        Raises:
            DataError: an element outside the descriptor, a periodic axis without a cell vector, or what is not finite.
        """
        numbers = np.asarray(numbers)
        if not self._known[numbers].all():
            strange = sorted({chemical_symbols[int(z)] for z in numbers[~self._known[numbers]]})
            raise DataError(
                f"element {' '.join(strange)} unknown to the descriptor",
                expected="only " + " ".join(chemical_symbols[z] for z in self.model.descriptor.species),
            )
        if len(self._buffer) < len(numbers):
            self._buffer = np.empty((len(numbers), self.model.descriptor.size), np.float32)
        rows = self._buffer[: len(numbers)]
        self.model.descriptor.fill_one(rows, numbers, np.asarray(positions), np.asarray(cell), np.asarray(pbc))
        return self._of(numbers, rows)

    def score_rows(self, numbers: Array, rows: Array) -> LiveScores:
        """Score atoms whose descriptor rows [n,p] are known: features that an evaluation has just made."""
        return self._of(np.asarray(numbers), np.array(rows, np.float32))

    def _of(self, numbers: Array, rows: Array) -> LiveScores:
        _, q, t2 = self.model.project(numbers, rows)
        return LiveScores(q, t2, self.limits["q"].of(numbers), self.limits["t2"].of(numbers))


def _ratio(values: Array, limit: Array) -> Array:
    ratio = values / limit
    return np.where(np.isnan(ratio), np.inf, ratio)
