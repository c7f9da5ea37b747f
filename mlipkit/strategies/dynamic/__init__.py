"""Dynamic training: a potential is trained on short pieces of AIMD that it integrates itself."""

from mlipkit import compute as _compute  # noqa: F401 - says what to install where torch is missing
from mlipkit.strategies.dynamic.beside import Beside, roll_beside
from mlipkit.strategies.dynamic.evaluation import Rollouts, nve_rollouts
from mlipkit.strategies.dynamic.losses import RolloutLoss
from mlipkit.strategies.dynamic.outcome import DynamicResult, Stage
from mlipkit.strategies.dynamic.overlap import edge_overlap, suggested_refresh
from mlipkit.strategies.dynamic.recipe import DynamicRecipe
from mlipkit.strategies.dynamic.rollout import RolloutSettings, roll_out
from mlipkit.strategies.dynamic.runs import AIMDRuns, aimd_runs
from mlipkit.strategies.dynamic.source import SequenceSource
from mlipkit.strategies.dynamic.training import dynamic_training, read_curves
from mlipkit.strategies.dynamic.validation import RolloutValidation, validation_starts

__all__ = [
    "AIMDRuns", "Beside", "DynamicRecipe", "DynamicResult", "RolloutLoss", "RolloutSettings", "RolloutValidation",
    "Rollouts", "SequenceSource", "Stage", "aimd_runs", "dynamic_training", "edge_overlap", "nve_rollouts",
    "read_curves", "roll_beside", "roll_out", "suggested_refresh", "validation_starts",
]  # fmt: skip
