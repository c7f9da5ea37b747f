"""Analysis of structures, trajectories and runs: plain arrays in, plain arrays out.

Names are imported on first use, so that one analysis does not pay for the packages of another.
"""

from __future__ import annotations

import importlib
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlipkit.analysis.bond_states import BondHistory as BondHistory
    from mlipkit.analysis.bond_states import BondLimits as BondLimits
    from mlipkit.analysis.bond_states import bond_history as bond_history
    from mlipkit.analysis.bond_states import bonds_of_frame as bonds_of_frame
    from mlipkit.analysis.bonds import BondComparison as BondComparison
    from mlipkit.analysis.bonds import BondLengths as BondLengths
    from mlipkit.analysis.bonds import BondSummary as BondSummary
    from mlipkit.analysis.bonds import bond_lengths as bond_lengths
    from mlipkit.analysis.bonds import compare_bonds as compare_bonds
    from mlipkit.analysis.bonds import joint_histogram as joint_histogram
    from mlipkit.analysis.bonds import summarise_bonds as summarise_bonds
    from mlipkit.analysis.bootstrap import Design as Design
    from mlipkit.analysis.bootstrap import bootstrap as bootstrap
    from mlipkit.analysis.coordination import Coordination as Coordination
    from mlipkit.analysis.coordination import coordination as coordination
    from mlipkit.analysis.coverage import Coverage as Coverage
    from mlipkit.analysis.coverage import Points as Points
    from mlipkit.analysis.coverage import coverage as coverage
    from mlipkit.analysis.cross_evaluation import cross_evaluation as cross_evaluation
    from mlipkit.analysis.cures import CureVerdict as CureVerdict
    from mlipkit.analysis.cures import Errors as Errors
    from mlipkit.analysis.cures import judge_cure as judge_cure
    from mlipkit.analysis.density import DensitySummary as DensitySummary
    from mlipkit.analysis.density import densities as densities
    from mlipkit.analysis.density import summarise_density as summarise_density
    from mlipkit.analysis.embedding import standardised as standardised
    from mlipkit.analysis.embedding import tsne as tsne
    from mlipkit.analysis.error_measures import energy_measures as energy_measures
    from mlipkit.analysis.error_measures import force_measures as force_measures
    from mlipkit.analysis.error_measures import stress_measures as stress_measures
    from mlipkit.analysis.error_measures import voigt as voigt
    from mlipkit.analysis.feature_shift import FeatureShift as FeatureShift
    from mlipkit.analysis.feature_shift import feature_shift as feature_shift
    from mlipkit.analysis.feature_shift import feature_shifts as feature_shifts
    from mlipkit.analysis.features import ModelFeatures as ModelFeatures
    from mlipkit.analysis.growth import Growth as Growth
    from mlipkit.analysis.growth import growth as growth
    from mlipkit.analysis.live import LiveScorer as LiveScorer
    from mlipkit.analysis.msd import MSD as MSD
    from mlipkit.analysis.msd import Diffusion as Diffusion
    from mlipkit.analysis.msd import diffusion as diffusion
    from mlipkit.analysis.msd import msd as msd
    from mlipkit.analysis.offset_control import OffsetControl as OffsetControl
    from mlipkit.analysis.offset_control import offset_control as offset_control
    from mlipkit.analysis.ood import OODModel as OODModel
    from mlipkit.analysis.parity import Parity as Parity
    from mlipkit.analysis.parity import fit_offset as fit_offset
    from mlipkit.analysis.parity import parity as parity
    from mlipkit.analysis.pca import PCA as PCA
    from mlipkit.analysis.pca import fit_pca as fit_pca
    from mlipkit.analysis.pca import fit_per_element as fit_per_element
    from mlipkit.analysis.ranking import rank_correlation as rank_correlation
    from mlipkit.analysis.ranking import roc as roc
    from mlipkit.analysis.ranking import warnings_before_failure as warnings_before_failure
    from mlipkit.analysis.rdf import RDF as RDF
    from mlipkit.analysis.rdf import rdf as rdf
    from mlipkit.analysis.reactions import Event as Event
    from mlipkit.analysis.reactions import Reactions as Reactions
    from mlipkit.analysis.reactions import reactions as reactions
    from mlipkit.analysis.residuals import Residuals as Residuals
    from mlipkit.analysis.residuals import residuals as residuals
    from mlipkit.analysis.scores import Scores as Scores
    from mlipkit.analysis.shift import Shift as Shift
    from mlipkit.analysis.shift import analyse_shift as analyse_shift
    from mlipkit.analysis.soap import Soap as Soap
    from mlipkit.analysis.species import Species as Species
    from mlipkit.analysis.species import formula as formula
    from mlipkit.analysis.species import species as species
    from mlipkit.analysis.species import species_of_frames as species_of_frames
    from mlipkit.analysis.survival import Survival as Survival
    from mlipkit.analysis.survival import kaplan_meier as kaplan_meier
    from mlipkit.analysis.time_order import runs as runs
    from mlipkit.analysis.timeline import Timeline as Timeline
    from mlipkit.analysis.timeline import timeline as timeline
    from mlipkit.analysis.timeline import trend as trend

_HOMES = {
    "BondHistory": "bond_states",
    "BondLimits": "bond_states",
    "bond_history": "bond_states",
    "bonds_of_frame": "bond_states",
    "BondComparison": "bonds",
    "BondLengths": "bonds",
    "BondSummary": "bonds",
    "bond_lengths": "bonds",
    "compare_bonds": "bonds",
    "joint_histogram": "bonds",
    "summarise_bonds": "bonds",
    "Design": "bootstrap",
    "bootstrap": "bootstrap",
    "Coordination": "coordination",
    "coordination": "coordination",
    "Coverage": "coverage",
    "Points": "coverage",
    "coverage": "coverage",
    "cross_evaluation": "cross_evaluation",
    "CureVerdict": "cures",
    "Errors": "cures",
    "judge_cure": "cures",
    "DensitySummary": "density",
    "densities": "density",
    "summarise_density": "density",
    "standardised": "embedding",
    "tsne": "embedding",
    "energy_measures": "error_measures",
    "force_measures": "error_measures",
    "stress_measures": "error_measures",
    "voigt": "error_measures",
    "FeatureShift": "feature_shift",
    "feature_shift": "feature_shift",
    "feature_shifts": "feature_shift",
    "ModelFeatures": "features",
    "Growth": "growth",
    "growth": "growth",
    "LiveScorer": "live",
    "MSD": "msd",
    "Diffusion": "msd",
    "diffusion": "msd",
    "msd": "msd",
    "OffsetControl": "offset_control",
    "offset_control": "offset_control",
    "OODModel": "ood",
    "Parity": "parity",
    "fit_offset": "parity",
    "parity": "parity",
    "PCA": "pca",
    "fit_pca": "pca",
    "fit_per_element": "pca",
    "rank_correlation": "ranking",
    "roc": "ranking",
    "warnings_before_failure": "ranking",
    "RDF": "rdf",
    "rdf": "rdf",
    "Event": "reactions",
    "Reactions": "reactions",
    "reactions": "reactions",
    "Residuals": "residuals",
    "residuals": "residuals",
    "Scores": "scores",
    "Soap": "soap",
    "Shift": "shift",
    "analyse_shift": "shift",
    "Species": "species",
    "formula": "species",
    "species": "species",
    "species_of_frames": "species",
    "Survival": "survival",
    "kaplan_meier": "survival",
    "runs": "time_order",
    "Timeline": "timeline",
    "timeline": "timeline",
    "trend": "timeline",
}

__all__ = [*sorted(_HOMES)]
PATIENCE_S = 30.0


class _Package(ModuleType):
    """`rdf`, `msd`, `parity` and others name a function and its file; here the function is meant.

    The import system sets a submodule as an attribute of its package; this keeps the function under that name.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module = importlib.import_module(f"{__name__}.{home}")
    # Where two threads import in circles, Python hands out a module that is still being filled.
    end = time.monotonic() + PATIENCE_S
    while not hasattr(module, name) and getattr(module.__spec__, "_initializing", False) and time.monotonic() < end:
        time.sleep(0.01)
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
