"""Where workflows that have not ended well stand: state, stage, why, what is kept and what to do next; as HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape

from .staged_folder import StagedFolder
from .states import chip, look


def standing_html(workflows: Mapping[str, StagedFolder], reasons: bool = True) -> str:
    """A line for each workflow that is not completed, "" when there is none.

    Args:
        workflows: by name.
        reasons: also stages and reasons; without them (they stand elsewhere) only what a user must decide is shown.
    """
    lines = []
    for name, one in workflows.items():
        state, after = one.state, one.next_step
        if state == "completed" or not (reasons or after):
            continue
        told = [one.stages, one.reason, one.kept] if reasons else [one.kept]
        words = [escape(part) for part in told if part] + ([f"<b>Next:</b> {escape(after)}"] if after else [])
        lines.append(f"<tr><td>{chip(state)}</td><td><b>{escape(name)}</b></td><td>{'<br>'.join(words)}</td></tr>")
    return f"<table class='mk-table mk-runs'>{''.join(lines)}</table>" if lines else ""


def counted(states: list[str]) -> str:
    """``1 running · 2 failed`` of several workflows, completed ones left out."""
    found = Counter(look(state).word.lower() for state in states if state != "completed")
    return " · ".join(f"{n} {word}" for word, n in found.items())
