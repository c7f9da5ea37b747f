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
from mlipkit.analysis.scores import ratio_to
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
        return ratio_to(self.q, self.limit)

    @property
    def t2_ratio(self) -> Array:
        """T² over its limit [n]; infinite for an element never seen."""
        return ratio_to(self.t2, self.t2_limit)


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
        self._periodic = bool(model.facts.get("periodic"))
        self._known = np.zeros(120, bool)
        self._known[list(model.descriptor.species) or slice(None)] = True
        self._buffer = np.empty((0, model.descriptor.size), np.float32)

    def score(self, numbers: Array, positions: Array, cell: Array, pbc: Array) -> LiveScores:
        """Score the atoms of one structure.

        Args:
            numbers: int [n]. positions: [n,3] Å, inside the cell or not. cell: [3,3] Å. pbc: bool [3].

        Raises:
            DataError: an element outside the descriptor, not one position per atom, a periodic axis without a cell
                vector, a cell without periodic flags where the fit-on set had them, or what is not finite.
        """
        numbers, positions, cell, pbc = (np.asarray(one) for one in (numbers, positions, cell, pbc))
        if positions.shape != (len(numbers), 3):
            raise DataError("one position per atom", where="LiveScorer", expected=(len(numbers), 3),
                            found=positions.shape)  # fmt: skip
        in_table = (numbers > 0) & (numbers < len(self._known))
        if not (in_table.all() and self._known[numbers].all()):
            strange = {int(z) for z in numbers if not (0 < z < len(self._known) and self._known[z])}
            names = (chemical_symbols[z] if 0 < z < len(chemical_symbols) else str(z) for z in sorted(strange))
            raise DataError(
                f"element {' '.join(names)} unknown to the descriptor",
                expected="only " + " ".join(chemical_symbols[z] for z in self.model.descriptor.species),
            )
        if self._periodic and not pbc.any() and cell.shape == (3, 3) and abs(np.linalg.det(cell)) > 1e-6:
            raise DataError(
                "a cell without periodic flags: atoms at its faces would lack neighbours", where="pbc",
                expected="periodic as the fit-on set", found="pbc F F F",
                hint="Give pbc, or a zero cell for what is a cluster",
            )  # fmt: skip
        if len(self._buffer) < len(numbers):
            self._buffer = np.empty((len(numbers), self.model.descriptor.size), np.float32)
        rows = self._buffer[: len(numbers)]
        self.model.descriptor.fill_one(rows, numbers, positions, cell, pbc)
        return self._of(numbers, rows)

    def score_rows(self, numbers: Array, rows: Array) -> LiveScores:
        """Score atoms whose descriptor rows [n,p] are known: features that an evaluation has just made."""
        return self._of(np.asarray(numbers), np.array(rows, np.float32))

    def _of(self, numbers: Array, rows: Array) -> LiveScores:
        _, q, t2 = self.model.project(numbers, rows)
        return LiveScores(q, t2, self.limits["q"].of(numbers), self.limits["t2"].of(numbers))
