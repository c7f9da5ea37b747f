"""Findings about structures and labels frame by frame: overlaps, duplicates, outliers, zeroed forces, periodicity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from mlipkit.data.frameset import FrameSet
from mlipkit.data.neighbours import neighbour_list
from mlipkit.data.report_units import Finding, _some
from mlipkit.units import AMU_PER_A3

OVERLAP = 0.6
"""Distances below this share of the sum of covalent radii count as overlap."""
_MAX_SEARCHED_ATOMS = 400_000
_RADII = np.where(np.isfinite(covalent_radii), covalent_radii, 1.5)


def closest_ratio(frames: FrameSet) -> tuple[np.ndarray, np.ndarray, dict[int, tuple[int, int, float]]]:
    """Smallest distance over sum of covalent radii, frame by frame.

    Returns:
        frame indices that were searched (all, or an even sample when there are very many atoms); ratio of each
        (NaN for single atoms); for overlapping frames the pair: frame -> (atom, atom, distance in Å).
    """
    total = int(frames.offsets[-1])
    step = max(1, -(-total // _MAX_SEARCHED_ATOMS))
    rows = np.arange(0, len(frames), step)
    ratios = np.full(len(rows), np.nan)
    pairs: dict[int, tuple[int, int, float]] = {}
    for k, row in enumerate(rows):
        frame = frames.frame(int(row))
        found = _closest(frame["numbers"], frame["positions"], frame["cell"], frame["pbc"])
        if found is not None:
            ratios[k] = found[0]
            if found[0] < OVERLAP:
                pairs[int(row)] = found[1:]
    return rows, ratios, pairs


def _closest(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> tuple[float, int, int, float] | None:
    radii = _RADII[numbers]
    if not pbc.any() and len(numbers) <= 64:
        if len(numbers) < 2:
            return None
        distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
        distance[np.diag_indices(len(numbers))] = np.inf
        ratio = distance / (radii[:, None] + radii[None])
        i, j = np.unravel_index(int(np.argmin(ratio)), ratio.shape)
        return float(ratio[i, j]), int(min(i, j)), int(max(i, j)), float(distance[i, j])
    edges, _, vectors = neighbour_list(positions, cell, pbc, 2.2 * float(radii.max()))
    if not edges.shape[1]:
        return None
    distance = np.linalg.norm(vectors, axis=1)
    ratio = distance / (radii[edges[0]] + radii[edges[1]])
    best = int(np.argmin(ratio))
    i, j = sorted((int(edges[0, best]), int(edges[1, best])))
    return float(ratio[best]), i, j, float(distance[best])


def overlap_finding(frames: FrameSet, searched: int, pairs: dict[int, tuple[int, int, float]]) -> Finding:
    """The closest overlapping pair by name, or that there is none."""
    how = f"{searched} frames" if searched == len(frames) else f"{searched} of {len(frames)} frames (sampled)"
    if not pairs:
        return Finding("ok", "overlaps", f"no two atoms overlap in {how}")
    row = min(pairs, key=lambda one: pairs[one][2])
    i, j, distance = pairs[row]
    numbers = frames.frame(row)["numbers"]
    names = f"{chemical_symbols[numbers[i]]}{i} and {chemical_symbols[numbers[j]]}{j}"
    return Finding(
        "warning",
        "overlaps",
        f"atoms overlap in {len(pairs)} of {how}; the closest are {names} of frame {row}, {distance:.2f} Å apart",
        tuple(sorted(pairs)[:50]),
    )


def duplicate_findings(frames: FrameSet) -> Iterator[Finding]:
    """Identical structures, and whether they carry different labels."""
    hashes = frames.structure_hashes
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    if not same.any():
        yield Finding("ok", "duplicates", "no structure occurs twice")
        return
    copies = order[1:][same]
    differ = np.abs(frames.energy[order[1:]] - frames.energy[order[:-1]])[same] > 1e-6
    yield Finding("warning", "duplicates", f"{len(copies)} frames repeat an earlier structure", _some(np.sort(copies)))
    if differ.any():
        rows = np.sort(copies[differ])
        text = f"{len(rows)} identical structures carry different energies: labels of two methods in one set?"
        yield Finding("problem", "duplicates", text, _some(rows))


def label_findings(frames: FrameSet, residual: np.ndarray, largest: np.ndarray) -> Iterator[Finding]:
    """Coverage, outliers, forces that were zeroed, net forces.

    Args:
        residual: [F] energy per atom beyond the atomic energies, eV (NaN = unknown).
        largest: [F] largest force of each frame, eV/Å (NaN = unknown).
    """
    for label, expected in (
        ("energy", np.ones(len(frames), bool)),
        ("forces", frames.n_atoms > 1),
        ("stress", frames.pbc.all(1)),
    ):
        has = frames.has(label)
        missing = np.flatnonzero(expected & ~has)
        if has.any() and len(missing):
            found, of = int((has & expected).sum()), int(expected.sum())
            yield Finding("warning", "coverage", f"{label} on {found} of {of} frames", _some(missing))
    yield from _outliers("energy", residual, 0.05, "eV per atom beyond the atomic energies")
    yield from _outliers("largest force", largest, 10.0, "eV/Å")
    has = frames.has("forces") & (frames.n_atoms > 1)
    if not has.any():
        return
    part = frames if has.all() else frames.select(has)
    zero = (part.forces == 0).all(1)
    if zero.any() and zero.mean() < 0.999:
        rows = np.flatnonzero(has)[np.unique(np.searchsorted(part.offsets, np.flatnonzero(zero), side="right") - 1)]
        share = float(zero.mean())
        yield Finding(
            "warning" if share > 0.01 else "info",
            "zero forces",
            f"{int(zero.sum())} atoms ({100 * share:.2g} %) have a force of exactly zero: constraints applied when the "
            "file was written, or symmetry?",
            _some(rows),
        )
    net = np.linalg.norm(np.add.reduceat(part.forces, part.offsets[:-1]), axis=1)
    per_atom = float(np.mean(net / part.n_atoms))
    if per_atom > 0.002:
        text = (
            f"forces of a frame sum to {float(np.mean(net)):.2g} eV/Å on average ({1000 * per_atom:.2g} meV/Å per atom)"
        )
        yield Finding("info", "net force", text + ": noise that a model conserving momentum cannot fit")


def _outliers(what: str, values: np.ndarray, floor: float, unit: str) -> Iterator[Finding]:
    """Further than 10 robust standard deviations (1.4826 median absolute deviations) and `floor` from the median."""
    known = np.isfinite(values)
    if known.sum() < 10:
        return
    centre = float(np.median(values[known]))
    spread = 1.4826 * float(np.median(np.abs(values[known] - centre)))
    distance = np.where(known, np.abs(values - centre), 0.0)
    rows = np.flatnonzero(distance > max(10 * spread, floor))
    if not len(rows):
        yield Finding("ok", "outliers", f"no outlier in {what}")
        return
    worst = int(rows[np.argmax(distance[rows])])
    count = "1 outlier" if len(rows) == 1 else f"{len(rows)} outliers"
    absurd = distance[worst] > 100 * floor and what == "energy" and distance[worst] > 20
    yield Finding(
        "problem" if absurd else "warning",
        "outliers",
        f"{count} in {what}: frame {worst} has {values[worst]:.4g} {unit} (median {centre:.3g})",
        _some(rows[np.argsort(-distance[rows], kind="stable")]),
    )


def densities(frames: FrameSet) -> np.ndarray:
    """Mass density of the frames that are periodic in 3D, g/cm³ [F]; NaN for the others."""
    from ase.data import atomic_masses

    mass = np.add.reduceat(atomic_masses[frames.numbers], frames.offsets[:-1])
    volume = np.abs(np.linalg.det(frames.cell))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(frames.pbc.all(1), mass / volume * AMU_PER_A3, np.nan)


def pbc_patterns(frames: FrameSet) -> dict[str, int]:
    """Frames per pattern of periodicity: ``{"TTT": 200, "FFF": 3}``."""
    codes = frames.pbc @ np.array([4, 2, 1])
    found, counts = np.unique(codes, return_counts=True)
    names = {code: "".join("T" if code & bit else "F" for bit in (4, 2, 1)) for code in range(8)}
    return {names[int(code)]: int(count) for code, count in zip(found, counts, strict=True)}


def compositions(frames: FrameSet) -> list[tuple[str, int]]:
    """(formula in Hill order, number of frames), most frequent first."""
    elements = np.array(frames.elements)
    column = np.zeros(120, np.int64)
    column[elements] = np.arange(len(elements))
    frame = np.repeat(np.arange(len(frames)), frames.n_atoms)
    flat = np.bincount(frame * len(elements) + column[frames.numbers], minlength=len(frames) * len(elements))
    counts, times = np.unique(flat.reshape(len(frames), -1), axis=0, return_counts=True)
    order = np.argsort(-times, kind="stable")
    return [(formula(dict(zip(elements.tolist(), counts[k].tolist(), strict=True))), int(times[k])) for k in order]


def formula(counts: dict[int, int]) -> str:
    """Hill order: C, H, then alphabetical; alphabetical without carbon."""
    symbols = {chemical_symbols[z]: count for z, count in counts.items() if count}
    first = [symbol for symbol in ("C", "H") if symbol in symbols] if "C" in symbols else []
    rest = sorted(symbol for symbol in symbols if symbol not in first)
    return "".join(f"{symbol}{symbols[symbol] if symbols[symbol] > 1 else ''}" for symbol in [*first, *rest])
