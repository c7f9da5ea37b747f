"""Everything that tells whether sets of structures differ: axes, Q and T² by element, coverage, density, in one result.

>>> shift = analyse_shift({"naive": naive, "iterative": iterative})
>>> shift.sentences()

Without `fit_on` the axes are fitted on all sets together, as published maps are: then coverage is the answer, and Q
tells little, as each set helped to fit its own plane. With `fit_on` the other sets are outside or not: then Q is.

Source: arXiv 2603.10159 for axes, Q and the maps; measures of coverage, limits and the density answer are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mlipkit.analysis.coverage import Coverage, coverage, select_frames
from mlipkit.analysis.density import DensitySummary, densities, summarise_density
from mlipkit.analysis.density_confound import DensityShare, Matched, density_share, matched_by_density, plane_of
from mlipkit.analysis.descriptors import Descriptor
from mlipkit.analysis.ood import OODModel
from mlipkit.analysis.scores import Scores
from mlipkit.analysis.soap import Soap
from mlipkit.analysis.thresholds import Rule
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, nearest

FIT_FRAMES = 300
"""Frames that axes and limits are fitted on at most."""
MOST_PAIRS = 10
"""Pairs of sets that are compared at most; those with a fit-on set come first."""
MOST_MATCHED = 3
COVERAGE_FRAMES = 100
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class ElementSummary:
    """Q and T² of the atoms of one element in one set.

    Attributes:
        set, element: name and atomic number; n: atoms.
        q_mean, q_std, q_quantiles: of Q (`QUANTILES`); t2_mean, t2_std, t2_quantiles: of T².
        q_limit, t2_limit: limits; NaN for an element that the fit-on set lacks.
        flagged: share of atoms outside (Q above its limit, twice on end along a trajectory).
    """

    set: str
    element: int
    n: int
    q_mean: float
    q_std: float
    q_quantiles: tuple[float, ...]
    q_limit: float
    t2_mean: float
    t2_std: float
    t2_quantiles: tuple[float, ...]
    t2_limit: float
    flagged: float


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Frames of a single atom, which have no surroundings to describe: how many, and from which sources."""

    n: int
    sources: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Shift:
    """How sets of structures differ.

    Attributes:
        model: axes, limits and nearest neighbours, fitted on `fitted_on` (all sets when the fit is joint).
        fit_frames: frames that were fitted, of how many.
        sets: name -> frames that were analysed, isolated atoms left out (`left_out`), sets of nothing else as well.
        scores: name -> scores of its atoms.
        elements: one row per set and element.
        coverage: pair of sets -> comparison; `uncompared` pairs beyond `MOST_PAIRS` or with a single frame.
        density: per set. boundaries: name -> "periodic", "not periodic", "slab or wire", "mixed".
        shared: pair -> structures that both sets hold (also 0). duplicates: name -> frames whose structure occurs
            earlier in the set.
        density_shares: pair -> what density explains of the shift; None where density says nothing.
        matched: pair -> the same sets at equal density; None where a set has no density.
    """

    model: OODModel
    fitted_on: tuple[str, ...]
    joint: bool
    fit_frames: tuple[int, int]
    sets: Mapping[str, FrameSet]
    scores: Mapping[str, Scores]
    elements: tuple[ElementSummary, ...]
    coverage: Mapping[Pair, Coverage]
    uncompared: tuple[Pair, ...]
    density: DensitySummary
    boundaries: Mapping[str, str]
    shared: Mapping[Pair, int]
    duplicates: Mapping[str, int]
    left_out: Mapping[str, LeftOut]
    density_shares: Mapping[Pair, DensityShare | None]
    matched: Mapping[Pair, Matched | None]

    @property
    def explained(self) -> dict[int, np.ndarray]:
        """0 (all atoms), or atomic number -> percent of the variance along each axis [k]."""
        return {z: 100 * plane.explained for z, plane in self.model.planes.items()}

    def flagged_atoms(self, name: str) -> float:
        """Share of a set's atoms that are outside."""
        return float(self.scores[name].flags.mean())

    def flagged_frames(self, name: str) -> float:
        """Share of a set's frames with an atom that is outside."""
        return float((self.scores[name].per_frame("flags", "max") > 0).mean())

    def unknown(self, name: str) -> tuple[int, ...]:
        """Elements of a set that the fit-on set lacks."""
        return tuple(sorted(set(self.sets[name].elements) - set(self.model.facts["elements"])))

    def sentences(self) -> list[str]:
        """What matters, most important first."""
        from mlipkit.analysis.shift_words import sentences

        return sentences(self)

    def to_json(self) -> dict[str, Any]:
        """All figures, JSON-ready (`docs/analyse.md`)."""
        from mlipkit.analysis.shift_words import to_json

        return to_json(self)


def analyse_shift(
    sets: Mapping[str, FrameSet],
    fit_on: str | Sequence[str] | None = None,
    *,
    components: int | float = 5,
    descriptor: Descriptor | None = None,
    per_element: bool = False,
    rule: Rule = "leave_one_run_out",
    matched: bool = True,
    fit_frames: int = FIT_FRAMES,
    n_jobs: int = 1,
    seed: int = 0,
) -> Shift:
    """Compare sets of structures.

    Args:
        sets: name -> frames; frames of a single atom are left out.
        fit_on: names of the sets that axes and limits are fitted on; all of them when None.
        components: number, or (below 1) fraction of the variance to explain.
        descriptor: by default SOAP for the elements of all sets.
        per_element: axes for each element instead of one plane for all atoms.
        rule: of the limits, see `mlipkit.analysis.thresholds`.
        matched: pair frames by density and compare these too.
        fit_frames: frames to fit on at most, taken evenly from each set.
        n_jobs: threads of the default descriptor.
        seed: of the fit and of all drawing.

    Raises:
        DataError: no set, a set without frames, an unknown name in `fit_on`, a cell without periodic flags beside
            periodic sets, too few frames to fit on, an element outside `descriptor`.
    """
    kept, left_out = _without_isolated(sets)
    names = _fit_names(fit_on, kept, left_out)
    boundaries = _boundaries(kept)
    if descriptor is None:
        descriptor = Soap.of(*kept.values(), n_jobs=n_jobs)
    parts = _evenly([kept[name] for name in names], fit_frames)
    fitted = parts[0] if len(parts) == 1 else FrameSet.concat(parts)
    model = OODModel.fit(fitted, descriptor, components, per_element, rule, seed)
    scores = {name: model.score(frames) for name, frames in kept.items()}
    pairs = sorted(combinations(kept, 2), key=lambda pair: -len(set(pair) & set(names))) if len(kept) > 1 else []
    wanted = [pair for pair in pairs if min(len(kept[name]) for name in pair) > 1]
    compared = wanted[:MOST_PAIRS]
    shares, matches = {}, {}
    for index, (a, b) in enumerate(compared):
        rows_a, rows_b = _unshared(kept[a], kept[b])
        side_a, side_b = kept[a].select(rows_a), kept[b].select(rows_b)
        found_a, found_b = select_frames(scores[a], rows_a), select_frames(scores[b], rows_b)
        known = all(len(side) and np.isfinite(densities(side)).any() for side in (side_a, side_b))
        shares[a, b] = (
            density_share(found_a, found_b, densities(side_a), densities(side_b), seed=seed) if known else None
        )
        if matched and index < MOST_MATCHED:
            k = components if isinstance(components, int) else model.k
            matches[a, b] = (
                matched_by_density(side_a, side_b, (found_a, found_b), descriptor, k, seed=seed) if known else None
            )
    return Shift(
        model=model,
        fitted_on=names,
        joint=len(names) == len(kept) and len(kept) > 1,
        fit_frames=(len(fitted), sum(len(kept[name]) for name in names)),
        sets=kept,
        scores=scores,
        elements=tuple(row for name in kept for row in _summaries(name, scores[name])),
        coverage={
            (a, b): coverage(
                scores[a], scores[b], components=plane_of(scores[a]), max_frames=COVERAGE_FRAMES, seed=seed
            )
            for a, b in compared
        },
        uncompared=tuple(pair for pair in pairs if pair not in compared),
        density=summarise_density(kept),
        boundaries=boundaries,
        shared={pair: _n_shared(kept[pair[0]], kept[pair[1]]) for pair in pairs},
        duplicates={name: len(f) - len(np.unique(f.structure_hashes)) for name, f in kept.items()},
        left_out=left_out,
        density_shares=shares,
        matched=matches,
    )


def _without_isolated(sets: Mapping[str, FrameSet]) -> tuple[dict[str, FrameSet], dict[str, LeftOut]]:
    if not sets:
        raise DataError("no set of frames", where="shift")
    kept, left_out = {}, {}
    for name, frames in sets.items():
        if not len(frames):
            raise DataError("no frames", where=name)
        alone = frames.n_atoms == 1
        if alone.any():
            codes = np.unique(frames.source_codes[alone])
            left_out[name] = LeftOut(int(alone.sum()), tuple(frames.sources[int(code)] for code in codes))
        if not alone.all():
            kept[name] = frames.select(~alone) if alone.any() else frames
    if not kept:
        raise DataError("only frames of a single atom, which have no surroundings", where=", ".join(sets))
    return kept, left_out


def _fit_names(
    fit_on: str | Sequence[str] | None, sets: Mapping[str, FrameSet], left_out: Mapping[str, LeftOut]
) -> tuple[str, ...]:
    if fit_on is None:
        return tuple(sets)
    names = (fit_on,) if isinstance(fit_on, str) else tuple(dict.fromkeys(fit_on))
    for name in names:
        if name in left_out and name not in sets:
            raise DataError("only frames of a single atom, which have no surroundings", where=("fit_on", name))
        if name not in sets:
            raise DataError("no such set", where="fit_on", found=repr(name), hint=nearest(name, sets))
    if not names:
        raise DataError("no set to fit on", where="fit_on", hint=nearest("", sets))
    return names


def _boundaries(sets: Mapping[str, FrameSet]) -> dict[str, str]:
    """What is periodic in each set; refuses a cell without periodic flags beside periodic sets."""
    found = {}
    for name, frames in sets.items():
        axes = frames.pbc.sum(axis=1)
        kinds = {3: "periodic", 0: "not periodic"}
        each = {kinds.get(int(n), "slab or wire") for n in np.unique(axes)}
        found[name] = each.pop() if len(each) == 1 else "mixed"
    if "periodic" in found.values():
        for name, frames in sets.items():
            bare = (np.abs(np.linalg.det(frames.cell)) > 1e-6) & ~frames.pbc.any(axis=1)
            if bare.any():
                other = next(known for known, kind in found.items() if kind == "periodic")
                raise DataError(
                    "a cell without periodic flags: atoms at its faces would lack neighbours",
                    where=(name, f"frame {int(np.flatnonzero(bare)[0])}", "pbc"), expected=f"periodic as {other}",
                    found="pbc F F F", hint="Set pbc in the file, or drop the cell of what is a cluster",
                )  # fmt: skip
    return found


def _evenly(sets: Sequence[FrameSet], most: int) -> list[FrameSet]:
    """At most `most` frames of all sets together, evenly spaced within each; small sets are taken whole."""
    quota = [0] * len(sets)
    left, open_ones = most, sorted(range(len(sets)), key=lambda i: len(sets[i]))
    for place, i in enumerate(open_ones):
        quota[i] = max(2, min(len(sets[i]), left // (len(sets) - place)))
        left -= quota[i]
    return [
        frames if n >= len(frames) else frames.select(np.linspace(0, len(frames) - 1, n).round().astype(np.int64))
        for frames, n in zip(sets, quota, strict=True)
    ]


def _summaries(name: str, scores: Scores) -> list[ElementSummary]:
    rows = []
    limits = {measure: scores.limits[measure] for measure in ("q", "t2")}
    for z in np.unique(scores.numbers).tolist():
        mine = scores.numbers == z
        limit = {measure: float(one.of(np.array([z]))[0]) for measure, one in limits.items()}
        (q, q_std, q_quantiles), (t2, t2_std, t2_quantiles) = (_figures(x[mine]) for x in (scores.q, scores.t2))
        rows.append(
            ElementSummary(
                set=name, element=z, n=int(mine.sum()), q_mean=q, q_std=q_std, q_quantiles=q_quantiles,
                q_limit=limit["q"], t2_mean=t2, t2_std=t2_std, t2_quantiles=t2_quantiles, t2_limit=limit["t2"],
                flagged=float(scores.flags[mine].mean()),
            )
        )  # fmt: skip
    return rows


def _figures(values: np.ndarray) -> tuple[float, float, tuple[float, ...]]:
    """Mean, standard deviation, quantiles; infinite where an element has no axes."""
    if not np.isfinite(values).all():
        return np.inf, np.nan, (np.inf,) * len(QUANTILES)
    return float(values.mean()), float(values.std()), tuple(np.quantile(values, QUANTILES).tolist())


def _n_shared(a: FrameSet, b: FrameSet) -> int:
    return len(np.intersect1d(a.structure_hashes, b.structure_hashes))


def _unshared(a: FrameSet, b: FrameSet) -> tuple[np.ndarray, np.ndarray]:
    """Frames [.], [.] of each set whose structure the other does not hold."""
    return (
        np.flatnonzero(~np.isin(a.structure_hashes, b.structure_hashes)),
        np.flatnonzero(~np.isin(b.structure_hashes, a.structure_hashes)),
    )
