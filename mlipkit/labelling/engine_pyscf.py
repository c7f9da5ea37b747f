"""Hartree-Fock and density functionals by PySCF: molecules only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units

from mlipkit.errors import SpecError, require
from mlipkit.labelling.electrons import check_above_zero, check_charge, check_electrons, check_multiplicity
from mlipkit.labelling.protocol import LabelMakerError, Labels, periodicity

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.labelling.protocol import Recipe


class PySCFLabels:
    """Energy and forces of a molecule in a Gaussian basis. Spin-restricted for singlets, unrestricted otherwise.

    Args:
        functional: of PySCF ("pbe", "b3lyp", "wb97x-v" ...), or "hf".
        basis: of PySCF ("sto-3g", "def2-svp" ...); def2 bases bring their effective core potentials.
        charge: total charge, e.
        multiplicity: 2S+1; None: 1 or 2, whichever fits the number of electrons.
        grid_level: 0 to 9, of the integration grid.
        convergence: of the SCF energy, Hartree.
        max_cycles: of the SCF; a frame that needs more has failed.

    Forces include the response of the integration grid, so that they are the slope of the energy.
    Source: Q. Sun et al., J. Chem. Phys. 153, 024109 (2020).
    """

    recipe: Recipe | None = None

    def __init__(
        self, functional: str = "pbe", basis: str = "def2-svp", charge: int = 0, multiplicity: int | None = None,
        grid_level: int = 3, convergence: float = 1e-9, max_cycles: int = 50,
    ) -> None:  # fmt: skip
        check_charge(charge, whole=True)
        check_multiplicity(multiplicity)
        check_above_zero("Hartree", convergence=convergence)
        check_above_zero("", max_cycles=max_cycles)
        if not 0 <= grid_level <= 9:
            raise SpecError("no such grid", where="grid_level", expected="0 to 9", found=grid_level)
        self._pyscf = require("pyscf", "pyscf", "labelling with PySCF")
        from pyscf import dft, gto, scf  # type: ignore[import-not-found]

        self._dft, self._gto, self._scf = dft, gto, scf
        self.functional, self.basis, self.charge, self.multiplicity = functional, basis, int(charge), multiplicity
        self.grid_level, self.convergence, self.max_cycles = int(grid_level), float(convergence), int(max_cycles)
        self.version = str(self._pyscf.__version__)
        if functional.lower() != "hf":
            try:
                dft.libxc.parse_xc(functional)
            except Exception as error:
                raise SpecError(f"PySCF knows no functional '{functional}' ({error})", where="functional") from None
        self.method = "HF" if functional.lower() == "hf" else functional.upper()
        self.name = f"{self.method}/{basis} (PySCF {self.version})"

    def describe(self) -> dict[str, Any]:
        return {
            "engine": "pyscf", "version": self.version, "method": self.method,
            "level_of_theory": f"{self.method}/{self.basis}",
            "settings": {
                "charge": self.charge, "multiplicity": self.multiplicity, "grid_level": self.grid_level,
                "convergence_hartree": self.convergence, "max_cycles": self.max_cycles,
            },
            "elements": None,
        }  # fmt: skip

    def label(self, atoms: Atoms) -> Labels:
        if (axes := periodicity(atoms)) != "none":
            raise LabelMakerError(f"PySCF labels molecules only; this is periodic along {axes}")
        check_electrons(atoms, self.charge, self.multiplicity)
        electrons = int(atoms.numbers.sum()) - self.charge
        spin = electrons % 2 if self.multiplicity is None else self.multiplicity - 1
        heavy = self.basis.lower().startswith("def2")
        try:
            molecule = self._gto.M(
                atom=list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True)), unit="Angstrom",
                basis=self.basis, ecp=self.basis if heavy else {}, charge=self.charge, spin=spin, verbose=0,
            )  # fmt: skip
            mean_field = self._mean_field(molecule, spin)
            energy = mean_field.kernel()
            if not mean_field.converged:
                raise LabelMakerError(f"SCF did not converge in {self.max_cycles} cycles")
            slope = mean_field.nuc_grad_method()
            slope.verbose = 0
            if hasattr(slope, "grid_response"):
                slope.grid_response = True
            gradient = slope.kernel()
        except LabelMakerError:
            raise
        except Exception as error:  # PySCF raises whatever it likes
            text = " ".join(str(error).split())
            raise LabelMakerError(text or type(error).__name__) from None
        return Labels(float(energy) * units.Hartree, -np.asarray(gradient) * (units.Hartree / units.Bohr))

    def _mean_field(self, molecule: Any, spin: int) -> Any:
        # PySCF would keep its progress in a file of the working folder, which stays there when the engine is killed.
        module, kept = self._scf.hf, self._scf.hf.MUTE_CHKFILE
        module.MUTE_CHKFILE = True
        try:
            if self.method == "HF":
                mean_field = self._scf.UHF(molecule) if spin else self._scf.RHF(molecule)
            else:
                mean_field = self._dft.UKS(molecule) if spin else self._dft.RKS(molecule)
                mean_field.xc, mean_field.grids.level = self.functional, self.grid_level
        finally:
            module.MUTE_CHKFILE = kept
        mean_field.conv_tol, mean_field.max_cycle = self.convergence, self.max_cycles
        return mean_field
