"""One step in the weights of every structure from what one backward pass of all left behind, compiled when imported.

The gradient of a linear map is a sum of outer products over the rows of a batch. Rows of one structure alone give its own
gradient, whoever else went through the map. A structure's gradient stays in the cache until its step is taken, and is
never written. Ranges, addresses and `like`: see `mlipkit.ops.kernels`.
"""

from __future__ import annotations

import numpy as np

from mlipkit.ops.kernels import at, compiled

OUTER, SUM, TABLE = 0, 1, 2
"""Kinds of what was kept: left ⊗ right, right alone, rows of a table that `left` (int64) names."""
_CHUNK = 4096


@compiled
def outer(s, n_systems, like, left, right, rows, columns, versions, k, place, stride, slope, row):
    """slope[place_i + j stride_i] += Σ_r left_ri right_rj over the k rows of each version of structure s"""
    total = versions * n_systems * k
    left_, right_ = at(left, (total, rows), like), at(right, (total, columns), like)
    for i in range(rows):
        for j in range(columns):
            row[j] = 0
        for v in range(versions):
            first = (v * n_systems + s) * k
            for r in range(first, first + k - k % 4, 4):
                a, b, c, d = left_[r, i], left_[r + 1, i], left_[r + 2, i], left_[r + 3, i]
                for j in range(columns):
                    row[j] += (
                        a * right_[r, j] + b * right_[r + 1, j] + c * right_[r + 2, j] + d * right_[r + 3, j]
                    )
            for r in range(first + k - k % 4, first + k):
                a = left_[r, i]
                for j in range(columns):
                    row[j] += a * right_[r, j]
        start, step = place[i], stride[i]
        if step == 1:
            for j in range(columns):
                slope[start + j] += row[j]
        else:
            for j in range(columns):
                slope[start + j * step] += row[j]


@compiled
def summed(s, n_systems, like, right, columns, versions, k, start, step, slope):
    """slope[start + j step] += Σ_r right_rj"""
    right_ = at(right, (versions * n_systems * k, columns), like)
    for v in range(versions):
        first = (v * n_systems + s) * k
        for r in range(first, first + k):
            for j in range(columns):
                slope[start + j * step] += right_[r, j]


@compiled
def tabled(s, n_systems, like, left, right, columns, versions, k, place, stride, slope):
    """slope[place_t + j stride_t] += Σ_r right_rj over rows r of type t"""
    total = versions * n_systems * k
    types, right_ = at(left, (total,), np.int64(0)), at(right, (total, columns), like)
    for v in range(versions):
        first = (v * n_systems + s) * k
        for r in range(first, first + k):
            start, step = place[types[r]], stride[types[r]]
            for j in range(columns):
                slope[start + j * step] += right_[r, j]


@compiled
def adapt(
    start, stop, like, n_systems, n_weights, widest, items, place, stride, still,
    source, own, signs, moving, fresh, rate, epsilon, out, sizes,
):  # fmt: skip
    """out_s = source - Δ(g_s), and |g_s|², |Δ|² [S,2]; g_s of all items, zero over the ranges `still`"""
    source_, out_ = at(source, (n_systems if own else 1, n_weights), like), at(out, (n_systems, n_weights), like)
    signs_ = at(signs, (n_systems if signs else 0, n_weights), np.int8(0))
    moving_, sizes_ = at(moving, (n_systems,), np.float64(0)), at(sizes, (n_systems, 2), np.float64(0))
    slope, row = np.full(n_weights, like), np.full(widest, like)
    for s in range(start, stop):
        for p in range(n_weights):
            slope[p] = 0
        for m in range(len(items)):
            kind, left, right, rows = items[m, 0], items[m, 1], items[m, 2], items[m, 3]
            columns, versions, k, at_ = items[m, 4], items[m, 5], items[m, 6], items[m, 7]
            if kind == OUTER:
                outer(
                    s, n_systems, like, left, right, rows, columns, versions, k, place[at_:], stride[at_:], slope, row
                )
            elif kind == SUM:
                summed(s, n_systems, like, right, columns, versions, k, place[at_], stride[at_], slope)
            else:
                tabled(s, n_systems, like, left, right, columns, versions, k, place[at_:], stride[at_:], slope)
        for m in range(len(still)):
            for p in range(still[m, 0], still[m, 1]):
                slope[p] = 0
        scale = like + rate * moving_[s]
        tiny, from_ = like + epsilon, s if own else 0
        sizes_[s, 0] = sizes_[s, 1] = 0
        for first in range(0, n_weights, _CHUNK):
            last = min(first + _CHUNK, n_weights)
            gradient = change = like
            for p in range(first, last):
                gradient += slope[p] * slope[p]
            if fresh:
                for p in range(first, last):
                    slope[p] = slope[p] / (abs(slope[p]) + tiny)
            if signs:
                for p in range(first, last):
                    slope[p] *= signs_[s, p]
            for p in range(first, last):
                change += slope[p] * slope[p]
            for p in range(first, last):
                out_[s, p] = source_[from_, p] - scale * slope[p]
            sizes_[s, 0] += gradient
            sizes_[s, 1] += change * scale * scale
