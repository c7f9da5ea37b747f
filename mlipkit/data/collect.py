"""Gathers frames from files into the flat columns of a `FrameSet`; no Python object per frame stays alive."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np

from mlipkit.data import validate
from mlipkit.data.columns import KINDS
from mlipkit.data.frameset import FrameSet
from mlipkit.data.reading import Block, FileReport, label_of
from mlipkit.data.resolve import Coverage, Keys, RawFrame, Resolved, resolve_frame
from mlipkit.data.trajectories import UNKNOWN, assign
from mlipkit.errors import LabelError
from mlipkit.labels import LABELS

_ATOMS_PER_CHUNK = 1 << 16


class Collector:
    """Takes frames or blocks file by file, then makes one `FrameSet`.

    Memory: the columns themselves, plus one column while it is joined, plus a chunk.

    Args:
        keys: label -> key, as `resolve`.
        allow_partial: labels may be missing on some frames, and a label that is NaN throughout counts as missing.
    """

    def __init__(self, keys: Keys | None = None, allow_partial: bool = False) -> None:
        self.keys, self.allow_partial = keys, allow_partial
        self.coverage = Coverage()
        self._chunks: list[dict[str, np.ndarray]] = []
        self._pending: dict[str, list[Any]] = {name: [] for name in ("counts", *KINDS)}
        self._pending_atoms = 0
        self._places: list[tuple[int, int]] = []
        self._files: list[tuple[FileReport, str, bool, int]] = []
        self._names: dict[str, dict[str, int]] = {"source": {}, "tag": {}}
        self._codes = {"source": array("i"), "tag": array("i")}
        self._time, self._other = array("d"), array("d")
        self._stated, self._stated_by = array("i"), array("i")

    @property
    def frames(self) -> int:
        """Frames taken so far."""
        return len(self._time)

    def start(self, path: Path, report: FileReport, *, one_run: bool = False) -> None:
        """The following frames come from `path`."""
        self._files.append((report, label_of(path), one_run, self.frames))

    def add(self, frame: RawFrame, number: int, time: float | None = None) -> None:
        """One frame; `number` is its place in the file, `time` (fs) overrides what the frame says."""
        _, file, _, _ = self._files[-1]
        where = f"{file}: frame {number}"
        found = resolve_frame(frame, self.keys, where=where, nan_is_missing=self.allow_partial)
        self.coverage.add(
            found, n_atoms=len(frame.numbers), periodic=bool(np.all(frame.pbc)), where=where, names=frame.names()
        )
        pending = self._pending
        pending["counts"].append(len(frame.numbers))
        for name in ("numbers", "positions", "cell", "pbc"):
            pending[name].append(np.asarray(getattr(frame, name), KINDS[name].dtype))
        for label in LABELS:
            pending[label].append(found.values.get(label))
        self._note(found, frame.info, time)
        self._places.append((len(self._files) - 1, number))
        self._pending_atoms += len(frame.numbers)
        if self._pending_atoms >= _ATOMS_PER_CHUNK:
            self._flush()

    def add_block(self, block: Block) -> None:
        """Frames of equal size, as arrays."""
        self._flush()
        _, file, _, _ = self._files[-1]
        n_frames, n_atoms = block.positions.shape[:2]
        chunk: dict[str, np.ndarray] = {
            "counts": np.full(n_frames, n_atoms),
            "numbers": _int16(block.numbers if block.numbers.ndim == 2 else np.tile(block.numbers, (n_frames, 1))),
            "positions": block.positions.reshape(-1, 3),
            "cell": np.broadcast_to(np.zeros((3, 3)) if block.cell is None else block.cell, (n_frames, 3, 3)),
            "pbc": np.full((n_frames, 3), block.pbc),
        }
        complete: dict[str, np.ndarray] = {}
        for label, values in block.values.items():
            complete[label] = self._judge(label, values, block, file)
            chunk[label] = values.reshape(-1, 3) if KINDS[label].per_atom else values
        for row, number in enumerate(block.frames):
            values = {label: True for label, good in complete.items() if good[row]}
            found = Resolved(values, {label: block.origins[label] for label in values})
            where = f"{file}: frame {number}"
            self.coverage.add(found, n_atoms=n_atoms, periodic=block.pbc, where=where, names=block.names)
            self._note(found, {}, None)
            self._places.append((len(self._files) - 1, number))
        self._store(chunk)

    def finish(self) -> tuple[FrameSet, np.ndarray | None]:
        """The set, and the extrapolated energies [F] where they differ in origin from the ones taken (else None)."""
        self._flush()
        counts = self._joined("counts", (0,), "<i8")
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        columns: dict[str, Any] = {}
        for name in ("numbers", "positions", "cell", "pbc", *LABELS):
            if name in LABELS and not any(name in chunk for chunk in self._chunks):
                continue
            columns[name] = self._joined(name, (0, *KINDS[name].row), KINDS[name].dtype)
        time = np.frombuffer(self._time, np.float64) if self._time else np.zeros(0)
        sources, tags = list(self._names["source"]), list(self._names["tag"])
        trajectory = self._trajectories(columns, starts, time)
        frames = FrameSet.from_arrays(
            columns.pop("numbers"),
            columns.pop("positions"),
            offsets=starts,
            **columns,
            source=[sources[code] for code in self._codes["source"]],
            tag=[tags[code] for code in self._codes["tag"]],
            trajectory=trajectory,
            time=time,
        )
        other = np.frombuffer(self._other, np.float64)
        return frames, other.copy() if np.isfinite(other).any() else None

    def _trajectories(self, columns: dict[str, Any], starts: np.ndarray, time: np.ndarray) -> np.ndarray:
        result = np.full(len(time), -1, np.int32)
        stated, source = np.array(self._stated), np.array(self._stated_by)
        following = 0
        ends = [first for _, _, _, first in self._files[1:]] + [len(time)]
        for (report, _, one_run, first), end in zip(self._files, ends, strict=True):
            rows, atoms = slice(first, end), slice(int(starts[first]), int(starts[end]))
            local, note = assign(
                columns["numbers"][atoms],
                columns["positions"][atoms],
                starts[first : end + 1] - starts[first],
                time=time[rows],
                stated=stated[rows],
                source=source[rows],
                one_run=one_run,
            )
            result[rows] = np.where(local >= 0, local + following, -1)
            following += int(local.max(initial=-1)) + 1
            if note:
                report.notes.append(note)
        return result

    def _note(self, found: Resolved, info: Any, time: float | None) -> None:
        default = self._files[-1][1]
        for kind, text in (("source", found.source or default), ("tag", found.tag)):
            names = self._names[kind]
            self._codes[kind].append(names.setdefault(text, len(names)))
        self._time.append(found.time if time is None else time)
        self._other.append(np.nan if found.other_energy is None else found.other_energy)
        self._stated.append(found.trajectory if "trajectory" in info else UNKNOWN)
        # Files written by mlipkit number trajectories across sources; others may start again in each source.
        self._stated_by.append(-1 if "uid" in info else self._codes["source"][-1])

    def _judge(self, label: str, values: np.ndarray, block: Block, file: str) -> np.ndarray:
        """bool [F] frames of a block that have the label; NaN and infinities are treated as in single frames."""
        flat = values.reshape(len(values), -1)
        good = np.asarray(np.isfinite(flat).all(axis=1))
        bad = ~good & ~np.isnan(flat).all(axis=1) if self.allow_partial else ~good
        if bad.any():
            row = int(np.argmax(bad))
            nan = bool(np.isnan(flat[row]).any())
            raise LabelError(
                f"{label} is not finite",
                where=(file, f"frame {block.frames[row]}", block.origins[label]),
                expected="finite numbers",
                found="NaN" if nan else "infinite",
                hint="allow_partial=True reads an all-NaN label as missing" if nan else None,
            )
        return good

    def _flush(self) -> None:
        pending = self._pending
        n_frames = len(pending["counts"])
        if not n_frames:
            return
        counts = np.array(pending["counts"])
        chunk: dict[str, np.ndarray] = {"counts": counts}
        for name in ("numbers", "positions"):
            chunk[name] = np.concatenate(pending[name])
        for name in ("cell", "pbc"):
            chunk[name] = np.stack(pending[name])
        for label in LABELS:
            values, kind = pending[label], KINDS[label]
            if any(value is not None for value in values):
                shapes = [(n, *kind.row) if kind.per_atom else (1, *kind.row) for n in pending["counts"]]
                chunk[label] = np.concatenate(
                    [
                        np.full(shape, np.nan) if value is None else np.reshape(value, shape)
                        for value, shape in zip(values, shapes, strict=True)
                    ]
                )
        self._pending = {name: [] for name in pending}
        self._pending_atoms = 0
        self._store(chunk)

    def _store(self, chunk: dict[str, np.ndarray]) -> None:
        starts = np.concatenate([[0], np.cumsum(chunk["counts"])])
        places = self._places

        def where(row: int) -> tuple[str, str]:
            file, number = places[row]
            return self._files[file][1], f"frame {number}"

        # Here the file and the frame in it are known; later only the set is.
        validate.check_structures(
            chunk["numbers"], chunk["positions"], starts, np.asarray(chunk["cell"]), chunk["pbc"], where
        )
        self._places = []
        self._chunks.append(chunk)

    def _joined(self, name: str, empty: tuple[int, ...], dtype: str) -> np.ndarray:
        """One column of all chunks, each given back once it is copied; read-only, so that it is not copied again."""
        kind = KINDS.get(name)
        per_atom = kind is not None and kind.per_atom
        sizes = [int(chunk["counts"].sum()) if per_atom else len(chunk["counts"]) for chunk in self._chunks]
        joined = np.empty((sum(sizes), *empty[1:]), dtype)
        first = 0
        for chunk, size in zip(self._chunks, sizes, strict=True):
            part = chunk["counts"] if name == "counts" else chunk.pop(name, np.nan)
            joined[first : first + size] = part
            first += size
        joined.flags.writeable = False
        return joined


def _int16(numbers: np.ndarray) -> np.ndarray:
    # Out-of-range values must reach the check of elements instead of wrapping around.
    return np.clip(numbers.reshape(-1), -1, 1000).astype("<i2")
