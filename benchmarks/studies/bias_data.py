"""The frames of the published fine-tuning study (chclca_bias in MLIPKIT_DATA), with what their files say of them.

Words: "naive" frames were sampled by the untouched potential in five runs, "iterative" ones along a chain of runs that
is fine-tuned after each, "longrun" ones along one long run of the untouched potential. The files call the last two
"periodic" and "nonperiodic".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

from mlipkit.analysis.residuals import Residuals
from mlipkit.data import FrameSet, read

DIGITS = 6
"""Significant digits of recorded residuals."""
ARMS = {"naive": "naive_50", "iterative": "periodic_50", "longrun": "nonperiodic_50"}
FAMILIES = {"naive": "naive", "periodic": "iterative", "nonperiodic": "longrun"}
SHORT = {"naive": "N", "iterative": "FT", "longrun": "NP"}
SIZES = {10: ("10", "FT1"), 21: ("21", "FT2"), 31: ("31", "FT3"), 40: ("40", "FT4"), 50: ("50", "FT5")}
"""Training frames -> the published subsets that hold as many."""


@dataclass(frozen=True, eq=False)
class Told:
    """A set and what each of its frames is told to be.

    Attributes:
        frames: labelled.
        sampled_by: which published model drove the MD, "" if none: U, N-50, FT5, NP-50 ...
        family: naive, iterative, longrun or "" of `sampled_by`.
        subset: smallest published training subset that holds the frame, "" if none.
        driven_energy: eV [F], what that model made of the frame; NaN where no log agrees.
    """

    frames: FrameSet
    sampled_by: np.ndarray
    family: np.ndarray
    subset: np.ndarray
    driven_energy: np.ndarray

    def select(self, index: Sequence[int] | np.ndarray) -> Told:
        parts = (self.sampled_by, self.family, self.subset, self.driven_energy)
        return Told(self.frames.select(index), *(part[index] for part in parts))


def folder() -> Path:
    return Path(os.environ["MLIPKIT_DATA"]) / "chclca_bias"


def read_set(name: str) -> Told:
    file = folder() / f"{name}.extxyz"
    frames, told = read(file), [one.info for one in ase.io.read(file, ":")]

    def column(key: str, default: Any) -> np.ndarray:
        return np.array([one.get(key, default) for one in told])

    driver = np.array([str(name).removesuffix("pts") for name in column("sampled_by", "")])
    family = np.array(["naive" if x.startswith("N-") else "longrun" if x.startswith("NP-") else
                       "iterative" if x.startswith("FT") else "" for x in driver])  # fmt: skip
    energy = column("energy_mlip_md", np.nan).astype(float)
    return Told(frames, driver, family, column("first_in_subset", "").astype(str), energy)


def arm(name: str) -> Told:
    """All fifty frames of an arm."""
    return read_set(ARMS[name])


def training_set(name: str, size: int) -> FrameSet:
    """The published training set of `size` frames of an arm, as far as the files tell it.

    The iterative and the long arm are cumulative, and 10 and 50 naive frames are told exactly. The naive sets between
    are no chain, and of the frames that first enter with a smaller set the files do not tell which stay: as many as
    lack are drawn from those, always the same.
    """
    whole = arm(name)
    new = np.isin(whole.subset, SIZES[size])
    if name != "naive" or size == 50:
        smaller = np.isin(whole.subset, [text for n, texts in SIZES.items() if n <= size for text in texts])
        return whole.frames.select(smaller)
    before = np.flatnonzero(np.isin(whole.subset, [texts[0] for n, texts in SIZES.items() if n < size]))
    drawn = np.random.default_rng(size).permutation(before)[: size - int(new.sum())]
    return whole.frames.select(np.sort(np.concatenate([np.flatnonzero(new), drawn])))


def published_name(arm_name: str, size: int) -> str:
    """Name of the published model with this training set."""
    return SIZES[size][1] if arm_name == "iterative" else f"{SHORT[arm_name]}-{size}"


def rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None


def kept(found: Residuals) -> dict[str, list]:
    """Residuals of a set as they stand in a line: meV/atom [F], (eV/Å)² [F,3], eV/Å³ [F,6]."""
    return {
        "energy_mev": [rounded(1000 * x) for x in found.energy.tolist()],
        "force_squares": [[rounded(x) for x in row] for row in found.force_squares.tolist()],
        "stress": [[rounded(x) for x in row] for row in found.stress.tolist()],
    }  # fmt: skip


def restored(record: dict[str, list], frames: FrameSet) -> Residuals:
    """The opposite of `kept`."""
    columns = {name: np.array(values, dtype=float) for name, values in record.items()}
    return Residuals(
        frames, columns["energy_mev"] / 1000, columns["force_squares"], np.asarray(frames.n_atoms), columns["stress"]
    )
