"""Radial distribution functions: partial and total, for any cell, beyond half of it through the images.

    g_ab(r) = Σ_frames n_ab(r, r+Δr) / Σ_frames N_a (N_b / V) ΔV(r),      ΔV(r) = 4π/3 ((r+Δr)³ - r³)

===========  =========================================================================
symbol       meaning
===========  =========================================================================
``n_ab``     ordered pairs (an a, a b) in the shell, images included, never an atom with itself
``N_a``      atoms of element a in the frame; ``V`` its volume
===========  =========================================================================

N_b and not N_b - 1 also for a = b: the images of an atom belong to the surroundings, so that g tends to 1 exactly.
The sums run over frames before the division, so that sets with changing volume or composition are weighted by what is
there.

Coordination up to r: mean number of b within r of an a, counted and not integrated from g.

Source: M. P. Allen, D. J. Tildesley, Computer Simulation of Liquids, Oxford (2017), section 8.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from mlipkit.analysis.pairs import element_pair, near_pairs, pair_name
from mlipkit.analysis.time_order import joined, time_blocks
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, check_choice

Pair = tuple[int, int]
Normalise = Literal["density", "none"]
BLOCK = 1000.0
"""fs of the blocks that the errors of g come from."""
_MOST_BLOCKS = 20


@dataclass(frozen=True, eq=False)
class Peak:
    """A peak of g: where, how high, and the minimum behind it (NaN when the curve ends before one)."""

    r: float
    height: float
    minimum_r: float
    coordination: float


@dataclass(frozen=True, eq=False)
class RDF:
    """Radial distribution functions of a set.

    Attributes:
        edges: [B+1] Å.
        partial: (a, b) as asked -> [B]. With `normalise="density"` g, without unit; with "none" neighbours b of an a
            per Å.
        total: [B] over all atoms whatever the element; None when only some pairs were asked.
        coordination: (a, b) -> [B] mean number of b within the right edge of each bin around an a.
        error: (a, b) -> [B] standard error from blocks of time; NaN with fewer than two.
        counts: (a, b) -> int [B] pairs counted, each unordered pair once.
        normalise: "density" or "none"; n_frames, n_blocks: how many went in.
    """

    edges: np.ndarray
    partial: Mapping[Pair, np.ndarray]
    total: np.ndarray | None
    coordination: Mapping[Pair, np.ndarray]
    error: Mapping[Pair, np.ndarray]
    counts: Mapping[Pair, np.ndarray] = field(repr=False)
    normalise: Literal["density", "none"]
    n_frames: int
    n_blocks: int

    @property
    def r(self) -> np.ndarray:
        """[B] middle of each bin, Å."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    def peak(self, pair: str | Pair, after: float = 0.0, before: float = np.inf) -> Peak:
        """The highest peak between two distances in Å, and the minimum behind it."""
        key = self._key(pair)
        g, r = self.partial[key], self.r
        # A noisy bin is neither a peak nor a minimum.
        smooth = np.convolve(g, np.ones(5) / 5, mode="same")
        inside = np.flatnonzero((r >= after) & (r <= before))
        if not len(inside) or not g[inside].any():
            raise DataError(f"no {pair_name(key)} pair there", where="rdf", expected=f"{after:g} to {before:g} Å")
        top = int(inside[np.argmax(smooth[inside])])
        place, height = _vertex(r, g, smooth, top)
        limit = np.searchsorted(r, r[top] + max(1.5, 0.6 * r[top]))
        lowest = top + int(np.argmin(smooth[top : max(int(limit), top + 2)]))
        found = top < lowest < len(r) - 3
        return Peak(
            place, height, float(r[lowest]) if found else np.nan,
            float(self.coordination[key][lowest]) if found else np.nan,
        )  # fmt: skip

    def _key(self, pair: str | Pair) -> Pair:
        a, b = element_pair(pair)
        for key in ((a, b), (b, a)):
            if key in self.partial:
                return key
        raise DataError(
            f"no pair {pair_name((a, b))}", where="rdf", found=", ".join(pair_name(key) for key in self.partial)
        )


def rdf(
    frames: FrameSet,
    pairs: Sequence[str | tuple[str | int, str | int]] | None = None,
    r_max: float = 6.0,
    bins: int = 300,
    *,
    normalise: Normalise = "density",
    block: float = BLOCK,
) -> RDF:
    """Radial distribution functions of pairs of elements.

    Args:
        pairs: "O-H" or two elements each; all pairs that occur when None.
        r_max: Å; may exceed half the cell.
        normalise: "density": g. "none": neighbours per Å, for free molecules and slabs too, which have no volume.
        block: fs; frames of one block are one draw for the errors.

    Raises:
        DataError: no frames; no such normalisation; "density" asked for frames that are not periodic along all axes; an
            element that is not there.
    """
    if not len(frames):
        raise DataError("no frames", where="rdf")
    check_choice(normalise, get_args(Normalise), "normalise")
    if not (0 < r_max < np.inf and bins > 0 and bins == int(bins)):
        raise DataError("a range of distances is needed", where="rdf", found=f"r_max {r_max}, {bins} bins")
    if normalise == "density":
        _has_volume(frames)
    present = frames.elements
    asked = [element_pair(pair) for pair in pairs] if pairs else [
        (a, b) for index, a in enumerate(present) for b in present[index:]
    ]  # fmt: skip
    for pair in asked:
        if not set(pair) <= set(present):
            raise DataError(f"no pair {pair_name(pair)} in the set", where="rdf", found=f"elements {present}")
    edges = np.linspace(0.0, r_max, int(bins) + 1)
    block_of = joined(time_blocks(np.asarray(frames.trajectory), np.asarray(frames.time), block), _MOST_BLOCKS)
    n_blocks = int(block_of.max()) + 1
    counts, expected, centres = _count(frames, present, asked if pairs else None, edges, block_of)
    return _divide(edges, present, asked, pairs is None, counts, expected, centres, normalise, len(frames), n_blocks)


def _count(
    frames: FrameSet, present: tuple[int, ...], asked: Sequence[Pair] | None, edges: np.ndarray, block_of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per block: unordered pairs [G, S, S, B] with first <= second element, Σ N_a N_b / V [G, S, S], Σ N_a [G, S]."""
    size, bins, n_groups = len(present), len(edges) - 1, int(block_of.max()) + 1
    code = np.full(120, -1)
    code[list(present)] = np.arange(size)
    counts = np.zeros((n_groups, size * size * bins), np.int64)
    expected, centres = np.zeros((n_groups, size, size)), np.zeros((n_groups, size))
    volume = np.abs(np.linalg.det(np.asarray(frames.cell)))
    wanted = () if asked is None else tuple(sorted({z for pair in asked for z in pair}))
    scale = bins / edges[-1]
    for near in near_pairs(frames, float(edges[-1]), wanted):
        group = block_of[near.frame]
        codes = code[near.numbers]
        first, second = codes[near.first], codes[near.second]
        bin_of = np.minimum((near.distance * scale).astype(np.int64), bins - 1)
        place = (np.minimum(first, second) * size + np.maximum(first, second)) * bins + bin_of
        counts[group] += np.bincount(place, minlength=counts.shape[1])
        atoms = np.bincount(codes, minlength=size).astype(float)
        centres[group] += atoms
        if volume[near.frame] > 0:
            expected[group] += np.outer(atoms, atoms) / volume[near.frame]
    return counts.reshape(n_groups, size, size, bins), expected, centres


def _divide(
    edges: np.ndarray, present: tuple[int, ...], asked: Sequence[Pair], whole: bool, counts: np.ndarray,
    expected: np.ndarray, centres: np.ndarray, normalise: Literal["density", "none"], n_frames: int, n_blocks: int,
) -> RDF:  # fmt: skip
    place = {z: index for index, z in enumerate(present)}
    shell = 4 / 3 * np.pi * np.diff(edges**3) if normalise == "density" else np.diff(edges)
    partial, coordination, error, kept = {}, {}, {}, {}
    for a, b in asked:
        i, j = sorted((place[a], place[b]))
        # An unordered pair of one element is two ordered ones; of two elements each of its atoms sees one.
        pairs = counts[:, i, j] * (2 if a == b else 1)
        around = centres[:, place[a]]
        weight = expected[:, i, j] if normalise == "density" else around
        partial[a, b] = pairs.sum(axis=0) / (weight.sum() * shell)
        coordination[a, b] = np.cumsum(pairs.sum(axis=0)) / around.sum()
        error[a, b] = _error(pairs, weight, shell)
        kept[a, b] = counts[:, i, j].sum(axis=0)
    total = None
    if whole:
        weight = expected.sum() if normalise == "density" else centres.sum()
        total = 2 * counts.sum(axis=(0, 1, 2)) / (weight * shell)
    return RDF(edges, partial, total, coordination, error, kept, normalise, n_frames, n_blocks)


def _error(pairs: np.ndarray, weight: np.ndarray, shell: np.ndarray) -> np.ndarray:
    """Standard error [B] of Σ pairs / Σ weight over blocks [G, B], [G]: of a ratio, by linearisation."""
    n = len(weight)
    if n < 2:
        return np.full(pairs.shape[1], np.nan)
    ratio = pairs.sum(axis=0) / weight.sum()
    off = pairs - weight[:, None] * ratio
    return np.sqrt((off**2).sum(axis=0) * n / (n - 1)) / weight.sum() / shell


def _vertex(r: np.ndarray, g: np.ndarray, smooth: np.ndarray, top: int) -> tuple[float, float]:
    """Place in Å and height of a parabola through the bins around `top` that reach 0.8 of it."""
    high = smooth >= 0.8 * smooth[top]
    first, last = top, top
    while first > 0 and high[first - 1]:
        first -= 1
    while last < len(g) - 1 and high[last + 1]:
        last += 1
    rows = np.arange(max(0, min(first, top - 1)), min(len(g), max(last, top + 1) + 1))
    a, b, c = np.polyfit(r[rows] - r[top], g[rows], 2) if len(rows) > 2 else (0.0, 0.0, 0.0)
    shift = -b / (2 * a) if a < 0 else np.inf
    if not r[rows[0]] <= r[top] + shift <= r[rows[-1]]:
        return float(r[top]), float(g[top])
    return float(r[top] + shift), float(c + b * shift / 2)


def _has_volume(frames: FrameSet) -> None:
    free = np.flatnonzero(~np.asarray(frames.pbc).all(axis=1))
    if len(free):
        raise DataError(
            "a frame that is not periodic along all axes has no density", where=("rdf", f"frame {free[0]}"),
            found=f"{len(free)} of {len(frames)} frames",
            hint="normalise='none' gives neighbours per Å instead.",
        )  # fmt: skip
