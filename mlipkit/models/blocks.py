"""The blocks of a potential by name, in the order in which data pass them: what can be frozen, and what is."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from mlipkit.models.contract import BasePotential

LAYER = re.compile(r"^(\d+)_")


def blocks(potential: BasePotential) -> dict[str, dict[str, nn.Parameter]]:
    """Parameters by block, and in each by their name in `named_parameters`.

    A block is a part of the network that one would freeze as a whole: ``encoder.messages.0``, ``atom_conv_layers.1``,
    ``head``. Numbered parts are blocks of their own; of SevenNet all parts of a layer are one (``layer_0``). Parts of
    sums and committees carry their number in front.
    """
    found: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in potential.named_parameters():
        found.setdefault(block_of(name), {})[name] = parameter
    return found


def block_of(name: str) -> str:
    """Name of the block that a parameter of this name belongs to."""
    parts = [part for part in name.split(".") if part != "model"]
    front: list[str] = []
    while parts[:1] == ["potentials"]:
        front += parts[:2]
        parts = parts[2:]
    if layer := LAYER.match(parts[0]):
        return ".".join([*front, f"layer_{layer[1]}"])
    depth = 1
    if parts[0] in ("encoder", "auxiliary") and len(parts) > 2:
        depth = 2
    if len(parts) > depth + 1 and parts[depth].isdigit():
        depth += 1
    return ".".join([*front, *parts[:depth]])


def trainable_blocks(potential: BasePotential) -> dict[str, dict[str, int]]:
    """Numbers of trainable and frozen weights per block, JSON-ready."""
    return {
        name: {
            "trainable": sum(p.numel() for p in parameters.values() if p.requires_grad),
            "frozen": sum(p.numel() for p in parameters.values() if not p.requires_grad),
        }
        for name, parameters in blocks(potential).items()
    }


def summary(potential: BasePotential) -> dict[str, Any]:
    """`describe()` of a potential with its blocks."""
    return {**potential.describe(), "blocks": trainable_blocks(potential)}
