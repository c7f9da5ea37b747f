"""Models behind one contract: `Potential` = encoder + head + atomic energies; encoders register in `ENCODERS`."""

from mlipkit.models.contract import BasePotential, Prediction
from mlipkit.models.encoder import Encoder, Features
from mlipkit.models.io import FORMAT_VERSION, load, save
from mlipkit.models.painn import PaiNN
from mlipkit.models.potential import Potential
from mlipkit.models.predict import predict
from mlipkit.models.registry import ENCODERS, build_encoder, encoder_name
from mlipkit.models.schnet import SchNet

__all__ = [
    "ENCODERS",
    "FORMAT_VERSION",
    "BasePotential",
    "Encoder",
    "Features",
    "PaiNN",
    "Potential",
    "Prediction",
    "SchNet",
    "build_encoder",
    "encoder_name",
    "load",
    "predict",
    "save",
]
