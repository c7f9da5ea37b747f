"""Fine-tuning of universal and own potentials: a reference step, a choice of weights, replay, around one loop."""

from mlipkit import compute as _compute  # noqa: F401 - says what to install where torch is missing
from mlipkit.strategies.finetuning.bond_scan import BondScan, bond_scans, bonded_pairs
from mlipkit.strategies.finetuning.finetune import finetune
from mlipkit.strategies.finetuning.general import general_frames
from mlipkit.strategies.finetuning.losses import UniversalLoss
from mlipkit.strategies.finetuning.masks import choose_weights
from mlipkit.strategies.finetuning.outcome import Finetuned
from mlipkit.strategies.finetuning.recipe import FinetuneRecipe
from mlipkit.strategies.finetuning.replay import Replay, Retention, copies, own_labels, pool
from mlipkit.strategies.finetuning.shifts import EnergyShifts, energy_shifts, moved

__all__ = [
    "BondScan", "EnergyShifts", "FinetuneRecipe", "Finetuned", "Replay", "Retention", "UniversalLoss", "bond_scans",
    "bonded_pairs", "choose_weights", "copies", "energy_shifts", "finetune", "general_frames", "moved", "own_labels",
    "pool",
]  # fmt: skip
