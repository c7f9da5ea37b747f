"""Training, validation and test parts that do not leak into each other, recorded as uids.

Neighbouring frames of a trajectory are nearly the same structure, so a random split of them measures memory, not skill.
The default therefore cuts every trajectory into contiguous blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mlipkit.data.columns import Array
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, SpecError, nearest

METHODS: Final = ("auto", "block", "trajectory", "random")
_TRAIN, _VALIDATION, _TEST, _DROPPED = 0, 1, 2, -1
_PARTS: Final = {"train": _TRAIN, "validation": _VALIDATION, "test": _TEST}


@dataclass(frozen=True)
class Split:
    """Three parts of one set.

    Attributes:
        train, validation, test: the parts, frames in the order of the whole set.
        how: one sentence: method, counts, and what was moved or left out.
        seed: of the random choice; irrelevant for blocks.
        by: block, trajectory or random.
        gap: frames left out between blocks.
        moved: frames moved to an earlier part because an identical structure is there.
        dropped: frames in gaps.
    """

    train: FrameSet
    validation: FrameSet
    test: FrameSet
    how: str
    seed: int
    by: str = "random"
    gap: int = 0
    moved: int = 0
    dropped: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary with the uids of each part as hexadecimal text; `from_json` is the inverse."""
        facts = {name: getattr(self, name) for name in ("how", "by", "seed", "gap", "moved", "dropped")}
        uids = {name: [f"{int(uid):016x}" for uid in getattr(self, name).uids] for name in _PARTS}
        return {"version": 1, **facts, "uids": uids}

    @staticmethod
    def from_json(frames: FrameSet, record: Mapping[str, Any]) -> Split:
        """The recorded split of `frames`, which may hold more frames than were split.

        Raises:
            DataError: a recorded frame is not there, or is in two parts.
            SpecError: not a record of a split.
        """
        try:
            uids = {name: [str(uid) for uid in record["uids"][name]] for name in _PARTS}
            facts = {name: record[name] for name in ("how", "by", "seed", "gap", "moved", "dropped")}
        except (KeyError, TypeError) as problem:
            raise SpecError(f"not the record of a split ({problem!r})") from None
        everything = [uid for part in uids.values() for uid in part]
        if len(set(everything)) != len(everything):
            raise DataError("the recorded split holds a frame twice")
        parts = {name: frames.select_uids(part) for name, part in uids.items()}
        return Split(**parts, **facts)


def split(
    frames: FrameSet,
    validation: float | int = 0.1,
    test: float | int = 0.1,
    by: str = "auto",
    seed: int = 0,
    gap: int = 0,
) -> Split:
    """Split `frames` into training, validation and test part.

    Args:
        frames: the set.
        validation, test: number of frames (int), or fraction of all (float below 1). A fraction gives at least one.
        by: ``block``: each trajectory is cut in time: training first, then validation, then test. Frames outside
            trajectories are split at random; when there are no trajectories at all, each source counts as one.
            ``trajectory``: whole trajectories go to one part (counts are then met as nearly as they can be).
            ``random``: single frames. ``auto``: block when the set holds trajectories, otherwise random.
        seed: for everything random.
        gap: frames left out between two blocks of a trajectory, to decorrelate them.

    No two parts hold the same structure (same elements, positions, cell and pbc, bit for bit): random splits keep
    identical structures together, otherwise they are moved to the earlier part; `Split.moved` counts them.

    Raises:
        SpecError: an unknown method, or a size that is neither count nor fraction.
        DataError: too few frames or trajectories, or a part that would be empty.
    """
    if by not in METHODS:
        raise SpecError(f"no way to split called '{by}'", where="split: by", hint=nearest(by, METHODS))
    if not isinstance(gap, int | np.integer) or gap < 0:
        raise SpecError("not a number of frames", where="split: gap", found=gap)
    n_frames = len(frames)
    n_validation = _count(validation, n_frames, "validation")
    n_test = _count(test, n_frames, "test")
    if n_validation + n_test >= n_frames:
        raise DataError(
            f"cannot split {n_frames} frames into {n_validation} for validation and {n_test} for test",
            expected="at least one frame left to train on",
        )
    if len(np.unique(frames.uids)) != n_frames:
        raise DataError("the set holds the same frame twice", hint="Select every frame at most once before splitting.")
    if by == "auto":
        by = "block" if (frames.trajectory >= 0).any() else "random"
    rng = np.random.default_rng(seed)
    if by == "block":
        part, detail = _blocks(frames, n_validation, n_test, int(gap), rng)
    elif by == "trajectory":
        part, detail = _whole_trajectories(frames, n_validation, n_test, rng)
    else:
        part, detail = _random(frames.structure_hashes, n_validation, n_test, rng)
    moved = _repair_leaks(part, frames.structure_hashes)
    sets = {}
    for name, code in _PARTS.items():
        rows = np.flatnonzero(part == code)
        wanted = {"validation": n_validation, "test": n_test}.get(name, 1)
        if wanted and not len(rows):
            raise DataError(
                f"the {name} part would be empty",
                where=f"split by {by}",
                hint="Its structures also occur in an earlier part." if moved else "Ask for more frames.",
            )
        sets[name] = frames.select(rows)
    dropped = int((part == _DROPPED).sum())
    how = f"{detail}: {', '.join(f'{len(one)} {name}' for name, one in sets.items())}"
    if dropped:
        how += f"; {dropped} left out in gaps of {gap}"
    if moved:
        how += f"; {moved} moved to an earlier part that holds the identical structure"
    return Split(**sets, how=how, seed=seed, by=by, gap=int(gap), moved=moved, dropped=dropped)


def check_apart(train: FrameSet, validation: FrameSet, tests: Mapping[str, FrameSet]) -> None:
    """Refuse structures that judge, or choose, and are learned from as well: errors there say nothing of others.

    Raises:
        DataError: a validation frame among the training frames, a test frame among either.
    """
    used = {"training": train.structure_hashes}
    for name, frames in {"validation": validation, **tests}.items():
        for other, hashes in used.items():
            doubles = np.isin(frames.structure_hashes, hashes)
            if doubles.any():
                raise DataError(
                    f"{int(doubles.sum())} of {len(frames)} frames are among the {other} frames", where=name,
                    expected="frames of their own", found=frames.uid(int(doubles.argmax())),
                    hint="Name others, or split the data anew",
                )  # fmt: skip
        if frames is validation:
            used["validation"] = validation.structure_hashes


def _count(size: Any, n_frames: int, name: str) -> int:
    if not isinstance(size, bool | np.bool_):
        if isinstance(size, int | np.integer) and size >= 0:
            return int(size)
        if isinstance(size, float | np.floating) and 0 <= size < 1:
            return max(1, round(float(size) * n_frames)) if size else 0
    raise SpecError(
        "not a size", where=f"split: {name}", expected="a number of frames or a fraction below 1", found=repr(size)
    )


def _random(structures: Array, n_validation: int, n_test: int, rng: np.random.Generator) -> tuple[Array, str]:
    _, group, sizes = np.unique(structures, return_inverse=True, return_counts=True)
    order = rng.permutation(len(sizes))
    part_of_group = np.full(len(sizes), _TRAIN, np.int8)
    # Identical structures stay together; a group that no longer fits a part is passed on to the training part.
    at = 0
    for code, wanted in ((_TEST, n_test), (_VALIDATION, n_validation)):
        while wanted > 0 and at < len(order):
            if sizes[order[at]] <= wanted:
                part_of_group[order[at]] = code
                wanted -= sizes[order[at]]
            at += 1
    return part_of_group[group], "single frames at random"


def _blocks(frames: FrameSet, n_validation: int, n_test: int, gap: int, rng: np.random.Generator) -> tuple[Array, str]:
    chain = frames.trajectory.astype(np.int64)
    by_source = not (chain >= 0).any()
    if by_source:
        chain = frames.source_codes.astype(np.int64)
    part = np.full(len(frames), _TRAIN, np.int8)
    ordered = np.flatnonzero(chain >= 0)
    loose = np.flatnonzero(chain < 0)
    # Frames outside trajectories give their share.
    loose_validation, loose_test = (round(n * len(loose) / len(frames)) for n in (n_validation, n_test))
    if len(loose):
        part[loose], _ = _random(frames.structure_hashes[loose], loose_validation, loose_test, rng)

    names, inverse, sizes = np.unique(chain[ordered], return_inverse=True, return_counts=True)
    time = frames.time[ordered]
    timeless = np.bincount(inverse, np.isnan(time), len(sizes)) > 0
    time = np.where(timeless[inverse], 0.0, time)
    in_order = ordered[np.lexsort((np.arange(len(ordered)), time, inverse))]
    held = _shares(sizes, n_validation - loose_validation + n_test - loose_test)
    held_test = _shares(held, n_test - loose_test)
    ends = np.cumsum(sizes)
    for name, end, size, both, n_last in zip(names, ends, sizes, held, held_test, strict=True):
        n_middle = both - n_last
        rows = in_order[end - size : end]
        gaps = gap * (int(n_middle > 0) + int(n_last > 0))
        if gaps and size < both + gaps:
            what = f"source '{frames.sources[name]}'" if by_source else f"trajectory {name}"
            raise DataError(
                f"{what} is too short for gaps of {gap} frames",
                where="split by block",
                expected=f"at least {both + gaps} frames",
                found=int(size),
            )
        part[rows[size - n_last :]] = _TEST
        stop = size - n_last - (gap if n_last else 0)
        part[rows[stop : size - n_last]] = _DROPPED
        part[rows[stop - n_middle : stop]] = _VALIDATION
        if n_middle:
            part[rows[stop - n_middle - gap : stop - n_middle]] = _DROPPED
    what = f"{len(sizes)} sources" if by_source else f"{len(sizes)} trajectories"
    detail = f"contiguous blocks of {what} in time" if len(sizes) > 1 else "contiguous blocks in time"
    return part, f"{detail}, {len(loose)} other frames at random" if len(loose) else detail


def _shares(sizes: Array, total: int) -> Array:
    """int64 shares of `total` in proportion to `sizes`, none above its size, adding up exactly."""
    whole = int(sizes.sum())
    if not whole:
        return np.zeros(len(sizes), np.int64)
    up_to = np.floor(np.cumsum(sizes) * (total / whole) + 0.5).astype(np.int64)
    return np.diff(up_to, prepend=0)


def _whole_trajectories(
    frames: FrameSet, n_validation: int, n_test: int, rng: np.random.Generator
) -> tuple[Array, str]:
    trajectory = frames.trajectory.astype(np.int64)
    if not (trajectory >= 0).any():
        raise DataError(
            "the set holds no trajectories", where="split by trajectory", hint="Use by='random' or 'block'."
        )
    # A frame outside trajectories is a unit of its own.
    alone = trajectory < 0
    unit = np.where(alone, trajectory.max() + 1 + np.cumsum(alone), trajectory)
    _, unit, sizes = np.unique(unit, return_inverse=True, return_counts=True)
    needed = 1 + (n_validation > 0) + (n_test > 0)
    if len(sizes) < needed:
        raise DataError(
            "too few trajectories",
            where="split by trajectory",
            expected=f"at least {needed}",
            found=len(sizes),
            hint="Use by='block', which cuts each trajectory in time.",
        )
    order = rng.permutation(len(sizes))
    part_of_unit = np.full(len(sizes), _TRAIN, np.int8)
    for code, wanted in ((_TEST, n_test), (_VALIDATION, n_validation)):
        have = 0
        free = order[part_of_unit[order] == _TRAIN]
        for one in free:
            # Taken when that brings the part nearer to its size.
            if abs(have + sizes[one] - wanted) < abs(have - wanted):
                part_of_unit[one] = code
                have += sizes[one]
        if wanted and not have:
            part_of_unit[free[np.argmin(sizes[free])]] = code
    return part_of_unit[unit], f"whole trajectories ({len(sizes)})"


def _repair_leaks(part: Array, structures: Array) -> int:
    """Move copies of a structure to the earliest part that holds it, in place; the number of frames moved."""
    _, group = np.unique(structures, return_inverse=True)
    earliest = np.full(group.max() + 1 if len(group) else 0, 127, np.int8)
    used = part != _DROPPED
    np.minimum.at(earliest, group[used], part[used])
    wrong = used & (earliest[group] != part)
    part[wrong] = earliest[group[wrong]]
    return int(wrong.sum())
