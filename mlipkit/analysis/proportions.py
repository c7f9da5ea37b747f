"""Shares of few trials: intervals that hold near 0 and 1, and how likely two shares are one.

    (p̂ + z²/2n ± z √(p̂(1-p̂)/n + z²/4n²)) / (1 + z²/n)

Sources: E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927); R. G. Newcombe, Stat. Med. 17, 873 (1998), for differences.
"""

from __future__ import annotations

import math

from scipy.special import ndtri

from mlipkit.errors import DataError


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Raises:
        DataError: no trial, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise DataError("a share needs trials", where="wilson", expected="0 <= successes <= trials, trials >= 1",
                        found=(successes, trials))  # fmt: skip
    z = float(ndtri(0.5 * (1 + confidence)))
    share, weight = successes / trials, z * z / trials
    centre = (share + 0.5 * weight) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / trials + 0.25 * weight / trials) / (1 + weight)
    # At the ends the interval ends there exactly, which rounding must not hide.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def difference(one: tuple[int, int], other: tuple[int, int], confidence: float = 0.95) -> tuple[float, float, float]:
    """Difference of two shares, one - other, with Newcombe's interval of the two score intervals.

    Args:
        one, other: successes and trials.
    """
    (low1, high1), (low2, high2) = wilson(*one, confidence), wilson(*other, confidence)
    share1, share2 = one[0] / one[1], other[0] / other[1]
    apart = share1 - share2
    down = math.sqrt((share1 - low1) ** 2 + (high2 - share2) ** 2)
    up = math.sqrt((high1 - share1) ** 2 + (share2 - low2) ** 2)
    return apart, apart - down, apart + up
