"""Labels, MD time and frame-gradients of each workflow, spent of planned, as bars that a page draws by itself."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from .arms_data import BUDGETS


def budget_html(
    budgets: Mapping[str, Mapping[str, tuple[float, float]]], tones: Mapping[str, str],
    kinds: Mapping[str, str] = BUDGETS,
) -> str:  # fmt: skip
    """HTML table.

    Args:
        budgets: workflow -> key of `kinds` -> (spent, planned).
        tones: workflow -> colour of its arm.
        kinds: key -> words, in the order of the columns.
    """
    if not budgets:
        return ""
    head = "".join(f"<th scope='col'>{words}</th>" for words in ("budget, spent of planned", *kinds.values()))
    lines = []
    for name, each in budgets.items():
        cells = "".join(f"<td>{_meter(*each[key], kinds[key])}</td>" for key in kinds)
        tone = escape(tones.get(name, "#6b7280"))
        lines.append(f"<tr style='--mk-tone:{tone}'><th scope='row'><b>{escape(name)}</b></th>{cells}</tr>")
    return f"<table class='mk-budget'><tr>{head}</tr>{''.join(lines)}</table>"


def _meter(spent: float, planned: float, words: str) -> str:
    share = 100 * min(1.0, spent / planned) if planned else 0.0
    text = f"{spent:.6g} of {planned:.6g}"
    return (
        f"{text}<span class='mk-meter' role='img' aria-label='{text} {words}'><i style='width:{share:.1f}%'></i></span>"
    )
