"""Roll-outs of a trained potential along unseen AIMD: error of forces, distance, energy drift, time to divergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from mlipkit import units
from mlipkit.errors import DataError
from mlipkit.md import PotentialForces, get_ensemble, state_from_atoms
from mlipkit.md.forces import evaluate
from mlipkit.strategies.dynamic.runs import AIMDRuns
from mlipkit.strategies.dynamic.source import SequenceSource

if TYPE_CHECKING:
    from mlipkit.models import BasePotential

DIVERGED = 0.5
"""Å; an atom further from the reference means that the trajectories have parted."""


@dataclass(frozen=True, eq=False)
class Rollouts:
    """R roll-outs of S structures, without a thermostat, neighbours always of the predicted positions.

    Attributes:
        elements: atomic numbers [T].
        error: mean |ΔF| over components and atoms of an element [R,S,T], eV/Å; NaN where a structure has none of it.
        on_reference: the same on the reference's own positions [R,S,T].
        apart: mean and largest distance of an atom from the reference [R,S,2], Å.
        energy: potential and kinetic energy [R,S], eV.
        timestep: fs [R].
        run: run of each start [R].
        n_atoms: of each roll-out [R].
    """

    elements: tuple[int, ...]
    error: np.ndarray
    on_reference: np.ndarray
    apart: np.ndarray
    energy: np.ndarray
    timestep: np.ndarray
    run: np.ndarray
    n_atoms: np.ndarray

    def mepa(self, structures: int | None = None) -> np.ndarray:
        """Mean error per atom type and step of each roll-out [R], eV/Å: a sum over elements, a mean over steps."""
        return np.nansum(self.error[:, :structures], axis=2).mean(axis=1)

    def per_element(self) -> dict[str, float]:
        """Mean error of each element over roll-outs and steps, eV/Å."""
        return {chemical_symbols[z]: float(np.nanmean(self.error[:, :, t])) for t, z in enumerate(self.elements)}

    def drift(self) -> np.ndarray:
        """Slope of the total energy [R], meV per atom and ps."""
        steps = np.arange(self.energy.shape[1])
        slopes = np.array([np.polyfit(steps * dt, e, 1)[0] for dt, e in zip(self.timestep, self.energy, strict=True)])
        return 1e6 * slopes / self.n_atoms

    def divergence_time(self, limit: float = DIVERGED) -> np.ndarray:
        """Time [R] in fs at which an atom is further than `limit` from the reference; infinite when none is."""
        far = self.apart[:, :, 1] > limit
        first = np.where(far.any(axis=1), far.argmax(axis=1), -1)
        return np.where(first >= 0, first * self.timestep, np.inf)


def nve_rollouts(
    potential: BasePotential, runs: AIMDRuns, starts: Sequence[int] | np.ndarray, structures: int
) -> Rollouts:
    """Roll out from frames of runs, all together, and compare with what the runs did.

    Args:
        starts: frames of `runs`, each with `structures` - 1 frames behind it in its run.
        structures: S, the start included.

    Raises:
        DataError: a start too late in its run; runs of several time steps (take one after the other).
    """
    starts = np.asarray(starts, np.int64)
    run_of, frames = runs.run_of, runs.frames
    late = np.flatnonzero(starts + structures > runs.starts[run_of[starts] + 1])
    if len(late):
        raise DataError("too few frames behind a start", where=f"frame {starts[late[0]]}", expected=structures)
    steps = np.unique(runs.timestep[run_of[starts]])
    if len(steps) > 1:
        raise DataError("several time steps", where="roll-outs", found=f"{steps.tolist()} fs",
                        hint="Roll out runs of one time step after those of another")  # fmt: skip
    timestep, elements = float(steps[0]), frames.elements
    images = []
    for start in starts:
        atoms = frames.atoms(int(start))
        atoms.calc = None
        atoms.set_velocities(units.velocities_to_ase(runs.velocities(int(start))))
        images.append(atoms)
    state = state_from_atoms(images)
    ensemble, forces = get_ensemble("nve"), PotentialForces(potential)
    ensemble.init(state)
    evaluate(state, forces)
    shape = (len(starts), structures)
    error, same = (np.full((*shape, len(elements)), np.nan) for _ in range(2))
    apart, energy = np.empty((*shape, 2)), np.empty(shape)
    on_path = PotentialForces(potential)
    for step in range(structures):
        if step:
            ensemble.step(state, forces, timestep)
        reference = frames.select(starts + step)
        there = state_from_atoms([reference.atoms(i) for i in range(len(starts))])
        wanted = np.asarray(reference.forces, float)
        _by_element(error[:, step], state.forces.cpu().numpy() - wanted, state, elements)
        _by_element(same[:, step], on_path(there).forces.cpu().numpy() - wanted, state, elements)
        away = np.linalg.norm(state.positions.cpu().numpy() - there.positions.cpu().numpy(), axis=1)
        for r in range(len(starts)):
            part = away[state.offsets[r] : state.offsets[r + 1]]
            apart[r, step] = part.mean(), part.max()
        energy[:, step] = (state.energy + state.kinetic_energy()).cpu().numpy()
    n_atoms = state.n_atoms.cpu().numpy()
    return Rollouts(elements, error, same, apart, energy, np.full(len(starts), timestep), run_of[starts], n_atoms)


def _by_element(out: np.ndarray, residual: np.ndarray, state, elements: Sequence[int]) -> None:
    numbers, size = state.numbers.cpu().numpy(), np.abs(residual).mean(axis=1)
    for r in range(len(out)):
        rows = slice(state.offsets[r], state.offsets[r + 1])
        for t, z in enumerate(elements):
            mine = size[rows][numbers[rows] == z]
            if len(mine):
                out[r, t] = mine.mean()


@dataclass(frozen=True)
class RolloutValidation:
    """Validation of a training by roll-outs from fixed starts; tells the source how far they went astray.

    Attributes:
        runs, starts, structures: as `nve_rollouts`.
        source: the training's data source, whose limit of distance concerns the roll-outs of its present stage.
    """

    runs: AIMDRuns
    starts: np.ndarray
    structures: int = 60
    source: SequenceSource | None = None

    @property
    def figures(self) -> Mapping[str, str]:
        return {"rollout_mepa": "eV/Å", "rollout_first": "eV/Å", "rollout_apart": "Å"}

    def __call__(self, potential: BasePotential) -> Mapping[str, float]:
        found = nve_rollouts(potential, self.runs, self.starts, self.structures)
        steps = np.nansum(found.error, axis=2).mean(axis=0)
        if self.source is not None:
            self.source.apart = float(found.apart[:, min(self.source.n_structures, self.structures) - 1, 0].mean())
        return {
            "rollout_mepa": float(steps.mean()), "rollout_first": float(steps[0]),
            "rollout_apart": float(found.apart[:, -1, 0].mean()),
        }  # fmt: skip
