"""Is an atom inside the space that a set of frames spans? One model: descriptor, PCA, limits, nearest fit-on atoms.

>>> model = OODModel.fit(training)
>>> scores = model.score(trajectory)
>>> scores.flags, scores.per_frame("q")

The set that the axes were fitted on is the *fit-on set*. Fitting and scoring read descriptor rows in chunks: memory is
that of one chunk, the moments of the fit and about sixty bytes per scored atom (`OODModel.stream` spares these).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from mlipkit.analysis.descriptors import Descriptor, Rows, blocks, check_same, check_species, symbols
from mlipkit.analysis.fitting import Passes, fit
from mlipkit.analysis.outlyingness import NearestNeighbours, combined_index, hotelling_t2
from mlipkit.analysis.pca import PCA, pca_of
from mlipkit.analysis.scores import Scores
from mlipkit.analysis.soap import Soap
from mlipkit.analysis.storing import load_arrays, save_arrays
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
from mlipkit.errors import DataError, ModelError

FORMAT: Final = "mlipkit.ood/1"


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
            DataError: no frames or too few, frames of a single atom (names them), an element outside the descriptor.
        """
        check_rule(rule)
        _check_fit_on(frames)
        descriptor = Soap.of(frames) if descriptor is None else descriptor
        runs = runs_of(frames) if rule == "leave_one_run_out" else Runs(np.zeros(len(frames), np.int64), "")
        of_atom = np.repeat(runs.codes, frames.n_atoms)
        numbers = np.asarray(frames.numbers)
        fitted = fit(Passes(Rows(descriptor, frames), seed, numbers if per_element else None, of_atom), components)
        facts = descriptor.facts()
        planes = {c: pca_of(one, fitted.k[c], facts, c or None) for c, one in fitted.components.items()}
        neighbours = NearestNeighbours(numbers, fitted.z, seed=seed)
        limits: dict[str, Limits] = {}
        if rule == "leave_one_run_out":
            away = _away(numbers, fitted.z, of_atom)
            detail = runs.detail
            if fitted.whole:
                names = symbols(c for c in fitted.whole if c) if per_element else "all atoms"
                detail += f"; {names} judged by the whole fit, as the other runs hold too few: their limits are low"
            limits = _limits(numbers, fitted.q_out, fitted.t2_out, away, rule, detail)
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

    def stream(self, frames: FrameSet, n_frames: int = 256) -> Iterator[Scores]:
        """Score a set of any length, `n_frames` at a time, in constant memory.

        Flags are those of `score` where the frames of a trajectory lie side by side, in order of time.

        Raises:
            ModelError: limits along the trajectory are known only at its end. The rest as `score`.
            DataError: `n_frames` below one.
        """
        if n_frames < 1:
            raise DataError("no frames at a time", where="n_frames", expected="at least 1", found=n_frames)
        if not self.limits:
            raise ModelError(
                "limits along the trajectory are known only at its end", where="rule", expected="leave_one_run_out",
                found=self.rule, hint="score(frames) takes all at once",
            )  # fmt: skip
        for first in range(0, len(frames), n_frames):
            # One frame more at either end, so that flags know what comes before and after.
            before, last = min(first, 1), min(first + n_frames, len(frames))
            yield self.score(frames[first - before : last + 1]).part(before, before + last - first)

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
            DataError: an element outside the descriptor; a cell without periodic flags where the fit-on set had them.
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
        """Write one small file (safetensors). A potential whose features are the descriptor is not in it."""
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
    more = {
        name: limits_of(values, numbers, rule, detail) for name, values in (("combined", combined), ("nearest", near))
    }
    return first | more
