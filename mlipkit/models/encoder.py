"""The contract of an encoder: tensors in, features per atom out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

MASK = 0
"""Row of the embedding table that stands for "type hidden" (self-supervised tasks); elements use rows 1..118."""
N_TYPES = 119
"""Rows of the embedding table."""


@dataclass(frozen=True)
class Features:
    """What an encoder knows about each atom.

    Attributes:
        scalar: [N,D], unchanged by rotation.
        vector: [N,3,D], turns with the structure; None for encoders without vectors.
        tensor: [N,5,D], components of degree l = 2, for heads that take them; None for encoders without.
    """

    scalar: Tensor
    vector: Tensor | None = None
    tensor: Tensor | None = None


class Encoder(nn.Module):
    """Base of SchNet, PaiNN and others. Subclasses register in `mlipkit.models.ENCODERS`.

    An encoder takes everything from outside (types, edges, edge vectors), detaches nothing, and gives exactly the
    same result whether edges at or beyond the cutoff are in the list or not.

    Attributes:
        cutoff: Å.
        width: number of scalar features D.
        elements: atomic numbers that it can tell apart; None: all.
        takes_pairs: `forward` has an argument `mirrored`: True says that each edge `j -> i` of the list stands also for
            `i -> j` with `-r_ij`. What depends on distance alone is then made once per pair.
    """

    cutoff: float
    width: int
    elements: tuple[int, ...] | None = None
    takes_pairs: ClassVar[bool] = False

    def forward(self, numbers: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Features:
        """Encode a batch.

        Args:
            numbers: int64 [N], atomic numbers; 0 is the mask.
            edge_index: int64 [2,E], row 0 sender j, row 1 receiver i; sorted by receiver is fastest.
            edge_vectors: [E,3], `r_ij = R_j - R_i + S_ij A` in Å, in the dtype of the parameters.
        """
        raise NotImplementedError

    def options(self) -> Mapping[str, bool | int | float | str | list[int]]:
        """Arguments that rebuild this encoder, JSON-ready."""
        raise NotImplementedError
