"""Predictions of adapted potentials for many frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mlipkit.data import FrameSet, NeighbourCache, collate
from mlipkit.data.graph import Graph, batches_by_size
from mlipkit.errors import DataError
from mlipkit.models import Potential
from mlipkit.strategies.taip.adapt import Adapter, AdaptSettings, Found
from mlipkit.strategies.taip.draws import parts
from mlipkit.strategies.taip.options import check_number
from mlipkit.strategies.taip.stacked import comes_by_structure, stackable

SEED_STEP = 7919
"""Between seeds of draws that are repeated."""
ALL = "all"
"""Beside the tasks their weighted sum, beside the elements all atoms."""
AT_ONCE, ATOMS = 32, 1024
"""Structures that are adapted together, each with its own weights, and their atoms, at most."""


@dataclass(frozen=True, eq=False)
class AdaptedFrames:
    """Predictions of F frames, and what the adaptation saw of each.

    Attributes:
        frames: with predicted energy and forces.
        loss: [F], weighted self-supervised loss before the step. by_task: task -> [F].
        recognised: [F], share of the noise level's recognition (0 or 1); NaN without that task.
        gradient, change: [F], norms of gradient and step.
        features: [N,D], of the atoms, after the step.
    """

    frames: FrameSet
    loss: np.ndarray
    by_task: dict[str, np.ndarray]
    recognised: np.ndarray
    gradient: np.ndarray
    change: np.ndarray
    features: np.ndarray


def keys_of(frames: FrameSet) -> list[int]:
    """A number for each frame that is its own in every set and order."""
    return [int(uid) for uid in np.asarray(frames.uids).tolist()]


def predict_adapted(potential: Potential, frames: FrameSet, settings: AdaptSettings) -> AdaptedFrames:
    """Predict each frame after its own adaptation step; the potential is left as it is.

    With `settings.together` above one, so many frames in a row share a step; with "adam_kept" frames are taken in
    order. Otherwise the order does not matter.

    Raises:
        DataError: no frame.
        ModelError: an element that the potential does not know.
    """
    adapter, keys = Adapter(potential, settings), keys_of(frames)
    _check(potential, frames, "predict_adapted")
    n, offsets = len(frames), frames.offsets.tolist()
    energy, forces = np.empty(n), np.empty((offsets[-1], 3))
    features: np.ndarray | None = None
    kept: dict[str, np.ndarray] = {}
    for rows, graph in _graphs(potential, frames, settings):
        chosen = [keys[row] for row in rows]
        if settings.together == 1 and stackable(graph, potential):
            prediction, found = adapter.predict_each(graph, chosen)
        else:
            prediction, found = adapter.predict(graph, chosen, features=True)
        energy[rows] = prediction.energy.cpu().numpy()
        assert prediction.forces is not None
        atoms = np.concatenate([np.arange(offsets[row], offsets[row + 1]) for row in rows])
        forces[atoms] = prediction.forces.cpu().numpy()
        assert prediction.features is not None
        if features is None:
            features = np.empty((offsets[-1], prediction.features.shape[1]), np.float32)
        features[atoms] = prediction.features.cpu().numpy()
        for name, values in _columns(found).items():
            if name not in kept:
                kept[name] = np.full(n, np.nan)
            kept[name][rows] = values.cpu().numpy()
    tasks = {name.partition("/")[2]: values for name, values in kept.items() if name.startswith("task/")}
    assert features is not None
    return AdaptedFrames(
        frames.with_labels(energy=energy, forces=forces, stress=None), kept["loss"], tasks, kept["hit"],
        kept["gradient"], kept["change"], features,
    )  # fmt: skip


def _check(potential: Potential, frames: FrameSet, where: str) -> None:
    if not len(frames):
        raise DataError("no frame", where=where)
    potential.check_elements(list(frames.elements))


def _graphs(potential: Potential, frames: FrameSet, settings: AdaptSettings) -> Iterator[tuple[np.ndarray, Graph]]:
    """Rows that share a step or are adapted at once, and their graph."""
    cache = NeighbourCache(frames, potential.cutoff, max_bytes=0)
    apart = settings.together == 1 and settings.optimiser != "adam_kept"
    for rows in _batches(frames, settings, apart and comes_by_structure(potential)):
        graph = collate(frames, rows, cache, torch.float64)[0].to(device=potential.device)
        if not apart or stackable(graph, potential):
            yield rows, graph
        else:
            yield from ((rows[index : index + 1], one) for index, one in enumerate(parts(graph)))


def _batches(frames: FrameSet, settings: AdaptSettings, at_once: bool) -> Iterator[np.ndarray]:
    if not at_once:
        for start in range(0, len(frames), settings.together):
            yield np.arange(start, min(start + settings.together, len(frames)))
        return
    sizes = np.asarray(frames.n_atoms)
    for size in np.unique(sizes):
        alike, many = np.flatnonzero(sizes == size), max(1, min(AT_ONCE, ATOMS // int(size)))
        yield from (alike[start : start + many] for start in range(0, len(alike), many))


def _columns(found: Found) -> dict[str, Tensor]:
    hit = torch.full_like(found.total, torch.nan) if found.hit is None else found.hit.double()
    return {
        "loss": found.total, "hit": hit, "gradient": found.gradient, "change": found.change,
        **{f"task/{name}": values for name, values in found.losses.items()},
    }  # fmt: skip


@contextmanager
def losses_only(potential: Potential) -> Iterator[None]:
    """Nothing asks for weight gradients inside."""
    flags = [(p, p.requires_grad) for p in potential.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def losses_of(potential: Potential, frames: FrameSet, settings: AdaptSettings, draws: int) -> dict[str, np.ndarray]:
    """Self-supervised losses before any step: "all" (their weighted sum) and each task -> [draws, F].

    Raises:
        DataError: no frame.
        ModelError: an element that the potential does not know.
    """
    check_number(draws, "draws", 1, whole=True)
    _check(potential, frames, "losses_of")
    cache, keys = NeighbourCache(frames, potential.cutoff), keys_of(frames)
    found: dict[str, np.ndarray] = {}
    for rows in batches_by_size(frames.n_atoms, AT_ONCE):
        graph = collate(frames, rows, cache, torch.float64)[0].to(device=potential.device)
        for turn in range(draws):
            adapter = Adapter(potential, replace(settings, seed=settings.seed + SEED_STEP * (turn + 1)))
            with losses_only(potential), torch.enable_grad():
                losses = adapter.losses(graph, [keys[row] for row in rows])
            for name, values in {ALL: losses.total(adapter.weights), **losses.by_task}.items():
                found.setdefault(name, np.empty((draws, len(frames))))[turn, rows] = values.detach().cpu().numpy()
    return found


def loss_threshold(
    potential: Potential, frames: FrameSet, settings: AdaptSettings, draws: int = 4, share: float = 0.99
) -> float:
    """The quantile of the self-supervised loss over frames, each with several draws: τ of the MD strategy "threshold".

    Args:
        frames: the validation set. draws: K noise draws of each. share: of the losses that lie below.

    Raises:
        DataError: no frame.
        ModelError: an element that the potential does not know.
    """
    check_number(share, "share", below=1)
    return float(np.quantile(losses_of(potential, frames, settings, draws)[ALL], share))
