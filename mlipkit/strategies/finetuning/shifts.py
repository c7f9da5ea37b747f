"""The reference step: a constant per element that moves a universal potential to the energy zero of new labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from ase.data import chemical_symbols

from mlipkit.errors import DataError, LabelError

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential

MAX_SCATTER: Final = 1.0
"""eV per atom that a constant per element may leave; more than any universal potential errs on the states it knows."""


@dataclass(frozen=True)
class EnergyShifts:
    """What was found, and what it is worth.

    Attributes:
        values: atomic number -> eV, to be added to the potential's energy of each such atom.
        origin: "least squares", "isolated atoms" or "none".
        rank, n_elements: how many independent constants the compositions determine, of how many elements. With a lower
            rank the sums over a frame are right and single elements have no meaning.
        mean, spread: meV/atom, of (label - prediction) before the shift, and its standard deviation once it is applied.
        warning: one sentence, "" when there is nothing to say.
    """

    values: Mapping[int, float]
    origin: str
    rank: int
    n_elements: int
    mean: float
    spread: float
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """By symbol, JSON-ready."""
        return {
            "eV": {chemical_symbols[z]: value for z, value in self.values.items()},
            "origin": self.origin, "rank": self.rank, "elements": self.n_elements,
            "mean_meV_per_atom": _finite(self.mean), "spread_meV_per_atom": _finite(self.spread),
            "warning": self.warning,
        }  # fmt: skip


@dataclass(frozen=True)
class _Residuals:
    frames: FrameSet
    counts: np.ndarray
    values: np.ndarray
    elements: tuple[int, ...] = field(default=())


def energy_shifts(
    potential: BasePotential, frames: FrameSet, isolated: Mapping[int, float] | None = None, batch_size: int = 8
) -> EnergyShifts:
    """Fit one constant per element to the residuals of a potential: `min_s Σ_f (E_f - U_f - Σ_z n_fz s_z)²`.

    What is fitted are residuals of the potential, not energies: energies would also hand the constants all that the
    potential knows already, and distort what lies between frames.

    Args:
        potential: the untouched potential U.
        frames: labelled training frames; nothing of validation or test may enter.
        isolated: energies of isolated atoms at the labels' level of theory, eV by atomic number; the shift is then
            their difference to U of the same atoms, and nothing is fitted.
        batch_size: frames at a time.

    Raises:
        LabelError: no frame has an energy.
        DataError: `isolated` lacks an element; labels that do not belong to the potential's states even so.
    """
    from mlipkit.data import fit_atomic_energies

    found = _residuals(potential, frames, batch_size)
    rank = int(np.linalg.matrix_rank(found.counts))
    if isolated is not None:
        values, origin = _from_isolated(potential, isolated, found.elements), "isolated atoms"
    else:
        values = dict(fit_atomic_energies(found.frames))
        origin = "least squares"
    n_atoms = found.counts.sum(1)
    left = (found.values - found.counts @ np.array([values[z] for z in found.elements])) / n_atoms
    rest = float(np.sqrt(np.mean(left**2)))
    if rest > MAX_SCATTER:
        worst = int(np.abs(left).argmax())
        raise DataError(
            "labels stay far from the potential's energies even with one constant per element", where="energies",
            expected=f"at most {MAX_SCATTER:g} eV/atom left",
            found=f"{rest:.3g}, worst {left[worst]:+.3g} in frame {found.frames.uid(worst)}",
            hint="Other units, energies per atom, several methods in one set, or wrong isolated atoms; "
            "frames.report() tells",
        )  # fmt: skip
    warning = ""
    if rank < len(found.elements) and isolated is None:
        known = "composition" if rank == 1 else "compositions"
        warning = (
            f"{rank} independent {known} for {len(found.elements)} elements: the total shift of a frame is determined, "
            "its division among the elements is not; energies of other compositions would be shifted wrongly"
        )
    return EnergyShifts(
        values, origin, rank, len(found.elements), mean=1000 * float(np.mean(found.values / n_atoms)),
        spread=1000 * float(np.std(left)), warning=warning,
    )  # fmt: skip


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def moved(frames: FrameSet, shifts: Mapping[int, float]) -> FrameSet:
    """The frames with their energies on the zero that the shifts lead to: labels of the untouched potential can then be
    compared with the shifted one, and a second head that differs in its atomic energies alone is not needed."""
    if unknown := [z for z in shifts if not 0 < z < len(chemical_symbols)]:
        raise DataError("no such element", where=("shifts", unknown[0]), expected="atomic numbers", found=unknown)
    table = np.zeros(120)
    table[list(shifts)] = list(shifts.values())
    per_frame = np.add.reduceat(table[frames.numbers], frames.offsets[:-1]) if len(frames) else np.zeros(0)
    return frames.with_labels(energy=frames.energy + per_frame, forces=frames.forces, stress=frames.stress)


def _residuals(potential: BasePotential, frames: FrameSet, batch_size: int) -> _Residuals:
    from mlipkit.models import predict

    labelled = frames.select(np.flatnonzero(frames.has("energy")))
    if not len(labelled):
        raise LabelError("no frame has an energy", where="energy shifts", hint="Use shifts='keep' without energies")
    predicted = predict(potential, labelled, batch_size, forces=False)
    values = np.asarray(labelled.energy) - np.asarray(predicted.energy)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError("the potential gives no finite energy", where=("frame", labelled.uid(bad)))
    elements = tuple(int(z) for z in labelled.elements)
    column = np.full(120, -1)
    column[list(elements)] = range(len(elements))
    counts = np.zeros((len(labelled), len(elements)))
    np.add.at(counts, (np.repeat(np.arange(len(labelled)), labelled.n_atoms), column[labelled.numbers]), 1)
    return _Residuals(labelled.with_labels(energy=values), counts, values, elements)


def _from_isolated(
    potential: BasePotential, isolated: Mapping[int, float], elements: tuple[int, ...]
) -> dict[int, float]:
    from ase import Atoms

    from mlipkit.data import FrameSet
    from mlipkit.models import predict

    if missing := [chemical_symbols[z] for z in elements if z not in isolated]:
        raise DataError("no isolated atom of " + ", ".join(missing), where="isolated atoms", hint="Or shifts='fit'")
    if wild := [chemical_symbols[z] for z in elements if not np.isfinite(isolated[z])]:
        raise DataError("no finite energy of " + ", ".join(wild), where="isolated atoms", hint="Or shifts='fit'")
    atoms = FrameSet.from_atoms([Atoms([z], [[0.0, 0.0, 0.0]]) for z in elements])
    own = np.asarray(predict(potential, atoms, forces=False).energy)
    return {z: float(isolated[z] - energy) for z, energy in zip(elements, own, strict=True)}
