"""Fills places of ``docs/taip_case.md`` from what was measured: ``python benchmarks/studies/taip_page.py``.

What is not measured yet leaves a line in its place that says how to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import taip_tables as tables
import taip_tables_runs as runs
from pages import filled
from records import RESULTS

from mlipkit.data.whole import write_whole
from mlipkit.runs.taip_report import upgraded

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "taip_case.md"
COMMANDS = {
    "taip.json": "python benchmarks/studies/taip.py",
    "taip_trial.json": "python benchmarks/studies/taip.py --plan taip_trial.yaml",
    "taip_profiles.json": "python benchmarks/studies/taip_profiles.py",
    "taip_survival.json": "python benchmarks/studies/taip_survival.py",
    "taip_cost.jsonl": "python benchmarks/taip_cost.py",
    "taip_hold.jsonl": "python benchmarks/taip_hold.py POTENTIAL FRAMES",
}
"""File of results -> the command that makes it."""
STUDY = {
    "counted": tables.counted,
    "summary": tables.summary,
    "forces": lambda cases: tables.against_baseline(cases, "forces"),
    "energies": lambda cases: tables.against_baseline(cases, "energy"),
    "steps": tables.steps_on_validation,
    "steps on tests": tables.steps_on_tests,
    "losses alone": tables.losses_alone,
    "signals": tables.signals,
    "cost": tables.cost,
    "verdicts": tables.verdicts,
}
"""Place -> its table, of the cases of the study."""
SOME = {
    "sizes": (tables.sizes, [f"{case}:{encoder}" for case in tables.SIZES for encoder in ("schnet", "painn")]),
    "shifts": (tables.shifts, ["a_acac:schnet", "a_acac:painn"]),
}
"""Place -> its table and the evaluations that it needs some of."""
OTHERS = {
    "profiles": ("taip_profiles.json", runs.profiles),
    "survival": ("taip_survival.json", runs.survival),
    "simulation cost": ("taip_cost.jsonl", runs.simulation_cost),
    "at once": ("taip_cost.jsonl", runs.at_once),
    "held": ("taip_hold.jsonl", runs.held),
}
"""Place -> the file that it needs, and its table."""


def not_yet(command: str) -> str:
    return f"*Not measured yet:* `{command}`"


def results(folder: Path) -> dict[str, Any]:
    """File -> its record, or its lines, of those that there are."""
    found: dict[str, Any] = {}
    for name in COMMANDS:
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8")
            found[name] = json.loads(text) if name.endswith(".json") else [json.loads(x) for x in text.splitlines()]
    return found


def planned(plan: str) -> list[str]:
    """``case:encoder`` of all evaluations of a plan."""
    study = yaml.safe_load((HERE / plan).read_text(encoding="utf-8"))
    return [f"{case}:{encoder}" for case in study["cases"] for encoder in study["encoders"]]


def state(cases: Mapping[str, Any], everything: Sequence[str]) -> str:
    """How much of the study there is."""
    missing = [key for key in everything if key not in cases]
    said = f"{len(everything) - len(missing)} of {len(everything)} evaluations are finished."
    if missing:
        only = f" --only {','.join(missing)}" if len(missing) < len(everything) else ""
        said += f" Not yet: `{COMMANDS['taip.json']}{only}`"
    return said


def places(found: Mapping[str, Any]) -> dict[str, str]:
    """Name of a place -> its table, or how to get it.

    Args:
        found: file of results -> its content.
    """
    cases = {key: upgraded(record) for key, record in found.get("taip.json", {}).get("cases", {}).items()}
    filling = {"state": state(cases, planned("taip_small.yaml"))}
    for name, table in STUDY.items():
        filling[name] = table(cases) if cases else not_yet(COMMANDS["taip.json"])
    for name, (table, needed) in SOME.items():
        lacking = not any(key in cases for key in needed)
        filling[name] = not_yet(f"{COMMANDS['taip.json']} --only {','.join(needed)}") if lacking else table(cases)
    for name, (file, tabled) in OTHERS.items():
        filling[name] = tabled(found[file]) if file in found else not_yet(COMMANDS[file])
    trial = found.get("taip_trial.json", {}).get("cases")
    filling["trial"] = tables.trial(trial) if trial else not_yet(COMMANDS["taip_trial.json"])
    return filling


def main() -> None:
    write_whole(PAGE, filled(PAGE.read_text(encoding="utf-8"), places(results(RESULTS)), PAGE.name).encode())


if __name__ == "__main__":
    main()
