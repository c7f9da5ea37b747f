"""A reference that is known exactly: flexible molecules, so that a whole workflow runs in seconds without any engine.

    E = Σ_bonds ½ s_b k_b (r - r0)² + Σ_angles ½ s_a k_a (θ - θ0)²
        + Σ_{pairs of two molecules} s_e 4ε [(σ/r)¹² - (σ/r)⁶] f(r) + Σ_atoms (e_Z + z/100)

==========  ==========================================================================
symbol      meaning
==========  ==========================================================================
``s``       scales, the trainable weights: 1 in the reference, 0.8 in the soft model
``f``       cosine cutoff
``e_Z``     energy of an atom, eV; another zero in the reference, as between two levels of theory
``z``       trainable zero of energy, 0 at first, 10 meV
==========  ==========================================================================

The soft model is the "universal" one: its bonds are wider by about 1/sqrt(0.8), and so are those of every frame that it
samples, however many of them are labelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor, nn

from mlipkit.models.bases import cosine_cutoff, polar
from mlipkit.models.contract import BasePotential
from mlipkit.models.registry import check_complete, dtype_of, register_potential
from mlipkit.ops import segment_sum

if TYPE_CHECKING:
    from mlipkit.data.graph import Graph
    from mlipkit.strategies.workflows.standard import StandardTools

SOFT = 0.8
NUMBERS = (8, 1, 1)
"""Atoms of a molecule, in this order, molecule after molecule."""
BONDS = ((0, 1), (0, 2))
STIFFNESS, LENGTH = 25.0, 0.96
"""eV/Å², Å."""
BENDING, BENT = 3.0, math.radians(104.5)
"""eV/rad², rad."""
EPSILON, SIGMA = 0.012, 3.0
"""eV, Å; between the heavy atoms of two molecules."""
CONTACT, HYDROGEN = 0.002, 2.2
"""eV, Å; all other pairs of two molecules."""
CUTOFF = 5.0
ATOMIC = {8: -3.0, 1: -1.5}
"""eV, zero of energy of the reference; the soft model's is half of it."""


@register_potential
class MolecularPotential(BasePotential):
    """Flexible triatomic molecules with harmonic bonds and angles, Lennard-Jones between them.

    Systems hold molecules in the order of `NUMBERS`, with cells longer than cutoff and molecule. What is left over (a
    pair in a bond scan) keeps those bonds whose atoms are there.

    Args:
        scales: of bonds, angles and attraction: weights, with the zero of energy.
        atomic_energies: eV by atomic number.
    """

    kind = "molecular"
    energies: Tensor

    def __init__(
        self, scales: tuple[float, float, float] = (1.0, 1.0, 1.0), atomic_energies: Mapping[int, float] | None = None
    ) -> None:
        super().__init__(sorted(set(NUMBERS)))
        self.scales = nn.Parameter(torch.tensor(scales, dtype=torch.float64))
        self.zero = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        table = torch.zeros(119, dtype=torch.float64)
        for number, value in (atomic_energies or {}).items():
            table[number] = value
        self.register_buffer("energies", table)

    @property
    def cutoff(self) -> float:
        return CUTOFF

    @property
    def atomic_energies(self) -> Tensor:
        """float64 [119], eV."""
        return torch.where(self.known, self.energies.double(), float("nan"))

    def evaluate(self, graph: Graph, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor | None]:
        bond, angle, attraction = self.scales.double().unbind()
        energy = self.energies.double()[graph.numbers] + 0.01 * self.zero.double()
        molecule, bonds, bent = _topology(graph)
        arms = self._nearest(graph, positions, cell, bonds[0], bonds[1])
        lengths = arms.norm(dim=1)
        energy = energy.index_add(0, bonds[0], 0.5 * bond * STIFFNESS * (lengths - LENGTH).square())
        cosine = (arms[bent[0]] * arms[bent[1]]).sum(1) / (lengths[bent[0]] * lengths[bent[1]])
        opening = torch.acos(cosine.clamp(-0.999999, 0.999999)) - BENT
        energy = energy.index_add(0, bonds[0][bent[0]], 0.5 * angle * BENDING * opening.square())
        return energy + attraction * self._between(graph, positions, cell, molecule), None

    def _nearest(self, graph: Graph, positions: Tensor, cell: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Vectors i -> j of the nearest images, as atoms may have left the cell."""
        vectors = (positions[j] - positions[i]).double()
        system = graph.system[i]
        periodic = graph.pbc[system]
        if not bool(periodic.any()):
            return vectors
        eye = torch.eye(3, dtype=torch.float64, device=vectors.device).expand(len(cell), 3, 3)
        safe = torch.where(graph.pbc.unsqueeze(2), cell.detach().double(), eye)
        images = torch.einsum("nk,nkl->nl", vectors.detach(), torch.linalg.inv(safe)[system]).round() * periodic
        return vectors - torch.einsum("nk,nkl->nl", images, cell.double()[system])

    def _between(self, graph: Graph, positions: Tensor, cell: Tensor, molecule: Tensor) -> Tensor:
        sender, receiver = graph.edge_index.unbind(0)
        others = molecule[sender] != molecule[receiver]
        d, _ = polar(graph.edge_vectors(positions, cell).double()[others])
        heavy = (graph.numbers[sender] == NUMBERS[0]) & (graph.numbers[receiver] == NUMBERS[0])
        depth = torch.where(heavy[others], EPSILON, CONTACT)
        sixth = (torch.where(heavy[others], SIGMA, HYDROGEN) / d.clamp(min=1.0)) ** 6
        pair = 2 * depth * (sixth.square() - sixth) * cosine_cutoff(d, CUTOFF)
        return segment_sum(pair, receiver[others], graph.numbers.shape[0])

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "parameters": 4, "trainable": 4, "cutoff": self.cutoff,
            "elements": [chemical_symbols[z] for z in self.elements], "dtype": str(self.dtype).removeprefix("torch."),
        }  # fmt: skip

    def specification(self) -> dict[str, Any]:
        return {"dtype": str(self.dtype).removeprefix("torch.")}

    @classmethod
    def from_specification(cls, spec: Mapping[str, Any], *, where: str) -> MolecularPotential:
        check_complete(spec, {"dtype"}, where)
        return cls().to(dtype_of(spec, where))


def _topology(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """Molecule of each atom [N], ends of the bonds [2,B] (heavy atom first), the two bonds of each angle [2,A]."""
    numbers, size = graph.numbers, len(NUMBERS)
    first = torch.cumsum(graph.n_atoms, 0) - graph.n_atoms
    blocks = (graph.n_atoms + size - 1) // size
    block = (torch.arange(len(numbers), device=numbers.device) - first[graph.system]) // size
    molecule = block + (torch.cumsum(blocks, 0) - blocks)[graph.system]
    heavy = (numbers == NUMBERS[0]).nonzero().flatten()
    light = (numbers == NUMBERS[1]).nonzero().flatten()
    # Of each hydrogen the heavy atom of its molecule; -1: it has none.
    owner = torch.full((int(blocks.sum()),), -1, device=numbers.device, dtype=torch.int64)
    owner[molecule[heavy]] = heavy
    light = light[owner[molecule[light]] >= 0]
    bonds = torch.stack([owner[molecule[light]], light])
    pairs = (bonds[0, 1:] == bonds[0, :-1]).nonzero().flatten()
    return molecule, bonds, torch.stack([pairs, pairs + 1])


def reference() -> MolecularPotential:
    """The potential that labels."""
    return MolecularPotential(atomic_energies=ATOMIC)


def soft() -> MolecularPotential:
    """The model to be fine-tuned: force constants times `SOFT`, and another zero of energy."""
    return MolecularPotential((SOFT, SOFT, SOFT), {z: 0.5 * value for z, value in ATOMIC.items()})


def box(seed: int, n: int = 16, density: float = 0.5) -> Atoms:
    """Molecules on a cubic grid, each turned at random; g/cm³."""
    from mlipkit.units import AMU_PER_A3

    rng = np.random.default_rng(seed)
    half = 0.5 * BENT
    molecule = LENGTH * np.array([[0, 0, 0], [math.sin(half), math.cos(half), 0], [-math.sin(half), math.cos(half), 0]])
    mass = Atoms(list(NUMBERS)).get_masses().sum()
    edge = (n * mass * AMU_PER_A3 / density) ** (1 / 3)
    cells = math.ceil(n ** (1 / 3) - 1e-9)
    grid = (np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 3) + 0.5) * edge / cells
    chosen = rng.permutation(len(grid))[:n]
    turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(n)]
    positions = np.concatenate([grid[place] + molecule @ turn for place, turn in zip(chosen, turns, strict=True)])
    return Atoms(list(NUMBERS) * n, positions, cell=[edge] * 3, pbc=True)


def bond_lengths(positions: np.ndarray) -> np.ndarray:
    """Å [2 molecules], of positions [3 molecules, 3] that hold whole molecules."""
    molecules = np.reshape(positions, (-1, len(NUMBERS), 3))
    return np.concatenate([np.linalg.norm(molecules[:, j] - molecules[:, i], axis=1) for i, j in BONDS])


class ReferenceLabels:
    """The reference as a label maker."""

    name = "flexible molecules (reference)"

    def __init__(self) -> None:
        from mlipkit.labelling.engine_potential import PotentialLabels

        self._engine = PotentialLabels(reference())

    def describe(self) -> dict[str, Any]:
        return {**self._engine.describe(), "method": "flexible molecules", "level_of_theory": self.name}

    def label(self, atoms: Atoms) -> Any:
        return self._engine.label(atoms)


def synthetic_tools(n: int = 16, density: float = 0.5, **more: Any) -> StandardTools:
    """Tools whose labels come from the reference and whose universal model is the soft one."""
    from mlipkit.strategies.finetuning import FinetuneRecipe
    from mlipkit.strategies.workflows.standard import StandardTools
    from mlipkit.training import TrainSettings

    settings = TrainSettings(
        batch_size=4, learning_rate=0.03, schedule="cosine", ema_decay=None, energy_weight=1.0, forces_weight=10.0,
        precision="float64", checkpoint_s=1e9,
    )  # fmt: skip
    given: dict[str, Any] = {
        "universal": soft(), "make_start": lambda seed: box(seed, n, density), "maker": ReferenceLabels(),
        "words": {"model": "flexible molecules, soft", "labels": ReferenceLabels.name, "molecules": n},
        "settings": settings, "recipe": FinetuneRecipe(loss="settings"),
    }  # fmt: skip
    return StandardTools(**{**given, **more})
