"""What labels a structure: energy, forces and stress from an engine that is asked one frame at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from mlipkit.errors import MlipkitError

if TYPE_CHECKING:
    from ase import Atoms

MAX_FORCE = 1000.0
"""eV/Å; a larger force is nonsense of the engine or of the structure, and no label."""


class LabelMakerError(MlipkitError):
    """The engine gives no labels for this structure; the reason is in its own words."""


@dataclass(frozen=True)
class Labels:
    """Labels of one structure of N atoms.

    Attributes:
        energy: eV.
        forces: float64 [N,3], eV/Å.
        stress: float64 [3,3], eV/Å³, tension positive; None where the engine has none, and for structures that are not
            periodic along all three axes.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None = None


@runtime_checkable
class LabelMaker(Protocol):
    """An engine behind one face.

    Attributes:
        name: engine and version, for people: ``"GFN1-xTB (tblite 0.8.0)"``.
    """

    @property
    def name(self) -> str: ...

    def describe(self) -> dict[str, Any]:
        """JSON-ready: engine, version, method, settings, level_of_theory, elements (numbers; None: not known)."""
        ...

    def label(self, atoms: Atoms) -> Labels:
        """Labels of a structure.

        Raises:
            LabelMakerError: the engine gives none, and says why.
        """
        ...


@dataclass(frozen=True)
class Recipe:
    """How to build an engine, as plain data: a child process reads it and builds the engine for itself.

    Attributes:
        engine: a name of `mlipkit.labelling.ENGINES`, or ``package.module:function`` that takes the options and gives a
            `LabelMaker`.
        options: arguments of the engine: numbers, texts, lists.
    """

    engine: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; ``Recipe(**record)`` rebuilds it."""
        return {"engine": self.engine, "options": dict(self.options)}


def fault_of(labels: Labels, n_atoms: int, max_force: float = MAX_FORCE) -> str:
    """Why these cannot be labels of a structure of `n_atoms` atoms; "" when nothing speaks against them."""
    try:
        energy = float(labels.energy)
        forces = np.asarray(labels.forces, np.float64)
        stress = None if labels.stress is None else np.asarray(labels.stress, np.float64)
    except (TypeError, ValueError) as error:
        return f"nonsense: no numbers ({error})"
    if not np.isfinite(energy):
        return f"nonsense: energy is {energy}"
    if forces.shape != (n_atoms, 3):
        return f"nonsense: forces of shape {list(forces.shape)}, expected {[n_atoms, 3]}"
    if not np.isfinite(forces).all():
        return "nonsense: forces are not finite"
    if stress is not None and stress.shape != (3, 3):
        return f"nonsense: stress of shape {list(stress.shape)}, expected [3, 3]"
    if stress is not None and not np.isfinite(stress).all():
        return "nonsense: stress is not finite"
    largest = float(np.sqrt((forces**2).sum(1).max(initial=0.0)))
    if largest > max_force:
        return f"nonsense: a force of {largest:.4g} eV/Å, more than {max_force:g} eV/Å"
    return ""


def periodicity(atoms: Atoms) -> str:
    """ "none", "all", or the axes along which a structure is periodic: "a, b"."""
    axes = [axis for axis, there in zip("abc", atoms.pbc, strict=True) if there]
    return {0: "none", 3: "all"}.get(len(axes), ", ".join(axes))
