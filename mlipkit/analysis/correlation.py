"""How long a quantity of a simulation remembers itself, and rows that no longer do."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

WINDOW = 5.0
"""The sum of the autocorrelation ends at the first lag of this many correlation times (Sokal)."""


def correlation_time(values: ArrayLike) -> float:
    """Statistical inefficiency 1 + 2 Σ ρ(t) of a series, in rows: so many rows count as one independent one.

    Args:
        values: [T]; a straight line is taken off first, as the drift of a short trajectory is no memory.

    Returns:
        At least 1. For a series of fewer than four rows, or without any spread, 1.

    Source: A. Sokal, in Functional Integration (Springer, 1997), p. 131: window at five correlation times.
    """
    x = np.asarray(values, float)
    if len(x) < 4:
        return 1.0
    rows = np.arange(len(x))
    rest = x - np.polyval(np.polyfit(rows, x, 1), rows)
    variance = float(rest @ rest)
    if not np.isfinite(variance) or variance <= 1e-24 * max(1.0, float(x @ x)):
        return 1.0
    padded = np.fft.rfft(rest, 2 * len(x))
    rho = np.fft.irfft(padded * padded.conj())[: len(x)] / variance
    total = np.maximum(1.0 + 2.0 * np.cumsum(rho[1:]), 1.0)
    enough = np.flatnonzero(rows[1:] >= WINDOW * total / 2)
    return float(total[enough[0]] if len(enough) else total[-1])


def decorrelated_rows(n_rows: int, spacing: float, most: int) -> list[int]:
    """Rows at least `spacing` apart, counted back from the last one, at most so many; ascending."""
    step = max(1, int(np.ceil(spacing)))
    return sorted(range(n_rows - 1, -1, -step)[:most])
