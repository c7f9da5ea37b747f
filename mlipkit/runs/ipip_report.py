"""Iterative pretraining in the report: the verdict first, every iteration, stability, and what was spent."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlipkit.runs.page import details, table

if TYPE_CHECKING:
    from mlipkit.runs.run import Run

ALONE = (
    "One arm alone is no verdict: whether the loop gains anything shows beside its controls at equal gradient steps "
    "(mlipkit.strategies.ipip.comparing.compare), the fine-tuned teacher among them."
)


def ipip_html(run: Run) -> str:
    """Test errors beside the teacher's, the iterations, simulations, budget and plan, as pieces of the page."""
    from mlipkit.strategies.ipip import LoopPlan, timeline
    from mlipkit.strategies.ipip.evaluating import compared, selected_row
    from mlipkit.strategies.ipip.timeline import when

    record = run.files.read("plan.json")
    if not record:
        return ""
    plan: Any = LoopPlan.from_json(record)
    found, parts = run.files.read("evaluation.json"), []
    if found:
        teacher, row = found["rows"][0], selected_row(found)
        if plan.arm != "teacher":
            better, n = row["better_than_teacher"], compared(found)
            said = (
                f"Test forces {row['forces_mae']:.3g} meV/Å against {teacher['forces_mae']:.3g} of the zero-shot "
                f"teacher; smaller on {better} of {n} frames, larger on {n - better}: every frame is counted."
            )
            parts.append(f'<p class="verdict completed">{html.escape(said)}</p>')
        parts.append(f"<p>{html.escape(ALONE)}</p>")
        rows = [
            [row["model"], str(row["round"]), *(f"{row[key]:.4g}" for key in ERRORS),
             f"{row['validation']['forces_mae']:.4g}", "chosen" if row["model"] == found["selected"] else ""]
            for row in found["rows"]
        ]  # fmt: skip
        head = ("model", "round", *ERRORS.values(), "F validation", "by validation")
        parts.append(f"<h3>Every model on {found['n_frames']} test frames</h3>{table(rows, head)}")
    rows = [_iteration(row) for row in timeline(run.folder)]
    if any(any(row[1:]) for row in rows):
        parts.append(f"<h3>Iterations</h3>{table(rows, ITERATION)}")
    for name, title in (("stability", "Stability"), ("reaction", "Species over time")):
        tests = [row[name] for row in timeline(run.folder) if row[name]]
        if tests:
            rows = [[one["model"], one["sentence"], when(one), _species(one)] for one in tests]
            parts.append(f"<h3>{title}</h3>{table(rows, ('model', 'runs', 'failed', 'clusters'))}")
    parts.append(f"<p>{html.escape(plan.budget.sentence)}.</p>")
    parts.append(details("Plan", plan.table()))
    return "\n".join(parts)


ERRORS = {
    "forces_mae": "F MAE meV/Å", "forces_norm": "|ΔF| meV/Å", "forces_rmse": "F RMSE", "energy_mae": "E MAE meV/atom",
}  # fmt: skip
ITERATION = (
    "round", "pool", "labels of the teacher", "forgotten", "relabelled", "new (unstable)", "MD by", "failed",
    "student vs teacher, meV/Å", "validation F MAE, before and after fine-tuning", "test F MAE",
)  # fmt: skip


def _iteration(row: Mapping[str, Any]) -> list[str]:
    pool, new = row["pool"], row["new"]
    failed = "" if row["md_failed"] is None else f"{row['md_failed']} of {row['md_runs']}"
    if row["md_interval"] and row["md_failed"] is not None:
        low, high = row["md_interval"]
        failed += f" ({low:.0%} to {high:.0%})"
    versus, tuned = row["student_vs_teacher"], row["finetuning"] or {}
    known = [tuned[name] for name in ("before", "forces_mae") if tuned.get(name) is not None]
    return [
        str(row["round"]), "" if pool is None else str(pool["size"]),
        "" if pool is None else f"{pool['teacher_share']:.0%}", _count(row["forgotten"]), _count(row["relabelled"]),
        "" if new is None else f"{new} ({row['new_unstable']})", row["md_by"] or "", failed,
        "" if versus is None else f"{1000 * versus:.3g}", ", ".join(f"{1000 * one:.3g}" for one in known),
        "" if row["forces_mae"] is None else f"{row['forces_mae']:.4g}",
    ]  # fmt: skip


def _count(value: int | None) -> str:
    return "" if value is None else str(value)


def _species(one: Mapping[str, Any]) -> str:
    found = one.get("species")
    if not found:
        return ""
    most = ", ".join(f"{name} {count}" for name, count in list(found["formulas"].items())[:6])
    passed = ", ".join(f"{name} {n} of {found['runs']}" for name, n in (found.get("checkpoints") or {}).items())
    balance = f"mass balances in {found['balanced']} of {found['frames']} frames"
    return f"{most} ({balance})" + (f"; runs that passed: {passed}" if passed else "")
