"""Iterations as a table: the numbers of the timeline, with how simulations ended; as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mlipkit.strategies.ipip import species_record

from .loop_folder import MILLI, LoopFolder, parts_of, sampler_of

HEAD = (
    "iteration", "pool", "teacher's labels", "forgotten, relabelled", "new (before failures)",
    "MD for it, failed", "validation F, before", "validation F", "test F", "better than teacher", "test runs failed",
    "species at the end, failed",
)  # fmt: skip
CAPTION = (
    "F: force MAE, meV/Å; before: of the student that is pretrained and not yet fine-tuned. In brackets behind failed "
    "runs: 95 % interval (Wilson). Better than teacher: test frames on which the student's force error is smaller than "
    "the zero-shot teacher's; every frame is counted."
)


def iterations_html(one: LoopFolder) -> str:
    """A line per iteration, "" before the first is known."""
    rows = [cells for row in one.rows if any((cells := _cells(row))[1:])]
    if not rows:
        return ""
    # What no iteration has needs no column.
    columns = [k for k in range(len(HEAD)) if any(cells[k] for cells in rows)]
    head = "".join(f"<th scope='col'>{escape(HEAD[k])}</th>" for k in columns)
    lines = "".join(f"<tr>{''.join(f'<td>{cells[k]}</td>' for k in columns)}</tr>" for cells in rows)
    return (
        f"<div style='overflow-x: auto'><table class='mk-table'><tr>{head}</tr>{lines}</table></div>"
        f'<div class="mk-quiet">{escape(CAPTION)}</div>'
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    pool, parts, test = row["pool"], parts_of(row), row["stability"] or {}
    new = "" if row["new"] is None else f"{row['new']} ({parts['unstable']})"
    tuned, tested = row["finetuning"] or {}, row["forces_mae"]
    error, before = tuned.get("forces_mae"), tuned.get("before")
    better = row["better_than_teacher"]
    return [
        str(row["round"]), str(pool["size"]) if pool else "", f"{pool['teacher_share']:.0%}" if pool else "",
        "" if row["forgotten"] is None else f"{row['forgotten']}, {row['relabelled']}", new,
        _failed(row["md_failed"], row["md_runs"], row["md_interval"], row["md_reasons"], sampler_of(row["md_by"])),
        *("" if one is None else f"{MILLI * one:.3g}" for one in (before, error)),
        "" if tested is None else f"{tested:.3g}",
        "" if better is None else _whole(f"{better} of {row['compared']}"),
        _failed(test.get("failed"), test.get("n"), test.get("interval"), test.get("reasons")),
        _species(row.get("reaction") or {}),
    ]  # fmt: skip


def _failed(failed: int | None, runs: int | None, interval: Sequence[float] | None, reasons: Any, who: str = "") -> str:
    """``student 0: 1 of 10 (2 to 40 %)`` in two lines; the reasons wait under the pointer."""
    if failed is None or not interval:
        return ""
    why = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in (reasons or {}).items())
    share = f"({100 * interval[0]:.0f} to {100 * interval[1]:.0f} %)"
    by = f"{escape(who)}: " if who else ""
    return _whole(f"{by}{failed} of {runs}<br>{share}", why)


def _species(test: Mapping[str, Any]) -> str:
    """``Mo: 1.2 clusters`` and how many simulations failed; what else there is to say waits under the pointer."""
    found = test.get("species")
    if not found or found["last_clusters"] is None:
        return ""
    noun = f"{found['element']}: {{:.3g}} clusters" if found["element"] else "{:.3g} molecules"
    said = noun.format(found["last_clusters"])
    return _whole(f"{escape(said)}<br>{test['failed']} of {test['n']}", species_record.sentence(found))


def _whole(text: str, tip: str = "") -> str:
    """Not broken into further lines."""
    said = f' title="{escape(tip)}"' if tip else ""
    return f'<span style="white-space: nowrap"{said}>{text}</span>' if text else ""
