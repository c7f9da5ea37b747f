"""A workflow in the report: its plan and budget, every model beside its controls, lost frames."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from mlipkit.runs.page import details, table

if TYPE_CHECKING:
    from mlipkit.runs.run import Run

FIGURES = {
    "rmse_e": "RMSE E meV/atom", "mean_e": "mean E", "std_e": "std E", "rmse_f": "RMSE F eV/Å",
    "rmse_s": "RMSE S eV/Å³",
}  # fmt: skip


def workflow_html(run: Run) -> str:
    """Budget, errors of all models, simulations, frames that were lost, and the plan, as pieces of the page."""
    from mlipkit.strategies.workflows import Plan, provenance
    from mlipkit.strategies.workflows.evaluating import NAME

    record = run.files.read("plan.json")
    if not record:
        return ""
    plan = Plan.from_json(record)
    parts = [f"<p>{html.escape(plan.budget.sentence)}.</p>"]
    found = run.files.read(NAME)
    if found:
        said = "".join(f"<li>{html.escape(text)}</li>" for text in found["sentences"])
        parts.append(f"<h3>Every model beside its controls</h3><ul>{said}</ul>")
        rows = []
        for row in found["rows"]:
            density = row["density_g_cm3"]
            cells = [_figure(row.get(name)) for name in FIGURES]
            rows.append([row["model"], row["test_set"], str(row["n_frames"]), *cells,
                         "" if density is None else f"{density:.3g}"])  # fmt: skip
        parts.append(table(rows, ("model", "test set", "frames", *FIGURES.values(), "density g/cm³")))
        runs = [
            [name, one["sampled_by"], f"{one['rows']} of {one['planned_rows']}", _density(one), one["sentence"]]
            for name, one in found["simulations"].items()
        ]
        parts.append(f"<h3>Simulations</h3>{table(runs, ('run', 'model', 'rows', 'density g/cm³', 'verdict'))}")
    lost = [row for row in provenance.read(run.folder) if row["outcome"] not in ("labelled", "waits for its label")]
    if lost:
        rows = [[row["uid"], row["trajectory"], str(row["row"]), row["outcome"]] for row in lost]
        parts.append(f"<h3>Frames that were lost</h3>{table(rows, ('frame', 'from', 'row', 'why'))}")
    parts.append(details("Plan", plan.table()))
    return "\n".join(parts)


def _figure(value: list[float | None] | None) -> str:
    if value is None or value[0] is None:
        return ""
    centre, low, high = value
    return f"{centre:.3g}" + ("" if low is None or high is None else f" ({low:.3g} to {high:.3g})")


def _density(one: dict[str, float | None]) -> str:
    values = [one["density_first"], one["density_last"]]
    return "" if None in values else f"{values[0]:.3g} to {values[1]:.3g}"
