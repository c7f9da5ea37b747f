"""A shift as a page and as tables: maps, Q by element, coverage, density, bond lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from mlipkit.plots.bonds import bond_distributions
from mlipkit.plots.maps import score_map, white_overlay
from mlipkit.plots.runs import COLOURS
from mlipkit.plots.shift import Spread, spread_by_element
from mlipkit.plots.trajectories import density_by_run
from mlipkit.runs.findings import Finding, Picture, Table, number

if TYPE_CHECKING:
    from mlipkit.analysis.coverage import Share
    from mlipkit.analysis.shift import Pair, Shift
    from mlipkit.data import FrameSet

MOST_OVERLAYS = 3
MOST_BONDS = 4
MOST_ELEMENTS = 4
"""Elements with a map of their own where each has its own axes."""
_FRAMES = 300
_RUNS = 12


def shift_finding(
    shift: Shift, python: str = "", sources: Mapping[str, str] | None = None, bonds: bool = True
) -> Finding:
    """What a shift says, with pictures and tables.

    Args:
        python: lines that do the same.
        sources: name of a set -> where it was read.
        bonds: compare bond lengths too (of the first two sets, the fit-on set first).
    """
    said = shift.sentences()
    return Finding(
        title=" against ".join(shift.sets) if len(shift.sets) < 4 else f"{len(shift.sets)} sets of structures",
        sentences=tuple(said),
        parts=(*_parts(shift), *(bond_parts(_first_two(shift)) if bonds else ())),
        figures=dict(_figures(shift)),
        data=shift.to_json(),
        python=python,
        sources=sources or {},
        kind=_kind(shift),
    )


def _kind(shift: Shift) -> str:
    """Orange where the answer must be read with care, or a set has left the space it is compared with."""
    low, high = float(np.nanmin(shift.density.mean, initial=np.inf)), float(np.nanmax(shift.density.mean, initial=0))
    others = [name for name in shift.sets if name not in shift.fitted_on]
    own = max(shift.flagged_atoms(name) for name in shift.fitted_on)
    left = any(shift.flagged_atoms(name) > max(2 * own, 0.02) for name in others)
    return "warning" if left or high > 1.02 * low or len(set(shift.boundaries.values())) > 1 else ""


def _parts(shift: Shift) -> Iterator[Table | Picture]:
    yield from maps(shift)
    order = _by_number(shift)
    limits = _limits(shift)
    for measure, title in (("q", "Q (squared distance to the plane)"), ("t2", "T² (distance within the plane)")):
        yield Picture(
            f"{'Q' if measure == 'q' else 'T²'} by element and set",
            spread_by_element(_spreads(shift, measure), limits=limits[measure], elements=order, title=title),
            "Thin: 5 to 95 %, thick: 25 to 75 %, dot: mean. Each element has a limit of its own.",
        )
    yield _element_table(shift)
    if shift.coverage:
        yield from _coverage_tables(shift)
        yield from _coverage_by_element(shift)
    density = _densities(shift.sets)
    known = any(np.isfinite(values).any() for runs in density.values() for values in runs.values())
    if known:
        yield Picture("Density", density_by_run(density), "A set that is less dense differs in every surrounding.")
    if known or len(set(shift.boundaries.values())) > 1:
        yield _density_table(shift)
    yield from _matched_tables(shift)
    yield _variance_table(shift)


def maps(shift: Shift) -> Iterator[Picture]:
    """Maps by set and by element, T² against Q, and each set drawn over the other."""
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(shift.sets)}
    each = list(shift.scores.values())
    z = np.concatenate([one.projections for one in each])
    numbers = np.concatenate([one.numbers for one in each])
    sets = np.repeat(list(shift.sets), [len(one.numbers) for one in each])
    symbols = np.array(chemical_symbols)[numbers]
    if shift.model.per_element:
        for element in _by_number(shift)[:MOST_ELEMENTS]:
            mine = symbols == element
            z_element = chemical_symbols.index(element)
            if len(shift.explained.get(z_element, ())) > 1:
                axes = _axes(shift, z_element)
                figure = score_map(z[mine, 0], z[mine, 1], groups=sets[mine], colours=colours, axes=axes)
                yield Picture(f"Map of {element}, by set", figure)
    elif z.shape[1] > 1:
        axes = _axes(shift, 0)
        note = "Axes were fitted on " + (
            "all sets together." if shift.joint else f"{', '.join(shift.fitted_on)}; the others lie on its axes."
        )
        yield Picture("Map by set", score_map(z[:, 0], z[:, 1], groups=sets, colours=colours, axes=axes), note)
        yield Picture("Map by element", score_map(z[:, 0], z[:, 1], groups=symbols, axes=axes))
        if z.shape[1] > 3:
            figure = score_map(z[:, 2], z[:, 3], groups=sets, colours=colours, axes=_axes(shift, 0, 2))
            yield Picture("Third and fourth axis, by set", figure)
    q, t2 = (np.concatenate([getattr(one, name) for one in each]) for name in ("q", "t2"))
    good = np.isfinite(q) & np.isfinite(t2) & (q > 0) & (t2 > 0)
    if good.any():
        yield Picture(
            "T² against Q, by set",
            score_map(t2[good], q[good], groups=sets[good], colours=colours, axes=("T²", "Q"), log=True),
            "Up: away from the plane that the fit-on set spans. Right: far from its middle, but within the plane.",
        )
    if shift.model.per_element or z.shape[1] < 2:
        return
    for a, b in list(shift.coverage)[:MOST_OVERLAYS]:
        for first, second in ((a, b), (b, a)):
            yield Picture(f"What {second} leaves out of {first}", overlay(shift, first, second), _OVERLAY)


_OVERLAY = (
    "The second set is drawn over the first in grey; colour that stays is not covered. Dot size decides what is seen: "
    "the number counts bins."
)


def overlay(shift: Shift, first: str, second: str):
    """Set `first` with `second` drawn over it."""
    a, b = shift.scores[first], shift.scores[second]
    found = shift.coverage.get((first, second)) or shift.coverage[second, first]
    shares = found.only_a if (first, second) in shift.coverage else found.only_b
    return white_overlay(
        (a.projections[:, 0], a.projections[:, 1]), (b.projections[:, 0], b.projections[:, 1]), (first, second),
        groups=np.array(chemical_symbols)[a.numbers], axes=_axes(shift, 0),
        share=float(shares[len(shares) // 2].value[-1]),
    )  # fmt: skip


def bond_parts(sets: Mapping[str, FrameSet]) -> Iterator[Picture]:
    """Bond lengths of the most frequent bonds of one or two sets; larger sets come down to some hundred frames."""
    from mlipkit.analysis.bonds import bond_lengths, compare_bonds, joint_histogram
    from mlipkit.analysis.pairs import pair_name

    some = {name: _thinned(frames, _FRAMES) for name, frames in sets.items()}
    for pair in common_bonds(list(some.values())):
        lengths = {name: bond_lengths(frames, pair) for name, frames in some.items()}
        edges, densities = joint_histogram(lengths)
        note = ""
        if len(lengths) == 2:
            found = compare_bonds(*lengths.values(), replicas=200)
            note = f"Wasserstein distance {found.wasserstein:.4f} Å"
            if np.isfinite(found.chance):
                note += f" (chance stays below {found.chance:.4f} Å in 95 of 100 exchanges of blocks)"
        means = {name: float(one.lengths.mean()) for name, one in lengths.items()}
        yield Picture(
            f"Bond lengths {pair_name(pair)}",
            bond_distributions(edges, dict(zip(lengths, densities, strict=True)), pair=pair_name(pair), means=means),
            note,
        )


def common_bonds(sets: Sequence[FrameSet], most: int = MOST_BONDS) -> list[tuple[int, int]]:
    """Pairs of elements with bonds in every set, the most frequent first; looks at three frames of each."""
    from mlipkit.analysis.bond_states import NON_METALS
    from mlipkit.analysis.bonds import bond_lengths

    common = sorted(set.intersection(*(set(frames.elements) for frames in sets)) & set(NON_METALS))
    counts: dict[tuple[int, int], int] = {}
    for i, first in enumerate(common):
        for second in common[i:]:
            pair = as_called(first, second)
            found = [len(bond_lengths(_thinned(frames, 3), pair).lengths) for frames in sets]
            if min(found):
                counts[pair] = sum(found)
    return sorted(counts, key=lambda pair: -counts[pair])[:most]


def as_called(a: int, b: int) -> tuple[int, int]:
    """C-O and O-H: the lighter element first, but hydrogen last."""
    low, high = sorted((a, b))
    return (high, low) if low == 1 else (low, high)


def _first_two(shift: Shift) -> dict[str, FrameSet]:
    """The pair of sets that is compared first."""
    names: Pair | tuple[str, ...] = next(iter(shift.coverage), tuple(shift.sets)[:2])
    order = sorted(names, key=lambda name: name not in shift.fitted_on)
    return {name: shift.sets[name] for name in order}


def _thinned(frames: FrameSet, most: int) -> FrameSet:
    if len(frames) <= most:
        return frames
    return frames.select(np.linspace(0, len(frames) - 1, most).round().astype(np.int64))


def _by_number(shift: Shift) -> list[str]:
    """Symbols, the element with most atoms first."""
    counts: dict[int, int] = {}
    for row in shift.elements:
        counts[row.element] = counts.get(row.element, 0) + row.n
    return [chemical_symbols[z] for z in sorted(counts, key=lambda z: -counts[z])]


def _axes(shift: Shift, element: int, first: int = 0) -> tuple[str, str]:
    """Titles of an axis and the next."""
    percent = shift.explained[element]
    return f"PC{first + 1} ({percent[first]:.1f} %)", f"PC{first + 2} ({percent[first + 1]:.1f} %)"


def _spreads(shift: Shift, measure: str) -> dict[str, dict[str, Spread]]:
    found: dict[str, dict[str, Spread]] = {name: {} for name in shift.sets}
    for row in shift.elements:
        quantiles, mean = getattr(row, f"{measure}_quantiles")[:5], getattr(row, f"{measure}_mean")
        if np.isfinite([*quantiles, mean]).all():
            found[row.set][chemical_symbols[row.element]] = Spread(quantiles, mean)
    return found


def _limits(shift: Shift) -> dict[str, dict[str, float]]:
    """Limits to draw: those of the fit-on set; none where each trajectory has its own."""
    if not shift.model.limits:
        return {"q": {}, "t2": {}}
    return {
        measure: {
            chemical_symbols[row.element]: getattr(row, f"{measure}_limit")
            for row in shift.elements
            if np.isfinite(getattr(row, f"{measure}_limit"))
        }
        for measure in ("q", "t2")
    }


def _element_table(shift: Shift) -> Table:
    order = _by_number(shift)
    rows = sorted(shift.elements, key=lambda row: (order.index(chemical_symbols[row.element]), row.set))
    return Table(
        "Q and T² by element",
        ("element", "set", "atoms", "Q mean ± std", "95 %", "limit", "T² mean", "limit", "outside"),
        tuple(
            (
                chemical_symbols[row.element], row.set, str(row.n), f"{number(row.q_mean, 4)} ± {number(row.q_std)}",
                number(row.q_quantiles[4]), number(row.q_limit), number(row.t2_mean),
                number(row.t2_limit), f"{100 * row.flagged:.1f} %",
            )
            for row in rows
        ),
        note=shift.scores[rows[0].set].limits["q"].detail.capitalize() + ". Limit: mean + 2 standard deviations.",
    )  # fmt: skip


def _coverage_tables(shift: Shift) -> Iterator[Table]:
    for (a, b), found in shift.coverage.items():
        rows = [
            (
                f"bins of {width:g}", _share(found.only_a[i]), _share(found.only_b[i]),
                _share(found.jaccard[i], percent=False),
            )
            for i, width in enumerate(found.widths)
        ]  # fmt: skip
        rows.append(("nearest neighbours", _share(found.beyond_b), _share(found.beyond_a), ""))
        yield Table(
            f"Coverage: A is {a}, B is {b}", ("measure", "A outside B", "B outside A", "Jaccard"), tuple(rows),
            note=f"{found.n_frames} frames of each, all elements, 95 % intervals over frames. Bins in PC1-PC2 that the "
            "other set leaves empty; atoms further from the nearest of their element (all axes) than 99 % of the other "
            "set's own.",
        )  # fmt: skip


def _coverage_by_element(shift: Shift) -> Iterator[Table]:
    for (a, b), found in shift.coverage.items():
        middle = len(found.widths) // 2
        rows = tuple(
            (
                chemical_symbols[int(z)], _share(found.only_a[middle], i), _share(found.only_b[middle], i),
                _share(found.jaccard[middle], i, percent=False), _share(found.beyond_b, i), _share(found.beyond_a, i),
            )
            for i, z in enumerate(found.elements)
        )  # fmt: skip
        yield Table(
            f"Coverage by element: A is {a}, B is {b}",
            ("element", "bins, A outside B", "bins, B outside A", "Jaccard", "A beyond B", "B beyond A"), rows,
            brief=False, note=f"Bins of {found.widths[middle]:g}; beyond: by nearest neighbours.",
        )  # fmt: skip


def _density_table(shift: Shift) -> Table:
    rows = tuple(
        (
            str(row["set"]), str(row["frames"]), number(row["density_g_cm3"], 4), number(row["std_g_cm3"]),  # type: ignore
            number(row["lowest_g_cm3"], 4), number(row["highest_g_cm3"], 4), number(row["volume_A3"], 5),  # type: ignore
            shift.boundaries[str(row["set"])],
        )
        for row in shift.density.table()
    )  # fmt: skip
    head = ("set", "frames", "density g/cm³", "std", "lowest", "highest", "volume Å³", "boundaries")
    return Table("Density by set", head, rows)


def _matched_tables(shift: Shift) -> Iterator[Table]:
    for (a, b), found in shift.matched.items():
        if found is None or found.coverage is None:
            continue
        rows = [
            (name, *(f"{100 * one[key]:.1f} %" for key in ("only_a", "only_b", "beyond_b", "beyond_a")))
            for name, one in (("equal density", found.same_axes), ("any density", found.unmatched))
        ]
        middle = len(found.coverage.widths) // 2
        both = (found.coverage.only_a[middle], found.coverage.only_b[middle], found.coverage.beyond_b,
                found.coverage.beyond_a)  # fmt: skip
        rows.append(("equal density, own axes", *(_share(one) for one in both)))
        explained = ", ".join(f"{100 * value:.1f}" for value in found.explained) if found.explained is not None else ""
        yield Table(
            f"At equal density: A is {a}, B is {b}",
            ("frames", "bins, A outside B", "bins, B outside A", "A beyond B", "B beyond A"), tuple(rows),
            note=f"{found.n} pairs of frames within {found.tolerance:.3f} g/cm³, and as many whatever their density. "
            f"Axes of the pairs alone explain {explained} % of their variance. Structures in both sets are left out.",
        )  # fmt: skip


def _variance_table(shift: Shift) -> Table:
    rows = tuple(
        (chemical_symbols[z] if z else "all", *(f"{value:.2f}" for value in percent[:8]), f"{percent.sum():.2f}")
        for z, percent in shift.explained.items()
    )
    most = max(len(row) for row in rows) - 2
    rows = tuple((*row[:-1], *[""] * (most + 2 - len(row)), row[-1]) for row in rows)
    return Table(
        "Explained variance, %", ("atoms", *(f"PC{i}" for i in range(1, most + 1)), "sum"), rows,
        note=f"Fitted on {', '.join(shift.fitted_on)}: {shift.fit_frames[0]} frames.",
    )  # fmt: skip


def _densities(sets: Mapping[str, FrameSet]) -> dict[str, dict[str, np.ndarray]]:
    from mlipkit.analysis.density import densities

    found: dict[str, dict[str, np.ndarray]] = {}
    for name, frames in sets.items():
        values, runs = densities(frames), np.asarray(frames.trajectory)
        numbers = np.unique(runs)
        groups = {"all": runs == runs} if len(numbers) > _RUNS else {
            str(n) if n >= 0 else "no run": runs == n for n in numbers.tolist()
        }  # fmt: skip
        found[name] = {
            run: values[rows][np.linspace(0, rows.sum() - 1, min(int(rows.sum()), 400)).round().astype(int)]
            for run, rows in groups.items()
        }
    return found


def _share(share: Share, i: int = -1, percent: bool = True) -> str:
    value, low, high = (float(one[i]) for one in (share.value, share.lower, share.upper))
    if not np.isfinite(value):
        return ""
    scale, digits = (100, int(value < 0.1)) if percent else (1, 2)
    text = f"{scale * value:.{digits}f}{' %' if percent else ''}"
    return f"{text} ({scale * low:.{digits}f} to {scale * high:.{digits}f})" if np.isfinite([low, high]).all() else text


def _figures(shift: Shift) -> Iterator[tuple[str, tuple[float, str]]]:
    for z, percent in shift.explained.items():
        suffix = f"_{chemical_symbols[z]}" if z else ""
        for i, value in enumerate(percent, start=1):
            yield f"explained_pc{i}{suffix}", (float(value), "%")
        yield f"explained{suffix}", (float(percent.sum()), "%")
    for row in shift.elements:
        yield f"q_mean_{row.set}_{chemical_symbols[row.element]}", (row.q_mean, "")
    for name in shift.sets:
        yield f"outside_{name}", (100 * shift.flagged_atoms(name), "% of atoms")
    for (a, b), found in shift.coverage.items():
        middle = len(found.widths) // 2
        yield f"only_{a}_against_{b}", (100 * float(found.only_a[middle].value[-1]), "%")
        yield f"only_{b}_against_{a}", (100 * float(found.only_b[middle].value[-1]), "%")
        yield f"jaccard_{a}_{b}", (float(found.jaccard[middle].value[-1]), "")
    for row in shift.density.table():
        yield f"density_{row['set']}", (float(row["density_g_cm3"]), "g/cm³")  # type: ignore[arg-type]
