"""Findings about units and signs of labels: what physics says about the numbers of a `FrameSet`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase.data import atomic_masses

from mlipkit.data.frameset import FrameSet
from mlipkit.data.plausibility import (
    ENERGY_UNITS,
    FORCE_UNITS,
    Consistency,
    acceleration_against_forces,
    all_electron_units,
    energy_against_forces,
    named_ratio,
    velocities_against_positions,
)
from mlipkit.units import ASE_TIME, BOLTZMANN, GPA, kinetic_energy

Level = Literal["ok", "info", "warning", "problem"]

_MAX_TRAJECTORIES, _MAX_STEPS = 10, 1000
_PLAUSIBLE_RMS = (0.01, 20.0)
_PLAUSIBLE_PRESSURE = 0.3


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        level: ok (checked and fine), info, warning (look at it), problem (do not train on this).
        topic: short name of the check.
        text: one sentence with numbers and units.
        frames: indices of the frames it concerns (at most 50), empty when it concerns all.
    """

    level: Level
    topic: str
    text: str
    frames: tuple[int, ...] = ()


def unit_findings(frames: FrameSet) -> list[Finding]:
    """All checks of units and signs; checks without the data they need are silent."""
    dynamics = [*_along_trajectories(frames)]
    found = [*_total_energies(frames), *dynamics]
    if {"unit of forces", "time step"} <= {one.topic for one in dynamics if one.level == "ok"}:
        # Motion fixes the unit of forces, forces that of energies: a coincidence of size says nothing against it.
        found = [one for one in found if one.topic != "unit of energy" or one.text.startswith("mixed")]
    if not any(one.topic == "unit of forces" for one in found):
        found += _force_size(frames)
    return [*found, *_temperature(frames), *_pressure(frames)]


def _total_energies(frames: FrameSet) -> Iterator[Finding]:
    has = frames.has("energy")
    if not has.any():
        return
    units, codes = all_electron_units(frames.numbers, frames.offsets, frames.energy)
    known = np.flatnonzero(codes >= 0)
    if not len(known):
        return
    for code in np.unique(codes[known]):
        unit = units[int(code)]
        rows = np.flatnonzero(codes == code)
        if unit == "eV":
            continue
        mixed = "mixed units: " if len(rows) < len(known) else ""
        yield Finding(
            "problem",
            "unit of energy",
            f"{mixed}the energies of {len(rows)} of {int(has.sum())} frames are all-electron totals in {unit}, not eV "
            f"(multiply by {ENERGY_UNITS[unit]:.6g})",
            _some(rows),
        )
    if (codes[known] == units.index("eV")).all():
        yield Finding("ok", "unit of energy", f"{len(known)} energies have the size of all-electron totals in eV")


def trajectory_slices(frames: FrameSet) -> Iterator[tuple[np.ndarray, float]]:
    """(frame indices, time step in fs or NaN) of the longest trajectories with frames of one size side by side."""
    numbers, counts = np.unique(frames.trajectory[frames.trajectory >= 0], return_counts=True)
    for number in numbers[np.argsort(-counts, kind="stable")][:_MAX_TRAJECTORIES]:
        rows = np.flatnonzero(frames.trajectory == number)[:_MAX_STEPS]
        if len(rows) < 3 or len(np.unique(frames.n_atoms[rows])) > 1:
            continue
        steps = np.diff(frames.time[rows])
        even = len(steps) > 0 and np.isfinite(steps).all() and np.allclose(steps, steps[0], rtol=1e-6)
        yield rows, float(steps[0]) if even else float("nan")


def _along_trajectories(frames: FrameSet) -> Iterator[Finding]:
    work: list[Consistency] = []
    inertia: list[Consistency] = []
    motion: list[Consistency] = []
    for rows, time_step in trajectory_slices(frames):
        part = frames.select(rows)
        positions = part.positions.reshape(len(rows), -1, 3)
        forces = part.forces.reshape(positions.shape)
        if part.has("energy").all() and part.has("forces").all():
            work.append(energy_against_forces(positions, forces, part.energy))
        if np.isfinite(time_step) and part.has("forces").all():
            masses = atomic_masses[part.numbers[: positions.shape[1]]]
            inertia.append(acceleration_against_forces(positions, forces, masses, time_step))
        if np.isfinite(time_step) and part.velocities is not None and part.has("velocities").all():
            velocities = part.velocities.reshape(positions.shape)
            motion.append(velocities_against_positions(positions, velocities, time_step))
    energy_ratio, inertia_ratio, motion_ratio = _pooled(work), _pooled(inertia), _pooled(motion)
    if energy_ratio is not None:
        yield _judge_work(energy_ratio, inertia_ratio, len(work))
    if inertia_ratio is not None:
        yield _judge_inertia(inertia_ratio, energy_ratio)
    if motion_ratio is not None:
        yield _judge_motion(motion_ratio)


def _pooled(results: list[Consistency]) -> float | None:
    decided = [one.ratio for one in results if one.decided]
    return float(np.median(decided)) if decided else None


def _judge_work(ratio: float, inertia: float | None, count: int) -> Finding:
    """`ratio` is dE over -F·dR."""
    if abs(ratio - 1) < 0.15:
        return Finding(
            "ok",
            "unit of forces",
            f"energies and forces agree along trajectories (dE / -F·dR = {ratio:.3f}, {count} looked at)",
        )
    if abs(ratio + 1) < 0.15:
        return Finding("problem", "sign of forces", f"forces point uphill: dE / -F·dR = {ratio:.3f}; change their sign")
    forces_fit = inertia is None or abs(abs(inertia) - 1) > 0.3
    unit = named_ratio(ratio, FORCE_UNITS) if forces_fit else None
    energy = named_ratio(1 / ratio, ENERGY_UNITS)
    guess = f"forces look like {unit}" if unit and unit != "eV/Å" else ""
    if energy and energy != "eV" and not guess:
        guess = f"energies look like {energy}"
    return Finding(
        "problem",
        "unit of forces",
        f"energies and forces disagree along trajectories: dE / -F·dR = {ratio:.4g} instead of 1"
        + (f"; with the other in mlipkit's unit, {guess}" if guess else ""),
    )


def _judge_inertia(ratio: float, work: float | None) -> Finding:
    """`ratio` is acceleration over F/m with the stored time step."""
    if abs(ratio - 1) < 0.2:
        return Finding(
            "ok", "time step", f"positions, time step and forces obey F = m·a (ratio {ratio:.3f}); forces are in eV/Å"
        )
    if ratio > 0 and (work is None or abs(work - 1) < 0.15) and named_ratio(ratio, FORCE_UNITS) is None:
        return Finding(
            "warning",
            "time step",
            f"positions and forces obey F = m·a for a time step of {np.sqrt(ratio):.3g} times the stated one",
        )
    unit = named_ratio(ratio, FORCE_UNITS)
    text = f"acceleration from positions is {ratio:.4g} times F/m"
    return Finding("problem", "unit of forces", text + (f": forces look like {unit}" if unit else ""))


def _judge_motion(ratio: float) -> Finding:
    if abs(ratio - 1) < 0.1:
        return Finding(
            "ok", "unit of velocities", f"velocities are the rate of change of positions (ratio {ratio:.3f})"
        )
    if abs(ratio * ASE_TIME - 1) < 0.1:
        return Finding(
            "problem",
            "unit of velocities",
            f"velocities are in ASE's unit, Å·sqrt(eV/u), not Å/fs: divide them by {ASE_TIME:.4f}",
        )
    return Finding("problem", "unit of velocities", f"positions change {ratio:.4g} times as fast as the velocities say")


def _force_size(frames: FrameSet) -> Iterator[Finding]:
    has = frames.has("forces") & (frames.n_atoms > 1)
    if not has.any():
        return
    part = frames if has.all() else frames.select(has)
    rms = float(np.sqrt(np.nanmean(part.forces**2)))
    low, high = _PLAUSIBLE_RMS
    if low < rms < high:
        return
    which = (
        "large: kcal/mol/Å or kJ/mol/nm instead of eV/Å?"
        if rms > high
        else "small: hartree/bohr, or relaxed structures?"
    )
    yield Finding("warning", "unit of forces", f"root mean square force {rms:.3g} eV/Å is unusually {which}")


DRIFT = 1e-3
"""Share of all momenta below which the total momentum of a frame counts as zero."""


def _temperature(frames: FrameSet) -> Iterator[Finding]:
    velocities = frames.velocities
    if velocities is None or not frames.has("velocities").any():
        return
    masses = atomic_masses[frames.numbers]
    energy, momentum = kinetic_energy(masses, velocities), masses[:, None] * velocities
    starts = frames.offsets[:-1]
    # Frames that do not drift as a whole have three degrees of freedom less.
    net = np.abs(np.add.reduceat(momentum, starts)).max(axis=1)
    still = (net < DRIFT * np.add.reduceat(np.abs(momentum).max(axis=1), starts)) & (frames.n_atoms > 1)
    freedom = 3 * (frames.n_atoms - still)
    kelvin = float(np.nanmean(2 * np.add.reduceat(energy, starts) / (freedom * BOLTZMANN)))
    if 1.0 < kelvin < 20000:
        yield Finding("ok", "temperature", f"mean kinetic temperature {kelvin:.0f} K")
    else:
        yield Finding(
            "warning",
            "temperature",
            f"mean kinetic temperature {kelvin:.3g} K: are the velocities in Å/fs? (ASE's unit would give "
            f"{kelvin / ASE_TIME**2:.3g} K)",
        )


def _pressure(frames: FrameSet) -> Iterator[Finding]:
    has = frames.has("stress")
    if not has.any():
        return
    bulk = has & frames.pbc.all(1)
    if (has & ~frames.pbc.all(1)).any():
        rows = np.flatnonzero(has & ~frames.pbc.all(1))
        yield Finding(
            "warning",
            "stress without cell",
            f"{len(rows)} frames carry a stress but are not periodic in 3D",
            _some(rows),
        )
    if not bulk.any():
        return
    pressure = -np.trace(frames.stress[bulk], axis1=1, axis2=2) / 3
    typical = float(np.median(np.abs(pressure)))
    if typical > _PLAUSIBLE_PRESSURE:
        yield Finding(
            "warning",
            "unit of stress",
            f"typical pressure {typical / GPA:.3g} GPa: is the stress in GPa or kbar instead of eV/Å³?",
        )
    yield from _pressure_volume(frames, np.flatnonzero(bulk), pressure)


def _pressure_volume(frames: FrameSet, rows: np.ndarray, pressure: np.ndarray) -> Iterator[Finding]:
    """Compression raises the pressure: within one composition the two must fall together."""
    volume = np.abs(np.linalg.det(frames.cell[rows])) / frames.n_atoms[rows]
    together: list[tuple[float, int]] = []
    for composition in np.unique(frames.n_atoms[rows]):
        same = frames.n_atoms[rows] == composition
        if same.sum() >= 10 and np.std(volume[same]) > 0.01 * np.mean(volume[same]):
            slope = float(np.corrcoef(volume[same], pressure[same])[0, 1])
            if np.isfinite(slope):
                together.append((slope, int(same.sum())))
    if not together:
        return
    mean = float(np.average([one[0] for one in together], weights=[one[1] for one in together]))
    if mean > 0.5:
        yield Finding(
            "problem",
            "sign of stress",
            f"pressure rises with volume (correlation {mean:.2f}): the stress has the wrong sign (tension is positive)",
        )
    elif mean < -0.5:
        yield Finding("ok", "sign of stress", f"pressure falls with volume (correlation {mean:.2f})")


def _some(rows: np.ndarray) -> tuple[int, ...]:
    return tuple(int(row) for row in rows[:50])
