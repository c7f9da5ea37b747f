"""The simulations of a run as a field of small labels in groups, one of which is picked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets as t

from mlipkit.runs.replicas import FS_PER_PS, Replica, Replicas

from .states import FATES

STATIC = Path(__file__).parent / "static"


class ReplicaList(anywidget.AnyWidget):
    """One label per simulation: symbol, colour and number, of failed ones the time. A click or an arrow key picks one.

    Attributes:
        picked: index of the picked simulation.
        order: "number", or "time" for the first failure first.
        groups: what the page draws.
    """

    _esm = STATIC / "replica_list.js"

    groups = t.List().tag(sync=True)
    picked = t.Int(0).tag(sync=True)
    order = t.Enum(["number", "time"], default_value="number").tag(sync=True)

    def show(self, replicas: Replicas) -> None:
        """Draw these; nothing is sent when nothing has changed."""
        groups = [
            {
                "name": name,
                "count": f"{sum(one.failed for one in members)} of {len(members)} failed",
                "members": [_label(one) for one in members],
            }
            for name, members in replicas.groups().items()
        ]
        if groups != self.groups:
            self.groups = groups


def _label(one: Replica) -> dict[str, Any]:
    warned = one.verdict is not None and one.verdict.outcome == "warning"
    icon, tone, words = FATES["warned" if warned and one.fate in ("running", "held") else one.fate]
    time = one.time / FS_PER_PS
    told = f"{one.index}: {FATES[one.fate][2]}" + (f", {words}" if words != FATES[one.fate][2] else "")
    if one.failed and one.verdict is not None:
        told = f"{one.index}: {one.verdict.sentence}"
    return {
        "index": one.index, "icon": icon, "tone": tone, "time": time if one.failed else None,
        "text": f"{time:.3g} ps" if one.failed else "", "told": told,
    }  # fmt: skip
