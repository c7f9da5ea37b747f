"""What a loop works with: teacher, how a fresh student is made, DFT frames, settings of the two trainings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data.splits import check_apart
from mlipkit.errors import DataError
from mlipkit.strategies.workflows import work
from mlipkit.strategies.workflows.tools import SEEDS, Model

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential, Potential
    from mlipkit.training import TrainSettings

WHERE_AND_WHEN = ("device", "num_processes", "checkpoint_s", "checkpoint_steps", "evaluation_batch_size", *SEEDS)
ENDLESS = 1_000_000
"""Epochs: trainings end by their steps."""
CONTENT = "teacher_content"
"""What a teacher is, beside its name; folders from before it was told lack it."""
MOST = 300
"""Characters that are told of an error: some engines print pages."""


def published_settings(**changes: Any) -> TrainSettings:
    """AdamW, rate 5e-5, times 0.85 every 50 epochs, clip 0.1, batch 32, L1 with 4 per eV and 100 per eV/Å.

    The published optimiser is the amsgrad variant, which is not offered here.
    """
    from mlipkit.training import TrainSettings

    given: dict[str, Any] = {
        "batch_size": 32, "loss": "l1", "energy_weight": 4.0, "energy_unit": "total", "forces_weight": 100.0,
        "learning_rate": 5e-5, "schedule": "step", "schedule_factor": 0.85, "schedule_epochs": 50, "clip_norm": 0.1,
        "ema_decay": None, "points_per_epoch": 1600 * 32,
    }  # fmt: skip
    return TrainSettings(**{**given, **changes})


@dataclass
class LoopTools:
    """Tools made of plain parts.

    Attributes:
        teacher: any potential, a calculator among them (`mlipkit.models.CalculatorPotential`).
        train, validation: DFT frames that students are fine-tuned on and chosen by.
        test: DFT frames that nobody learns from.
        encoder, options, head: of the students.
        pretraining, finetuning: settings; steps and seeds come from the plan.
        teacher_tuning: settings of the fine-tuned teacher; None: as `finetuning`.
        words: what else tells these tools from others (name of the teacher, and under `CONTENT` what is in it).
        skin: Å, of neighbour lists in MD.
        batch_size: frames at a time in predictions.
        device: of students.
        accept_teacher: go on, and take stages over, although what is in the teacher has changed.
    """

    teacher: BasePotential
    train: FrameSet
    validation: FrameSet
    test: FrameSet
    encoder: str = "painn"
    options: Mapping[str, Any] = field(default_factory=dict)
    head: str = "per_atom"
    pretraining: TrainSettings | None = None
    finetuning: TrainSettings | None = None
    teacher_tuning: TrainSettings | None = None
    words: Mapping[str, Any] = field(default_factory=dict)
    skin: float = 0.5
    batch_size: int = 32
    device: str = "cpu"
    accept_teacher: bool = False

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            frames = getattr(self, name)
            lacks = {label: len(frames) - int(frames.has(label).sum()) for label in ("energy", "forces")}
            if not len(frames) or any(lacks.values()):
                found = " and ".join(f"{n} without {label}" for label, n in lacks.items() if n)
                raise DataError(
                    "DFT frames have energies and forces", where=name, expected="at least one frame, and both in all",
                    found=f"of {len(frames)} frames {found}" if found else "no frame",
                    hint="Labels under other names are found with the field keys" if found else None,
                )  # fmt: skip
            self.teacher.check_elements(list(frames.elements), f"teacher, {name}")
        check_apart(self.train, self.validation, {"test": self.test})

    @property
    def held_out(self) -> FrameSet:
        """Frames that no pool may hold."""
        from mlipkit.data import FrameSet

        return FrameSet.concat([self.validation, self.test])

    def describe(self) -> dict[str, Any]:
        def said(settings: TrainSettings | None) -> dict[str, Any]:
            record = {} if settings is None else settings.to_json()
            return {key: value for key, value in record.items() if key not in WHERE_AND_WHEN}

        return {
            **self.words, "student": {"encoder": self.encoder, "head": self.head, **dict(self.options)},
            "dft": {name: getattr(self, name).hash for name in ("train", "validation", "test")},
            "pretraining": said(self.pretraining), "finetuning": said(self.finetuning),
            "teacher_tuning": said(self.teacher_tuning),
        }  # fmt: skip

    def load(self, model: Model) -> BasePotential:
        """A student from its file; the teacher for None."""
        if model is None:
            return self.teacher.eval()
        from mlipkit.models import load

        return load(model).to(device=self.device).eval()

    def fresh(self, frames: FrameSet, seed: int, atomic_energies: Mapping[int, float] | None = None) -> Potential:
        """A student with new weights: it knows all elements of pool and DFT frames; its scale is that of the forces.

        Args:
            atomic_energies: eV; None: zero.
        """
        import torch

        from mlipkit.models import Potential, build_encoder

        elements = sorted({*frames.elements, *self.train.elements, *self.validation.elements, *self.test.elements})
        options = dict(self.options)
        if self.encoder == "egnn":
            options["elements"] = elements
        energies = dict.fromkeys(elements, 0.0) | dict(atomic_energies or {})
        scale = float(np.sqrt(np.mean(np.square(frames.forces)))) or 1.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = Potential(build_encoder(self.encoder, **options), atomic_energies=energies, scale=scale,
                             elements=elements, head=self.head)  # fmt: skip
        return made.to(self.device)

    def settings(self, which: str, steps: int, **changes: Any) -> TrainSettings:
        """Settings of "pretraining", "finetuning" or "teacher_tuning", ended by steps."""
        given = getattr(self, which) or (self.finetuning if which == "teacher_tuning" else None) or published_settings()
        return dataclasses.replace(
            given, max_steps=steps, max_epochs=ENDLESS, patience=None, time_limit_s=None, **changes
        )

    def label(self, frames: FrameSet, errors: list[str] | None = None) -> FrameSet:
        """The teacher's energies and forces; NaN where it fails.

        Args:
            errors: what it raised is added here.
        """
        from mlipkit.models import predict

        try:
            return predict(self.teacher, frames, self.batch_size)
        except Exception as error:  # calculators raise whatever they like
            if len(frames) == 1:
                if errors is not None:
                    errors.append(told(error))
                return frames.with_labels(energy=float("nan"), forces=float("nan"))
            parts = [self.label(frames[k : k + 1], errors) for k in range(len(frames))]
            energy = np.concatenate([part.energy for part in parts])
            return frames.with_labels(energy=energy, forces=np.concatenate([part.forces for part in parts]))

    def predict(self, potential: BasePotential, frames: FrameSet) -> FrameSet:
        """Energies and forces of any potential."""
        from mlipkit.models import predict

        return predict(potential, frames, self.batch_size)

    def close(self) -> None:
        """Nothing is kept between calls."""


def as_told(words: Mapping[str, Any] | None, others: Mapping[str, Any] | None) -> dict[str, Any]:
    """What tools say of themselves, as far as others do: whether both are the same."""
    return work.as_told(words, others, CONTENT)


def told(error: Exception) -> str:
    """Kind and text of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:MOST]


def structures(frames: FrameSet, count: int, seed: int) -> Sequence[int]:
    """Rows of start structures: drawn without repetition as long as there are enough."""
    order = np.random.default_rng(seed).permutation(len(frames))
    return [int(order[k % len(order)]) for k in range(count)]
