"""How many replicas go together: what a force call keeps for its backward pass, and open files, against the machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from mlipkit.machine import memory_available
from mlipkit.md.forces import ForceFunction, PotentialForces
from mlipkit.md.state import MDState
from mlipkit.ops import counted

BACKWARD = 2.0
"""Memory of a whole call over what the forward pass keeps: gradients of it, and temporaries."""
SHARE_CPU, SHARE_GPU = 0.5, 0.8
"""Share of the free memory that a batch may take."""
FILES_EACH, OTHER_FILES = 2, 100
"""Open files of a replica (trajectory, series), and what the process needs besides."""


def bytes_of_replicas(state: MDState, forces: ForceFunction) -> list[float] | None:
    """Memory that each replica adds to a force call, bytes; None where replicas are evaluated one by one.

    Measured on the largest replica: every tensor that its forward pass keeps is counted once. The others follow by
    their pairs (with the skin) and atoms.
    """
    if not isinstance(forces, PotentialForces):
        return None
    edges = forces.pairs(state)
    atoms = state.n_atoms.tolist()
    largest = max(range(state.n_systems), key=lambda index: (edges[index], atoms[index]))
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    probe = PotentialForces(forces.potential, skin=forces.skin, stress=forces.stress)
    weights = {parameter.untyped_storage().data_ptr() for parameter in forces.potential.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), counted(count):
        probe(state.select([largest]))
    needed = BACKWARD * sum(size for place, size in kept.items() if place not in weights)
    return [
        needed * max(edges[index] / max(edges[largest], 1), atoms[index] / atoms[largest])
        for index in range(state.n_systems)
    ]


def free_memory(device: torch.device) -> float:
    """Bytes that a batch may take on this device now."""
    if device.type == "cuda":
        return SHARE_GPU * torch.cuda.mem_get_info(device)[0]
    return SHARE_CPU * memory_available()


def most_replicas() -> int:
    """How many can have their files open at once; the process's limit is raised as far as the system lets it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 1 << 20
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 16 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return 1 << 20 if soft == resource.RLIM_INFINITY else max(1, (soft - OTHER_FILES) // FILES_EACH)


def plan_batches(sizes: Sequence[float], budget: float, most: int) -> list[list[int]]:
    """Consecutive replicas together while their sizes fit into the budget; one that does not fit goes alone.

    Args:
        sizes, budget: bytes.
        most: replicas in a batch at most.
    """
    batches: list[list[int]] = []
    filled = 0.0
    for index, size in enumerate(sizes):
        if not batches or filled + size > budget or len(batches[-1]) == most:
            batches.append([])
            filled = 0.0
        batches[-1].append(index)
        filled += size
    return batches


def batches_of(state: MDState, forces: ForceFunction, batch: int | None = None) -> list[list[int]]:
    """Replicas that go together: `batch` of them, or as many as memory and open files allow."""
    n, most = state.n_systems, most_replicas()
    if batch is not None:
        batch = min(batch, most)
        return [list(range(start, min(start + batch, n))) for start in range(0, n, batch)]
    sizes = bytes_of_replicas(state, forces) if n > 1 else None
    if sizes is None:
        return plan_batches([0.0] * n, 0.0, most)
    return plan_batches(sizes, free_memory(forces.potential.device), most)  # type: ignore[attr-defined]
