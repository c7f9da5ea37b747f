"""Frames that a specification names, read in the worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.errors import LabelError, RunError, SpecError
from mlipkit.events import EventSink
from mlipkit.labelling.job import LABELLED
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.places import PREFIXES, absolute, factory_of, idle_at, load_factory, run_of, split_place

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

RELAXED = "relaxed.xyz"
"""Last frames of all structures of a relaxation, in their order."""


def read_frames(places: str | list[str], base: Path, sink: EventSink | None = None, **reading: Any) -> FrameSet:
    """Frames that a specification names: samples, files, other runs' trajectories, factories.

    Args:
        reading: options of `mlipkit.data.read` for files and public sets (`keys`, `units`, `allow_partial`,
            `unconverged`).

    Raises:
        DataError: as `mlipkit.data.read`.
        LabelError: as `mlipkit.data.read`, the places taken together: one without a label among others that have it.
        SpecError: a factory that cannot be found or gives no frames; `keys` or `units` that can act on none of the
            places.
    """
    texts = [places] if isinstance(places, str) else list(places)
    return _read(texts, base, sink, reading, idle_at(texts, base, reading))


def read_starts(place: str, base: Path) -> FrameSet:
    """Structures to start from: of no matter which labels, and free to move.

    Raises:
        DataError: constraints, which frames do not keep; or as `read_frames`.
    """
    from mlipkit.data.constraints import refuse_constraints, refuse_constraints_in

    if factory_of(place) is not None:
        made = load_factory(place, base)()
        images = _images_of(made)
        frames = _frames_of(images or made, place)
        refuse_constraints(images, place)
        return frames
    frames = read_frames(place, base, allow_partial=True)
    if place.partition(":")[0] not in PREFIXES and run_of(place, base) is None:
        refuse_constraints_in(file_of(place, base))
    return frames


def _read(
    texts: list[str], base: Path, sink: EventSink | None, reading: dict[str, Any], idle: Mapping[str, set[str]]
) -> FrameSet:
    """Frames of places; `idle` names the options that each of them does not take."""
    from mlipkit.data import FrameSet, read_source

    parts = []
    for text in texts:
        if factory_of(text) is not None:
            parts.append(_frames_of(load_factory(text, base)(), text))
            continue
        options = {name: value for name, value in reading.items() if value is not None and name not in idle[text]}
        if text.partition(":")[0] in PREFIXES:
            # A public set knows its own keys; only what was asked for takes their place.
            parts.append(read_source(text, **(options if text.startswith("public:") else {})))
        else:
            options = options if run_of(text, base) is None else {}
            parts.append(read_source(file_of(text, base), sink=sink, **options))
    if len(parts) == 1:
        return parts[0]
    frames = FrameSet.concat(parts)
    if not reading.get("allow_partial"):
        _check_coverage(frames, texts, parts)
    return frames


def _check_coverage(frames: FrameSet, texts: list[str], parts: list[FrameSet]) -> None:
    """Refuse labels that some frames lack, as `mlipkit.data.read` does within its files."""
    for label in ("energy", "forces", "stress"):
        found = frames.has(label)
        # Forces on a lone atom and stress without a full cell are not to be had.
        expected = found | {"forces": frames.n_atoms > 1, "stress": frames.pbc.all(1)}.get(label, True)
        if not found.any() or found[expected].all():
            continue
        row = int(np.flatnonzero(expected & ~found)[0])
        place = int(np.searchsorted(np.cumsum([len(part) for part in parts]), row, side="right"))
        raise LabelError(
            f"{label} is on {int(found.sum())} of {int(expected.sum())} frames; the first without it is in "
            f"{texts[place]}",
            where=("data", label),
            hint="Set allow_partial to train on what is there, or ignore the label with "
            f"keys: {{{label}: null}}",
        )  # fmt: skip


def _frames_of(made: Any, text: str) -> FrameSet:
    from ase import Atoms

    from mlipkit.data import FrameSet

    if isinstance(made, FrameSet):
        return made
    images = _images_of(made)
    if not images or not all(isinstance(image, Atoms) for image in images):
        raise SpecError("the factory gives no frames", where=text, expected="Atoms, a list of Atoms or a FrameSet")
    return FrameSet.from_atoms(images, source=text)


def _images_of(made: Any) -> list[Any]:
    """What a factory made, unless it is a FrameSet, which has no constraints."""
    from ase import Atoms

    from mlipkit.data import FrameSet

    if isinstance(made, Atoms):
        return [made]
    return list(made) if isinstance(made, Iterable) and not isinstance(made, FrameSet) else []


def file_of(text: str, base: Path) -> str:
    """Path, with its index, of the file that a place names, or of the frames of the run that it names."""
    path, index = absolute(text, base), split_place(text)[1]
    assert path is not None
    if run_of(text, base) is not None:
        path = _output_of(path, text)
    return f"{path}@{index}" if index else str(path)


def _output_of(run: Path, text: str) -> Path:
    """The frames of a run: labelled ones, relaxed structures, its trajectory, or as a pattern all its simulations."""
    for path in (run / LABELLED, run / RELAXED, RunFolder(run).trajectory):
        if path.is_file():
            return path
    if any(run.glob("replica_*/trajectory.traj")):
        return run / "replica_*" / "trajectory.traj"
    raise RunError("the run has stored no frame", where=text)
