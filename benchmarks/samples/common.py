"""What the sample recipes share: engines, one integrator, resumable trajectories, storage, card.

Every recipe draws each trajectory from its own seed and keeps it under ``build/samples/NAME`` when it is done, so
that an interrupted recipe goes on where it stopped and ends with the same numbers. Positions are rounded to the stored
float32 numbers first and labelled after that: a label belongs exactly to the geometry in the file.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlipkit.labels import UNITS
from mlipkit.units import ASE_TIME, BOLTZMANN, FORCE_TO_ACCELERATION, kinetic_energy

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "mlipkit" / "data" / "samples" / "files"
WORK = ROOT / "build" / "samples"
Arrays = dict[str, np.ndarray]


def xtb(method: str, accuracy: float = 0.01) -> Calculator:
    """tblite's GFN1-xTB or GFN2-xTB; electrons at 300 K, the energy is the free energy that the forces derive from."""
    from tblite.ase import TBLite

    return TBLite(method=method, accuracy=accuracy, electronic_temperature=300.0, verbosity=0)


def remove_drift(masses: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    return velocities - (masses[:, None] * velocities).sum(0) / masses.sum()


def maxwell(masses: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """Maxwell-Boltzmann velocities in Å/fs without motion of the centre of mass (3N-3 degrees of freedom)."""
    sigma = np.sqrt(BOLTZMANN * temperature * FORCE_TO_ACCELERATION / masses)[:, None]
    return remove_drift(masses, sigma * rng.standard_normal((len(masses), 3)))


def temperature_of(masses: np.ndarray, velocities: np.ndarray, lost: int = 3) -> np.ndarray:
    """Kinetic temperature, K, of velocities [..., n, 3]; `lost` degrees of freedom are fixed."""
    return 2 * kinetic_energy(masses, velocities).sum(-1) / ((3 * len(masses) - lost) * BOLTZMANN)


def integrate(
    atoms: Atoms,
    timestep: float,
    *,
    temperature: float = 0.0,
    friction: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Endless MD of `atoms` in place: BAOAB Langevin (Leimkuhler and Matthews 2013), velocity Verlet without friction.

    Noise is projected on zero total momentum. Yields (potential energy eV, velocities Å/fs) at every full step,
    the start included.
    """
    masses = atoms.get_masses()
    inverse = FORCE_TO_ACCELERATION / masses[:, None]
    velocities = atoms.get_velocities() / ASE_TIME
    keep = np.exp(-friction * timestep)
    kick = np.sqrt((1 - keep**2) * BOLTZMANN * temperature) * np.sqrt(inverse)
    while True:
        yield atoms.get_potential_energy(), velocities.copy()
        velocities += 0.5 * timestep * inverse * atoms.get_forces()
        if friction:
            assert rng is not None
            atoms.positions += 0.5 * timestep * velocities
            velocities = keep * velocities + kick * rng.standard_normal(velocities.shape)
            velocities = remove_drift(masses, velocities)
            atoms.positions += 0.5 * timestep * velocities
        else:
            atoms.positions += timestep * velocities
        velocities += 0.5 * timestep * inverse * atoms.get_forces()


def label(numbers: np.ndarray, positions: np.ndarray, calculator: Calculator, cell=None) -> Arrays:
    """Energy, forces (and stress when periodic) at float32 `positions` [F,n,3], each frame from a fresh guess."""
    periodic = cell is not None
    out: dict[str, list] = {"energy": [], "forces": []} | ({"stress": []} if periodic else {})
    for frame in positions:
        calculator.reset()
        setattr(calculator, "_res", None)  # noqa: B010 - no wavefunction from the frame before: labels do not depend on order
        atoms = Atoms(numbers, frame.astype(np.float64), cell=cell, pbc=periodic, calculator=calculator)
        out["energy"].append(atoms.get_potential_energy())
        out["forces"].append(atoms.get_forces())
        if periodic:
            out["stress"].append(atoms.get_stress(voigt=False))
    arrays = {name: np.array(values) for name, values in out.items()}
    arrays["forces"] = arrays["forces"].astype(np.float32)
    return arrays


NVE_ROUNDING = (
    "positions and velocities stored as float32 (rounding at most 5e-7 Å and 4e-9 Å/fs); labels computed at the stored "
    "positions; the trajectory itself ran in float64"
)


def thermalise(atoms: Atoms, timestep: float, temperature: float, steps: int, rng: np.random.Generator) -> None:
    """Langevin steps in place; `atoms` ends with the velocities of its last position."""
    run = integrate(atoms, timestep, temperature=temperature, friction=0.02, rng=rng)
    velocities = next(run)[1]
    for _ in range(steps):
        velocities = next(run)[1]
    atoms.set_velocities(velocities * ASE_TIME)


def nve(atoms: Atoms, timestep: float, frames: int, fresh: Callable[[], Calculator]) -> Arrays:
    """Every step of a velocity-Verlet run, labelled at the stored positions; `total` is the energy while running."""
    masses = atoms.get_masses()
    positions, velocities, total = [], [], []
    for step, (energy, velocity) in enumerate(integrate(atoms, timestep)):
        positions.append(atoms.positions.astype(np.float32))
        velocities.append(velocity.astype(np.float32))
        total.append(energy + kinetic_energy(masses, velocity).sum())
        if step == frames - 1:
            break
    stored = np.array(positions)
    return {
        "positions": stored,
        "velocities": np.array(velocities),
        **label(atoms.numbers, stored, fresh()),
        "time": timestep * np.arange(frames),
        "total": np.array(total),
    }


def join_nve(kept: list[Arrays], numbers: np.ndarray, masses: np.ndarray) -> tuple[Arrays, dict[str, Any]]:
    """Columns of all trajectories and the checks that NVE sets share."""
    arrays = {key: np.concatenate([part[key] for part in kept]) for key in kept[0] if key != "total"}
    arrays["numbers"] = numbers.astype(np.int16)
    arrays["trajectory"] = np.repeat(np.arange(len(kept), dtype=np.int32), len(kept[0]["time"]))
    total = np.array([part["total"] for part in kept])
    time = kept[0]["time"]
    slopes = np.polyfit(time, (total - total[:, :1]).T, 1)[0]
    stored = arrays["energy"] + kinetic_energy(masses, arrays["velocities"].astype(float)).sum(-1)
    step = float(time[1] - time[0])
    errors = []
    for part in kept:
        x, v = part["positions"].astype(float), part["velocities"].astype(float)
        a = FORCE_TO_ACCELERATION * part["forces"] / masses[:, None]
        errors.append(np.abs(x[1:] - x[:-1] - step * v[:-1] - 0.5 * step**2 * a[:-1]).max())
    kinetic = temperature_of(masses, arrays["velocities"].astype(float))
    checks = {
        "mean_temperature_K": round(float(kinetic.mean()), 1),
        "total_energy_largest_excursion_eV": float(np.abs(total - total[:, :1]).max()),
        "total_energy_rms_fluctuation_eV": float((total - total.mean(1, keepdims=True)).std()),
        "total_energy_drift_meV_per_atom_per_ps": {
            "mean": float(slopes.mean() * 1e6 / len(masses)),
            "largest": float(np.abs(slopes).max() * 1e6 / len(masses)),
        },
        "total_energy_of_stored_columns_minus_running_eV": float(np.abs(stored - total.ravel()).max()),
        "largest_violation_of_verlet_position_update_A": float(np.max(errors)),
        "largest_net_force_eV_per_A": float(np.abs(arrays["forces"].sum(1)).max()),
        "force_rms_eV_per_A": round(float(np.sqrt((arrays["forces"] ** 2).mean())), 3),
    }
    return arrays, checks


def trajectories(name: str, count: int, make: Callable[[int], Arrays]) -> tuple[list[Arrays], float, float]:
    """`make(k)` for every k not yet kept on disk -> (all of them, wall seconds, CPU seconds)."""
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[Arrays] = []
    for k in range(count):
        path = folder / f"{k:02d}.npz"
        if not path.exists():
            wall, cpu = time.perf_counter(), time.process_time()
            arrays = make(k)
            arrays["seconds"] = np.array([time.perf_counter() - wall, time.process_time() - cpu])
            with open(path.with_suffix(".part"), "wb") as file:
                np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            os.replace(path.with_suffix(".part"), path)
            print(f"{name} {k + 1}/{count} {arrays['seconds'][0]:.1f} s", flush=True)
        with np.load(path) as file:
            kept.append(dict(file))
    seconds = sum(arrays.pop("seconds") for arrays in kept)
    return kept, round(float(seconds[0]), 1), round(float(seconds[1]), 1)  # pyright: ignore[reportIndexIssue]


def versions(*packages: str) -> dict[str, str]:
    named = {package: importlib.metadata.version(package) for package in ("numpy", "ase", *packages)}
    return {"python": platform.python_version(), **named}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def command() -> str:
    return " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]])


def finite_difference_force(atoms: Atoms, index: int, axis: int, step: float = 1e-3) -> float:
    """Central-difference force, eV/Å."""
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[index, axis] += sign * step
        energies.append(moved.get_potential_energy())
    return (energies[1] - energies[0]) / (2 * step)


def finite_difference_stress(atoms: Atoms, strain: float = 1e-4) -> np.ndarray:
    """Stress [3,3] in eV/Å³ from symmetric strains by central differences."""
    stress = np.zeros((3, 3))
    for i in range(3):
        for j in range(i, 3):
            energies = []
            for sign in (1, -1):
                deform = np.eye(3)
                deform[i, j] += sign * strain / 2
                deform[j, i] += sign * strain / 2
                moved = atoms.copy()
                moved.calc = atoms.calc
                moved.set_cell(atoms.cell.array @ deform, scale_atoms=True)
                energies.append(moved.get_potential_energy())
            stress[i, j] = stress[j, i] = (energies[0] - energies[1]) / (2 * strain * atoms.get_volume())
    return stress


def store(name: str, arrays: Arrays, card: dict[str, Any]) -> None:
    """Write ``NAME.npz`` (positions, velocities, forces float32; the rest as given) and its card ``NAME.json``."""
    FILES.mkdir(parents=True, exist_ok=True)
    path = FILES / f"{name}.npz"
    np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]
    frames, atoms = arrays["positions"].shape[:2]
    facts = {
        "name": name,
        "frames": frames,
        "atoms": atoms,
        "trajectories": len(np.unique(arrays["trajectory"])),
        "labels": [key for key in ("energy", "forces", "stress", "velocities") if key in arrays],
        "units": {**UNITS, "length": "Å", "time": "fs"},
        "licence": "CC0-1.0",
        "created": datetime.date.today().isoformat(),
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
    }
    text = json.dumps({**facts, **card}, indent=1, ensure_ascii=False)
    (FILES / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(name, path.stat().st_size, "bytes", json.dumps(card.get("checks", {})), flush=True)
