"""Canonical names of what a frame can carry, and the places where other programs put them.

`mlipkit.data.resolve` walks these lists in order. Names are plain strings so that notebooks read well.
"""

from __future__ import annotations

from typing import Final, Literal

LabelName = Literal["energy", "forces", "stress", "velocities"]

LABELS: Final[tuple[LabelName, ...]] = ("energy", "forces", "stress", "velocities")

UNITS: Final[dict[str, str]] = {
    "energy": "eV",
    "forces": "eV/Å",
    "stress": "eV/Å³",
    "velocities": "Å/fs",
}

ALIASES: Final[dict[LabelName, tuple[str, ...]]] = {
    "energy": (
        "REF_energy",
        "energy",
        "Energy",
        "dft_energy",
        "DFT_energy",
        "energy_dft",
        "TotEnergy",
        "total_energy",
        "E",
    ),
    "forces": ("REF_forces", "forces", "Forces", "force", "dft_forces", "DFT_forces", "forces_dft", "F"),
    "stress": ("REF_stress", "stress", "Stress", "dft_stress", "DFT_stress", "virial", "virials", "REF_virial"),
    "velocities": ("velocities", "velocity", "vel"),
}
"""Keys tried per label, in this order, in `info` (energy, stress) or `arrays` (forces, velocities)."""
