"""Units used everywhere in mlipkit, and the only place where others are converted.

energy eV, length Å, time fs, temperature K, mass u, force eV/Å, stress eV/Å³ (tension positive, as ASE),
velocity Å/fs. Only ASE keeps another unit of time: Å·sqrt(u/eV), about 10.18 fs.
"""

from __future__ import annotations

from typing import Final

# CODATA 2018.
BOLTZMANN: Final = 8.617333262e-5
"""Boltzmann constant, eV/K."""
FORCE_TO_ACCELERATION: Final = 9.648533212e-3
"""Å u/(eV fs²): acceleration in Å/fs² = force in eV/Å over mass in u, times this."""
HARTREE: Final = 27.211386245988
"""eV per hartree."""
BOHR: Final = 0.529177210903
"""Å per bohr."""
KCAL_PER_MOL: Final = 0.0433641153087705
"""eV per kcal/mol."""
GPA: Final = 6.241509074e-3
"""eV/Å³ per GPa."""
KBAR: Final = 6.241509074e-4
"""eV/Å³ per kbar. VASP prints stress in kbar with the opposite sign."""
AMU_PER_A3: Final = 1.66053906660
"""g/cm³ per u/Å³."""

ASE_TIME: Final = FORCE_TO_ACCELERATION**-0.5
"""fs per ASE unit of time, Å·sqrt(u/eV)."""


def velocities_from_ase(velocities):
    """Å per ASE time unit -> Å/fs."""
    return velocities / ASE_TIME


def velocities_to_ase(velocities):
    """Å/fs -> Å per ASE time unit."""
    return velocities * ASE_TIME


def kinetic_energy(masses, velocities):
    """Kinetic energy per atom in eV from masses [N] in u and velocities [N,3] in Å/fs."""
    return 0.5 * masses * (velocities * velocities).sum(-1) / FORCE_TO_ACCELERATION
