"""Universal potentials with the face of our own: `mlipkit.models.load("universal:NAME")`.

Each package is imported when its potential is loaded, not before.
"""

from __future__ import annotations

import os

from mlipkit.errors import ModelError, nearest
from mlipkit.models.universal.base import Facts, UniversalPotential
from mlipkit.models.universal.calculator import CalculatorPotential
from mlipkit.models.universal.chgnet import CHGNet
from mlipkit.models.universal.mace import MACE
from mlipkit.models.universal.sevennet import SevenNet0
from mlipkit.models.universal.so3lr import SO3LR

PREFIX = "universal:"

UNIVERSAL: dict[str, type[UniversalPotential]] = {cls.NAME: cls for cls in (SO3LR, SevenNet0, CHGNet, MACE)}
"""By the name behind "universal:"."""

NEEDS_FILE = ("mace",)
"""Names behind which a file follows: "universal:mace:PATH"."""


def load_universal(source: str | os.PathLike[str]) -> UniversalPotential:
    """A universal potential by its name.

    Args:
        source: "universal:NAME", or "universal:mace:PATH" for a user's own model file (a pickle: it runs the code that
            it holds).

    Raises:
        ModelError: unknown name; a file that is missing, or given where none belongs.
        MissingPackageError: the package behind the name is not installed.
    """
    text = os.fspath(source)
    name, _, path = text.removeprefix(PREFIX).partition(":")
    if name not in UNIVERSAL:
        raise ModelError("unknown universal potential", where=text, hint=nearest(name, UNIVERSAL))
    if (name in NEEDS_FILE) != bool(path):
        form = f"{PREFIX}{name}:FILE" if name in NEEDS_FILE else f"{PREFIX}{name}, which brings its weights along"
        raise ModelError("a file is missing" if name in NEEDS_FILE else "takes no file", where=text, expected=form)
    return UNIVERSAL[name].load(path) if path else UNIVERSAL[name].load()  # type: ignore[attr-defined]


__all__ = [
    "MACE",
    "SO3LR",
    "UNIVERSAL",
    "CHGNet",
    "CalculatorPotential",
    "Facts",
    "SevenNet0",
    "UniversalPotential",
    "load_universal",
]
