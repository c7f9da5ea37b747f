"""MD of teacher and students, and the frames that it leaves.

All runs of a stage go through the batched engine; each is classified by the checks of
`mlipkit.strategies.ipip.instability`. Frames are written as they come, so that a run that breaks off keeps its last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.io.ulm import InvalidULMFileError

from mlipkit.data import FrameSet
from mlipkit.errors import RunError
from mlipkit.events import Control, Ending, EventSink
from mlipkit.strategies.ipip.instability import checks
from mlipkit.strategies.ipip.settings import Instability
from mlipkit.strategies.workflows.tools import Stopped

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.models import BasePotential

OPTIONS = {"langevin": ("friction",), "nose_hoover": ("relaxation_time",)}


@dataclass(frozen=True, eq=False)
class Run:
    """One simulation as the choice of frames sees it.

    Attributes:
        start: number of its start structure.
        failed: step of its failure, None: it reached its last step.
        reason: name of the check that ended it.
        stored: frames with the sampling model's energies and forces, without the start and from before the failure.
        steps: int [F] of the stored frames.
        tail: last frames before the failure, step by step or every few; no frames for stable runs.
        tail_steps: int [G].
    """

    start: int
    failed: int | None
    reason: str
    stored: FrameSet
    steps: np.ndarray
    tail: FrameSet
    tail_steps: np.ndarray


def run_md(
    potential: BasePotential, starts: Sequence[Atoms], options: Mapping[str, Any], seeds: Mapping[str, int],
    cap: float, folder: Path, sink: EventSink, control: Control, skin: float = 0.5,
) -> list[Ending]:  # fmt: skip
    """Simulate every start, or go on where the folder stands.

    Args:
        options: as of a "sample" stage: steps, timestep, stride, temperature, ensemble and its settings, instability.
        cap: eV/Å, of the largest force.

    Raises:
        Stopped: by the user.
    """
    from mlipkit.md import PotentialForces, maxwell_boltzmann, simulate_batches, state_from_atoms

    limits = Instability.from_json(options["instability"])
    state = state_from_atoms(list(starts), seed=seeds["thermostat"], device=potential.device)
    maxwell_boltzmann(state, options["temperature"], seeds["velocities"], zero_momentum=False, zero_rotation=False)
    ensemble = options.get("ensemble", "langevin")
    own = {name: options[name] for name in OPTIONS[ensemble]}
    found = simulate_batches(
        state, PotentialForces(potential, skin=skin), ensemble, steps=options["steps"], folder=folder,
        batch=options.get("batch"), options={"temperature": options["temperature"], **own},
        timestep=options["timestep"], stride=options["stride"], checks=checks(limits, cap),
        last_steps=limits.kept, sink=sink, control=control,
    )  # fmt: skip
    if len(found) < len(starts) or any(not one.failed and one.step < options["steps"] for one in found):
        raise Stopped
    return found


def runs_of(folder: Path, found: Sequence[Mapping[str, Any]], limits: Instability) -> list[Run]:
    """The simulations of a folder with their frames.

    Args:
        found: per simulation step, failed, reason, as a "sample" stage notes them.
    """
    made = []
    for index, one in enumerate(found):
        place = folder if len(found) == 1 else folder / f"replica_{index:03d}"
        failed = int(one["step"]) if one["failed"] else None
        stored, steps = _frames(place / "trajectory.traj", before=failed, every=1)
        tail, tail_steps = stored[:0], np.zeros(0, np.int64)
        if failed is not None:
            last = limits.last_before(failed)
            tail, tail_steps = _frames(place / "last_steps.traj", before=last + 1, every=limits.every)
            tail, tail_steps = tail[-limits.window :], tail_steps[-limits.window :]
            stay = np.flatnonzero(steps <= last)
            stored, steps = stored.select(stay), steps[stay]
        made.append(Run(index, failed, str(one["reason"]), stored, steps, tail, tail_steps))
    return made


def _frames(path: Path, before: int | None, every: int, start: bool = False) -> tuple[FrameSet, np.ndarray]:
    """Frames of a trajectory with their steps, the start only if asked for; before a step, counted back from it."""
    images, steps = [], []
    for atoms in _read(path):
        step = int(atoms.info["step"])
        if (start or step > 0) and (before is None or step < before) and np.isfinite(atoms.positions).all():
            images.append(atoms)
            steps.append(step)
    images, steps = images[::-1][::every][::-1], steps[::-1][::every][::-1]
    sane = [k for k, atoms in enumerate(images) if _finite(atoms)]
    images, steps = [images[k] for k in sane], [steps[k] for k in sane]
    for atoms, step in zip(images, steps, strict=True):
        atoms.arrays.pop("momenta", None)
        atoms.info = {"step": step}
    if not images:
        return EMPTY, np.zeros(0, np.int64)
    return FrameSet.from_atoms(images, source=path.stem).with_table(trajectory=-1), np.array(steps, np.int64)


def _read(path: Path) -> list[Any]:
    """All frames of a trajectory.

    Raises:
        RunError: it is not there, or damaged.
    """
    from ase.io.trajectory import TrajectoryReader

    try:
        with TrajectoryReader(str(path)) as trajectory:
            return [trajectory[row] for row in range(len(trajectory))]
    except (OSError, ValueError, KeyError, IndexError, InvalidULMFileError) as error:
        raise RunError(
            f"a simulation cannot be read: {type(error).__name__}: {error}", where=str(path),
            hint="Delete the folder of its stage, and those of later ones, and resume: it is simulated again",
        ) from None  # fmt: skip


def _finite(atoms: Any) -> bool:
    found = atoms.calc.results if atoms.calc is not None else {}
    return np.isfinite(found.get("energy", np.nan)) and bool(np.isfinite(found.get("forces", np.nan)).all())


EMPTY = FrameSet.from_arrays([1], np.zeros((1, 1, 3)))[:0]


def ended(found: Sequence[Any]) -> dict[str, Any]:
    """How simulations ended: counts, Wilson interval, reasons."""
    from mlipkit.analysis.proportions import wilson

    failed = sum(one.failed for one in found)
    reasons = Counter(one.reason for one in found if one.failed)
    low, high = wilson(failed, len(found))
    text = f"{failed} of {len(found)} runs failed ({100 * low:.3g} to {100 * high:.3g} %)"
    if reasons:
        text += ": " + ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in reasons.most_common())
    return {
        "sentence": text, "failed": failed, "fraction": failed / len(found), "interval": [low, high],
        "reasons": dict(reasons.most_common()),
        "runs": [{"start": k, "step": one.step, "failed": one.failed, "reason": one.reason}
                 for k, one in enumerate(found)],
    }  # fmt: skip
