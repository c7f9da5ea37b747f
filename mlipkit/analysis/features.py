"""A potential's own features as a descriptor of atoms: cheap where the potential is evaluated anyway."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.analysis.descriptors import check_species, facts_hash
from mlipkit.data.columns import Array
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import ModelError

if TYPE_CHECKING:
    from mlipkit.models.contract import BasePotential


class ModelFeatures:
    """The scalar features that a potential makes of each atom, float32.

    Args:
        potential: any potential that gives features, universal ones included; runs on its device.
        batch_size: frames at a time.

    Raises:
        ModelError: the potential has no features.
    """

    n_jobs = 1

    def __init__(self, potential: BasePotential, batch_size: int = 32) -> None:
        self.potential, self.batch_size = potential, batch_size
        self.size = self._measure()

    @property
    def species(self) -> tuple[int, ...]:
        return self.potential.elements

    def facts(self) -> dict[str, Any]:
        described = self.potential.describe()
        name = described.get("encoder") or described.get("title") or described.get("kind")
        return {
            "kind": "model_features",
            "species": list(self.species),
            "model": str(name),
            "size": self.size,
            "weights": self._weights,
        }

    @cached_property
    def _weights(self) -> str:
        import torch

        digest = hashlib.sha256()
        for name, value in sorted(self.potential.state_dict().items()):
            digest.update(name.encode())
            if isinstance(value, torch.Tensor):
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def hash(self) -> str:
        return facts_hash(self.facts())

    def __call__(self, frames: FrameSet) -> Array:
        """Features float32 [N,D].

        Raises:
            DataError: an element outside the potential's domain.
        """
        check_species(self, frames)
        out = np.empty((int(frames.offsets[-1]), self.size), np.float32)
        self.fill(frames, out)
        return out

    def fill(self, frames: FrameSet, out: Array) -> None:
        import torch

        from mlipkit.data.graph import batches_by_size, collate
        from mlipkit.data.neighbours import NeighbourCache

        cache = NeighbourCache(frames, self.potential.cutoff, max_bytes=0)
        offsets = frames.offsets.tolist()
        for chosen in batches_by_size(frames.n_atoms, self.batch_size):
            graph, _ = collate(frames, chosen, cache, torch.float64)
            rows = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in chosen])
            out[rows] = self._of(graph)

    def fill_one(self, out: Array, numbers: Array, positions: Array, cell: Array, pbc: Array) -> None:
        import torch

        from mlipkit.data.graph import graph_of

        structure = {"numbers": numbers, "positions": positions, "cell": cell, "pbc": pbc}
        out[:] = self._of(graph_of(structure, self.potential.cutoff, torch.float64))

    def _of(self, graph: Any) -> Array:
        features = self.potential(graph.to(device=self.potential.device), forces=False, features=True).features
        if features is None:
            raise ModelError("the potential has no features", found=type(self.potential).__name__)
        return features.float().cpu().numpy()

    def _measure(self) -> int:
        """Numbers per atom, from two atoms: only an evaluation tells for potentials of others."""
        import torch

        from mlipkit.data.graph import graph_of

        structure = {
            "numbers": np.array([self.species[0]] * 2, np.int16),
            "positions": np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.2]]),
            "cell": np.eye(3) * 12.0,
            "pbc": np.ones(3, bool),
        }
        return self._of(graph_of(structure, self.potential.cutoff, torch.float64)).shape[1]

    def __repr__(self) -> str:
        return f"<ModelFeatures: {self.size} numbers per atom>"
