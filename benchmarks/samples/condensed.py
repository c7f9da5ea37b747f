"""What water_liquid and ice_ih share: the SO3LR sampler, the GFN1-xTB labels, the checks, the card."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import common
import numpy as np
from ase import Atoms

from mlipkit.units import AMU_PER_A3, ASE_TIME

METHOD = "GFN1-xTB"
TIMESTEP = 1.0
FRICTION = 0.02
CUTOFF_LONG_RANGE = 12.0
DYNAMICS = {"integrator": "BAOAB Langevin", "timestep_fs": TIMESTEP, "friction_per_fs": FRICTION}
OH_LENGTH = 0.9572
HOH_ANGLE = 104.52


def so3lr():
    """SO3LR (PBE0+MBD) in float64; float32 forces are off by 0.05 eV/Å."""
    import torch
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        return SO3LRCalculator(default_dtype="float64", r_max_lr=CUTOFF_LONG_RANGE)


def density(atoms: Atoms) -> float:
    """g/cm³."""
    return float(atoms.get_masses().sum() / atoms.get_volume() * AMU_PER_A3)


def minimum_image(vectors: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Nearest image of each vector; cells here are orthorhombic, so rounding is exact."""
    lengths = np.diag(cell)
    return vectors - lengths * np.round(vectors / lengths)


def molecules_intact(positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """[F] every hydrogen is within 1.3 Å of its own oxygen (order O H H) and nearest to it."""
    oxygen, hydrogen = positions[:, ::3], np.delete(positions, np.s_[::3], axis=1)
    away = minimum_image(hydrogen[:, :, None] - oxygen[:, None], cell)
    distance = np.linalg.norm(away, axis=-1)
    owner = np.repeat(np.arange(oxygen.shape[1]), 2)
    own = np.take_along_axis(distance, owner[None, :, None], axis=2)[..., 0]
    return ((distance.argmin(-1) == owner) & (own < 1.3)).all(1)


def translation_temperature(masses: np.ndarray, velocities: np.ndarray) -> float:
    """Kinetic temperature of whole molecules (order O H H): free of the step-size bias of the O-H stretch."""
    molecules = masses.reshape(-1, 3)
    centres = (masses[:, None] * velocities).reshape(-1, 3, 3).sum(1) / molecules.sum(1)[:, None]
    return float(common.temperature_of(molecules.sum(1), centres))


def sample(
    start: Callable[[np.random.Generator], Atoms],
    seed: list[int],
    temperature: float,
    equilibration: int,
    stride: int,
    frames: int,
) -> common.Arrays:
    """Langevin trajectory on SO3LR, stored frames labelled by GFN1-xTB."""
    rng = np.random.default_rng(seed)
    atoms = start(rng)
    atoms.calc = so3lr()
    masses = atoms.get_masses()
    atoms.set_velocities(common.maxwell(masses, temperature, rng) * ASE_TIME)
    positions, temperatures = [], []
    steps = common.integrate(atoms, TIMESTEP, temperature=temperature, friction=FRICTION, rng=rng)
    for step, (_, velocity) in enumerate(steps):
        if step > equilibration:
            temperatures.append(translation_temperature(masses, velocity))
            if (step - equilibration) % stride == 0:
                positions.append(atoms.positions.astype(np.float32))
                if len(positions) == frames:
                    break
    stored = np.array(positions)
    cell = atoms.cell.array.copy()
    labels = common.label(atoms.numbers, stored, common.xtb(METHOD), cell)
    time = stride * TIMESTEP * np.arange(frames)
    return {
        "positions": stored, **labels, "time": time, "cell": cell, "numbers": atoms.numbers.astype(np.int16),
        "sampler_temperature": np.array(temperatures),
    }  # fmt: skip


def finish(name: str, kept: list[common.Arrays], card: dict[str, Any], wall: float, cpu: float) -> None:
    """Join the trajectories, check them, store set and card."""
    per = len(kept[0]["energy"])
    arrays = {
        key: np.concatenate([part[key] for part in kept]) for key in ("positions", "forces", "energy", "stress", "time")
    }
    arrays |= {"numbers": kept[0]["numbers"], "cell": kept[0]["cell"]}
    arrays["trajectory"] = np.repeat(np.arange(len(kept), dtype=np.int32), per)
    intact = molecules_intact(arrays["positions"].astype(float), arrays["cell"])
    if not intact.all():
        raise SystemExit(f"{name}: molecules changed in frames {np.flatnonzero(~intact)}")
    first = Atoms(arrays["numbers"], arrays["positions"][0].astype(float), cell=arrays["cell"], pbc=True)
    first.calc = common.xtb(METHOD)
    temperatures = np.concatenate([part["sampler_temperature"] for part in kept])
    stress = arrays["stress"]
    checks = {
        "density_g_per_cm3": round(density(first), 4),
        "mean_sampler_temperature_K": round(float(temperatures.mean()), 1),
        "mean_sampler_temperature_by_trajectory_K": [
            round(float(part["sampler_temperature"].mean()), 1) for part in kept
        ],
        "all_molecules_intact": True,
        "largest_net_force_eV_per_A": float(np.abs(arrays["forces"].sum(1)).max()),
        "force_minus_finite_difference_eV_per_A": common.finite_difference_force(first, 0, 0)
        - float(arrays["forces"][0, 0, 0]),
        "stress_minus_finite_difference_eV_per_A3": float(
            np.abs(common.finite_difference_stress(first) - stress[0]).max()
        ),
        "stress_scale_eV_per_A3": float(np.abs(stress[0]).max()),
        "mean_pressure_GPa": round(float(-stress.trace(axis1=1, axis2=2).mean() / 3 * 160.21766), 2),
        "force_rms_eV_per_A": round(float(np.sqrt((arrays["forces"] ** 2).mean())), 3),
        "energy_std_eV_per_atom": round(float(arrays["energy"].std() / len(first)), 5),
    }
    common.store(
        name,
        arrays,
        {
            **card,
            "level_of_theory": f"{METHOD}, Γ point (electrons at 300 K, free energy), accuracy 0.01",
            "rounding": "positions stored as float32; labels computed at the stored positions",
            "checks": {**card.get("checks", {}), **checks},
            "versions": common.versions("tblite", "so3krates-torch", "torch"),
            "command": common.command(),
            "wall_s": wall,
            "cpu_s": cpu,
        },
    )
