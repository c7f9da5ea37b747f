"""One step in the weights of every structure from its gradient, compiled when first imported.

Ranges, addresses and `like`: see `mlipkit.ops.kernels`.
"""

from __future__ import annotations

import numpy as np

from mlipkit.ops.kernels import at, compiled

_CHUNK = 4096
"""Numbers at a time, which stay in the cache from loop to loop."""


@compiled
def step(start, stop, like, n, p, ends, slope, source, own, signs, rates, fresh, epsilon, out, sizes):
    """out_s = source_s - rate_s Δ(g_s), |g_s|² and |rate_s Δ|² [N,2]; Δ(g) = g or g / (|g| + ε), times a sign

    Slopes g come parameter by parameter, between `ends`, each of all N structures. All is computed in the type of
    `like`: a plain number would be one of float64.
    """
    signs_ = at(signs, (n if signs else 0, p), np.int8(0))
    rates_, sizes_ = at(rates, (n,), np.float64(0)), at(sizes, (n, 2), np.float64(0))
    g, number = np.full(_CHUNK, like), np.full(2, like)
    number[0] = epsilon
    for s in range(start, stop):
        number[1] = rates_[s]
        tiny, rate = number
        sizes_[s, 0] = sizes_[s, 1] = 0
        for m in range(len(ends) - 1):
            for first in range(ends[m], ends[m + 1], _CHUNK):
                count = min(_CHUNK, ends[m + 1] - first)
                here = n * ends[m] + s * (ends[m + 1] - ends[m]) + first - ends[m]
                slope_ = at(slope, (count,), like, here)
                source_ = at(source, (count,), like, (s * p if own else 0) + first)
                out_ = at(out, (count,), like, s * p + first)
                gradient = change = like
                for q in range(count):
                    gradient += slope_[q] * slope_[q]
                if fresh:
                    for q in range(count):
                        g[q] = slope_[q] / (abs(slope_[q]) + tiny)
                else:
                    for q in range(count):
                        g[q] = slope_[q]
                if signs:
                    for q in range(count):
                        g[q] *= signs_[s, first + q]
                for q in range(count):
                    change += g[q] * g[q]
                for q in range(count):
                    out_[q] = source_[q] - rate * g[q]
                sizes_[s, 0] += gradient
                sizes_[s, 1] += change * rates_[s] * rates_[s]
