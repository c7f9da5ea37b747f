"""Training: an explicit loop over objective terms and a data source; see `mlipkit.training.train`."""

from mlipkit import compute as _compute  # noqa: F401 - says what to install where torch is missing
from mlipkit.training.batches import Batch, FrameSource, Source
from mlipkit.training.evaluate import evaluate
from mlipkit.training.loop import train
from mlipkit.training.metrics import ErrorSums, table
from mlipkit.training.objective import EnergyForcesStress, ObjectiveTerm, StepState
from mlipkit.training.outcome import TrainResult
from mlipkit.training.settings import TrainSettings

__all__ = [
    "Batch",
    "EnergyForcesStress",
    "ErrorSums",
    "FrameSource",
    "ObjectiveTerm",
    "Source",
    "StepState",
    "TrainResult",
    "TrainSettings",
    "evaluate",
    "table",
    "train",
]
