"""What a workflow needs done, as plain callables: the workflow knows the order, the tools know how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlipkit.events import Control, EventSink, Verdict

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.data import FrameSet

Model = Path | None
"""Weights of a fine-tuned model, or None: the universal model untouched."""
SEEDS = ("shuffle_seed", "noise_seed")
"""Settings of a fine-tuning that belong to the plan: workflows of several seeds have the same tools."""
CONTENT = "universal_content"
"""What is in the universal model, beside its name; folders from before it was told lack it."""


class Stopped(Exception):
    """Raised by a tool when the user ended its work half-way; called again it goes on there."""


@dataclass(frozen=True)
class Rates:
    """Measured cost of one unit of each deed, s. None: not measured. `atoms`: of the structure it was measured on."""

    md_step: float | None = None
    label: float | None = None
    gradient: float | None = None
    prediction: float | None = None
    atoms: int = 0


class Failure(Protocol):
    uid: str
    reason: str


class Labelled(Protocol):
    """What `mlipkit.labelling.label_frames` gives."""

    @property
    def frames(self) -> FrameSet | None: ...
    @property
    def failed(self) -> Any: ...
    @property
    def seconds(self) -> float: ...
    @property
    def n_asked(self) -> int: ...


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model on disk and what is said of it.

    Attributes:
        best: weights, readable by `mlipkit.models.load`.
        facts: JSON-ready: sentence, best_epoch, worse_than_start, frame_gradients, shifts, metrics.
    """

    best: Path
    facts: Mapping[str, Any]


class Tools(Protocol):
    """Every call gets a folder of its own in which it may resume; a user's stop raises `Stopped`."""

    def describe(self) -> dict[str, Any]:
        """Model, label maker, recipe: whatever must be equal for two arms to be compared. JSON-ready."""
        ...

    def structures(self, count: int, seed: int, folder: Path) -> FrameSet:
        """Start structures."""
        ...

    def relax(self, model: Model, frames: FrameSet, folder: Path, sink: EventSink, control: Control) -> FrameSet:
        """Frames relaxed with a model, in their order."""
        ...

    def simulate(
        self, model: Model, start: Atoms, options: Mapping[str, Any], seeds: Mapping[str, int], folder: Path,
        sink: EventSink, control: Control,
    ) -> Verdict:  # fmt: skip
        """MD into ``folder/trajectory.traj``: the start first, then every ``options["stride"]`` steps."""
        ...

    def label(self, frames: FrameSet, folder: Path, sink: EventSink, control: Control) -> Labelled:
        """Labels of frames; those that fail are listed with the engine's reason."""
        ...

    def finetune(
        self, model: Model, train: FrameSet, validation: FrameSet, options: Mapping[str, Any], seeds: Mapping[str, int],
        folder: Path, sink: EventSink, control: Control,
    ) -> Tuned:  # fmt: skip
        """A model tuned on labelled frames, ``options["epochs"]`` epochs at most."""
        ...

    def predict(self, model: Model, frames: FrameSet) -> FrameSet:
        """The frames with the model's energy, forces and stress as labels."""
        ...

    def measure(self, folder: Path) -> Rates:
        """Time one unit of each deed."""
        ...

    def close(self) -> None:
        """Let go of what is kept between calls; nothing is lost by it."""
        ...
