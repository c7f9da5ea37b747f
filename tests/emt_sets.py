"""Small labelled sets from ASE's EMT: copper-gold clusters, and a periodic crystal where stress is needed."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from mlipkit.data import FrameSet, fit_atomic_energies
from mlipkit.models import Potential, build_encoder

CLUSTER = np.array([[0, 0, 0], [1.8, 1.8, 0], [1.8, 0, 1.8], [0, 1.8, 1.8], [3.6, 1.8, 1.8]], float)


def label(atoms: Atoms, stress: bool = False) -> Atoms:
    """The same atoms with EMT labels."""
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    if stress:
        results["stress"] = atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def clusters(n: int, seed: int, amplitude: float = 0.15, sizes: tuple[int, ...] = (5,)) -> FrameSet:
    """`n` displaced clusters; with several sizes the frames alternate."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(n):
        size = sizes[i % len(sizes)]
        numbers = np.array([29, 79, 29, 79, 29])[:size]
        atoms = Atoms(numbers, CLUSTER[:size] + rng.normal(0, amplitude, (size, 3)))
        atoms.info["tag"] = f"size{size}"
        frames.append(label(atoms))
    return FrameSet.from_atoms(frames, source="emt")


def crystals(n: int, seed: int) -> FrameSet:
    """`n` strained, displaced copper cells with stress."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        frames.append(label(atoms, stress=True))
    return FrameSet.from_atoms(frames, source="crystal")


def make_potential(frames: FrameSet, seed: int = 0, features: int = 8, encoder: str = "painn", **options) -> Potential:
    """A tiny potential with atomic energies from the frames; the same for the same seed."""
    import torch

    options = {"layers": 1, "cutoff": 4.0, "n_radial": 6, **options}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = build_encoder(encoder, features=features, **options)
        return Potential(built, atomic_energies=fit_atomic_energies(frames))
