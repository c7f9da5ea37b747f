"""Residuals of a potential frame by frame, and the figures of a published table from them.

    e_f = (Ê_f - E_f) / n_f                                       eV/atom
    RMSE_E  = sqrt(mean_f e_f²) ,   mean = mean_f e_f ,   std = sqrt(mean_f (e_f - mean)²)
    RMSE_Fθ = sqrt(Σ_f Σ_i (F̂_iθ - F_iθ)² / Σ_f n_f)              over frames and atoms, per direction θ
    RMSE_S  = sqrt(mean over frames and xx, yy, zz, yz, xz, xy of (Ŝ - S)²)

Squares are kept per frame, so that any bootstrap over frames, and `mlipkit.analysis.cures.judge_cure`, can be had later
without the predictions.

Source: arXiv 2603.10159, equations 1 (where the division by n lacks; its code has it) and 2; intervals are ours. Its
code sets the stress labels xx, yy, zz, xy, xz, yx beside predictions xx, yy, zz, yz, xz, xy, and so compares yz with
xy: ``stress_order="published"`` repeats that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from mlipkit.analysis.bootstrap import Design, bootstrap
from mlipkit.analysis.cures import Errors
from mlipkit.analysis.density import densities
from mlipkit.analysis.error_measures import voigt
from mlipkit.data.columns import as_index
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, LabelError, check_choice

StressOrder = Literal["name", "published"]
Quantity = Literal["energy", "energy_centred", "forces", "stress"]

UNITS: Final = {
    "rmse_e": "meV/atom", "mean_e": "meV/atom", "std_e": "meV/atom", "rmse_fx": "eV/Å", "rmse_fy": "eV/Å",
    "rmse_fz": "eV/Å", "rmse_f": "eV/Å", "rmse_s": "eV/Å³",
}  # fmt: skip
"""Figures of a row of the table."""
_PUBLISHED_LABELS = [0, 1, 2, 5, 4, 5]
_SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class Residuals:
    """What is left between predictions and labels of F frames.

    Attributes:
        frames: the labelled frames.
        energy: eV/atom [F], NaN without a label.
        force_squares: (eV/Å)² [F,3], squared errors summed over the labelled atoms of each frame.
        n_forces: int [F], labelled atoms.
        stress: eV/Å³ [F,6] in the order xx, yy, zz, yz, xz, xy; NaN without a label or a prediction.
    """

    frames: FrameSet
    energy: np.ndarray
    force_squares: np.ndarray
    n_forces: np.ndarray
    stress: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, index: slice | Sequence[int] | np.ndarray) -> Residuals:
        """Those of some frames: a slice, a mask [F] or integers."""
        chosen = as_index(index, len(self))
        return Residuals(
            self.frames.select(chosen), self.energy[chosen], self.force_squares[chosen], self.n_forces[chosen],
            self.stress[chosen],
        )  # fmt: skip

    def less(self, per_atom: ArrayLike) -> Residuals:
        """With a constant in eV/atom, or one per frame [F], taken off the predicted energies."""
        return replace(self, energy=self.energy - np.asarray(per_atom, dtype=float))

    def errors(self, quantity: Quantity = "energy", seed: int | str = 0, *, by_trajectory: bool = False) -> Errors:
        """One row per frame for `judge_cure(..., reduce="rms")`, which then forms the RMSEs of this module.

        Args:
            quantity: energy (eV/atom), energy_centred (the mean over the frames removed), forces (eV/Å, weighted with
                the number of atoms) or stress (eV/Å³).
            seed: training seed of the potential.
            by_trajectory: frames of one trajectory draw together first.

        Frames are named by their structure, so that arms evaluated on one set are paired.

        Raises:
            LabelError: no frame has the label.
        """
        check_choice(quantity, get_args(Quantity), "quantity")
        weights = None
        if quantity == "forces":
            there = self.n_forces > 0
            values = np.sqrt(self.force_squares[there].sum(axis=1) / (3 * self.n_forces[there]))
            weights = self.n_forces[there].astype(float)
        elif quantity == "stress":
            there = np.isfinite(self.stress).all(axis=1)
            values = np.sqrt((self.stress[there] ** 2).mean(axis=1))
        else:
            there = np.isfinite(self.energy)
            values = self.energy[there]
            values = np.abs(values - values.mean() if quantity == "energy_centred" and len(values) else values)
        if not there.any():
            raise LabelError(f"no frame has a residual of {quantity}", where="errors", found=f"{len(self)} frames")
        names = np.array([f"{value:016x}" for value in self.frames.structure_hashes[there].tolist()])
        runs = self.frames.trajectory[there] if by_trajectory else None
        # An exact prediction has no logarithm, but is no reason to refuse the others.
        return Errors(np.maximum(values, _SMALLEST), np.full(len(values), seed), names, runs, weights)

    def per_frame(self) -> list[dict[str, Any]]:
        """JSON-ready, one row per frame: uid, trajectory, time, density, residual and squares."""
        density = densities(self.frames)
        with np.errstate(invalid="ignore", divide="ignore"):
            force = np.sqrt(self.force_squares.sum(axis=1) / (3 * self.n_forces))
            stress = np.sqrt((self.stress**2).mean(axis=1))
        return [
            {
                "uid": self.frames.uid(f), "trajectory": int(self.frames.trajectory[f]),
                "time_fs": _number(self.frames.time[f]), "density_g_cm3": _number(density[f]),
                "e_mev": _number(1000 * self.energy[f]), "rms_f": _number(force[f]), "n_forces": int(self.n_forces[f]),
                "force_squares": [_number(x) for x in self.force_squares[f]], "rms_s": _number(stress[f]),
                "stress": [_number(x) for x in self.stress[f]],
            }
            for f in range(len(self))
        ]  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A figure with the ends of its interval; NaN ends where nothing can be drawn (one frame)."""

    value: float
    low: float
    high: float


def residuals(predicted: FrameSet, labelled: FrameSet, *, stress_order: StressOrder = "name") -> Residuals:
    """Predictions less labels, frame by frame.

    Args:
        predicted: the frames with predicted labels (`mlipkit.models.predict`); a label that is missing there is not
            compared.
        labelled: the same frames, in the same order, with their labels.
        stress_order: "name" compares components of one name; "published" repeats the slip of the published code.

    Raises:
        DataError: other frames, or another order of them.
        LabelError: a prediction that is NaN for some frames only.
    """
    check_choice(stress_order, get_args(StressOrder), "stress_order")
    if len(predicted) != len(labelled) or (predicted.structure_hashes != labelled.structure_hashes).any():
        raise DataError(
            "predictions and labels of different frames", where="residuals", expected=f"{len(labelled)} frames",
            found=f"{len(predicted)} frames, or another order",
        )  # fmt: skip
    for name in ("energy", "forces"):
        has = predicted.has(name)
        if has.any() and not has.all():
            raise LabelError(
                f"no prediction of '{name}'", where=("residuals", f"frame {int(np.argmin(has))}"),
                found=f"{int((~has).sum())} of {len(has)} frames without", hint="Leave these frames out, and say so",
            )  # fmt: skip
    squares = (predicted.forces - labelled.forces) ** 2
    there = np.isfinite(squares).all(axis=1)
    frame = np.repeat(np.arange(len(labelled)), labelled.n_atoms)[there]
    sums = [np.bincount(frame, squares[there, axis], minlength=len(labelled)) for axis in range(3)]
    label = voigt(labelled.stress)
    if stress_order == "published":
        label = label[:, _PUBLISHED_LABELS]
    return Residuals(
        labelled, (predicted.energy - labelled.energy) / labelled.n_atoms, np.stack(sums, axis=1),
        np.bincount(frame, minlength=len(labelled)), voigt(predicted.stress) - label,
    )  # fmt: skip


def split_in_time(found: Residuals, at: float) -> tuple[Residuals, Residuals]:
    """Those of frames before a time in fs, and those from it on.

    Raises:
        DataError: frames without a time, which belong to neither.
    """
    time = np.asarray(found.frames.time)
    if not np.isfinite(time).all():
        raise DataError(
            "a frame without a time", where=("split_in_time", f"frame {int(np.argmin(np.isfinite(time)))}"),
            found=f"{int((~np.isfinite(time)).sum())} of {len(time)}",
        )  # fmt: skip
    return found.select(time < at), found.select(time >= at)


def figures(
    found: Residuals | Sequence[Residuals], *, by_trajectory: bool = False, confidence: float = 0.95,
    n_draws: int = 2000, seed: int = 0,
) -> dict[str, Figure]:  # fmt: skip
    """Figures of a row of the table (see `UNITS`) with bootstrap intervals over frames; labels that lack are left out.

    Args:
        found: residuals, or those of several training seeds: figures are then over all of them, the standard deviation
            with each seed's own mean removed, and the interval draws seeds and frames crossed.
        by_trajectory: draw trajectories first, then frames within them.
        n_draws: per level.

    Intervals of RMSEs are formed of their logarithms: an end is never below zero. They are t intervals and hold for a
    handful of frames (`mlipkit.analysis.bootstrap`).

    Raises:
        DataError: no frames at all.
    """
    parts = [found] if isinstance(found, Residuals) else list(found)
    if not parts or not all(map(len, parts)):
        raise DataError("no frames", where="figures")
    table = np.concatenate([_sums(part) for part in parts])
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    names = [name for name, column in _COUNTED.items() if table[:, column].any()]

    def statistic(weights: np.ndarray) -> np.ndarray:
        # [B, seeds, columns]
        sums = np.stack([weights[:, owner == s] @ table[owner == s] for s in range(len(parts))], axis=1)
        return np.stack([_VALUES[name](sums) for name in names], axis=-1)

    with np.errstate(divide="ignore", invalid="ignore"):
        plain = statistic(np.ones((1, len(table))))[0]
        shown = {name: float(_shown(name, value)) for name, value in zip(names, plain, strict=True)}
        # What is exactly zero has no logarithm, and is zero in every draw.
        drawn = [i for i, value in enumerate(plain) if np.isfinite(value)]
        frames = np.concatenate([part.frames.structure_hashes for part in parts])
        runs = np.concatenate([part.frames.trajectory for part in parts])
        design = Design(*([[owner]] if len(parts) > 1 else []), [runs, frames] if by_trajectory else [frames])
        ends: dict[str, tuple[float, float]] = {}
        if design.components() and drawn:

            def finite(weights: np.ndarray) -> np.ndarray:
                values = statistic(weights)[:, drawn]
                return np.where(np.isfinite(values), values, np.nan)

            interval = bootstrap(finite, design, confidence=confidence, n_draws=n_draws, seed=seed)
            for place, i in enumerate(drawn):
                low, high = interval.lower[place], interval.upper[place]
                ends[names[i]] = (float(_shown(names[i], low)), float(_shown(names[i], high)))
    return {
        name: Figure(value, *(ends.get(name) or ((0.0, 0.0) if value == 0 else (np.nan, np.nan))))
        for name, value in shown.items()
    }


def table_row(found: Residuals | Sequence[Residuals], **options: Any) -> dict[str, Any]:
    """JSON-ready row: n_frames, density_g_cm3 (mean), and each figure as [value, low, high]; options of `figures`."""
    parts = [found] if isinstance(found, Residuals) else list(found)
    density = np.concatenate([densities(part.frames) for part in parts])
    known = density[np.isfinite(density)]
    return {
        "n_frames": len(parts[0]), "n_seeds": len(parts),
        "density_g_cm3": float(known.mean()) if len(known) else None,
        **{
            name: [_number(one.value), _number(one.low), _number(one.high)]
            for name, one in figures(found, **options).items()
        },
    }  # fmt: skip


# Columns of sums: e², e, energies, Fx², Fy², Fz², atoms, S², components.
def _sums(found: Residuals) -> np.ndarray:
    energy, stress = np.isfinite(found.energy), np.isfinite(found.stress).all(axis=1)
    e = 1000 * np.where(energy, found.energy, 0.0)
    square = np.where(stress, (found.stress**2).sum(axis=1), 0.0)
    return np.column_stack([e**2, e, energy, found.force_squares, found.n_forces, square, 6.0 * stress])


_COUNTED = {"rmse_e": 2, "mean_e": 2, "std_e": 2, "rmse_fx": 6, "rmse_fy": 6, "rmse_fz": 6, "rmse_f": 6, "rmse_s": 8}


def _half_log(column: slice | int, count: int, share: float = 1.0) -> Any:
    def value(sums: np.ndarray) -> np.ndarray:
        total = sums.sum(axis=1)
        top = total[:, column] if isinstance(column, int) else total[:, column].sum(axis=1)
        return 0.5 * np.log(top / (share * total[:, count]))

    return value


def _spread(sums: np.ndarray) -> np.ndarray:
    """Half log of the variance about each seed's own mean."""
    square, first, n = sums[..., 0], sums[..., 1], sums[..., 2]
    within = square - np.divide(first**2, n, out=np.zeros_like(first), where=n > 0)
    total = n.sum(axis=1)
    # Rounding leaves a little of what is exactly constant.
    kept = np.where(within > 1e-12 * square, within, 0.0).sum(axis=1)
    return 0.5 * np.log(kept / total)


_VALUES = {
    "rmse_e": _half_log(0, 2),
    "mean_e": lambda sums: sums[..., 1].sum(axis=1) / sums[..., 2].sum(axis=1),
    "std_e": _spread,
    "rmse_fx": _half_log(3, 6),
    "rmse_fy": _half_log(4, 6),
    "rmse_fz": _half_log(5, 6),
    "rmse_f": _half_log(slice(3, 6), 6, 3.0),
    "rmse_s": _half_log(7, 8),
}


def _shown(name: str, value: float) -> float:
    return value if name == "mean_e" else float(np.exp(value))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
