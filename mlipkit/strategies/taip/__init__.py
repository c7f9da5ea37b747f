"""TAIP: self-supervised tasks in training, and one gradient step on them for every structure at hand (doi
10.1038/s41467-025-57101-4), with the controls that tell whether it helps."""

from mlipkit.strategies.taip.adapt import Adapter, AdaptSettings, Found
from mlipkit.strategies.taip.forces import AdaptedForces, MDAdaptation
from mlipkit.strategies.taip.frames import AdaptedFrames, loss_threshold, predict_adapted
from mlipkit.strategies.taip.options import TASKS, Heads, TaipOptions, attach, heads_of
from mlipkit.strategies.taip.term import FIGURES, HIT, NoisyLabels, SelfSupervised, published

__all__ = [
    "FIGURES",
    "HIT",
    "TASKS",
    "AdaptSettings",
    "AdaptedForces",
    "AdaptedFrames",
    "Adapter",
    "Found",
    "Heads",
    "MDAdaptation",
    "NoisyLabels",
    "SelfSupervised",
    "TaipOptions",
    "attach",
    "heads_of",
    "loss_threshold",
    "predict_adapted",
    "published",
]
