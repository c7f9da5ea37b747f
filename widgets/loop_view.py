"""PretrainingView: one run of iterative pretraining with pause, stop and resume, and its iterations below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlipkit.runs import Run

from .loop_data import LoopData
from .loop_folder import LoopFolder
from .loop_pane import LoopPane
from .staged_folder import StagedFolder
from .workflow_view import WorkflowView


class PretrainingView(WorkflowView):
    """A run of iterative pretraining on screen: pool, errors, failed runs, labels and speed of every iteration.

    Args:
        run: such a run or its folder; None for an empty view.

    Raises:
        RunError: a run of another kind, or one that was not launched.
    """

    EMPTY = "Nothing is open yet. Start one with Launcher('ipip'), or open one: PretrainingView('runs/ipip_0')."
    KIND = "ipip"

    def _make_pane(self) -> Any:
        return LoopPane()

    def _folder_of(self, place: Run | Path) -> StagedFolder:
        return LoopFolder(place)

    def _data_of(self, folders: Sequence[Any]) -> Any:
        return LoopData(folders)
