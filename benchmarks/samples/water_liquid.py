"""water_liquid: 32 H2O at 300 K and 0.997 g/cm³, sampled with SO3LR, labelled with GFN1-xTB.

Each trajectory: fcc sites with random orientations, melted with SPC/Fw, equilibrated and sampled with SO3LR.

    python benchmarks/samples/water_liquid.py
"""

from __future__ import annotations

import common
import condensed
import numpy as np
from ase import Atoms
from scipy.spatial.transform import Rotation
from spcfw import BOND_LENGTH, SPCFw

from mlipkit.units import AMU_PER_A3, ASE_TIME

NAME = "water_liquid"
MOLECULES = 32
DENSITY = 0.997
TEMPERATURE = 300.0
TRAJECTORIES = 4
FRAMES = 50
EQUILIBRATION = 800
STRIDE = 25
MELT = ((600.0, 8000), (300.0, 16000))
"""(K, steps of 0.5 fs) with SPC/Fw."""


def start(rng: np.random.Generator) -> Atoms:
    half = np.radians(condensed.HOH_ANGLE / 2)
    shape = BOND_LENGTH * np.array([[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]])
    basis = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    corners = np.stack(np.meshgrid(*[range(2)] * 3), -1).reshape(-1, 1, 3)
    sites = (corners + basis).reshape(-1, 3) / 2
    water = Atoms("OH2" * MOLECULES)
    length = float((water.get_masses().sum() * AMU_PER_A3 / DENSITY) ** (1 / 3))
    turns = Rotation.random(MOLECULES, rng=rng).as_matrix()
    water.positions = (np.einsum("mij,aj->mai", turns, shape) + sites[:, None] * length).reshape(-1, 3)
    water.set_cell([length] * 3)
    water.pbc = True
    water.calc = SPCFw()
    water.set_velocities(common.maxwell(water.get_masses(), MELT[0][0], rng) * ASE_TIME)
    for temperature, count in MELT:
        steps = common.integrate(water, 0.5, temperature=temperature, friction=0.02, rng=rng)
        for _, (_, velocity) in zip(range(count), steps, strict=False):
            water.set_velocities(velocity * ASE_TIME)
    water.calc = None
    return water


def main() -> None:
    kept, wall, cpu = common.trajectories(
        NAME,
        TRAJECTORIES,
        lambda k: condensed.sample(start, [int(TEMPERATURE), k], TEMPERATURE, EQUILIBRATION, STRIDE, FRAMES),
    )
    card = {
        "title": "Liquid water at 300 K",
        "description": f"{MOLECULES} H2O in a cube at {DENSITY} g/cm³; {TRAJECTORIES} independent trajectories, "
        f"{FRAMES} frames each, {STRIDE * condensed.TIMESTEP:g} fs apart, after "
        f"{EQUILIBRATION * condensed.TIMESTEP / 1000:g} ps of equilibration.",
        "temperature_K": TEMPERATURE,
        "sampler": "SPC/Fw melt (4 ps at 600 K, 8 ps at 300 K), then SO3LR (PBE0+MBD, float64, so3krates-torch)",
        "dynamics": condensed.DYNAMICS,
        "seeds": [[int(TEMPERATURE), k] for k in range(TRAJECTORIES)],
        "recipe": "benchmarks/samples/water_liquid.py",
    }
    condensed.finish(NAME, kept, card, wall, cpu)


if __name__ == "__main__":
    main()
