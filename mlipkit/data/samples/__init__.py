"""Real data and ready potentials that come with the package: small, recorded, read without internet.

>>> frames = load("ethanol_300K")
>>> card("ethanol_300K")["level_of_theory"]

Every set and potential has a card (what it is, how it was made, seeds, versions, command, checks); the recipes are in
`benchmarks/samples` of the source repository.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.errors import DataError, nearest

if TYPE_CHECKING:
    from mlipkit.data.frameset import FrameSet

_FILES = Path(__file__).parent / "files"


def names() -> tuple[str, ...]:
    """Names of the data sets."""
    return tuple(sorted(path.stem for path in _FILES.glob("*.npz")))


def potential_names() -> tuple[str, ...]:
    """Names of the ready potentials."""
    return tuple(sorted(path.stem for path in _FILES.glob("*.safetensors")))


def load(name: str) -> FrameSet:
    """The data set `name`; read once per process.

    Energies (eV) and forces (eV/Å) belong exactly to the stored positions; sets made by NVE or Langevin dynamics of
    molecules have velocities (Å/fs), periodic ones stress (eV/Å³). `trajectory` and `time` (fs from the first stored
    frame of that trajectory) are filled in.

    Raises:
        DataError: there is no such data set; names those that exist.
    """
    return _load(_known(name, names(), "data set"))


def card(name: str) -> dict[str, Any]:
    """How data set `name` was made and checked: level of theory, dynamics, seeds, versions, command, seconds.

    Raises:
        DataError: there is no such data set.
    """
    return _read_card(_known(name, names(), "data set"))


def potential_path(name: str) -> Path:
    """File of the ready potential `name` (`mlipkit.models.load` takes it, and "sample:NAME" too).

    Raises:
        DataError: there is no such potential.
    """
    return _FILES / f"{_known(name, potential_names(), 'potential')}.safetensors"


def potential_card(name: str) -> dict[str, Any]:
    """Model card of the ready potential `name`: data, recipe, errors, survival in MD.

    Raises:
        DataError: there is no such potential.
    """
    return _read_card(_known(name, potential_names(), "potential"))


def _known(name: str, known: tuple[str, ...], kind: str) -> str:
    if name in known:
        return name
    others = names() if kind == "potential" else potential_names()
    other = f" ('{name}' is a sample, but not a {kind})" if name in others else ""
    raise DataError(f"no sample {kind} '{name}'{other}", where="samples", hint=nearest(name, known))


def _read_card(name: str) -> dict[str, Any]:
    return json.loads((_FILES / f"{name}.json").read_text("utf-8"))


@functools.cache
def _load(name: str) -> FrameSet:
    from mlipkit.data.frameset import FrameSet

    with np.load(_FILES / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    return FrameSet.from_arrays(
        arrays.pop("numbers"),
        arrays.pop("positions"),
        pbc=[True] * 3 if "cell" in arrays else None,
        source=f"sample:{name}",
        **arrays,
    )
