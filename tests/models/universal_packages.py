"""Universal potentials beside the calculators of their own packages, for the tests of the adapters."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.stress import voigt_6_to_full_3x3_stress

from mlipkit.models.universal import UNIVERSAL, load_universal

PACKAGED = ("so3lr", "sevennet-0", "chgnet")


@functools.cache
def _load(name: str):
    return load_universal(f"universal:{name}")


def loaded(name: str, dtype: torch.dtype | None = None):
    """A universal potential in its own precision or another one, or a skipped test where its package is missing.

    Loaded once: tests change no weights of it.
    """
    pytest.importorskip(UNIVERSAL[name].MODULE)
    return _load(name).to(dtype or UNIVERSAL[name].PRECISIONS[0])


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Calculators set it for the process; tests must not leave it so."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        yield
    finally:
        torch.set_default_dtype(before)


def package_calculator(name: str):
    """The calculator of the package with the settings that the adapter states."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "so3lr":
            from so3krates_torch.calculator.so3 import SO3LRCalculator

            with default_dtype(torch.float64):
                return SO3LRCalculator(default_dtype="float64", compute_stress=True)
        if name == "sevennet-0":
            from sevenn.calculator import SevenNetCalculator

            return SevenNetCalculator("7net-0", device="cpu")
        from chgnet.model import CHGNetCalculator

        return CHGNetCalculator(use_device="cpu")


def asked(calculator, name: str, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray | None]:
    """Energy, forces and, where all axes are periodic, stress [3,3] by the package's calculator."""
    atoms = atoms.copy()
    if name == "chgnet" and not atoms.pbc.any():
        atoms.center(vacuum=12)
        atoms.pbc = True
        atoms.info["molecule"] = True
    atoms.calc = calculator
    with default_dtype(torch.float64 if name == "so3lr" else torch.float32):
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        stress = None
        if atoms.pbc.all() and "molecule" not in atoms.info:
            stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
    return float(energy), np.asarray(forces), stress


def crystal() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.08, seed=1)
    return atoms
