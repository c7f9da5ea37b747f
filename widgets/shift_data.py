"""What the shift explorer shows, as plain arrays: sets of frames with a point per atom, and questions about them.

Nothing here knows of widgets or of how the numbers were found: `shift_computing` fills it from a child process, tests
with numbers that are made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from mlipkit.data import FrameSet, Selection
from mlipkit.errors import DataError

from .map_plot import inside

MAPS: dict[str, tuple[str, str]] = {"PC1, PC2": ("PC1", "PC2"), "PC3, PC4": ("PC3", "PC4"), "T², Q": ("T²", "Q")}
"""Maps that need nothing beyond the scores, and their axes. "t-SNE" joins once it was computed."""
BIN = 0.1
"""Width of the bins by which "only in" compares sets, in the unit of the map (as for PCA scores)."""


@dataclass(frozen=True)
class Points:
    """The atoms of F frames, N in all.

    Attributes:
        numbers: int [N]; offsets: int [F+1].
        scores: [N,k] projections on the principal components.
        q, t2: [N] residual and Hotelling's T²; limit: [N] of Q, above which an atom is outside the training space, NaN
            for an element that the fit-on set lacks.
        embedding: [N,2] t-SNE, NaN where an atom was not embedded; None before it was asked for.
        force_error: [N] eV/Å, None without forces to compare.
        uids: uint64 [F] of a run's frames, which have none on disk; None where the frames know them.
    """

    numbers: np.ndarray
    offsets: np.ndarray
    scores: np.ndarray
    q: np.ndarray
    t2: np.ndarray
    limit: np.ndarray
    embedding: np.ndarray | None = None
    force_error: np.ndarray | None = None
    uids: np.ndarray | None = None

    @property
    def n_frames(self) -> int:
        return len(self.offsets) - 1

    @property
    def ratio(self) -> np.ndarray:
        """Q over its limit [N]; above 1 is outside the training space, infinite for an element that has no limit."""
        return np.where(np.isfinite(self.limit) | np.isnan(self.q), self.q / self.limit, np.inf)

    def worst(self, row: int) -> int:
        """The atom of a frame that is furthest outside; the first one when nothing is known of the frame."""
        ratio = self.ratio[self.atoms_of(row)]
        return 0 if np.isnan(ratio).all() else int(np.nanargmax(ratio))

    def atoms_of(self, row: int) -> slice:
        """Where the atoms of a frame lie."""
        return slice(int(self.offsets[row]), int(self.offsets[row + 1]))


@dataclass
class ShiftSet:
    """Frames of one origin under one name, and their points as far as they are known.

    Attributes:
        frames: a FrameSet, or the growing frames of a run.
        points: None before they are computed.
        run: the run whose simulation this is; None for a set of data.
        replica: which of the run's simulations.
        origin: the set as a specification would name it, "" when it came as an object.
        fitted: the components were fitted on it (the fit-on set).
        marks: frame -> "warning" or "failure".
    """

    name: str
    frames: FrameSet | Sequence[Atoms]
    points: Points | None = None
    run: Any = None
    replica: int = 0
    origin: str = ""
    fitted: bool = False
    marks: dict[int, str] = field(default_factory=dict)

    def time(self, row: int) -> float:
        """Simulated time of a frame, fs; NaN when it has none."""
        if isinstance(self.frames, FrameSet):
            return float(self.frames.time[row])
        return float(self.frames.time(row))  # type: ignore[attr-defined]

    def times(self) -> np.ndarray:
        """[F] of the frames with points, fs; frame numbers where they are not one run (`timed`)."""
        count = self.points.n_frames if self.points is not None else 0
        if not self.timed:
            return np.arange(count, dtype=float)
        known = self.frames.time if isinstance(self.frames, FrameSet) else self.frames.times()  # type: ignore[attr-defined]
        return np.asarray(known[:count])

    @property
    def timed(self) -> bool:
        """The frames have a time, and follow each other in one run."""
        if not isinstance(self.frames, FrameSet):
            return True
        time = self.frames.time
        return bool(len(time) > 1 and np.isfinite(time).all() and (np.diff(time) > 0).all())

    def sound(self, rows: Iterable[int]) -> list[int]:
        """Those frames whose positions are numbers; a simulation may have lost them."""
        if isinstance(self.frames, FrameSet):
            return list(rows)
        return [row for row in rows if np.isfinite(self.frames[row].positions).all()]

    def frame_set(self, rows: Sequence[int]) -> FrameSet:
        """Some of the frames with their uids."""
        if isinstance(self.frames, FrameSet):
            return self.frames.select(np.asarray(rows, int))
        return FrameSet.from_atoms([self.frames[row] for row in rows], source=self.name)


class ShiftData:
    """Several sets, and one list of points over all of them.

    Args:
        sets: in the order of the screen.
        explained: share of the variance that each component explains, for the titles of the axes.
        bands: element -> lowest and highest usual Q of a frame's mean (mean - 2 std, mean + 2 std of the fit-on set).
    """

    def __init__(
        self,
        sets: Sequence[ShiftSet] = (),
        explained: Sequence[float] = (),
        bands: Mapping[int, tuple[float, float]] | None = None,
    ) -> None:
        self.sets = list(sets)
        self.explained, self.bands = tuple(explained), dict(bands or {})
        self.revision = 0

    def __getitem__(self, name: str) -> ShiftSet:
        for one in self.sets:
            if one.name == name:
                return one
        raise DataError(f"there is no set '{name}'", found=", ".join(self.names))

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.sets]

    def changed(self) -> None:
        """Say that points were replaced or have grown."""
        self.revision += 1
        for name in ("_all", "elements"):
            self.__dict__.pop(name, None)

    @cached_property
    def _all(self) -> dict[str, np.ndarray]:
        known = [(code, one.points) for code, one in enumerate(self.sets) if one.points is not None]

        def joined(make: Any, width: int | None = None) -> np.ndarray:
            parts = [np.asarray(make(points)) for _, points in known]
            return np.concatenate(parts) if parts else np.zeros((0,) if width is None else (0, width))

        def optional(name: str, shape: tuple[int, ...]) -> Any:
            return lambda points: (
                found if (found := getattr(points, name)) is not None else np.full((len(points.q), *shape), np.nan)
            )

        width = min((points.scores.shape[1] for _, points in known), default=2)
        counts = [np.diff(points.offsets) for _, points in known]
        rows = [np.repeat(np.arange(len(count)), count) for count in counts]
        atoms = [
            np.arange(int(points.offsets[-1])) - np.repeat(points.offsets[:-1], count)
            for (_, points), count in zip(known, counts, strict=True)
        ]
        nothing = np.zeros(0, np.int64)
        return {
            "numbers": joined(lambda p: p.numbers).astype(int),
            "scores": joined(lambda p: p.scores[:, :width], width),
            "q": joined(lambda p: p.q), "t2": joined(lambda p: p.t2), "ratio": joined(lambda p: p.ratio),
            "force_error": joined(optional("force_error", ())), "embedding": joined(optional("embedding", (2,)), 2),
            "set": np.concatenate([np.full(len(p.q), code) for code, p in known]) if known else nothing,
            "row": np.concatenate(rows) if rows else nothing, "atom": np.concatenate(atoms) if atoms else nothing,
        }  # fmt: skip

    def column(self, name: str) -> np.ndarray:
        """One number per atom of all sets: numbers, q, t2, ratio, force_error, set, row, atom."""
        return self._all[name]

    @cached_property
    def elements(self) -> list[int]:
        """Atomic numbers that occur among the points."""
        return [int(z) for z in np.unique(self._all["numbers"])]

    @property
    def n_points(self) -> int:
        return len(self._all["q"])

    @property
    def maps(self) -> list[str]:
        """Maps that can be shown now."""
        width = self._all["scores"].shape[1]
        return [name for name in MAPS if name != "PC3, PC4" or width >= 4] + (
            ["t-SNE"] if np.isfinite(self._all["embedding"]).any() else []
        )

    def coordinates(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """x and y [N] of a map."""
        every = self._all
        if name == "t-SNE":
            return every["embedding"][:, 0], every["embedding"][:, 1]
        if name == "T², Q":
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.log10(every["t2"]), np.log10(every["q"])
        first = 2 if name == "PC3, PC4" else 0
        return every["scores"][:, first], every["scores"][:, first + 1]

    def axes(self, name: str) -> tuple[str, str]:
        """Titles of the axes of a map."""
        if name == "t-SNE":
            return "t-SNE 1", "t-SNE 2"
        if name == "T², Q":
            return "log10 T² (within the components)", "log10 outside training space (SOAP Q)"
        first = 2 if name == "PC3, PC4" else 0

        def title(which: int) -> str:
            share = f" ({100 * self.explained[which]:.1f} %)" if which < len(self.explained) else ""
            return f"PC{which + 1}{share}"

        return title(first), title(first + 1)

    def shown(self, elements: Sequence[int], sets: Sequence[str]) -> np.ndarray:
        """bool [N]: points of these elements and sets."""
        codes = [code for code, name in enumerate(self.names) if name in sets]
        return np.isin(self._all["numbers"], list(elements)) & np.isin(self._all["set"], codes)

    def bin_width(self, map_name: str) -> float:
        """Width of the bins that compare sets: fixed for scores, else a hundredth of the map."""
        if map_name.startswith("PC"):
            return BIN
        both = [values[np.isfinite(values)] for values in self.coordinates(map_name)]
        return max((float(np.ptp(values)) for values in both if len(values)), default=1.0) / 100 or BIN

    def only_in(self, name: str, map_name: str, shown: np.ndarray) -> np.ndarray:
        """bool [N]: shown points of a set in bins that no other shown set reaches, element by element."""
        x, y = self.coordinates(map_name)
        width = self.bin_width(map_name)
        code = self.names.index(name)
        known = shown & np.isfinite(x) & np.isfinite(y)
        place = np.stack([self._all["numbers"], np.floor(np.nan_to_num(x) / width), np.floor(np.nan_to_num(y) / width)])
        _, bins = np.unique(place[:, known].astype(np.int64), axis=1, return_inverse=True)
        mine = self._all["set"][known] == code
        taken = np.zeros(int(bins.max(initial=-1)) + 1, bool)
        taken[bins.ravel()[~mine]] = True
        found = np.zeros(len(x), bool)
        found[np.flatnonzero(known)[mine & ~taken[bins.ravel()]]] = True
        return found

    def place(self, index: int) -> tuple[str, int, int]:
        """Set, frame and atom of a point."""
        every = self._all
        return self.names[int(every["set"][index])], int(every["row"][index]), int(every["atom"][index])

    def index(self, name: str, row: int, atom: int = 0) -> int:
        """The point of an atom; -1 when it has none (yet)."""
        every, code = self._all, self.names.index(name)
        one = self.sets[code].points
        if one is None or not 0 <= row < one.n_frames or not 0 <= atom < one.offsets[row + 1] - one.offsets[row]:
            return -1
        return int(np.searchsorted(every["set"], code)) + int(one.offsets[row]) + atom

    def labels(self, indices: np.ndarray) -> list[str]:
        """Many atoms in words, each with its Q."""
        every, names = self._all, self.names
        columns = (every[name][indices].tolist() for name in ("numbers", "atom", "row", "set", "q"))
        return [
            f"{chemical_symbols[z]} {atom}, frame {row} of {names[code]}<br>Q {q:.3g}"
            for z, atom, row, code, q in zip(*columns, strict=True)
        ]

    # ---- selections

    def within(self, map_name: str, polygon: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """Numbers of the shown points inside a polygon on a map; all are asked, not only those drawn."""
        x, y = self.coordinates(map_name)
        some = np.flatnonzero(shown)
        return some[inside(polygon, x[some], y[some])]

    def select(self, indices: np.ndarray, criterion: Mapping[str, Any], sentence: str) -> Selection:
        """The frames of points, each for the sake of its points."""
        made = Selection()
        every = self._all
        for code in np.unique(every["set"][indices]):
            some = indices[every["set"][indices] == code]
            rows, inverse = np.unique(every["row"][some], return_inverse=True)
            frames = self.sets[int(code)].frame_set(rows.tolist())
            order = np.argsort(inverse, kind="stable")
            parts = np.split(every["atom"][some][order], np.cumsum(np.bincount(inverse))[:-1])
            made = made.union(Selection.of(frames, atoms={i: part.tolist() for i, part in enumerate(parts)}))
        return Selection(made.uids, made.atoms, dict(criterion), sentence)

    def chosen(self, selection: Selection) -> np.ndarray:
        """bool [N]: points that a selection means."""
        every = self._all
        found = np.zeros(len(every["q"]), bool)
        if not len(selection):
            return found
        for code, one in enumerate(self.sets):
            if one.points is None:
                continue
            first = int(np.searchsorted(every["set"], code))
            for row, uid in self._rows(one, selection):
                mine = one.points.atoms_of(row)
                atoms = selection.atoms.get(uid)
                if atoms is None:
                    found[first + mine.start : first + mine.stop] = True
                else:
                    found[first + mine.start + np.asarray(atoms)] = True
        return found

    def rows_of(self, selection: Selection) -> list[tuple[str, int]]:
        """(set, frame) of the selected frames that are here, in the order they were picked."""
        where: dict[int, tuple[str, int]] = {}
        for one in self.sets:
            for row, uid in self._rows(one, selection):
                where.setdefault(uid, (one.name, row))
        return [where[uid] for uid in selection.uids if uid in where]

    def frame_sets(self, selection: Selection) -> list[FrameSet]:
        """Sets that hold the selected frames, for `Selection.frames` and `Selection.export`.

        Frames of runs come without labels: what is stored with them are the potential's own predictions, and whoever
        trains on these teaches it its mistakes.
        """
        found = []
        for one in self.sets:
            rows = [row for row, _ in self._rows(one, selection)]
            if rows:
                frames = one.frame_set(rows)
                found.append(frames if one.run is None else frames.without_labels())
        return found

    @staticmethod
    def _rows(one: ShiftSet, selection: Selection) -> list[tuple[int, int]]:
        """(row, uid) of the frames of one set that are selected."""
        uids = one.frames.uids if isinstance(one.frames, FrameSet) else one.points.uids if one.points else None
        if uids is None or not len(selection):
            return []
        rows = np.flatnonzero(np.isin(uids, np.array(selection.uids, np.uint64)))
        return [(int(row), int(uids[row])) for row in rows]
