"""GFN1-xTB and GFN2-xTB by tblite: molecules, and cells that are periodic along all three axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase import units

from mlipkit.errors import SpecError, nearest, require
from mlipkit.labelling.electrons import check_above_zero, check_charge, check_electrons, check_multiplicity
from mlipkit.labelling.protocol import LabelMakerError, Labels, periodicity

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.labelling.protocol import Recipe

METHODS = {"gfn1-xtb": "GFN1-xTB", "gfn2-xtb": "GFN2-xTB"}
HEAVIEST = 86
KELVIN = units.kB / units.Hartree
"""Hartree per K, in which tblite counts the electronic temperature."""


class XTBLabels:
    """Extended tight binding. Every frame starts from the same guess, so labels do not depend on the order of frames.

    Args:
        method: "gfn1-xtb" or "gfn2-xtb".
        charge: total charge, e.
        multiplicity: 2S+1; None: the lowest that fits the number of electrons.
        electronic_temperature: K; the energy is the free energy of the electrons, to which the forces belong.
        accuracy: of tblite; smaller is tighter.
        max_iterations: of the SCF; a frame that needs more has failed.

    Sources: C. Bannwarth et al., WIREs Comput. Mol. Sci. 2021, e1493; tblite (LGPL-3.0).
    """

    recipe: Recipe | None = None

    def __init__(
        self, method: Literal["gfn1-xtb", "gfn2-xtb"] = "gfn1-xtb", charge: float = 0.0,
        multiplicity: int | None = None, electronic_temperature: float = 300.0, accuracy: float = 1.0,
        max_iterations: int = 250,
    ) -> None:  # fmt: skip
        if method not in METHODS:
            raise SpecError("unknown method", where="tblite", found=method, hint=nearest(method, METHODS))
        check_charge(charge, whole=False)
        check_multiplicity(multiplicity)
        check_above_zero("K", electronic_temperature=electronic_temperature)
        check_above_zero("", accuracy=accuracy, max_iterations=max_iterations)
        self._interface = require("tblite.interface", "label", "labelling with xTB")
        from importlib.metadata import version

        self.method, self.charge, self.multiplicity = METHODS[method], float(charge), multiplicity
        self.electronic_temperature, self.accuracy = float(electronic_temperature), float(accuracy)
        self.max_iterations = int(max_iterations)
        self.version = version("tblite")
        self.name = f"{self.method} (tblite {self.version})"

    def describe(self) -> dict[str, Any]:
        return {
            "engine": "tblite", "version": self.version, "method": self.method, "level_of_theory": self.method,
            "settings": {
                "charge": self.charge, "multiplicity": self.multiplicity, "accuracy": self.accuracy,
                "electronic_temperature_K": self.electronic_temperature, "max_iterations": self.max_iterations,
            },
            "elements": list(range(1, HEAVIEST + 1)),
        }  # fmt: skip

    def label(self, atoms: Atoms) -> Labels:
        axes = periodicity(atoms)
        if axes not in ("none", "all"):
            # tblite would take it as periodic along all three, without a word.
            raise LabelMakerError(f"{self.method} takes molecules and cells periodic along all axes, not along {axes}")
        check_electrons(atoms, self.charge, self.multiplicity)
        cell = {}
        if axes == "all":
            cell = {"lattice": atoms.cell.array / units.Bohr, "periodic": np.ones(3, bool)}
        uhf = None if self.multiplicity is None else self.multiplicity - 1
        try:
            calculator = self._interface.Calculator(
                self.method, atoms.numbers, atoms.positions / units.Bohr, self.charge, uhf, **cell
            )
            calculator.set("verbosity", 0)
            calculator.set("accuracy", self.accuracy)
            calculator.set("max-iter", self.max_iterations)
            calculator.set("temperature", self.electronic_temperature * KELVIN)
            found = calculator.singlepoint()
            energy, gradient = found.get("energy"), found.get("gradient")
            stress = found.get("virial") / abs(atoms.get_volume()) * units.Hartree if cell else None
        except RuntimeError as error:  # what tblite says of SCF, elements and electrons
            raise LabelMakerError(str(error) or type(error).__name__) from None
        return Labels(float(energy) * units.Hartree, -np.asarray(gradient) * (units.Hartree / units.Bohr), stress)
