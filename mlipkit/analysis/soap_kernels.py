"""The loop of the SOAP expansion, compiled by Numba when first asked for; `power_spectrum` says what it sums.

It lets other threads run, and writes only the rows of the atoms it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import njit

# Sums may be reordered for the vector units; NaN and infinity keep their meaning.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder to keep the machine code in
        return njit(**_OPTIONS)(function)


@cache
def expansion(l_max: int, n_max: int) -> Callable[..., Any]:
    """The loop for these sizes: known when it is compiled, its inner loops are unrolled (twice as fast)."""

    @compiled
    def expand(starts, kinds, vectors, primitives, own_kind, own, mix, up, down, norm, sums, harmonics, density):
        for i in range(len(own_kind)):
            sums[:] = 0.0
            for p in range(starts[i], starts[i + 1]):
                x, y, z = vectors[p, 0], vectors[p, 1], vectors[p, 2]
                r2 = x * x + y * y + z * z
                cosine, sine = 1.0, 0.0
                for m in range(l_max + 1):
                    before, here = 0.0, 1.0
                    for deg in range(m, l_max + 1):
                        value = norm[deg, m] * here
                        harmonics[deg * deg + deg + m] = value * cosine
                        if m > 0:
                            harmonics[deg * deg + deg - m] = value * sine
                        before, here = here, up[deg, m] * z * here - down[deg, m] * r2 * before
                    cosine, sine = x * cosine - y * sine, x * sine + y * cosine
                row = sums[kinds[p]]
                for deg in range(l_max + 1):
                    for lm in range(deg * deg, (deg + 1) * (deg + 1)):
                        value = harmonics[lm]
                        for k in range(n_max):
                            row[lm, k] += value * primitives[p, deg * n_max + k]
            for s in range(len(sums)):
                for deg in range(l_max + 1):
                    for lm in range(deg * deg, (deg + 1) * (deg + 1)):
                        for n in range(n_max):
                            value = 0.0
                            for k in range(n_max):
                                value += mix[deg, k, n] * sums[s, lm, k]
                            density[i, lm, s, n] = value
            for n in range(n_max):
                density[i, 0, own_kind[i], n] += own[n]

    return expand
