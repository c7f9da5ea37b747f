"""Models behind one contract: `Potential` = encoder + head + atomic energies; encoders register in `ENCODERS`."""

from mlipkit import compute as _compute  # noqa: F401 - says what to install where torch is missing
from mlipkit.models.blocks import blocks, trainable_blocks
from mlipkit.models.composite import Committee, CommitteePrediction, SumPotential
from mlipkit.models.contract import BasePotential, Prediction
from mlipkit.models.egnn import EGNN
from mlipkit.models.encoder import Encoder, Features
from mlipkit.models.heads import ENERGY_HEADS, EnergyHead
from mlipkit.models.io import FORMAT_VERSION, load, save
from mlipkit.models.painn import PaiNN
from mlipkit.models.potential import Potential
from mlipkit.models.predict import predict
from mlipkit.models.registry import ENCODERS, POTENTIALS, build_encoder, encoder_name, register_potential
from mlipkit.models.schnet import SchNet
from mlipkit.models.shifts import AtomicShifts, with_shifts
from mlipkit.models.universal import UNIVERSAL, CalculatorPotential, UniversalPotential
from mlipkit.models.visnet import ViSNet
from mlipkit.models.zbl import ZBLRepulsion

__all__ = [
    "EGNN",
    "ENCODERS",
    "ENERGY_HEADS",
    "FORMAT_VERSION",
    "POTENTIALS",
    "UNIVERSAL",
    "AtomicShifts",
    "BasePotential",
    "CalculatorPotential",
    "Committee",
    "CommitteePrediction",
    "Encoder",
    "EnergyHead",
    "Features",
    "PaiNN",
    "Potential",
    "Prediction",
    "SchNet",
    "SumPotential",
    "UniversalPotential",
    "ViSNet",
    "ZBLRepulsion",
    "blocks",
    "build_encoder",
    "encoder_name",
    "load",
    "predict",
    "register_potential",
    "save",
    "trainable_blocks",
    "with_shifts",
]
