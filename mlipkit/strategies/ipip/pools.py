"""Pools of frames: what a student is pretrained on, with who made each frame and who labelled it.

A pool never changes; `forget`, `relabel` and `add` give new ones. What a step leaves alone is shared: structures when
labels are made anew, everything when nothing is forgotten; on disk as well (`save` with `previous`). Energies are in
the zero of whoever labelled the frame, so pretraining takes forces alone unless energies are re-referenced.

Source: arXiv 2507.20118; the rules that it leaves open (what is forgotten, what is relabelled, how many come new) are
ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args
from zipfile import BadZipFile

import numpy as np

from mlipkit.data import FrameSet
from mlipkit.data.whole import write_whole
from mlipkit.errors import DataError, check_choice

DFT: Final = -2
TEACHER: Final = -1
"""Labellers that are no student; student k is k."""
PROBE: Final = 20
"""Of so many stored frames of a run one is labelled to rank the others."""
ORIGINS: Final = ("dft", "teacher_md", "student_md")
"""Who made a frame; the code is its place here."""
COLUMNS: Final = {
    "labeller": "int16", "origin": "int8", "maker": "int16", "iteration": "int16", "relabelled": "int16",
    "start": "int32", "step": "int32", "unstable": "bool", "before_failure": "int32",
}  # fmt: skip
"""Columns of the table and their types; see `Pool`."""
Relabel = Literal["all", "student_origin", "off"]
FRAMES, TABLE, COMPOSITION = "frames", "pool.npz", "composition.json"


@dataclass(frozen=True, eq=False)
class Pool:
    """Frames with labels and where both come from.

    Attributes:
        frames: F structures with energy (eV, zero of the labeller) and forces (eV/Å).
        table: column -> array [F]: labeller (`DFT`, `TEACHER` or number of the student), origin (code in `ORIGINS`),
            maker (student that made it by MD, -1: none), iteration (in which it came in), relabelled (iteration in
            which a student labelled it, -1: never), start (number of the start structure), step (of its simulation),
            unstable (its simulation failed), before_failure (steps until then, -1: did not fail).
    """

    frames: FrameSet
    table: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        for name in COLUMNS:
            if name not in self.table or len(self.table[name]) != len(self.frames):
                raise DataError("provenance is not complete", where=("pool", name), expected=f"{len(self.frames)} rows",
                                found=len(self.table.get(name, ())))  # fmt: skip

    @classmethod
    def of(
        cls, frames: FrameSet, *, labeller: int, origin: str, iteration: int, maker: int = -1, start: Any = -1,
        step: Any = -1, unstable: Any = False, before_failure: Any = -1,
    ) -> Pool:  # fmt: skip
        """A pool of frames that one hand has made and labelled; the rest is one value, or one per frame.

        Raises:
            DataError: unknown origin; a frame without energy or forces.
        """
        check_choice(origin, ORIGINS, "origin")
        lacking = ~(frames.has("energy") & frames.has("forces"))
        if lacking.any():
            first = frames.uid(int(lacking.argmax()))
            raise DataError("frames of a pool have energies and forces", where=("pool", first),
                            found=f"{int(lacking.sum())} without")  # fmt: skip
        given = {
            "labeller": labeller, "origin": ORIGINS.index(origin), "maker": maker, "iteration": iteration,
            "relabelled": -1, "start": start, "step": step, "unstable": unstable, "before_failure": before_failure,
        }  # fmt: skip
        return cls(frames, _table({k: np.broadcast_to(np.asarray(v), (len(frames),)) for k, v in given.items()}))

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def hash(self) -> str:
        """Of all structures, labels and provenance, in order."""
        found = hashlib.blake2b(self.frames.hash.encode(), digest_size=16)
        for name in COLUMNS:
            found.update(np.ascontiguousarray(self.table[name]).tobytes())
        return found.hexdigest()

    @property
    def teacher_share(self) -> float:
        """Share of the frames with the teacher's labels: students cannot become better than the others."""
        return float((self.table["labeller"] == TEACHER).mean()) if len(self) else 0.0

    def select(self, rows: Sequence[int] | np.ndarray) -> Pool:
        """Some of the frames, in this order."""
        index = np.asarray(rows)
        return Pool(self.frames.select(index), _table({name: self.table[name][index] for name in COLUMNS}))

    def forget(self, share: float, seed: int) -> tuple[Pool, int]:
        """Without a random `share` of its frames (rounded to whole frames), and how many those were."""
        if not 0 <= share < 1:
            raise DataError("out of range", where="forget", expected="a share, 0 <= share < 1", found=share)
        lost = forgotten(len(self), share)
        if not lost:
            return self, 0
        stay = np.sort(np.random.default_rng(seed).permutation(len(self))[lost:])
        return self.select(stay), lost

    def candidates(self, rule: Relabel) -> np.ndarray:
        """Rows that a student shall label anew: all, those that a student made, none."""
        check_choice(rule, get_args(Relabel), "relabel")
        if rule == "student_origin":
            return np.flatnonzero(self.table["origin"] == ORIGINS.index("student_md"))
        return np.arange(len(self) if rule == "all" else 0)

    def relabel(self, rows: np.ndarray, labelled: FrameSet, student: int, iteration: int) -> Pool:
        """With other labels in some rows; all structures are shared.

        Args:
            rows: int [R], none twice.
            labelled: the frames of these rows with the student's energy and forces.

        Raises:
            DataError: a row twice, or one that was relabelled in this iteration already; other structures.
        """
        rows = np.asarray(rows, np.int64)
        if not len(rows):
            return self
        if len(np.unique(rows)) < len(rows) or (self.table["relabelled"][rows] == iteration).any():
            raise DataError("a frame is relabelled once in an iteration", where=("pool", f"iteration {iteration}"))
        if not np.array_equal(labelled.structure_hashes, self.frames.structure_hashes[rows]):
            raise DataError("labels of other structures", where="relabel")
        energy, forces = np.array(self.frames.energy), np.array(self.frames.forces)
        energy[rows] = labelled.energy
        forces[atom_rows(self.frames, rows)] = labelled.forces
        table = {name: np.array(self.table[name]) for name in COLUMNS}
        table["labeller"][rows], table["relabelled"][rows] = student, iteration
        return Pool(self.frames.with_labels(energy=energy, forces=forces), _table(table))

    def add(self, new: Pool) -> tuple[Pool, int]:
        """With further frames behind, less doubles of a structure; and how many those were."""
        known = self.frames.structure_hashes
        _, first = np.unique(new.frames.structure_hashes, return_index=True)
        fresh = np.sort(first[~np.isin(new.frames.structure_hashes[first], known)])
        if len(fresh):
            some = new.select(fresh)
            table = {name: np.concatenate([self.table[name], some.table[name]]) for name in COLUMNS}
            return Pool(FrameSet.concat([self.frames, some.frames]), _table(table)), len(new) - len(fresh)
        return self, len(new)

    def without(self, others: FrameSet) -> tuple[Pool, int]:
        """Without structures that are among others (validation and test frames), and how many those were."""
        mine = np.isin(self.frames.structure_hashes, others.structure_hashes)
        return (self.select(np.flatnonzero(~mine)), int(mine.sum())) if mine.any() else (self, 0)

    def composition(self) -> dict[str, Any]:
        """JSON-ready: size, frames by labeller and by origin, of unstable simulations, by iteration; teacher_share."""
        table = self.table
        return {
            "size": len(self), "teacher_share": round(self.teacher_share, 6),
            "labellers": _counted(labeller_name(one) for one in table["labeller"].tolist()),
            "origins": _counted(ORIGINS[one] for one in table["origin"].tolist()),
            "iterations": _counted(str(one) for one in table["iteration"].tolist()),
            "unstable": int(table["unstable"].sum()), "hash": self.hash,
        }  # fmt: skip

    def save(self, folder: Path, previous: Path | None = None) -> Path:
        """Write to a folder; columns that `previous` (a saved pool) has as well take no further room."""
        target = folder / FRAMES
        target.mkdir(parents=True, exist_ok=True)
        if previous is not None:
            _link(previous / FRAMES, target)
        self.frames.save(target)
        partial = folder / f".{TABLE}.part.npz"
        arrays: Any = {name: self.table[name] for name in COLUMNS}
        np.savez_compressed(partial, **arrays)
        os.replace(partial, folder / TABLE)
        write_whole(folder / COMPOSITION, json.dumps(self.composition(), indent=1).encode())
        return folder

    @classmethod
    def open(cls, folder: Path) -> Pool:
        """Read what `save` wrote, and see that it still is that.

        Raises:
            DataError: no pool there, or files that have changed since.
        """
        try:
            with np.load(folder / TABLE) as arrays:
                table = {name: arrays[name] for name in COLUMNS}
        except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
            raise DataError(f"no pool ({error})", where=str(folder / TABLE)) from None
        made = cls(FrameSet.open(folder / FRAMES, verify=True), _table(table))
        if (told := _told(folder)) != made.hash:
            raise DataError("is damaged", where=str(folder / TABLE), expected=f"the pool {told}", found=made.hash,
                            hint="Delete this folder and have it made again")  # fmt: skip
        return made


def forgotten(n: int, share: float) -> int:
    """Frames that are forgotten of `n`: their share, rounded half up."""
    return int(np.floor(share * n + 0.5))


def probe(n: int) -> np.ndarray:
    """Rows of a run of `n` stored frames that the teacher labels to find where student and teacher differ: 5 %."""
    return np.arange(PROBE // 2 if n > PROBE // 2 else 0, n, PROBE)


def atom_rows(frames: FrameSet, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Rows of the flat columns that belong to some frames, in their order."""
    offsets = frames.offsets.tolist()
    return np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in np.asarray(rows).tolist()])


def labeller_name(code: int) -> str:
    """``teacher``, ``dft``, ``student_2``."""
    return {DFT: "dft", TEACHER: "teacher"}.get(code, f"student_{code}")


def gate(
    forces: np.ndarray, spread: np.ndarray, n_atoms: np.ndarray, cap: float, percentile: float = 80.0
) -> np.ndarray:
    """bool [F]: frames that a student may label: its largest force is within the cap, its spread below a percentile.

    Args:
        forces: [N,3] eV/Å, by the student.
        spread: [F] of a committee, or under noise; eV/Å.
        n_atoms: int [F]. cap: eV/Å. percentile: of the spreads of these frames.
    """
    starts = np.concatenate([[0], np.cumsum(n_atoms)[:-1]])
    largest = np.maximum.reduceat(np.linalg.norm(forces, axis=1), starts) if len(n_atoms) else np.zeros(0)
    limit = np.percentile(spread, percentile) if len(spread) else 0.0
    return np.isfinite(largest) & (largest <= cap) & (spread < limit)


def _told(folder: Path) -> str:
    """Hash of a saved pool as it was saved."""
    try:
        return json.loads((folder / COMPOSITION).read_text(encoding="utf-8"))["hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"no pool ({error!r})", where=str(folder / COMPOSITION)) from None


def _table(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    made = {name: np.array(columns[name], dtype) for name, dtype in COLUMNS.items()}
    for column in made.values():
        column.flags.writeable = False
    return made


def _counted(names: Any) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _link(source: Path, target: Path) -> None:
    """Let a folder begin with the files of another; what it does not need goes again when it is saved."""
    for path in source.iterdir():
        place = target / path.name
        if path.name.startswith(".") or place.exists():
            continue
        try:
            os.link(path, place)
        except OSError:  # another disk, or no links there; a column has its name only when it is whole
            partial = place.with_name(f".{path.name}.part")
            shutil.copyfile(path, partial)
            os.replace(partial, place)
