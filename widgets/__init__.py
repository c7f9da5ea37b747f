"""Widgets for JupyterLab: start runs, watch them, look at what failed.

    >>> from mlipkit_widgets import Launcher, TrainingMonitor, MDView
    >>> MDView("runs/md_300K")

Views read run folders only. They can be opened at any time, in any notebook, for runs alive or long ended.
"""

from __future__ import annotations

from .adaptation_view import AdaptationView
from .applies_panel import AppliesPanel
from .exporting import export
from .first_cell import kernel_check
from .label_view import LabelView
from .launcher import Launcher
from .loop_view import PretrainingView
from .md_view import MDView
from .plot import Plot
from .recorded import Recorded
from .review_pane import ReviewPane
from .rollout_view import RolloutView
from .run_list import RunList
from .shift_explorer import ShiftExplorer
from .strategy_comparison import StrategyComparison
from .training_monitor import TrainingMonitor
from .waiting import ended
from .workbench import Workbench
from .workflow_view import WorkflowView

__all__ = [
    "AdaptationView", "AppliesPanel", "LabelView", "Launcher", "MDView", "Plot", "PretrainingView", "Recorded",
    "ReviewPane", "RolloutView", "RunList", "ShiftExplorer", "StrategyComparison", "TrainingMonitor", "Workbench",
    "WorkflowView", "ended", "export", "kernel_check",
]  # fmt: skip
