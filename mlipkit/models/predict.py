"""Labels of a potential for many frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models.contract import BasePotential


def predict(
    potential: BasePotential, frames: FrameSet, batch_size: int = 64, stress: bool = False, forces: bool = True
) -> FrameSet:
    """Predict all frames, in batches of frames of similar size.

    Args:
        potential: any potential; runs on its device.
        frames: F frames with N atoms together.
        batch_size: frames at a time, fewer when they are large.
        stress: also stress (NaN for frames not periodic along all three axes).
        forces: also forces.

    Returns:
        The same frames with the predicted energy [F] eV, forces [N,3] eV/Å and stress [F,3,3] eV/Å³ as their labels;
        a label not predicted is left out, numbers that are not finite are NaN: no answer.

    Raises:
        ModelError: a frame holds an element outside the potential's domain.
    """
    from mlipkit.data.graph import batches_by_size, collate
    from mlipkit.data.neighbours import NeighbourCache

    if not len(frames):
        return frames
    potential.check_elements(list(frames.elements))
    n_atoms, offsets = frames.n_atoms, frames.offsets.tolist()
    energy = np.empty(len(frames))
    force = np.empty((offsets[-1], 3)) if forces else None
    tensor = np.empty((len(frames), 3, 3)) if stress else None
    cache = NeighbourCache(frames, potential.cutoff, max_bytes=0)
    for chosen in batches_by_size(n_atoms, batch_size):
        graph, _ = collate(frames, chosen, cache, torch.float64)
        result = potential(graph.to(device=potential.device), forces=forces, stress=stress)
        energy[chosen] = _finite(result.energy)
        if force is not None and result.forces is not None:
            rows = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in chosen])
            force[rows] = _finite(result.forces)
        if tensor is not None and result.stress is not None:
            tensor[chosen] = _finite(result.stress)
    return frames.with_labels(energy=energy, forces=force, stress=tensor)


def _finite(values: torch.Tensor) -> np.ndarray:
    found = values.cpu().numpy()
    return np.where(np.isfinite(found), found, np.nan)
