"""Workflows: where the frames come from that a universal model is fine-tuned on, at equal budgets.

A workflow is one arm (naive, iterative, longrun, hybrid, packmol_first, high_force) with one seed: a plan of stages as
plain data, carried out in a folder from which it can always go on.
"""

from mlipkit.strategies.workflows.arms import ARMS, plan
from mlipkit.strategies.workflows.comparing import Comparison, compare_arms
from mlipkit.strategies.workflows.cost import Cost, dry_run
from mlipkit.strategies.workflows.plan import UNTOUCHED, Budget, Plan, Stage, equal_budgets
from mlipkit.strategies.workflows.review import approve, waiting
from mlipkit.strategies.workflows.running import Outcome, run_workflow
from mlipkit.strategies.workflows.settings import Evaluation, Settings
from mlipkit.strategies.workflows.tools import Rates, Stopped, Tools, Tuned

__all__ = [
    "ARMS", "UNTOUCHED", "Budget", "Comparison", "Cost", "Evaluation", "Outcome", "Plan", "Rates", "Settings", "Stage",
    "Stopped", "Tools", "Tuned", "approve", "compare_arms", "dry_run", "equal_budgets", "plan", "run_workflow",
    "waiting",
]  # fmt: skip
