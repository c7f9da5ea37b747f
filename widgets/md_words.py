"""Words of a simulation: where its potential lies, its temperatures, how far it is."""

from __future__ import annotations

import os
from pathlib import Path

from mlipkit.runs.places import short_place

from .md_curves import FS_PER_PS


def place_words(text: str) -> str:
    """What a specification names, a folder as one would type it here."""
    return short_place(Path(text)) if os.path.isabs(text) else text


def kelvin(temperature: object) -> str:
    """A temperature, or the range of several: ``300 K``, ``300 to 900 K``."""
    values = sorted(float(value) for value in (temperature if isinstance(temperature, list | tuple) else [temperature]))  # type: ignore[arg-type]
    return f"{values[0]:g} K" if values[0] == values[-1] else f"{values[0]:g} to {values[-1]:g} K"


def simulated(done: int, total: int, timestep: float) -> str:
    """Simulated time of `done` and `total` steps of `timestep` fs: ``0.445 of 5 ps``."""
    return f"{_short(done * timestep / FS_PER_PS)} of {_short(total * timestep / FS_PER_PS)} ps"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
