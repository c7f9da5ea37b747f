"""Analysis of structures, trajectories and runs: plain arrays in, plain arrays out."""

from __future__ import annotations

from mlipkit.analysis.survival import Survival, kaplan_meier

__all__ = ["Survival", "kaplan_meier"]
