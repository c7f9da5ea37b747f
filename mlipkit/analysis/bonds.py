"""Bond lengths: distributions of two sets on the same bins, their moments, and how far apart they are.

Two distributions with cumulative shares A(d) and B(d) are apart by

    W = ∫ |A(d) - B(d)| dd                      (Wasserstein-1, Å: how far the lengths of A must be moved to give B)

Each unordered pair of atoms counts once, through the nearest images. The published pictures count only pairs whose
first element has the lower index, and compare C-H under the name O-H; `order="first_lower"` gives the first for
comparison.

A hard cut ends the histogram where the published one ends, and with it the tail of a soft bond; the soft cut keeps the
tail. Both are reported.

Intervals come from resampling blocks of time (25 ps; frames further apart are blocks of their own), since frames of a
run are no independent draws; `block="run"` resamples whole runs.

Source: arXiv 2603.10159 and its notebooks, for the hard cuts and the 50 joint bins; blocks, soft cuts and W are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from mlipkit.analysis.pairs import RADII, element_pair, near_pairs, pair_name
from mlipkit.analysis.time_order import joined, time_blocks
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, check_choice

Order = Literal["any", "first_lower"]
BLOCK: Final = 25_000.0
"""fs."""
FIGURES: Final = ("mean", "std", "skew", "q05", "q95")
_FINE = 4096
_REPLICAS = 64
_MOST_BLOCKS = 1000


@dataclass(frozen=True)
class Cuts:
    """Lengths in Å up to which a pair counts: `hard` as published, `soft` so wide that a soft bond keeps its tail."""

    hard: float
    soft: float


_CUTS: Final = {
    frozenset((1, 8)): Cuts(1.25, 1.40),
    frozenset((1, 6)): Cuts(1.25, 1.40),
    frozenset((1, 17)): Cuts(1.60, 1.80),
    frozenset((6, 8)): Cuts(1.60, 1.99),
}


def cuts_of(pair: str | tuple[str | int, str | int]) -> Cuts:
    """Cuts of a pair of elements; where nothing was published, 1.2 and 1.4 times the sum of covalent radii."""
    a, b = element_pair(pair)
    radii = float(RADII[a] + RADII[b])
    return _CUTS.get(frozenset((a, b)), Cuts(round(1.2 * radii, 3), round(1.4 * radii, 3)))


@dataclass(frozen=True, eq=False)
class BondLengths:
    """All lengths of one pair of elements in a set.

    Attributes:
        pair: atomic numbers.
        cut: Å.
        lengths: [B] Å, frame after frame.
        frame: int64 [B] frame of each.
        trajectory: int [F]; time: fs [F] of all frames, also of those without a bond.
    """

    pair: tuple[int, int]
    cut: float
    lengths: np.ndarray
    frame: np.ndarray
    trajectory: np.ndarray
    time: np.ndarray

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.time)

    @property
    def per_frame(self) -> float:
        """Mean number of bonds in a frame."""
        return len(self.lengths) / max(1, self.n_frames)

    def within(self, cut: float) -> BondLengths:
        """Those shorter than a shorter cut.

        Raises:
            DataError: a longer cut.
        """
        if cut > self.cut:
            raise DataError("lengths beyond the cut were not kept", expected=f"at most {self.cut:g} Å", found=cut)
        keep = self.lengths < cut
        return BondLengths(self.pair, cut, self.lengths[keep], self.frame[keep], self.trajectory, self.time)


@dataclass(frozen=True, eq=False)
class BondSummary:
    """Figures of a distribution of lengths, with bootstrap intervals.

    Attributes:
        pair, cut: as in `BondLengths`.
        n_bonds, n_frames, n_blocks: how many went in.
        per_frame: bonds in a frame.
        values: mean, std, q05, q95 (Å) and skew -> value.
        low, high: ends of the interval of each; NaN with fewer than two blocks.
        confidence: of the intervals.
    """

    pair: tuple[int, int]
    cut: float
    n_bonds: int
    n_frames: int
    n_blocks: int
    per_frame: float
    values: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    confidence: float


@dataclass(frozen=True, eq=False)
class BondComparison:
    """Two distributions of one pair of elements.

    Attributes:
        pair, cut: as in `BondLengths`.
        edges: [bins+1] Å, joint extrema; densities: ([bins], [bins]) 1/Å, each integrates to one.
        wasserstein: Å; low, high: bootstrap interval of it (upwards by chance, as every distance).
        chance: Å that W stays below in 95 of 100 exchanges of blocks between the sets; p_value: share of exchanges
            that reach W. NaN with fewer than two blocks in a set.
        differences: second minus first of mean, std, skew, q05, q95 -> (value, low, high).
        n_blocks: of each set.
    """

    pair: tuple[int, int]
    cut: float
    edges: np.ndarray
    densities: tuple[np.ndarray, np.ndarray]
    wasserstein: float
    low: float
    high: float
    chance: float
    p_value: float
    differences: Mapping[str, tuple[float, float, float]]
    n_blocks: tuple[int, int]


def bond_lengths(
    frames: FrameSet,
    pair: str | tuple[str | int, str | int] = "O-H",
    cut: Literal["hard", "soft"] | float = "hard",
    order: Order = "any",
) -> BondLengths:
    """Every length of a pair of elements that is below the cut, in all frames.

    Args:
        pair: "O-H" or two elements.
        cut: "hard", "soft" (`cuts_of`), or Å.
        order: "any": each unordered pair once. "first_lower": only where the first element has the lower index.

    Raises:
        DataError: not two elements, no such cut or order.
    """
    a, b = element_pair(pair)
    check_choice(order, get_args(Order), "order")
    if isinstance(cut, str):
        check_choice(cut, ("hard", "soft"), "cut")
    length = getattr(cuts_of((a, b)), cut) if isinstance(cut, str) else float(cut)
    parts, counts = [], np.zeros(len(frames), np.int64)
    for near in near_pairs(frames, length, (a,) if a == b else (a, b)):
        first, second = near.numbers[near.first], near.numbers[near.second]
        keep = (first == a) & (second == b)
        if order == "any":
            keep |= (first == b) & (second == a)
        parts.append(near.distance[keep])
        counts[near.frame] = keep.sum()
    lengths = np.concatenate(parts) if parts else np.empty(0)
    frame = np.repeat(np.arange(len(frames)), counts)
    return BondLengths((a, b), length, lengths, frame, np.asarray(frames.trajectory), np.asarray(frames.time))


def joint_histogram(
    sets: Mapping[str, BondLengths] | Sequence[BondLengths], bins: int = 50
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Edges [bins+1] between the joint extrema, Å, and the density of each set on them, 1/Å.

    Raises:
        DataError: no bond in any set.
    """
    each = [one.lengths for one in (sets.values() if isinstance(sets, Mapping) else sets)]
    some = [lengths for lengths in each if len(lengths)]
    if not some:
        raise DataError("no bond in any of the sets", where="joint_histogram")
    low, high = min(x.min() for x in some), max(x.max() for x in some)
    edges = np.linspace(low, max(high, low + 1e-6), bins + 1)
    counts = [np.histogram(x, edges)[0] for x in each]
    return edges, [count / max(1, count.sum()) / np.diff(edges) for count in counts]


def summarise_bonds(
    bonds: BondLengths,
    *,
    block: float | Literal["run"] = BLOCK,
    replicas: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BondSummary:
    """Mean, standard deviation, skew, 5 and 95 % quantile with bootstrap intervals over blocks.

    Args:
        block: fs of a block, or "run".
        replicas: bootstrap resamplings.

    Raises:
        DataError: no bond.
    """
    _some(bonds)
    span = (float(bonds.lengths.min()), float(bonds.lengths.max()))
    blocks = _Blocks.of(bonds, block, span)
    drawn = blocks.resampled(replicas, np.random.default_rng(seed))
    values = figures_of(bonds.lengths)
    low, high = {}, {}
    for index, name in enumerate(FIGURES):
        low[name], high[name] = _interval(drawn[:, index], confidence, blocks.n)
    return BondSummary(
        bonds.pair, bonds.cut, len(bonds.lengths), bonds.n_frames, blocks.n, bonds.per_frame, values, low, high,
        confidence,
    )  # fmt: skip


def compare_bonds(
    first: BondLengths,
    second: BondLengths,
    *,
    bins: int = 50,
    block: float | Literal["run"] = BLOCK,
    replicas: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BondComparison:
    """Two distributions on the same bins, and how far apart they are, beside what chance does.

    Raises:
        DataError: other elements or another cut, or a set without a bond.
    """
    from scipy.stats import wasserstein_distance

    if frozenset(first.pair) != frozenset(second.pair) or first.cut != second.cut:
        raise DataError(
            "two different bonds", where="compare_bonds", expected=f"{pair_name(first.pair)} below {first.cut:g} Å",
            found=f"{pair_name(second.pair)} below {second.cut:g} Å",
        )  # fmt: skip
    for one in (first, second):
        _some(one)
    edges, densities = joint_histogram([first, second], bins)
    distance = float(wasserstein_distance(first.lengths, second.lengths))
    span = (float(edges[0]), float(edges[-1]))
    a, b = _Blocks.of(first, block, span), _Blocks.of(second, block, span)
    rng = np.random.default_rng(seed)
    drawn, shifts = np.empty(replicas), np.empty((replicas, len(FIGURES)))
    for rows in _parts(replicas):
        weights = a.weights(len(rows), rng), b.weights(len(rows), rng)
        counts = weights[0] @ a.counts, weights[1] @ b.counts
        drawn[rows] = _distance(*counts, a.width)
        shifts[rows] = b.figures(weights[1], counts[1]) - a.figures(weights[0], counts[0])
    chance, p_value = _chance(a, b, distance, replicas, rng)
    least = min(a.n, b.n)
    low, high = _interval(drawn, confidence, least)
    one, other = figures_of(first.lengths), figures_of(second.lengths)
    differences = {
        name: (other[name] - one[name], *_interval(shifts[:, index], confidence, least))
        for index, name in enumerate(FIGURES)
    }
    return BondComparison(
        first.pair, first.cut, edges, (densities[0], densities[1]), distance, low, high, chance, p_value, differences,
        (a.n, b.n),
    )  # fmt: skip


def figures_of(lengths: np.ndarray) -> dict[str, float]:
    """mean, std, q05, q95 in Å and skew (third central moment over std³) of lengths [B]."""
    mean, std = float(lengths.mean()), float(lengths.std())
    skew = float(((lengths - mean) ** 3).mean() / std**3) if std > 0 else 0.0
    q05, q95 = np.quantile(lengths, [0.05, 0.95])
    return {"mean": mean, "std": std, "skew": skew, "q05": float(q05), "q95": float(q95)}


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Sums and fine counts of the lengths of each block: what resampling needs, whatever the number of bonds."""

    sums: np.ndarray
    counts: np.ndarray
    low: float
    width: float

    @classmethod
    def of(cls, bonds: BondLengths, block: float | Literal["run"], span: tuple[float, float]) -> _Blocks:
        if isinstance(block, str):
            check_choice(block, ("run",), "block")
        length = np.inf if block == "run" else float(block)
        number = joined(time_blocks(bonds.trajectory, bonds.time, length), _MOST_BLOCKS)
        of_bond = number[bonds.frame]
        n = int(number.max()) + 1
        width = max(span[1] - span[0], 1e-9) / _FINE
        bins = np.minimum(((bonds.lengths - span[0]) / width).astype(np.int64), _FINE - 1)
        counts = np.bincount(of_bond * _FINE + bins, minlength=n * _FINE).reshape(n, _FINE).astype(float)
        # Powers of the distance from one point near the mean, as powers of the length itself lose digits in the skew.
        x = bonds.lengths - span[0]
        sums = np.stack([np.bincount(of_bond, x**k, minlength=n) for k in range(4)], axis=1)
        return cls(sums, counts, span[0], width)

    @property
    def n(self) -> int:
        return len(self.sums)

    def weights(self, replicas: int, rng: np.random.Generator) -> np.ndarray:
        """How often each block is drawn, [replicas, n]."""
        return rng.multinomial(self.n, np.full(self.n, 1 / self.n), size=replicas).astype(float)

    def figures(self, weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """FIGURES of each resampling [replicas, 5]."""
        sums = weights @ self.sums
        with np.errstate(invalid="ignore", divide="ignore"):
            m1, m2, m3 = (sums[:, k] / sums[:, 0] for k in (1, 2, 3))
            variance = np.maximum(m2 - m1**2, 0)
            skew = (m3 - 3 * m1 * m2 + 2 * m1**3) / variance**1.5
        share = np.cumsum(counts, axis=1)
        share /= np.maximum(share[:, -1:], 1e-300)
        quantiles = [self.low + self.width * ((share < q).sum(axis=1) + 0.5) for q in (0.05, 0.95)]
        return np.stack([m1 + self.low, np.sqrt(variance), skew, *quantiles], axis=1)

    def resampled(self, replicas: int, rng: np.random.Generator) -> np.ndarray:
        drawn = np.empty((replicas, len(FIGURES)))
        for rows in _parts(replicas):
            weights = self.weights(len(rows), rng)
            drawn[rows] = self.figures(weights, weights @ self.counts)
        return drawn


def _chance(a: _Blocks, b: _Blocks, distance: float, replicas: int, rng: np.random.Generator) -> tuple[float, float]:
    """W when blocks are dealt to the sets at random: its 95 % quantile, and the share that reaches `distance`."""
    if min(a.n, b.n) < 2:
        return np.nan, np.nan
    counts = np.concatenate([a.counts, b.counts])
    total, dealt = counts.sum(axis=0), np.empty(replicas)
    for rows in _parts(replicas):
        order = np.argsort(rng.random((len(rows), len(counts))), axis=1)
        mine = np.zeros((len(rows), len(counts)))
        np.put_along_axis(mine, order[:, : a.n], 1.0, axis=1)
        first = mine @ counts
        dealt[rows] = _distance(first, total - first, a.width)
    # The sets as they are count among the exchanges: no p-value of zero from a finite number of them.
    return float(np.quantile(dealt, 0.95)), float((1 + (dealt >= distance).sum()) / (1 + replicas))


def _distance(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """W [replicas] of counts [replicas, fine] on the same bins."""
    with np.errstate(invalid="ignore"):
        share_a = np.cumsum(a, axis=1) / a.sum(axis=1, keepdims=True)
        share_b = np.cumsum(b, axis=1) / b.sum(axis=1, keepdims=True)
    return np.abs(share_a - share_b).sum(axis=1) * width


def _interval(drawn: np.ndarray, confidence: float, n_blocks: int) -> tuple[float, float]:
    if n_blocks < 2 or not np.isfinite(drawn).any():
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _parts(replicas: int) -> list[np.ndarray]:
    return np.array_split(np.arange(replicas), max(1, -(-replicas // _REPLICAS)))


def _some(bonds: BondLengths) -> None:
    if not len(bonds.lengths):
        raise DataError(
            f"no {pair_name(bonds.pair)} pair below {bonds.cut:g} Å", where="bonds",
            found=f"{bonds.n_frames} frames", hint="Are the elements there, and is the cut in Å?",
        )  # fmt: skip
