"""Labels beside predictions as a training leaves them behind: what parity pictures are drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

QUANTITIES = (("energy", "eV/atom"), ("forces", "eV/Å"))


class Pairs(NamedTuple):
    """One quantity of one split: labels and predictions, both flat, in `unit`."""

    quantity: str
    unit: str
    split: str
    reference: np.ndarray
    predicted: np.ndarray


def parity_pairs(path: Path) -> list[Pairs]:
    """What a `parity.npz` holds of the test frames, or of the validation frames where there is no test.

    Quantities without labels are left out; the list is empty when there is no such file.
    """
    if not path.is_file():
        return []
    found = []
    with np.load(path, allow_pickle=False) as arrays:
        split = "test" if "test_energy_reference" in arrays.files else "validation"
        for quantity, unit in QUANTITIES:
            reference, predicted = (arrays[f"{split}_{quantity}_{what}"] for what in ("reference", "predicted"))
            if np.isfinite(reference).any():
                found.append(Pairs(quantity, unit, split, reference, predicted))
    return found
