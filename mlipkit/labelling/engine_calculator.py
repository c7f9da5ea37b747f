"""Labels from any ASE calculator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress

from mlipkit.errors import SpecError
from mlipkit.labelling.protocol import LabelMakerError, Labels

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.labelling.protocol import Recipe


class CalculatorLabels:
    """An ASE calculator as a label maker.

    Of a calculator that gives ``free_energy`` beside ``energy`` (smearing) the first one is taken, to which the forces
    belong, as `mlipkit.data.resolve` does in files. Forces are raw: constraints do not set them to zero.

    Args:
        calculator: gives energy and forces, and stress where it can.
        name: for people; the name of its class when empty.
        settings: what else `describe` shall say.
    """

    recipe: Recipe | None = None

    def __init__(self, calculator: Any, name: str = "", settings: dict[str, Any] | None = None) -> None:
        if not hasattr(calculator, "get_property"):
            raise SpecError("no calculator", where="CalculatorLabels", expected="an ASE calculator",
                            found=type(calculator).__name__)  # fmt: skip
        self.calculator, self.settings = calculator, settings or {}
        self.name = name or type(calculator).__name__

    def describe(self) -> dict[str, Any]:
        kind = type(self.calculator)
        return {
            "engine": f"{kind.__module__}.{kind.__qualname__}", "version": _version_of(kind.__module__),
            "method": self.name, "level_of_theory": self.name, "settings": self.settings, "elements": None,
        }  # fmt: skip

    def label(self, atoms: Atoms) -> Labels:
        atoms = atoms.copy()
        atoms.set_constraint()
        calculator = self.calculator
        try:
            energy, forces = calculator.get_property("energy", atoms), calculator.get_property("forces", atoms)
            stress = _stress_of(calculator, atoms) if atoms.pbc.all() else None
        except Exception as error:  # the engine's own, of any kind
            text = " ".join(str(error).split())
            raise LabelMakerError(f"{type(error).__name__}: {text}" if text else type(error).__name__) from error
        free = getattr(calculator, "results", {}).get("free_energy")
        return Labels(float(energy if free is None else free), np.array(forces, np.float64), stress)


def _stress_of(calculator: Any, atoms: Atoms) -> np.ndarray | None:
    try:
        stress = calculator.get_property("stress", atoms)
    except (PropertyNotImplementedError, NotImplementedError):
        return None
    if stress is None:
        return None
    stress = np.array(stress, np.float64)
    return voigt_6_to_full_3x3_stress(stress) if stress.shape == (6,) else stress


def _version_of(module: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(module.partition(".")[0])
    except PackageNotFoundError:
        return ""
