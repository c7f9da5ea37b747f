"""Encoders by name, and kinds of potentials by name: what files and specifications call them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from mlipkit.errors import ModelError, nearest
from mlipkit.models.contract import BasePotential
from mlipkit.models.egnn import EGNN
from mlipkit.models.encoder import Encoder
from mlipkit.models.painn import PaiNN
from mlipkit.models.schnet import SchNet
from mlipkit.models.visnet import ViSNet

ENCODERS: dict[str, type[Encoder]] = {"schnet": SchNet, "painn": PaiNN, "egnn": EGNN, "visnet": ViSNet}
"""Encoders by the name used in files and specifications. Everything here goes through the shared property suite."""

LEAST = dict.fromkeys(("features", "layers", "n_radial", "n_filters", "n_fourier", "heads"), 1)
LEAST_OF = {"schnet": {"n_radial": 2}}
"""Smallest sizes; SchNet's Gaussians are as wide as two of them are apart."""


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
    for option, least in {**LEAST, **LEAST_OF.get(name, {})}.items():
        value = options.get(option)
        if isinstance(value, int | float) and not value >= least:
            raise ModelError("too small", where=("encoder", name, option), expected=f"at least {least}", found=value)
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


POTENTIALS: dict[str, type[BasePotential]] = {}
"""Kinds of potentials that can be saved, by `BasePotential.kind`."""
_Kind = TypeVar("_Kind", bound=type[BasePotential])


def register_potential(cls: _Kind) -> _Kind:
    """Class decorator: make a kind of potential loadable from file by its `kind`."""
    POTENTIALS[cls.kind] = cls
    return cls


def specification_of(potential: BasePotential) -> dict[str, Any]:
    """JSON-ready make-up of a potential, those inside it included; weights are apart.

    Raises:
        ModelError: its kind is not registered.
    """
    if POTENTIALS.get(potential.kind) is not type(potential):
        raise ModelError(
            f"{type(potential).__name__} cannot be saved", hint="Saved are: " + ", ".join(sorted(POTENTIALS))
        )
    return {"kind": potential.kind, **potential.specification()}


def potential_from(spec: Mapping[str, Any], *, where: str = "potential") -> BasePotential:
    """Potential of this make-up with weights yet to be filled in.

    Raises:
        ModelError: unknown kind, or a part of the specification that is missing or wrong.
    """
    kind = spec.get("kind")
    if kind not in POTENTIALS:
        raise ModelError(
            f"unknown kind of potential '{kind}'", where=where,
            hint=f"Import the module that defines it before loading; {nearest(str(kind), POTENTIALS)}",
        )  # fmt: skip
    return POTENTIALS[kind].from_specification(spec, where=where)


def check_complete(spec: Mapping[str, Any], names: set[str], where: str) -> None:
    """Raise `ModelError` where a specification lacks one of these entries."""
    if lacking := sorted(names - set(spec)):
        raise ModelError("incomplete specification", where=where, found=f"no {lacking}")


def dtype_of(spec: Mapping[str, Any], where: str) -> torch.dtype:
    """The `dtype` of a specification."""
    dtype = getattr(torch, str(spec["dtype"]), None)
    if not isinstance(dtype, torch.dtype):
        raise ModelError("unknown dtype", where=(where, "dtype"), found=spec["dtype"])
    return dtype
