"""Random numbers of many replicas, drawn ahead for some steps: a call per replica and block instead of one per step.

Each replica has a generator of its own, and a block holds a fixed number of steps, so the numbers that a replica gets
depend on its seed alone, not on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import torch
from torch import Tensor

Kind = Literal["atoms", "squares"]


class Draws:
    """A block of numbers and how many steps of it are used.

    What a checkpoint needs are the generators as they were when the block was drawn (`starts`) and `used`: with these
    the block is drawn again.

    Args:
        used: steps to pass over in the next block, as the checkpoint says.
    """

    STEPS: Final = 16
    """Steps in a block; part of what decides a trajectory."""

    def __init__(self, used: int = 0) -> None:
        self.used = used
        self._kind: Kind | None = None
        self._block: Tensor | None = None
        self._steps: tuple[Tensor, ...] = ()
        self._starts: list[Tensor] = []

    @property
    def empty(self) -> bool:
        """Whether the next call draws a block and needs to be told how many numbers."""
        return self._block is None

    def next(self, kind: Kind, rng: Sequence[torch.Generator], counts: Sequence[int]) -> Tensor:
        """The numbers of the next step, float64.

        Args:
            counts: standard normal numbers of each replica and step.

        Returns:
            "atoms": [sum of counts], replica after replica. "squares": [S,2], of the numbers of each replica the first
            and the sum of their squares.
        """
        if self.empty or self._kind != kind:
            if self._block is not None:
                self.used = 0
            self._draw(kind, rng, counts)
        assert self._block is not None
        values = self._steps[self.used]
        self.used += 1
        if self.used == self.STEPS:
            self._block, self.used = None, 0
        return values

    def _draw(self, kind: Kind, rng: Sequence[torch.Generator], counts: Sequence[int]) -> None:
        self._starts = [generator.get_state() for generator in rng]
        draws = [
            torch.randn(self.STEPS, count, generator=generator, dtype=torch.float64, device=generator.device)
            for count, generator in zip(counts, rng, strict=True)
        ]
        if kind == "squares":
            self._block = torch.stack([torch.stack([d[:, 0], d.square().sum(1)], 1) for d in draws], 1)
        else:
            self._block = draws[0] if len(draws) == 1 else torch.cat(draws, 1)
        self._kind, self._steps = kind, self._block.unbind(0)

    def starts(self, rng: Sequence[torch.Generator]) -> list[Tensor]:
        """States of the generators from which the present block, or else the next one, is drawn."""
        return self._starts if self._block is not None else [generator.get_state() for generator in rng]

    def select(self, replicas: Sequence[int], n_atoms: Sequence[int]) -> Draws:
        """The numbers of some replicas; `n_atoms` of all that there are now."""
        part = Draws(self.used)
        if self._block is not None:
            part._kind, part._starts = self._kind, [self._starts[r] for r in replicas]
            pieces = (
                self._block.split([3 * n for n in n_atoms], 1) if self._kind == "atoms" else self._block.split(1, 1)
            )
            part._block = torch.cat([pieces[r] for r in replicas], 1)
            part._steps = part._block.unbind(0)
        return part
