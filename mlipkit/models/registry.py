"""Encoders by name."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from mlipkit.errors import ModelError, nearest
from mlipkit.models.encoder import Encoder
from mlipkit.models.painn import PaiNN
from mlipkit.models.schnet import SchNet

ENCODERS: dict[str, type[Encoder]] = {"schnet": SchNet, "painn": PaiNN}
"""Encoders by the name used in files and specifications. Everything here goes through the shared property suite."""


def build_encoder(name: str, *, seed: int | None = None, **options: Any) -> Encoder:
    """Encoder by name with fresh weights.

    Args:
        name: key of `ENCODERS`.
        seed: seed of the weights; None draws from torch's global generator.
        options: arguments of the encoder's class; what is not given keeps its default.
    """
    if name not in ENCODERS:
        raise ModelError(f"unknown encoder '{name}'", where="encoder", hint=nearest(name, ENCODERS))
    known = inspect.signature(ENCODERS[name]).parameters
    for option in options:
        if option not in known:
            raise ModelError(f"unknown option '{option}'", where=("encoder", name), hint=nearest(option, known))
    if seed is None:
        return ENCODERS[name](**options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ENCODERS[name](**options)


def encoder_name(encoder: Encoder) -> str:
    """Registered name of an encoder."""
    for name, cls in ENCODERS.items():
        if type(encoder) is cls:
            return name
    raise ModelError(f"encoder {type(encoder).__name__} is not registered in mlipkit.models.ENCODERS")
