"""What every fused step is held to: any number of threads, and a model that trains as with the plain formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mlipkit.ops import native, use_version


def with_1_and_3_threads(run: Callable[[], Any]) -> list[Any]:
    """What `run` gives with each, all work split over the threads however small it is."""
    before, bound = torch.get_num_threads(), native.SPLIT_ABOVE
    seen = []
    try:
        native.SPLIT_ABOVE = 0
        for threads in (1, 3):
            torch.set_num_threads(threads)
            seen.append(run())
    finally:
        native.SPLIT_ABOVE = bound
        torch.set_num_threads(before)
    return seen


def results_and_slopes(results: tuple[torch.Tensor, ...], given: list[torch.Tensor]) -> list[torch.Tensor]:
    """Results with their slopes of both orders."""
    slopes = torch.autograd.grad(sum(r.square().sum() for r in results), given, create_graph=True)
    return [*results, *slopes, *torch.autograd.grad(sum(s.square().sum() for s in slopes), given)]


def trained_with(version: str, potential, graph) -> list[torch.Tensor]:
    """Energy, forces, stress and the gradients of a force loss."""
    potential.zero_grad()
    with use_version(version):
        result = potential(graph, stress=True, create_graph=True)
        (result.forces.square().sum() + result.stress.square().sum()).backward()
    grads = [p.grad.clone() for p in potential.parameters() if p.grad is not None]
    return [result.energy, result.forces, result.stress, *grads]
