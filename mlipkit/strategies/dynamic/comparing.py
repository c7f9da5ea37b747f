"""Did roll-outs help? Errors along unseen runs of a potential against those of its controls, over seeds and runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mlipkit.analysis.cures import CureVerdict, Errors, judge_cure
from mlipkit.errors import DataError
from mlipkit.strategies.dynamic.evaluation import DIVERGED, Rollouts

Arm = Mapping[int, Rollouts]
"""Seed of a training -> roll-outs of its potential, of all arms from the same starts."""
QUANTITY = "error per atom type and step along roll-outs"


@dataclass(frozen=True)
class ArmRow:
    """One arm over all its seeds.

    Attributes:
        name: of the arm. seeds: of its trainings.
        mepa, equal_frames: mean over seeds and starts, eV/Å: on its own path, and on the reference's positions.
        spread: standard deviation of `mepa` over seeds, eV/Å.
        per_element: of the own path, eV/Å.
        drift: median over roll-outs of |slope of the total energy|, meV per atom and ps.
        diverged, rollouts: roll-outs in which an atom went further than `DIVERGED` from the reference, of how many.
        divergence_fs: median time to that; infinite when most did not.
        lost: roll-outs that ended without finite positions; these count in no mean.
    """

    name: str
    seeds: tuple[int, ...]
    mepa: float
    spread: float
    equal_frames: float
    per_element: Mapping[str, float]
    drift: float
    diverged: int
    rollouts: int
    divergence_fs: float
    lost: int


def common_starts(arms: Mapping[str, Arm]) -> np.ndarray:
    """Rows [R] of starts from which no seed of any arm was lost.

    Raises:
        DataError: arms that were not rolled out from the same starts of the same runs for as many structures.
    """
    every = [(name, seed, one) for name, arm in arms.items() for seed, one in arm.items()]
    if not every:
        raise DataError("no roll-outs", where="comparison")
    first = every[0][2]
    for name, seed, one in every:
        if not np.array_equal(one.start, first.start) or one.error.shape != first.error.shape:
            raise DataError(
                "not the same starts and structures", where=(name, f"seed {seed}"), expected=first.error.shape[:2],
                found=one.error.shape[:2],
            )  # fmt: skip
        for what, mine, wanted in _told(one, first):
            if not np.array_equal(mine, wanted):
                raise DataError(
                    f"not the same AIMD runs: other {what}", where=(name, f"seed {seed}"), expected=_few(wanted),
                    found=_few(mine), hint="Roll every potential out along the same runs",
                )  # fmt: skip
    fine = np.all([np.isfinite(one.mepa()) for _, _, one in every], axis=0)
    return np.flatnonzero(fine)


def _told(one: Rollouts, first: Rollouts) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What records tell of the reference: name, of one, of the first."""
    yield "elements", np.asarray(one.elements), np.asarray(first.elements)
    yield "time steps, fs", one.timestep, first.timestep
    yield "numbers of atoms", one.n_atoms, first.n_atoms
    yield "runs of the starts", one.run, first.run
    # Roll-outs that were kept earlier do not say.
    if one.data and first.data:
        yield "frames", np.array(one.data), np.array(first.data)


def _few(values: np.ndarray) -> object:
    return np.unique(values).tolist() if values.ndim else str(values)


def judge_rollouts(
    cure: Arm, controls: Mapping[str, Arm], *, structures: int | None = None, effect: float = 0.1
) -> CureVerdict:
    """Does an arm beat its best control over the first so many structures of roll-outs (None: all)?

    Bootstrap over seeds, then runs, then starts. Starts from which a roll-out of any arm was lost are left out in all.

    Raises:
        DataError: different starts or runs, more structures than there are, or nothing left.
    """
    rows = common_starts({"cure": cure, **controls})
    longest = next(iter(cure.values())).error.shape[1] if cure else 0
    if structures is not None and not 1 <= structures <= longest:
        raise DataError("out of range", where="structures", expected=f"1 to {longest}, or None", found=structures)
    if not len(rows):
        raise DataError("no start from which all arms came back", where="comparison")
    arms = {name: _errors(arm, rows, structures) for name, arm in {"": cure, **controls}.items()}
    return judge_cure(arms.pop(""), arms, quantity=QUANTITY, effect=effect)


def _errors(arm: Arm, rows: np.ndarray, structures: int | None) -> Errors:
    values, seeds, frames, runs = [], [], [], []
    for seed, one in arm.items():
        values.append(one.mepa(structures)[rows])
        seeds.append(np.full(len(rows), seed))
        frames.append(one.start[rows])
        runs.append(one.run[rows])
    return Errors(*(np.concatenate(part) for part in (values, seeds, frames, runs)))


def arm_row(name: str, arm: Arm, rows: np.ndarray | None = None) -> ArmRow:
    """What an arm came to, over the starts `rows` (None: those from which it came back)."""
    from ase.data import chemical_symbols

    rows = common_starts({name: arm}) if rows is None else rows
    mepa = np.array([one.mepa()[rows].mean() for one in arm.values()])
    first = next(iter(arm.values()))
    errors = np.stack([one.error[rows] for one in arm.values()])
    with np.errstate(invalid="ignore"):
        drift = np.concatenate([np.abs(one.drift()[rows]) for one in arm.values()])
    times = np.concatenate([one.divergence_time(DIVERGED) for one in arm.values()])
    equal = [one.equal_frames()[rows].mean() for one in arm.values() if one.on_reference is not None]
    return ArmRow(
        name, tuple(arm), float(mepa.mean()), float(mepa.std(ddof=1)) if len(mepa) > 1 else float("nan"),
        float(np.mean(equal)) if equal else float("nan"),
        {chemical_symbols[z]: float(np.nanmean(errors[..., t])) for t, z in enumerate(first.elements)},
        float(np.nanmedian(drift)), int(np.isfinite(times).sum()), len(times), float(np.median(times)),
        int(sum((~np.isfinite(one.mepa())).sum() for one in arm.values())),
    )  # fmt: skip


def error_curve(arm: Arm, rows: np.ndarray | None = None) -> np.ndarray:
    """Error of each step [S] over seeds and starts, eV/Å, a sum over elements."""
    rows = common_starts({"": arm}) if rows is None else rows
    return np.mean([np.nansum(one.error[rows], axis=2).mean(axis=0) for one in arm.values()], axis=0)
