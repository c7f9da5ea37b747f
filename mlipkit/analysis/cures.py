"""When a cure works: its error against that of the best control, with an interval that holds for three seeds.

    δ_c = log(E_cure / E_c) ,    δ = max_c δ_c   (the ratio to the best control, exp δ = E_cure / min_c E_c)

==========  ==========================================================================
symbol      meaning
==========  ==========================================================================
``E_a``     error of arm a: (weighted) mean, or root of the mean square, over seeds, trajectories, frames
``δ_c``     log of the error ratio to control c
``δ``       log of the error ratio to the best control
==========  ==========================================================================

A cure **works** when the interval of exp δ lies below 1. Which control is best is not known either, it is a result of
the same few seeds. Taking the control that looks best and testing against it alone would call that control's luck its
merit. Instead the ends are

    lower = max_c (δ_c - w_c(α/k)) ,    upper = max_c (δ_c + w_c(α))

for k controls, confidence 1 - α and half-widths w_c of log ratios. A cure beats the best control exactly if it beats
every one, so that the upper end needs no correction for the number of controls (intersection-union test: R. L. Berger,
Technometrics 24, 295 (1982)): it is too low only where the upper end for the truly best control is, in α/2 of all
studies. "Worse than some control" is a union of claims; hence Bonferroni's k below.

The half-widths come from the hierarchical bootstrap over seeds, then trajectories, then frames
(`mlipkit.analysis.bootstrap`, method "t"). Quantiles of the draws themselves (percentile, BCa) call a cure without
effect different from its control far too often with three to five seeds; `docs/analysis.md` gives the measured rates.

Arms are paired where labels agree: equal seeds draw together, equal frames draw together. Where several seeds saw the
same frames, seeds and frames are crossed: a hard frame is hard for all, and does not average out over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from mlipkit.analysis.bootstrap import Component, Design, Level, t_half_width
from mlipkit.errors import DataError, check_choice

Answer = Literal["works", "does not", "undecided"]
Reduce = Literal["mean", "rms"]


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors of one arm, one row per evaluated frame (or trajectory) and seed.

    Attributes:
        values: [n] > 0 per-frame errors, any unit (the same in all arms), for example mean |ΔF| of each frame.
        seeds: [n] training seed of each row.
        frames: [n] what was evaluated, such as the frame's uid; the same label under two seeds or in two arms means
            the same frame (of the same trajectory). None: each row is its own.
        trajectories: [n] which trajectory the frame belongs to; frames of one trajectory are alike and draw together
            first. None: frames are independent.
        weights: [n] share of a row in the mean, such as its number of force components; None: equal.
    """

    values: ArrayLike
    seeds: ArrayLike
    frames: ArrayLike | None = None
    trajectories: ArrayLike | None = None
    weights: ArrayLike | None = None

    @classmethod
    def table(
        cls, values: ArrayLike, seeds: Sequence | None = None, frames: Sequence | None = None,
        trajectories: Sequence | None = None,
    ) -> Errors:  # fmt: skip
        """From a table [S, F]: each seed evaluated on the same frames; labels [S], [F], [F]."""
        grid = np.asarray(values, dtype=float)
        if grid.ndim != 2:
            raise DataError("a table has rows of seeds and columns of frames", where="Errors.table", found=grid.shape)
        n_seeds, n_frames = grid.shape
        rows = np.arange(n_seeds) if seeds is None else np.asarray(seeds)
        columns = np.arange(n_frames) if frames is None else np.asarray(frames)
        runs = None if trajectories is None else np.tile(np.asarray(trajectories), n_seeds)
        return cls(grid.reshape(-1), np.repeat(rows, n_frames), np.tile(columns, n_seeds), runs)


@dataclass(frozen=True)
class Against:
    """The cure against one control: ratio of errors with its own two-sided interval (no correction for the others)."""

    ratio: float
    lower: float
    upper: float


@dataclass(frozen=True)
class CureVerdict:
    """The answer, and everything it rests on.

    Attributes:
        answer: "works", "does not" or "undecided".
        sentence: the answer in one sentence, the verdict first.
        ratio: error of the cure / error of the control that did best.
        lower, upper: interval of the ratio to the best control, whichever control that is.
        half_width: of that interval, in units of the ratio.
        best_control: the control with the smallest error.
        binding_control: the control that sets the upper end: the one the cure has not been shown to beat, if any.
        effect: smallest gain of interest (0.1: a tenth off the error); an interval that excludes it says "does not".
        confidence: of the interval.
        n_seeds: smallest number of seeds of an arm; n_units: frames (or rows) of the cure.
        design: "crossed" (seeds saw the same frames) or "nested"; paired_seeds, paired_frames: what the arms share.
        against: control -> ratio and interval.
        errors: arm -> its error, the cure under "cure".
    """

    answer: Answer
    sentence: str
    ratio: float
    lower: float
    upper: float
    half_width: float
    best_control: str
    binding_control: str
    effect: float
    confidence: float
    n_seeds: int
    n_units: int
    design: Literal["crossed", "nested"]
    paired_seeds: bool
    paired_frames: bool
    against: Mapping[str, Against]
    errors: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class _Table:
    """All arms as flat rows."""

    values: np.ndarray
    weights: np.ndarray
    arm: np.ndarray
    seed: np.ndarray
    trajectory: np.ndarray
    frame: np.ndarray
    named: bool


def judge_cure(
    cure: Errors, controls: Mapping[str, Errors], *, quantity: str = "error", reduce: Reduce = "mean",
    effect: float = 0.1, confidence: float = 0.95, n_draws: int = 2000, seed: int = 0,
) -> CureVerdict:  # fmt: skip
    """Does the cure beat its best control?

    Args:
        cure: errors of the cure.
        controls: name -> errors of a control: adaptation off, a random direction, an offset alone, equal compute.
        quantity: what the errors are, for the sentence ("force MAE").
        reduce: "mean" of the values, or "rms": values are squared, averaged, and the root is taken.
        effect: smallest gain worth having, as published for the cure: an interval that contains 1 and not
            1 - effect says "does not", one that contains both says "undecided".
        n_draws: bootstrap draws per level.
        seed: of the draws.

    Raises:
        DataError: no control, values that are not positive and finite, weights that are no shares, columns of
            different length, no such `reduce`.
    """
    if not controls:
        raise DataError(
            "a cure is judged against a control", where="judge_cure", hint="Run the strategy's controls too"
        )
    if not 0 < effect < 1 or not 0 < confidence < 1:
        raise DataError("effect and confidence lie between 0 and 1", where="judge_cure", found=(effect, confidence))
    check_choice(reduce, get_args(Reduce), "reduce")
    if n_draws < 2:
        raise DataError("too few draws for an interval", where="n_draws", expected="at least 2", found=n_draws)
    names = list(controls)
    table = _flat({"cure": cure, **{f"control '{name}'": one for name, one in controls.items()}})
    design, crossed, paired_seeds, paired_frames = _design(table)
    columns = _columns(table, reduce)
    scale = 0.5 if reduce == "rms" else 1.0

    def log_ratios(sums: np.ndarray) -> np.ndarray:
        top, bottom = np.split(sums, 2, axis=-1)
        logs = scale * np.log(top / bottom)
        return logs[..., :1] - logs[..., 1:]

    parts, rng = design.components(), np.random.default_rng(seed)
    delta = log_ratios(columns.sum(axis=0))
    variances = [_variance(design, part, columns, log_ratios, n_draws, rng) for part in parts]
    if not parts:
        raise DataError(
            "one row per arm says nothing of chance", where="judge_cure", expected="several seeds or frames"
        )
    half = t_half_width(np.stack(variances), parts, confidence)
    wider = t_half_width(np.stack(variances), parts, 1 - (1 - confidence) / len(names))
    lower, upper, ratio = (float(np.exp(np.max(end))) for end in (delta - wider, delta + half, delta))
    n_seeds = min(len(np.unique(table.seed[table.arm == arm])) for arm in range(len(names) + 1))
    n_units = len(_keys(table, table.arm == 0, (table.trajectory, table.frame)))
    answer, reason = _decide(lower, upper, effect, n_seeds)
    best, binding = names[int(np.argmax(delta))], names[int(np.argmax(delta + half))]
    top, bottom = np.split(columns.sum(axis=0), 2)
    return CureVerdict(
        answer=answer,
        sentence=_sentence(answer, reason, quantity, ratio, (lower, upper), (best, binding), effect, confidence,
                           (n_seeds, n_units)),
        ratio=ratio, lower=lower, upper=upper, half_width=(upper - lower) / 2,
        best_control=best, binding_control=binding, effect=effect, confidence=confidence,
        n_seeds=n_seeds, n_units=n_units, design="crossed" if crossed else "nested",
        paired_seeds=paired_seeds, paired_frames=paired_frames,
        against={
            name: Against(*(float(x) for x in np.exp([delta[i], delta[i] - half[i], delta[i] + half[i]])))
            for i, name in enumerate(names)
        },
        errors=dict(zip(["cure", *names], (float(x) for x in (top / bottom) ** scale), strict=True)),
    )  # fmt: skip


def _decide(lower: float, upper: float, effect: float, n_seeds: int) -> tuple[Answer, str]:
    """The answer and which rule gave it."""
    if n_seeds < 2:
        return "undecided", "one seed"
    if upper < 1:
        return "works", "better"
    if lower > 1:
        return "does not", "worse"
    return ("does not", "no gain") if lower > 1 - effect else ("undecided", "wide")


def three_digits(value: float) -> str:
    """A ratio as sentences print it: 1.00 and not 1, which would read as a count."""
    # The alternate form keeps zeros at the end, and a point behind whole numbers too.
    return f"{value:#.3g}".removesuffix(".")


def _sentence(
    answer: Answer, reason: str, quantity: str, ratio: float, ends: tuple[float, float], who: tuple[str, str],
    effect: float, confidence: float, counts: tuple[int, int],
) -> str:  # fmt: skip
    (lower, upper), (best, binding) = ends, who
    held = (
        f"{confidence:.0%} interval {three_digits(lower)} to {three_digits(upper)}, "
        f"half-width {three_digits((upper - lower) / 2)}; "
        f"{counts[0]} seed{'s' if counts[0] != 1 else ''}, {counts[1]} frames"
    )
    start = {"works": "Works", "does not": "Does not work", "undecided": "Undecided"}[answer]
    subject = f"{quantity} is {three_digits(ratio)} times that of the best control ({best})"
    text = f"{start}: {subject}; {held}"
    if reason == "worse":
        text += "; a control does better"
    elif reason == "no gain":
        text += f"; a gain of {effect:.0%} is excluded"
    elif reason == "one seed":
        text += "; one seed says nothing of other seeds"
    elif reason == "wide":
        text += f"; this leaves room for no gain and for one of {effect:.0%}"
        if binding != best:
            text += f", widest against '{binding}'"
    return text + "."


def _flat(arms: Mapping[str, Errors]) -> _Table:
    """Rows of all arms; labels become numbers that mean the same in every arm."""
    parts: dict[str, list[np.ndarray]] = {key: [] for key in ("value", "weight", "arm", "seed", "trajectory", "frame")}
    named = all(one.frames is not None for one in arms.values())
    start = 0
    for number, (name, one) in enumerate(arms.items()):
        values = np.asarray(one.values, dtype=float).reshape(-1)
        n = len(values)
        if n == 0 or not np.isfinite(values).all() or (values <= 0).any():
            wrong = values[~(np.isfinite(values) & (values > 0))]
            raise DataError("errors must be finite and positive", where=("judge_cure", name),
                            found=wrong[0] if n else "no rows", hint="Count failed runs apart")  # fmt: skip
        anonymous = np.array([f"row {start + i}" for i in range(n)])
        columns: dict[str, Any] = {
            "value": values, "weight": np.ones(n) if one.weights is None else one.weights, "arm": np.full(n, number),
            "seed": one.seeds, "trajectory": np.zeros(n, dtype=int) if one.trajectories is None else one.trajectories,
            "frame": anonymous if not named or one.frames is None else one.frames,
        }  # fmt: skip
        for key, column in columns.items():
            array = np.asarray(column).reshape(-1)
            if len(array) != n:
                raise DataError(f"one {key} per value", where=("judge_cure", name), expected=n, found=len(array))
            parts[key].append(array)
        weights = parts["weight"][-1].astype(float)
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise DataError("weights must be finite and not negative, and not all zero", where=("judge_cure", name))
        start += n
    joined = {key: np.concatenate(column) for key, column in parts.items()}
    for key in ("seed", "trajectory", "frame"):
        joined[key] = np.unique(joined[key], return_inverse=True)[1].reshape(-1)
    return _Table(
        joined["value"], joined["weight"].astype(float), joined["arm"], joined["seed"], joined["trajectory"],
        joined["frame"], named,
    )  # fmt: skip


def _design(table: _Table) -> tuple[Design, bool, bool, bool]:
    """(design, crossed, seeds paired, frames paired) from which labels the arms share."""
    arms = [table.arm == number for number in range(int(table.arm.max()) + 1)]
    seeds = [set(table.seed[arm].tolist()) for arm in arms]
    units = [_keys(table, arm, (table.trajectory, table.frame)) for arm in arms]
    paired_seeds = all(own == seeds[0] for own in seeds)
    stratum = Level(table.arm, drawn=False)
    everywhere = np.ones(len(table.arm), dtype=bool)
    n_units = len(_keys(table, everywhere, (table.trajectory, table.frame)))
    # A frame that two seeds saw makes the design crossed, even where a row is missing: taken as nested, what is common
    # to a frame would count as if every seed had drawn it anew.
    crossed = table.named and len(_keys(table, everywhere, (table.seed, table.trajectory, table.frame))) > n_units
    if crossed:
        apart = sum(map(len, units)) == n_units and len(arms) > 1
        above = [table.seed] if paired_seeds else [stratum, table.seed]
        below: list[Any] = [table.trajectory, table.frame]
        return Design(above, [stratum, *below] if apart else below), True, paired_seeds, not apart
    rows = [_keys(table, arm, (table.seed, table.trajectory, table.frame)) for arm in arms]
    paired_frames = table.named and all(found == rows[0] for found in rows)
    levels: list[Any] = [table.seed, table.trajectory, table.frame]
    if not paired_frames:
        levels.insert(1 if paired_seeds else 0, stratum)
    return Design(levels), False, paired_seeds, paired_frames


def _keys(table: _Table, rows: np.ndarray, columns: tuple[np.ndarray, ...]) -> set[tuple[int, ...]]:
    return set(zip(*(column[rows].tolist() for column in columns), strict=True))


def _columns(table: _Table, reduce: Reduce) -> np.ndarray:
    """[n, 2 arms]: weighted values and weights of each arm, zero in the rows of the others."""
    mine = table.arm[:, None] == np.arange(int(table.arm.max()) + 1)
    values = table.values**2 if reduce == "rms" else table.values
    return np.concatenate([mine * (table.weights * values)[:, None], mine * table.weights[:, None]], axis=1)


def _variance(
    design: Design, part: Component, columns: np.ndarray, function: Any, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Corrected variance [k] of one component. Sums over each group first: draws then touch groups, not rows.

    Draws that hold no row of some arm, which lacks a frame of the others, do not count.
    """
    n_groups = len(design.factors[part.factor][part.level].parent)
    size = max(1, 4_000_000 // n_groups)
    found, sums = [], None
    for start in range(0, n_draws, size):
        counts, of_row = design.level_counts(part, min(size, n_draws - start), rng)
        if sums is None:
            sums = np.stack([np.bincount(of_row, column, minlength=n_groups) for column in columns.T], axis=1)
        with np.errstate(invalid="ignore"):
            found.append(function(counts @ sums))
    return np.nanvar(np.concatenate(found), axis=0) * part.groups / (part.groups - part.parents)
