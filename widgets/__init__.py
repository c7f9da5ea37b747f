"""Widgets for JupyterLab: start runs, watch them, look at what failed.

    >>> from mlipkit_widgets import Launcher, TrainingMonitor, MDView
    >>> MDView("runs/md_300K")

Views read run folders only. They can be opened at any time, in any notebook, for runs alive or long ended.
"""

from __future__ import annotations

from .first_cell import kernel_check
from .launcher import Launcher
from .md_view import MDView
from .plot import Plot
from .run_list import RunList
from .shift_explorer import ShiftExplorer
from .training_monitor import TrainingMonitor

__all__ = ["Launcher", "MDView", "Plot", "RunList", "ShiftExplorer", "TrainingMonitor", "kernel_check"]
