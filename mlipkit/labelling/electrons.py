"""Charge, multiplicity and limits of the SCF: whether they can be, and whether they fit a structure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlipkit.errors import SpecError
from mlipkit.labelling.protocol import LabelMakerError

if TYPE_CHECKING:
    from ase import Atoms


def check_charge(charge: float, *, whole: bool) -> None:
    """Refuse what is no total charge, e.

    Raises:
        SpecError: no finite number; a part of an electron where only whole ones are known.
    """
    wanted = "a whole number" if whole else "a number"
    number = isinstance(charge, int | float) and not isinstance(charge, bool) and math.isfinite(charge)
    if not number or (whole and charge != int(charge)):
        raise SpecError("no charge", where="charge", expected=f"{wanted} of electrons, e", found=repr(charge))


def check_multiplicity(multiplicity: int | None) -> None:
    """Refuse what is no 2S+1.

    Raises:
        SpecError: no whole number from 1 on.
    """
    if multiplicity is None or (isinstance(multiplicity, int) and not isinstance(multiplicity, bool)
                                and multiplicity >= 1):  # fmt: skip
        return
    raise SpecError("no multiplicity", where="multiplicity", expected="a whole number, 1 or more",
                    found=repr(multiplicity))  # fmt: skip


def check_above_zero(unit: str, **options: float) -> None:
    """Refuse options that only mean something above zero, by their names.

    Raises:
        SpecError: one of them is not.
    """
    for name, value in options.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value > 0):
            raise SpecError("out of range", where=name, expected=f"above 0{f' {unit}' * bool(unit)}", found=repr(value))


def check_electrons(atoms: Atoms, charge: float, multiplicity: int | None) -> None:
    """Refuse a structure that cannot have this charge and multiplicity: engines would label another state unasked.

    Raises:
        LabelMakerError: fewer electrons than none, or unpaired ones that do not fit their number.
    """
    electrons = float(atoms.numbers.sum()) - charge
    if electrons < 0:
        raise LabelMakerError(f"a charge of {charge:g} e is more than all {int(atoms.numbers.sum())} electrons")
    if multiplicity is None or electrons != int(electrons):
        return
    unpaired = multiplicity - 1
    if unpaired > electrons or (int(electrons) - unpaired) % 2:
        raise LabelMakerError(f"multiplicity {multiplicity} does not fit {int(electrons)} electrons")
