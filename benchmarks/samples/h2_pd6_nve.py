"""h2_pd6_nve: H2 with 0.125 eV of translational energy hits Pd6 at 300 K; constant energy, every step (GFN1-xTB).

python benchmarks/samples/h2_pd6_nve.py
"""

from __future__ import annotations

import common
import numpy as np
from ase import Atoms
from scipy.spatial.transform import Rotation

from mlipkit.units import ASE_TIME, FORCE_TO_ACCELERATION

NAME = "h2_pd6_nve"
METHOD = "GFN1-xTB"
TEMPERATURE = 300.0
TRANSLATION = 0.125
"""eV of the H2 centre of mass, seen from the cluster."""
START_DISTANCE = 6.0
IMPACT_RADIUS = 2.0
BOND_LENGTH = 0.766
PD_LENGTH = 2.63
TIMESTEP = 0.5
FRAMES = 500
TRAJECTORIES = 24
CLUSTER_TIMESTEP, CLUSTER_STEPS = 5.0, 400


def cluster(rng: np.random.Generator) -> Atoms:
    """Octahedral Pd6 after 2 ps of Langevin dynamics at 300 K, at rest and centred, turned at random."""
    corners = PD_LENGTH / 2**0.5 * np.concatenate([np.eye(3), -np.eye(3)])
    atoms = Atoms("Pd6", corners)
    atoms.calc = common.xtb(METHOD)
    atoms.set_velocities(common.maxwell(atoms.get_masses(), TEMPERATURE, rng) * ASE_TIME)
    common.thermalise(atoms, CLUSTER_TIMESTEP, TEMPERATURE, CLUSTER_STEPS, rng)
    turn = Rotation.random(rng=rng).as_matrix()
    atoms.positions = (atoms.positions - atoms.get_center_of_mass()) @ turn
    atoms.set_velocities(atoms.get_velocities() @ turn)
    return atoms


def molecule(rng: np.random.Generator) -> Atoms:
    """H2 above the cluster on its way down, with thermal vibration and rotation."""
    axis = Rotation.random(rng=rng).as_matrix()[0]
    atoms = Atoms("H2", 0.5 * BOND_LENGTH * np.array([axis, -axis]))
    masses = atoms.get_masses()
    velocities = common.maxwell(masses, TEMPERATURE, rng)
    velocities[:, 2] -= np.sqrt(2 * TRANSLATION * FORCE_TO_ACCELERATION / masses.sum())
    radius, angle = IMPACT_RADIUS * np.sqrt(rng.random()), 2 * np.pi * rng.random()
    atoms.positions += [radius * np.cos(angle), radius * np.sin(angle), START_DISTANCE]
    atoms.set_velocities(velocities * ASE_TIME)
    return atoms


def trajectory(k: int) -> common.Arrays:
    rng = np.random.default_rng([46, k])
    both = cluster(rng) + molecule(rng)
    both.calc = common.xtb(METHOD)
    both.set_velocities(common.remove_drift(both.get_masses(), both.get_velocities()))
    both.positions -= both.get_center_of_mass()
    return common.nve(both, TIMESTEP, FRAMES, lambda: common.xtb(METHOD))


def outcomes(kept: list[common.Arrays]) -> dict[str, int]:
    """What became of H2 within the trajectory."""
    broken, scattered = "H-H bond opened above 1.5 Å", "left again (Pd-H above 3 Å at the end)"
    count = {broken: 0, "stayed a molecule on the cluster": 0, scattered: 0}
    for part in kept:
        positions = part["positions"].astype(float)
        longest = np.linalg.norm(positions[:, 6] - positions[:, 7], axis=-1).max()
        nearest = np.linalg.norm(positions[-1, 6:, None] - positions[-1, :6], axis=-1).min()
        count[broken if longest > 1.5 else scattered if nearest > 3 else "stayed a molecule on the cluster"] += 1
    return count


def main() -> None:
    kept, wall, cpu = common.trajectories(NAME, TRAJECTORIES, trajectory)
    atoms = Atoms("Pd6H2")
    masses = atoms.get_masses()
    arrays, checks = common.join_nve(kept, atoms.numbers, masses)
    # One hot molecule in a thermal cluster, formed bonds included: no temperature to speak of.
    del checks["mean_temperature_K"]
    first = np.array([part["velocities"][0] for part in kept]).astype(float)
    centre = (masses[6:, None] * first[:, 6:]).sum(1) / masses[6:].sum()
    approach = centre - (masses[:6, None] * first[:, :6]).sum(1) / masses[:6].sum()
    cluster_velocity = np.array([common.remove_drift(masses[:6], v) for v in first[:, :6]])
    checks |= {
        "translational_energy_eV": round(
            float(0.5 * masses[6:].sum() * (approach**2).sum(1).mean() / FORCE_TO_ACCELERATION), 4
        ),
        "cluster_start_temperature_K": round(float(common.temperature_of(masses[:6], cluster_velocity).mean()), 1),
        "outcomes": outcomes(kept),
    }
    card = {
        "title": "H2 hitting Pd6",
        "description": f"{TRAJECTORIES} NVE trajectories of {FRAMES} consecutive frames, {TIMESTEP} fs apart: H2 with "
        f"{TRANSLATION} eV of translational energy, {START_DISTANCE} Å above a thermal Pd6 cluster of random "
        f"orientation, impact parameter uniform on a disc of {IMPACT_RADIUS} Å; H2 vibration and rotation at 300 K.",
        "temperature_K": TEMPERATURE,
        "level_of_theory": f"{METHOD} (closed shell, electrons at 300 K, free energy), accuracy 0.01",
        "dynamics": {"integrator": "velocity Verlet", "timestep_fs": TIMESTEP},
        "rounding": common.NVE_ROUNDING,
        "checks": checks,
        "seeds": [[46, k] for k in range(TRAJECTORIES)],
        "versions": common.versions("tblite"),
        "command": common.command(),
        "recipe": "benchmarks/samples/h2_pd6_nve.py",
        "wall_s": wall,
        "cpu_s": cpu,
    }
    common.store(NAME, arrays, card)


if __name__ == "__main__":
    main()
