"""Is an atom inside the space that a set of frames spans? One model: descriptor, PCA, limits, nearest fit-on atoms.

>>> model = OODModel.fit(training)
>>> scores = model.score(trajectory)
>>> scores.flags, scores.per_frame("q")

The set that the axes were fitted on is the *fit-on set*. Fitting and scoring read descriptor rows in chunks: memory is that of
one chunk, the moments of the fit and about sixty bytes per scored atom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from mlipkit.analysis.descriptors import Descriptor, Rows, blocks, check_same, check_species, symbols
from mlipkit.analysis.moments import Basis, Components, Moments
from mlipkit.analysis.outlyingness import NearestNeighbours, combined_index, hotelling_t2
from mlipkit.analysis.pca import PCA, TOLERANCE, Grouped, load_arrays, pca_of, save_arrays
from mlipkit.analysis.soap import Soap
from mlipkit.analysis.thresholds import (
    Limits,
    Rule,
    Runs,
    check_rule,
    consecutive_in,
    from_stored,
    limits_of,
    runs_of,
)
from mlipkit.data.columns import Array
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, ModelError, nearest

FORMAT: Final = "mlipkit.ood/1"
MEASURES: Final = ("q", "t2", "combined", "nearest")
_PASSES: Final = 8


@dataclass(frozen=True, eq=False)
class Scores:
    """How far each atom of F frames with N atoms lies from the fit-on set.

    Attributes:
        offsets: int64 [F+1], first atom of each frame.
        uids: uint64 [F].
        numbers: int16 [N].
        projections: z [N,k], float32; axes of one fit (with `per_element` each element has its own).
        q: squared distance to the plane [N]. t2: Hotelling's T² [N]. combined: φ [N].
        nearest: distance in score space to the nearest fit-on atom of the same element [N].
        flags: bool [N], Q above the element's limit for two consecutive samples of a trajectory; for a frame of no
            trajectory the one sample decides.
        limits: measure -> limits per element.
    """

    offsets: Array
    uids: Array
    numbers: Array
    projections: Array
    q: Array
    t2: Array
    combined: Array
    nearest: Array
    flags: Array
    limits: Mapping[str, Limits]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def limit(self) -> Array:
        """Limit of Q of each atom's element [N]; NaN for an element that the fit-on set lacks."""
        return self.limits["q"].of(self.numbers)

    @property
    def ratio(self) -> Array:
        """Q over its limit [N]; infinite for an element that the fit-on set lacks."""
        ratio = self.q / self.limit
        return np.where(np.isnan(ratio), np.inf, ratio)

    def above(self, name: str = "q") -> Array:
        """bool [N], a measure above its limit, each sample by itself."""
        return self.limits[_measure(name)].above(self.numbers, getattr(self, name))

    def per_frame(self, name: str = "q", how: Literal["mean", "max"] = "mean") -> Array:
        """A measure, "ratio" or "flags" over the atoms of each frame [F].

        Raises:
            DataError: no such measure.
        """
        values = np.asarray(getattr(self, _measure(name, "ratio", "flags")), np.float64)
        if not len(self):
            return np.zeros(0)
        if how == "max":
            return np.maximum.reduceat(values, self.offsets[:-1])
        if how != "mean":
            raise DataError("no such summary", where="how", expected="mean or max", found=how)
        return np.add.reduceat(values, self.offsets[:-1]) / np.diff(self.offsets)


def _measure(name: str, *more: str) -> str:
    if name not in (*MEASURES, *more):
        raise DataError("no such measure", where="name", found=name, hint=nearest(name, (*MEASURES, *more)))
    return name


@dataclass(frozen=True, eq=False)
class OODModel:
    """A fit-on set as a plane in descriptor space, with what is ordinary around it.

    Attributes:
        descriptor: makes the rows.
        planes: 0 -> PCA over all atoms, or atomic number -> PCA of that element.
        limits: measure -> limits; empty with the rule "trajectory".
        neighbours: the fit-on atoms in score space.
        rule: how limits are found.
        facts: frames, atoms, duplicates, how runs were told apart, periodic; JSON-ready.
    """

    descriptor: Descriptor
    planes: Mapping[int, PCA]
    limits: Mapping[str, Limits]
    neighbours: NearestNeighbours
    rule: Rule
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def per_element(self) -> bool:
        return 0 not in self.planes

    @property
    def pca(self) -> PCA:
        """The PCA over all atoms.

        Raises:
            ModelError: there is one per element (`planes`).
        """
        if self.per_element:
            raise ModelError("one PCA per element was fitted", hint=f"planes[Z] for {symbols(self.planes)}")
        return self.planes[0]

    @property
    def k(self) -> int:
        """Components; the most of any element."""
        return max(plane.k for plane in self.planes.values())

    @classmethod
    def fit(
        cls,
        frames: FrameSet,
        descriptor: Descriptor | None = None,
        components: int | float = 5,
        per_element: bool = False,
        rule: Rule = "leave_one_run_out",
        seed: int = 0,
    ) -> OODModel:
        """Fit axes and limits on a set.

        Args:
            frames: the fit-on set; frames told apart by trajectory, else by source, are the runs that limits rest on.
            descriptor: by default SOAP for the elements of `frames`. Give one for the union of all sets to compare.
            components: number k, or (below 1) fraction of the variance to explain.
            per_element: one PCA per element instead of one over all atoms.
            rule: see `mlipkit.analysis.thresholds`.
            seed: of the starting directions and of the draw of neighbours.

        Raises:
            DataError: no frames, frames of a single atom (names them), an element outside the descriptor, too few frames.
        """
        check_rule(rule)
        _check_fit_on(frames)
        descriptor = Soap.of(frames) if descriptor is None else descriptor
        runs = runs_of(frames) if rule == "leave_one_run_out" else Runs(np.zeros(len(frames), np.int64), "")
        of_atom = np.repeat(runs.codes, frames.n_atoms)
        numbers = np.asarray(frames.numbers)
        classes = numbers.astype(np.int64) if per_element else np.zeros(len(numbers), np.int64)
        grouped = Grouped(Rows(descriptor, frames), seed, classes if per_element else None, of_atom)
        fitted = _fit(grouped, components, len(numbers), of_atom if runs.n > 1 else None)
        facts = descriptor.facts()
        planes = {c: pca_of(one, fitted.k[c], facts, c or None) for c, one in fitted.components.items()}
        neighbours = NearestNeighbours(numbers, fitted.z, seed=seed)
        limits: dict[str, Limits] = {}
        if rule == "leave_one_run_out":
            away = _away(numbers, fitted.z, of_atom)
            limits = _limits(numbers, fitted.q_out, fitted.t2_out, away, rule, runs.detail)
        return cls(descriptor, planes, limits, neighbours, rule, _facts(frames, runs, seed))

    def score(self, frames: FrameSet, sigma_rule: Rule | None = None, n_jobs: int | None = None) -> Scores:
        """Score all atoms of a set, some frames at a time.

        Args:
            frames: F frames with N atoms together.
            sigma_rule: "trajectory" takes the limits from these very frames, as published; by default the model's rule.
            n_jobs: threads for nearest neighbours; by default those of the descriptor.

        Raises:
            DataError: an element outside the descriptor, or cells without periodic flags where the fit-on set had them.
        """
        rule = self.rule if sigma_rule is None else sigma_rule
        check_rule(rule)
        if rule != "trajectory" and not self.limits:
            raise ModelError("fitted without limits of its own", where="sigma_rule", expected="trajectory", found=rule)
        self.check(frames)
        n, numbers, offsets = int(frames.offsets[-1]), np.asarray(frames.numbers), frames.offsets
        z, q, t2 = np.zeros((n, self.k), np.float32), np.empty(n), np.empty(n)
        near = np.empty(n)
        jobs = n_jobs or int(getattr(self.descriptor, "n_jobs", 1))
        for first, last, X in blocks(self.descriptor, frames):
            rows = slice(int(offsets[first]), int(offsets[last]))
            z[rows], q[rows], t2[rows] = self.project(numbers[rows], X)
            near[rows] = self.neighbours.distance(numbers[rows], z[rows], jobs)
        limits = self.limits if rule == self.rule and self.limits else _limits(
            numbers, q, t2, near, rule, "mean and standard deviation along the frames scored"
        )  # fmt: skip
        combined = combined_index(q, t2, limits["q"].of(numbers), limits["t2"].of(numbers))
        flags = consecutive_in(frames, limits["q"].above(numbers, q))
        return Scores(offsets, frames.uids, numbers, z, q, t2, combined, near, flags, limits)

    def project(self, numbers: Array, X: Array) -> tuple[Array, Array, Array]:
        """Scores z [n,k], Q [n] and T² [n] of rows X [n,p] of atoms with these elements [n]; overwrites X.

        Q and T² of an element without a plane are infinite.
        """
        if not self.per_element:
            z, q = self.planes[0].project(X)
            return z, q, hotelling_t2(z, self.planes[0].variance)
        z, q, t2 = np.zeros((len(X), self.k)), np.full(len(X), np.inf), np.full(len(X), np.inf)
        for element, plane in self.planes.items():
            rows = np.flatnonzero(numbers == element)
            if len(rows):
                found, q[rows] = plane.project(X[rows])
                z[rows, : plane.k] = found
                t2[rows] = hotelling_t2(found, plane.variance)
        return z, q, t2

    def check(self, frames: FrameSet) -> None:
        """Refuse frames whose scores would mean nothing.

        Raises:
            DataError: an element outside the descriptor; a cell without periodic flags where the fit-on set was periodic.
        """
        check_species(self.descriptor, frames)
        if not self.facts.get("periodic") or not len(frames):
            return
        bare = (np.abs(np.linalg.det(frames.cell)) > 1e-6) & ~frames.pbc.any(axis=1)
        if bare.any():
            i = int(np.flatnonzero(bare)[0])
            raise DataError(
                "a cell without periodic flags: atoms at its faces would lack neighbours",
                where=(frames.sources[int(frames.source_codes[i])], f"frame {i}", "pbc"),
                expected="periodic as the fit-on set", found="pbc F F F",
                hint="Set pbc in the file, or drop the cell of what is a cluster",
            )  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write one small file (safetensors). Weights of a potential whose features are the descriptor are not in it."""
        arrays = {"neighbours.numbers": self.neighbours.numbers, "neighbours.z": self.neighbours.z}
        for c, plane in self.planes.items():
            arrays |= {f"plane.{c}.{name}": array for name, array in plane.arrays().items()}
        for measure, limits in self.limits.items():
            arrays |= {f"limits.{measure}.{name}": array for name, array in limits.arrays().items()}
        header = {
            "rule": self.rule,
            "facts": dict(self.facts),
            "descriptor": self.descriptor.facts(),
            "hash": self.descriptor.hash,
            "planes": {str(c): plane.header() for c, plane in self.planes.items()},
            "limits": {name: {"rule": one.rule, "detail": one.detail} for name, one in self.limits.items()},
        }
        return save_arrays(path, FORMAT, arrays, header)

    @classmethod
    def load(cls, path: str | Path, descriptor: Descriptor | None = None, n_jobs: int = 1) -> OODModel:
        """Read what `save` wrote.

        Args:
            descriptor: needed for features of a potential; for SOAP by default the one that was fitted.
            n_jobs: threads of that SOAP.

        Raises:
            ModelError: no such file, another kind of file, or a descriptor with other species or settings.
        """
        arrays, header = load_arrays(path, FORMAT)
        facts = header["descriptor"]
        if descriptor is not None:
            check_same(facts, descriptor, str(path))
        elif facts.get("kind") == "soap":
            descriptor = Soap.from_facts(facts, n_jobs)
        else:
            raise ModelError(
                "fitted on features of a potential", where=str(path), expected=f"weights {facts.get('weights')}",
                hint="OODModel.load(path, ModelFeatures(potential))",
            )  # fmt: skip

        def named(prefix: str) -> dict[str, Array]:
            return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

        planes = {int(c): PCA.from_stored(named(f"plane.{c}."), one) for c, one in header["planes"].items()}
        limits = {name: from_stored(named(f"limits.{name}."), **one) for name, one in header["limits"].items()}
        points = named("neighbours.")
        neighbours = NearestNeighbours(points["numbers"], points["z"], most=len(points["z"]) + 1)
        return cls(descriptor, planes, limits, neighbours, header["rule"], header["facts"])


def _check_fit_on(frames: FrameSet) -> None:
    if not len(frames):
        raise DataError("no frames to fit on")
    single = np.flatnonzero(frames.n_atoms == 1)
    if len(single):
        names = ", ".join(map(str, single[:5].tolist())) + (", ..." if len(single) > 5 else "")
        raise DataError(
            f"{len(single)} frames of a single atom have no surroundings to learn from",
            where=(frames.sources[int(frames.source_codes[single[0]])], f"frame {names}"),
            hint="Leave them out: frames[frames.n_atoms > 1]",
        )


def _facts(frames: FrameSet, runs: Runs, seed: int) -> dict[str, Any]:
    return {
        "frames": len(frames),
        "atoms": int(frames.offsets[-1]),
        "elements": list(frames.elements),
        "duplicates": len(frames) - len(np.unique(frames.structure_hashes)),
        "runs": runs.n if runs.detail else 0,
        "runs_detail": runs.detail,
        "periodic": bool(frames.pbc.all()),
        "data_hash": frames.hash,
        "seed": seed,
    }


@dataclass
class _Plane:
    """A fit as seen from a basis: directions and offset of its mean, one matrix product for both."""

    both: Array
    offset2: float
    shift: Array
    variance: Array

    @classmethod
    def of(cls, components: Components, basis: Basis, k: int) -> _Plane:
        axes = components.vectors[:, :k]
        delta = components.mean - basis.centre
        both = np.asfortranarray(np.concatenate([axes, delta[:, None]], axis=1), np.float32)
        return cls(both, float(delta @ delta), delta @ axes, components.values[:k] / max(components.n - 1, 1))

    def apply(self, rows: Array, squares: Array) -> tuple[Array, Array]:
        """z [m,k] and Q [m] of rows x - c [m,p] with |x - c|² [m]."""
        product = (rows @ self.both).astype(np.float64)
        z = product[:, :-1] - self.shift
        distance2 = squares - 2.0 * product[:, -1] + self.offset2
        return z, np.maximum(distance2 - np.einsum("ij,ij->i", z, z), 0.0)


@dataclass
class _Fitted:
    """Components and number wanted per class; z [N,k] of all rows, Q and T² [N] with the own run left out."""

    components: dict[int, Components]
    k: dict[int, int]
    z: Array
    q_out: Array
    t2_out: Array


def _fit(grouped: Grouped, components: int | float, n: int, runs: Array | None) -> _Fitted:
    """Passes until the components stand still; the last one scores the rows as it goes.

    Each pass starts from the components found before, so that it scores with these and tells by how much they would move.
    """
    if isinstance(components, float) and components < 1:
        solved = grouped.solve(components)
        found, counts = {c: one for c, (one, _) in solved.items()}, {c: k for c, (_, k) in solved.items()}
    else:
        grouped.begin(int(components))
        found = grouped.sweep()
        counts = dict.fromkeys(found, int(components))
    width = max(counts.values())
    for _ in range(_PASSES):
        left_out: dict[tuple[int, int], Components] = {}
        if runs is not None:
            totals: dict[int, Moments] = {c: grouped.total(c) for c in found}
            left_out = {key: (totals[key[0]] - part).components() for key, part in grouped.moments.items()}
        grouped.restart(found)
        bases = grouped.bases
        whole = {c: _Plane.of(one, bases[c], counts[c]) for c, one in found.items()}
        # A class of which the other runs hold too little is scored by the whole fit.
        others = {
            key: _Plane.of(one, bases[key[0]], counts[key[0]]) if one.n > counts[key[0]] else whole[key[0]]
            for key, one in left_out.items()
        }
        out = _Fitted(found, counts, np.zeros((n, width), np.float32), np.empty(n), np.empty(n))

        def record(
            c: int, index: Array, rows: Array, squares: Array, out: _Fitted = out, whole: Any = whole, others: Any = others
        ) -> None:
            z, q = whole[c].apply(rows, squares)
            out.z[index, : z.shape[1]] = z
            if runs is None:
                return
            for run in np.unique(runs[index]).tolist():
                at = np.flatnonzero(runs[index] == run)
                at_rows = rows if len(at) == len(rows) else rows[at]
                plane = others[c, run]
                z, q = plane.apply(at_rows, squares[at])
                out.q_out[index[at]], out.t2_out[index[at]] = q, hotelling_t2(z, plane.variance)

        moved = grouped.sweep(record)
        if all(_stands(found[c], moved[c], counts[c]) for c in found):
            break
        found = moved
    out.z = out.z[:, : max(min(out.k[c], len(one.values)) for c, one in out.components.items())]
    return out


def _stands(before: Components, after: Components, k: int) -> bool:
    """Whether another pass moved no variance by more than `TOLERANCE`."""
    a, b = before.values[:k], after.values[:k]
    if len(a) != len(b):
        return False
    return bool((np.abs(a - b) <= TOLERANCE * np.maximum(b, 1e-3 * after.total)).all())


def _away(numbers: Array, z: Array, runs: Array) -> Array:
    """Distance of each atom [N] to the nearest of the same element in another run."""
    out = np.full(len(numbers), np.inf)
    for run in np.unique(runs).tolist():
        mine = runs == run
        if not mine.all():
            out[mine] = NearestNeighbours(numbers[~mine], z[~mine]).distance(numbers[mine], z[mine])
    return out


def _limits(numbers: Array, q: Array, t2: Array, near: Array, rule: str, detail: str) -> dict[str, Limits]:
    first = {name: limits_of(values, numbers, rule, detail) for name, values in (("q", q), ("t2", t2))}
    combined = combined_index(q, t2, first["q"].of(numbers), first["t2"].of(numbers))
    more = {name: limits_of(values, numbers, rule, detail) for name, values in (("combined", combined), ("nearest", near))}
    return first | more
