"""Training from scratch and fine-tuning: what they say of a situation."""

from __future__ import annotations

from typing import Any

from mlipkit.strategies.applies.answers import Answer, Expected
from mlipkit.strategies.applies.situation import Situation

LEAST = 3
"""One frame to train on, one to validate with, one for the test."""
TRAIN_EPOCHS, TRAIN_BATCH = 200, 10
TUNE_EPOCHS, TUNE_BATCH = 50, 4
HELD_OUT = 0.1
"""Share of the frames for validation, and as much for the test."""
MOST_LISTS = 1 << 30
"""Bytes of neighbour lists that training keeps at most."""


def training(situation: Situation) -> Answer:
    """Training from scratch: it needs labels and nothing else."""
    frames, rates = situation.frames, situation.rates
    expected = _expected(situation, rates.new_gradient, rates.new_bytes, TRAIN_EPOCHS)
    spec = _spec(situation, {"kind": "train", "max_epochs": TRAIN_EPOCHS, "batch_size": TRAIN_BATCH})
    n_train = _n_train(frames.labelled)
    return Answer.of(
        "train", "Training from scratch",
        ready=f"teaches a new potential {n_train} of {frames.labelled} labelled frames, the others judge it",
        needs=[situation.torch(), situation.labels(LEAST), situation.memory(expected.peak_bytes)],
        expected=expected, spec=spec,
    )  # fmt: skip


def finetuning(situation: Situation) -> Answer:
    """Fine-tuning: labels, and a potential that knows the elements and has weights."""
    frames, rates, potential = situation.frames, situation.rates, situation.potential
    expected = _expected(situation, rates.gradient, rates.potential_bytes, TUNE_EPOCHS)
    spec = None
    if potential is not None and potential.place:
        fields = {"kind": "finetune", "potential": potential.place, "max_epochs": TUNE_EPOCHS, "batch_size": TUNE_BATCH}
        spec = _spec(situation, fields)
    title = potential.title if potential is not None else ""
    return Answer.of(
        "finetune", "Fine-tuning",
        ready=f"adapts {title} to {_n_train(frames.labelled)} of {frames.labelled} labelled frames, the others judge "
        "it",
        why_not=situation.untrainable(),
        needs=[
            situation.torch(), situation.a_potential(), situation.weights(), situation.labels(LEAST),
            situation.memory(expected.peak_bytes),
        ],
        expected=expected, spec=spec,
    )  # fmt: skip


def _n_train(labelled: int) -> int:
    return max(labelled - 2 * max(1, round(HELD_OUT * labelled)), 0)


def _spec(situation: Situation, fields: dict[str, Any]) -> dict[str, Any] | None:
    frames = situation.frames
    if not frames.place:
        return None
    spec: dict[str, Any] = {**fields, "data": frames.place}
    loss: dict[str, float] = {}
    if frames.labelled:
        spec |= {"allow_partial": True} if min(_there(situation)) < frames.n else {}
        loss = {name: 0.0 for name in ("energy", "forces") if not getattr(frames, name)}
    return {**spec, "loss": loss} if loss else spec


def _there(situation: Situation) -> list[int]:
    """Coverage of the labels that are there at all."""
    frames = situation.frames
    return [count for count in (frames.energy, frames.forces, frames.stress) if count] or [0]


def _expected(situation: Situation, gradient: float | None, peak: int | None, epochs: int) -> Expected:
    frames, rates = situation.frames, situation.rates
    enough = frames.labelled >= LEAST
    n = frames.labelled if enough else frames.n
    labels = 0 if enough else frames.n - frames.labelled
    n_train = _n_train(n)
    seconds = None
    if gradient is not None:
        # Validation costs about half a gradient per frame.
        seconds = epochs * (n_train + 0.5 * (n - n_train) / 2) * gradient
        if labels:
            seconds = None if rates.label is None else seconds + labels * rates.label
    if peak is not None:
        peak += min(n * (rates.list_bytes or 0), MOST_LISTS)
    basis = f"{epochs} epochs of {n_train} frames at most, one gradient measured" if gradient is not None else ""
    return Expected(labels, seconds, peak, basis)
