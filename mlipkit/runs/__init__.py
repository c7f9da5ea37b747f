"""Runs: specifications, run folders, worker processes, and how to launch, open, pause and stop them.

Importing this, and opening run folders, loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlipkit.runs.applying import what_applies as what_applies
    from mlipkit.runs.estimating import Estimate as Estimate
    from mlipkit.runs.estimating import estimate as estimate
    from mlipkit.runs.executors import DaskExecutor as DaskExecutor
    from mlipkit.runs.executors import LocalExecutor as LocalExecutor
    from mlipkit.runs.failure_frames import Picked as Picked
    from mlipkit.runs.failure_frames import before_failure as before_failure
    from mlipkit.runs.family import delete as delete
    from mlipkit.runs.family import duplicate as duplicate
    from mlipkit.runs.family import restore as restore
    from mlipkit.runs.family import runs_in as runs_in
    from mlipkit.runs.label_parts import gather_parts as gather_parts
    from mlipkit.runs.label_parts import label_in_parts as label_in_parts
    from mlipkit.runs.launching import launch as launch
    from mlipkit.runs.loop import SurvivalChange as SurvivalChange
    from mlipkit.runs.loop import hotter_step as hotter_step
    from mlipkit.runs.loop import label_step as label_step
    from mlipkit.runs.loop import simulate_step as simulate_step
    from mlipkit.runs.loop import survival_change as survival_change
    from mlipkit.runs.loop import train_step as train_step
    from mlipkit.runs.next_steps import NextStep as NextStep
    from mlipkit.runs.next_steps import next_step as next_step
    from mlipkit.runs.own_jobs import OwnJobs as OwnJobs
    from mlipkit.runs.record_run import record as record
    from mlipkit.runs.run import Run as Run
    from mlipkit.runs.run import open_run as open
    from mlipkit.runs.shipped import recording as recording
    from mlipkit.runs.shipped import recordings as recordings
    from mlipkit.runs.shipped import run_here as run_here
    from mlipkit.runs.spec import AdaptationSpec as AdaptationSpec
    from mlipkit.runs.spec import AdaptationStudySpec as AdaptationStudySpec
    from mlipkit.runs.spec import CurriculumSpec as CurriculumSpec
    from mlipkit.runs.spec import DynamicOptimiserSpec as DynamicOptimiserSpec
    from mlipkit.runs.spec import DynamicSpec as DynamicSpec
    from mlipkit.runs.spec import EngineSpec as EngineSpec
    from mlipkit.runs.spec import EvaluationSpec as EvaluationSpec
    from mlipkit.runs.spec import FinetuneLossSpec as FinetuneLossSpec
    from mlipkit.runs.spec import FinetuneOptimiserSpec as FinetuneOptimiserSpec
    from mlipkit.runs.spec import FinetuneSpec as FinetuneSpec
    from mlipkit.runs.spec import IPIPSpec as IPIPSpec
    from mlipkit.runs.spec import LabelSpec as LabelSpec
    from mlipkit.runs.spec import LossSpec as LossSpec
    from mlipkit.runs.spec import MDSpec as MDSpec
    from mlipkit.runs.spec import ModelSpec as ModelSpec
    from mlipkit.runs.spec import OptimiserSpec as OptimiserSpec
    from mlipkit.runs.spec import RecipeSpec as RecipeSpec
    from mlipkit.runs.spec import RelaxSpec as RelaxSpec
    from mlipkit.runs.spec import RolloutLossSpec as RolloutLossSpec
    from mlipkit.runs.spec import RolloutSpec as RolloutSpec
    from mlipkit.runs.spec import RolloutValidationSpec as RolloutValidationSpec
    from mlipkit.runs.spec import RunSplitSpec as RunSplitSpec
    from mlipkit.runs.spec import SamplingSpec as SamplingSpec
    from mlipkit.runs.spec import SplitSpec as SplitSpec
    from mlipkit.runs.spec import StartSpec as StartSpec
    from mlipkit.runs.spec import TaipLossSpec as TaipLossSpec
    from mlipkit.runs.spec import TaipOptimiserSpec as TaipOptimiserSpec
    from mlipkit.runs.spec import TaipSpec as TaipSpec
    from mlipkit.runs.spec import TasksSpec as TasksSpec
    from mlipkit.runs.spec import TrainSpec as TrainSpec
    from mlipkit.runs.spec import TuningOptimiserSpec as TuningOptimiserSpec
    from mlipkit.runs.spec import TuningSpec as TuningSpec
    from mlipkit.runs.spec import WorkflowSpec as WorkflowSpec
    from mlipkit.runs.spec import load_spec as load_spec
    from mlipkit.runs.spec import parse_spec as parse_spec

__all__ = [
    "AdaptationSpec",
    "AdaptationStudySpec",
    "CurriculumSpec",
    "DaskExecutor",
    "DynamicOptimiserSpec",
    "DynamicSpec",
    "EngineSpec",
    "Estimate",
    "EvaluationSpec",
    "FinetuneLossSpec",
    "FinetuneOptimiserSpec",
    "FinetuneSpec",
    "IPIPSpec",
    "LabelSpec",
    "LocalExecutor",
    "LossSpec",
    "MDSpec",
    "ModelSpec",
    "NextStep",
    "OptimiserSpec",
    "OwnJobs",
    "Picked",
    "RecipeSpec",
    "RelaxSpec",
    "RolloutLossSpec",
    "RolloutSpec",
    "RolloutValidationSpec",
    "Run",
    "RunSplitSpec",
    "SamplingSpec",
    "SplitSpec",
    "StartSpec",
    "SurvivalChange",
    "TaipLossSpec",
    "TaipOptimiserSpec",
    "TaipSpec",
    "TasksSpec",
    "TrainSpec",
    "TuningOptimiserSpec",
    "TuningSpec",
    "WorkflowSpec",
    "before_failure",
    "delete",
    "duplicate",
    "estimate",
    "gather_parts",
    "hotter_step",
    "label_in_parts",
    "label_step",
    "launch",
    "load_spec",
    "next_step",
    "open",
    "parse_spec",
    "record",
    "recording",
    "recordings",
    "restore",
    "run_here",
    "runs_in",
    "simulate_step",
    "survival_change",
    "train_step",
    "what_applies",
]

_MODULES = {
    "DaskExecutor": "executors",
    "Estimate": "estimating",
    "LocalExecutor": "executors",
    "NextStep": "next_steps",
    "OwnJobs": "own_jobs",
    "Picked": "failure_frames",
    "Run": "run",
    "SurvivalChange": "loop",
    "before_failure": "failure_frames",
    "delete": "family",
    "duplicate": "family",
    "estimate": "estimating",
    "gather_parts": "label_parts",
    "hotter_step": "loop",
    "label_in_parts": "label_parts",
    "label_step": "loop",
    "launch": "launching",
    "next_step": "next_steps",
    "open": "run",
    "record": "record_run",
    "recording": "shipped",
    "recordings": "shipped",
    "restore": "family",
    "run_here": "shipped",
    "runs_in": "family",
    "simulate_step": "loop",
    "survival_change": "loop",
    "train_step": "loop",
    "what_applies": "applying",
}


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'mlipkit.runs' has no attribute '{name}'")
    module = importlib.import_module(f"mlipkit.runs.{_MODULES.get(name, 'spec')}")
    value = getattr(module, "open_run" if name == "open" else name)
    globals()[name] = value
    return value
