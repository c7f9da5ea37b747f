"""Flexible SPC/Fw water (Wu, Tepper, Voth, J. Chem. Phys. 124, 024503, 2006): a cheap melt for the water recipe.

Electrostatics are damped and shifted at the cutoff (Fennell and Gezelter 2006) instead of Ewald: good enough to lose
the memory of the starting lattice, and never used for labels.
"""

from __future__ import annotations

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes

from mlipkit.units import BOHR, HARTREE, KCAL_PER_MOL

BOND, BOND_LENGTH = 1059.162 * KCAL_PER_MOL, 1.012
ANGLE, ANGLE_EQUILIBRIUM = 75.90 * KCAL_PER_MOL, float(np.radians(113.24))
EPSILON, SIGMA = 0.1554253 * KCAL_PER_MOL, 3.165492
CHARGE_OXYGEN = -0.82
DAMPING = 0.2
"""1/Å."""


class SPCFw(Calculator):
    """Orthorhombic cells, atoms in the order O H H."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, list(properties), system_changes)
        assert self.atoms is not None
        lengths = torch.tensor(self.atoms.cell.lengths(), dtype=torch.float64)
        positions = torch.tensor(self.atoms.positions, dtype=torch.float64, requires_grad=True)
        energy = _energy(positions, lengths)
        (gradient,) = torch.autograd.grad(energy, positions)
        self.results = {"energy": float(energy.detach()), "forces": -gradient.numpy()}


def _energy(positions: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    n = len(positions)
    cutoff = float(lengths.min()) / 2
    first, second = torch.triu_indices(n, n, 1)
    other = first // 3 != second // 3
    first, second = first[other], second[other]
    apart = positions[second] - positions[first]
    apart = apart - lengths * torch.round(apart / lengths)
    distance = apart.square().sum(1).sqrt()
    near = distance < cutoff
    first, second, distance = first[near], second[near], distance[near]

    charge = torch.full((n,), -CHARGE_OXYGEN / 2, dtype=torch.float64)
    charge[::3] = CHARGE_OXYGEN
    edge = torch.tensor(cutoff, dtype=torch.float64)
    at_edge = torch.erfc(DAMPING * edge) / edge
    slope = at_edge / edge + 2 * DAMPING / np.pi**0.5 * torch.exp(-((DAMPING * edge) ** 2)) / edge
    coulomb = torch.erfc(DAMPING * distance) / distance - at_edge + slope * (distance - edge)
    energy = HARTREE * BOHR * (charge[first] * charge[second] * coulomb).sum()

    oxygens = (first % 3 == 0) & (second % 3 == 0)
    power = (SIGMA / distance[oxygens]) ** 6
    energy = energy + 4 * EPSILON * (power**2 - power).sum()

    molecules = positions.reshape(-1, 3, 3)
    arms = molecules[:, 1:] - molecules[:, :1]
    length = arms.square().sum(-1).sqrt()
    cosine = (arms[:, 0] * arms[:, 1]).sum(-1) / length.prod(-1)
    energy = energy + 0.5 * BOND * (length - BOND_LENGTH).square().sum()
    return energy + 0.5 * ANGLE * (torch.acos(cosine) - ANGLE_EQUILIBRIUM).square().sum()
