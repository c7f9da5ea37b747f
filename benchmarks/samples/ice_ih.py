"""ice_ih: proton-disordered ice Ih, 32 H2O at 250 K, sampled with SO3LR, labelled with GFN1-xTB.

Each trajectory has its own proton order: a random orientation of the hydrogen-bond network with two bonds in and two
out at every oxygen (Bernal and Fowler 1933), made from an Eulerian circuit and random ring reversals, kept when the
cell dipole vanishes.

    python benchmarks/samples/ice_ih.py
"""

from __future__ import annotations

import common
import condensed
import numpy as np
from ase import Atoms

from mlipkit.units import AMU_PER_A3

NAME = "ice_ih"
TEMPERATURE = 250.0
DENSITY = 0.920
RATIO = 1.628
"""c/a at 250 K (Röttger et al. 1994); the density is theirs too."""
REPEAT = (2, 1, 2)
TRAJECTORIES = 4
FRAMES = 25
EQUILIBRATION = 200
STRIDE = 15
RING_REVERSALS = 200


def oxygens() -> tuple[np.ndarray, np.ndarray]:
    """Ideal oxygen sites [n,3] of `REPEAT` orthorhombic cells of 8 molecules, and the cell [3,3]."""
    mass = 8 * 18.015 * AMU_PER_A3
    a = float((mass / DENSITY / (3**0.5 * RATIO)) ** (1 / 3))
    c = a * RATIO
    lengths = np.array([a, 3**0.5 * a, c])
    z = 1 / 16  # ideal tetrahedra for c/a = sqrt(8/3)
    plane = np.array([[0, 0], [0.5, 0.5], [0, 1 / 3], [0.5, 5 / 6]])
    layer = [(*xy, height) for xy, height in zip(plane, (z, z, -z, -z), strict=True)]
    upper = [(*xy, 0.5 - height) for xy, height in zip(plane, (z, z, -z, -z), strict=True)]
    basis = np.array([(x, y, h) for (x, y), h in [((s[0], s[1]), s[2]) for s in layer + upper]])
    shifts = np.stack(np.meshgrid(*map(range, REPEAT), indexing="ij"), -1).reshape(-1, 1, 3)
    sites = ((shifts + basis) * lengths).reshape(-1, 3)
    return sites, np.diag(lengths * REPEAT)


def network(sites: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hydrogen bonds as pairs [2n,2] and their vectors [2n,3]; every oxygen has four."""
    vectors = condensed.minimum_image(sites[None] - sites[:, None], cell)
    distance = np.linalg.norm(vectors, axis=-1)
    first, second = np.nonzero(np.triu((distance > 0.1) & (distance < 3.2)))
    assert (np.bincount(np.r_[first, second]) == 4).all()
    return np.stack([first, second], 1), vectors[first, second]


def orient(bonds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random sign per bond, +1 = proton donated by the first oxygen: two donated and two accepted at every oxygen."""
    around: list[list[int]] = [[] for _ in range(int(bonds.max()) + 1)]
    for b, (i, j) in enumerate(bonds):
        around[i].append(b)
        around[j].append(b)
    sign = np.zeros(len(bonds), dtype=int)
    while (sign == 0).any():  # closed walks over unused bonds: in and out balance at every oxygen
        at = int(bonds[rng.choice(np.flatnonzero(sign == 0)), 0])
        while free := [b for b in around[at] if sign[b] == 0]:
            b = int(rng.choice(free))
            sign[b] = 1 if bonds[b, 0] == at else -1
            at = int(bonds[b].sum() - at)
    for _ in range(RING_REVERSALS):
        reverse_ring(bonds, around, sign, rng)
    return sign


def reverse_ring(bonds: np.ndarray, around: list[list[int]], sign: np.ndarray, rng: np.random.Generator) -> None:
    """Follow donated protons at random until the walk meets itself, then turn that ring around (Rahman-Stillinger)."""
    at = int(rng.integers(len(around)))
    seen, path = [at], []
    while True:
        donated = [b for b in around[at] if (sign[b] == 1) == (bonds[b, 0] == at)]
        b = int(rng.choice(donated))
        path.append(b)
        at = int(bonds[b].sum() - at)
        if at in seen:
            sign[path[seen.index(at) :]] *= -1
            return
        seen.append(at)


def start(rng: np.random.Generator) -> Atoms:
    sites, cell = oxygens()
    bonds, vectors = network(sites, cell)
    while True:
        sign = orient(bonds, rng)
        if np.abs((sign[:, None] * vectors).sum(0)).max() < 1e-6:
            break
    positions = []
    for i, site in enumerate(sites):
        donated = [
            sign[b] * vectors[b] for b in range(len(bonds)) if i in bonds[b] and (sign[b] == 1) == (bonds[b, 0] == i)
        ]
        arms = [v / np.linalg.norm(v) * condensed.OH_LENGTH for v in donated]
        positions += [site, *(site + arm for arm in arms)]
    return Atoms("OH2" * len(sites), positions, cell=cell, pbc=True)


def proton_order(positions: np.ndarray, cell: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(nearest, second nearest oxygen) of every hydrogen: donor and acceptor of its hydrogen bond."""
    hydrogen = np.delete(positions, np.s_[::3], axis=0)
    distance = np.linalg.norm(condensed.minimum_image(hydrogen[:, None] - positions[::3], cell), axis=-1)
    donor, acceptor = np.argsort(distance, axis=1)[:, :2].T
    return tuple(donor), tuple(acceptor)


def ice_rules(positions: np.ndarray, cell: np.ndarray) -> bool:
    """Every oxygen (order O H H) donates its own two hydrogens and accepts exactly two."""
    donor, acceptor = map(np.array, proton_order(positions, cell))
    accepted = np.bincount(acceptor, minlength=len(positions) // 3)
    return bool((donor == np.repeat(np.arange(len(positions) // 3), 2)).all() and (accepted == 2).all())


def dipole(positions: np.ndarray, cell: np.ndarray) -> float:
    """Length of the mean molecular dipole direction: 0 = no net polarisation, 1 = fully aligned."""
    oxygen = positions[::3]
    hydrogen = np.delete(positions, np.s_[::3], axis=0).reshape(-1, 2, 3)
    arms = condensed.minimum_image(hydrogen - oxygen[:, None], cell).sum(1)
    return float(np.linalg.norm((arms / np.linalg.norm(arms, axis=1)[:, None]).mean(0)))


def main() -> None:
    kept, wall, cpu = common.trajectories(
        NAME,
        TRAJECTORIES,
        lambda k: condensed.sample(start, [int(TEMPERATURE), k], TEMPERATURE, EQUILIBRATION, STRIDE, FRAMES),
    )
    frames = [(p.astype(float), part["cell"]) for part in kept for p in part["positions"]]
    orders = {proton_order(*frame) for frame in frames}
    card = {
        "title": "Ice Ih at 250 K, proton-disordered",
        "description": f"32 H2O at {DENSITY} g/cm³ in an orthorhombic cell; {TRAJECTORIES} trajectories with their own "
        f"proton order, {FRAMES} frames each, {STRIDE * condensed.TIMESTEP:g} fs apart, after "
        f"{EQUILIBRATION * condensed.TIMESTEP / 1000:g} ps of equilibration.",
        "temperature_K": TEMPERATURE,
        "sampler": "SO3LR (PBE0+MBD, float64, so3krates-torch)",
        "dynamics": condensed.DYNAMICS,
        "checks": {
            "frames_obeying_ice_rules": sum(ice_rules(*frame) for frame in frames),
            "largest_mean_dipole_direction": round(max(dipole(*frame) for frame in frames), 3),
            "different_proton_orders": len(orders),
        },
        "seeds": [[int(TEMPERATURE), k] for k in range(TRAJECTORIES)],
        "recipe": "benchmarks/samples/ice_ih.py",
    }
    condensed.finish(NAME, kept, card, wall, cpu)


if __name__ == "__main__":
    main()
