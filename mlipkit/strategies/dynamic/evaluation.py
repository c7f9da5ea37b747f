"""Roll-outs of a trained potential along unseen AIMD: error of forces, distance, energy drift, time to divergence."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import chemical_symbols

from mlipkit import units
from mlipkit.data.graph import collate
from mlipkit.data.neighbours import NeighbourCache
from mlipkit.errors import DataError
from mlipkit.md import PotentialForces, get_ensemble, state_from_atoms
from mlipkit.md.forces import evaluate
from mlipkit.strategies.dynamic.runs import AIMDRuns

if TYPE_CHECKING:
    from mlipkit.md.state import MDState
    from mlipkit.models import BasePotential

DIVERGED = 0.5
"""Å; an atom further from the reference means that the trajectories have parted."""
HEAVY = 1e30
"""u; mass of an atom that does not move."""


@dataclass(frozen=True, eq=False)
class Rollouts:
    """R roll-outs of S structures, without a thermostat, neighbours always of the predicted positions.

    Attributes:
        elements: atomic numbers [T].
        error: mean |ΔF| over components and atoms of an element [R,S,T], eV/Å; NaN where a structure has none of it,
            infinite from where on a roll-out has no finite positions any more.
        on_reference: the same on the reference's own positions [R,S,T]; None when not asked for.
        apart: mean and largest distance of an atom from the reference [R,S,2], Å.
        energy: potential and kinetic energy [R,S], eV.
        timestep: fs [R].
        run: run of each start [R].
        start: frame of each start [R].
        n_atoms: of each roll-out [R].
        data: fingerprint of the reference, by which roll-outs of other data are told apart; empty: not known.
    """

    elements: tuple[int, ...]
    error: np.ndarray
    on_reference: np.ndarray | None
    apart: np.ndarray
    energy: np.ndarray
    timestep: np.ndarray
    run: np.ndarray
    start: np.ndarray
    n_atoms: np.ndarray
    data: str = ""

    def mepa(self, structures: int | None = None) -> np.ndarray:
        """Mean error per atom type and step of each roll-out [R], eV/Å: a sum over elements, a mean over steps."""
        return np.nansum(self.error[:, :structures], axis=2).mean(axis=1)

    def equal_frames(self, structures: int | None = None) -> np.ndarray:
        """As `mepa`, of forces on the reference's own positions [R]."""
        assert self.on_reference is not None
        return np.nansum(self.on_reference[:, :structures], axis=2).mean(axis=1)

    def curve(self) -> np.ndarray:
        """Error of each step [S], eV/Å: a sum over elements, a mean over roll-outs."""
        return np.nansum(self.error, axis=2).mean(axis=0)

    def per_element(self) -> dict[str, float]:
        """Mean error of each element over roll-outs and steps, eV/Å."""
        there = {z: self.error[:, :, t][~np.isnan(self.error[:, :, t])] for t, z in enumerate(self.elements)}
        return {chemical_symbols[z]: float(values.mean()) if len(values) else np.nan for z, values in there.items()}

    def drift(self) -> np.ndarray:
        """Slope of the total energy [R], meV per atom and ps; NaN where it is not finite."""
        steps = np.arange(self.energy.shape[1])
        slopes = np.array([
            np.polyfit(steps * dt, e, 1)[0] if np.isfinite(e).all() and len(steps) > 1 else np.nan
            for dt, e in zip(self.timestep, self.energy, strict=True)
        ])  # fmt: skip
        return 1e6 * slopes / self.n_atoms

    def divergence_time(self, limit: float = DIVERGED) -> np.ndarray:
        """Time [R] in fs at which an atom is further than `limit` from the reference; infinite when none is."""
        far = ~(self.apart[:, :, 1] <= limit)
        first = np.where(far.any(axis=1), far.argmax(axis=1), -1)
        return np.where(first >= 0, first * self.timestep, np.inf)


def nve_rollouts(
    potential: BasePotential, runs: AIMDRuns, starts: Sequence[int] | np.ndarray, structures: int, *,
    equal_frames: bool = True, batch: int = 256, frozen: np.ndarray | None = None,
) -> Rollouts:  # fmt: skip
    """Roll out from frames of runs, many together, and compare with what the runs did.

    Args:
        starts: frames of `runs`, each with `structures` - 1 frames behind it in its run.
        structures: S, the start included.
        equal_frames: also predict on the reference's own positions, which costs as much again.
        batch: roll-outs at a time.
        frozen: bool, per atom of a frame [n]: atoms that stay, and count in no error.

    Raises:
        DataError: a start that is no frame, too late in its run, or at an end of it where velocities are differences;
            frames without forces; a mask of other atoms, or of all.
    """
    starts, frozen = _checked(runs, starts, structures, batch, frozen)
    run_of = runs.run_of
    late = np.flatnonzero(starts + structures > runs.starts[run_of[starts] + 1])
    if len(late):
        raise DataError("too few frames behind a start", where=f"frame {starts[late[0]]}", expected=structures)
    if runs.by_difference and (ends := runs.at_an_end(starts)).any():
        runs.velocities(int(starts[ends.argmax()]))  # refused, before any of the others is rolled out
    _check_forces(runs, starts, structures, frozen)
    cache = NeighbourCache(runs.frames, potential.cutoff) if equal_frames else None
    # Structures that are integrated together have one time step.
    timestep = runs.timestep[run_of[starts]]
    alike = np.unique(timestep.round(9), return_inverse=True)[1]
    groups = [rows[first : first + batch]
              for rows in (np.flatnonzero(alike == one) for one in range(int(alike.max(initial=-1)) + 1))
              for first in range(0, len(rows), batch)]  # fmt: skip
    pieces = [
        _Piece(potential, runs, starts[rows], structures, cache, frozen).go(float(timestep[rows[0]])) for rows in groups
    ]
    back = np.argsort(np.concatenate(groups))
    joined = {
        name: np.concatenate([getattr(piece, name) for piece in pieces])[back]
        for name in ("error", "apart", "energy", "same")
    }
    return Rollouts(
        runs.frames.elements, joined["error"], joined["same"] if equal_frames else None, joined["apart"],
        joined["energy"], timestep, run_of[starts], starts, np.asarray(runs.frames.n_atoms)[starts],
        _fingerprint(runs),
    )  # fmt: skip


def _checked(
    runs: AIMDRuns, starts: Sequence[int] | np.ndarray, structures: int, batch: int, frozen: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Starts and mask as arrays, when they can be what they are said to be."""
    for name, value in (("structures", structures), ("batch", batch)):
        if value < 1:
            raise DataError("out of range", where=name, expected="at least 1", found=value)
    found = np.asarray(starts)
    if found.ndim != 1 or not len(found) or found.dtype.kind not in "iu":
        raise DataError("no starts", where="starts", expected="numbers of frames", found=found.tolist())
    # Python would count negative ones from the end, and take their frames from another run.
    wrong = found[(found < 0) | (found >= len(runs.frames))]
    if len(wrong):
        raise DataError("no such frame", where="starts", expected=f"0 to {len(runs.frames) - 1}", found=wrong.tolist())
    if frozen is None:
        return found.astype(np.int64), None
    mask, sizes = np.asarray(frozen), np.unique(runs.frames.n_atoms)
    if mask.dtype != bool or len(sizes) > 1 or mask.shape != (sizes[0],):
        sized = " or ".join(map(str, sizes))
        raise DataError(
            "not a mask of the atoms", where="frozen", expected=f"true or false for each of {sized} atoms",
            found=f"{mask.dtype} of shape {mask.shape}",
            hint="Frames must be of one size" if len(sizes) > 1 else None,
        )  # fmt: skip
    if mask.all():
        raise DataError("every atom is frozen: nothing moves", where="frozen", expected=f"fewer than {sizes[0]} atoms")
    return found.astype(np.int64), mask


def _fingerprint(runs: AIMDRuns) -> str:
    """Of atoms and reference forces as they were read: names of files, and rounding of unwrapped positions, may differ
    from machine to machine."""
    found = runs.frames.hashes()
    return hashlib.blake2b(f"{found['numbers']},{found.get('forces')}".encode(), digest_size=8).hexdigest()


def _check_forces(runs: AIMDRuns, starts: np.ndarray, structures: int, frozen: np.ndarray | None) -> None:
    """Refuse frames along the roll-outs without forces on every atom that moves: their error would be 0."""
    missing = ~np.isfinite(np.asarray(runs.frames.forces)).all(axis=1)
    if frozen is not None:
        missing &= ~np.tile(np.asarray(frozen, bool), len(runs.frames))
    if not missing.any():
        return
    of_frame = np.bincount(np.repeat(np.arange(len(runs.frames)), runs.frames.n_atoms), missing)
    used = np.unique(starts[:, None] + np.arange(structures))
    lacking = used[of_frame[used] > 0]
    if len(lacking):
        run = int(runs.run_of[lacking[0]])
        place = f"frame {lacking[0] - runs.starts[run]} of run {run}"
        raise DataError(
            "forces are missing", where=(runs.part or "roll-outs", place),
            expected="forces on every atom along the roll-outs", found=f"{len(lacking)} of {len(used)} frames without",
        )  # fmt: skip


class _Piece:
    """Some roll-outs that go together."""

    def __init__(
        self, potential: BasePotential, runs: AIMDRuns, starts: np.ndarray, structures: int,
        cache: NeighbourCache | None, frozen: np.ndarray | None,
    ) -> None:  # fmt: skip
        self.potential, self.runs, self.starts, self.cache = potential, runs, starts, cache
        frames = runs.frames
        self.state = _state(runs, starts, frozen)
        n_atoms = np.asarray(frames.n_atoms)[starts]
        # Frames of a run have the same atoms in the same order: a step later is n rows further.
        self.rows = np.concatenate([np.arange(int(frames.offsets[a]), int(frames.offsets[a + 1])) for a in starts])
        self.stride = np.repeat(n_atoms, n_atoms)
        self.system = np.repeat(np.arange(len(starts)), n_atoms)
        self.counts = n_atoms
        self.wanted, self.positions = np.asarray(frames.forces), np.asarray(frames.positions)
        elements = np.asarray(frames.elements)
        self.key = self.system * len(elements) + np.searchsorted(elements, np.asarray(frames.numbers)[self.rows])
        self.counted = np.ones(len(self.rows), bool)
        if frozen is not None:
            self.counted = ~np.tile(np.asarray(frozen, bool), len(starts))
        shape = (len(starts), structures)
        self.error, self.same = (np.full((*shape, len(elements)), np.nan) for _ in range(2))
        self.apart, self.energy = np.empty((*shape, 2)), np.empty(shape)

    def go(self, timestep: float) -> _Piece:
        """Integrate and compare."""
        lost = np.zeros(len(self.starts), bool)
        for step, state in enumerate(rolled(self.potential, self.state, self.error.shape[1], timestep)):
            rows = self.rows + step * self.stride
            there = self.positions[rows]
            found, placed = state.forces.cpu().numpy(), state.positions.cpu().numpy()
            broken = ~(np.isfinite(found).all(1) & np.isfinite(placed).all(1))
            lost |= np.bincount(self.system, broken, len(lost)) > 0
            self._by_element(self.error[:, step], found - self.wanted[rows], lost)
            if self.cache is not None:
                self._by_element(self.same[:, step], self._on_reference(step) - self.wanted[rows], None)
            away = np.linalg.norm(placed - there, axis=1)
            self.apart[:, step, 0] = np.bincount(self.system, away, len(lost)) / self.counts
            self.apart[:, step, 1] = np.maximum.reduceat(away, np.cumsum([0, *self.counts[:-1]]))
            self.energy[:, step] = (state.energy + state.kinetic_energy()).cpu().numpy()
            if lost.any():
                self.apart[lost, step] = self.energy[lost, step] = np.inf
                # A neighbour list of positions that are no numbers cannot be made.
                gone = torch.as_tensor(lost[self.system], device=state.positions.device).unsqueeze(1)
                state.positions = torch.where(gone, torch.as_tensor(there, dtype=torch.float64).to(gone.device),
                                              state.positions)  # fmt: skip
                state.velocities = torch.where(gone, 0.0, state.velocities)
                state.forces = torch.where(gone, 0.0, state.forces)
        return self

    def _on_reference(self, step: int) -> np.ndarray:
        assert self.cache is not None
        graph, _ = collate(self.runs.frames, self.starts + step, self.cache, self.potential.dtype)
        said = self.potential(graph.to(self.potential.device))
        return said.forces.double().cpu().numpy()

    def _by_element(self, out: np.ndarray, residual: np.ndarray, lost: np.ndarray | None) -> None:
        size = np.where(self.counted, np.abs(residual).mean(axis=1), 0.0)
        count = np.bincount(self.key, self.counted, out.size)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (np.bincount(self.key, size, out.size) / np.where(count > 0, count, np.nan)).reshape(out.shape)
        if lost is not None:
            means = np.where(lost[:, None] & (count.reshape(out.shape) > 0), np.inf, means)
        out[:] = means


def rolled(potential: BasePotential, state: MDState, structures: int, timestep: float) -> Iterator[MDState]:
    """The state at each structure of a roll-out without a thermostat, the start first; the same object every time.

    Args:
        timestep: fs.
    """
    ensemble, forces = get_ensemble("nve"), PotentialForces(potential)
    ensemble.init(state)
    evaluate(state, forces)
    for step in range(structures):
        if step:
            ensemble.step(state, forces, timestep)
        yield state


def _state(runs: AIMDRuns, starts: np.ndarray, frozen: np.ndarray | None) -> MDState:
    images = []
    for start in starts:
        atoms = runs.frames.atoms(int(start))
        atoms.calc = None
        atoms.set_velocities(units.velocities_to_ase(runs.velocities(int(start))))
        images.append(atoms)
    state = state_from_atoms(images)
    return state if frozen is None else held(state, np.tile(np.asarray(frozen, bool), len(starts)))


def held(state: MDState, frozen: np.ndarray) -> MDState:
    """The same with atoms that do not move [N] at rest, and too heavy to be moved."""
    still = torch.as_tensor(frozen)
    return dataclasses.replace(
        state, masses=torch.where(still, HEAVY, state.masses),
        velocities=torch.where(still.unsqueeze(1), 0.0, state.velocities),
    )  # fmt: skip
