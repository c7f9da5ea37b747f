"""The offset control of fine-tuning: the untouched potential plus constants fitted on the training frames of an arm.

    Ê'_f = Ê_f - Σ_z N_fz c_z ,   c = least squares of n_f e_f on the counts N_fz of elements in the frames

With one composition that is one constant per atom, whatever the elements. In the published study nearly all of an
energy residual is such a constant: a fine-tuned potential that does not beat this control has learned an offset.

Source: ours, on the data of arXiv 2603.10159; atomic energies by `mlipkit.data.atomic_energies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from mlipkit.analysis.residuals import Residuals
from mlipkit.data.atomic_energies import fit_atomic_energies
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError


@dataclass(frozen=True, eq=False)
class OffsetControl:
    """Constants that predictions lie above labels, fitted on training frames.

    Attributes:
        per_element: atomic number -> eV; with one composition only their sum over a frame has a meaning.
        elements: atomic numbers, in order of the columns of `counts`.
        counts: [F, elements] of the training frames, each composition once.
        n_frames: that it was fitted on.
        residual_std: eV/atom that it leaves on them.
    """

    per_element: dict[int, float]
    elements: tuple[int, ...]
    counts: np.ndarray
    n_frames: int
    residual_std: float

    def determines(self, frames: FrameSet) -> np.ndarray:
        """bool [F]: frames whose composition the training frames determine the constant of."""
        known = np.isin(frames.numbers, list(self.per_element))
        there = np.logical_and.reduceat(known, frames.offsets[:-1])
        there[there] = ~self._outside(_compositions(frames.select(there), self.elements))
        return there

    def per_atom(self, frames: FrameSet) -> np.ndarray:
        """The constant of each frame, eV/atom [F].

        Raises:
            DataError: an element, or a composition, that the training frames do not determine.
        """
        unknown = [chemical_symbols[z] for z in frames.elements if z not in self.per_element]
        if unknown:
            raise DataError(f"no constant for {', '.join(unknown)}", where="offset control")
        counts = _compositions(frames, self.elements)
        outside = self._outside(counts)
        if outside.any():
            raise DataError(
                "a composition that the training frames do not determine",
                where=("offset control", f"frame {int(np.argmax(outside))}"), found=f"{int(outside.sum())} frames",
            )  # fmt: skip
        return counts @ np.array([self.per_element[z] for z in self.elements]) / frames.n_atoms

    def _outside(self, counts: np.ndarray) -> np.ndarray:
        """bool [F]: compositions [F, elements] that are no sums of those of the training frames."""
        row_space = np.linalg.svd(self.counts, full_matrices=False)[2][: np.linalg.matrix_rank(self.counts)]
        left = np.abs(counts - counts @ row_space.T @ row_space).max(axis=1, initial=0.0)
        return left > 1e-6 * counts.sum(axis=1)

    def remove(self, found: Residuals) -> Residuals:
        """Residuals of the untouched potential with the constants taken off: those of the control."""
        return found.less(self.per_atom(found.frames))


def offset_control(training: Residuals) -> OffsetControl:
    """Fit the offset control.

    Args:
        training: residuals of the *untouched* potential on the training frames of an arm.

    Raises:
        LabelError: no frame has an energy.
    """
    frames = training.frames.with_labels(energy=training.energy * training.frames.n_atoms)
    fitted = fit_atomic_energies(frames)
    labelled = frames.select(frames.has("energy"))
    counts = np.unique(_compositions(labelled, labelled.elements), axis=0)
    return OffsetControl(dict(fitted), labelled.elements, counts, len(labelled), fitted.residual)


def _compositions(frames: FrameSet, elements: Sequence[int]) -> np.ndarray:
    """[F, elements]"""
    column = np.full(120, -1)
    column[list(elements)] = np.arange(len(elements))
    frame = np.repeat(np.arange(len(frames)), frames.n_atoms)
    cells = np.bincount(frame * len(elements) + column[frames.numbers], minlength=len(frames) * len(elements))
    return cells.reshape(len(frames), len(elements)).astype(float)
