"""How a simulation adapts: what its specification says, and the threshold where it leaves that to the potential."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mlipkit.data import FrameSet
from mlipkit.data.whole import read_json
from mlipkit.errors import MlipkitError, SpecError
from mlipkit.events import EventSink, Message
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.runs.places import absolute, factory_of, run_of, universal_of
from mlipkit.runs.run import spec_in
from mlipkit.runs.spec import FittingSpec, MDSpec

if TYPE_CHECKING:
    from mlipkit.models import Potential
    from mlipkit.strategies.taip import AdaptSettings, MDAdaptation

KEPT = "threshold.json"
"""The threshold that was found, in the run's folder: it stays when the run is resumed."""


def adaptation_of(spec: MDSpec, potential: Potential, base: Path, folder: Path | None, sink: EventSink) -> MDAdaptation:
    """As `mlipkit.strategies.taip.AdaptedForces` takes it.

    Raises:
        SpecError: no threshold, and the potential is no training run whose validation frames would give one.
    """
    from mlipkit.strategies.taip import AdaptSettings, MDAdaptation

    how = spec.adaptation
    settings = AdaptSettings(how.rate, how.optimiser, seed=how.seed, direction=how.direction)
    threshold = how.threshold
    if how.strategy == "threshold" and threshold is None:
        threshold = _threshold(spec, potential, settings, base, folder, sink)
    return MDAdaptation(how.strategy, settings, how.every, threshold, how.hold)


def _threshold(
    spec: MDSpec, potential: Potential, settings: AdaptSettings, base: Path, folder: Path | None, sink: EventSink
) -> float:
    from mlipkit.strategies.taip import loss_threshold

    kept = None if folder is None else folder / KEPT
    if kept is not None and kept.is_file():
        return float(read_json(kept)["threshold"])
    frames = _validation_frames(spec.potential, base)
    found = loss_threshold(potential, frames, settings)
    if kept is not None:
        write_text(kept, json.dumps({"threshold": found, "frames": len(frames), "of": spec.potential}))
    sink(Message(f"adapts where its loss is above {found:.4g}, its 99th percentile over the {len(frames)} validation "
                 f"frames of {spec.potential}"))  # fmt: skip
    return found


def _validation_frames(place: str, base: Path) -> FrameSet:
    """Those of the training run that a place names or lies in, as potentials of an evaluation do (`seed_0/taip`)."""
    from mlipkit.runs.building_train import split_frames

    path = None if factory_of(place) or universal_of(place) else absolute(place, base)
    above = path.parents if path is not None else ()
    folder = run_of(place, base) or next((one for one in above if (one / "split.json").is_file()), None)
    trained = spec_in(RunFolder(folder)) if folder is not None else None
    if folder is None or not isinstance(trained, FittingSpec):
        raise SpecError(
            "no training run, whose validation frames would give a threshold", where="adaptation.threshold",
            expected="a number, or the folder of a training run as potential", found=place,
            hint="adaptation: {strategy: threshold, threshold: NUMBER}, in Python from "
            "mlipkit.strategies.taip.loss_threshold(potential, frames, settings)",
        )  # fmt: skip
    try:
        parts = split_frames(trained, RunFolder(folder).base)
        # The data may have grown since: the frames are those that were split off then.
        told = read_json(folder / "split.json")["uids"]["validation"]
        return FrameSet.concat([parts.train, parts.validation, parts.test]).select_uids(told)
    except (MlipkitError, OSError, KeyError) as error:
        raise SpecError(
            "validation frames, which would give a threshold, cannot be read", where="adaptation.threshold",
            expected="a number, or the data of the training run where they were", found=str(error),
        ) from error  # fmt: skip
