"""Calculations that the user runs elsewhere: frames as folders of inputs, and what their outputs say."""

from __future__ import annotations

from mlipkit.data.jobs.export import Exported, check_jobs, export_jobs

__all__ = ["Exported", "check_jobs", "export_jobs"]
