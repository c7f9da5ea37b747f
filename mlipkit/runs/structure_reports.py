"""Bond lengths and radial distributions of sets of structures, as findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase.data import chemical_symbols

from mlipkit.analysis.plain import plain
from mlipkit.errors import DataError
from mlipkit.plots.bonds import bond_distributions, bond_figures
from mlipkit.plots.trajectories import radial_distributions
from mlipkit.runs.findings import Finding, Picture, Table, number
from mlipkit.runs.shift_report import as_called, common_bonds

if TYPE_CHECKING:
    from mlipkit.analysis.bonds import BondComparison, BondSummary
    from mlipkit.analysis.rdf import RDF, Peak
    from mlipkit.data import FrameSet

MOST_CURVES = 4
"""Elements, the most numerous, whose pairs are taken when none are named."""


def bonds_finding(
    sets: Mapping[str, FrameSet], pairs: Sequence[str] | None = None, *, cut: Literal["hard", "soft"] | float = "hard",
    order: Literal["any", "first_lower"] = "any", bins: int = 50, block: float | Literal["run"] = 25_000.0,
    seed: int = 0, python: str = "", sources: Mapping[str, str] | None = None,
) -> Finding:  # fmt: skip
    """Bond lengths of each set, each compared with the first.

    Args:
        pairs: "O-H"; the most frequent bonds between non-metals when None.
        cut: "hard" (published), "soft" or Å.
        order: "first_lower" counts only pairs whose first element has the lower index, as published.
        block: fs of the blocks that intervals come from, or "run".

    Raises:
        DataError: no bond in a set, an element that is not there.
    """
    from mlipkit.analysis.bonds import bond_lengths, compare_bonds, joint_histogram, summarise_bonds
    from mlipkit.analysis.pairs import element_pair, pair_name

    chosen = [element_pair(pair) for pair in pairs] if pairs else common_bonds(list(sets.values()))
    if not chosen:
        raise DataError("no bond between non-metals in all sets", where="bonds", hint="Name pairs: --pair Na-Cl")
    names, summaries, compared, pictures = list(sets), {}, [], []
    for pair in chosen:
        for name, frames in sets.items():
            missing = [chemical_symbols[z] for z in pair if z not in frames.elements]
            if missing:
                raise DataError(f"no {' and no '.join(missing)} in the set", where=(name, pair_name(pair)))
        lengths = {name: bond_lengths(frames, pair, cut, order) for name, frames in sets.items()}
        mine = {name: summarise_bonds(one, block=block, seed=seed) for name, one in lengths.items()}
        summaries[pair] = mine
        for name in names[1:]:
            found = compare_bonds(lengths[names[0]], lengths[name], bins=bins, block=block, seed=seed)
            compared.append((names[0], name, found))
        edges, densities = joint_histogram(lengths, bins)
        means = {name: one.values["mean"] for name, one in mine.items()}
        title, drawn = pair_name(pair), dict(zip(lengths, densities, strict=True))
        pictures.append(Picture(f"Bond lengths {title}", bond_distributions(edges, drawn, pair=title, means=means)))
        figures = {name: {key: (one.values[key], one.low[key], one.high[key]) for key in one.values}
                   for name, one in mine.items()}  # fmt: skip
        pictures.append(Picture(f"Figures of {title}", bond_figures(figures)))
    said = _bond_sentences(compared) if compared else [
        f"{pair_name(pair)}: {one[names[0]].values['mean']:.4f} Å on average, std {one[names[0]].values['std']:.4f} Å."
        for pair, one in summaries.items()
    ]  # fmt: skip
    tables = [_bond_table(summaries)] + ([_difference_table(compared)] if compared else [])
    values: dict[str, tuple[float, str]] = {}
    for pair, one in summaries.items():
        for name, summary in one.items():
            values[f"mean_{pair_name(pair)}_{name}"] = (summary.values["mean"], "Å")
            values[f"std_{pair_name(pair)}_{name}"] = (summary.values["std"], "Å")
    for a, b, found in compared:
        values[f"wasserstein_{pair_name(found.pair)}_{a}_{b}"] = (found.wasserstein, "Å")
    return Finding(
        title="Bond lengths: " + ", ".join(sets), sentences=tuple(said), parts=(*tables, *pictures), figures=values,
        data=plain({
            "schema": "mlipkit-bonds-1",
            "bonds": [{"pair": pair_name(pair), "set": name, **_summary_json(summary)}
                      for pair, one in summaries.items() for name, summary in one.items()],
            "comparisons": [_comparison_json(a, b, found) for a, b, found in compared],
        }),
        python=python, sources=sources or {},
    )  # fmt: skip


def _bond_sentences(compared: Sequence[tuple[str, str, BondComparison]]) -> Iterator[str]:
    from mlipkit.analysis.pairs import pair_name

    for a, b, found in sorted(compared, key=lambda one: -one[2].wasserstein):
        mean, low, high = found.differences["mean"]
        apart = (
            "more than chance" if found.p_value < 0.05 else "no more than chance does"
            if np.isfinite(found.p_value) else "with too few blocks to know chance"
        )  # fmt: skip
        yield (
            f"{pair_name(found.pair)}: {b} differs from {a} by {found.wasserstein:.4f} Å (Wasserstein), {apart}"
            f"{f' (p = {found.p_value:.3f})' if np.isfinite(found.p_value) else ''}; its mean is {1000 * mean:+.1f} mÅ "
            f"off{f' ({1000 * low:+.1f} to {1000 * high:+.1f})' if np.isfinite(low) else ''}."
        )


def _bond_table(summaries: Mapping[tuple[int, int], Mapping[str, BondSummary]]) -> Table:
    from mlipkit.analysis.pairs import pair_name

    rows = []
    for pair, one in summaries.items():
        for name, summary in one.items():
            cells = [_between(summary.values[key], summary.low[key], summary.high[key], digits)
                     for key, digits in (("mean", 4), ("std", 4), ("skew", 2), ("q05", 3), ("q95", 3))]  # fmt: skip
            rows.append((pair_name(pair), name, number(summary.cut), number(summary.per_frame), *cells))
    head = ("bond", "set", "cut Å", "per frame", "mean Å", "std Å", "skew", "5 % Å", "95 % Å")
    return Table("Bond lengths", head, tuple(rows), note="±: half of the 95 % interval over blocks of time.")


def _difference_table(compared: Sequence[tuple[str, str, BondComparison]]) -> Table:
    from mlipkit.analysis.pairs import pair_name

    rows = tuple(
        (
            pair_name(one.pair), a, b, f"{one.wasserstein:.4f}", number(one.chance), number(one.p_value),
            _between(*one.differences["mean"], 4), _between(*one.differences["std"], 4),
        )
        for a, b, one in compared
    )  # fmt: skip
    head = ("bond", "A", "B", "Wasserstein Å", "chance (95 %) Å", "p", "mean B - A, Å", "std B - A, Å")
    return Table("Differences", head, rows)


def _summary_json(one: BondSummary) -> dict[str, Any]:
    return {
        "cut_A": one.cut, "bonds": one.n_bonds, "frames": one.n_frames, "blocks": one.n_blocks,
        "per_frame": one.per_frame,
        "values": {key: {"value": one.values[key], "low": one.low[key], "high": one.high[key]} for key in one.values},
    }  # fmt: skip


def _comparison_json(a: str, b: str, one: BondComparison) -> dict[str, Any]:
    from mlipkit.analysis.pairs import pair_name

    return {
        "pair": pair_name(one.pair), "a": a, "b": b, "cut_A": one.cut, "wasserstein_A": one.wasserstein,
        "low": one.low, "high": one.high, "chance_A": one.chance, "p_value": one.p_value,
        "blocks": list(one.n_blocks), "edges_A": one.edges.tolist(),
        "densities": {name: values.tolist() for name, values in zip((a, b), one.densities, strict=True)},
        "differences": {key: dict(zip(("value", "low", "high"), row, strict=True))
                        for key, row in one.differences.items()},
    }  # fmt: skip


def rdf_finding(
    sets: Mapping[str, FrameSet], pairs: Sequence[str] | None = None, *, r_max: float = 6.0, bins: int = 300,
    normalise: Literal["density", "none"] | None = None, python: str = "", sources: Mapping[str, str] | None = None,
) -> Finding:  # fmt: skip
    """Radial distributions of each set.

    Args:
        pairs: "O-H"; all pairs of the most numerous elements that the sets have in common when None.
        normalise: "density" (g), "none" (neighbours per Å); the first where all frames are periodic when None.

    Raises:
        DataError: as `mlipkit.analysis.rdf`.
    """
    from mlipkit.analysis.pairs import element_pair, pair_name
    from mlipkit.analysis.rdf import rdf

    if normalise is None:
        normalise = "density" if all(bool(np.asarray(frames.pbc).all()) for frames in sets.values()) else "none"
    chosen = [element_pair(pair) for pair in pairs] if pairs else _numerous_pairs(sets)
    found = {}
    for name, frames in sets.items():
        try:
            found[name] = rdf(frames, chosen, r_max, bins, normalise=normalise)
        except DataError as error:
            raise DataError(error.what, where=(name, *error.where), expected=error.expected, found=error.found,
                            hint=error.hint) from error  # fmt: skip
    pictures, rows, values, said = [], [], {}, []
    for pair in chosen:
        curves = {name: one.partial[pair] for name, one in found.items()}
        figure = radial_distributions(
            next(iter(found.values())).r, curves, errors={name: one.error[pair] for name, one in found.items()},
            normalised=normalise == "density",
        )  # fmt: skip
        pictures.append(Picture(f"{pair_name(pair)}", figure))
        tops = {}
        for name, one in found.items():
            try:
                top = tops[name] = _peak(one, pair, normalise)
            except DataError:
                rows.append((pair_name(pair), name, "none", "", "", ""))
                continue
            rows.append((pair_name(pair), name, number(top.r, 4), number(top.height), number(top.minimum_r),
                         number(top.coordination)))  # fmt: skip
            values[f"peak_{pair_name(pair)}_{name}"] = (top.r, "Å")
            values[f"peak_height_{pair_name(pair)}_{name}"] = (top.height, "" if normalise == "density" else "1/Å")
            if np.isfinite(top.coordination):
                values[f"coordination_{pair_name(pair)}_{name}"] = (top.coordination, "")
        if tops:
            said.append(f"{pair_name(pair)}: " + "; ".join(
                f"{name} {top.r:.2f} Å, {'g' if normalise == 'density' else 'per Å'} {top.height:.3g}"
                for name, top in tops.items()
            ) + f" ({'highest peak' if normalise == 'density' else 'bond, else highest peak'}).")  # fmt: skip
    if normalise == "none":
        said.append("Not all frames are periodic, so there is no density: curves are neighbours per Å.")
    head = ("pair", "set", "peak Å", "height", "minimum Å", "neighbours")
    note = "Highest peak (the bond, where there is no density and a bond), the minimum behind it, and neighbours "
    note += "(of the second element around the first) up to there."
    return Finding(
        title="Radial distributions: " + ", ".join(sets), sentences=tuple(said),
        parts=(Table("Peaks", head, tuple(rows), note=note), *pictures), figures=values,
        data=plain({
            "schema": "mlipkit-rdf-1", "normalise": normalise,
            "sets": {
                name: {
                    "frames": one.n_frames, "blocks": one.n_blocks, "r_A": one.r.tolist(),
                    "pairs": {
                        pair_name(pair): {
                            "g": one.partial[pair].tolist(), "error": one.error[pair].tolist(),
                            "coordination": one.coordination[pair].tolist(),
                        }
                        for pair in chosen
                    },
                }
                for name, one in found.items()
            },
        }),
        python=python, sources=sources or {},
    )  # fmt: skip


def _peak(found: RDF, pair: tuple[int, int], normalise: str) -> Peak:
    """The highest peak of g. Neighbours per Å grow with the distance instead: there the bond, where there is one."""
    from mlipkit.analysis.bonds import cuts_of

    reach = cuts_of(pair).soft
    if normalise == "none" and found.partial[pair][found.r <= reach].any():
        return found.peak(pair, before=reach)
    return found.peak(pair)


def _numerous_pairs(sets: Mapping[str, FrameSet]) -> list[tuple[int, int]]:
    each = list(sets.values())
    common = sorted(set.intersection(*(set(frames.elements) for frames in each)))
    if not common:
        raise DataError("the sets have no element in common", where="rdf", hint="Name pairs: --pair O-H")
    first = each[0].numbers
    counts = {z: int((first == z).sum()) for z in common}
    chosen = sorted(common, key=lambda z: -counts[z])[:MOST_CURVES]
    return [as_called(a, b) for i, a in enumerate(chosen) for b in chosen[i:]]


def _between(value: float, low: float, high: float, digits: int) -> str:
    """The value and half of its interval; the ends are in the JSON."""
    text = f"{value:.{digits}f}"
    return f"{text} ± {0.5 * (high - low):.{digits}f}" if np.isfinite([low, high]).all() else text
