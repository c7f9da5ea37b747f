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
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
from mlipkit.strategies.taip.frames import predict_adapted
from mlipkit.strategies.taip.options import TASKS, heads_of

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

OFF, ADAPTED, RANDOM = "off", "adapted", "random"
ALL = "all"
"""Features of all atoms, beside those of each element."""
RATES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""Adaptation steps that are tried, those of an Adam."""
QUANTITIES = {"forces": "eV/Å", "energy": "eV/atom"}
"""Per-frame errors: mean absolute force component, absolute energy per atom."""
SMALLEST = 1e-12
"""A prediction that meets its label to the last digit has an error of this size: ratios need one."""


@dataclass
class Measured:
    """Errors of one seed.

    Attributes:
        seed: of the trainings.
        rate: adaptation step that was chosen on the validation frames. scan: step -> force (or energy) error there;
            0.0 is adaptation off. scan_tests: the same per test set: an oracle's, not used.
        errors: test set -> column -> quantity -> [F].
        uids: test set -> [F].
        correlation: test set -> rank correlation of the self-supervised loss with the error, adaptation off.
        repeat: test set -> standard deviation of the set's error over seeds of the draws, as a share of it.
        change: test set -> mean norm of the step.
        seconds: "off", "adapted" -> s per frame. training_s, steps: by arm.
        features: atoms ("all", or an element) -> test set (and "train") -> "baseline", "off", "adapted" -> [F,D], their
            mean in every frame that has any; only when asked for.
    """

    seed: int
    rate: float
    scan: dict[float, float]
    errors: dict[str, dict[str, dict[str, np.ndarray]]]
    uids: dict[str, list[int]]
    scan_tests: dict[str, dict[float, float]] = field(default_factory=dict)
    correlation: dict[str, float] = field(default_factory=dict)
    repeat: dict[str, float] = field(default_factory=dict)
    change: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    training_s: dict[str, float] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    features: dict[str, dict[str, dict[str, np.ndarray]]] = field(default_factory=dict)


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


def chosen_by(errors: Mapping[str, np.ndarray]) -> np.ndarray:
    """The errors that choose the step: of the forces where there are any."""
    return errors["forces"] if "forces" in errors else errors["energy"]


def scan(arm: Arm, frames: FrameSet, settings: AdaptSettings, rates: Sequence[float]) -> dict[float, float]:
    """Mean error of the frames for each adaptation step; 0.0 is adaptation off."""
    found = {0.0: float(chosen_by(frame_errors(predict(arm.potential, frames), frames)).mean())}
    for rate in rates:
        adapted = predict_adapted(arm.potential, frames, replace(settings, rate=rate))
        found[rate] = float(chosen_by(frame_errors(adapted.frames, frames)).mean())
    return found


def best_rate(found: Mapping[float, float]) -> float:
    """The step with the smallest error; never none at all, which is the control."""
    return min((rate for rate in found if rate > 0), key=lambda rate: (not np.isfinite(found[rate]), found[rate]))


def measure(
    arms: Mapping[str, Arm], validation: FrameSet, tests: Mapping[str, FrameSet], settings: AdaptSettings, *,
    rates: Sequence[float] = RATES, repeats: int = 3, train_frames: FrameSet | None = None,
) -> Measured:  # fmt: skip
    """All errors of one seed.

    Args:
        arms: by name; "baseline", "noise" and "taip" at least.
        validation: in-distribution frames that choose the step.
        tests: by name.
        settings: of the adaptation but for its rate.
        repeats: seeds of the draws for the repeatability.
        train_frames: asks for features too: of these, and of the tests.
    """
    taip = arms[TAIP]
    scanned = scan(taip, validation, settings, rates)
    rate = best_rate(scanned)
    if not np.isfinite(scanned[rate]):
        raise DataError(
            "no adaptation step leaves predictions that are numbers", where="validation",
            found=f"adaptation steps {', '.join(f'{one:g}' for one in rates)}", hint="Offer smaller ones",
        )  # fmt: skip
    chosen = replace(settings, rate=rate)
    found = Measured(taip.seed, rate, scanned, {}, {})
    found.training_s = {name: arm.training_s for name, arm in arms.items()}
    found.steps = {name: arm.steps for name, arm in arms.items()}
    for name, frames in tests.items():
        columns = {arm: frame_errors(predict(arms[arm].potential, frames), frames) for arm in (BASELINE, NOISE)}
        begin = time.process_time()
        columns[OFF] = frame_errors(predict(taip.potential, frames), frames)
        off_s = time.process_time() - begin
        begin = time.process_time()
        adapted = predict_adapted(taip.potential, frames, chosen)
        found.seconds = {"off": off_s / len(frames), "adapted": (time.process_time() - begin) / len(frames)}
        columns[ADAPTED] = frame_errors(adapted.frames, frames)
        columns[RANDOM] = _random(taip, frames, chosen)
        columns |= _alone(taip, frames, chosen)
        columns |= _without(arms, frames, chosen)
        found.errors[name], found.uids[name] = columns, np.asarray(frames.uids).tolist()
        found.scan_tests[name] = scan(taip, frames, settings, rates)
        found.correlation[name] = rank_correlation(adapted.loss, chosen_by(columns[OFF]))
        _check_numbers(name, columns)
        found.change[name] = float(adapted.change.mean())
        found.repeat[name] = _repeated(taip, frames, chosen, repeats, float(chosen_by(columns[ADAPTED]).mean()))
        if train_frames is not None:
            _keep_features(found, name, arms, frames, adapted.features)
    if train_frames is not None:
        adapted = predict_adapted(taip.potential, train_frames, chosen)
        _keep_features(found, "train", arms, train_frames, adapted.features)
    return found


def mean_features(of_atoms: np.ndarray, frames: FrameSet) -> dict[str, np.ndarray]:
    """Mean features of a frame's atoms, "all" and of each element.

    Args:
        of_atoms: [N,D].

    Returns:
        "all" -> [F,D], symbol -> [f,D] for the f frames that have the element, in order.
    """
    numbers, frame_of = np.asarray(frames.numbers), np.repeat(np.arange(len(frames)), frames.n_atoms)
    found = {}
    for name, chosen in {ALL: numbers > 0, **{chemical_symbols[z]: numbers == z for z in frames.elements}}.items():
        _, first, count = np.unique(frame_of[chosen], return_index=True, return_counts=True)
        found[name] = np.add.reduceat(of_atoms[chosen], first) / count[:, None].astype(of_atoms.dtype)
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


def _random(taip: Arm, frames: FrameSet, settings: AdaptSettings) -> dict[str, np.ndarray]:
    return frame_errors(predict_adapted(taip.potential, frames, replace(settings, direction="random")).frames, frames)


def _alone(taip: Arm, frames: FrameSet, settings: AdaptSettings) -> dict[str, dict[str, np.ndarray]]:
    """Adaptation with each loss alone, where there are several."""
    tasks = [task for task, weight in settings.weights(heads_of(taip.potential)).items() if weight]
    found: dict[str, dict[str, np.ndarray]] = {}
    for task in tasks if len(tasks) > 1 else ():
        weights: dict[str, Any] = {other: float(other == task) for other in TASKS}
        found[f"only_{task}"] = frame_errors(
            predict_adapted(taip.potential, frames, replace(settings, **weights)).frames, frames
        )
    return found


def _without(arms: Mapping[str, Arm], frames: FrameSet, settings: AdaptSettings) -> dict[str, dict[str, np.ndarray]]:
    return {
        name: frame_errors(predict_adapted(arms[name].potential, frames, settings).frames, frames)
        for name in ABLATIONS
        if name in arms
    }


def _repeated(taip: Arm, frames: FrameSet, settings: AdaptSettings, repeats: int, first: float) -> float:
    """Standard deviation over seeds of the draws, relative to the mean."""
    again = [first]
    for turn in range(1, repeats):
        other = predict_adapted(taip.potential, frames, replace(settings, seed=settings.seed + 7919 * turn))
        again.append(float(chosen_by(frame_errors(other.frames, frames)).mean()))
    return float(np.std(again, ddof=1) / np.mean(again)) if repeats > 1 else float("nan")


def _keep_features(found: Measured, test: str, arms: Mapping[str, Arm], frames: FrameSet, adapted: np.ndarray) -> None:
    of_kind = {name: ModelFeatures(arms[arm].potential)(frames) for name, arm in ((BASELINE, BASELINE), (OFF, TAIP))}
    for kind, of_atoms in {**of_kind, ADAPTED: adapted}.items():
        for atoms, rows in mean_features(of_atoms, frames).items():
            found.features.setdefault(atoms, {}).setdefault(test, {})[kind] = rows
