"""Mean squared displacement of a run, per element, and the diffusion coefficient.

    windowed     MSD(τ) = < |r_i(t+τ) - r_i(t)|² >        over atoms i of an element and all t
    from origin  MSD(τ) = < |r_i(τ) - r_i(0)|² >          over atoms i
    Einstein     D = 1/6 dMSD/dτ                          slope of a straight line over a window of τ

Positions are unwrapped by adding up displacements from frame to frame, each taken to the nearest image in the newer
cell; so a changing cell does not make displacements grow (von Bülow, Bullerjahn, Hummer, J. Chem. Phys. 153, 021101,
2020). This is right only while no atom goes half a cell from one frame to the next; a step that comes near it is
refused. The path of the centre of mass is taken off.

The windowed mean over all t costs T log T: Σ_t |r(t+τ)|² + |r(t)|² by running sums, Σ_t r(t+τ)·r(t) by a Fourier
transform (Kneller, Keiner, Kneller, Schiller, Comput. Phys. Commun. 91, 191, 1995; Calandrini et al., Collection SFN
12, 201, 2011). It needs frames that are equally spaced.

Memory is that of the positions of 64 atoms over all frames, besides the path of the centre of mass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from mlipkit.analysis.time_order import equal_spacing, one_run
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, check_choice

Origin = Literal["windowed", "first"]
TO_CM2_PER_S: Final = 0.1
"""cm²/s per Å²/fs."""
AMBIGUOUS: Final = 0.4
"""Share of a cell vector; a displacement this near to half of it may as well be one in the other direction."""
_ATOMS = 64
_SHORTEST = 20
_FRAMES = 512


@dataclass(frozen=True, eq=False)
class MSD:
    """Mean squared displacements of a run.

    Attributes:
        lag: [L] fs, the first 0.
        by_element: atomic number -> [L] Å²; total: [L] over all atoms.
        blocks: atomic number -> [K, Lb] Å² of K consecutive blocks of the run, over the first Lb lags; 0 is all atoms.
        origin: "windowed" or "first".
        drift: Å that the centre of mass went from first to last frame, and that was taken off unless `drift_removed`
            is False.
    """

    lag: np.ndarray
    by_element: Mapping[int, np.ndarray]
    total: np.ndarray
    blocks: Mapping[int, np.ndarray]
    origin: Literal["windowed", "first"]
    drift: float
    drift_removed: bool


@dataclass(frozen=True, eq=False)
class Diffusion:
    """Diffusion coefficient from the slope of a mean squared displacement.

    Attributes:
        element: atomic number, 0 for all atoms.
        value, error: cm²/s; the error is the standard error over blocks of the run, NaN without them.
        window: (first, last) lag of the fit, fs.
        exponent: slope of log MSD over log τ in the window: 1 for diffusion, below for caged, 2 for free flight.
        n_blocks: how many blocks the error comes from.
    """

    element: int
    value: float
    error: float
    window: tuple[float, float]
    exponent: float
    n_blocks: int

    @property
    def diffusive(self) -> bool:
        """Whether the exponent is near one (0.8 to 1.2); otherwise the value is the slope of something else."""
        return 0.8 <= self.exponent <= 1.2


def msd(
    frames: FrameSet,
    *,
    origin: Origin = "windowed",
    wrapped: bool = True,
    remove_drift: bool = True,
    blocks: int = 5,
) -> MSD:
    """Mean squared displacement of one run in order of time.

    Args:
        origin: average over all times of origin, or displacement from the first frame alone.
        wrapped: positions may have been wrapped into the cell; False: they are continuous, and a jump is an error.
        remove_drift: take off the path of the centre of mass.
        blocks: parts of the run for errors; none where a part would have fewer than 20 frames.

    Raises:
        DataError: not one run in order of time (`time_order.one_run`); frames that are not equally spaced, for
            "windowed"; an atom that goes about half a cell or more from one frame to the next.
    """
    check_choice(origin, get_args(Origin), "origin")
    time = one_run(frames, "msd")
    spacing = equal_spacing(time)
    if origin == "windowed" and spacing is None:
        raise DataError(
            "frames are not equally spaced in time", where="msd", hint="Use origin='first', or leave frames out."
        )
    positions = np.asarray(frames.positions).reshape(len(frames), -1, 3)
    numbers = np.asarray(frames.numbers[: positions.shape[1]])
    cell, pbc = np.asarray(frames.cell), np.asarray(frames.pbc)
    path = _path_of_centre(positions, cell, pbc, atomic_masses[numbers], wrapped)
    lag = time - time[0]
    n_blocks = blocks if len(time) >= _SHORTEST * blocks and spacing is not None and blocks > 1 else 0
    length = len(time) // n_blocks if n_blocks else 0
    sums = {int(z): np.zeros(len(time)) for z in np.unique(numbers)}
    parts = {z: np.zeros((n_blocks, length)) for z in sums}
    for first in range(0, len(numbers), _ATOMS):
        rows = np.arange(first, min(first + _ATOMS, len(numbers)))
        walk = _unwrapped(positions[:, rows], cell, pbc, wrapped)
        if remove_drift:
            walk -= path[:, None]
        whole = windowed(walk) if origin == "windowed" else ((walk - walk[0]) ** 2).sum(axis=2)
        pieces = [windowed(walk[k * length : (k + 1) * length]) for k in range(n_blocks)]
        for z in np.unique(numbers[rows]):
            mine = numbers[rows] == z
            sums[int(z)] += whole[:, mine].sum(axis=1)
            for k, piece in enumerate(pieces):
                parts[int(z)][k] += piece[:, mine].sum(axis=1)
    count = {z: int((numbers == z).sum()) for z in sums}
    by_block = {z: part / count[z] for z, part in parts.items()}
    by_block[0] = np.sum([parts[z] for z in parts], axis=0) / len(numbers)
    return MSD(
        lag=lag, by_element={z: value / count[z] for z, value in sums.items()},
        total=np.sum(list(sums.values()), axis=0) / len(numbers), blocks=by_block, origin=origin,
        drift=float(np.linalg.norm(path[-1])), drift_removed=remove_drift,
    )  # fmt: skip


def windowed(walk: np.ndarray) -> np.ndarray:
    """Mean squared displacement [T, m] over all origins of continuous positions [T, m, 3], equally spaced."""
    n = len(walk)
    # From the mean, so that the two parts that cancel stay small.
    walk = walk - walk.mean(axis=0)
    transform = np.fft.rfft(walk, 2 * n, axis=0)
    products = np.fft.irfft((transform * transform.conj()).real, 2 * n, axis=0)[:n].sum(axis=2)
    squares = np.zeros((n + 1, walk.shape[1]))
    np.cumsum((walk**2).sum(axis=2), axis=0, out=squares[1:])
    lags = np.arange(n)
    both = squares[n - lags] + squares[n] - squares[lags]
    result = (both - 2 * products) / (n - lags)[:, None]
    result[0] = 0.0
    return np.maximum(result, 0.0)


def diffusion(curve: MSD, element: int = 0, window: tuple[float, float] | None = None) -> Diffusion:
    """Diffusion coefficient from a straight line through the mean squared displacement.

    Args:
        element: atomic number; 0 for all atoms.
        window: lags in fs of the fit; 10 to 50 % of a block (of the run where it has none) when None, as the longest
            lags are averages over few origins.

    Raises:
        DataError: no such element, fewer than three lags in the window.
    """
    values = curve.total if element == 0 else curve.by_element.get(element)
    if values is None:
        raise DataError(f"no {chemical_symbols[element]} in the run", where="diffusion")
    blocks = curve.blocks[element]
    longest = curve.lag[blocks.shape[1] - 1] if blocks.size else curve.lag[-1]
    low, high = window or (0.1 * longest, 0.5 * longest)
    inside = (curve.lag >= low) & (curve.lag <= high)
    if inside.sum() < 3:
        raise DataError(
            "too few lags to fit a line",
            where="diffusion",
            expected="at least 3",
            found=f"{inside.sum()} in {low:g} to {high:g} fs",
        )
    slopes = np.empty(0)
    if blocks.size and high <= longest:
        slopes = np.array([_slope(curve.lag[: len(part)], part, inside[: len(part)]) for part in blocks])
    error = slopes.std(ddof=1) / np.sqrt(len(slopes)) if len(slopes) > 1 else np.nan
    usable = inside & (curve.lag > 0) & (values > 0)
    exponent = np.polyfit(np.log(curve.lag[usable]), np.log(values[usable]), 1)[0] if usable.sum() > 1 else np.nan
    factor = TO_CM2_PER_S / 6
    return Diffusion(
        element, _slope(curve.lag, values, inside) * factor, float(error) * factor, (float(low), float(high)),
        float(exponent), len(slopes),
    )  # fmt: skip


def _slope(lag: np.ndarray, values: np.ndarray, inside: np.ndarray) -> float:
    return float(np.polyfit(lag[inside], values[inside], 1)[0])


def _steps(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, wrapped: bool) -> tuple[np.ndarray, np.ndarray]:
    """Displacements [T-1, m, 3] Å from each frame to the next, and their largest share of a cell vector [T-1, m].

    `cell`, `pbc` [T,...] are those of the same frames.
    """
    steps = np.diff(positions, axis=0)
    if not pbc.any():
        return steps, np.zeros(steps.shape[:2])
    box = np.where(pbc[1:, :, None], cell[1:], 0.0)
    # Of axes that are not periodic nothing is known: the pseudo-inverse gives the shares along the others.
    share = steps @ (np.linalg.inv(box) if pbc.all() else np.linalg.pinv(box))
    if wrapped:
        turns = np.round(share)
        steps -= turns @ box
        share -= turns
    return steps, np.abs(share).max(axis=2)


def _path_of_centre(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, masses: np.ndarray, wrapped: bool
) -> np.ndarray:
    """Path of the centre of mass [T,3] from 0, Å; refuses steps of about half a cell on the way."""
    path = np.zeros((len(positions), 3))
    limit = AMBIGUOUS if wrapped else 0.5
    weights = masses / masses.sum()
    for first in range(0, len(positions) - 1, _FRAMES):
        part = slice(first, first + _FRAMES + 1)
        steps, share = _steps(positions[part], cell[part], pbc[part], wrapped)
        if (share > limit).any():
            frame, atom = np.unravel_index(int(np.argmax(share > limit)), share.shape)
            raise DataError(
                f"atom {atom} moves by {share[frame, atom]:.2f} of the cell from the frame before: it may as well have "
                "gone the other way", where=("msd", f"frame {first + frame + 1}"),
                expected=f"at most {limit}",
                hint="Are atoms in the same order in all frames? Else store frames more often"
                + ("." if wrapped else ", or leave wrapped=True."),
            )  # fmt: skip
        path[first + 1 : first + 1 + len(steps)] = np.einsum("tmk,m->tk", steps, weights)
    return np.cumsum(path, axis=0)


def _unwrapped(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, wrapped: bool) -> np.ndarray:
    """Continuous positions [T, m, 3], Å, from 0."""
    walk = np.zeros(positions.shape)
    for first in range(0, len(positions) - 1, _FRAMES):
        part = slice(first, first + _FRAMES + 1)
        steps, _ = _steps(positions[part], cell[part], pbc[part], wrapped)
        walk[first + 1 : first + 1 + len(steps)] = steps
    return np.cumsum(walk, axis=0, out=walk)
