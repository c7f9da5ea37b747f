"""What a report says of a fine-tuning: the sentence, the starts beside the result, the energy zero, walls of bonds."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING

from mlipkit.events import Started
from mlipkit.plots.finetuning import bond_scan_figure
from mlipkit.runs.console import MILLI
from mlipkit.runs.page import details, figure_html, table

if TYPE_CHECKING:
    from mlipkit.runs.run import Run

KINDS = {"untouched": "untouched potential", "offset": "untouched, energies moved", "best": "result"}


def finetune_html(run: Run) -> str:
    """The part of a run's page that only fine-tuning has; "" before its end."""
    facts = run.facts()
    if "before" not in facts:
        return ""
    kind = "warning" if facts["worse_than_start"] else "completed"
    parts = [f'<p class="verdict {kind}">{html.escape(facts["sentence"])}</p>', _errors(facts), _shifts(facts)]
    path = run.folder / "bond_scan.json"
    if path.is_file():
        scans = json.loads(path.read_text(encoding="utf-8"))
        parts.append("<h3>Bond scan: two isolated atoms pulled apart, before and after</h3>")
        parts.append(figure_html(bond_scan_figure(scans)))
        parts += [f'<p class="verdict warning">{html.escape(one["warning"])}</p>' for one in scans if one["warning"]]
    started = run.last(Started)
    if started is not None and "parameters" in started.facts:
        rows = [f"{name}: {one['trainable']} trainable, {one['frozen']} frozen"
                for name, one in started.facts["parameters"].items()]  # fmt: skip
        parts.append(details("Trainable and frozen weights, by block", "\n".join(rows)))
    return "\n".join(parts)


def _errors(facts: dict) -> str:
    splits = ("validation", "test")
    found = {**facts["before"], "best": facts["metrics"]}
    rows = []
    for kind, name in KINDS.items():
        for split in splits:
            figures = found[kind].get(split)
            if figures:
                cells = (figures.get(key) for key in ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse"))
                rows.append([name, split, *("" if one is None else f"{one * MILLI:.3g}" for one in cells)])
    head = ("potential", "split", "energy MAE meV/atom", "energy RMSE", "force MAE meV/Å", "force RMSE")
    return f"<h3>Before and after</h3>{table(rows, head)}"


def _shifts(facts: dict) -> str:
    shifts = facts["shifts"]
    if not shifts["eV"]:
        return "<p>The energy zero was kept.</p>"
    rows = [[symbol, f"{value:+.5g}"] for symbol, value in shifts["eV"].items()]
    said = f" {shifts['warning']}." if shifts["warning"] else ""
    return (
        f"<h3>Energy zero ({shifts['origin']})</h3><p>Residuals of the untouched potential: mean "
        f"{shifts['mean_meV_per_atom']:.2f} meV/atom, {shifts['spread_meV_per_atom']:.2f} meV/atom around the shift."
        f"{html.escape(said)}</p>{table(rows, ('element', 'shift, eV per atom'))}"
    )
