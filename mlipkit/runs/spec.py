"""Specifications: what a run shall do, as validated plain data.

One specification is the same thing as a YAML file, as options of a command, as the form of the Launcher and as a Python
object. It holds plain values only (numbers, texts, lists): whatever a run needs beyond that is named, not passed.
How places are named is in `mlipkit.runs.places`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from mlipkit.errors import SpecError, nearest
from mlipkit.runs.spec_adaptation import AdaptationSpec as AdaptationSpec
from mlipkit.runs.spec_base import BaseSpec
from mlipkit.runs.spec_dynamic import CurriculumSpec as CurriculumSpec
from mlipkit.runs.spec_dynamic import DynamicOptimiserSpec as DynamicOptimiserSpec
from mlipkit.runs.spec_dynamic import DynamicSpec
from mlipkit.runs.spec_dynamic import RolloutLossSpec as RolloutLossSpec
from mlipkit.runs.spec_dynamic import RolloutSpec as RolloutSpec
from mlipkit.runs.spec_dynamic import RolloutValidationSpec as RolloutValidationSpec
from mlipkit.runs.spec_dynamic import RunSplitSpec as RunSplitSpec
from mlipkit.runs.spec_finetune import FinetuneLossSpec as FinetuneLossSpec
from mlipkit.runs.spec_finetune import FinetuneOptimiserSpec as FinetuneOptimiserSpec
from mlipkit.runs.spec_finetune import FinetuneSpec
from mlipkit.runs.spec_finetune import RecipeSpec as RecipeSpec
from mlipkit.runs.spec_ipip import IPIPSpec
from mlipkit.runs.spec_label import LabelSpec
from mlipkit.runs.spec_md import ENSEMBLE_OPTIONS as ENSEMBLE_OPTIONS
from mlipkit.runs.spec_md import MDSpec, RelaxSpec
from mlipkit.runs.spec_taip import AdaptationStudySpec as AdaptationStudySpec
from mlipkit.runs.spec_taip import TaipLossSpec as TaipLossSpec
from mlipkit.runs.spec_taip import TaipOptimiserSpec as TaipOptimiserSpec
from mlipkit.runs.spec_taip import TaipSpec
from mlipkit.runs.spec_train import ENCODER_OPTIONS as ENCODER_OPTIONS
from mlipkit.runs.spec_train import WITH_VECTORS as WITH_VECTORS
from mlipkit.runs.spec_train import FittingSpec as FittingSpec
from mlipkit.runs.spec_train import LossSpec as LossSpec
from mlipkit.runs.spec_train import ModelSpec as ModelSpec
from mlipkit.runs.spec_train import OptimiserSpec as OptimiserSpec
from mlipkit.runs.spec_train import ReadingSpec as ReadingSpec
from mlipkit.runs.spec_train import SplitSpec as SplitSpec
from mlipkit.runs.spec_train import TasksSpec as TasksSpec
from mlipkit.runs.spec_train import TrainSpec
from mlipkit.runs.spec_workflow import EngineSpec as EngineSpec
from mlipkit.runs.spec_workflow import EvaluationSpec as EvaluationSpec
from mlipkit.runs.spec_workflow import SamplingSpec as SamplingSpec
from mlipkit.runs.spec_workflow import StartSpec as StartSpec
from mlipkit.runs.spec_workflow import TuningOptimiserSpec as TuningOptimiserSpec
from mlipkit.runs.spec_workflow import TuningSpec as TuningSpec
from mlipkit.runs.spec_workflow import WorkflowSpec

AnySpec = TrainSpec | FinetuneSpec | DynamicSpec | MDSpec | RelaxSpec | LabelSpec | WorkflowSpec | IPIPSpec | TaipSpec
Spec = Annotated[AnySpec, Field(discriminator="kind")]
KINDS: dict[str, type[BaseSpec]] = {
    "train": TrainSpec,
    "finetune": FinetuneSpec,
    "dynamic": DynamicSpec,
    "md": MDSpec,
    "relax": RelaxSpec,
    "label": LabelSpec,
    "workflow": WorkflowSpec,
    "ipip": IPIPSpec,
    "taip": TaipSpec,
}


def parse_spec(record: Mapping[str, Any], where: str = "specification") -> AnySpec:
    """Build the specification that a plain mapping describes.

    Raises:
        SpecError: unknown kind, unknown or wrong field, written by a newer version.
    """
    if not isinstance(record, Mapping):
        raise SpecError("not a mapping of field: value lines", where=where, found=type(record).__name__)
    record = dict(record)
    kind = record.get("kind")
    if kind not in KINDS:
        raise SpecError("unknown kind of run", where=where, found=repr(kind), hint=nearest(str(kind), KINDS))
    version = record.get("version", 1)
    if version != 1:
        raise SpecError(
            "unknown version of the specification", where=where, expected="version 1", found=version,
            hint="It was written by a newer mlipkit: update mlipkit",
        )  # fmt: skip
    try:
        return KINDS[kind](**record)  # type: ignore[return-value]
    except SpecError as error:
        raise SpecError(
            error.what, where=(where, *error.where[1:]), expected=error.expected, found=error.found, hint=error.hint
        ) from None


def load_spec(path: str | os.PathLike[str]) -> AnySpec:
    """Read a specification from a YAML file.

    Raises:
        SpecError: no such file, not YAML, or not a specification.
    """
    path = Path(path)
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"not YAML: {error}", where=str(path)) from None
    return parse_spec(record, where=str(path))
