"""Errors of one seed: controls, the adaptation step scanned on validation frames, adaptation with each loss alone.

==============  ===================================================================
column          prediction
==============  ===================================================================
baseline        trained on labels alone
noise           trained with noise augmentation
off             trained with the tasks, not adapted
adapted         and adapted, with the step that validation chose
random          a step of equal length in every weight, with random signs
only_X          adapted with the loss of task X alone
without_X       trained and adapted without task X
==============  ===================================================================

Every column that adapts has its own length of the step, one for forces and one for energies: those with the smallest
errors on the validation frames. The random step is as long as that of "adapted".
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from scipy.stats import spearmanr

from mlipkit.analysis.features import ModelFeatures
from mlipkit.errors import DataError
from mlipkit.models import predict
from mlipkit.strategies.taip.adapt import AdaptSettings
from mlipkit.strategies.taip.arms import ABLATIONS, BASELINE, NOISE, TAIP, Arm
from mlipkit.strategies.taip.frames import ALL, SEED_STEP, losses_of, predict_adapted
from mlipkit.strategies.taip.options import TASKS, heads_of

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import Potential

OFF, ADAPTED, RANDOM = "off", "adapted", "random"
RATES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""Adaptation steps that are tried, those of an Adam."""
QUANTITIES = {"forces": "eV/Å", "energy": "eV/atom"}
"""Per-frame errors: mean absolute force component, absolute energy per atom."""
DRAWS = 16
"""Draws that the self-supervised loss of a frame is averaged over where it is set against its error: the level of noise
alone makes nearly all of the spread of a single one."""
Rates = dict[str, float]
"""Quantity -> adaptation step; of both quantities."""
Scan = dict[float, dict[str, np.ndarray]]
"""Adaptation step -> quantity -> error of each frame [F]; 0.0 is adaptation off."""
SMALLEST = 1e-12
"""A prediction that meets its label to the last digit has an error of this size: ratios need one."""


@dataclass
class Measured:
    """Errors of one seed.

    Attributes:
        seed: of the trainings.
        rates: column -> quantity -> adaptation step that was chosen on the validation frames.
        scan: quantity -> step -> error of "adapted" there; 0.0 is adaptation off. scan_tests: the same per test set: an
            oracle's, not used.
        errors: test set -> column -> quantity -> [F].
        uids: test set -> [F]. groups: test set -> [F], which simulation a frame is from; a number of its own where
            that is not known.
        correlation: test set -> rank correlation of the self-supervised loss with the error, adaptation off: of the
            mean loss over draws ("all", and each task), and of a single draw ("one draw").
        repeat: test set -> standard deviation of the set's error over seeds of the draws, as a share of it.
        change: test set -> mean norm of the step.
        seconds: "off", "adapted" -> s per frame. training_s, steps: by arm. noise_sigma: Å, of the noise augmentation.
        features: atoms ("all", or an element) -> test set (and "train") -> "baseline", "off", "adapted" -> [F,D], their
            mean in every frame that has any; only when asked for. feature_groups: the same without the last -> [F].
    """

    seed: int
    rates: dict[str, Rates]
    scan: dict[str, dict[float, float]]
    errors: dict[str, dict[str, dict[str, np.ndarray]]]
    uids: dict[str, list[int]]
    groups: dict[str, list[int]]
    scan_tests: dict[str, dict[str, dict[float, float]]] = field(default_factory=dict)
    correlation: dict[str, dict[str, float]] = field(default_factory=dict)
    repeat: dict[str, float] = field(default_factory=dict)
    change: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    training_s: dict[str, float] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    noise_sigma: float | None = None
    features: dict[str, dict[str, dict[str, np.ndarray]]] = field(default_factory=dict)
    feature_groups: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def frame_errors(predicted: FrameSet, frames: FrameSet) -> dict[str, np.ndarray]:
    """Quantity -> error of each frame [F]; quantities that the frames have no label for are left out."""
    found = {}
    if frames.has("forces").any():
        size = np.abs(np.asarray(predicted.forces) - np.asarray(frames.forces)).mean(axis=1)
        found["forces"] = np.add.reduceat(size, frames.offsets[:-1]) / frames.n_atoms
    if frames.has("energy").any():
        gap = np.asarray(predicted.energy) - np.asarray(frames.energy)
        found["energy"] = np.abs(gap) / frames.n_atoms
    return {name: np.maximum(values, SMALLEST) for name, values in found.items()}


def leading(quantities: Iterable[str]) -> str:
    """The quantity that stands for a set: forces where there are any."""
    return "forces" if "forces" in quantities else "energy"


def scan(potential: Potential, frames: FrameSet, settings: AdaptSettings, rates: Sequence[float]) -> Scan:
    """Errors of the frames for each adaptation step."""
    adapted = {rate: predict_adapted(potential, frames, replace(settings, rate=rate)).frames for rate in rates}
    return {rate: frame_errors(one, frames) for rate, one in {0.0: predict(potential, frames), **adapted}.items()}


def means(found: Scan) -> dict[str, dict[float, float]]:
    """Quantity -> adaptation step -> mean error."""
    return {name: {rate: float(errors[name].mean()) for rate, errors in found.items()} for name in found[0.0]}


def best_rate(found: Mapping[float, float]) -> float:
    """The step with the smallest error; never none at all, which is the control."""
    return min((rate for rate in found if rate > 0), key=lambda rate: (not np.isfinite(found[rate]), found[rate]))


def best_rates(found: Mapping[str, Mapping[float, float]]) -> Rates:
    """The step of each quantity; one that the frames have no label for takes that of the other.

    Raises:
        DataError: no step leaves predictions that are numbers.
    """
    rates = {name: best_rate(scanned) for name, scanned in found.items()}
    for name, rate in rates.items():
        if not np.isfinite(found[name][rate]):
            raise DataError(
                "no adaptation step leaves predictions that are numbers", where="validation",
                found=f"adaptation steps {', '.join(f'{one:g}' for one in found[name] if one)}",
                hint="Offer smaller ones",
            )  # fmt: skip
    return {name: rates.get(name, rates[leading(rates)]) for name in QUANTITIES}


def adapted_errors(
    potential: Potential, frames: FrameSet, settings: AdaptSettings, rates: Rates
) -> dict[str, np.ndarray]:
    """Errors of each quantity after a step of the length that was chosen for it."""
    found = {}
    for rate in sorted({rates[name] for name in QUANTITIES if frames.has(name).any()}):
        errors = frame_errors(predict_adapted(potential, frames, replace(settings, rate=rate)).frames, frames)
        found |= {name: values for name, values in errors.items() if rates[name] == rate}
    return found


def measure(
    arms: Mapping[str, Arm], validation: FrameSet, tests: Mapping[str, FrameSet], settings: AdaptSettings, *,
    rates: Sequence[float] = RATES, repeats: int = 3, draws: int = DRAWS, train_frames: FrameSet | None = None,
) -> Measured:  # fmt: skip
    """All errors of one seed.

    Args:
        arms: by name; "baseline", "noise" and "taip" at least.
        validation: in-distribution frames that choose the step.
        tests: by name.
        settings: of the adaptation but for its rate.
        repeats: seeds of the draws for the repeatability.
        draws: that the loss of a frame is averaged over for its correlation with the error.
        train_frames: asks for features too: of these, and of the tests.
    """
    taip = arms[TAIP].potential
    columns = {ADAPTED: (taip, settings), **_alone(taip, settings), **_without(arms, settings)}
    scans = {name: means(scan(potential, validation, how, rates)) for name, (potential, how) in columns.items()}
    chosen = {name: best_rates(scanned) for name, scanned in scans.items()}
    chosen[RANDOM] = chosen[ADAPTED]
    columns[RANDOM] = (taip, replace(settings, direction="random"))
    found = Measured(arms[TAIP].seed, chosen, scans[ADAPTED], {}, {}, {})
    found.training_s = {name: arm.training_s for name, arm in arms.items()}
    found.steps = {name: arm.steps for name, arm in arms.items()}
    found.noise_sigma = arms[NOISE].noise_sigma
    spent = {OFF: 0.0, ADAPTED: 0.0}
    for name, frames in tests.items():
        errors = {arm: frame_errors(predict(arms[arm].potential, frames), frames) for arm in (BASELINE, NOISE)}
        main = replace(settings, rate=chosen[ADAPTED][leading(errors[BASELINE])])
        begin = _clock(taip)
        predict(taip, frames)
        between = _clock(taip)
        adapted = predict_adapted(taip, frames, main)
        spent = {OFF: spent[OFF] + between - begin, ADAPTED: spent[ADAPTED] + _clock(taip) - between}
        scanned = scan(taip, frames, settings, rates)
        errors[OFF] = scanned[0.0]
        errors[ADAPTED] = {kind: scanned[chosen[ADAPTED][kind]][kind] for kind in errors[OFF]}
        errors |= {
            column: adapted_errors(potential, frames, how, chosen[column])
            for column, (potential, how) in columns.items() if column != ADAPTED
        }  # fmt: skip
        _check_numbers(name, errors)
        found.errors[name], found.uids[name] = errors, np.asarray(frames.uids).tolist()
        found.groups[name] = groups_of(frames).tolist()
        found.scan_tests[name] = means(scanned)
        found.correlation[name] = _correlations(taip, frames, settings, draws, errors[OFF][leading(errors[OFF])])
        found.change[name] = float(adapted.change.mean())
        found.repeat[name] = _repeated(taip, frames, main, repeats, adapted.frames)
        if train_frames is not None:
            _keep_features(found, name, arms, frames, adapted.features)
    found.seconds = {name: seconds / sum(map(len, tests.values())) for name, seconds in spent.items()}
    if train_frames is not None:
        main = replace(settings, rate=chosen[ADAPTED][leading(scans[ADAPTED])])
        _keep_features(found, "train", arms, train_frames, predict_adapted(taip, train_frames, main).features)
    return found


def groups_of(frames: FrameSet) -> np.ndarray:
    """[F], the simulation that each frame is from; a negative number of its own where that is not known."""
    known = np.asarray(frames.trajectory).astype(np.int64)
    return np.where(known >= 0, known, -1 - np.arange(len(frames)))


def _clock(potential: Potential) -> float:
    """s; of this process alone where it computes by itself."""
    return time.process_time() if potential.device.type == "cpu" else time.perf_counter()


def mean_features(of_atoms: np.ndarray, frames: FrameSet) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean features of a frame's atoms, "all" and of each element, and the simulations of these frames.

    Args:
        of_atoms: [N,D].

    Returns:
        "all" -> [F,D] and [F], symbol -> [f,D] and [f] for the f frames that have the element, in order.
    """
    groups = groups_of(frames)
    numbers, frame_of = np.asarray(frames.numbers), np.repeat(np.arange(len(frames)), frames.n_atoms)
    found = {}
    for name, chosen in {ALL: numbers > 0, **{chemical_symbols[z]: numbers == z for z in frames.elements}}.items():
        which, first, count = np.unique(frame_of[chosen], return_index=True, return_counts=True)
        rows = np.add.reduceat(of_atoms[chosen], first) / count[:, None].astype(of_atoms.dtype)
        found[name] = rows, groups[which]
    return found


def rank_correlation(loss: np.ndarray, error: np.ndarray) -> float:
    """Spearman's; NaN where one of them has one value only."""
    if np.ptp(loss) == 0 or np.ptp(error) == 0:
        return float("nan")
    rank: Any = spearmanr(loss, error)
    return float(rank.statistic)


def _check_numbers(test: str, columns: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Refuse predictions that are no numbers: no interval is known of them."""
    for column, quantities in columns.items():
        for quantity, values in quantities.items():
            if not np.isfinite(values).all():
                raise DataError(
                    "predictions are no numbers", where=(test, column, quantity), expected="finite errors",
                    found=f"{int((~np.isfinite(values)).sum())} of {len(values)} frames",
                    hint="Offer smaller adaptation steps" if column not in (BASELINE, NOISE, OFF) else "Train longer",
                )  # fmt: skip


def _correlations(
    taip: Potential, frames: FrameSet, settings: AdaptSettings, draws: int, error: np.ndarray
) -> dict[str, float]:
    losses = losses_of(taip, frames, settings, draws)
    one = rank_correlation(losses[ALL][0], error)
    return {"one draw": one, **{name: rank_correlation(values.mean(axis=0), error) for name, values in losses.items()}}


Columns = dict[str, tuple["Potential", AdaptSettings]]


def _alone(taip: Potential, settings: AdaptSettings) -> Columns:
    """Adaptation with each loss alone, where there are several."""
    tasks = [task for task, weight in settings.weights(heads_of(taip)).items() if weight]
    found: Columns = {}
    for task in tasks if len(tasks) > 1 else ():
        weights: dict[str, Any] = {other: float(other == task) for other in TASKS}
        found[f"only_{task}"] = (taip, replace(settings, **weights))
    return found


def _without(arms: Mapping[str, Arm], settings: AdaptSettings) -> Columns:
    return {name: (arms[name].potential, settings) for name in ABLATIONS if name in arms}


def _repeated(taip: Potential, frames: FrameSet, settings: AdaptSettings, repeats: int, first: FrameSet) -> float:
    """Standard deviation over seeds of the draws, relative to the mean."""
    others = (replace(settings, seed=settings.seed + SEED_STEP * turn) for turn in range(1, repeats))
    errors = [frame_errors(one, frames) for one in (first, *(predict_adapted(taip, frames, x).frames for x in others))]
    again = [float(one[leading(one)].mean()) for one in errors]
    return float(np.std(again, ddof=1) / np.mean(again)) if repeats > 1 else float("nan")


def _keep_features(found: Measured, test: str, arms: Mapping[str, Arm], frames: FrameSet, adapted: np.ndarray) -> None:
    of_kind = {name: ModelFeatures(arms[arm].potential)(frames) for name, arm in ((BASELINE, BASELINE), (OFF, TAIP))}
    for kind, of_atoms in {**of_kind, ADAPTED: adapted}.items():
        for atoms, (rows, groups) in mean_features(of_atoms, frames).items():
            found.features.setdefault(atoms, {}).setdefault(test, {})[kind] = rows
            found.feature_groups.setdefault(atoms, {})[test] = groups
