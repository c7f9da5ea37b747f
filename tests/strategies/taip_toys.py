"""Small potentials with self-supervised heads."""

from __future__ import annotations

import dataclasses

import torch

from mlipkit.data import FrameSet, NeighbourCache, collate, fit_atomic_energies, samples
from mlipkit.models import Potential, build_encoder
from mlipkit.strategies.taip import TASKS, TaipOptions, attach, heads_of
from mlipkit.strategies.taip.draws import draw
from mlipkit.strategies.taip.tasks import losses

SMALL = {
    "schnet": {"features": 16, "layers": 2, "cutoff": 4.0, "n_radial": 12},
    "painn": {"features": 16, "layers": 2, "cutoff": 4.0, "n_radial": 8},
    "egnn": {"features": 16, "layers": 2, "cutoff": 4.0, "n_fourier": 16, "sigma": 1.0},
    "visnet": {"features": 16, "layers": 2, "cutoff": 4.0, "n_radial": 8, "heads": 4},
}
"""Sizes by encoder."""
ALL = frozenset(TASKS)


def toy(name: str = "schnet", options: TaipOptions | None = None, seed: int = 0, periodic: bool = False) -> Potential:
    """A potential for H, C and O with all heads, float64."""
    torch.manual_seed(seed)
    more = {"elements": [1, 6, 8]} if name == "egnn" else {}
    encoder = build_encoder(name, **SMALL[name], **more)  # type: ignore[arg-type]
    energies = fit_atomic_energies(samples.load("ethanol_300K"))
    potential = Potential(encoder, atomic_energies=energies, scale=1.5)
    return attach(potential, options or TaipOptions(), periodic=periodic, seed=seed).double()


def ethanol(n: int = 4, name: str = "ethanol_300K") -> FrameSet:
    return samples.load(name).select(range(n))


def batch(potential: Potential, frames: FrameSet, indices=None):
    indices = range(len(frames)) if indices is None else indices
    return collate(frames, list(indices), NeighbourCache(frames, potential.cutoff), potential.dtype)


def self_supervised(potential, graph, seed=1, keys=None, tasks=ALL, draws=None, **how):
    heads = heads_of(potential)
    keys = range(graph.n_systems) if keys is None else keys
    if draws is None:
        draws = draw(heads, graph.n_atoms.tolist(), seed, keys).to(graph.positions.device, potential.dtype)
    return losses(potential, heads, graph, draws, frozenset(tasks), **how)


def draws_of(potential, graph, seed=1, **changes):
    heads = heads_of(potential)
    drawn = draw(heads, graph.n_atoms.tolist(), seed, range(graph.n_systems))
    return dataclasses.replace(drawn.to(graph.positions.device, potential.dtype), **changes)
