"""The check of the training space: what counts as inside, and the check that a simulation is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlipkit.errors import DataError, SpecError
from mlipkit.events import EventSink, Message
from mlipkit.runs.building_data import _read, read_frames
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.places import absolute, idle_at, run_of, split_place
from mlipkit.runs.run import spec_in
from mlipkit.runs.spec import FittingSpec
from mlipkit.runs.spec_md import OutsideSpec, listed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ase import Atoms

    from mlipkit.analysis import OODModel
    from mlipkit.data import FrameSet
    from mlipkit.md import OutsideCheck

MODEL = "outside.safetensors"
"""The fitted space, in the run's folder."""
FIT_ON = 300
"""Frames at most that a space is fitted on, evenly chosen: more change it little."""


class SoapQ:
    """`mlipkit.analysis.LiveScorer` as `mlipkit.md.OutsideCheck` asks for scores."""

    quantity = "SOAP Q"

    def __init__(self, model: OODModel) -> None:
        from mlipkit.analysis import LiveScorer

        self._scorer = LiveScorer(model)

    def score(self, numbers, positions, cell, pbc) -> tuple[np.ndarray, np.ndarray]:
        found = self._scorer.score(numbers, positions, cell, pbc)
        return found.q, found.limit


def outside_check(
    spec: OutsideSpec, structures: Iterable[tuple[str, Atoms]], files: RunFolder, base: Path, sink: EventSink
) -> OutsideCheck:
    """The check of a specification; the space is fitted once and kept in the run's folder.

    Args:
        structures: (place, structure) of all that is going to move.

    Raises:
        DataError: a start that cannot be scored: an element that the space lacks, a cell without periodic flags.
    """
    from mlipkit.analysis import OODModel
    from mlipkit.data import FrameSet
    from mlipkit.md import OutsideCheck

    kept = files.path / MODEL
    if kept.is_file():
        model = OODModel.load(kept)
    else:
        model = _model_of(spec, base)
        model.save(kept)
        facts = model.facts
        sink(Message(f"outside: {facts['frames']} frames of {spec.fit_on} count as inside ({kept.name})"))
    for place, atoms in structures:
        try:
            model.check(FrameSet.from_atoms([atoms], source=place))
        except DataError as error:
            raise DataError(error.what, where=("outside", *error.where), expected=error.expected, found=error.found,
                            hint=error.hint) from None  # fmt: skip
    return OutsideCheck(
        scorer=SoapQ(model), every=spec.every, warn=None if spec.then == "fail" else spec.factor,
        fail=spec.factor if spec.then == "fail" else None, keep=spec.most if spec.then == "keep" else 0,
        apart=spec.apart,
    )  # fmt: skip


def _model_of(spec: OutsideSpec, base: Path) -> OODModel:
    from mlipkit.analysis import OODModel

    path = absolute(spec.fit_on, base)
    if path is not None and path.is_file() and path.suffix == ".safetensors":
        return OODModel.load(path)
    frames = training_frames(spec.fit_on, base)
    if len(frames) > FIT_ON:
        frames = frames.select(np.linspace(0, len(frames) - 1, FIT_ON).round().astype(int))
    return OODModel.fit(frames, components=spec.components)


def training_frames(place: str, base: Path) -> FrameSet:
    """The frames a place names; of a training run those that it trained on.

    Raises:
        SpecError: some frames of a training run.
    """
    folder = run_of(place, base)
    spec = spec_in(RunFolder(folder)) if folder is not None else None
    if folder is None or not isinstance(spec, FittingSpec):
        return read_frames(place, base, allow_partial=True)
    if split_place(place)[1]:
        raise SpecError("a training run takes no index here: all that it trained on is inside", where=place)
    home = RunFolder(folder).base
    reading = {"keys": spec.keys, "units": spec.units, "allow_partial": True}
    # As in training, an option may be meant for the validation file alone.
    frames = _read(listed(spec.data), home, None, reading, idle_at(spec.frame_places, home, reading))
    record = json.loads((folder / "split.json").read_text())
    return frames.select_uids(record["uids"]["train"])
