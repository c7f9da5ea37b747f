"""Errors of a potential on labelled frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from mlipkit.errors import LabelError
from mlipkit.training.metrics import ErrorSums

if TYPE_CHECKING:
    from mlipkit.data.frameset import FrameSet
    from mlipkit.data.neighbours import NeighbourCache
    from mlipkit.models import BasePotential
    from mlipkit.training.parallel import Processes


def evaluate(
    potential: BasePotential,
    frames: FrameSet,
    batch_size: int = 64,
    *,
    cache: NeighbourCache | None = None,
    processes: Processes | None = None,
) -> dict[str, float]:
    """MAE and RMSE of energies (eV/atom, eV), forces (eV/Å) and stress (eV/Å³): overall, per element, source and tag.

    Every label that the frames have is compared, whatever was trained; forces are computed only when there are labels
    for them. Names of the figures: `mlipkit.training.metrics`. The potential is left as it is.

    Args:
        potential: model, on its device.
        frames: labelled frames; missing labels do not enter.
        batch_size: frames at a time, of similar size; fewer when they are large.
        cache: neighbour lists of these frames, when they are kept from call to call.
        processes: share the work among them; all get the same figures.

    Raises:
        LabelError: no frame carries energy, forces or stress.
        ModelError: an element outside the potential's domain.
    """
    from mlipkit.data.graph import batches_by_size, collate
    from mlipkit.data.neighbours import NeighbourCache

    present = {name: bool(np.isfinite(getattr(frames, name)).any()) for name in ("energy", "forces", "stress")}
    if not any(present.values()):
        raise LabelError(
            "nothing to compare with", where="frames", expected="energy, forces or stress", found="no label"
        )
    potential.check_elements(list(frames.elements))
    if cache is None:
        cache = NeighbourCache(frames, potential.cutoff, max_bytes=0)
    sums = ErrorSums(potential.elements, frames.sources, frames.tags)
    within = None
    if processes is not None:
        within = np.argsort(np.asarray(frames.n_atoms), kind="stable")[processes.rank :: processes.number]
    with _frozen(potential):
        for chosen in batches_by_size(frames.n_atoms, batch_size, within):
            graph, targets = collate(frames, chosen, cache, potential.dtype)
            graph = graph.to(potential.device)
            prediction = potential(graph, forces=present["forces"], stress=present["stress"])
            sums.add(graph, targets, prediction)
    if processes is not None:
        sums.unpack(processes.total(sums.packed().to(processes.device)).cpu())
    return sums.figures()


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for weights (saves time and memory; forces need none), evaluation mode; both put back."""
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for part, mode in modes:
            part.training = mode
