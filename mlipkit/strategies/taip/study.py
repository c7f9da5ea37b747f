"""The whole evaluation: every seed's arms trained, measured beside their controls, and judged.

A folder holds ``study.json`` (what it is about), ``seed_K/ARM/`` (trainings), ``seed_K/measured.npz`` with
``measured.json``, at the end ``taip.json``, and ``taip_maps.npz`` where features were asked for (`maps`):

=============  ============================================================================
key            content
=============  ============================================================================
sentence       the verdict, first thing in a report
verdicts       records of `verdicts.verdicts`: test, quantity, question, answer, sentence, ratio, lower, upper, ...
ratios         error over the baseline's for off, adapted, random, noise, only_X, without_X
seeds          per seed: rates (column -> quantity -> step), scan (quantity -> step -> validation error), scan_tests (by
               test set, an oracle's), correlation, repeat, change, seconds per frame, training_s, steps, noise_sigma
shifts         feature shift (`FeatureShift`) per test set and feature set, of the first seed; when asked for
shifts_of      the same for the atoms of each element: symbol -> test set -> feature set, where the element is in four
               training frames and two of the test set
=============  ============================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data.splits import check_apart
from mlipkit.data.whole import read_json, write_whole
from mlipkit.errors import DataError, LabelError, MissingPackageError, RunError, SpecError, require
from mlipkit.events import Control, EventSink, Message, always_run, ignore
from mlipkit.models import predict
from mlipkit.strategies.taip.adapt import AdaptSettings
from mlipkit.strategies.taip.arms import BASELINE, NOISE, Arm, arm_folder, arm_names, check_steps, train_arm
from mlipkit.strategies.taip.frames import ALL
from mlipkit.strategies.taip.kept import check_recalled, facts_of, keep, recall
from mlipkit.strategies.taip.maps import feature_maps, keep_maps
from mlipkit.strategies.taip.measuring import (
    ADAPTED,
    DRAWS,
    OFF,
    RANDOM,
    RATES,
    Measured,
    frame_errors,
    leading,
    measure,
)  # fmt: skip
from mlipkit.strategies.taip.options import TaipOptions
from mlipkit.strategies.taip.verdicts import PUBLISHED, first_sentence, ratios, verdicts

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import Potential
    from mlipkit.training import TrainSettings

NAME = "taip.json"
STUDY = "study.json"
MEASURED = 2
"""Raised when seeds are measured otherwise, so that a folder holds one kind of figures."""
RESERVED = ("train",)
"""Names that stand for something else in `ARRAYS`."""


@dataclass(frozen=True)
class Study:
    """What is studied.

    Attributes:
        options: the tasks. adaptation: settings but for the rate, which is chosen. rates: steps to choose from.
        seeds: of the trainings; three at least for a verdict worth its name.
        noise_sigmas: Å, of the control with noise augmentation; of several the best on the validation frames.
        ablate: also train without each task.
        features: also measure the shift of features (needs scikit-learn).
        repeats: seeds of the draws for the repeatability. draws: that a frame's loss is averaged over where it is set
            against its error.
        effect: smallest gain of interest.
    """

    options: TaipOptions = field(default_factory=TaipOptions)
    adaptation: AdaptSettings = field(default_factory=AdaptSettings)
    rates: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = (0, 1, 2)
    noise_sigmas: tuple[float, ...] = (0.005,)
    ablate: bool = False
    features: bool = False
    repeats: int = 3
    draws: int = DRAWS
    effect: float = PUBLISHED

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SpecError("one seed or several different ones", where="seeds", found=list(self.seeds))
        if not all(isinstance(seed, int) and seed >= 0 for seed in self.seeds):
            raise SpecError("out of range", where="seeds", expected="whole numbers, 0 or more", found=list(self.seeds))
        for name in ("rates", "noise_sigmas"):
            given = getattr(self, name)
            numbers = all(isinstance(one, int | float) and 0 < one < float("inf") for one in given)
            if not given or not numbers or len(set(given)) < len(given):
                raise SpecError("one number above 0 or several different ones", where=name, found=list(given))
        for name, least in (("draws", 1), ("repeats", 2)):
            if getattr(self, name) < least:
                raise SpecError("out of range", where=name, expected=f"at least {least}", found=getattr(self, name))
        if not 0 < self.effect < 1:
            raise SpecError("out of range", where="effect", expected="between 0 and 1", found=self.effect)

    def adapted_predictions(self, n_validation: int, n_tests: Sequence[int], n_train: int = 0) -> int:
        """How many frames `measure` predicts after a step of their own at most, all seeds together."""
        tasks = sum(weight > 0 for weight in self.options.weights.values())
        alone = (tasks if tasks > 1 else 0) * (2 if self.ablate else 1)
        # A scan of all losses, of each alone, of potentials without a task; on test frames the first of these, the
        # main column once more, other draws, and at one or two steps at random and the others.
        columns = len(self.rates) + self.repeats + 2 * (1 + alone)
        each = n_validation * len(self.rates) * (1 + alone) + columns * sum(n_tests)
        return len(self.seeds) * each + (n_train if self.features else 0)


def evaluate_taip(
    study: Study, make: Callable[[int], Potential], settings: TrainSettings, train_frames: FrameSet,
    validation: FrameSet, tests: Mapping[str, FrameSet], *, shifted: Sequence[str], folder: Path | str,
    sink: EventSink = ignore, control: Control = always_run,
) -> dict[str, Any] | None:  # fmt: skip
    """Train, measure and judge, or go on where the folder stands.

    Args:
        make: seed -> potential with fresh weights.
        settings: of every training; its seeds are those of the study.
        train_frames, validation: in distribution. tests: by name. shifted: which of them are out of distribution.

    Returns:
        What is written to ``taip.json``; None when the user stopped it.

    Raises:
        DataError: a test set without a label, or none; too few frames.
        LabelError: a label that only some frames of a test set, or of the validation frames, have.
        ModelError: an element of these that the training frames do not have.
        SpecError: a test set's name that files cannot bear; a shifted one that is not there.
        MissingPackageError: features are asked for without scikit-learn.
        RunError: the folder, or something in it, belongs to another evaluation or is damaged; arms of unequal steps.
    """
    folder, potential = Path(folder), make(study.seeds[0])
    check_frames(study, potential, train_frames, validation, tests)
    if unknown := [name for name in shifted if name not in tests]:
        raise SpecError("no such test set", where="shifted", found=", ".join(unknown), expected=", ".join(tests))
    identity = _identity(study, potential, settings, train_frames, validation, tests)
    _keep_to(folder, identity)
    measured: list[Measured] = []
    for number, seed in enumerate(study.seeds):
        place = folder / f"seed_{seed}"
        found = recall(place)
        if found is not None:
            check_recalled(found, place, seed, identity, tests)
        else:
            arms: dict[str, Arm] = {}
            for name in arm_names(study.options, study.ablate):
                sigmas = study.noise_sigmas if name == NOISE else study.noise_sigmas[:1]
                trained = [
                    train_arm(
                        name, seed, make, train_frames, validation, settings, study.options, noise_sigma=sigma,
                        folder=arm_folder(place, name, sigma if len(sigmas) > 1 else None), sink=sink, control=control,
                    )
                    for sigma in sigmas
                ]  # fmt: skip
                if None in trained:
                    return None
                arms[name] = min((one for one in trained if one is not None), key=partial(_score, validation))
            check_steps(arms)
            found = measure(
                arms, validation, tests, study.adaptation, rates=study.rates, repeats=study.repeats, draws=study.draws,
                train_frames=train_frames if study.features and number == 0 else None,
            )  # fmt: skip
            keep(found, place, identity)
            sink(Message(_said(found)))
        measured.append(found)
    record = judged(study, measured, shifted)
    if study.features:
        try:
            keep_maps(feature_maps(measured[0].features[ALL]), folder)
        except (MissingPackageError, DataError) as error:  # the measures stand without them
            sink(Message(f"no maps of features: {error}", "warning"))
    write_whole(folder / NAME, (json.dumps(record, indent=1) + "\n").encode())
    sink(Message(record["sentence"]))
    return record


def _score(frames: FrameSet, arm: Arm) -> float:
    """Its error on frames that choose."""
    errors = frame_errors(predict(arm.potential, frames), frames)
    return float(errors[leading(errors)].mean())


def check_frames(
    study: Study, potential: Potential, train_frames: FrameSet, validation: FrameSet, tests: Mapping[str, FrameSet]
) -> None:
    """Refuse what would end the evaluation when everything has been trained; errors as in `evaluate_taip`."""
    if not tests:
        raise DataError("no test set", where="tests")
    if not len(validation):
        raise DataError("no frame", where="validation", hint="Split some off: they choose the adaptation step")
    for name, frames in {"validation": validation, **tests}.items():
        has = {label: int(frames.has(label).sum()) for label in ("energy", "forces")}
        if not any(has.values()):
            kind = "validation frames" if frames is validation else "a test set"
            raise DataError(f"{kind} without labels", where=name, expected="energy or forces")
        for label, found in has.items():
            if 0 < found < len(frames):
                raise LabelError(
                    f"{label} is on {found} of {len(frames)} frames", where=name, expected="on all or on none",
                    hint="Leave out the frames without it (a run does with allow_partial: true), or the label",
                )  # fmt: skip
        potential.check_elements(list(frames.elements), name)
    for name, frames in tests.items():
        if not name or "/" in name or name in RESERVED:
            raise SpecError(
                "no name for a test set", where=("tests", repr(name)), expected=f"text without '/', not {RESERVED[0]}"
            )
        if len(frames) * len(study.seeds) < 2:
            raise DataError("one frame and one seed say nothing of chance", where=name, hint="More of one")
        if study.features and (len(frames) < 2 or len(train_frames) < 4):
            raise DataError(
                "too few frames to measure a shift of features", where=name, expected="2 of test, 4 of training",
                found=f"{len(frames)} and {len(train_frames)}", hint="More frames, or features: false",
            )  # fmt: skip
    check_apart(train_frames, validation, tests)
    if study.features:
        require("sklearn.linear_model", "analysis", "measuring a shift of features")


def _identity(
    study: Study, potential: Potential, settings: TrainSettings, train_frames: FrameSet, validation: FrameSet,
    tests: Mapping[str, FrameSet],
) -> dict[str, Any]:  # fmt: skip
    """What the errors in a folder hang on, JSON-ready."""
    asked, trained = asdict(study), asdict(settings)
    for name in ("seeds", "effect"):  # these choose what is trained besides, and judge
        del asked[name]
    for name in ("shuffle_seed", "noise_seed", "device"):
        del trained[name]
    made = potential.describe()
    known = {
        "measured": MEASURED, **asked, "training": trained,
        "potential": {name: made[name] for name in ("encoder", "options", "head", "dtype")},
        "training frames": train_frames.hash, "validation frames": validation.hash,
        "tests": {name: frames.hash for name, frames in tests.items()},
    }  # fmt: skip
    return json.loads(json.dumps(known, default=str))


def _keep_to(folder: Path, known: Mapping[str, Any]) -> None:
    """Write down what a folder is about; refuse one that is about something else."""
    path = folder / STUDY
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(known, indent=1) + "\n").encode())
        return
    before = read_json(path)
    other = [name for name in known if known[name] != before.get(name)]
    if other:
        raise RunError(
            f"the folder belongs to another evaluation: {', '.join(other)} differ", where=str(path),
            hint="Give this one a folder of its own",
        )  # fmt: skip


def judged(study: Study, measured: Sequence[Measured], shifted: Sequence[str]) -> dict[str, Any]:
    """The record of a study from the errors of its seeds."""
    found = verdicts(measured, study.effect)
    columns = [column for column in next(iter(measured[0].errors.values())) if column != BASELINE]
    shifts = _shifts(measured[0]) if study.features else {}
    return {
        "sentence": first_sentence(found, shifted),
        "shifted": list(shifted),
        "verdicts": found,
        "ratios": [row for column in columns for row in ratios(measured, column)],
        "seeds": [facts_of(one) for one in measured],
        "shifts": shifts.pop(ALL, {}),
        "shifts_of": shifts,
    }


def _shifts(one: Measured) -> dict[str, Any]:
    """Frames of one simulation are alike and go together, where there are enough simulations; else each by itself."""
    from mlipkit.analysis.feature_shift import feature_shifts

    found: dict[str, Any] = {}
    for atoms, tests in one.features.items():
        train, groups = tests.get("train", {}), one.feature_groups[atoms]
        for test, kinds in tests.items():
            if test == "train" or len(groups[test]) < 2 or len(groups.get("train", ())) < 4:
                continue
            some = len(np.unique(groups["train"])) >= 4 and len(np.unique(groups[test])) >= 2
            measured = feature_shifts(
                {kind: (train[kind], rows) for kind, rows in kinds.items()},
                train_groups=groups["train"] if some else None, test_groups=groups[test] if some else None,
            )  # fmt: skip
            found.setdefault(atoms, {})[test] = {kind: asdict(one) for kind, one in measured.items()}
    return found


def _said(one: Measured) -> str:
    parts = []
    for test, columns in one.errors.items():
        quantity = leading(columns[OFF])
        figures = (f"{name} {columns[name][quantity].mean():.4g}" for name in (BASELINE, NOISE, OFF, ADAPTED, RANDOM))
        parts.append(f"{test}: {quantity} {', '.join(figures)}")
    steps = ", ".join(f"{rate:g} for {name}" for name, rate in one.rates[ADAPTED].items() if name in one.scan)
    return f"Seed {one.seed}, adaptation step {steps}. {'; '.join(parts)}"
