"""Tables of ``docs/taip_case.md`` about simulations, profiles and cost: records in, Markdown out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pages import markdown
from taip_survival import AGAIN, BOTH, CONTROL
from taip_survival import ARMS as SIMULATED
from taip_tables import ARMS

Record = Mapping[str, Any]
STRATEGIES = {
    "baseline": "trained without tasks", "none": "never adapts", "nonsaving": "nonsaving", "save_every": "save_every",
    "save_every_k": "save_every_k", "threshold": "threshold", "nonsaving_random": "nonsaving with random steps",
}  # fmt: skip


def titled(arm: str) -> str:
    """Name of an arm of the study of survival on the page."""
    for behind, words in {AGAIN: ", other velocities", BOTH: ", both"}.items():
        if arm.endswith(behind):
            return STRATEGIES[arm.removesuffix(behind)] + words
    return STRATEGIES[arm]


def simulation_cost(rows: Sequence[Record]) -> str:
    """CPU time of a force call of each strategy over that of a plain one; the last line of each counts."""
    found: dict[tuple, dict[str, float]] = {}
    for row in rows:
        if row["what"] == "md":
            key = (row["encoder"], row["features"], row["layers"], row["system"], row["replicas"])
            found.setdefault(key, {})[row["strategy"]] = row["times_plain"]
    # What is done to cost less is told as "nonsaving, HOW".
    names = [name for name in dict.fromkeys(name for mine in found.values() for name in mine) if name != "none"]
    return markdown(
        ("encoder", "features, layers", "system", "replicas", *map(_short, names)),
        [
            (encoder, f"{features}, {layers}", system, replicas,
             *(f"{mine[name]:.1f}" if name in mine else "" for name in names))
            for (encoder, features, layers, system, replicas), mine in sorted(found.items())
        ],
    )  # fmt: skip


def at_once(rows: Sequence[Record]) -> str:
    """Structures per second that are adapted together, over those one after the other; the last line of each counts."""
    found: dict[tuple, dict[int, float]] = {}
    for row in rows:
        if row["what"] == "at_once":
            key = (row["encoder"], row["features"], row["layers"])
            found.setdefault(key, {})[row["structures"]] = row["times_loop"]
    sizes = sorted({size for mine in found.values() for size in mine})
    return markdown(
        ("encoder", "features, layers", *(f"{size} at once" for size in sizes)),
        [
            (encoder, f"{features}, {layers}", *(f"{mine[size]:.1f}" if size in mine else "" for size in sizes))
            for (encoder, features, layers), mine in sorted(found.items())
        ],
    )  # fmt: skip


def _short(name: str) -> str:
    return name.removeprefix("nonsaving, ").replace("pseudo_forces", "pseudo-forces")


def held(rows: Sequence[Record]) -> str:
    """What holding a step for several steps of MD changes, and what it saves."""
    lines = []
    for row in rows:
        for name, deviation in row["rms_force_deviation_meV_per_A"].items():
            title = {"plain": "not adapted", "other_draw": "adapted, other draws"}.get(
                name, f"held for {name.removeprefix('hold_')} steps"
            )
            lines.append((row["encoder"], title, f"{deviation:.2f}", f"{row['times_plain'][name]:.1f}"))
    return markdown(("encoder", "forces", "difference to adapting every step, meV/Å", "times plain"), lines)


def profiles(record: Record) -> str:
    def spread(figure: Record) -> str:
        return f"{figure['mean']:.0f} ({figure['lowest']:.0f} to {figure['highest']:.0f})"

    return markdown(
        ("profile", "encoder", "arm", "barrier, meV (seeds)", "of the labels", "error of the barrier",
         "error of the profile"),
        [
            (name.replace("_", " "), encoder, ARMS[arm], spread(row["barrier"]),
             f"{profile['barrier_of_labels']:.0f}", spread(row["barrier_error"]), spread(row["profile_error"]))
            for encoder, found in record["encoders"].items() for name, profile in found["profiles"].items()
            for arm, row in profile["arms"].items()
        ],
    )  # fmt: skip


def survival(record: Record) -> str:
    def number(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    def without_energy(row: Record | None) -> tuple[str, ...]:
        if row is None:
            return ("",) * 4
        return f"{row['failed']} of {row['simulations']}", number(row["mean_ps"]), *against(row, "none", CONTROL)

    def against(row: Record, *controls: str) -> tuple[str, ...]:
        each = (row.get(f"p_against_{control}") for control in controls)
        return tuple("< 0.001" if p is not None and p < 0.001 else number(p, 3) for p in each)

    told, lines = [], []
    for encoder, found in record["encoders"].items():
        half = found["half_fail_at_K"]
        where = "at no temperature of the ladder; the hottest stands" if half is None else f"from {half:g} K on"
        told.append(f"{encoder}: half of the simulations of the potential without tasks fail {where}.")
        for kelvin, arms in found["temperatures"].items():
            if lacking := [titled(arm) for arm in SIMULATED if arm not in arms]:
                told.append(f"*Not measured yet for {encoder} at {kelvin} K: {', '.join(lacking)}.*")
            for arm, row in arms.items():
                low, high = row["held_interval"]
                lines.append((
                    encoder, kelvin, titled(arm), f"{row['failed']} of {row['simulations']}",
                    f"{number(row['held'])} ({number(low)} to {number(high)})", number(row["mean_ps"]),
                    number(row["median_ps"]) or "not reached",
                    *against(row, "baseline", "none", CONTROL),
                    ", ".join(f"{name} {count}" for name, count in row["reasons"].items()),
                    *without_energy(row.get("without_energy")),
                ))  # fmt: skip
    for name, row in record.get("nonsaving_together", {}).items():
        mine, theirs = (f"{a} of {n}" for a, n in zip(row["failed"], row["simulations"], strict=True))
        told.append(
            f"**Of nonsaving {mine} failed, of {titled(name)} {theirs}** (stratified log-rank test, {row['groups']} "
            f"groups of encoder and velocities: p = {row['p']:.3f}; energy not counted: {row['p_without_energy']:.3f})."
        )
    rows = markdown(
        ("encoder", "K", "strategy", "failed", "share that holds (95 %)", "mean, ps", "median, ps",
         "p against the baseline", "p against never adapting", "p against random steps", "reasons",
         "failed, energy not counted", "mean, ps", "p against never adapting", "p against random steps"), lines,
    )  # fmt: skip
    return "\n\n".join([" ".join(told), rows])
