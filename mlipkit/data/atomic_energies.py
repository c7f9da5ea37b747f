"""Energy of each element that a model need not learn: E = Σ_i E0(z_i) + what the network adds.

In order of preference: energies of isolated atoms of the same method; least squares of the energies on the element
counts. A gate refuses atomic energies that leave implausible energies per atom, before any training starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from mlipkit.data.columns import Array
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, LabelError, nearest
from mlipkit.units import HARTREE, KCAL_PER_MOL

RIDGE: Final = 1e-8
MAX_BINDING: Final = 12.0
"""eV per atom. Bound matter lies within about 9 eV per atom (tungsten) of its isolated atoms."""
MAX_SCATTER: Final = 3.0
"""eV per atom: root mean square that least squares may leave."""
ISOLATED_DISTANCE: Final = 6.0
"""Å to the nearest periodic image for a single atom to count as isolated."""
_CHUNK: Final = 1 << 15


class AtomicEnergies(dict[int, float]):
    """Atomic number -> eV, with where the numbers come from.

    Attributes:
        origin: "isolated atoms", "least squares" or "given", in words.
        residual: root mean square of (E - Σ E0) per atom on the frames, eV; NaN when not known.
    """

    def __init__(self, energies: Mapping[int, float], origin: str, residual: float = float("nan")) -> None:
        super().__init__({int(z): float(energies[z]) for z in sorted(energies)})
        self.origin = origin
        self.residual = residual


def fit_atomic_energies(frames: FrameSet) -> AtomicEnergies:
    """Least squares of total energies on element counts, with ridge 1e-8.

    When the compositions do not determine every element (one molecule only), the solution of least norm is returned:
    sums over a frame are right, single elements have no meaning.

    Raises:
        LabelError: no frame has an energy.
    """
    labelled = _labelled(frames)
    elements = np.array(labelled.elements)
    # Rows are folded into a triangular factor piece by piece: memory does not grow with the number of frames.
    factor: Array = np.empty((0, len(elements) + 1))
    for counts, energy in _counts(labelled, elements):
        factor = np.asarray(np.linalg.qr(np.vstack([factor, np.column_stack([counts, energy])]), mode="r"))
    matrix, target = factor[:, :-1], factor[:, -1]
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    solution = vt.T @ ((s / (s**2 + RIDGE)) * (u.T @ target))
    energies = dict(zip(elements.tolist(), solution.tolist(), strict=True))
    rms = float(np.sqrt(np.mean(residual_per_atom(labelled, energies) ** 2)))
    return AtomicEnergies(energies, "least squares", rms)


def undetermined(frames: FrameSet, others: FrameSet) -> Array:
    """Which of the other frames [F] have a composition whose energy hangs on what `frames` leave open.

    Frames of one molecule, or of one cell, do not tell elements apart: energies of their isomers are right, those of
    any other composition are off by a constant that nothing fixes.

    Args:
        frames: with energies, as `fit_atomic_energies` takes them.
    """
    labelled = _labelled(frames)
    elements = np.unique([*labelled.elements, *others.elements])
    # Compositions are few, however many the frames.
    known = np.concatenate([np.unique(rows, axis=0) for rows, _ in _counts(labelled, elements)])
    _, s, vt = np.linalg.svd(known, full_matrices=False)
    span = vt[s > 1e-9 * s[0]]
    found = []
    for rows, _ in _counts(others, elements):
        beyond = rows - rows @ span.T @ span
        found.append(np.linalg.norm(beyond, axis=1) > 1e-6 * np.linalg.norm(rows, axis=1))
    return np.concatenate(found) if found else np.empty(0, bool)


def isolated_atom_energies(frames: FrameSet) -> AtomicEnergies:
    """Energies of the frames that are one atom without neighbours (no image within 6 Å); the lowest of each element."""
    single = frames.select((frames.n_atoms == 1) & frames.has("energy"))
    energies: dict[int, float] = {}
    for i in range(len(single)):
        frame = single.frame(i)
        if _nearest_image(frame["cell"], frame["pbc"]) >= ISOLATED_DISTANCE:
            z = int(frame["numbers"][0])
            energies[z] = min(frame["energy"], energies.get(z, np.inf))
    return AtomicEnergies(energies, "isolated atoms")


def choose_atomic_energies(
    frames: FrameSet,
    isolated: Mapping[int, float] | Mapping[str, float] | None = None,
    *,
    max_binding: float = MAX_BINDING,
    max_scatter: float = MAX_SCATTER,
) -> AtomicEnergies:
    """Atomic energies for training on `frames`.

    Args:
        frames: the training part (nothing of validation or test may enter).
        isolated: energies of isolated atoms, eV, by atomic number or symbol. By default those found in `frames`; when
            they do not cover every element, least squares.
        max_binding: largest plausible median of |E - Σ E0| per atom beside isolated atoms, eV.
        max_scatter: largest plausible root mean square of (E - Σ E0) per atom beside least squares, eV.

    Raises:
        DataError: `isolated` lacks an element, or the energies per atom that remain are implausible; the message
            names the suspected cause.
        LabelError: no frame has an energy.
    """
    labelled = _labelled(frames)
    if isolated is not None:
        chosen = AtomicEnergies(_by_number(isolated), "isolated atoms (given)")
        missing = [chemical_symbols[z] for z in frames.elements if z not in chosen]
        if missing:
            raise DataError(
                f"no atomic energy for {', '.join(missing)}",
                where="atomic energies",
                hint="Give all elements, or none (least squares).",
            )
    else:
        chosen = isolated_atom_energies(frames)
    molecules = labelled.select(labelled.n_atoms > 1)
    if not set(frames.elements) <= set(chosen):
        chosen = fit_atomic_energies(frames)
        if chosen.residual > max_scatter:
            raise DataError(
                f"energies scatter by {chosen.residual:.3g} eV per atom around their composition",
                where="atomic energies",
                expected=f"at most {max_scatter:g} eV per atom",
                hint=_cause_of_scatter(labelled, chosen),
            )
        return chosen
    residual = residual_per_atom(molecules if len(molecules) else labelled, chosen)
    typical = float(np.median(np.abs(residual)))
    if typical > max_binding:
        raise DataError(
            f"energies lie {np.median(residual):.4g} eV per atom away from the {chosen.origin}",
            where="atomic energies",
            expected=f"within {max_binding:g} eV per atom",
            hint=_cause_of_offset(molecules, chosen, max_binding),
        )
    return AtomicEnergies(chosen, chosen.origin, float(np.sqrt(np.mean(residual**2))))


def residual_per_atom(frames: FrameSet, energies: Mapping[int, float]) -> Array:
    """(E - Σ E0) / n of every frame, eV [F]; NaN where the energy is missing."""
    table = np.full(120, np.nan)
    for z, energy in energies.items():
        table[z] = energy
    if not len(frames):
        return np.empty(0)
    sums = np.add.reduceat(table[frames.numbers], frames.offsets[:-1])
    return (frames.energy - sums) / frames.n_atoms


def _labelled(frames: FrameSet) -> FrameSet:
    has = frames.has("energy")
    if not has.any():
        raise LabelError("no frame has an energy", where="atomic energies", found=f"{len(frames)} frames")
    return frames if has.all() else frames.select(has)


def _counts(frames: FrameSet, elements: Array):
    """Piece by piece, atoms of each element in every frame [F,T], and the energies [F]."""
    column, n_elements = np.full(120, -1), len(elements)
    column[elements] = np.arange(n_elements)
    for start in range(0, len(frames), _CHUNK):
        part = frames[start : start + _CHUNK]
        frame = np.repeat(np.arange(len(part)), part.n_atoms)
        cells = np.bincount(frame * n_elements + column[part.numbers], minlength=len(part) * n_elements)
        yield cells.reshape(len(part), n_elements).astype(float), part.energy


def _nearest_image(cell: Array, pbc: Array) -> float:
    """Shortest lattice vector along the periodic axes, Å (heights of the cell where it is skewed)."""
    if not pbc.any():
        return np.inf
    vectors = cell[pbc]
    # Rows of the pseudo-inverse: 1 over the height along each axis.
    return float((1.0 / np.linalg.norm(np.linalg.pinv(vectors), axis=0)).min())


def _by_number(energies: Mapping[int, float] | Mapping[str, float]) -> dict[int, float]:
    result = {}
    for key, value in energies.items():
        if isinstance(key, str):
            if key not in atomic_numbers:
                raise DataError(f"no element '{key}'", where="atomic energies", hint=nearest(key, chemical_symbols[1:]))
            key = atomic_numbers[key]
        if not np.isfinite(value):
            raise DataError(f"energy of {chemical_symbols[int(key)]} is not finite", where="atomic energies")
        result[int(key)] = float(value)
    return result


def _cause_of_offset(frames: FrameSet, chosen: AtomicEnergies, limit: float) -> str:
    """The likeliest reason why energies are far from the isolated atoms."""
    sums = frames.energy - residual_per_atom(frames, chosen) * frames.n_atoms
    guesses = (
        ("the frames' energies look like hartree", frames.energy * HARTREE, sums),
        ("the frames' energies look like kcal/mol", frames.energy * KCAL_PER_MOL, sums),
        ("the atomic energies look like hartree", frames.energy, sums * HARTREE),
        ("the atomic energies look like kcal/mol", frames.energy, sums * KCAL_PER_MOL),
        ("the frames' energies look like energies per atom", frames.energy * frames.n_atoms, sums),
        ("the atomic energies look already subtracted from the frames' energies", frames.energy, np.zeros(len(sums))),
    )
    distance = [np.median(np.abs(energy - reference) / frames.n_atoms) for _, energy, reference in guesses]
    best = int(np.argmin(distance))
    if distance[best] <= limit:
        return f"Suspected cause: {guesses[best][0]}."
    fitted = fit_atomic_energies(frames)
    if fitted.residual < MAX_SCATTER:
        shifts = ", ".join(f"{chemical_symbols[z]} {fitted[z] - chosen[z]:+.4g}" for z in fitted)
        return (
            "Suspected cause: the atoms were computed with another energy zero (pseudopotentials, functional)"
            f"; least squares would shift them by {shifts} eV."
        )
    return f"Suspected cause: frames of several methods together. {_cause_of_scatter(frames, fitted)}"


def _cause_of_scatter(frames: FrameSet, fitted: AtomicEnergies) -> str:
    """The likeliest reason why composition does not explain the energies."""
    residual = residual_per_atom(frames, fitted)
    codes = np.unique(frames.source_codes)
    if len(codes) > 1:
        own = {}
        for code in codes:
            part = frames.select(frames.source_codes == code)
            own[frames.sources[int(code)]] = (fit_atomic_energies(part).residual, float(part.energy.mean()))
        if all(scatter < MAX_SCATTER for scatter, _ in own.values()):
            means = ", ".join(f"{name} {mean:.5g}" for name, (_, mean) in list(own.items())[:4])
            return f"Suspected cause: sources with different units or energy zeros (mean energy in eV: {means})."
    per_atom = frames.with_labels(energy=frames.energy * frames.n_atoms)
    if len(np.unique(frames.n_atoms)) > 1 and fit_atomic_energies(per_atom).residual < 0.1 * fitted.residual:
        return "Suspected cause: the energies are energies per atom, not of the whole frame."
    worst = int(np.argmax(np.abs(residual)))
    outliers = np.abs(residual) > 20 * (np.median(np.abs(residual)) + 1e-3)
    if 0 < outliers.sum() <= 0.05 * len(frames):
        return (
            f"Suspected cause: {int(outliers.sum())} outliers, the worst is frame {frames.uid(worst)} of "
            f"{frames.frame(worst)['source']} with {residual[worst]:+.4g} eV per atom."
        )
    return "Suspected cause: energies that are not eV, or labels of mixed origin; see frames.report()."
