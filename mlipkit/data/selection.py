"""Frames that somebody picked, and why: uids, the atoms that were meant, and the criterion as data and in words.

>>> rare = Selection.of(frames, rows=[3, 17], sentence="lasso in PC1, PC2", tag="rare")
>>> rare.frames(frames).describe()
>>> rare.export("rare.extxyz", frames)      # TrainSpec(data=["train.extxyz", "rare.extxyz"]) trains on it

A selection names frames, it does not hold them: whoever has the sets can get the frames back. `mlipkit.data.tray` keeps
a growing one on disk.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlipkit.data.frameset import FrameSet
from mlipkit.data.store import _replace_text
from mlipkit.errors import DataError

if TYPE_CHECKING:
    from mlipkit.data.jobs import Exported

FORMAT: Final = "mlipkit-selection"
VERSION: Final = 1

Sets = FrameSet | Sequence[FrameSet] | Mapping[str, FrameSet]
Atoms = dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Selection:
    """Frames by uid, each as a whole or for the sake of some of its atoms.

    Attributes:
        uids: the frames, each once, in the order they were picked.
        atoms: uid -> indices of the atoms that were meant, ascending; a frame that is not in it is meant as a whole.
        criterion: what made the selection, as plain data (JSON).
        sentence: the same in words.
        tag: name that exported frames carry.
        time: when it was made, seconds since 1970.
    """

    uids: tuple[int, ...] = ()
    atoms: Atoms = field(default_factory=dict)
    criterion: dict[str, Any] = field(default_factory=dict)
    sentence: str = ""
    tag: str = ""
    time: float = field(default_factory=time.time, compare=False)

    @classmethod
    def of(
        cls,
        frames: FrameSet,
        rows: Iterable[int] | None = None,
        atoms: Mapping[int, Iterable[int]] | None = None,
        *,
        criterion: Mapping[str, Any] | None = None,
        sentence: str = "",
        tag: str = "",
    ) -> Selection:
        """Frames of one set by their row.

        Args:
            frames: the set.
            rows: which of its frames; those of `atoms` when omitted, or all of them without `atoms` either.
            atoms: row -> indices of the atoms that are meant.

        Raises:
            DataError: a row or an atom that is not there.
        """
        picked = {int(row): tuple(sorted({int(i) for i in some})) for row, some in (atoms or {}).items()}
        wanted = [int(row) for row in (rows if rows is not None else picked or range(len(frames)))]
        for row in dict.fromkeys([*wanted, *picked]):
            if not 0 <= row < len(frames):
                raise DataError("no such frame", where="selection", expected=f"0 to {len(frames) - 1}", found=row)
            some = picked.get(row, ())
            if some and not 0 <= some[0] <= some[-1] < frames.n_atoms[row]:
                raise DataError(
                    "no such atom", where=("selection", f"frame {row}"),
                    expected=f"0 to {int(frames.n_atoms[row]) - 1}", found=some[-1] if some[0] >= 0 else some[0],
                )  # fmt: skip
        uids = frames.uids
        rows = set(wanted)
        return cls(
            tuple(dict.fromkeys(int(uids[row]) for row in wanted)),
            {int(uids[row]): some for row, some in picked.items() if some and row in rows},
            dict(criterion or {}), sentence, tag,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.uids)

    def __contains__(self, uid: object) -> bool:
        return uid in self.uids

    @property
    def n_atoms(self) -> int:
        """Number of atoms that were meant one by one."""
        return sum(map(len, self.atoms.values()))

    def __repr__(self) -> str:
        return f"<Selection: {self.describe()}>"

    def describe(self) -> str:
        """One line: how many frames and atoms, and why."""
        text = f"{len(self)} frame{'s' * (len(self) != 1)}"
        if self.n_atoms:
            text += f" for {self.n_atoms} of their atoms"
        return text + (f": {self.sentence}" if self.sentence else "")

    def tagged(self, tag: str) -> Selection:
        """The same under another tag."""
        return replace(self, tag=tag)

    # ---- selections from selections

    def union(self, other: Selection) -> Selection:
        """Frames of either; of a frame in both the atoms of both, or all when one of them means it as a whole."""
        uids = tuple(dict.fromkeys([*self.uids, *other.uids]))
        whole = {uid for one in (self, other) for uid in one.uids if uid not in one.atoms}
        atoms = {
            uid: tuple(sorted({*self.atoms.get(uid, ()), *other.atoms.get(uid, ())}))
            for uid in uids
            if uid not in whole
        }
        return self._made("union", other, uids, atoms)

    def minus(self, other: Selection) -> Selection:
        """Without the other's frames. Where the other means atoms only, these go, and the frame with the last of them.

        A frame that is meant as a whole here stays when the other means some of its atoms.
        """
        gone, uids, atoms = set(other.uids), [], {}
        for uid in self.uids:
            mine, theirs = self.atoms.get(uid), other.atoms.get(uid)
            if uid in gone and theirs is None:
                continue
            left = tuple(i for i in mine if i not in set(theirs or ())) if mine is not None else None
            if left == ():
                continue
            uids.append(uid)
            if left is not None:
                atoms[uid] = left
        return self._made("minus", other, tuple(uids), atoms)

    def invert(self, sets: Sets) -> Selection:
        """All frames of the sets that are not selected, as wholes."""
        mine = set(self.uids)
        everything = dict.fromkeys(int(uid) for one in _listed(sets) for uid in one.uids)
        uids = tuple(uid for uid in everything if uid not in mine)
        return Selection(
            uids, {}, {"kind": "invert", "of": self.criterion}, f"all but ({self.sentence})" if self.sentence else "",
            self.tag,
        )  # fmt: skip

    __or__ = union
    __sub__ = minus

    def _made(self, kind: str, other: Selection, uids: tuple[int, ...], atoms: Atoms) -> Selection:
        if not self.uids and kind == "union":
            criterion, sentence = other.criterion, other.sentence
        else:
            # One flat list however often something is added.
            parts = self.criterion["of"] if self.criterion.get("kind") == kind else [self.criterion]
            criterion = {"kind": kind, "of": [*parts, other.criterion]}
            word = {"union": "; ", "minus": " without "}[kind]
            sentence = word.join(text for text in (self.sentence, other.sentence) if text)
        return Selection(uids, atoms, criterion, sentence, self.tag or other.tag)

    # ---- back to frames

    def frames(self, sets: Sets) -> FrameSet:
        """The selected frames out of the sets, tagged; the first set that holds a frame gives it.

        Raises:
            DataError: nothing is selected, or a frame is in none of the sets.
        """
        if not self.uids:
            raise DataError("nothing is selected", where="selection")
        parts, missing = [], list(self.uids)
        for one in _listed(sets):
            known = {int(uid) for uid in one.uids}
            if found := [uid for uid in missing if uid in known]:
                parts.append(one.select_uids(found))
                missing = [uid for uid in missing if uid not in known]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self)} frames are in none of the sets", where="selection",
                found=f"uid {missing[0]:016x}", hint="Give all sets that the selection was made from",
            )  # fmt: skip
        frames = FrameSet.concat(parts).select_uids(self.uids)
        return frames.with_table(tag=self.tag) if self.tag else frames

    def export(self, path: str | Path, sets: Sets) -> Path:
        """Write the selected frames with tag and uids, and beside them the selection itself (same name, ``.json``).

        Args:
            path: ``.extxyz`` or what else `mlipkit.data.write` writes. Training takes the file as `data`, and its
                record of uids (`split.json`) then holds those selected: a uid follows from the structure.
            sets: where the frames are.

        Raises:
            DataError: as `frames` and `mlipkit.data.write`.
        """
        from mlipkit.data.write import write

        path = Path(path)
        frames = self.frames(sets)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, frames)
        self.save(path.with_name(path.name.split(".")[0] + ".json"))
        return path

    def export_jobs(
        self, folder: str | Path, sets: Sets, template: str | Path, format: str | None = None,
        species: Sequence[str] | None = None, box: float | Sequence[float] | None = None,
    ) -> Exported:  # fmt: skip
        """One folder per selected frame with the user's own inputs of VASP or CP2K; `mlipkit.labelling.collect` reads
        what becomes of them. See `mlipkit.data.jobs.export_jobs`.

        Args:
            sets: where the frames are.

        Raises:
            DataError: as `frames` and `export_jobs`.
        """
        from mlipkit.data.jobs import export_jobs

        return export_jobs(self.frames(sets), folder, template, format, species, box)

    # ---- on disk

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; `from_json` is the inverse."""
        return {
            "format": FORMAT, "version": VERSION, "tag": self.tag, "sentence": self.sentence, "time": self.time,
            "criterion": self.criterion, "uids": [f"{uid:016x}" for uid in self.uids],
            "atoms": {f"{uid:016x}": list(some) for uid, some in self.atoms.items()},
        }  # fmt: skip

    @staticmethod
    def from_json(record: Any, where: str = "selection") -> Selection:
        """The selection of a record.

        Raises:
            DataError: not one, or written by a newer version.
        """
        try:
            if (record["format"], record["version"]) != (FORMAT, VERSION):
                raise DataError(
                    "unknown format", where=where, expected=f"{FORMAT} version {VERSION}",
                    found=f"{record['format']} version {record['version']}",
                )  # fmt: skip
            return Selection(
                tuple(int(uid, 16) for uid in record["uids"]),
                {int(uid, 16): tuple(map(int, some)) for uid, some in record["atoms"].items()},
                dict(record["criterion"]), str(record["sentence"]), str(record["tag"]), float(record["time"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise DataError(f"not the record of a selection ({problem!r})", where=where) from None

    def save(self, path: str | Path) -> Path:
        """Write it to a JSON file, which appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace_text(path, json.dumps(self.to_json(), indent=1, ensure_ascii=False))
        return path

    @staticmethod
    def load(path: str | Path) -> Selection:
        """Read what `save` wrote.

        Raises:
            DataError: no such file, or it holds no selection.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError("no such file", where=str(path)) from None
        except (OSError, ValueError) as problem:
            raise DataError(f"cannot be read: {problem}", where=str(path)) from None
        return Selection.from_json(record, str(path))


def _listed(sets: Sets) -> list[FrameSet]:
    if isinstance(sets, FrameSet):
        return [sets]
    return list(sets.values() if isinstance(sets, Mapping) else sets)
