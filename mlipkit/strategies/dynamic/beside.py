"""One roll-out beside the AIMD run that it starts from: both paths, frame by frame, and how the errors grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import chemical_symbols

from mlipkit import units
from mlipkit.data import FrameSet
from mlipkit.errors import DataError
from mlipkit.md import state_from_atoms
from mlipkit.strategies.dynamic.evaluation import held, rolled
from mlipkit.strategies.dynamic.runs import Velocities, aimd_runs

if TYPE_CHECKING:
    from mlipkit.models import BasePotential


@dataclass(frozen=True, eq=False)
class Beside:
    """A roll-out of S structures without a thermostat, and the S reference frames of the same moments.

    Attributes:
        predicted: the roll-out [S frames], with the potential's energies and forces.
        reference: AIMD [S frames], unwrapped.
        time: fs since the start [S].
        distance: of each atom from the reference [S,n], Å.
        error: mean |ΔF| over components and atoms of an element, on the roll-out's own path [S,T], eV/Å; NaN where the
            reference has no forces, 0 for elements of which no atom moves.
        on_reference: the same on the reference's positions [S,T].
        lost: the roll-out ended before the reference because positions or forces were no numbers.
        said: how the velocities were found.
    """

    predicted: FrameSet
    reference: FrameSet
    time: np.ndarray
    distance: np.ndarray
    error: np.ndarray
    on_reference: np.ndarray
    lost: bool
    said: str

    def __len__(self) -> int:
        return len(self.time)

    @property
    def elements(self) -> list[str]:
        """Symbols of the columns of `error`."""
        return [chemical_symbols[z] for z in self.reference.elements]

    def mepa(self) -> float:
        """Mean error per atom type and step, eV/Å: a sum over elements, a mean over steps."""
        return float(self.error.sum(axis=1).mean())

    def equal_frames(self) -> float:
        """As `mepa`, of forces on the reference's positions."""
        return float(self.on_reference.sum(axis=1).mean())

    def divergence_time(self, limit: float = 0.5) -> float:
        """Time in fs at which an atom is further than `limit` Å from the reference; infinite when none is."""
        far = (self.distance > limit).any(axis=1)
        return float(self.time[far.argmax()]) if far.any() else float("inf")


def roll_beside(
    potential: BasePotential, frames: FrameSet, start: int = 0, structures: int = 200, *,
    velocities: Velocities = "auto", frozen: Sequence[int] = (),
) -> Beside:  # fmt: skip
    """Roll out from an AIMD frame with its velocities, and set the path beside what AIMD did.

    Args:
        frames: AIMD in order of time (trajectory and time of each frame are known), every frame of the runs.
        start: frame to start from.
        structures: S, the start included; fewer where the run ends before.
        velocities: as `aimd_runs`; by differences the first and the last frame of a run cannot be starts.
        frozen: atoms that do not move, by index; they count in no error.

    Raises:
        DataError: no such frame or atom, a start at the end of its run, and what `aimd_runs` raises.
        ModelError: elements that the potential does not know.
    """
    from mlipkit.models import predict

    if not 0 <= start < len(frames):
        raise DataError("no such frame", where="start", expected=f"0 to {len(frames) - 1}", found=start)
    mine = np.flatnonzero(frames.trajectory == frames.trajectory[start])
    mine = mine[np.argsort(frames.time[mine], kind="stable")]
    begin = int(np.flatnonzero(mine == start)[0])
    runs = aimd_runs(frames.select(mine), velocities)
    if runs.by_difference and runs.at_an_end(np.array([begin]))[0]:
        raise DataError(
            "velocities are differences of positions, and a neighbour is missing", where=f"frame {start}",
            hint="Start from a frame in the middle of the run",
        )  # fmt: skip
    steps = min(structures, len(mine) - begin)
    if steps < 2:
        raise DataError("no frame behind the start", where=f"frame {start}", hint="Start earlier in the run")
    reference = runs.frames.select(np.arange(begin, begin + steps))
    still = still_atoms(frozen, int(reference.n_atoms[0]))
    atoms = reference.atoms(0)
    atoms.calc = None
    atoms.set_velocities(units.velocities_to_ase(runs.velocities(begin)))
    timestep = float(runs.timestep[0])
    x, f, e, v = _rolled(potential, atoms, steps, timestep, still)
    there = reference.select(np.arange(len(x)))
    n = len(atoms)
    predicted = FrameSet.from_arrays(
        atoms.numbers, x, cell=np.asarray(there.cell), pbc=np.asarray(there.pbc), velocities=v, energy=e, forces=f,
        source="roll-out", trajectory=there.trajectory, time=there.time,
    )  # fmt: skip
    wanted = np.full(x.shape, np.nan) if there.forces is None else np.asarray(there.forces, float).reshape(-1, n, 3)
    told = np.asarray(predict(potential, there).forces, float).reshape(-1, n, 3)
    distance = np.linalg.norm(x - np.asarray(there.positions, float).reshape(-1, n, 3), axis=2)
    own, same = (_by_element(forces - wanted, atoms.numbers, still) for forces in (f, told))
    return Beside(predicted, there, timestep * np.arange(len(x)), distance, own, same, len(x) < steps, runs.said)


def still_atoms(frozen: Sequence[int], n_atoms: int) -> np.ndarray:
    """Mask [n] of atoms by index; DataError where there is no such atom."""
    wrong = [index for index in frozen if not 0 <= index < n_atoms]
    if wrong:
        raise DataError("no such atom", where="frozen", expected=f"0 to {n_atoms - 1}", found=wrong)
    return np.isin(np.arange(n_atoms), frozen)


def _rolled(potential: BasePotential, atoms, steps: int, timestep: float, still: np.ndarray):
    """Positions, forces [S,n,3], energies [S] and velocities [S,n,3] until a number is lost."""
    rows: list[tuple[np.ndarray, ...]] = []
    for state in rolled(potential, held(state_from_atoms(atoms), still), steps, timestep):
        if not (torch.isfinite(state.positions).all() and torch.isfinite(state.forces).all()):
            break
        now = (state.positions, state.forces, state.energy, state.velocities)
        rows.append(tuple(part.detach().cpu().numpy().copy() for part in now))
    if not rows:
        raise DataError("forces on the start itself are no numbers", where="roll-out")
    x, f, e, v = (np.stack(part) for part in zip(*rows, strict=True))
    return x, f, e[:, 0], v


def _by_element(residual: np.ndarray, numbers: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Mean |ΔF| of the moving atoms of each element [S,T] of residuals [S,n,3]."""
    size = np.where(still, 0.0, np.abs(residual).mean(axis=2))
    return np.stack(
        [size[:, numbers == z].sum(axis=1) / max(1, (~still[numbers == z]).sum()) for z in np.unique(numbers)], axis=1
    )
