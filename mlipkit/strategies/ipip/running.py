"""Carrying out an arm in a folder from which it can always go on.

Folder, resumption, reuse of equal stages and the events are those of `mlipkit.strategies.workflows.running`; a stage
that was killed goes on by its own means (MD from its checkpoint, training from its last state), so that pools have the
same hash however often it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlipkit.events import Control, EventSink, always_run, ignore
from mlipkit.strategies.ipip.plan import LoopPlan
from mlipkit.strategies.ipip.stages import DO, LoopWork
from mlipkit.strategies.ipip.tools import LoopTools
from mlipkit.strategies.workflows.running import Outcome, carry_out


def run_ipip(
    plan: LoopPlan, folder: Path | str, tools: LoopTools, sink: EventSink = ignore, control: Control = always_run, *,
    reuse: Sequence[Path | str] = (),
) -> Outcome:  # fmt: skip
    """Do the stages of an arm one after the other, or go on where the folder stands.

    Args:
        folder: of this arm and seed alone.
        reuse: folders of other arms and seeds: equal stages (such as the teacher's MD) are copied from there.

    Raises:
        RunError: the folder belongs to another plan or other tools; the disk is full.
    """
    return carry_out(LoopWork(plan, Path(folder), tools, sink, control), DO, reuse=reuse, what="IPIP")
