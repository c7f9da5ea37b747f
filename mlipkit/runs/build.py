"""From a specification to work: here fields become plain arguments of the core objects, one file per kind of run.

Only the worker process imports this; it loads torch.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from mlipkit.events import Control, EventSink, Finished
from mlipkit.runs.building_data import read_frames as read_frames
from mlipkit.runs.building_forces import build_forces as build_forces
from mlipkit.runs.building_md import start_structure as start_structure
from mlipkit.runs.building_train import build_potential as build_potential
from mlipkit.runs.building_train import settings_of as settings_of
from mlipkit.runs.building_train import split_frames as split_frames
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.spec import AnySpec
from mlipkit.runs.spec_md import THERMOSTAT_SEEDS as THERMOSTAT_SEEDS

JOBS = {
    "train": ("building_train", "run_training"),
    "finetune": ("building_finetune", "run_finetuning"),
    "dynamic": ("building_dynamic", "run_dynamic"),
    "md": ("building_md", "run_md"),
    "relax": ("building_relax", "run_relaxation"),
    "label": ("building_label", "run_labelling"),
    "workflow": ("building_workflow", "run_workflow"),
    "ipip": ("building_ipip", "run_ipip"),
    "taip": ("building_taip", "run_taip"),
}
"""Module and function that do the work of each kind of specification; a test compares with `spec.KINDS`."""


def execute(spec: AnySpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    """Do the work of a specification in a run folder, or go on with it where the folder stands.

    Args:
        base: folder against which relative paths in the specification are meant.

    Returns:
        The last word; facts about machine and time are added by the worker.
    """
    # Gaussians times cutoff give subnormal numbers, on which products run more than ten times slower.
    torch.set_flush_denormal(True)
    torch.set_num_threads(spec.threads)
    # Every purpose has a generator of its own; torch's global one is set for code that a user brings along.
    torch.manual_seed(spec.seed)
    module, function = JOBS[spec.kind]
    return getattr(importlib.import_module(f"mlipkit.runs.{module}"), function)(spec, files, base, sink, control)
