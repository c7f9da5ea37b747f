"""Frames from before a simulation failed: what a potential should have known to get past that point."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlipkit.data import FrameSet, Selection
from mlipkit.errors import RunError
from mlipkit.runs.frames import RunFrames
from mlipkit.runs.replicas import Replica, Replicas
from mlipkit.runs.run import Run, run_at

MOST = 10
"""Frames that are picked unless more are asked for."""
DISTANCES = 4
"""So many simulations begin their picks at different distances from the failure."""


@dataclass(frozen=True)
class Picked:
    """Frames that were picked, and why.

    Attributes:
        frames: the frames, without labels: what is stored with them are the potential's own predictions.
        selection: the same by uid, with the criterion as data.
    """

    frames: FrameSet
    selection: Selection


def before_failure(run: Run | str | os.PathLike[str], most: int = MOST, replica: int | None = None) -> Picked:
    """At most `most` frames of the sound part of failed simulations, from just before the failure to long before it.

    A check speaks late: by then a simulation may have been among wrong structures for hundreds of steps, and its last
    sound frames are wrecks. Nobody knows when it left the known ones, so the picks lie 1, 2, 4, 8 ... correlation times
    (of the potential energy) before the last sound frame, the last stored one in which no check had anything to say.
    Several failed simulations share the picks in turns, the earliest failure first, and begin at different distances.

    Args:
        run: an MD run, or its folder.
        most: so many frames at most, 1 or more.
        replica: this simulation alone; all that have failed when omitted.

    Raises:
        RunError: not an MD run, nothing has failed, no sound frame was stored, or `most` is no number of frames.
    """
    run = run_at(run)
    if not isinstance(most, int | np.integer) or most < 1:
        raise RunError("no number of frames", where="most", expected="1 or more", found=repr(most))
    failed = _failed(run, replica)
    found = [(one, *_candidates(one)) for one in failed]
    taken = _shares([len(steps) for _, steps, _ in found], most)
    parts, spacings = [], []
    for turn, ((one, numbers, spacing), count) in enumerate(zip(found, taken, strict=True)):
        if count:
            parts.append(stored_frames(run, one.folder, sorted(_spread(numbers, turn % DISTANCES)[:count])))
            spacings.append(spacing)
    if not parts:
        first = failed[0]
        raise RunError(
            "failed before a single sound frame was stored", where=run.name,
            found=first.verdict.sentence if first.verdict else "",
            hint="Look at the start structure: relax it, or start colder",
        )  # fmt: skip
    frames = FrameSet.concat(parts) if len(parts) > 1 else parts[0]
    names = [one.index for one, count in zip(failed, taken, strict=True) if count]
    criterion = {
        "kind": "before_failure", "run": str(run.folder), "replicas": names, "most": most,
        "spacing_fs": [round(x, 3) for x in spacings],
    }  # fmt: skip
    apart = f"{min(spacings):.3g}" if max(spacings) == min(spacings) else f"{min(spacings):.3g} to {max(spacings):.3g}"
    words = f"sound frames before {'the failure' if len(names) == 1 else f'{len(names)} failures'} of {run.name}"
    selection = Selection.of(frames, criterion=criterion, sentence=f"{words}, at least {apart} fs apart", tag=run.name)
    return Picked(frames, selection)


def _failed(run: Run, replica: int | None) -> list[Replica]:
    """Failed simulations, the earliest failure first."""
    if run.kind != "md":
        raise RunError("has no simulations", where=run.name, expected="an MD run", found=run.kind)
    all_of_it = Replicas(run)
    if replica is not None and not 0 <= replica < len(all_of_it):
        raise RunError("no such simulation", where=run.name, expected=f"0 to {len(all_of_it) - 1}", found=replica)
    wanted: Sequence[Replica] = all_of_it if replica is None else [all_of_it[replica]]
    failed = sorted((one for one in wanted if one.failed), key=lambda one: (one.time, one.index))
    if not failed:
        raise RunError(
            "no simulation has failed" if replica is None else f"simulation {replica} has not failed", where=run.name,
            found=all_of_it.count, hint="Raise the temperature, or run longer, to find where the potential fails",
        )  # fmt: skip
    return failed


def _shares(there: Sequence[int], most: int) -> list[int]:
    """How many frames of each simulation: in turns, until there are no more or enough."""
    taken = [0] * len(there)
    while sum(taken) < min(most, sum(there)):
        for i, count in enumerate(there):
            if taken[i] < count and sum(taken) < most:
                taken[i] += 1
    return taken


def _candidates(one: Replica) -> tuple[list[int], float]:
    """Numbers of sound frames of one simulation, each a correlation time after the one before, and that time, fs."""
    from mlipkit.analysis.correlation import correlation_time, decorrelated_rows

    frames = RunFrames(one.folder)
    try:
        frames.refresh()
        last_good = one.verdict.last_good if one.verdict is not None else -1
        # The start was there before the simulation: it teaches nothing of where this led.
        sound = [i for i in range(frames.first_last_step) if 0 < frames.step(i) <= last_good]
        apart = np.ceil(correlation_time([frames[i].get_potential_energy() for i in sound]))
        pace = frames.time(1) - frames.time(0) if len(frames) > 1 else 0.0
        return [sound[row] for row in decorrelated_rows(len(sound), apart, len(sound))], float(apart * pace)
    finally:
        frames.close()


def _spread(numbers: Sequence[int], first: int) -> list[int]:
    """All frames in the order in which they are picked: 1, 2, 4, 8 ... from the end, then those between, latest first.

    Args:
        first: how many of the nearest distances come last among these.
    """
    distances = [2**power for power in range(len(numbers).bit_length()) if 2**power <= len(numbers)]
    turn = first % len(distances) if distances else 0
    order = [len(numbers) - one for one in distances[turn:] + distances[:turn]]
    return [numbers[i] for i in dict.fromkeys([*order, *reversed(range(len(numbers)))])]


def stored_frames(run: Run, replica: Path, numbers: Sequence[int]) -> FrameSet:
    """Stored frames of one simulation of a run, without labels; their source says which simulation it is.

    Args:
        replica: its folder (`Run.replica_folder`).
        numbers: which of its stored frames.

    Raises:
        DataError: no such frame, or positions that are no numbers.
    """
    frames = RunFrames(replica)
    try:
        frames.refresh()
        source = run.name if replica == run.folder else f"{run.name}/{replica.name}"
        made = FrameSet.from_atoms([frames[number] for number in numbers], source=source)
        return made.without_labels()
    finally:
        frames.close()
