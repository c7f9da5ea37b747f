"""Predictions against labels: parity per element, softening, residuals over energy and time, and a constant's share.

    softening slope of element z     a_z = Σ F̂·F / Σ F·F             over atoms of z, through the origin; < 1: too soft
    robust line                      |F̂| = b + a |F|                  Huber's loss, by re-weighted least squares
    residual                         e_f = (Ê_f - E_f) / n_f          eV/atom

An error of energies is mostly one constant in the published study: a potential with *one* constant per composition
taken off is the control that a fine-tuned one must beat (`fit_offset`), and the standard deviation of e stands beside
its rmse.

Measures have their names and definitions in `mlipkit.analysis.error_measures`.

Source: arXiv 2603.10159 for |F| parity, bins of 2 meV/atom and the split in time; slope through the origin, robust
line, bootstrap and the constant are ours. P. J. Huber, Ann. Math. Stat. 35, 73 (1964).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike

from mlipkit.analysis.error_measures import energy_measures, force_measures, stress_measures
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, LabelError

BIN: Final = 0.002
"""eV/atom."""
MOST_BINS: Final = 5000
_HUBER = 1.345


@dataclass(frozen=True, eq=False)
class Softening:
    """How far forces of one element are too small or too large.

    Attributes:
        element: atomic number, 0 for all; n_atoms: how many went in.
        slope: through the origin over components; low, high: bootstrap interval over frames.
        norm_slope, norm_intercept: robust line of |F̂| on |F|; intercept in eV/Å.
    """

    element: int
    n_atoms: int
    slope: float
    low: float
    high: float
    norm_slope: float
    norm_intercept: float


@dataclass(frozen=True, eq=False)
class BinnedResiduals:
    """Residuals in bins of the labelled energy: edges [B+1] eV/atom, mean and std [B] eV/atom (NaN if empty), n [B]."""

    edges: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    n: np.ndarray


@dataclass(frozen=True, eq=False)
class Parity:
    """Predictions of a set beside its labels; frames and atoms without a label are left out.

    Attributes:
        measures: name -> value (`error_measures`); by_element: atomic number -> force measures of its atoms.
        softening: one entry for all atoms (element 0) and one per element.
        residual: [F] eV/atom, NaN without a label; energy_per_atom: [F] eV/atom, the label.
        time: fs [F]; trajectory: int [F].
        force_norms: atomic number -> (|F| [M], |F̂| [M]) eV/Å.
    """

    measures: Mapping[str, float]
    by_element: Mapping[int, Mapping[str, float]]
    softening: tuple[Softening, ...]
    residual: np.ndarray
    energy_per_atom: np.ndarray
    time: np.ndarray
    trajectory: np.ndarray
    force_norms: Mapping[int, tuple[np.ndarray, np.ndarray]]

    def table(self) -> list[dict[str, object]]:
        """Force measures and slopes, one row per element, all atoms first."""
        rows = []
        for one in self.softening:
            measures = self.measures if one.element == 0 else self.by_element[one.element]
            names = ("force_component_mae", "force_component_rmse", "force_vector_mae", "force_norm_mae")
            rows.append({
                "element": chemical_symbols[one.element] if one.element else "all", "atoms": one.n_atoms,
                **{name: measures[name] for name in names}, "softening_slope": one.slope, "slope_low": one.low,
                "slope_high": one.high, "norm_slope": one.norm_slope, "norm_intercept": one.norm_intercept,
            })  # fmt: skip
        return rows


def parity(
    frames: FrameSet,
    energy: ArrayLike | None = None,
    forces: ArrayLike | None = None,
    stress: ArrayLike | None = None,
    *,
    replicas: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Parity:
    """Compare predictions with the labels of a set.

    Args:
        frames: with labels.
        energy: predicted eV [F]; forces: eV/Å [N,3]; stress: eV/Å³ [F,3,3] or [F,6]. What is None is not compared.
        replicas: bootstrap resamplings of frames for the slopes.

    Raises:
        LabelError: no prediction at all, a prediction for which no frame has a label, of the wrong shape, or not finite
            where there is a label.
    """
    given = {"energy": (energy, (len(frames),)), "forces": (forces, (int(frames.offsets[-1]), 3))}
    if energy is None and forces is None and stress is None:
        raise LabelError("no prediction to compare", where="parity", expected="energy, forces or stress")
    for name, (values, shape) in given.items():
        if values is not None and np.shape(values) != shape:
            raise LabelError(f"predicted {name}", where="parity", expected=shape, found=np.shape(values))
    for name, values in (("energy", energy), ("forces", forces), ("stress", stress)):
        if values is not None and not frames.has(name).any():
            raise LabelError(f"no frame has a label '{name}'", where="parity")
        if values is not None and np.shape(values)[:1] == np.shape(getattr(frames, name))[:1]:
            _check_finite(frames, name, np.asarray(values, dtype=float))
    measures: dict[str, float] = {}
    by_element: dict[int, Mapping[str, float]] = {}
    softening: tuple[Softening, ...] = ()
    norms: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    residual = np.full(len(frames), np.nan)
    if energy is not None:
        measures |= energy_measures(frames.energy, energy, frames.n_atoms)
        residual = (np.asarray(energy, dtype=float) - frames.energy) / frames.n_atoms
    if forces is not None:
        predicted = np.asarray(forces, dtype=float)
        measures |= force_measures(frames.forces, predicted)
        labelled = np.isfinite(frames.forces).all(axis=1)
        for z in frames.elements:
            mine = labelled & (frames.numbers == z)
            if mine.any():
                by_element[z] = force_measures(frames.forces[mine], predicted[mine])
                norms[z] = tuple(np.linalg.norm(x[mine], axis=1) for x in (frames.forces, predicted))  # type: ignore
        softening = softening_slopes(frames, predicted, replicas=replicas, confidence=confidence, seed=seed)
    if stress is not None:
        if np.shape(stress)[:1] != (len(frames),):
            raise LabelError(
                "predicted stress", where="parity", expected=f"{len(frames)} frames", found=np.shape(stress)
            )
        measures |= stress_measures(frames.stress, stress)
    return Parity(
        measures, by_element, softening, residual, frames.energy / frames.n_atoms, np.asarray(frames.time),
        np.asarray(frames.trajectory), norms,
    )  # fmt: skip


def _check_finite(frames: FrameSet, name: str, predicted: np.ndarray) -> None:
    """Refuse predictions that are not finite where there is a label: every mean over them would be lost."""
    rows = len(predicted)
    there = np.isfinite(np.asarray(getattr(frames, name))).reshape(rows, -1).all(axis=1)
    bad = np.flatnonzero(there & ~np.isfinite(predicted).reshape(rows, -1).all(axis=1))
    if len(bad):
        row = int(bad[0])
        frame = int(np.searchsorted(frames.offsets, row, side="right")) - 1 if name == "forces" else row
        raise LabelError(
            f"prediction of '{name}' is not finite", where=("parity", f"frame {frame}"), found=f"{len(bad)} of {rows}",
            hint="Leave these frames out, and say so",
        )  # fmt: skip


def softening_slopes(
    frames: FrameSet, forces: np.ndarray, *, replicas: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[Softening, ...]:
    """Slopes of predicted on labelled forces, all atoms first, then per element, with intervals over frames."""
    labels = np.asarray(frames.forces)
    there = np.isfinite(labels).all(axis=1)
    frame = np.repeat(np.arange(len(frames)), frames.n_atoms)
    rng = np.random.default_rng(seed)
    used = np.unique(frame[there])
    draws = rng.multinomial(len(used), np.full(len(used), 1 / max(1, len(used))), size=replicas).astype(float)
    found = []
    for z in (0, *frames.elements):
        mine = there if z == 0 else there & (frames.numbers == z)
        if not mine.any():
            continue
        a, b = labels[mine], forces[mine]
        place = np.searchsorted(used, frame[mine])
        cross = np.bincount(place, (a * b).sum(axis=1), minlength=len(used))
        square = np.bincount(place, (a * a).sum(axis=1), minlength=len(used))
        low = high = np.nan
        if len(used) > 1:
            with np.errstate(invalid="ignore", divide="ignore"):
                drawn = (draws @ cross) / (draws @ square)
            tail = (1 - confidence) / 2
            low, high = np.nanquantile(drawn, [tail, 1 - tail])
        line = robust_line(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
        slope = cross.sum() / square.sum() if square.sum() > 0 else np.nan
        found.append(Softening(z, int(mine.sum()), float(slope), float(low), float(high), *line))
    return tuple(found)


def robust_line(x: ArrayLike, y: ArrayLike, steps: int = 50) -> tuple[float, float]:
    """(slope, intercept) of y on x with Huber's loss: beyond 1.345 robust standard deviations it is linear."""
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(a) < 2 or np.ptp(a) == 0:
        return np.nan, np.nan
    weight, line = np.ones(len(a)), np.zeros(2)
    columns = np.stack([a, np.ones(len(a))], axis=1)
    for _ in range(steps):
        weighted = columns * weight[:, None]
        new = np.linalg.solve(weighted.T @ columns, weighted.T @ b)
        off = np.abs(b - columns @ new)
        scale = np.median(off) / 0.6745
        weight = np.minimum(1.0, _HUBER * scale / np.maximum(off, 1e-300)) if scale > 0 else np.ones(len(a))
        if np.abs(new - line).max() < 1e-10:
            break
        line = new
    return float(new[0]), float(new[1])


def binned_residuals(energy_per_atom: ArrayLike, residual: ArrayLike, width: float = BIN) -> BinnedResiduals:
    """Mean and standard deviation of residuals [F] in bins of the labelled energy [F], all in eV/atom.

    Bins begin at multiples of `width`, so that those of several potentials on one set agree. Where the energies span
    more than `MOST_BINS` bins (sets of several compositions), the width doubles until they do not; `edges` tell it.

    Raises:
        DataError: nothing to bin, unequal lengths, no width.
    """
    if np.shape(energy_per_atom) != np.shape(residual) or not width > 0:
        raise DataError(
            "one residual per energy, and a width above 0", where="binned_residuals",
            found=f"{np.shape(energy_per_atom)}, {np.shape(residual)}, width {width}",
        )  # fmt: skip
    x, y = np.asarray(energy_per_atom, dtype=float), np.asarray(residual, dtype=float)
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    if not len(x):
        raise DataError("no frame with a label and a prediction", where="binned_residuals")
    while np.ptp(x) > MOST_BINS * width:
        width *= 2
    first, last = np.floor(x.min() / width), np.floor(x.max() / width) + 1
    edges = np.arange(first, last + 0.5) * width
    bins = np.clip(np.floor(x / width) - first, 0, len(edges) - 2).astype(np.int64)
    n = np.bincount(bins, minlength=len(edges) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(bins, y, minlength=len(n)) / n
        off = y - mean[bins]
        std = np.sqrt(np.bincount(bins, off**2, minlength=len(n)) / n)
    return BinnedResiduals(edges, mean, std, n)


def split_measures(
    time: ArrayLike, labels: ArrayLike, predicted: ArrayLike, n_atoms: ArrayLike, at: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Energy measures of the frames before a time in fs, and of those from it on.

    Raises:
        DataError: frames without a time, which belong to neither.
    """
    unknown = np.flatnonzero(~np.isfinite(np.asarray(time, dtype=float)))
    if len(unknown):
        raise DataError("a frame without a time", where=("split_measures", f"frame {unknown[0]}"),
                        found=f"{len(unknown)} of {len(np.asarray(time))}")  # fmt: skip
    early = np.asarray(time, dtype=float) < at
    parts = [np.asarray(x, dtype=float) for x in (labels, predicted, n_atoms)]
    before, after = (energy_measures(*(part[mask] for part in parts)) for mask in (early, ~early))
    return before, after


@dataclass(frozen=True, eq=False)
class Offset:
    """One constant per composition: formula as counts of elements -> eV/atom that predictions lie above labels."""

    per_atom: Mapping[tuple[tuple[int, int], ...], float]

    def remove(self, frames: FrameSet, energy: ArrayLike) -> np.ndarray:
        """Predicted energies [F] in eV less the constant of each frame's composition.

        Raises:
            DataError: a composition that the constant was not fitted on.
        """
        values = np.array(energy, dtype=float)
        for index, composition in enumerate(_compositions(frames)):
            if composition not in self.per_atom:
                raise DataError(
                    "a composition that the constant was not fitted on", where=("Offset", f"frame {index}"),
                    expected=f"one of {len(self.per_atom)}",
                )  # fmt: skip
            values[index] -= self.per_atom[composition] * frames.n_atoms[index]
        return values


def fit_offset(frames: FrameSet, energy: ArrayLike) -> Offset:
    """Mean residual per composition of predicted energies [F] on labelled frames: the control of fine-tuning."""
    residual = (np.asarray(energy, dtype=float) - frames.energy) / frames.n_atoms
    groups: dict[tuple[tuple[int, int], ...], list[float]] = {}
    for composition, value in zip(_compositions(frames), residual.tolist(), strict=True):
        if np.isfinite(value):
            groups.setdefault(composition, []).append(value)
    if not groups:
        raise LabelError("no frame has a label 'energy'", where="fit_offset")
    return Offset({composition: float(np.mean(values)) for composition, values in groups.items()})


def _compositions(frames: FrameSet) -> list[tuple[tuple[int, int], ...]]:
    found = []
    for index in range(len(frames)):
        numbers, counts = np.unique(frames.frame(index)["numbers"], return_counts=True)
        found.append(tuple(zip(numbers.tolist(), counts.tolist(), strict=True)))
    return found
