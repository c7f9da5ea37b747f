"""Sums over the edges of each atom and over the atoms of each structure."""

from __future__ import annotations

from torch import Tensor


def segment_sum(values: Tensor, index: Tensor, n: int) -> Tensor:
    """Sum the rows of `values` that share an index.

    Args:
        values: [M, ...] any floating tensor.
        index: int64 [M], segment of each row, in any order (fastest when sorted).
        n: number of segments; a segment without rows is zero.

    Returns:
        [n, ...], in the dtype of `values`; differentiable any number of times.
    """
    return values.new_zeros((n, *values.shape[1:])).index_add(0, index, values)


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Rows `values[index]`, [N, ...] and [M] -> [M, ...].

    The derivative is a plain sum over rows, several times faster than that of indexing with brackets.
    """
    return values.index_select(0, index)
