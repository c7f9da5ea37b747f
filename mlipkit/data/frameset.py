"""Many structures as flat, immutable columns: no Python object per frame."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from mlipkit.data import columns as col
from mlipkit.data import validate
from mlipkit.data.columns import KINDS, LABEL_COLUMNS, Array, Column, Layout, array_text, frozen
from mlipkit.errors import DataError, LabelError, nearest

if TYPE_CHECKING:
    from mlipkit.data.report import DataReport
    from mlipkit.data.splits import Split


class _Flat:
    """A column of the frames shown, as an attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, frames: FrameSet, owner: type | None = None) -> Array:
        return self if frames is None else frames._column(self.name)  # type: ignore[return-value]


class FrameSet(Sequence[Atoms]):
    """Immutable set of F structures with N atoms in all.

    ================  ==================  ==========================================================
    column            type and shape      meaning (NaN = missing)
    ================  ==================  ==========================================================
    numbers           int16 [N]           atomic numbers
    positions         float64 [N,3]       Å
    cell              float64 [F,3,3]     Å, rows are the cell vectors
    pbc               bool [F,3]          periodic along each cell vector
    velocities        float64 [N,3]       Å/fs; None when no frame has them
    energy            float64 [F]         eV
    forces            float64 [N,3]       eV/Å
    stress            float64 [F,3,3]     eV/Å³, tension positive
    uids              uint64 [F]          hash of the structure, made unique within the set
    structure_hashes  uint64 [F]          hash of the structure; equal for identical structures
    source_codes      int32 [F]           index into `sources`
    trajectory        int32 [F]           trajectory number, -1 = not part of one
    time              float64 [F]         fs
    tag_codes         int32 [F]           index into `tags` ("" = no tag)
    ================  ==================  ==========================================================

    `select`, slices, `with_labels` and parts of one set share stored arrays; a selection is an index. Arrays handed out
    are read-only: views where the frames lie side by side, gathered (once) otherwise. ``frames[i]`` is a fresh
    `ase.Atoms`.
    """

    def __init__(self, columns: Mapping[str, Column], sources: tuple[str, ...], tags: tuple[str, ...]) -> None:
        """For the constructors below; use `from_atoms`, `from_arrays`, `open` or `mlipkit.data.read`."""
        self._columns = dict(columns)
        self._sources = sources
        self._tags = tags
        self._gathered: dict[str, Array] = {}
        self._hashes: dict[str, str] = {}
        for stored in self._columns.values():
            stored.values.flags.writeable = False

    # ---- constructors

    @classmethod
    def from_arrays(
        cls,
        numbers: Any,
        positions: Any,
        n_atoms: Any = None,
        *,
        offsets: Any = None,
        cell: Any = None,
        pbc: Any = None,
        velocities: Any = None,
        energy: Any = None,
        forces: Any = None,
        stress: Any = None,
        source: str | Sequence[str] = "memory",
        trajectory: Any = None,
        time: Any = None,
        tag: str | Sequence[str] | None = None,
    ) -> FrameSet:
        """A set from flat arrays.

        Args:
            numbers: int [N], or [n] when all F frames are the same n atoms.
            positions: [N,3] or [F,n,3], Å. (`forces` and `velocities` likewise.)
            n_atoms: one number, or int [F]; or give `offsets` int [F+1]. Not needed for positions [F,n,3].
            cell: [F,3,3], [3,3] for all, or edge lengths [F,3]; zeros when left out.
            pbc: bool [F,3] or [3] for all; False when left out.
            velocities: Å/fs. energy: eV [F]. forces: eV/Å. stress: eV/Å³ [F,3,3] or Voigt [F,6].
            source, tag: one text, or one per frame.
            trajectory: int [F], or one number for all; -1 = none.
            time: fs [F].

        Arrays that are read-only and of the stored type are taken without a copy; all others are copied.

        Raises:
            DataError: a frame without atoms, an unknown element, positions or cells that are not finite, a periodic
                axis without a cell vector, shapes that do not fit. Names source and frame.
            LabelError: a label of the wrong shape, or infinite.
        """
        from mlipkit.data.build import columns_from_arrays

        columns, sources, tags = columns_from_arrays(
            numbers,
            positions,
            n_atoms,
            offsets,
            {
                "cell": cell,
                "pbc": pbc,
                "velocities": velocities,
                "energy": energy,
                "forces": forces,
                "stress": stress,
                "time": time,
            },
            source=source,
            trajectory=trajectory,
            tag=tag,
        )
        return cls(columns, sources, tags)

    @classmethod
    def from_atoms(
        cls, atoms: Sequence[Atoms], source: str | None = None, keys: Mapping[str, str | None] | None = None
    ) -> FrameSet:
        """A set from ASE structures; labels are found by `mlipkit.data.resolve` and constraints are never applied.

        Args:
            atoms: the structures.
            source: where they come from; by default ``info["source"]`` of each, or "memory".
            keys: label -> key that holds it (see `mlipkit.data.resolve`).

        Raises:
            DataError, LabelError: as `from_arrays` and `resolve`.
        """
        from mlipkit.data.build import arrays_from_atoms

        return cls.from_arrays(**arrays_from_atoms([atoms] if isinstance(atoms, Atoms) else list(atoms), source, keys))

    @staticmethod
    def open(folder: str | Path, mmap: bool = True, verify: bool = False) -> FrameSet:
        """Open a folder written by `save`; with `mmap` the columns are read from disk as they are touched.

        Args:
            verify: read them once, and refuse them where they no longer hold what was saved.
        """
        from mlipkit.data.store import open_frames

        return open_frames(folder, mmap=mmap, verify=verify)

    def save(self, folder: str | Path) -> Path:
        """Write the set to a folder, atomically; columns that are there already are not written again."""
        from mlipkit.data.store import save_frames

        return save_frames(self, folder)

    # ---- sizes and columns

    @property
    def _layout(self) -> Layout:
        return self._columns["positions"].layout

    def __len__(self) -> int:
        return self._layout.n_frames

    @cached_property
    def n_atoms(self) -> Array:
        """int64[F] atoms per frame."""
        return frozen(self._layout.n_atoms())

    @cached_property
    def offsets(self) -> Array:
        """int64[F+1] first atom of each frame in the flat columns, N at the end."""
        if self._layout.rows is None:
            return frozen(self._layout.starts)
        return frozen(np.concatenate([[0], np.cumsum(self.n_atoms)]))

    def _column(self, name: str) -> Array:
        stored = self._columns.get(name)
        kind = KINDS[name]
        if stored is None:
            n_rows = int(self.offsets[-1]) if kind.per_atom else len(self)
            return np.broadcast_to(np.array(kind.missing, kind.dtype), (n_rows, *kind.row))
        if stored.layout.contiguous:
            return stored.layout.take(stored.values, kind.per_atom)
        if name not in self._gathered:
            self._gathered[name] = frozen(stored.layout.take(stored.values, kind.per_atom))
        return self._gathered[name]

    numbers = _Flat()
    positions = _Flat()
    cell = _Flat()
    pbc = _Flat()
    energy = _Flat()
    forces = _Flat()
    stress = _Flat()
    uids = _Flat()
    structure_hashes = _Flat()
    source_codes = _Flat()
    trajectory = _Flat()
    time = _Flat()
    tag_codes = _Flat()

    @property
    def velocities(self) -> Array | None:
        return self._column("velocities") if "velocities" in self._columns else None

    @property
    def sources(self) -> tuple[str, ...]:
        """Names behind `source_codes`; a selection keeps the whole table."""
        return self._sources

    @property
    def tags(self) -> tuple[str, ...]:
        """Names behind `tag_codes`; a selection keeps the whole table."""
        return self._tags

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, in order."""
        present = np.zeros(120, bool)
        layout = self._columns["numbers"].layout
        for piece in layout.pieces(self._columns["numbers"].values, per_atom=True):
            present[piece] = True
        return tuple(int(z) for z in np.flatnonzero(present))

    def has(self, label: str) -> Array:
        """bool[F] frames in which `label` (energy, forces, stress, velocities) is complete.

        Raises:
            LabelError: no such label.
        """
        if label not in LABEL_COLUMNS:
            raise LabelError(f"no such label '{label}'", hint=nearest(label, LABEL_COLUMNS))
        if label not in self._columns:
            return np.zeros(len(self), bool)
        values = self._column(label)
        if not KINDS[label].per_atom:
            return np.all(np.isfinite(values), axis=tuple(range(1, values.ndim)))
        if not len(self):
            return np.zeros(0, bool)
        return np.logical_and.reduceat(np.isfinite(values).all(1), self.offsets[:-1])

    # ---- single frames

    def uid(self, i: int) -> str:
        """Sixteen hexadecimal digits that name frame `i`."""
        return f"{int(self.uids[i]):016x}"

    def frame(self, i: int) -> dict[str, Any]:
        """Arrays and table entries of one frame, without gathering the rest; absent labels are NaN.

        Raises:
            IndexError: no such frame.
        """
        n_frames = len(self)
        if not -n_frames <= i < n_frames:
            raise IndexError(f"frame {i} of {n_frames}")
        i %= n_frames
        _, first, end = self._layout.atom_range(i)
        frame: dict[str, Any] = {}
        for name, kind in KINDS.items():
            stored = self._columns.get(name)
            if stored is not None:
                row, a, b = stored.layout.atom_range(i)
                frame[name] = stored.values[a:b] if kind.per_atom else stored.values[row]
            elif name == "velocities":
                frame[name] = None
            else:
                shape = (end - first, *kind.row) if kind.per_atom else kind.row
                frame[name] = np.full(shape, kind.missing, kind.dtype)
        frame["uid"] = f"{int(frame.pop('uids')):016x}"
        frame["source"] = self._sources[int(frame.pop("source_codes"))]
        frame["tag"] = self._tags[int(frame.pop("tag_codes"))]
        frame["structure_hash"] = int(frame.pop("structure_hashes"))
        for name, convert in (("energy", float), ("time", float), ("trajectory", int)):
            frame[name] = convert(frame[name])
        return frame

    def atoms(self, i: int) -> Atoms:
        """Frame `i` as a fresh `ase.Atoms`: labels in a SinglePointCalculator, velocities in ASE's unit, provenance in
        ``info`` (uid, source, and tag, time_fs, trajectory where known)."""
        from mlipkit.data.build import atoms_of_frame

        return atoms_of_frame(self.frame(i))

    @overload
    def __getitem__(self, index: int) -> Atoms: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Array) -> FrameSet: ...
    def __getitem__(self, index: Any) -> Atoms | FrameSet:
        if isinstance(index, bool | np.bool_):
            # Python counts True as 1: a single truth value is a mask that was meant to be longer.
            raise DataError("cannot select frames", expected="a number, slice, mask [F] or integers", found=bool(index))
        if isinstance(index, int | np.integer):
            return self.atoms(int(index))
        return self.select(index)

    def __iter__(self) -> Iterator[Atoms]:
        return (self.atoms(i) for i in range(len(self)))

    # ---- sets from sets

    def select(self, index: slice | Sequence[int] | Array) -> FrameSet:
        """The frames of a slice, a mask bool[F] or integers, in that order; stored arrays are shared.

        Raises:
            DataError: out of range, or a mask of the wrong length.
        """
        chosen = col.as_index(index, len(self))
        layouts = {id(c.layout): c.layout for c in self._columns.values()}
        new = {key: layout.select(chosen) for key, layout in layouts.items()}
        return FrameSet(
            {name: Column(c.values, new[id(c.layout)]) for name, c in self._columns.items()},
            self._sources,
            self._tags,
        )

    def select_uids(self, uids: Sequence[int] | Sequence[str] | Array) -> FrameSet:
        """The frames with these uids (integers or hexadecimal text), in the given order.

        Raises:
            DataError: a uid that is not in the set, or is none.
        """
        wanted = np.array([_uid(uid) for uid in uids], np.uint64)
        mine = self.uids
        order = np.argsort(mine, kind="stable")
        at = np.searchsorted(mine, wanted, sorter=order)
        rows = order[np.minimum(at, len(mine) - 1)] if len(mine) else np.zeros(len(wanted), np.int64)
        missing = mine[rows] != wanted if len(mine) else np.ones(len(wanted), bool)
        if missing.any():
            raise DataError(
                f"{int(missing.sum())} of {len(wanted)} uids are not in this set, the first is "
                f"{int(wanted[missing][0]):016x}",
                hint="Is this the same data, read with the same program version?",
            )
        return self.select(rows)

    def with_labels(
        self, energy: Any = None, forces: Any = None, stress: Any = None, velocities: Any = None
    ) -> FrameSet:
        """The same structures, same uids, with some labels replaced; all other columns are shared.

        Args:
            energy: [F] eV. forces: [N,3] eV/Å. stress: [F,3,3] or [F,6] eV/Å³. velocities: [N,3] Å/fs. None leaves a
                label as it is; a single NaN drops it.

        Raises:
            LabelError: wrong shape, or infinite.
        """
        columns = dict(self._columns)
        layout = Layout(self.offsets)
        given = {"energy": energy, "forces": forces, "stress": stress, "velocities": velocities}
        for name, values in given.items():
            if values is None:
                continue
            if np.ndim(values) == 0 and np.isnan(values):
                columns.pop(name, None)
                continue
            n_rows = int(self.offsets[-1]) if KINDS[name].per_atom else len(self)
            array = validate.column(name, values, n_rows, self._where)
            validate.check_label(name, array, self.offsets, self._where)
            columns[name] = Column(array, layout)
        return FrameSet(columns, self._sources, self._tags)

    def without_labels(self, velocities: bool = True) -> FrameSet:
        """The same structures, same uids, without energy, forces and stress.

        Args:
            velocities: whether they stay; they belong to the motion, not to a level of theory.
        """
        nothing = float("nan")
        return self.with_labels(nothing, nothing, nothing, None if velocities else nothing)

    def with_table(self, *, source: Any = None, tag: Any = None, trajectory: Any = None, time: Any = None) -> FrameSet:
        """The same frames with some entries of the frame table replaced (one value, or one per frame)."""
        columns, sources, tags = dict(self._columns), self._sources, self._tags
        layout = Layout(self.offsets)
        if source is not None:
            sources, codes = col.codes_of(source, len(self), "source")
            columns["source_codes"] = Column(codes, layout)
        if tag is not None:
            tags, codes = col.codes_of(tag, len(self), "tag")
            columns["tag_codes"] = Column(codes, layout)
        for name, values in (("trajectory", trajectory), ("time", time)):
            if values is not None:
                values = np.broadcast_to(np.asarray(values), (len(self),)) if np.ndim(values) == 0 else values
                columns[name] = Column(validate.column(name, values, len(self), self._where), layout)
        return FrameSet(columns, sources, tags)

    def concat(self: FrameSet | Sequence[FrameSet], *others: FrameSet) -> FrameSet:
        """All frames of several sets in order: ``a.concat(b, c)`` or ``FrameSet.concat([a, b, c])``.

        Columns that the sets share (parts of one set) stay shared, others are copied. A uid that occurs twice is made
        unique (the first frame keeps it). Trajectories keep their number among parts of one set and are renumbered
        between different sets.
        """
        from mlipkit.data.concat import concat_frames

        parts = [self, *others] if isinstance(self, FrameSet) else [*self, *others]
        return concat_frames(parts)

    def split(
        self,
        validation: float | int = 0.1,
        test: float | int = 0.1,
        by: str = "auto",
        seed: int = 0,
        gap: int = 0,
    ) -> Split:
        """Training, validation and test part; see `mlipkit.data.splits.split`."""
        from mlipkit.data.splits import split

        return split(self, validation=validation, test=test, by=by, seed=seed, gap=gap)

    # ---- identity and summaries

    def hashes(self) -> dict[str, str]:
        """One hexadecimal hash per stored column, of the frames shown, however they are stored."""
        for name, stored in self._columns.items():
            if name not in self._hashes:
                self._hashes[name] = self._hash_of(name, stored)
        return {name: self._hashes[name] for name in KINDS if name in self._columns}

    def _hash_of(self, name: str, stored: Column) -> str:
        kind, layout = KINDS[name], stored.layout
        if name in ("source_codes", "tag_codes"):
            names = self._sources if name == "source_codes" else self._tags
            codes, used = col.compact_codes(self._column(name), names)
            return col.array_hash(iter([codes]), kind.dtype, kind.row, repr(used))
        extra = array_text(self.offsets) if name == "numbers" else ""
        return col.array_hash(layout.pieces(stored.values, kind.per_atom), kind.dtype, kind.row, extra)

    @property
    def hash(self) -> str:
        """One hash of the whole set."""
        text = ",".join(f"{name}={value}" for name, value in self.hashes().items())
        return col.array_hash(iter([np.frombuffer(text.encode(), np.uint8)]), "set", ())

    def __eq__(self, other: object) -> bool:
        """Equal when every column holds the same bits, frame by frame."""
        if not isinstance(other, FrameSet):
            return NotImplemented
        return self is other or (len(self) == len(other) and self.hashes() == other.hashes())

    def __hash__(self) -> int:
        return hash(self.hash)

    def report(self) -> DataReport:
        """Label coverage, plausibility, outliers, duplicates, composition; see `mlipkit.data.report`."""
        from mlipkit.data.report import report

        return report(self)

    def describe(self) -> str:
        """One line: how many frames of what, which labels, from where."""
        if not len(self):
            return "no frames"
        low, high = int(self.n_atoms.min()), int(self.n_atoms.max())
        size = f"{low} atoms" if low == high else f"{low} to {high} atoms"
        symbols = " ".join(chemical_symbols[z] for z in self.elements)
        labels = [f"{name} {int(self.has(name).sum())}/{len(self)}" for name in LABEL_COLUMNS if name in self._columns]
        codes = np.unique(self.source_codes)
        sources = self._sources[int(codes[0])] if len(codes) == 1 else f"{len(codes)} sources"
        return f"{len(self)} frames of {size} ({symbols}); {', '.join(labels) or 'no labels'}; {sources}"

    def __repr__(self) -> str:
        return f"<FrameSet: {self.describe()}>"

    def _where(self, frame: int) -> tuple[str, str]:
        return self._sources[int(self.source_codes[frame])] if len(self) else "memory", f"frame {frame}"


def _uid(uid: Any) -> int:
    """A uid as a number, from a number or hexadecimal text."""
    try:
        number = int(uid, 16) if isinstance(uid, str) else operator.index(uid)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < 1 << 64:
        raise DataError(
            "no uid", where="select_uids", expected="64-bit integers or their hexadecimal text", found=repr(uid)
        )
    return number
