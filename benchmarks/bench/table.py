"""From recorded lines to the table: medians, the better peer, ratios, floors, and whether a ratio counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from .jobs import JOBS, Job

OURS = "mlipkit"
SETTINGS = ("tuned", "installed")
EQUAL_ERROR = 1.05
"""A ratio of times counts where our force error is at most this many times the peer's on the same split."""
EQUAL_SIZE = 1.02
Lines = list[dict[str, Any]]


def quartiles(seconds: Iterable[float], per: int) -> list[float]:
    """First quartile, median, third quartile in ms per unit."""
    return [round(1e3 * float(q) / per, 6) for q in np.percentile(list(seconds), [25, 50, 75])]


def key(line: dict[str, Any]) -> tuple[str, int, str, str]:
    """What is measured together: job, threads, settings, device."""
    return line["job"], line["threads"], line["settings"], line["device"]


def latest(lines: Lines) -> dict[tuple[str, int, str, str], Lines]:
    """The last group of each key that holds us and a peer, else the last one: only what was measured in turns, in one
    run, is ever compared."""
    groups: dict[tuple, dict[str, Lines]] = defaultdict(dict)
    for line in lines:
        groups[key(line)].setdefault(line["group"], []).append(line)
    found = {}
    for where, by_group in groups.items():
        pairs = [g for g in by_group.values() if OURS in {x["engine"] for x in g} and len(g) > 1]
        found[where] = (pairs or list(by_group.values()))[-1]
    return found


def figure(line: dict[str, Any]) -> float:
    """The figure of a line, ms per unit: median CPU time, on a GPU median wall time."""
    return line["cpu_ms" if line["device"] == "cpu" else "wall_ms"][1]


def force_errors(lines: Lines) -> dict[str, float]:
    """Model -> our force MAE over the peer's (means over seeds), the largest over data sets, same split and steps."""
    errors: dict[tuple[str, str, int], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        side = "ours" if line["engine"].startswith(OURS) else "peer"
        where = line["model"], line["data"], line["steps"]
        errors[where][side][line["settings"]["seed"]] = line["test"]["forces_mae"]
    ratios: dict[str, float] = {}
    for (model, _, _), sides in errors.items():
        seeds = sorted(set(sides["ours"]) & set(sides["peer"]))
        if seeds:
            ours, peer = (float(np.mean([sides[side][s] for s in seeds])) for side in ("ours", "peer"))
            ratios[model] = max(ratios.get(model, 0.0), ours / peer)
    return ratios


def compare(group: Lines) -> dict[str, Any] | None:
    """Ours beside the better peer of one group; None without us."""
    mine = next((line for line in group if line["engine"] == OURS), None)
    if mine is None:
        return None
    peers = [line for line in group if line["engine"] != OURS]
    best = min(peers, key=figure, default=None)
    floor = mine["gflop"] / mine["machine_gflops"] * 1e3 if mine.get("gflop") and mine.get("machine_gflops") else None
    return {
        "ours": mine,
        "best": best,
        "leanest": min(peers, key=lambda line: line["peak_mib"], default=None),
        "ratio": figure(best) / figure(mine) if best else None,
        "wall_ratio": best["wall_ms"][1] / mine["wall_ms"][1] if best else None,
        "floor_share": floor / figure(mine) if floor else None,
        "unequal": unequal(group),
    }


def unequal(group: Lines) -> list[str]:
    """What differs between the engines of a group and should not: edges, atoms, number of weights."""
    said = []
    for what, allowed in (("edges", 1.0), ("atoms", 1.0), ("without_embedding", EQUAL_SIZE)):
        found = {line["engine"]: line["facts"][what] for line in group if what in line["facts"]}
        if found and max(found.values()) > allowed * min(found.values()):
            said.append(f"{group[0]['job']}: {what} " + ", ".join(f"{k} {v}" for k, v in found.items()))
    return said


def verdict(job: Job, ratio: float | None, error: float | None) -> str:
    """ "yes" or "no" against the target; a ratio between models of unknown or larger force error does not count."""
    if ratio is None or job.target is None:
        return "-"
    if job.model and error is None:
        return "not compared"
    if job.model and error is not None and error > EQUAL_ERROR:
        return "error too large"
    return "yes" if ratio >= job.target else "no"


def rows(lines: Lines, errors: dict[str, float], threads: int, device: str) -> tuple[list[list[str]], list[str]]:
    """The rows of the table for one number of threads, and notes under it."""
    groups, out, notes = latest(lines), [], []
    for job in JOBS:
        found = {s: compare(groups.get((job.name, threads, s, device), [])) for s in SETTINGS}
        tuned, installed = found["tuned"], found["installed"]
        shown = tuned or installed
        if shown is None:
            continue
        mine, best, ratio = shown["ours"], shown["best"], tuned["ratio"] if tuned else None
        notes += [note for note in shown["unequal"] if note not in notes]
        out.append([
            job.name, _spread(mine), _spread(best), best["engine"] if best else "-", _times(ratio),
            _times(tuned["wall_ratio"] if tuned else None), _times(installed["ratio"] if installed else None),
            "-" if job.target is None else f"{job.target:g}", verdict(job, ratio, errors.get(job.model)),
            "-" if shown["floor_share"] is None else f"{shown['floor_share']:.0%}",
            " / ".join(f"{x['peak_mib']:.0f}" for x in (mine, shown["leanest"]) if x),
        ])  # fmt: skip
    return out, notes


HEAD = [
    "job", "mlipkit ms", "best peer ms", "which", "ratio tuned", "by wall", "as installed", "target", "met", "floor",
    "peak MiB",
]  # fmt: skip


def _spread(line: dict[str, Any] | None) -> str:
    """Median with quartiles; wall time in brackets where threads make it another thing."""
    if line is None:
        return "-"
    low, mid, high = line["cpu_ms" if line["device"] == "cpu" else "wall_ms"]
    wall = f" [{_short(line['wall_ms'][1])}]" if line["threads"] > 1 and line["device"] == "cpu" else ""
    return f"{_short(mid)} ({_short(low)}-{_short(high)}){wall}"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def render(lines: Lines, errors: dict[str, float]) -> str:
    """The whole text: a table per device and number of threads, force errors, sizes, what is unequal."""
    text, told = [], []
    for device, threads in sorted({(line["device"], line["threads"]) for line in lines}):
        body, notes = rows(lines, errors, threads, device)
        if not body:
            continue
        what = "CPU ms, median (quartiles)" if device == "cpu" else "wall ms, synchronised"
        text.append(f"\n{device}, {threads} thread{'s' if threads > 1 else ''}; {what}; MD per step\n")
        text += _aligned([HEAD, *body])
        told += [note for note in notes if note not in told]
    cited = ", ".join(f"{model} {ratio:.3f}" for model, ratio in sorted(errors.items())) or "none measured"
    text.append(
        "\nratio: time of the better peer over ours, measured in turns in one run with the same settings on both sides"
        " (tuned: flush-to-zero, malloc keeps its memory; as installed: neither)."
    )
    text.append(
        f"force MAE over the peer's at 64 features, same split (accuracy.jsonl): {cited}; up to {EQUAL_ERROR} counts."
    )
    text.append("peak MiB: ours / leanest peer's, of a process that does this job alone, imports included.")
    text.append("floor: counted matrix products at the measured speed of a large product, as a share of our time.")
    text += [*_rates(lines), *_sizes(lines)]
    text += [f"NOT EQUAL WORK: {note}" for note in told]
    return "\n".join(text)


def _rates(lines: Lines) -> list[str]:
    """MD as people quote it: steps times copies per second, ours and the best peer's."""
    groups, said = latest(lines), []
    for job in JOBS:
        for (name, threads, settings, device), group in sorted(groups.items()):
            found = compare(group) if name == job.name and job.steps and settings == "tuned" else None
            if found and found["best"]:
                ours, best = (1e3 * job.replicas / figure(found[who]) for who in ("ours", "best"))
                said.append(f"{name}, {threads} thread(s) {device}: {_short(ours)} / {_short(best)}")
    return ["steps x copies per second, mlipkit / best peer, tuned: " + "; ".join(said)] if said else []


def _sizes(lines: Lines) -> list[str]:
    """Number of weights of every model in every engine."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for line in lines:
        if "parameters" in line["facts"]:
            facts = line["facts"]
            found[line["job"].split(".")[0]][line["engine"]] = f"{facts['parameters']} ({facts['without_embedding']})"
    return [
        f"weights (without embedding), {model}: " + ", ".join(f"{engine} {n}" for engine, n in sizes.items())
        for model, sizes in found.items()
    ]


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in table]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]
