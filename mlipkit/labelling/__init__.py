"""Labels for frames: one protocol for engines, and the job that asks one about many frames."""

from __future__ import annotations

from mlipkit.labelling.children import Children
from mlipkit.labelling.collected import Collected, CollectedJob
from mlipkit.labelling.collecting import collect
from mlipkit.labelling.engine_calculator import CalculatorLabels
from mlipkit.labelling.engine_potential import PotentialLabels
from mlipkit.labelling.engine_pyscf import PySCFLabels
from mlipkit.labelling.engine_recorded import RecordedLabels
from mlipkit.labelling.engine_tblite import XTBLabels
from mlipkit.labelling.job import LABELLED, TIMEOUT_S, FailedLabel, Labelled, label_frames
from mlipkit.labelling.makers import ENGINES, NAMES, build, label_maker, options_of, recipe_of
from mlipkit.labelling.protocol import MAX_FORCE, LabelMaker, LabelMakerError, Labels, Recipe
from mlipkit.labelling.records import read_records

__all__ = [
    "ENGINES",
    "LABELLED",
    "MAX_FORCE",
    "NAMES",
    "TIMEOUT_S",
    "CalculatorLabels",
    "Children",
    "Collected",
    "CollectedJob",
    "FailedLabel",
    "LabelMaker",
    "LabelMakerError",
    "Labelled",
    "Labels",
    "PotentialLabels",
    "PySCFLabels",
    "Recipe",
    "RecordedLabels",
    "XTBLabels",
    "build",
    "collect",
    "label_frames",
    "label_maker",
    "options_of",
    "read_records",
    "recipe_of",
]
