"""A labelling in the report: what failed and why, the engine, what is in the labelled frames."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from mlipkit.labelling.job import LABELLED, SUMMARY
from mlipkit.runs.page import table

if TYPE_CHECKING:
    from mlipkit.runs.run import Run

MOST_FRAMES = 50
"""Failed frames that are listed one by one."""


def label_html(run: Run) -> str:
    """Reasons of failures, failed frames, the engine and the report on the labelled frames, as pieces of the page."""
    found = run.files.read(SUMMARY)
    if not found:
        return ""
    parts = []
    failed = found["failed"]
    if failed:
        parts.append(f"<h3>Frames without labels</h3>{table([[str(n), text] for text, n in found['reasons']])}")
        rows = [[str(one["index"]), one["uid"], one["reason"], f"{one['seconds']:.3g}"] for one in failed[:MOST_FRAMES]]
        more = (
            f"<p>The first {MOST_FRAMES} of {len(failed)}; all are in {SUMMARY}.</p>" if rows[MOST_FRAMES - 1 :] else ""
        )
        parts.append(table(rows, ("frame", "uid", "reason", "seconds")) + more)
    maker = found["maker"]
    rows = [[name.replace("_", " "), str(maker[name])] for name in ("name", "level_of_theory", "engine", "version")]
    rows += [[name.replace("_", " "), str(value)] for name, value in maker.get("settings", {}).items()]
    parts.append(f"<h3>Engine</h3>{table(rows)}")
    if (run.folder / LABELLED).is_file():
        from mlipkit.data import read
        from mlipkit.runs.report import data_html

        frames = read(run.folder / LABELLED)
        parts.append(f"<h3>Labelled frames</h3><p>{html.escape(frames.describe())}</p>{data_html(frames.report())}")
    return "\n".join(parts)
