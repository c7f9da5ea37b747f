"""Properties that every registered model must have; a model joins by being registered, an adapter by being passed in.

Each `check_*` takes a potential in the dtype under test and raises AssertionError. Float64 potentials are held against
finite differences and rounding, float32 ones against rounding and their own float64 copy. What only some potentials
have (features, an encoder that can be asked alone) is looked at where it is there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import make_supercell, molecule

from mlipkit.data import FrameSet, Graph, NeighbourCache, collate, graph_of
from mlipkit.models import (
    AtomicShifts,
    BasePotential,
    Committee,
    Potential,
    SumPotential,
    ZBLRepulsion,
    build_encoder,
    load,
    save,
)

ELEMENTS = (1, 6, 8)
ATOMIC_ENERGIES = {1: -13.6, 6: -1029.1, 8: -2041.3}
SMALL: dict[str, dict] = {
    "schnet": {"features": 12, "layers": 2, "cutoff": 3.5, "n_radial": 12},
    "painn": {"features": 12, "layers": 2, "cutoff": 3.5, "n_radial": 8},
    "egnn": {"features": 12, "layers": 2, "cutoff": 3.5, "n_fourier": 8, "sigma": 2.0, "elements": [1, 6, 8]},
    "visnet": {"features": 12, "layers": 3, "cutoff": 3.5, "n_radial": 8, "heads": 2},
}
"""Options that keep a model of the suite small; one not listed here is built with its defaults."""


def small_potential(encoder: str, dtype: torch.dtype, *, head: str = "per_atom", seed: int = 0, **options) -> Potential:
    """Potential with random weights and biases, so that no term hides behind an initial zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = build_encoder(encoder, **{**SMALL.get(encoder, {}), **options})
        potential = Potential(made, atomic_energies=ATOMIC_ENERGIES, elements=ELEMENTS, head=head, scale=0.7)
        with torch.no_grad():
            for name, parameter in potential.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.2)
    return potential.to(dtype)


def small_zbl(dtype: torch.dtype) -> ZBLRepulsion:
    """Repulsion that reaches far enough to be seen in the structures below."""
    return ZBLRepulsion(ELEMENTS, inner=0.8, outer=3.0).to(dtype)


MODELS: dict[str, Callable[[torch.dtype], BasePotential]] = {
    "schnet": lambda dtype: small_potential("schnet", dtype),
    "painn": lambda dtype: small_potential("painn", dtype),
    "egnn": lambda dtype: small_potential("egnn", dtype),
    "visnet": lambda dtype: small_potential("visnet", dtype),
    "visnet_lmax2_gated": lambda dtype: small_potential("visnet", dtype, lmax=2, head="gated"),
    "visnet_self_loops": lambda dtype: small_potential("visnet", dtype, self_loops=True),
    "zbl": small_zbl,
    "sum": lambda dtype: SumPotential([small_potential("painn", dtype, cutoff=3.0), small_zbl(dtype)]),
    "shifted": lambda dtype: SumPotential([
        small_potential("schnet", dtype, cutoff=3.0), AtomicShifts({1: 1.5, 6: -0.5, 8: 0.25})
    ]),
    "committee": lambda dtype: Committee([
        small_potential("schnet", dtype, seed=1), small_potential("schnet", dtype, seed=2, cutoff=3.0)
    ]),
}  # fmt: skip
"""Small models that have every property; a test sees to it that nothing registered is missing here."""


def ethanol(seed: int = 0) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.positions += np.random.default_rng(seed).normal(scale=0.05, size=(9, 3))
    return atoms


def skewed_crystal(seed: int = 1) -> Atoms:
    """Four atoms in a triclinic cell whose heights are all below the cutoff: pairs with many images of each other."""
    cell = np.array([[3.1, 0.0, 0.0], [1.4, 2.9, 0.0], [-0.9, 1.2, 3.0]])
    rng = np.random.default_rng(seed)
    fractions = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) + rng.normal(scale=0.02, size=(4, 3))
    return Atoms([8, 1, 6, 1], positions=fractions @ cell, cell=cell, pbc=True)


def slab(seed: int = 2) -> Atoms:
    """Periodic along two axes, one of them not the first."""
    atoms = skewed_crystal(seed)
    atoms.pbc = (True, False, True)
    return atoms


def lone_atom() -> Atoms:
    return Atoms("O", positions=[[0.3, -0.1, 0.2]])


STRUCTURES: dict[str, Callable[[], Atoms]] = {
    "ethanol": ethanol,
    "skewed_crystal": skewed_crystal,
    "slab": slab,
    "lone_atom": lone_atom,
}


def _graph(potential: BasePotential, atoms: Atoms):
    return graph_of(atoms, potential.cutoff, potential.dtype)


def _close(potential: BasePotential, found, expected, *, loose: float = 1.0, what: str = "") -> None:
    """Equal to rounding: 1e-9 in float64, 2e-5 in float32, of the largest value."""
    found, expected = (torch.as_tensor(value).detach().double() for value in (found, expected))
    size = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    allowed = loose * size * (1e-9 if potential.dtype is torch.float64 else 2e-5)
    difference = float((found - expected).abs().max()) if expected.numel() else 0.0
    assert difference <= allowed, f"{what} differs by {difference:.3g}, allowed {allowed:.3g}"


def _net(potential: BasePotential, graph, energy: torch.Tensor) -> torch.Tensor:
    """Energy without the atomic energies, whose size would hide an error."""
    rest = torch.zeros_like(energy).index_add(0, graph.system, potential.atomic_energies[graph.numbers])
    return energy - rest


@dataclass(frozen=True)
class _Placed(Graph):
    """A graph whose edge vectors are given instead of made from positions."""

    vectors: torch.Tensor

    def edge_vectors(self, positions=None, cell=None, pairs=False):
        return self.vectors[self.pairs] if pairs else self.vectors


def check_nontrivial(potential: BasePotential) -> None:
    """Forces, stress and features are there at all: the other checks cannot pass on zeros."""
    result = potential(_graph(potential, skewed_crystal()), stress=True, features=True)
    assert result.energy.dtype is torch.float64
    assert float(result.forces.abs().max()) > 1e-2
    assert float(result.stress.abs().max()) > 1e-4
    assert result.features is None or float(result.features.std()) > 1e-3
    assert result.features is not None or not isinstance(potential, Potential)
    for value in (result.energy, result.forces, result.stress, result.features, result.energies):
        assert value is None or not value.requires_grad


def check_batch(potential: BasePotential) -> None:
    """A batch of unlike structures equals the structures one by one."""
    atoms = [make() for make in STRUCTURES.values()]
    frames = FrameSet.from_atoms(atoms)
    cache = NeighbourCache(frames, potential.cutoff)
    graph, _ = collate(frames, np.array([2, 0, 3, 1]), cache, potential.dtype)
    batch = potential(graph, stress=True, features=True)
    start = 0
    for row, i in enumerate((2, 0, 3, 1)):
        single = potential(_graph(potential, atoms[i]), stress=True, features=True)
        rows = slice(start, start + len(atoms[i]))
        start = rows.stop
        _close(potential, batch.energy[row], single.energy[0], what="energy")
        _close(potential, batch.forces[rows], single.forces, what="forces")
        if batch.features is not None or single.features is not None:
            _close(potential, batch.features[rows], single.features, what="features")
        assert bool(batch.stress[row].isnan().all()) == (not atoms[i].pbc.all())
        _close(potential, batch.stress[row].nan_to_num(), single.stress[0].nan_to_num(), what="stress")


def check_permutation(potential: BasePotential) -> None:
    """Renumbered atoms give the same energy and renumbered forces."""
    for make in (ethanol, skewed_crystal):
        atoms = make()
        order = np.random.default_rng(3).permutation(len(atoms))
        graph, other = _graph(potential, atoms), _graph(potential, atoms[order])
        first, second = potential(graph), potential(other)
        _close(potential, _net(potential, other, second.energy), _net(potential, graph, first.energy), what="energy")
        _close(potential, second.forces, first.forces[torch.from_numpy(order)], what="forces")


def check_translation(potential: BasePotential) -> None:
    """Moving everything, and moving single atoms by lattice vectors, changes nothing."""
    for make in (ethanol, skewed_crystal, slab):
        atoms = make()
        moved = atoms.copy()
        moved.positions += [0.31, -1.7, 2.2]
        for axis in np.flatnonzero(atoms.pbc):
            moved.positions[1] += 2 * atoms.cell.array[axis]
        graph, other = _graph(potential, atoms), _graph(potential, moved)
        first, second = potential(graph), potential(other)
        _close(potential, _net(potential, other, second.energy), _net(potential, graph, first.energy), what="energy")
        _close(potential, second.forces, first.forces, loose=5, what="forces")


def check_rotation(potential: BasePotential) -> None:
    """A rotation and a reflection turn forces, stress and vector features along and leave the energy."""
    turn, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    for matrix in (turn * np.sign(np.linalg.det(turn)), -turn * np.sign(np.linalg.det(turn))):
        for make in (ethanol, skewed_crystal):
            atoms = make()
            turned = atoms.copy()
            turned.set_cell(atoms.cell.array @ matrix, scale_atoms=False)
            turned.positions = atoms.positions @ matrix
            graph, other = _graph(potential, atoms), _graph(potential, turned)
            first, second = potential(graph, stress=True), potential(other, stress=True)
            q = torch.as_tensor(matrix, dtype=potential.dtype)
            _close(
                potential, _net(potential, other, second.energy), _net(potential, graph, first.energy), what="energy"
            )
            _close(potential, second.forces, first.forces @ q, what="forces")
            if atoms.pbc.all():
                _close(potential, second.stress, q.T @ first.stress @ q, what="stress")
            if not isinstance(potential, Potential):
                continue
            with torch.no_grad():
                before, after = potential.encode(graph), potential.encode(other)
            _close(potential, after.scalar, before.scalar, what="scalar features")
            if before.vector is not None and after.vector is not None:
                _close(potential, after.vector, torch.einsum("nxd,xy->nyd", before.vector, q), what="vector features")
            if before.tensor is not None and after.tensor is not None:
                _close(potential, after.tensor.norm(dim=1), before.tensor.norm(dim=1), what="length of l = 2 features")


def _slope(energy: Callable[[float], float], h: float) -> float:
    """Central difference of fourth order."""
    return (8 * (energy(h) - energy(-h)) - (energy(2 * h) - energy(-2 * h))) / (12 * h)


def check_forces(potential: BasePotential) -> None:
    """Forces are the negative slope of the energy: finite differences < 1e-6 eV/Å; float32 against float64."""
    exact = copy.deepcopy(potential).double()
    for make in (ethanol, skewed_crystal, slab):
        graph = graph_of(make(), potential.cutoff, torch.float64)
        forces = exact(graph).forces
        if potential.dtype is not torch.float64:
            found = potential(graph.to(dtype=potential.dtype)).forces
            _close(potential, found, forces, loose=5, what="float32 forces")
            continue
        for atom, axis in ((0, 0), (1, 2), (len(forces) - 1, 1)):

            def energy(step: float, atom: int = atom, axis: int = axis, graph=graph) -> float:
                positions = graph.positions.clone()
                positions[atom, axis] += step
                moved = replace(graph, positions=positions)
                return float(_net(exact, moved, exact(moved, forces=False).energy)[0])

            error = abs(_slope(energy, 1e-4) + float(forces[atom, axis]))
            assert error < 1e-6, f"force differs from the slope of the energy by {error:.3g} eV/Å"


def check_stress(potential: BasePotential) -> None:
    """Stress is the slope under strain, six components, < 1e-7 eV/Å³; NaN where an axis is not periodic."""
    atoms = skewed_crystal()
    graph = graph_of(atoms, potential.cutoff, torch.float64)
    exact = copy.deepcopy(potential).double()
    stress = exact(graph, stress=True).stress[0]
    if potential.dtype is not torch.float64:
        found = potential(graph.to(dtype=potential.dtype), stress=True, forces=False).stress[0]
        _close(potential, found, stress, loose=5, what="float32 stress")
    else:
        assert torch.equal(stress, stress.mT)
        for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):

            def energy(step: float, a: int = a, b: int = b) -> float:
                strain = torch.eye(3, dtype=torch.float64)
                strain[a, b] += 0.5 * step
                strain[b, a] += 0.5 * step
                moved = replace(graph, positions=graph.positions @ strain, cell=graph.cell @ strain)
                return float(_net(exact, moved, exact(moved, forces=False).energy)[0])

            error = abs(_slope(energy, 1e-4) / atoms.get_volume() - float(stress[a, b]))
            assert error < 1e-7, f"stress component {a}{b} differs by {error:.3g} eV/Å³"
    for make in (slab, ethanol):
        result = potential(_graph(potential, make()), stress=True)
        assert bool(result.stress.isnan().all())
        assert bool(result.forces.isfinite().all())


def check_cutoff_smooth(potential: BasePotential) -> None:
    """Energy and forces go to zero interaction as a pair reaches the cutoff, and stay there with a longer list."""
    rc = potential.cutoff
    apart = potential(_graph(potential, Atoms("CO", positions=[[0, 0, 0], [rc + 1, 0, 0]])))

    def pair(d: float, axis: int = 0):
        positions = np.zeros((2, 3))
        positions[1, axis] = d
        return potential(graph_of(Atoms("CO", positions=positions), rc + 0.5, potential.dtype))

    below, above = pair(rc - 1e-3), pair(rc + 1e-3)
    bound = 1e-6 if potential.dtype is torch.float64 else 2e-5
    assert abs(float(below.energy - apart.energy)) < bound
    # The first derivative of the cosine cutoff vanishes linearly: within 1e-3 Å of the cutoff forces are that small.
    assert float(below.forces.abs().max()) < 1e-2 * max(1e-2, float(pair(1.2).forces.abs().max()))
    assert torch.equal(above.forces, torch.zeros_like(above.forces))
    _close(potential, above.energy, apart.energy, what="energy beyond the cutoff", loose=1e-3)
    assert abs(float(pair(0.8 * rc).energy - apart.energy)) > 1e-6


def check_no_jumps(potential: BasePotential) -> None:
    """The work of the forces along a pair's distance is the change of its energy: no jump, the cutoff included."""
    d = np.linspace(0.7, potential.cutoff + 0.1, 801)
    frames = FrameSet.from_atoms([Atoms("CO", positions=[[0, 0, 0], [0, x, 0]]) for x in d])
    cache = NeighbourCache(frames, potential.cutoff)
    graph, _ = collate(frames, np.arange(len(d)), cache, potential.dtype)
    result = potential(graph)
    pull = result.forces[1::2, 1].double().numpy()
    work = np.concatenate([[0.0], np.cumsum(0.5 * (pull[1:] + pull[:-1]) * np.diff(d))])
    energy = result.energy.numpy()
    error = np.abs(energy - energy[0] + work).max()
    assert error < 2e-3 * np.ptp(energy), f"energy jumps by {error:.3g} eV"


def check_beyond_cutoff_nothing(potential: BasePotential) -> None:
    """Edges of a skin list at or beyond the cutoff add exactly nothing to energy, forces and second derivatives."""
    graph = graph_of(skewed_crystal(), potential.cutoff + 0.8, potential.dtype)
    vectors = graph.edge_vectors().detach()
    vectors[0] *= potential.cutoff / vectors[0].norm()
    while float(vectors[0].norm()) < potential.cutoff:
        vectors[0] *= 1 + 1e-6
    vectors.requires_grad_()
    outside = vectors.detach().norm(dim=-1) >= potential.cutoff
    assert bool(outside.any())
    assert not bool(outside.all())

    def energy(edges, r):
        columns = {field.name: getattr(graph, field.name) for field in fields(graph)}
        placed = _Placed(**{**columns, "edge_index": edges}, vectors=r)
        return potential.evaluate(placed, graph.positions, graph.cell)[0].sum()

    total = energy(graph.edge_index, vectors)
    (first,) = torch.autograd.grad(total, vectors, create_graph=True)
    weights = torch.linspace(-1, 1, first.numel(), dtype=first.dtype).view_as(first)
    (second,) = torch.autograd.grad((first * weights).sum(), vectors)
    assert torch.equal(first[outside], torch.zeros_like(first[outside]))
    assert torch.equal(second[outside], torch.zeros_like(second[outside]))
    assert float(second[~outside].abs().max()) > 0
    near = energy(graph.edge_index[:, ~outside], vectors.detach()[~outside])
    rest = float(potential.atomic_energies[graph.numbers].sum())
    _close(potential, total - rest, near - rest, what="energy with a longer list")


def check_images(potential: BasePotential) -> None:
    """A cell smaller than the cutoff equals its supercells: all images count, energy is extensive."""
    atoms = skewed_crystal()
    graph = _graph(potential, atoms)
    single = potential(graph, stress=True)
    per_cell = _net(potential, graph, single.energy)[0]
    for matrix in (np.diag([2, 1, 1]), np.diag([2, 2, 2]), np.array([[1, 1, 0], [0, 1, 0], [0, 0, 2]])):
        big = make_supercell(atoms, matrix, order="cell-major")
        other = _graph(potential, big)
        result = potential(other, stress=True)
        n = len(big) // len(atoms)
        _close(potential, _net(potential, other, result.energy)[0], n * per_cell, what="energy of the supercell")
        _close(potential, result.forces, single.forces.repeat(n, 1), loose=5, what="forces in the supercell")
        _close(potential, result.stress, single.stress, what="stress of the supercell")


def check_fragments(potential: BasePotential) -> None:
    """Far fragments do not feel each other."""
    atoms, other = ethanol(), ethanol(5)
    other.positions += [0, 0, 20.0]
    together, first, second = (_graph(potential, part) for part in (atoms + other, atoms, other))
    found = _net(potential, together, potential(together).energy)
    parts = [_net(potential, graph, potential(graph).energy) for graph in (first, second)]
    _close(potential, found, parts[0] + parts[1], what="energy of two fragments")


def check_isolated(potential: BasePotential) -> None:
    """No NaN in first, second and mixed derivatives: lone atoms, an atom far off, two atoms moved onto one point."""
    far = ethanol() + Atoms("H", positions=[[30.0, 0, 0]])
    overlap = graph_of(ethanol(), potential.cutoff, potential.dtype)
    positions = overlap.positions.clone()
    positions[3] = positions[0]
    cases = [_graph(potential, lone_atom()), _graph(potential, far), replace(overlap, positions=positions)]
    for graph in cases:
        potential.zero_grad(set_to_none=True)
        start = graph.positions.clone().requires_grad_()
        result = potential(replace(graph, positions=start), create_graph=True, features=True)
        assert bool(result.forces.isfinite().all())
        (result.energy.sum() + result.forces.square().sum() + result.forces.abs().sum()).backward()
        assert bool(start.grad.isfinite().all())
        for name, parameter in potential.named_parameters():
            assert parameter.grad is None or bool(parameter.grad.isfinite().all()), name
    potential.zero_grad(set_to_none=True)
    alone = potential(cases[0])
    assert torch.equal(alone.forces, torch.zeros_like(alone.forces))


def check_net_force(potential: BasePotential) -> None:
    """Momentum is kept: forces of a structure sum to zero (< 1e-5 eV/Å)."""
    for make in STRUCTURES.values():
        assert float(potential(_graph(potential, make())).forces.sum(0).abs().max()) < 1e-5


def check_save_load(potential: BasePotential, folder: Path) -> None:
    """A saved and loaded potential is the same to the last bit."""
    graph = _graph(potential, skewed_crystal())
    other = load(save(potential, folder / "potential.safetensors", {"why": "test"}))
    assert other.dtype is potential.dtype
    state, copied = potential.state_dict(), other.state_dict()
    assert list(state) == list(copied)
    for name, value in state.items():
        assert value.dtype is copied[name].dtype
        assert torch.equal(value.nan_to_num(nan=-1.0), copied[name].nan_to_num(nan=-1.0)), name
    first, second = (model(graph, stress=True, features=True) for model in (potential, other))
    for name, value in vars(first).items():
        if value is not None or getattr(second, name) is not None:
            assert torch.equal(value, getattr(second, name)), name
    assert other.describe() == potential.describe()


def check_attached(potential: BasePotential) -> None:
    """Positions that come from a computation stay on it: gradients run through forces into what made them."""
    graph = _graph(potential, ethanol())
    factor = torch.ones((), dtype=potential.dtype, requires_grad=True)
    result = potential(replace(graph, positions=graph.positions * factor), create_graph=True)
    (slope,) = torch.autograd.grad(result.forces.square().sum(), factor)
    exact = copy.deepcopy(potential).double()
    wide = graph.to(dtype=torch.float64)

    def loss(step: float) -> float:
        moved = replace(wide, positions=wide.positions * (1 + step))
        return float(exact(moved).forces.square().sum())

    expected = _slope(loss, 1e-4)
    tolerance = 1e-5 if potential.dtype is torch.float64 else 1e-3
    assert abs(float(slope) - expected) < tolerance * max(1.0, abs(expected))


def check_mask(potential: BasePotential) -> None:
    """Type 0 hides a type: features change where an atom is hidden, and it is no element of the table."""
    if not isinstance(potential, Potential):
        return
    graph = _graph(potential, ethanol())
    hidden = graph.numbers.clone()
    hidden[2] = 0
    with torch.no_grad():
        shown, masked = potential.encode(graph), potential.encode(graph, numbers=hidden)
    assert float((shown.scalar[2] - masked.scalar[2]).abs().max()) > 1e-4


PROPERTIES: dict[str, Callable[[BasePotential], None]] = {
    name.removeprefix("check_"): value
    for name, value in sorted(globals().items())
    if name.startswith("check_") and name != "check_save_load"
}
"""All checks that need nothing but a potential."""
