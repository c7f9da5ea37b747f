"""What a teacher can tell beside energies and forces: features, energies of atoms, rows of its Hessian.

Signals are computed once per pool and stored; a training takes them along with its frames (`SignalSource`).

==========  =================================================================================================
signal      array
==========  =================================================================================================
features    [N,D] scalar features of each atom
energies    [N] eV, energy of each atom
hessian     [N,R,3] eV/Å²: ∂F_j/∂x of R random coordinates x of each frame (-H), and coordinates int [F,R], 3 i + axis;
            NaN where the teacher has no answer for a displaced frame
==========  =================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from mlipkit.errors import ModelError
from mlipkit.strategies.ipip.pools import atom_rows
from mlipkit.training.batches import Batch, FrameSource

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential

Kind = Literal["features", "energies", "hessian"]
DISPLACEMENT = 0.005
"""Å, of the central differences that give the teacher's rows."""
AT_ONCE = 8


@dataclass(frozen=True)
class Signals:
    """Signals of one batch.

    Attributes:
        values: [N,...] of all its atoms. coordinates: int64 [S,R] within each frame, hessian only.
    """

    values: Tensor
    coordinates: Tensor | None = None

    def to(self, device: torch.device) -> Signals:
        found = None if self.coordinates is None else self.coordinates.to(device)
        return Signals(self.values.to(device), found)


def signals(
    teacher: BasePotential, frames: FrameSet, kind: Kind, rows: int = 2, seed: int = 0,
    label: Callable[[FrameSet], FrameSet] | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Arrays of a signal for all frames.

    Args:
        rows, seed: hessian: random coordinates of each frame.
        label: hessian: the teacher's labels of frames, NaN where it has none; None: whatever it raises is raised.

    Raises:
        ModelError: the teacher has no such thing.
    """
    from mlipkit.models import predict

    if kind != "hessian":
        return _per_atom(teacher, frames, kind)
    return _hessian(label or (lambda some: predict(teacher, some, AT_ONCE)), frames, rows, seed)


def _batches(teacher: BasePotential, frames: FrameSet) -> Iterator[tuple[np.ndarray, np.ndarray, object]]:
    from mlipkit.data.graph import batches_by_size, collate
    from mlipkit.data.neighbours import NeighbourCache

    cache = NeighbourCache(frames, teacher.cutoff, max_bytes=0)
    for chosen in batches_by_size(frames.n_atoms, AT_ONCE):
        graph, _ = collate(frames, chosen, cache, torch.float64)
        yield chosen, atom_rows(frames, chosen), graph.to(device=teacher.device)


def _per_atom(teacher: BasePotential, frames: FrameSet, kind: Kind) -> dict[str, np.ndarray]:
    found: np.ndarray | None = None
    for _, atoms, graph in _batches(teacher, frames):
        said = teacher(graph, forces=False, features=kind == "features")  # type: ignore[arg-type]
        values = said.features if kind == "features" else said.energies
        if values is None or not bool(torch.isfinite(values).all()):
            what = "features" if kind == "features" else "energies of single atoms"
            raise ModelError(f"gives no {what}", where="teacher", hint="Choose another arm, or a teacher that has them")
        if found is None:
            found = np.zeros((len(frames.numbers), *values.shape[1:]), np.float32 if kind == "features" else np.float64)
        found[atoms] = values.cpu().numpy()
    assert found is not None
    return {"values": found}


def _hessian(label: Callable[[FrameSet], FrameSet], frames: FrameSet, rows: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = 3 * np.asarray(frames.n_atoms)
    chosen = np.stack([rng.choice(size, rows, replace=size < rows) for size in sizes.tolist()])
    values = np.zeros((len(frames.numbers), rows, 3))
    starts = np.asarray(frames.offsets[:-1])
    bare = frames.without_labels(velocities=False)
    for row in range(rows):
        atoms, axes = starts + chosen[:, row] // 3, chosen[:, row] % 3
        ends = []
        for sign in (1, -1):
            moved = np.array(frames.positions)
            moved[atoms, axes] += sign * DISPLACEMENT
            ends.append(np.asarray(label(_placed(bare, moved)).forces))
        values[:, row] = (ends[0] - ends[1]) / (2 * DISPLACEMENT)
    return {"values": values, "coordinates": chosen}


def _placed(frames: FrameSet, positions: np.ndarray) -> FrameSet:
    """The same atoms elsewhere."""
    from mlipkit.data import FrameSet as Frames

    return Frames.from_arrays(frames.numbers, positions, n_atoms=frames.n_atoms, cell=frames.cell, pbc=frames.pbc)


class SignalSource(FrameSource):
    """Frames with a signal beside their labels.

    Args:
        arrays: of `signals`, for exactly these frames.
    """

    def __init__(self, frames: FrameSet, cutoff: float, dtype: torch.dtype, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__(frames, cutoff, dtype)
        self.arrays = dict(arrays)

    def batch(self, indices: np.ndarray) -> Batch:
        made, atoms = super().batch(indices), atom_rows(self.frames, indices)
        values = torch.from_numpy(np.asarray(self.arrays["values"][atoms])).to(self.dtype)
        chosen = self.arrays.get("coordinates")
        return Batch(made.graph, made.targets,
                     Signals(values, None if chosen is None else torch.from_numpy(chosen[indices])))  # fmt: skip


def part(arrays: Mapping[str, np.ndarray], frames: FrameSet, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Signals of some of the frames, in their order."""
    atoms = atom_rows(frames, rows)
    return {name: values[rows if name == "coordinates" else atoms] for name, values in arrays.items()}
