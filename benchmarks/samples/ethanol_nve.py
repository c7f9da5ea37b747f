"""ethanol_nve: independent constant-energy trajectories of ethanol with every step stored (GFN2-xTB).

python benchmarks/samples/ethanol_nve.py
"""

from __future__ import annotations

import common
import ethanol_thermal as thermal
import numpy as np

from mlipkit.units import ASE_TIME

NAME = "ethanol_nve"
TEMPERATURE = 300.0
TIMESTEP = 0.5
FRAMES = 401
TRAJECTORIES = 20
EQUILIBRATION = 2000


def trajectory(k: int) -> common.Arrays:
    rng = np.random.default_rng([1000, k])
    atoms = thermal.start(rng)
    atoms.calc = common.xtb(thermal.METHOD)
    atoms.set_velocities(common.maxwell(atoms.get_masses(), TEMPERATURE, rng) * ASE_TIME)
    common.thermalise(atoms, TIMESTEP, TEMPERATURE, EQUILIBRATION, rng)
    return common.nve(atoms, TIMESTEP, FRAMES, lambda: common.xtb(thermal.METHOD))


def main() -> None:
    kept, wall, cpu = common.trajectories(NAME, TRAJECTORIES, trajectory)
    atoms = thermal.start(np.random.default_rng(0))
    masses = atoms.get_masses()
    arrays, checks = common.join_nve(kept, atoms.numbers, masses)
    bonds = thermal.bonds(atoms.numbers, arrays["positions"])
    if not (bonds == thermal.bonds(atoms.numbers, atoms.positions)).all():
        raise SystemExit(f"{NAME}: a bond changed")
    card = {
        "title": "Ethanol, constant energy, every step",
        "description": f"{TRAJECTORIES} NVE trajectories of {FRAMES} consecutive frames, {TIMESTEP} fs apart, each "
        f"from its own {EQUILIBRATION * TIMESTEP / 1000:g} ps Langevin run at {TEMPERATURE:g} K.",
        "temperature_K": TEMPERATURE,
        "level_of_theory": f"{thermal.METHOD} (electrons at 300 K, free energy), accuracy 0.01",
        "dynamics": {"integrator": "velocity Verlet", "timestep_fs": TIMESTEP},
        "rounding": common.NVE_ROUNDING,
        "checks": {**checks, "all_bonds_intact": True},
        "seeds": [[1000, k] for k in range(TRAJECTORIES)],
        "versions": common.versions("tblite"),
        "command": common.command(),
        "recipe": "benchmarks/samples/ethanol_nve.py",
        "wall_s": wall,
        "cpu_s": cpu,
    }
    common.store(NAME, arrays, card)


if __name__ == "__main__":
    main()
