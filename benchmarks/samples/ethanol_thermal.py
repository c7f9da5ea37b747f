"""ethanol_300K, ethanol_600K, ethanol_900K: Langevin trajectories of one ethanol molecule on the GFN2-xTB surface.

python benchmarks/samples/ethanol_thermal.py 300
python benchmarks/samples/ethanol_thermal.py 600
python benchmarks/samples/ethanol_thermal.py 900
"""

from __future__ import annotations

import sys

import common
import numpy as np
from ase.build import molecule

from mlipkit.units import ASE_TIME

METHOD = "GFN2-xTB"
TIMESTEP = 0.5
FRICTION = 0.02
EQUILIBRATION = 2000
STRIDE = 200
PER_TRAJECTORY = 50
COUNT = {300: 20, 600: 10, 900: 6}
HYDROXYL = (1, 0, 2, 3)
"""C-C-O-H of ASE's ethanol."""


def start(rng: np.random.Generator):
    """Ethanol in one of its three conformers by chance (trans and the two gauche wells are nearly equal in energy)."""
    atoms = molecule("CH3CH2OH")
    moved = [int(a == HYDROXYL[3]) for a in range(len(atoms))]
    atoms.set_dihedral(*HYDROXYL, float(rng.choice([180.0, 60.0, -60.0])), mask=moved)
    atoms.positions -= atoms.get_center_of_mass()
    return atoms


def trajectory(temperature: int, k: int) -> common.Arrays:
    rng = np.random.default_rng([temperature, k])
    atoms = start(rng)
    atoms.calc = common.xtb(METHOD)
    masses = atoms.get_masses()
    atoms.set_velocities(common.maxwell(masses, temperature, rng) * ASE_TIME)
    positions, velocities = [], []
    steps = common.integrate(atoms, TIMESTEP, temperature=temperature, friction=FRICTION, rng=rng)
    for step, (_, velocity) in enumerate(steps):
        if step > EQUILIBRATION and (step - EQUILIBRATION) % STRIDE == 0:
            positions.append(atoms.positions.astype(np.float32))
            velocities.append(velocity.astype(np.float32))
            if len(positions) == PER_TRAJECTORY:
                break
    stored = np.array(positions)
    labels = common.label(atoms.numbers, stored, common.xtb(METHOD))
    time = STRIDE * TIMESTEP * np.arange(PER_TRAJECTORY)
    return {"positions": stored, "velocities": np.array(velocities), **labels, "time": time}


def bonds(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Bonded pairs [..., n, n]: distance below 1.3 times the sum of covalent radii."""
    from ase.data import covalent_radii

    radii = covalent_radii[numbers]
    distances = np.linalg.norm(positions[..., :, None, :] - positions[..., None, :, :], axis=-1)
    return distances < 1.3 * (radii[:, None] + radii)


def correlation_of_neighbours(forces: np.ndarray, trajectory: np.ndarray) -> float:
    """Correlation of the norm of all forces between consecutive stored frames of a trajectory."""
    norm = np.linalg.norm(forces.reshape(len(forces), -1), axis=1)
    norm = norm - norm.mean()
    same = trajectory[1:] == trajectory[:-1]
    return float((norm[1:] * norm[:-1])[same].mean() / (norm**2).mean())


def main(temperature: int) -> None:
    name = f"ethanol_{temperature}K"
    kept, wall, cpu = common.trajectories(name, COUNT[temperature], lambda k: trajectory(temperature, k))
    atoms = molecule("CH3CH2OH")
    arrays = {key: np.concatenate([part[key] for part in kept]) for key in kept[0]}
    arrays["numbers"] = atoms.numbers.astype(np.int16)
    arrays["trajectory"] = np.repeat(np.arange(len(kept), dtype=np.int32), PER_TRAJECTORY)
    intact = (bonds(atoms.numbers, arrays["positions"]) == bonds(atoms.numbers, atoms.positions)).all((1, 2))
    if not intact.all():
        raise SystemExit(f"{name}: bonds changed in frames {np.flatnonzero(~intact)}")
    sample = atoms.copy()
    sample.positions, sample.calc = arrays["positions"][0].astype(float), common.xtb(METHOD)
    force = float(arrays["forces"][0, 0, 0])
    kinetic = common.temperature_of(atoms.get_masses(), arrays["velocities"].astype(float))
    checks = {
        "mean_temperature_K": round(float(kinetic.mean()), 1),
        "temperature_standard_error_K": round(float(kinetic.std() / np.sqrt(len(kinetic))), 1),
        "all_bonds_intact": True,
        "largest_net_force_eV_per_A": float(np.abs(arrays["forces"].sum(1)).max()),
        "force_minus_finite_difference_eV_per_A": common.finite_difference_force(sample, 0, 0) - force,
        "force_norm_correlation_of_consecutive_frames": correlation_of_neighbours(
            arrays["forces"], arrays["trajectory"]
        ),
        "energy_std_eV": round(float(arrays["energy"].std()), 4),
        "force_rms_eV_per_A": round(float(np.sqrt((arrays["forces"] ** 2).mean())), 3),
    }
    card = {
        "title": f"Ethanol at {temperature} K",
        "description": f"{len(kept)} independent Langevin trajectories, {PER_TRAJECTORY} frames each, "
        f"{STRIDE * TIMESTEP:g} fs apart, after {EQUILIBRATION * TIMESTEP / 1000:g} ps of equilibration.",
        "temperature_K": temperature,
        "level_of_theory": f"{METHOD} (electrons at 300 K, free energy), accuracy 0.01",
        "dynamics": {"integrator": "BAOAB Langevin", "timestep_fs": TIMESTEP, "friction_per_fs": FRICTION},
        "rounding": "positions stored as float32; labels computed at the stored positions",
        "checks": checks,
        "seeds": [[temperature, k] for k in range(len(kept))],
        "versions": common.versions("tblite"),
        "command": common.command(),
        "recipe": "benchmarks/samples/ethanol_thermal.py",
        "wall_s": wall,
        "cpu_s": cpu,
    }
    common.store(name, arrays, card)


if __name__ == "__main__":
    main(int(sys.argv[1]))
