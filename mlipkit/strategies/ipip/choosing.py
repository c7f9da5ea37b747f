"""Which frames of simulations enter the next pool: of the students', those from before a failure first.

Order of preference: frames of unstable runs, an equal share of each; then frames of stable runs at a uniform stride.
Where no run was unstable, frames of the stretches in which student and teacher differ most, found by a probe of every
twentieth frame. The teacher labels them in this order until there are enough; what the pool has, what validation and
test frames are, and what breaks a hard limit is dropped, and the next in order takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any

import numpy as np

from mlipkit.data import FrameSet
from mlipkit.strategies.ipip.instability import largest_forces, too_close
from mlipkit.strategies.ipip.pools import TEACHER, Pool, probe
from mlipkit.strategies.ipip.sampling import Run
from mlipkit.strategies.ipip.settings import Instability

Label = Callable[[FrameSet], FrameSet]
HELD_OUT = "among test or validation frames"


@dataclass(frozen=True)
class Candidate:
    """A frame that may be chosen: row of the tail or of the stored frames of a run."""

    run: int
    tail: bool
    row: int


def spread_out(n: int, count: int) -> list[int]:
    """Rows 0..n-1: `count` evenly spaced ones, then the others; both in an order whose every beginning is spread."""
    share = min(max(count, 1), n)
    first = ((np.arange(share) + 0.5) * n / max(share, 1)).astype(int)
    return _scattered(first) + _scattered(np.setdiff1d(np.arange(n), first))


def _scattered(rows: np.ndarray) -> list[int]:
    """In the order of the van der Corput sequence: those at 1/2, 1/4, 3/4, 1/8, 5/8 of the length and so on."""
    n = len(rows)
    bits = max(n - 1, 1).bit_length()
    places = (int(f"{k:0{bits}b}"[::-1], 2) * n >> bits for k in range(1, 2**bits))
    return rows[list(dict.fromkeys([*places, 0]))].tolist() if n else []


def by_preference(runs: Sequence[Run], count: int) -> list[Candidate]:
    """Unstable runs first, an equal share of each; then stable ones at a uniform stride, as many as are missing."""
    unstable = [k for k, run in enumerate(runs) if run.failed is not None]
    stable = [k for k, run in enumerate(runs) if run.failed is None]
    found: list[Candidate] = []
    # An early failure leaves few steps: what its run has stored before is as good as a stable run.
    for members, tail in ((unstable, True), (stable, False), (unstable, False)):
        share = -(-max(count - len(found), 0) // max(len(members), 1))
        rows = [
            [Candidate(k, tail, row) for row in spread_out(len(runs[k].tail if tail else runs[k].stored), share)]
            for k in members
        ]
        found += [one for one in chain.from_iterable(zip_longest(*rows)) if one is not None]
    return found


def at_random(runs: Sequence[Run], seed: int) -> list[Candidate]:
    """All stored frames of all runs in a random order: no preference."""
    every = [Candidate(k, False, row) for k, run in enumerate(runs) for row in range(len(run.stored))]
    return [every[i] for i in np.random.default_rng(seed).permutation(len(every))]


def by_difference(runs: Sequence[Run], label: Label) -> tuple[list[Candidate], int]:
    """Stable runs alone: frames in order of the force difference at the probe next to them; frames that were probed."""
    scored: list[tuple[float, int, int, int]] = []
    probed = 0
    for k, run in enumerate(runs):
        rows = probe(len(run.stored))
        if not len(rows):
            continue
        some = run.stored.select(rows)
        taught = label(some)
        probed += len(rows)
        apart = np.abs(np.asarray(taught.forces) - np.asarray(some.forces)).mean(1)
        worst = np.add.reduceat(apart, some.offsets[:-1]) / some.n_atoms
        # What the teacher cannot label is no reason to go there.
        worst = np.where(np.isfinite(worst), worst, -1.0)
        for row in range(len(run.stored)):
            near = int(np.argmin(np.abs(rows - row)))
            scored.append((-float(worst[near]), abs(int(rows[near]) - row), k, row))
    return [Candidate(k, False, row) for _, _, k, row in sorted(scored)], probed


def frame_of(runs: Sequence[Run], one: Candidate) -> tuple[FrameSet, int]:
    """The frame (a set of one) and its step."""
    run = runs[one.run]
    frames, steps = (run.tail, run.tail_steps) if one.tail else (run.stored, run.steps)
    return frames[one.row : one.row + 1], int(steps[one.row])


def choose(
    runs: Sequence[Run], count: int, label: Label, limits: Instability, cap: float, *, student: int, iteration: int,
    prefer_unstable: bool = True, seed: int = 0, pool: FrameSet | None = None, held_out: FrameSet | None = None,
) -> tuple[Pool | None, dict[str, Any]]:  # fmt: skip
    """New frames with the teacher's labels.

    Args:
        label: frames -> the same with the teacher's energy and forces (NaN where it fails).
        cap: eV/Å, largest force by the teacher.
        student: who ran the MD, `TEACHER` for the teacher, of whose runs those that failed are left out.
        pool, held_out: frames that are there already, and frames that no pool may hold.

    Returns:
        The frames (None: none), and facts: asked, chosen, unstable (of them from unstable runs), labelled, probed, and
        how many were dropped and why.
    """
    probed = 0
    if student == TEACHER:
        runs = [run for run in runs if run.failed is None]
    if not prefer_unstable:
        order = at_random(runs, seed)
    elif any(run.failed is not None for run in runs):
        order = by_preference(runs, count)
    else:
        order, probed = by_difference(runs, label) if count else ([], 0)
    kept: list[FrameSet] = []
    chosen: list[tuple[Candidate, int]] = []
    dropped = {"double": 0, HELD_OUT: 0, "too close": 0, "teacher fails": 0, "force above the cap": 0}
    known: dict[int, str] = {}
    for frames, why in ((pool, "double"), (held_out, HELD_OUT)):
        known |= dict.fromkeys([] if frames is None else frames.structure_hashes.tolist(), why)
    labelled, at = 0, iter(order)
    while some := list(islice(at, count - len(chosen))):
        parts = [frame_of(runs, one) for one in some]
        near = too_close(FrameSet.concat([frame for frame, _ in parts]), limits)
        fit = []
        for k, (frame, _) in enumerate(parts):
            mark = int(frame.structure_hashes[0])
            if why := known.get(mark) or ("too close" if near[k] else ""):
                dropped[why] += 1
            else:
                fit.append(k)
            known.setdefault(mark, "double")
        if not fit:
            continue
        taught = label(FrameSet.concat([parts[k][0] for k in fit]).without_labels(velocities=False))
        labelled += len(fit)
        fine = taught.has("energy") & taught.has("forces")
        wild = largest_forces(taught) > cap
        for row, k in enumerate(fit):
            if why := "teacher fails" if not fine[row] else "force above the cap" if wild[row] else "":
                dropped[why] += 1
                continue
            kept.append(taught[row : row + 1])
            chosen.append((some[k], parts[k][1]))
    facts = {
        "asked": count, "chosen": len(chosen), "labelled": labelled, "probed": probed, "dropped": dropped,
        "unstable": sum(runs[one.run].failed is not None for one, _ in chosen),
    }  # fmt: skip
    if not chosen:
        return None, facts
    failed = [runs[one.run].failed for one, _ in chosen]
    steps = [step for _, step in chosen]
    before = [-1 if end is None else end - step for end, step in zip(failed, steps, strict=True)]
    made = Pool.of(
        FrameSet.concat(kept).with_table(trajectory=-1), labeller=TEACHER,
        origin="teacher_md" if student == TEACHER else "student_md", maker=student,
        iteration=iteration, start=[runs[one.run].start for one, _ in chosen], step=steps,
        unstable=[end is not None for end in failed], before_failure=before,
    )  # fmt: skip
    return made, facts
