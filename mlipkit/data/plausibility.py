"""Are these numbers in the units they claim? Tests that know the physics, not the file format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from mlipkit.errors import DataError, nearest
from mlipkit.units import BOHR, FORCE_TO_ACCELERATION, HARTREE, KCAL_PER_MOL

KJ_PER_MOL: Final = KCAL_PER_MOL / 4.184

ENERGY_UNITS: Final[dict[str, float]] = {
    "eV": 1.0,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KJ_PER_MOL,
    "hartree": HARTREE,
    "rydberg": HARTREE / 2,
    "meV": 1e-3,
}
"""eV per unit."""

LENGTH_UNITS: Final[dict[str, float]] = {"Å": 1.0, "bohr": BOHR, "nm": 10.0}
"""Å per unit."""

FORCE_UNITS: Final[dict[str, float]] = {
    "eV/Å": 1.0,
    "kcal/mol/Å": KCAL_PER_MOL,
    "kJ/mol/nm": KJ_PER_MOL / 10,
    "kJ/mol/Å": KJ_PER_MOL,
    "hartree/bohr": HARTREE / BOHR,
    "hartree/Å": HARTREE,
    "rydberg/bohr": HARTREE / 2 / BOHR,
    "meV/Å": 1e-3,
    "eV/bohr": 1 / BOHR,
    "kcal/mol/bohr": KCAL_PER_MOL / BOHR,
}
"""eV/Å per unit."""

# Non-relativistic total energies of free atoms in hartree, H to Ar (Chakravorty et al., Phys. Rev. A 47, 3649, 1993).
_FREE_ATOMS: Final = np.array([
    0.5, 2.9037, 7.4781, 14.6674, 24.6539, 37.8450, 54.5892, 75.0673, 99.7339, 128.9376, 162.2546, 200.053, 242.346,
    289.359, 341.259, 398.110, 460.148, 527.540,
])  # fmt: skip


_SPELLINGS = {
    "kcal/mol": "kcal/mol", "kcal mol-1": "kcal/mol", "kcalmol-1": "kcal/mol", "ev": "eV", "mev": "meV",
    "kj/mol": "kJ/mol", "hartree": "hartree", "ha": "hartree", "eh": "hartree", "ry": "rydberg",
    "rydberg": "rydberg", "ang": "Å", "angstrom": "Å", "å": "Å", "a": "Å", "bohr": "bohr", "nm": "nm",
}  # fmt: skip


def unit_named(text: str, what: str, where: Iterable[str]) -> str:
    """Our name of a unit of energy or length, from the spellings that programs use.

    Raises:
        DataError: unknown.
    """
    known = ENERGY_UNITS if what == "energy" else LENGTH_UNITS
    unit = _SPELLINGS.get(text.strip().lower())
    if unit not in known:
        raise DataError(f"unknown {what} unit '{text}'", where=where, hint=_sentence(nearest(text, known)))
    return unit


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


_RECOGNISED: Final = ("eV", "kcal/mol", "kJ/mol", "hartree")
"""Not rydberg: valence-only energies in eV (xTB) happen to have the size of all-electron totals in rydberg."""


def all_electron_unit(numbers: np.ndarray, energy: float, tolerance: float = 0.03) -> str | None:
    """Unit of an all-electron total energy, recognised by the sum of free-atom energies.

    Bonding changes a total energy by less than one per cent, units differ by factors, so the answer is safe when there
    is one. Pseudopotential energies, binding energies, and frames with elements beyond argon give None.

    Args:
        numbers: int [n] atomic numbers of the frame.
        energy: its energy as stored.
    """
    if not len(numbers) or int(np.max(numbers)) > len(_FREE_ATOMS) or not energy < 0:
        return None
    expected = -float(_FREE_ATOMS[np.asarray(numbers, dtype=int) - 1].sum()) * HARTREE
    for unit in _RECOGNISED:
        if abs(energy * ENERGY_UNITS[unit] / expected - 1) < tolerance:
            return unit
    return None


def all_electron_units(
    numbers: np.ndarray, starts: np.ndarray, energy: np.ndarray, tolerance: float = 0.03
) -> tuple[tuple[str, ...], np.ndarray]:
    """`all_electron_unit` of many frames at once.

    Args:
        numbers: int [N]; starts: int [F+1] first atom of each frame; energy: [F] as stored.

    Returns:
        unit names, and int [F] index into them, -1 where nothing can be said.
    """
    beyond = numbers > len(_FREE_ATOMS)
    per_atom = np.where(beyond, np.nan, _FREE_ATOMS[np.minimum(numbers, len(_FREE_ATOMS)) - 1])
    expected = -np.add.reduceat(per_atom, starts[:-1]) * HARTREE
    codes = np.full(len(energy), -1)
    with np.errstate(invalid="ignore"):
        for code, unit in enumerate(_RECOGNISED):
            codes[np.abs(energy * ENERGY_UNITS[unit] / expected - 1) < tolerance] = code
    return _RECOGNISED, codes


@dataclass(frozen=True)
class Consistency:
    """Forces against something they must agree with, along time-ordered frames.

    Attributes:
        ratio: slope; 1 when all units agree. Energy test: change of energy over work of the forces. Acceleration test:
            acceleration from positions over force/mass.
        correlation: of the two series; below about 0.7 the slope says nothing (frames too far apart, noise).
        pairs: how many differences went in.
    """

    ratio: float
    correlation: float
    pairs: int

    @property
    def decided(self) -> bool:
        """Whether the slope can be trusted."""
        return self.pairs >= 10 and abs(self.correlation) > 0.7


def energy_against_forces(
    positions: np.ndarray, forces: np.ndarray, energy: np.ndarray, max_step: float = 0.2
) -> Consistency:
    """E(t+1) - E(t) against -½(F(t)+F(t+1))·(R(t+1)-R(t)) (trapezoidal rule) along one trajectory.

    Args:
        positions, forces: [T,n,3]; energy: [T]; consecutive frames of one system.
        max_step: pairs in which an atom moves further (Å) are left out: wrapped atoms, or frames far apart.
    """
    steps = np.diff(positions, axis=0)
    near = np.abs(steps).max(axis=(1, 2)) < max_step
    work = -0.5 * ((forces[1:] + forces[:-1]) * steps).sum((1, 2))[near]
    change = np.diff(energy)[near]
    return _slope(work, change)


def acceleration_against_forces(
    positions: np.ndarray, forces: np.ndarray, masses: np.ndarray, time_step: float, max_step: float = 0.2
) -> Consistency:
    """Second differences of positions against F/m (the Verlet relation): tells the unit of forces or of time.

    Args:
        positions, forces: [T,n,3]; masses: [n], u; time_step: fs between frames.
    """
    second = positions[2:] - 2 * positions[1:-1] + positions[:-2]
    near = np.abs(np.diff(positions, axis=0)).max(axis=(1, 2)) < max_step
    both = near[1:] & near[:-1]
    acceleration = (second / time_step**2)[both].reshape(-1)
    expected = (forces[1:-1] / masses[None, :, None] * FORCE_TO_ACCELERATION)[both].reshape(-1)
    return _slope(expected, acceleration)


def velocities_against_positions(
    positions: np.ndarray, velocities: np.ndarray, time_step: float, max_step: float = 0.2
) -> Consistency:
    """Central differences of positions over the velocities: 1 for Å/fs, 0.098 for ASE's unit.

    Args:
        positions [T,n,3] Å, velocities [T,n,3]; time_step: fs between frames.
    """
    near = np.abs(np.diff(positions, axis=0)).max(axis=(1, 2)) < max_step
    both = near[1:] & near[:-1]
    central = ((positions[2:] - positions[:-2]) / (2 * time_step))[both].reshape(-1)
    return _slope(velocities[1:-1][both].reshape(-1), central)


def named_ratio(ratio: float, units: Mapping[str, float], tolerance: float = 0.08) -> str | None:
    """Name of the unit whose factor is nearest to |ratio|, None when none is within `tolerance`."""
    distance = {unit: abs(np.log(abs(ratio) / factor)) for unit, factor in units.items()} if ratio else {}
    best = min(distance, key=distance.__getitem__, default=None)
    return best if best is not None and distance[best] < tolerance else None


def _slope(x: np.ndarray, y: np.ndarray) -> Consistency:
    if len(x) < 2 or not x.any() or not y.any():
        return Consistency(float("nan"), 0.0, len(x))
    correlation = float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))
    # Geometric mean of the two regressions: noise on either side biases neither way.
    ratio = float(np.sign(correlation) * np.sqrt((y * y).sum() / (x * x).sum()))
    return Consistency(ratio, correlation, len(x))
