"""A shift as sentences, most important first, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from mlipkit.analysis.coverage import Coverage, Share
from mlipkit.analysis.density_confound import DensityShare, Matched
from mlipkit.analysis.plain import plain

if TYPE_CHECKING:
    from mlipkit.analysis.shift import Pair, Shift

SCHEMA = "mlipkit-shift-1"
APART = 0.005
"""Share of the mean density above which two sets are said to differ in density."""
MOSTLY = 0.5
"""Share of a shift from which on density belongs into the first sentence."""


def sentences(shift: Shift) -> list[str]:
    """What matters, most important first."""
    said = [*_boundaries(shift), *_same(shift)]
    said += _joint(shift) if shift.joint else _outside(shift) if len(shift.sets) > 1 else _alone(shift)
    said += [text for pair in shift.coverage for text in _density(shift, pair)]
    said += [] if shift.joint else _joint(shift)
    said += [*_shared(shift), *_fit(shift), *_left(shift)]
    return said


def _boundaries(shift: Shift) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for name, kind in shift.boundaries.items():
        kinds.setdefault(kind, []).append(name)
    if len(kinds) < 2:
        return []
    parts = "; ".join(f"{_list(names)}: {kind}" for kind, names in kinds.items())
    return [f"The sets differ in their boundaries ({parts}), so surfaces count as shift, and there is no density."]


def _same(shift: Shift) -> list[str]:
    said = []
    for (a, b), n in shift.shared.items():
        sizes = [len(np.unique(shift.sets[name].structure_hashes)) for name in (a, b)]
        if n == sizes[0] == sizes[1]:
            said.append(f"{a} and {b} hold the same {n} structures.")
    return said


def _outside(shift: Shift) -> list[str]:
    """Who lies outside the space that the fit-on set spans."""
    fitted = _list(shift.fitted_on)
    rows = sorted((name for name in shift.sets if name not in shift.fitted_on), key=lambda n: -shift.flagged_atoms(n))
    own = max(shift.flagged_atoms(name) for name in shift.fitted_on)
    said = []
    for name in rows:
        share = shift.flagged_atoms(name)
        text = f"{name}: {_percent(share)} of the atoms lie outside the training space of {fitted} (SOAP Q), against "
        text += f"{_percent(own)} of {fitted} itself"
        unknown = shift.unknown(name)
        if unknown:
            n = int(np.isin(shift.scores[name].numbers, unknown).sum())
            text += f"; {n} of them are {_elements(unknown)}, which {fitted} lacks"
        worst = _worst(shift, name)
        said.append(f"{text}.{f' {worst}' if worst else ''}")
    return said


def _worst(shift: Shift, name: str) -> str:
    """The element whose Q stands out most against the fit-on set."""
    base = {row.element: row for row in shift.elements if row.set == shift.fitted_on[0]}
    ratios = [
        (row.q_mean / base[row.element].q_mean, row)
        for row in shift.elements
        if row.set == name and row.element in base and base[row.element].q_mean > 0 and np.isfinite(row.q_mean)
    ]
    if not ratios:
        return ""
    ratio, row = max(ratios, key=lambda one: one[0])
    return (
        f"Q of {chemical_symbols[row.element]} differs most: {row.q_mean:.2f} on average, {ratio:.2f} times that of "
        f"{shift.fitted_on[0]}."
    )


def _joint(shift: Shift) -> list[str]:
    said, neighbours = [], []
    for (a, b), found in shift.coverage.items():
        n_a, n_b = (len(np.unique(shift.sets[name].structure_hashes)) for name in (a, b))
        if shift.shared[a, b] == n_a == n_b:
            continue
        middle = len(found.widths) // 2
        only_a, only_b = found.only_a[middle], found.only_b[middle]
        share = shift.density_shares.get((a, b))
        mostly = share is not None and share.share >= MOSTLY and _apart(shift, (a, b)) >= APART
        said.append(
            f"{b} leaves out {_interval(only_a)} of the places that {a} fills, and {a} {_interval(only_b)} of those of "
            f"{b}"
            + (f"; {share.share:.0%} of the shift between them goes along with density" if mostly and share else "")
            + "."
        )
        neighbours.append(
            f"Beyond the nearest neighbours of {b} lie {_interval(found.beyond_b)} of the atoms of {a}, and of {b} "
            f"beyond {a} {_interval(found.beyond_a)}."
        )
    if said:
        one = next(iter(shift.coverage.values()))
        width, n = one.widths[len(one.widths) // 2], {found.n_frames for found in shift.coverage.values()}
        frames = f"{min(n)}" if len(n) == 1 else f"{min(n)} to {max(n)}"
        neighbours.append(f"Places are bins of {width:g} in PC1-PC2, {frames} frames of each set, 95% intervals.")
    said += neighbours
    return said


def _density(shift: Shift, pair: Pair) -> list[str]:
    a, b = pair
    mean, off = _mean_density(shift), _apart(shift, pair)
    if not np.isfinite(off):
        return []
    text = f"Density: {a} {mean[a]:.3f}, {b} {mean[b]:.3f} g/cm³"
    share = shift.density_shares.get(pair)
    if off < APART:
        text += ": no confound"
    elif share is not None:
        text += (
            f" ({off:.0%} apart): {share.share:.0%} of the shift goes along with density (95% interval {share.low:.0%} "
            f"to {share.high:.0%}; r = {share.correlation:.2f})"
        )
    said = [f"{text}."]
    found = shift.matched.get(pair)
    if found is not None and off >= APART:
        said.append(_matched(pair, found))
    return said


def _mean_density(shift: Shift) -> dict[str, float]:
    return {name: float(value) for name, value in zip(shift.density.sets, shift.density.mean, strict=True)}


def _apart(shift: Shift, pair: Pair) -> float:
    """Difference of two mean densities over their mean; NaN where there is none."""
    a, b = (_mean_density(shift)[name] for name in pair)
    return abs(a - b) / (0.5 * (a + b))


def _matched(pair: Pair, found: Matched) -> str:
    a, b = pair
    if not found.n:
        reach = " and ".join(f"{low:.3f} to {high:.3f}" for low, high in found.ranges)
        return (
            f"No frame of {a} has the density of a frame of {b} within {found.tolerance:.3f} g/cm³ ({reach}, shared "
            "structures apart): the shift cannot be told from that of density."
        )
    if found.coverage is None:
        return f"At equal density (within {found.tolerance:.3f} g/cm³) only {found.n} pairs of frames remain: too few."
    same, free = found.same_axes, found.unmatched
    return (
        f"At equal density (within {found.tolerance:.3f} g/cm³) {found.n} pairs of frames remain, and {b} leaves out "
        f"{_percent(same['only_a'])} of the places of {a}, {a} {_percent(same['only_b'])} of those of {b}; as many "
        f"frames drawn whatever their density: {_percent(free['only_a'])} and {_percent(free['only_b'])}."
    )


def _shared(shift: Shift) -> list[str]:
    said = [
        f"{n} structures are in both {a} and {b}; they count in axes and coverage, not in the answers on density."
        for (a, b), n in shift.shared.items()
        if n and n < min(len(np.unique(shift.sets[name].structure_hashes)) for name in (a, b))
    ]
    return said + [
        f"{n} frames of {name} repeat a structure that the set holds already."
        for name, n in shift.duplicates.items()
        if n
    ]


def _alone(shift: Shift) -> list[str]:
    name = next(iter(shift.sets))
    return [f"{name} alone: {_percent(shift.flagged_atoms(name))} of its atoms lie above their own limits of Q."]


def _fit(shift: Shift) -> list[str]:
    used, there = shift.fit_frames
    frames = f"{used} frames" if used == there else f"{used} of {there} frames, evenly taken"
    axes = shift.explained
    if 0 in axes:
        percent = axes[0]
        each = ", ".join(f"{value:.2f}" for value in percent[:8]) + (", ..." if len(percent) > 8 else "")
        axes_explain = "1 axis explains" if len(percent) == 1 else f"{len(percent)} axes explain"
        text = f"{axes_explain} {percent.sum():.2f} % of the variance ({each})"
    else:
        text = "Axes of each element explain " + ", ".join(
            f"{chemical_symbols[z]} {percent.sum():.1f} %" for z, percent in axes.items()
        )
    said = [f"{text}, fitted on {_list(shift.fitted_on)} ({frames})."]
    if shift.uncompared:
        said.append(
            f"Not compared: {', '.join(f'{a} with {b}' for a, b in shift.uncompared[:3])}"
            + (f" and {len(shift.uncompared) - 3} more pairs" if len(shift.uncompared) > 3 else "")
            + " (a set of one frame, or too many pairs)."
        )
    return said


def _left(shift: Shift) -> list[str]:
    return [
        f"Left out of {name}: {one.n} frames of a single atom ({_list(one.sources)}), which have no surroundings."
        for name, one in shift.left_out.items()
    ]


def to_json(shift: Shift) -> dict[str, Any]:
    """All figures of a shift; what is not finite is null."""
    from mlipkit.analysis.shift import QUANTILES

    names = [str(q) for q in QUANTILES]
    limits = {name: one.limits for name, one in shift.scores.items()}
    if shift.model.limits:
        limits = {"all": shift.model.limits}
    density = {row["set"]: row for row in shift.density.table()}
    return plain({
        "schema": SCHEMA,
        "sentences": sentences(shift),
        "fit": {
            "on": list(shift.fitted_on), "joint": shift.joint, "frames": shift.fit_frames[0],
            "of_frames": shift.fit_frames[1], "descriptor": shift.model.descriptor.facts(),
            "descriptor_hash": shift.model.descriptor.hash, "per_element": shift.model.per_element,
            "rule": shift.model.rule, "facts": dict(shift.model.facts),
            "explained_percent": {_axes(z): list(percent) for z, percent in shift.explained.items()},
            "explained_percent_sum": {_axes(z): percent.sum() for z, percent in shift.explained.items()},
        },
        "sets": {
            name: {
                "frames": len(frames), "atoms": int(frames.offsets[-1]),
                "elements": [chemical_symbols[z] for z in frames.elements], "boundaries": shift.boundaries[name],
                "flagged_atoms": shift.flagged_atoms(name), "flagged_frames": shift.flagged_frames(name),
                "unknown_elements": [chemical_symbols[z] for z in shift.unknown(name)],
                "repeated_frames": shift.duplicates[name],
                "left_out": {"frames": shift.left_out[name].n, "sources": list(shift.left_out[name].sources)}
                if name in shift.left_out else None,
                "density": {key: value for key, value in density[name].items() if key not in ("set", "run")},
            }
            for name, frames in shift.sets.items()
        },
        "sets_left_out": {
            name: {"frames": one.n, "sources": list(one.sources)}
            for name, one in shift.left_out.items()
            if name not in shift.sets
        },
        "elements": [
            {
                "set": row.set, "element": chemical_symbols[row.element], "atoms": row.n, "flagged": row.flagged,
                "q": {"mean": row.q_mean, "std": row.q_std, "limit": row.q_limit,
                      "quantiles": dict(zip(names, row.q_quantiles, strict=True))},
                "t2": {"mean": row.t2_mean, "std": row.t2_std, "limit": row.t2_limit,
                       "quantiles": dict(zip(names, row.t2_quantiles, strict=True))},
            }
            for row in shift.elements
        ],
        "limits": {
            name: {
                measure: {**one.to_json(), "elements": {
                    chemical_symbols[z]: row for z, row in one.to_json()["elements"].items()
                }}
                for measure, one in each.items()
            }
            for name, each in limits.items()
        },
        "coverage": [{"a": a, "b": b, **coverage_json(found)} for (a, b), found in shift.coverage.items()],
        "not_compared": [list(pair) for pair in shift.uncompared],
        "shared_structures": [{"a": a, "b": b, "structures": n} for (a, b), n in shift.shared.items()],
        "density_confound": [
            {"a": a, "b": b, "share": _share_json(one), "matched": _matched_json(shift.matched.get((a, b)))}
            for (a, b), one in shift.density_shares.items()
        ],
    })  # fmt: skip


def coverage_json(found: Coverage) -> dict[str, Any]:
    """Shares per bin width and element; "all" is all elements together."""
    names = [*(chemical_symbols[int(z)] for z in found.elements), "all"]

    def shares(one: Share) -> dict[str, Any]:
        return {
            name: {"value": one.value[i], "low": one.lower[i], "high": one.upper[i]} for i, name in enumerate(names)
        }

    return {
        "frames_of_each": found.n_frames, "confidence": found.confidence,
        "only_a": {f"{h:g}": shares(one) for h, one in zip(found.widths, found.only_a, strict=True)},
        "only_b": {f"{h:g}": shares(one) for h, one in zip(found.widths, found.only_b, strict=True)},
        "jaccard": {f"{h:g}": shares(one) for h, one in zip(found.widths, found.jaccard, strict=True)},
        "a_beyond_b": shares(found.beyond_b), "b_beyond_a": shares(found.beyond_a),
        "limit_b": dict(zip(names, found.limit_b, strict=False)),
        "limit_a": dict(zip(names, found.limit_a, strict=False)),
    }  # fmt: skip


def _share_json(one: DensityShare | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "frames": list(one.n_frames), "density_g_cm3": list(one.density), "shift": one.shift, "share": one.share,
        "low": one.low, "high": one.high, "correlation": one.correlation,
    }  # fmt: skip


def _matched_json(one: Matched | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "tolerance_g_cm3": one.tolerance, "pairs": one.n, "density_g_cm3": list(one.density),
        "ranges_g_cm3": [list(ends) for ends in one.ranges],
        "uids": [[f"{int(uid):016x}" for uid in side] for side in one.uids],
        "explained_percent": None if one.explained is None else list(100 * one.explained),
        "coverage": None if one.coverage is None else coverage_json(one.coverage),
        "same_axes": dict(one.same_axes), "unmatched": dict(one.unmatched),
    }  # fmt: skip


def _axes(z: int) -> str:
    return chemical_symbols[z] if z else "all"


def _interval(share: Share) -> str:
    value, low, high = (100 * one[-1] for one in (share.value, share.lower, share.upper))
    text = f"{value:.0f}" if value >= 10 else f"{value:.1f}"
    ends = " to ".join(f"{end:.0f}" if value >= 10 else f"{end:.1f}" for end in (low, high))
    return f"{text} % ({ends})" if np.isfinite([low, high]).all() else f"{text} %"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.1f} %"


def _elements(numbers: tuple[int, ...]) -> str:
    return ", ".join(chemical_symbols[z] for z in numbers)


def _list(names: Any) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
