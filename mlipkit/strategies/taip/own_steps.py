"""Steps in the weights of every structure, from what a backward pass of all kept of each.

Rows of all uses of a weight, where they are few, are laid side by side: its gradient is then one product per structure.
Gradients of all are never there at once: those of a few are made, and their step is taken while they are in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mlipkit.ops import native
from mlipkit.strategies.taip.per_structure import SUM, TABLE, Kept


@dataclass(frozen=True)
class Rule:
    """What a gradient does to weights.

    Attributes:
        rate: η. fresh: a new Adam's step, `g / (|g| + ε)`; otherwise g itself.
        still: what stays: number of a parameter, range within it.
        signs: int8 [S,P], takes each part of the step with this sign.
        moving: [S], 1 or 0: who moves.
    """

    rate: float
    fresh: bool
    epsilon: float
    still: Sequence[tuple[int, int, int]] = ()
    signs: Tensor | None = None
    moving: Tensor | None = None


AT_A_TIME = 1 << 20
"""Numbers of gradients that are made before their steps are taken: what a core's cache holds."""
APART = 1 << 19
"""Numbers of rows of a weight's uses above which laying them side by side costs more than a product of each."""


@torch.no_grad()
def step_of(
    kept: Sequence[Kept], source: Tensor, sizes: Sequence[int], n_systems: int, rule: Rule, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """New weights [S,P] of structures that start from `source`, [P] or [S,P]; norms [S] of gradients and of changes.

    Args:
        sizes: of the parameters, whose sum is P.
        out: where the new weights go; may be `source`.
    """
    n, size, own = source.shape[-1], n_systems, source.ndim == 2
    ends = np.cumsum([0, *sizes])
    products = _products(kept, size, ends)
    reached = np.zeros(len(sizes))
    for one in products:
        reached[one.parameter] += one.size
    full = set(np.flatnonzero(reached == sizes))
    out = source.new_empty((size, n)) if out is None else out
    norms = torch.empty((size, 2), dtype=torch.float64, device=source.device)
    rates = torch.full((size,), rule.rate, dtype=torch.float64)
    if rule.moving is not None:
        rates *= rule.moving.to(rates)
    few = max(1, min(size, AT_A_TIME // n))
    slopes = source.new_empty(few * n)
    for start in range(0, size, few):
        rows = slice(start, min(start + few, size))
        count = rows.stop - start
        # One parameter of all structures after the other: products then go straight to their place.
        now = slopes[: count * n]
        parts = [part.view(count, -1) for part in now.split([count * each for each in sizes])]
        for number, part in enumerate(parts):
            if number not in full:
                part.zero_()
        for one in products:
            one.into(parts[one.parameter], rows)
        for number, first, last in rule.still:
            parts[number][:, first:last] = 0
        signs = None if rule.signs is None else rule.signs[rows]
        _take(now, ends, source[rows] if own else source, signs, rates[rows], rule, out[rows], norms[rows])
    norms = norms.sqrt()
    return out, norms[:, 0], norms[:, 1]


class _Product(NamedTuple):
    """Sum over uses of `left ⊗ right` [S,I,J] of left [S,k,I] (None: the sum of right) and right [S,k,J], and where it
    belongs."""

    lefts: Sequence[Tensor | None]
    rights: Sequence[Tensor]
    parameter: int
    offset: int
    strides: tuple[int, int]

    @property
    def size(self) -> int:
        left = self.lefts[0]
        return self.rights[0].shape[2] * (1 if left is None else left.shape[2])

    def into(self, slopes: Tensor, rows: slice) -> None:
        """The structures `rows`, into the slopes of the parameter [rows, size]."""
        shape = (len(slopes), 1 if self.lefts[0] is None else self.lefts[0].shape[2], self.rights[0].shape[2])
        where = slopes.as_strided(shape, (slopes.shape[1], *self.strides), slopes.storage_offset() + self.offset)
        straight = where.is_contiguous() or self.lefts[0] is None
        total = where if straight else slopes.new_empty(shape)
        for number, (left, right) in enumerate(zip(self.lefts, self.rights, strict=True)):
            if left is None:
                part = right[rows].sum(1, keepdim=True)
                total.add_(part) if number else total.copy_(part)
            elif number:
                total.baddbmm_(left[rows].mT, right[rows])
            else:
                torch.bmm(left[rows].mT, right[rows], out=total)
        if not straight:
            where.copy_(total)


def _products(kept: Sequence[Kept], n_systems: int, ends: np.ndarray) -> list[_Product]:
    """Products of all uses of a weight; where they are small, as one."""
    uses: dict[Any, list[Kept]] = {}
    for one in kept:
        uses.setdefault((one.kind, tuple(_even(one.place)), one.place.shape[1]), []).append(one)
    found = []
    for (kind, spans, _), parts in uses.items():
        rights = [row for one in parts for row in _by_structure(one.right, one.versions, n_systems)]
        apart = sum(map(Tensor.numel, rights)) > APART
        rights = rights if apart else [torch.cat(rights, 1)]
        lefts: list[Tensor | None] = [None] * len(rights)
        if kind != SUM:
            given = (
                (functional.one_hot(one.left, len(one.place)).to(rights[0]) if kind == TABLE else one.left, one)  # type: ignore[arg-type]
                for one in parts
            )
            rows = [row for values, one in given for row in _by_structure(values, one.versions, n_systems)]  # type: ignore[arg-type]
            lefts = [*rows] if apart else [torch.cat(rows, 1)]
        for first, last, offset, (down, across) in spans:
            parameter = int(np.searchsorted(ends, offset, side="right")) - 1
            offset -= int(ends[parameter])
            cut = [None if left is None else left[..., first:last] for left in lefts]
            if kind != SUM and across > down:
                found.append(_Product(rights, cut, parameter, offset, (across, down)))  # type: ignore[arg-type]
            else:
                found.append(_Product(cut, rights, parameter, offset, (down, across)))
    return found


def _by_structure(rows: Tensor, versions: int, n_systems: int) -> Iterator[Tensor]:
    """[S,k,...] of each version."""
    yield from rows.view(versions, n_systems, -1, rows.shape[1])


def _even(place: Tensor) -> Iterator[tuple[int, int, int, tuple[int, int]]]:
    """Rows of [I,J] that lie evenly, and how: first, last, offset, strides."""
    ends = place[:, :2].numpy()
    starts = ends[:, 0]
    across = ends[:, -1] - starts if place.shape[1] > 1 else np.ones_like(starts)
    down, first = np.diff(starts), 0
    while first < len(starts):
        last = first + 1
        if last < len(starts):
            same = (down[first:] == down[first]) & (across[last:] == across[first])
            last += len(same) if same.all() else int(same.argmin())
        step = int(down[first]) if last > first + 1 else 1
        yield first, last, int(starts[first]), (step, int(across[first]))
        first = last


def _take(
    slopes: Tensor, ends: np.ndarray, source: Tensor, signs: Tensor | None, rates: Tensor, rule: Rule, out: Tensor,
    norms: Tensor,
) -> None:  # fmt: skip
    count, n = out.shape
    if native.serves(slopes):
        from mlipkit.ops import step_kernels

        native.run(
            step_kernels.step, count, 4 * slopes.numel(), slopes, count, n, ends, slopes, source.contiguous(),
            source.ndim == 2, None if signs is None else signs.contiguous(), rates, rule.fresh, rule.epsilon, out,
            norms,
        )  # fmt: skip
        return
    parts = slopes.split([count * int(size) for size in np.diff(ends)])
    slope = torch.cat([part.view(count, -1) for part in parts], dim=1)
    norms[:, 0] = slope.square().sum(1)
    if rule.fresh:
        slope = slope / (slope.abs() + rule.epsilon)
    if signs is not None:
        slope = slope * signs.to(slope)
    slope = slope * rates.to(slope).unsqueeze(1)
    norms[:, 1] = slope.square().sum(1)
    torch.sub(source, slope, out=out)
